//! Measures the chain, one JSON line per figure. Meant for a release build:
//!
//! ```text
//! throughput recover                       signatures recovered per second, one core and all
//! throughput erc20 [DIR]                   token transfers per second in process: pool, execution,
//!                                          trie and durable store; without DIR, in memory
//! throughput restart DIR                   fills a chain in DIR with a million transactions to a
//!                                          million accounts, kills the process that does it, and
//!                                          times the start after that; bytes on disk as well
//! throughput load URL...                   native transfers per second through the JSON-RPC of each
//!                                          node, with the same generator; the accounts that
//!                                          development tools share must have money there
//! throughput serve ADDRESS [DIR]           a node for `load`, with a block at most every INTERVAL
//!                                          milliseconds (default 1000, as with anvil's
//!                                          `--block-time 1`; 0: as soon as a transaction waits)
//! ```
//!
//! `COUNT`, `SENDERS`, `CONNECTIONS` and `BATCH` in the environment change the sizes.
#![expect(clippy::print_stdout, reason = "figures are printed")]

mod inside;
mod load;
mod restart;
mod wallet;

use std::error::Error;
use std::time::Instant;

use serde_json::{Value, json};

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["recover"] => recover(),
        ["erc20"] => inside::erc20(None),
        ["erc20", directory] => inside::erc20(Some(directory.as_ref())),
        ["restart", directory] => restart::measure(directory.as_ref()),
        ["fill", directory] => restart::fill(directory.as_ref()),
        ["serve", address] => load::serve(address, None),
        ["serve", address, directory] => load::serve(address, Some(directory.as_ref())),
        ["load", urls @ ..] if !urls.is_empty() => load::compare(urls),
        _ => Err("see the head of this example's source for what it measures".into()),
    }
}

fn say(figure: &str, value: Value) {
    println!("{}", json!({ "figure": figure, "value": value }));
}

/// A size from the environment.
fn size(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn per_second(count: usize, begun: Instant) -> f64 {
    (count as f64 / begun.elapsed().as_secs_f64()).round()
}

fn recover() -> Outcome {
    use alloy_consensus::TxEnvelope;
    use alloy_consensus::transaction::SignerRecoverable;
    use alloy_eips::Decodable2718;
    use rayon::prelude::*;

    let count = size("COUNT", 100_000);
    let wallets = wallet::wallets(100);
    let raw: Vec<_> = (0..count)
        .into_par_iter()
        .map(|at| wallet::transfer(&wallets[at % 100], wallet::CHAIN, at as u64, wallet::sink(at)))
        .collect();
    let recover = |raw: &Vec<u8>| {
        let envelope = TxEnvelope::decode_2718(&mut raw.as_slice()).ok();
        envelope.and_then(|envelope| envelope.recover_signer().ok()).is_some()
    };
    let begun = Instant::now();
    let one = raw.iter().filter(|raw| recover(raw)).count();
    let one_core = per_second(one, begun);
    let begun = Instant::now();
    let all = raw.par_iter().filter(|raw| recover(raw)).count();
    let cores = rayon::current_num_threads();
    assert_eq!((one, all), (count, count), "every signature is good");
    say(
        "recover_per_s",
        json!({ "one_core": one_core, "all": per_second(all, begun), "cores": cores }),
    );
    Ok(())
}
