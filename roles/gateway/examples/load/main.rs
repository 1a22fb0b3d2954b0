//! Measures what stands between a client and a server that speaks OpenAI, one JSON line per figure. Meant for a
//! release build:
//!
//! ```text
//! load asks URL PID CONNECTIONS SECONDS     requests a second with as many under way as there are connections,
//!                                           their latency, and what a request costs the process PID and its
//!                                           children; STREAM=1 asks for server-sent events
//! load pays URL PID CONNECTIONS SECONDS     the same, each request paid by a voucher of x402's batch-settlement,
//!                                           one channel a connection; PAYER is a file with a key that has ASY
//! load streams URL PID COUNT SECONDS        COUNT slow streams at once: how late their pieces come
//! load slow ADDRESS                         a server for `streams`: a piece every half a second, with its time
//! ```
//!
//! `BEARER` in the environment is sent as token, `MODEL` is the model that is asked.
#![expect(clippy::print_stdout, reason = "figures are printed")]

mod asks;
mod connection;
mod pays;
mod process;
mod streams;

use std::error::Error;
use std::time::Duration;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // One thread, so that what is measured has a core of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match words.as_slice() {
            [what @ ("asks" | "pays" | "streams"), url, pid, count, seconds] => {
                let (pid, count) = (pid.parse()?, count.parse()?);
                let time = Duration::from_secs(seconds.parse()?);
                let figures = match *what {
                    "asks" => asks::measure(url, pid, count, time).await?,
                    "pays" => pays::measure(url, pid, count, time).await?,
                    _ => streams::measure(url, pid, count, time).await?,
                };
                println!("{figures}");
                Ok(())
            }
            ["slow", address] => streams::serve(address).await,
            _ => Err("see the head of this example's source for what it measures".into()),
        }
    })
}

/// The value below which `share` of `sorted` lies, in milliseconds.
fn quantile(sorted: &[Duration], share: f64) -> f64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).map_or(0.0, Duration::as_secs_f64) * 1e3
}
