//! Measures the chain: beside anvil through JSON-RPC, alone in process, after a kill, and against
//! Ethereum's own test cases.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::running::{Start, free_port, wait_for};
use super::{Row, keep_measured, load};
use crate::sdk::node_packages;
use crate::{cargo, line, root, step};

const COMMAND: &str = "cargo xtask bench chain";
/// `state_tests` is the folder `GeneralStateTests` of a checkout of ethereum/tests, which is too
/// large to be kept here; without it the row of state tests stays as it was.
pub(crate) fn run(state_tests: Option<&str>) -> Result<()> {
    node_packages(&root().join("contracts"))?;
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--package", "assay-evm"]);
    build.args(["--example", "throughput", "--example", "cluster", "--features", "byzantine"]);
    step("benchmarks", &mut build)?;
    let busy = load();
    let folder = root().join("target/bench/chain");
    // What an earlier run left would be measured with it.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;

    let mut rows = through_rpc()?;
    let inside = figure(throughput().arg("erc20").arg(folder.join("erc20")), "inproc_erc20_tps")?;
    rows.push(Row::new("chain.inproc.erc20_tps", &inside["tps"], "transfers/s"));
    let recovered = figure(throughput().arg("recover"), "recover_per_s")?;
    rows.push(Row::new("chain.recovery.one_core", &recovered["one_core"], "signatures/s"));
    rows.extend(after_a_kill(&folder.join("restart"))?);
    rows.extend(validators()?);
    fs::remove_dir_all(&folder)?;
    rows.push(rpc_cases()?);
    if let Some(tests) = state_tests {
        rows.push(state_cases(tests)?);
    }
    keep_measured(rows, &busy, COMMAND)
}

/// The same generator against both, in one run.
fn through_rpc() -> Result<Vec<Row>> {
    let (ours, theirs) = (free_port()?, free_port()?);
    let data = root().join("target/bench/chain/rpc");
    let serve = throughput().arg("serve").arg(format!("127.0.0.1:{ours}")).arg(data).running()?;
    let anvil = Command::new(anvil()?)
        .args(["--silent", "--block-time", "1", "--gas-limit", "600000000"])
        .args(["--port", &theirs.to_string()])
        .running()?;
    wait_for(ours)?;
    wait_for(theirs)?;
    let urls = [ours, theirs].map(|port| format!("http://127.0.0.1:{port}"));
    let found = measure(throughput().arg("load").args(&urls))?;
    drop((serve, anvil));
    let tps = |url: &str| {
        let of = found.iter().find(|row| row["value"]["url"] == url);
        of.map(|row| row["value"]["tps"].clone()).with_context(|| format!("{url} was not measured"))
    };
    let row = Row::new("chain.rpc.native_tps", &tps(&urls[0])?, "transfers/s");
    Ok(vec![row.beside("anvil 1.7.1", &tps(&urls[1])?)])
}

fn after_a_kill(folder: &std::path::Path) -> Result<Vec<Row>> {
    let found = measure(throughput().arg("restart").arg(folder))?;
    let value = |name: &str| {
        let row = found.iter().find(|row| row["figure"] == name);
        row.map(|row| row["value"].clone()).with_context(|| format!("{name} was not measured"))
    };
    let bytes = value("disk_bytes_per_1m_transactions")?.as_f64().unwrap_or_default();
    Ok(vec![
        Row::new("chain.recover_s.1m_accounts", &value("recover_s")?["seconds"], "s"),
        Row::new("chain.disk.1m_transactions", &json!((bytes / 1e6).round()), "MB"),
    ])
}

/// Four validators in one process, over loopback; offered somewhat more than they must bear.
fn validators() -> Result<Vec<Row>> {
    let example = root().join("target/release/examples/cluster");
    let found = measure(Command::new(example).args(["bench", "4", "20", "3500"]))?;
    let node = found.iter().find(|row| !row["tps"].is_null()).context("nothing was measured")?;
    let finality = &node["finality_ms"];
    Ok(vec![
        Row::new("chain.cluster.tps", &node["tps"], "transfers/s"),
        Row::new("chain.cluster.finality_ms.p50", &finality["p50"], "ms"),
        Row::new("chain.cluster.finality_ms.p99", &finality["p99"], "ms"),
    ])
}

/// The cases of ethereum/execution-apis that hold.
fn rpc_cases() -> Result<Row> {
    let mut test = cargo();
    test.args(["test", "--workspace", "--locked", "--test", "rpc_compat", "--", "--nocapture"]);
    let text = output(&mut test)?;
    let passed = text.lines().find_map(|line| line.strip_prefix("passed ")?.split(' ').next());
    let passed: u32 = passed.context("the test does not say how many hold")?.parse()?;
    Ok(Row::new("chain.execution_apis.passed", &json!(passed), "cases")
        .beside("least wanted", &json!(130)))
}

/// The cases of ethereum/tests that hold; fails if one does not.
fn state_cases(folder: &str) -> Result<Row> {
    let mut build = cargo();
    step("release binary", build.args(["build", "--release", "--locked"]))?;
    let mut run = Command::new(root().join("target/release/assay"));
    let text = output(run.args(["chain", "statetest", "--slow", "--json", folder]))?;
    let found: Value = serde_json::from_str(&text).context("a summary is JSON")?;
    Ok(Row::new("chain.statetests.passed", &found["passed"], "cases"))
}

fn throughput() -> Command {
    Command::new(root().join("target/release/examples/throughput"))
}

/// Runs a benchmark to its end and reads one JSON line a figure; other lines are passed over.
fn measure(command: &mut Command) -> Result<Vec<Value>> {
    let text = output(command)?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// What a command says on standard output, once it has ended well.
fn output(command: &mut Command) -> Result<String> {
    eprintln!("==> {}", line(command));
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("{} failed ({})", line(command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn figure(command: &mut Command, name: &str) -> Result<Value> {
    let found = measure(command)?;
    let row = found.into_iter().find(|row| row["figure"] == name);
    row.map(|row| row["value"].clone()).with_context(|| format!("{name} was not measured"))
}

fn anvil() -> Result<PathBuf> {
    let packages = ["anvil-linux-amd64", "anvil-linux-arm64", "anvil-darwin-arm64"];
    let modules = root().join("contracts/node_modules/@foundry-rs");
    let mut programs = packages.iter().map(|package| modules.join(package).join("bin/anvil"));
    programs.find(|program| program.exists()).context("npm brought no anvil for this platform")
}
