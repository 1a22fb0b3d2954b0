//! Other people's clients against what the binary starts: OpenAI's against a network, viem, ethers,
//! web3.py and cast against a chain and against the contracts in a network's chain, x402's against
//! a network that they pay, and OpenAI's against one that makes vectors.
//!
//! Python's tools live in `.venv`, Node's in a `node_modules` beside each `package.json`; all are
//! installed from pinned versions on the first run and kept. A missing tool fails the run: a check
//! that is skipped in silence is no check.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{cargo, embeddings, line, root, step, suite};

pub(crate) fn run() -> Result<()> {
    build()?;
    clients()
}

/// Builds the binary.
pub(crate) fn build() -> Result<()> {
    step("binary", cargo().args(["build", "--package", "assay", "--locked", "--quiet"]))
}

/// As [`run`], with the binary that the workspace's tests have built: by itself it would be built with
/// other features of the same packages, which takes minutes.
pub(crate) fn clients() -> Result<()> {
    let python = python()?;
    let folders = ["node", "chain", "x402"].map(|folder| sdk().join(folder));
    for folder in folders.into_iter().chain([root().join("contracts")]) {
        node_packages(&folder)?;
    }

    let chain = Running::chain()?;
    eprintln!("    a chain answers at {}", chain.rpc()?);
    step("web3.py", chain.told_to_chain(&mut pytest(&python, "chain"))?)?;
    let clients = ["viem.test.mjs", "ethers.test.mjs", "cast.test.mjs"];
    step("viem, ethers and cast", chain.told_to_chain(tests("chain").args(clients))?)?;
    drop(chain);

    let network = Running::network()?;
    eprintln!("    a network answers at {}", network.gateway()?);
    step("Python client", network.told_to_gateway(&mut pytest(&python, "python"))?)?;
    step("Node client", network.told_to_gateway(&mut tests("node"))?)?;
    step("contracts", network.told_to_chain(tests("chain").arg("contracts.test.mjs"))?)?;
    step("signed orders", network.told_to_gateway(tests("chain").arg("signed.test.mjs"))?)?;
    drop(network);

    embeddings::run()?;
    suite::run()?;

    let network = Running::paid_network()?;
    eprintln!("    a network that is paid by x402 answers at {}", network.gateway()?);
    step("x402's Python client", network.told_all(&mut pytest(&python, "x402"))?)?;
    step("x402's TypeScript client", network.told_all(&mut tests("x402"))?)
}

/// Python's tests in one folder.
pub(crate) fn pytest(python: &Path, folder: &str) -> Command {
    let mut tests = Command::new(python);
    tests.args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]).arg(sdk().join(folder));
    tests.env("PYTHONDONTWRITEBYTECODE", "1");
    tests
}

/// Node's tests in one folder; all of them unless files are added.
pub(crate) fn tests(folder: &str) -> Command {
    let mut tests = Command::new("node");
    tests.current_dir(sdk().join(folder)).args(["--test", "--test-reporter=spec"]);
    tests
}

pub(crate) fn sdk() -> PathBuf {
    root().join("tests/sdk")
}

/// Python with the pinned packages.
pub(crate) fn python() -> Result<PathBuf> {
    environment(&root().join(".venv"), &sdk().join("requirements.txt"))
}

/// Python with the packages that a file pins, in a folder of its own.
pub(crate) fn environment(venv: &Path, pinned: &Path) -> Result<PathBuf> {
    let python = venv.join("bin/python");
    if is_installed(venv, pinned)? {
        return Ok(python);
    }
    need("python3", "install Python 3.9 or later")?;
    if let Some(folder) = venv.parent() {
        fs::create_dir_all(folder)?;
    }
    step("Python environment", Command::new("python3").args(["-m", "venv", "--clear"]).arg(venv))
        .context("python3 cannot create environments; on Debian: apt install python3-venv")?;
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(pinned);
    step("Python packages", &mut install)?;
    mark_installed(venv, pinned)?;
    Ok(python)
}

/// Installs what a folder's lock file pins, unless it is there.
pub(crate) fn node_packages(folder: &Path) -> Result<()> {
    need("node", "install Node.js 20 or later")?;
    let (pinned, modules) = (folder.join("package-lock.json"), folder.join("node_modules"));
    if !is_installed(&modules, &pinned)? {
        need("npm", "install npm, which comes with Node.js; on Debian: apt install npm")?;
        let mut install = Command::new("npm");
        install.current_dir(folder).args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]);
        step("Node packages", &mut install)?;
        mark_installed(&modules, &pinned)?;
    }
    Ok(())
}

