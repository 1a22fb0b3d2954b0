//! The official OpenAI clients against a network started by the binary.
//!
//! Python's tools live in `.venv`, Node's in `tests/sdk/node/node_modules`; both are installed
//! from pinned versions on the first run and kept. A missing tool fails the run: a check that is
//! skipped in silence is no check.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{cargo, root, step};

pub(crate) fn run() -> Result<()> {
    step("binary", cargo().args(["build", "--package", "assay", "--locked", "--quiet"]))?;
    let python = python()?;
    let node = node()?;

    let network = Network::start()?;
    eprintln!("    a network answers at {}", network.url);
    let mut pytest = Command::new(&python);
    pytest.args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]).arg(sdk().join("python"));
    step("Python client", network.told_to(&mut pytest))?;
    let mut tests = Command::new("node");
    tests.current_dir(&node).args(["--test", "--test-reporter=spec"]);
    step("Node client", network.told_to(&mut tests))
}

fn sdk() -> PathBuf {
    root().join("tests/sdk")
}

/// Python with the pinned packages.
fn python() -> Result<PathBuf> {
    let (venv, pinned) = (root().join(".venv"), sdk().join("requirements.txt"));
    let python = venv.join("bin/python");
    if is_installed(&venv, &pinned)? {
        return Ok(python);
    }
    need("python3", "install Python 3.9 or later")?;
    step("Python environment", Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))
        .context("python3 cannot create environments; on Debian: apt install python3-venv")?;
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(&pinned);
    step("Python packages", &mut install)?;
    mark_installed(&venv, &pinned)?;
    Ok(python)
}

/// The folder of Node's tests, with the pinned packages.
fn node() -> Result<PathBuf> {
    let folder = sdk().join("node");
    node_packages(&folder)?;
    Ok(folder)
}

/// Installs what a folder's lock file pins, unless it is there.
pub(crate) fn node_packages(folder: &Path) -> Result<()> {
    need("node", "install Node.js 18 or later")?;
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

fn need(tool: &str, fix: &str) -> Result<()> {
    let found = Command::new(tool).arg("--version").stdout(Stdio::null()).status();
    match found {
        Ok(status) if status.success() => Ok(()),
        _ => bail!("{tool} is missing, and these tests need it: {fix}, or pass --no-sdk"),
    }
}

/// A copy of the pinned versions lies in a folder once they are installed there.
fn is_installed(folder: &Path, pinned: &Path) -> Result<bool> {
    let wanted = fs::read(pinned).with_context(|| format!("{} is missing", pinned.display()))?;
    Ok(fs::read(folder.join("assay-installed")).is_ok_and(|found| found == wanted))
}

fn mark_installed(folder: &Path, pinned: &Path) -> Result<()> {
    fs::copy(pinned, folder.join("assay-installed"))?;
    Ok(())
}

/// A running `assay up`, ended with this value.
struct Network {
    child: Child,
    binary: PathBuf,
    data: PathBuf,
    url: String,
}

impl Network {
    fn start() -> Result<Self> {
        let here = std::env::current_exe()?;
        let binary = here.with_file_name("assay");
        let data = here.with_file_name("sdk-data");
        let _ = fs::remove_dir_all(&data);
        let mut up = Command::new(&binary);
        up.args(["up", "--json", "--port", "0", "--data-dir"]).arg(&data);
        let mut child = up.stdout(Stdio::piped()).spawn().context("the binary does not start")?;
        let stdout = child.stdout.take().context("the binary's output is piped")?;
        let mut network = Self { child, binary, data, url: String::new() };
        let mut ready = String::new();
        BufReader::new(stdout).read_line(&mut ready)?;
        let ready: serde_json::Value =
            serde_json::from_str(&ready).context("`assay up` ended before it was ready")?;
        network.url = ready["gateway"].as_str().context("no gateway in the ready line")?.into();
        Ok(network)
    }

    fn told_to<'a>(&self, tests: &'a mut Command) -> &'a mut Command {
        tests
            .env("ASSAY_URL", &self.url)
            .env("ASSAY_BIN", &self.binary)
            .env("ASSAY_DATA_DIR", &self.data)
            .env("PYTHONDONTWRITEBYTECODE", "1")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Ending it hard is safe: what it stores is committed before an answer leaves.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.data);
    }
}
