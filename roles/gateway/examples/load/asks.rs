//! As many requests as get through, one under way on each connection.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::connection::{Connection, question};
use crate::process::used;
use crate::{Outcome, quantile};

/// Not measured: connections are opened, caches filled.
const WARM: Duration = Duration::from_millis(500);

pub(crate) async fn measure(
    url: &str,
    pid: u32,
    connections: usize,
    time: Duration,
) -> Outcome<Value> {
    let body = question(std::env::var_os("STREAM").is_some());
    let begun = Instant::now();
    let asking = (0..connections).map(|_| {
        let (url, body) = (url.to_owned(), body.clone());
        tokio::spawn(async move {
            let mut connection = Connection::open(&url).await?;
            let mut took = Vec::new();
            while begun.elapsed() < WARM + time {
                let asked = Instant::now();
                let (status, _) = connection.whole(body.clone(), None).await?;
                if status != 200 {
                    return Err(format!("status {status}").into());
                }
                if begun.elapsed() > WARM {
                    took.push(asked.elapsed());
                }
            }
            Outcome::Ok(took)
        })
    });
    let asking: Vec<_> = asking.collect();
    tokio::time::sleep(WARM).await;
    let (before, since) = (used(pid), Instant::now());
    let mut took = Vec::new();
    for task in asking {
        took.extend(task.await??);
    }
    Ok(figures(took, since.elapsed(), pid, before.cpu))
}

/// Figures of requests that took so long each, in `time` all together.
pub(crate) fn figures(
    mut took: Vec<Duration>,
    time: Duration,
    pid: u32,
    before: Duration,
) -> Value {
    took.sort_unstable();
    let after = used(pid);
    json!({
        "requests": took.len(),
        "rps": took.len() as f64 / time.as_secs_f64(),
        "p50_ms": quantile(&took, 0.5),
        "p99_ms": quantile(&took, 0.99),
        "cpu_us": (after.cpu - before).as_secs_f64() * 1e6 / took.len().max(1) as f64,
        "rss_mib": after.rss_mib,
    })
}
