//! Many slow streams at once: how late their pieces come through.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::http::header;
use axum::routing::post;
use futures_util::stream;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::{interval, sleep, sleep_until};

use crate::connection::{Connection, question};
use crate::process::used;
use crate::{Outcome, quantile};

/// Between two pieces of a slow stream.
const PIECE_EVERY: Duration = Duration::from_millis(500);
/// Between two streams that are opened.
const OPEN_EVERY: Duration = Duration::from_millis(1);
/// Connections that the system holds until they are taken.
const BACKLOG: u32 = 4096;

pub(crate) async fn measure(url: &str, pid: u32, count: usize, time: Duration) -> Outcome<Value> {
    let idle = used(pid);
    let open = Arc::new(AtomicUsize::new(0));
    let opened = Instant::now();
    let measured_from = opened + OPEN_EVERY * u32::try_from(count)? + Duration::from_secs(2);
    let mut streams = Vec::new();
    let mut pace = interval(OPEN_EVERY);
    for _ in 0..count {
        pace.tick().await;
        let follow = follow(url.to_owned(), Arc::clone(&open), measured_from, time);
        streams.push(tokio::spawn(follow));
    }
    sleep_until((measured_from + time / 2).into()).await;
    let (at_once, busy) = (open.load(Ordering::Relaxed), used(pid));
    let (mut late, mut failed, mut why) = (Vec::new(), 0, None);
    for stream in streams {
        match stream.await? {
            Ok(found) => late.extend(found),
            Err(error) => {
                failed += 1;
                why = Some(error.to_string());
            }
        }
    }
    late.sort_unstable();
    Ok(json!({
        "streams": at_once,
        "failed": failed,
        "why": why,
        "pieces": late.len(),
        "late_p50_ms": quantile(&late, 0.5),
        "late_p99_ms": quantile(&late, 0.99),
        "idle_rss_mib": idle.rss_mib,
        "rss_mib": busy.rss_mib,
    }))
}

/// Reads one stream; how late each of its pieces came while it was measured.
async fn follow(
    url: String,
    open: Arc<AtomicUsize>,
    from: Instant,
    time: Duration,
) -> Outcome<Vec<Duration>> {
    let mut connection = Connection::open(&url).await?;
    let reply = connection.ask(question(true), None).await?;
    if reply.status() != 200 {
        return Err(format!("status {}", reply.status()).into());
    }
    open.fetch_add(1, Ordering::Relaxed);
    let mut body = reply.into_body();
    let mut late = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        let arrived = now();
        let Some(sent) = frame.data_ref().and_then(|data| said(data)) else { continue };
        let at = Instant::now();
        if at > from + time {
            break;
        }
        if at > from {
            late.push(arrived.saturating_sub(sent));
        }
    }
    open.fetch_sub(1, Ordering::Relaxed);
    Ok(late)
}

/// Since the epoch.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// When a piece was sent, by its own word.
fn said(data: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(data).ok()?.strip_prefix("data: ")?;
    Some(Duration::from_micros(text.lines().next()?.parse().ok()?))
}

/// Serves slow streams that do not end.
pub(crate) async fn serve(address: &str) -> Outcome {
    let slow = || async {
        let pieces = stream::unfold((), |()| async {
            sleep(PIECE_EVERY).await;
            Some((Ok::<_, Infallible>(format!("data: {}\n\n", now().as_micros())), ()))
        });
        ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(pieces))
    };
    let router = Router::new().route("/v1/chat/completions", post(slow));
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address.parse()?)?;
    let listener: TcpListener = socket.listen(BACKLOG)?;
    Ok(axum::serve(listener, router).await?)
}
