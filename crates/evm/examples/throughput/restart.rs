//! A chain with a million accounts, killed while it works, and started again.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_primitives::Bytes;
use assay_evm::clock::SystemClock;
use assay_evm::producer::{self, Production};
use assay_evm::{Node, NodeConfig};
use rayon::prelude::*;
use serde_json::json;

use super::{Outcome, inside, say, size, wallet};

const SENDERS: usize = 1_000;

fn config(directory: &Path) -> Outcome<NodeConfig> {
    Ok(NodeConfig {
        genesis: inside::genesis(&wallet::wallets(SENDERS))?,
        directory: Some(directory.to_owned()),
        producer: producer::Config {
            production: Production::OnDemand,
            drift_max: Duration::from_secs(1 << 20),
            ..Default::default()
        },
        ..Default::default()
    })
}

/// Sends transactions, each to an account that is new, until it is killed.
pub(crate) fn fill(directory: &Path) -> Outcome {
    let runtime = tokio::runtime::Runtime::new()?;
    let _inside = runtime.enter();
    let wallets = wallet::wallets(SENDERS);
    let node = Node::start(config(directory)?, Arc::new(SystemClock))?;
    for round in 0_u64.. {
        let raw: Vec<Bytes> = (0..SENDERS * 10)
            .into_par_iter()
            .map(|at| {
                let (sender, nonce) = (at % SENDERS, round * 10 + (at / SENDERS) as u64);
                let to = wallet::sink(round as usize * SENDERS * 10 + at);
                wallet::transfer(&wallets[sender], wallet::CHAIN, nonce, to).into()
            })
            .collect();
        for added in node.mempool().add_many(&raw) {
            added?;
        }
        while node.mempool().status().pending > SENDERS * 10 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let done = (round + 1) as usize * SENDERS * 10 - node.mempool().status().pending;
        std::fs::write(directory.join("done"), done.to_string())?;
    }
    Ok(())
}

/// Fills a chain in a process of its own, kills that, and starts the chain again.
pub(crate) fn measure(directory: &Path) -> Outcome {
    let count = size("COUNT", 1_000_000);
    std::fs::create_dir_all(directory)?;
    let done = || -> usize {
        let text = std::fs::read_to_string(directory.join("done"));
        text.ok().and_then(|text| text.parse().ok()).unwrap_or_default()
    };
    if done() < count {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["fill".as_ref(), directory.as_os_str()])
            .stdout(Stdio::null())
            .spawn()?;
        while done() < count {
            if let Some(status) = child.try_wait()? {
                return Err(format!("the filling process ended by itself: {status}").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // SIGKILL, in the middle of whatever it does.
        child.kill()?;
        child.wait()?;
    }
    let bytes = std::fs::metadata(directory.join("chain.redb"))?.len();
    let config = config(directory)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let _inside = runtime.enter();
    let begun = Instant::now();
    let node = Node::start(config, Arc::new(SystemClock))?;
    let seconds = begun.elapsed().as_secs_f64();
    let head = node.chain().head();
    if head.state.root() != head.header.state_root {
        return Err("the state is not the one that the head names".into());
    }
    let first = head.state.account(&wallet::sink(0)).is_some();
    let last = head.state.account(&wallet::sink(count / 2)).is_some();
    if !(first && last) {
        return Err("accounts are missing".into());
    }
    say("recover_s", json!({ "seconds": seconds, "accounts": count, "head": head.header.number }));
    say("disk_bytes_per_1m_transactions", json!(bytes as f64 * 1e6 / done() as f64));
    runtime.block_on(node.stop());
    Ok(())
}
