//! Compares tokenizers and chat templates with other people's, on files that come with llama.cpp.
//!
//! Its source package, pinned for the benchmarks too, holds vocabularies of many families, some with the
//! ids that their authors' tokenizers give, and the chat templates of seventy models. Templates are
//! rendered by Python as well, and the vocabulary of scores is read by Python's libraries, at pinned
//! versions. None of these files is kept in the repository.

mod scores;
mod templates;
mod vocabularies;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::bench::engine::peer::llama_source;
use crate::{line, root, sdk};

/// Fetches the files, unless that was done, and compares.
pub(crate) fn run() -> Result<()> {
    let models = llama_source()?.join("models");
    let python = python()?;
    vocabularies::compare(&models)?;
    scores::compare(&models, &python)?;
    templates::compare(&models.join("templates"), &python)
}

/// Python with what vectors are made by.
fn python() -> Result<PathBuf> {
    let pinned = root().join("tests/vectors/requirements.txt");
    sdk::environment(&root().join("target/text/python"), &pinned)
}

/// What a command printed, line by line, once it has ended well.
fn printed(command: &mut Command) -> Result<Vec<String>> {
    let output = command.output()?;
    if !output.status.success() {
        bail!("{}: {}", line(command), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}
