//! An external server computes, and the receipts say no more than they know.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Up, assay, json, refused};

/// A running llama-server; it ends with the test.
struct Server(Child, String);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server of the shipped model. The program: `ASSAY_LLAMA_SERVER`, or what `xtask` builds for the benchmarks.
#[expect(clippy::print_stderr, reason = "what is not tested is said loudly")]
fn server(context: &str) -> Option<Server> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let built = root.join("target/bench/peers/llama-native/bin/llama-server");
    let named = std::env::var_os("ASSAY_LLAMA_SERVER").map(PathBuf::from);
    let Some(program) = [named, Some(built)].into_iter().flatten().find(|path| path.is_file())
    else {
        eprintln!("SKIPPED: there is no llama-server; name one by ASSAY_LLAMA_SERVER");
        return None;
    };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new(program);
    command.arg("-m").arg(root.join("assets/nano/nano-q8_0.gguf"));
    command.args(["--host", "127.0.0.1", "-np", "1", "-t", "1", "-c", context]);
    command.args(["--port", &port.to_string()]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed() < Duration::from_secs(40), "llama-server does not listen");
        std::thread::sleep(Duration::from_millis(50));
    }
    Some(Server(child, format!("http://127.0.0.1:{port}")))
}

#[test]
fn a_servers_answers_are_sold_as_scored() {
    let Some(server) = server("4096") else { return };
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start_with(folder.path(), "ASSAY_BACKEND", &server.1);
    let receipt = folder.path().join("receipt.json");
    let answer = up.ask("12+45=", &receipt);
    assert_eq!(answer["text"], "57");
    let kept: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&receipt).unwrap()).unwrap();
    assert_eq!(kept["receipt"]["assurance"], "scored");
    let verify = |file: &Path| {
        let mut verify = assay();
        verify.arg("verify").arg(file).args(["--json", "--data-dir"]).arg(folder.path());
        verify.output().unwrap()
    };
    let output = verify(&receipt);
    assert_eq!(output.status.code(), Some(12));
    let said = json(&String::from_utf8(output.stdout).unwrap());
    assert!(said["verdict"].is_null() && said["blame"].is_null(), "{said}");
    assert_eq!(said["agreeing"], said["tokens"]["output"], "{said}");
    // What needs no computation is judged as ever.
    let mut altered = kept;
    altered["text"] = "58".into();
    std::fs::write(&receipt, altered.to_string()).unwrap();
    assert_eq!(verify(&receipt).status.code(), Some(10));
    up.stop();
}

#[test]
fn what_is_no_backend_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let check = |url: &str, code: i32, words: &[&str]| {
        let mut up = assay();
        up.args(["up", "--port", "0", "--rpc-port", "0", "--threads", "1", "--backend", url]);
        let (found, said) = refused(up.arg("--data-dir").arg(folder.path()));
        assert!(found == code && words.iter().all(|word| said.contains(word)), "{found}: {said}");
    };
    check("http://127.0.0.1:1", 6, &["cannot answer for model nano", "start the server first"]);
    if let Some(server) = server("64") {
        check(&server.1, 3, &["has a context of", "--context"]);
    }
}
