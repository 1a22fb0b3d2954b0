//! Models come from a hub: whole, or after a kill.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::fake_hub::{FakeHub, Mood, sha256};
use crate::support::{assay, done, json, refused};

const NANO: &[u8] = include_bytes!("../../../../assets/nano/nano-q8_0.gguf");
const FILE: &str = "nano-q8_0.gguf";

fn hub() -> FakeHub {
    FakeHub::new(&[(FILE, NANO), ("nano-Q4_K_M.gguf", b"no model"), ("README.md", b"# nano")])
}

fn pull(hub: &FakeHub, data: &Path) -> Command {
    let mut pull = at(&hub.endpoint, data);
    pull.args(["org/name", "--no-accuracy", "--json"]);
    pull
}

fn at(endpoint: &str, data: &Path) -> Command {
    let mut pull = assay();
    for name in ["HF_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        pull.env_remove(name);
    }
    pull.env("HF_ENDPOINT", endpoint).args(["model", "pull", "--data-dir"]).arg(data);
    pull
}

#[test]
fn a_model_is_pulled_and_found_by_its_name() {
    let (hub, folder) = (hub(), tempfile::tempdir().unwrap());
    let pulled = json(&done(pull(&hub, folder.path()).output().unwrap()));
    assert_eq!(pulled["schema"], "assay.pull/1");
    assert_eq!(pulled["source"], format!("0x{}", sha256(NANO)));
    assert_eq!(pulled["hub"]["licence"], "apache-2.0");
    assert_eq!(pulled["hub"]["files"][0]["sha256"], sha256(NANO));
    assert_eq!(pulled["hub"]["bytes_fetched"], NANO.len());
    // What was fetched is a model now, and takes no room twice.
    assert!(!folder.path().join("downloads/org/name").exists());
    for name in ["org/name", "org/name:Q8_0", "hf.co/org/name:nano-q8_0.gguf"] {
        let mut show = assay();
        show.args(["model", "show", name, "--json", "--data-dir"]).arg(folder.path());
        assert_eq!(json(&done(show.output().unwrap()))["id"], pulled["id"]);
    }
    // A second time nothing is fetched.
    let bytes = hub.heard("large").len();
    let again = json(&done(pull(&hub, folder.path()).output().unwrap()));
    assert_eq!((&again["id"], &again["hub"]["bytes_fetched"]), (&pulled["id"], &0.into()));
    assert_eq!(hub.heard("large").len(), bytes);
}

#[test]
fn after_a_kill_it_goes_on_where_it_stopped() {
    let (hub, folder) = (hub(), tempfile::tempdir().unwrap());
    hub.set(Mood::Slow(100_000));
    let mut command = pull(&hub, folder.path());
    command.args(["--piece-bytes", "50000", "--connections", "2"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let note = folder.path().join(format!("downloads/org/name/{FILE}.part.json"));
    let began = Instant::now();
    let is_under_way = || {
        let text = std::fs::read_to_string(&note).unwrap_or_default();
        text.contains("\"done\":[") && !text.contains("\"done\":[]")
    };
    while !is_under_way() {
        assert!(began.elapsed() < Duration::from_secs(30), "nothing is fetched");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!folder.path().join(format!("downloads/org/name/{FILE}")).exists());
    let mut ls = assay();
    ls.args(["model", "ls", "--json", "--data-dir"]).arg(folder.path());
    assert_eq!(json(&done(ls.output().unwrap()))["models"].as_array().unwrap().len(), 0);

    hub.set(Mood::Honest);
    let pulled = json(&done(pull(&hub, folder.path()).output().unwrap()));
    let (found, fetched) = (&pulled["hub"]["bytes_found"], &pulled["hub"]["bytes_fetched"]);
    assert!(found.as_u64().unwrap() >= 50_000, "{found}");
    assert_eq!(found.as_u64().unwrap() + fetched.as_u64().unwrap(), NANO.len() as u64);
    assert_eq!(pulled["source"], format!("0x{}", sha256(NANO)));
}

#[test]
fn two_do_not_fetch_the_same() {
    let (hub, folder) = (hub(), tempfile::tempdir().unwrap());
    hub.set(Mood::Silent);
    let mut command = pull(&hub, folder.path());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while hub.heard("large").is_empty() {
        assert!(began.elapsed() < Duration::from_secs(30), "nothing is asked for");
        std::thread::sleep(Duration::from_millis(5));
    }
    let (code, said) = refused(&mut pull(&hub, folder.path()));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(code == 8 && said.contains("is being fetched"), "{said}");
}

#[test]
fn refusals_say_what_to_do() {
    let (hub, folder) = (hub(), tempfile::tempdir().unwrap());
    let check = |model: &str, endpoint: &str, code: i32, words: &[&str]| {
        let (found, said) = refused(at(endpoint, folder.path()).arg(model));
        assert!(found == code && words.iter().all(|word| said.contains(word)), "{found}: {said}");
    };
    let endpoint = hub.endpoint.clone();
    check("name", &endpoint, 2, &["ORG/NAME"]);
    check("org/../x", &endpoint, 2, &["ORG/NAME"]);
    check("org/other", &endpoint, 4, &["no such model", "HF_TOKEN"]);
    check("org/name:Q6_K", &endpoint, 4, &["Q6_K", "org/name:FILE.gguf", FILE]);
    check("org/name", "http://127.0.0.1:1", 6, &["nobody answers", "HF_ENDPOINT"]);
    check("org/name", "hub", 2, &["is no hub"]);
    check("org/name:Q4_K_M", &endpoint, 3, &["cannot be imported"]);
    hub.stage.lock().unwrap().gated = true;
    check("org/name", &endpoint, 5, &["is gated", "/org/name", "HF_TOKEN"]);
    hub.stage.lock().unwrap().gated = false;
    hub.set(Mood::Lies);
    check("org/name", &endpoint, 10, &["does not hash", "run it again"]);
    let mut show = assay();
    show.args(["model", "show", "org/name", "--data-dir"]).arg(folder.path());
    let (code, said) = refused(&mut show);
    assert!(code == 4 && said.contains("assay model pull org/name"), "{said}");
}

/// For clients of others: `cargo test -p assay --test binary -- --ignored fake_hub`, then `HF_ENDPOINT`.
#[test]
#[ignore = "serves for a minute"]
fn fake_hub_for_others() {
    let hub = FakeHub::new(&[(FILE, NANO), ("config.json", b"{}"), ("README.md", b"# nano")]);
    eprintln!("HF_ENDPOINT={}", hub.endpoint);
    std::thread::sleep(Duration::from_secs(60));
}
