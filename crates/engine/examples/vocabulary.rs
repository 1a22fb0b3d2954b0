//! Tokenizes the cases that llama.cpp keeps beside a vocabulary: `cargo xtask text` runs it.
//!
//! Takes vocabularies as GGUF files, or as `tokenizer.json` by whatever name ends in that. Where `FILE.inp` lies beside one, its cases are separated by
//! `__ggml_vocab_test__`, and `FILE.out` has the ids of each on a line. Prints one JSON object for each
//! file: `{"name", "cases", "equal", "first_difference"}`, or `{"name", "error"}`.
#![expect(clippy::print_stdout, reason = "an example tells what it did")]

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use assay_engine::import::tokenizer;
use assay_models::load::open_vocabulary;
use assay_text::Tokenizer;
use serde_json::{Value, json};

/// What stands between two cases, and after the last.
const BETWEEN: &str = "\n__ggml_vocab_test__\n";

fn main() -> Result<()> {
    for path in std::env::args().skip(1) {
        let path = Path::new(&path);
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut told = match read(path) {
            Ok(tokenizer) => compared(path, &tokenizer)?,
            Err(error) => json!({ "error": format!("{error:#}") }),
        };
        told["name"] = name.into();
        println!("{told}");
    }
    Ok(())
}

/// The vocabulary as it comes out of the canonical form, in which models carry it.
fn read(path: &Path) -> Result<Tokenizer> {
    let canonical = foreign(path)?.canonical();
    let read = Tokenizer::from_canonical(&canonical)?;
    anyhow::ensure!(read.canonical() == canonical, "its canonical form comes back as another");
    Ok(read)
}

fn foreign(path: &Path) -> Result<Tokenizer> {
    if path.extension().is_some_and(|end| end == "json") {
        return Ok(Tokenizer::from_json(&fs::read(path)?)?);
    }
    let parts = open_vocabulary(path)?.context("the file has no tokenizer")?;
    Ok(tokenizer(&parts)?)
}

fn compared(path: &Path, tokenizer: &Tokenizer) -> Result<Value> {
    let beside = |end: &str| fs::read_to_string(format!("{}.{end}", path.display()));
    let Ok(cases) = beside("inp") else { return Ok(json!({ "cases": 0, "equal": 0 })) };
    let cases = cases.strip_suffix(BETWEEN).unwrap_or(&cases);
    let cases: Vec<&str> = cases.split(BETWEEN).collect();
    let expected: Vec<Vec<u32>> = beside("out")?.lines().map(ids).collect::<Result<_>>()?;
    anyhow::ensure!(cases.len() == expected.len(), "{} has other cases", path.display());
    let mut equal = 0;
    let mut first_difference = Value::Null;
    for (case, expected) in cases.iter().zip(&expected) {
        let found = tokenizer.encode_plain(case);
        if found == *expected {
            equal += 1;
        } else if first_difference.is_null() {
            first_difference = json!({ "text": case, "found": found, "expected": expected });
        }
    }
    Ok(json!({ "cases": cases.len(), "equal": equal, "first_difference": first_difference }))
}

fn ids(line: &str) -> Result<Vec<u32>> {
    line.split_whitespace().map(|id| id.parse().context("an id is a number")).collect()
}
