//! Every vocabulary of llama.cpp's source package, on the cases beside it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::printed;
use crate::cargo;

/// Reads every vocabulary in a folder, and compares where there are cases.
pub(super) fn compare(folder: &Path) -> Result<()> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .filter(|path| path.as_ref().map_or(true, |path| is_vocabulary(path)))
        .collect::<Result<_>>()?;
    files.sort();
    if files.is_empty() {
        bail!("no vocabulary lies in {}", folder.display());
    }
    let mut tell = cargo();
    tell.args([
        "run",
        "--quiet",
        "--locked",
        "-p",
        "assay-engine",
        "--example",
        "vocabulary",
        "--",
    ]);
    let mut different = Vec::new();
    for told in printed(tell.args(files))? {
        let told: Value = serde_json::from_str(&told)?;
        let name = told["name"].as_str().context("a file has a name")?;
        eprintln!("    {}", summary(name, &told));
        if !is_well(&told) {
            different.push(told.to_string());
        }
    }
    if !different.is_empty() {
        bail!("vocabularies that differ:\n{}", different.join("\n"));
    }
    Ok(())
}

fn is_vocabulary(path: &Path) -> bool {
    ["gguf", "json"].iter().any(|end| path.extension() == Some(end.as_ref()))
}

fn summary(name: &str, told: &Value) -> String {
    match told["error"].as_str() {
        Some(error) => format!("{name}: {error}"),
        None if told["cases"] == 0 => format!("{name}: read; there are no cases"),
        None => format!("{name}: {} of {} cases are equal", told["equal"], told["cases"]),
    }
}

/// Every vocabulary must be read, and agree in every case.
fn is_well(told: &Value) -> bool {
    told["error"].is_null() && told["equal"] == told["cases"]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_and_errors_are_not_well() {
        assert!(is_well(&json!({ "cases": 2, "equal": 2 })));
        assert!(!is_well(&json!({ "cases": 2, "equal": 1 })));
        assert!(!is_well(&json!({ "error": "gguf version 1, expected 2 or 3" })));
    }
}
