//! The suite on a chain that is not ours: Foundry's anvil, as `npm ci` in `contracts` brings it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on should stop, and says when it skips"
)]

mod story;

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use assay_chain::Client;

/// anvil on a free port; ends with this value.
struct Anvil {
    process: Child,
    url: String,
}

impl Drop for Anvil {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// None, said aloud, where npm has not brought anvil.
async fn anvil() -> Option<Anvil> {
    let modules = concat!(env!("CARGO_MANIFEST_DIR"), "/../../contracts/node_modules/@foundry-rs");
    let program = ["anvil-linux-amd64", "anvil-linux-arm64", "anvil-darwin-arm64"]
        .map(|package| PathBuf::from(modules).join(package).join("bin/anvil"));
    let Some(program) = program.into_iter().find(|path| path.exists()) else {
        eprintln!("SKIPPED: no anvil; run `npm ci` in contracts");
        return None;
    };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let process = Command::new(program)
        .args(["--port", &port.to_string(), "--silent"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let anvil = Anvil { process, url: format!("http://127.0.0.1:{port}") };
    for _ in 0..600 {
        if Client::connect(&anvil.url, None).await.is_ok() {
            return Some(anvil);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("anvil does not answer within a minute");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_lives_on_anvil() {
    if let Some(anvil) = anvil().await {
        story::told(&anvil.url).await;
    }
}
