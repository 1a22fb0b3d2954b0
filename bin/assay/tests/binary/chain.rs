//! `assay chain` as a process: it says where it is, survives being killed, and shares with nobody.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{assay, done, json as parse, refused};

/// A running `assay chain run --dev`.
struct Running {
    child: Child,
    ready: Value,
}

impl Running {
    fn start(data: &Path) -> Self {
        let mut command = assay();
        command
            .args(["chain", "run", "--dev", "--json", "--rpc", "127.0.0.1:0", "--data"])
            .arg(data);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line.is_empty() {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("the chain did not become ready: {said}");
        }
        Self { child, ready: serde_json::from_str(&line).unwrap() }
    }

    fn rpc(&self) -> &str {
        self.ready["rpc"].as_str().unwrap()
    }

    fn tool(&self, arguments: &[&str]) -> Value {
        let mut command = assay();
        command.arg("chain").args(arguments).args(["--json", "--rpc", self.rpc()]);
        parse(&done(command.output().unwrap()))
    }

    fn height(&self) -> u64 {
        self.tool(&["status"])["head"]["number"].as_u64().unwrap()
    }

    /// Gives somebody ether, and waits until it is there.
    fn drip(&self) {
        let before = self.height();
        self.tool(&["faucet", "0x00000000000000000000000000000000000000aa"]);
        let begun = Instant::now();
        while self.height() == before {
            assert!(begun.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let status = self.child.wait().unwrap();
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(status.success() && !said.contains("panicked"), "{status}: {said}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_chain_lives_on_after_being_killed_and_is_exported_and_taken_in() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("chain");
    let running = Running::start(&data);
    assert_eq!(running.ready["chain_id"], 31_337);
    assert_eq!(running.ready["accounts"].as_array().unwrap().len(), 10);
    running.drip();
    running.drip();

    let mut second = assay();
    second.args(["chain", "run", "--dev", "--rpc", "127.0.0.1:0", "--data"]).arg(&data);
    let (code, said) = refused(&mut second);
    assert_eq!(code, 8, "{said}");
    assert!(said.contains("in use"), "{said}");

    // SIGKILL, then again from what is on disk.
    drop(running);
    let running = Running::start(&data);
    assert_eq!(running.height(), 2);
    running.drip();
    let head = running.tool(&["status"])["head"]["hash"].clone();
    running.stop();

    let file = folder.path().join("blocks.rlp");
    let with = |name: &str, data: &Path| {
        let mut command = assay();
        command.args(["chain", name, "--dev", "--json", "--data"]).arg(data).arg(&file);
        parse(&done(command.output().unwrap()))
    };
    assert_eq!(with("export", &data)["blocks"], 3);
    let copy = folder.path().join("copy");
    let taken = with("import", &copy);
    assert_eq!(taken["head"], json!({ "number": 3, "hash": head }));

    let mut other = assay();
    other.args(["chain", "run", "--dev", "--chain-id", "7", "--rpc", "127.0.0.1:0", "--data"]);
    let (code, said) = refused(other.arg(&data));
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("genesis"), "{said}");
}

#[test]
fn a_snapshot_starts_a_chain() {
    let folder = tempfile::tempdir().unwrap();
    let (data, copy) = (folder.path().join("chain"), folder.path().join("copy"));
    let running = Running::start(&data);
    running.drip();
    running.stop();
    let file = folder.path().join("state");
    let with = |name: &str, data: &Path| {
        let mut command = assay();
        command.args(["chain", "snapshot", name, "--dev", "--json", "--data"]).arg(data).arg(&file);
        parse(&done(command.output().unwrap()))
    };
    let saved = with("save", &data);
    assert_eq!(saved["block"]["number"], 1);
    assert_eq!(with("load", &copy)["block"], saved["block"]);
    let running = Running::start(&copy);
    assert_eq!(running.height(), 1);
    running.drip();
    running.stop();
}

#[test]
fn keys_are_made_under_a_password() {
    let folder = tempfile::tempdir().unwrap();
    let account = |name: &str, password: &str| {
        let mut command = assay();
        command.args(["chain", "account", "--json", "--keystore"]).arg(folder.path()).arg(name);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        // Who lists asks for no password, and may have ended by now.
        let _ = child.stdin.take().unwrap().write_all(password.as_bytes());
        child.wait_with_output().unwrap()
    };
    let made = parse(&done(account("new", "secret\n")));
    let listed = parse(&done(account("list", "")));
    assert_eq!(made["accounts"], listed["accounts"]);
    assert_eq!(account("new", "").status.code(), Some(2));
}

#[test]
fn a_chain_needs_a_beginning() {
    let (code, said) = refused(assay().args(["chain", "run", "--rpc", "127.0.0.1:0"]));
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("--genesis") && said.contains("--dev"), "{said}");
}
