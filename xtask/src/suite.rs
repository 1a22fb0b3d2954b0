//! OpenAI's own tests of its Python client's API, run against a network of this machine.
//!
//! The tests come with the client's source package, and are run as they are: `assay_suite` beside the
//! pinned versions puts ids of real things in the place of those that they make up, and counts. Tests that
//! ask for what the gateway refuses by name count as failed, and so do those that no server passes which
//! does as it is asked; any other failure fails the run.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::bench::{Row, keep_measured, load};
use crate::sdk::{Running, environment, sdk};
use crate::{embeddings, root, step};

/// The client whose tests are run.
const CLIENT: &str = "openai==3.52.0";

/// Where its source package unpacks to.
const FOLDER: &str = "openai-3.52.0";

/// The tests of the endpoints that the gateway claims.
const TESTS: [&str; 7] = [
    "chat",
    "responses",
    "test_responses.py",
    "test_completions.py",
    "test_models.py",
    "test_files.py",
    "test_batches.py",
];

/// How many tests of the endpoints that are claimed pass.
pub(crate) struct Counts {
    passed: u64,
    total: u64,
}

/// Those that need a model that makes vectors.
const VECTOR_TESTS: [&str; 1] = ["test_embeddings.py"];

/// Runs the tests; fails if one fails that does not ask for what is refused.
pub(crate) fn run() -> Result<Counts> {
    let mut counts = counted(&Running::aliased_network()?, &TESTS)?;
    if let Some(network) = embeddings::network()? {
        let more = counted(&network, &VECTOR_TESTS)?;
        counts = Counts { passed: counts.passed + more.passed, total: counts.total + more.total };
    }
    eprintln!("    {} of {} of OpenAI's own tests pass", counts.passed, counts.total);
    Ok(counts)
}

/// Runs some of the tests against a network.
fn counted(network: &Running, names: &[&str]) -> Result<Counts> {
    let (python, tests) = (python()?, source()?);
    let counts = root().join("target/suite/counts.json");
    let _ = fs::remove_file(&counts);
    let mut run = Command::new(python);
    run.current_dir(&tests).args(["-m", "pytest", "-q", "-n", "2", "--tb=line", "--no-header"]);
    run.args(["-p", "no:cacheprovider", "-p", "assay_suite"]);
    run.args(names.iter().map(|name| format!("tests/api_resources/{name}")));
    run.env("PYTHONPATH", sdk().join("suite")).env("PYTHONDONTWRITEBYTECODE", "1");
    run.env("TEST_API_BASE_URL", format!("{}/v1", network.gateway()?));
    run.env("ASSAY_SUITE_COUNTS", &counts);
    // The tests that are refused fail, so what pytest says of the whole run decides nothing.
    let output = run.output().context("pytest cannot run")?;
    let said = fs::read_to_string(&counts);
    let Ok(said) = said else { bail!("{}", String::from_utf8_lossy(&output.stdout)) };
    let said: Value = serde_json::from_str(&said)?;
    let broken = said["broken"].as_array().context("no list of broken tests")?;
    if !broken.is_empty() {
        bail!("{}\nbroken: {broken:#?}", String::from_utf8_lossy(&output.stdout));
    }
    let number = |field: &str| said[field].as_u64().with_context(|| format!("no {field}"));
    Ok(Counts { passed: number("passed")?, total: number("total")? })
}

/// Runs the tests, and keeps how many pass.
pub(crate) fn bench() -> Result<()> {
    let load = load();
    let Counts { passed, total } = run()?;
    let row = Row::new("openai.suite.passed", &json!(passed), "tests");
    let row = row.beside("tests of the endpoints claimed", &json!(total));
    keep_measured(vec![row], &load, "cargo xtask bench openai")
}

fn folder() -> PathBuf {
    root().join("target/suite")
}

/// Python with the pinned packages, apart from the other clients': they need another version of this one.
fn python() -> Result<PathBuf> {
    environment(&folder().join("venv"), &sdk().join("suite/requirements.txt"))
}

/// The client's source package, which has the tests.
fn source() -> Result<PathBuf> {
    let source = folder().join(FOLDER);
    if source.join("tests/api_resources").is_dir() {
        return Ok(source);
    }
    let mut fetch = Command::new(python()?);
    fetch.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-binary",
        "openai",
        "--dest",
    ]);
    step("source package", fetch.arg(folder()).arg(CLIENT))?;
    let archive = folder().join(format!("{FOLDER}.tar.gz"));
    let mut unpack = Command::new("tar");
    step("its tests", unpack.arg("-xzf").arg(archive).arg("-C").arg(folder()))?;
    Ok(source)
}
