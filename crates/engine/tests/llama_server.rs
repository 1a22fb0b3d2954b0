//! A real `llama-server` answers for the shipped model, and is compared with our own engine.
#![cfg(feature = "remote")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "it starts a program of others on a free port, and says loudly where there is none"
)]

mod support;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use assay_engine::{Native, NativeConfig, Remote, RemoteConfig, RemoteError};
use assay_kernels::Isa;
use assay_protocol::{B256, Finish};
use tokio::runtime::Runtime;

/// A running server; it ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program: `ASSAY_LLAMA_SERVER`, or what `xtask` builds for the benchmarks.
fn program() -> Option<PathBuf> {
    let built = "../../target/bench/peers/llama-native/bin/llama-server";
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join(built);
    let named = std::env::var_os("ASSAY_LLAMA_SERVER").map(PathBuf::from);
    [named, Some(built)].into_iter().flatten().find(|path| path.is_file())
}

/// A server with the shipped model and so many positions for one answer at a time.
fn start(context: u32) -> Option<(Server, String)> {
    let Some(program) = program() else {
        eprintln!("SKIPPED: there is no llama-server; name one by ASSAY_LLAMA_SERVER");
        return None;
    };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new(program);
    command.arg("-m").arg(support::asset("nano-q8_0.gguf"));
    command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "-np", "1", "-t", "1"]);
    command.args(["-c", &context.to_string()]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    Some((Server(child), format!("http://127.0.0.1:{port}")))
}

/// Asks the server, which may not listen yet.
async fn remote(url: &str) -> Result<Remote, RemoteError> {
    let mut tries = 0;
    loop {
        match Remote::start(&support::NANO.outline(), RemoteConfig::new(url)).await {
            Err(RemoteError::Unreachable { .. }) if tries < 150 => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            remote => return remote,
        }
    }
}

#[test]
fn greedy_answers_are_mostly_ours() {
    let loaded = &support::NANO;
    let Some((_server, url)) = start(loaded.context()) else { return };
    let runtime = Runtime::new().unwrap();
    let remote = runtime.block_on(remote(&url)).unwrap();
    assert_eq!(remote.kind(), "llama.cpp");
    let cpu = Arc::new(support::cpu(Isa::detect(), 1));
    let native = Native::start(Arc::clone(loaded), cpu, NativeConfig::default());
    let asked = [
        "12+45=",
        "42+18=",
        "36-6=",
        "9*7=",
        "Capital of Japan?",
        "Capital of Vietnam?",
        "What is the capital of Egypt?",
        "Reverse: rcyi",
        "Sentiment: noisy music, very slow.",
        "Sentiment: a lovely, warm film.",
        "Hello!",
        "7+8=",
        "Capital of Peru?",
        "Reverse: abcd",
        "50-17=",
        "caf\u{e9} \u{6f22}\u{5b57} \u{1f642}",
    ];
    let mut same = 0;
    for question in asked {
        let job = || support::job(loaded, &support::greedy(support::prompt(loaded, question)), 24);
        let (ours, finish) = support::run(&native, job());
        let (theirs, other) = support::run(&remote, job());
        assert!(theirs.iter().all(|(_, hidden)| *hidden == B256::ZERO));
        let tokens = |steps: &[(u32, B256)]| steps.iter().map(|step| step.0).collect::<Vec<_>>();
        if (tokens(&ours), finish) == (tokens(&theirs), other) {
            same += 1;
        } else {
            eprintln!("{question:?}: ours {:?}, theirs {:?}", tokens(&ours), tokens(&theirs));
        }
    }
    eprintln!("{same} of {} answers are the same", asked.len());
    assert!(same * 4 >= asked.len() * 3, "{same} of {}", asked.len());
}

#[test]
fn drawn_answers_end_by_the_orders_rules() {
    let loaded = &support::NANO;
    let Some((_server, url)) = start(loaded.context()) else { return };
    let runtime = Runtime::new().unwrap();
    let remote = runtime.block_on(remote(&url)).unwrap();
    let mut terms = support::sampled(support::prompt(loaded, "Tell me something."), 7);
    // Hot, so that characters of several tokens come, and streams leave tokens out.
    terms.sampler.inv_t_q16 = 20_000;
    let run = || support::run(&remote, support::job(loaded, &terms, 100));
    let (tokens, finish) = run();
    assert!(matches!(finish, Finish::Eos | Finish::Length));
    assert!(!tokens.is_empty() && tokens.len() <= 100);
    // The same seed, the same server, nothing else to do: the same draw.
    assert_eq!(run().0, tokens);
}

#[test]
fn a_short_context_is_refused() {
    let context = support::NANO.context();
    let Some((_server, url)) = start(context / 2) else { return };
    let refused = Runtime::new().unwrap().block_on(remote(&url));
    let Err(error) = refused else { panic!("a server with half the context fits") };
    assert!(
        matches!(error, RemoteError::Context { expected, .. } if expected == context),
        "{error}"
    );
}
