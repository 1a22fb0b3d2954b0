//! More of other people's clients against a network of this machine: LangChain's standard tests of a chat
//! model, the AI SDK, servebench, which measures servers and must meet no error, and those of the tests of
//! llama.cpp's server that apply to any.
//!
//! What they need is installed from pinned versions on the first run and kept in `target/clients`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::bench::engine::peer::llama_source;
use crate::sdk::{Running, environment, node_packages, sdk, tests};
use crate::{embeddings, root, step};

/// Requests that servebench makes at each load.
const REQUESTS: usize = 16;

/// Runs them all.
pub(crate) fn run() -> Result<()> {
    let (folder, ours) = (root().join("target/clients"), sdk().join("clients"));
    let python = environment(&folder.join("venv"), &ours.join("requirements.txt"))?;
    node_packages(&ours)?;
    let network = Running::network()?;
    let url = network.gateway()?.to_owned();
    eprintln!("    a network answers at {url}");

    step("AI SDK", network.told_to_gateway(tests("clients").arg("ai.test.mjs"))?)?;

    let mut langchain = Command::new(&python);
    langchain.args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]);
    // Its clients are kept between tests, and so is what they run on.
    for scope in ["test", "fixture"] {
        langchain.args(["-o", &format!("asyncio_default_{scope}_loop_scope=session")]);
    }
    langchain.args(["-o", "asyncio_mode=auto"]).arg(ours.join("test_langchain.py"));
    langchain.env("PYTHONDONTWRITEBYTECODE", "1");
    step("LangChain's standard tests", network.told_to_gateway(&mut langchain)?)?;

    let files = ["test_basic.py", "test_chat_completion.py"];
    llama_servers(&python, &Running::aliased_network()?, &files)?;
    if let Some(network) = embeddings::network()? {
        llama_servers(&python, &network, &["test_embedding.py"])?;
    }

    let said = folder.join("servebench.json");
    let _ = fs::remove_file(&said);
    let mut bench = Command::new(python.with_file_name("servebench"));
    bench.args(["run", "--model", "nano", "--concurrency", "1,8", "--no-gpu"]);
    bench.args(["--input-len", "32", "--output-len", "16", "--url"]).arg(format!("{url}/v1"));
    bench.args(["--num-requests", &REQUESTS.to_string(), "--out"]).arg(&said);
    step("servebench", &mut bench)?;
    without_errors(&said)
}

/// Runs those of llama.cpp's own tests of its server that apply to any, which `llama_server.py` names.
fn llama_servers(python: &Path, network: &Running, files: &[&str]) -> Result<()> {
    let tests = llama_source()?.join("tools/server/tests");
    let counts = root().join("target/clients/llama_server.json");
    let _ = fs::remove_file(&counts);
    let gateway = network.gateway()?;
    let port = gateway.rsplit(':').next().context("a gateway has a port")?;
    let mut run = Command::new(python);
    run.current_dir(tests).args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]);
    run.args(["-p", "llama_server"]).args(files.iter().map(|file| format!("unit/{file}")));
    run.env("PYTHONPATH", sdk().join("clients")).env("PYTHONDONTWRITEBYTECODE", "1");
    run.env("DEBUG_EXTERNAL", "1").env("PORT", port).env("ASSAY_COUNTS", &counts);
    let passed = step("llama.cpp's tests of its server", &mut run);
    let said: Value = serde_json::from_slice(&fs::read(&counts)?)?;
    let [passes, applying, others] = ["passed", "applying", "others"].map(|name| &said[name]);
    eprintln!("    {passes} of {applying} pass; {others} more want llama.cpp itself");
    passed
}

/// Whether every request that servebench made at each of its two loads was answered.
fn without_errors(said: &Path) -> Result<()> {
    let said = fs::read(said).with_context(|| format!("no {}", said.display()))?;
    let said: Value = serde_json::from_slice(&said)?;
    let levels = said["levels"].as_array().context("no levels")?;
    let requests: Vec<&Value> =
        levels.iter().filter_map(|level| level["requests"].as_array()).flatten().collect();
    if let Some(failed) = requests.iter().find(|request| request["ok"] != true) {
        bail!("servebench had an error: {}", failed["error"]);
    }
    let (found, expected) = (requests.len(), 2 * REQUESTS);
    if found < expected {
        bail!("servebench made {found} requests, expected {expected}");
    }
    eprintln!("    servebench made {found} requests without an error");
    Ok(())
}
