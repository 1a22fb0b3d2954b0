//! Programs that run while something is measured, and end with it.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{line, root};

/// Longest that a program may take to start.
const START_MAX: Duration = Duration::from_secs(120);

/// A process that ends with this value.
pub(super) struct Running(pub(super) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) trait Start {
    fn running(&mut self) -> Result<Running>;
}

impl Start for Command {
    fn running(&mut self) -> Result<Running> {
        let child = self.stdout(Stdio::null()).spawn();
        child.map(Running).with_context(|| format!("{} cannot run", line(self)))
    }
}

/// A port that nobody listens on.
pub(super) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Waits until somebody listens on a port.
pub(super) fn wait_for(port: u16) -> Result<()> {
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if begun.elapsed() > START_MAX {
            bail!("nothing listens on port {port}");
        }
        sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Our binary, as it is measured.
pub(super) fn binary() -> PathBuf {
    root().join("target/release/assay")
}

/// The JSON document that a command prints.
pub(super) fn said(command: &mut Command) -> Result<Value> {
    eprintln!("==> {}", line(command));
    let output = command.output().with_context(|| format!("{} cannot run", line(command)))?;
    if !output.status.success() {
        bail!("{}: {}", line(command), String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("it prints JSON")
}