pub(crate) fn need(tool: &str, fix: &str) -> Result<()> {
    if works(tool) {
        return Ok(());
    }
    bail!("{tool} is missing, and these tests need it: {fix}, or pass --no-sdk")
}

/// Whether a program runs here.
pub(crate) fn works(program: &str) -> bool {
    let mut asked = Command::new(program);
    asked.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    asked.status().is_ok_and(|status| status.success())
}

/// A copy of the pinned versions lies in a folder once they are installed there.
pub(crate) fn is_installed(folder: &Path, pinned: &Path) -> Result<bool> {
    let wanted = fs::read(pinned).with_context(|| format!("{} is missing", pinned.display()))?;
    Ok(fs::read(folder.join("assay-installed")).is_ok_and(|found| found == wanted))
}

pub(crate) fn mark_installed(folder: &Path, pinned: &Path) -> Result<()> {
    fs::copy(pinned, folder.join("assay-installed"))?;
    Ok(())
}

/// A process of the binary that has said where it answers; ended with this value.
pub(crate) struct Running {
    child: Child,
    binary: PathBuf,
    data: PathBuf,
    /// What it said once ready.
    ready: Value,
}

impl Running {
    /// A network of this machine alone, with its chain.
    pub(crate) fn network() -> Result<Self> {
        Self::start(&["up", "--json", "--port", "0", "--rpc-port", "0", "--data-dir"])
    }

    /// The same, which answers whatever model is asked for.
    pub(crate) fn aliased_network() -> Result<Self> {
        let flags = ["up", "--model-alias", "*=nano", "--json", "--port", "0", "--rpc-port", "0"];
        Self::start(&[&flags[..], &["--data-dir"]].concat())
    }

    /// The same, whose gateway takes payments at its door.
    fn paid_network() -> Result<Self> {
        Self::start(&["up", "--x402", "--json", "--port", "0", "--rpc-port", "0", "--data-dir"])
    }

    /// A chain to develop on.
    fn chain() -> Result<Self> {
        Self::start(&["chain", "run", "--dev", "--json", "--rpc", "127.0.0.1:0", "--data"])
    }

    /// Starts the binary; the last argument takes a directory.
    pub(crate) fn start(arguments: &[&str]) -> Result<Self> {
        let here = std::env::current_exe()?;
        let binary = here.with_file_name("assay");
        let data = here.with_file_name("sdk-data");
        let _ = fs::remove_dir_all(&data);
        let mut command = Command::new(&binary);
        command.args(arguments).arg(&data).stdout(Stdio::piped());
        let mut child = command.spawn().context("the binary does not start")?;
        let stdout = child.stdout.take().context("the binary's output is piped")?;
        let mut running = Self { child, binary, data, ready: Value::Null };
        let mut ready = String::new();
        BufReader::new(stdout).read_line(&mut ready)?;
        running.ready = serde_json::from_str(&ready)
            .with_context(|| format!("{} ended before it was ready", line(&command)))?;
        Ok(running)
    }

    pub(crate) fn gateway(&self) -> Result<&str> {
        self.ready["gateway"].as_str().context("no gateway in the ready line")
    }

    /// Where the chain answers: a chain by itself says `rpc`, a network says it of its `chain`.
    fn rpc(&self) -> Result<&str> {
        let found = self.ready["rpc"].as_str().or_else(|| self.ready["chain"]["rpc"].as_str());
        found.context("no chain in the ready line")
    }

    pub(crate) fn told_to_gateway<'a>(&self, tests: &'a mut Command) -> Result<&'a mut Command> {
        Ok(tests
            .env("ASSAY_URL", self.gateway()?)
            .env("ASSAY_BIN", &self.binary)
            .env("ASSAY_DATA_DIR", &self.data))
    }

    fn told_all<'a>(&self, tests: &'a mut Command) -> Result<&'a mut Command> {
        self.told_to_chain(self.told_to_gateway(tests)?)
    }

    fn told_to_chain<'a>(&self, tests: &'a mut Command) -> Result<&'a mut Command> {
        let rpc = self.rpc()?;
        tests.env("ASSAY_CHAIN_RPC", rpc).env("ASSAY_CHAIN_WS", rpc.replacen("http", "ws", 1));
        if let Some(contracts) = self.ready.get("contracts") {
            tests.env("ASSAY_CONTRACTS", contracts.to_string());
        }
        Ok(tests)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ending it hard is safe: what it stores is committed before an answer leaves.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.data);
    }
}
