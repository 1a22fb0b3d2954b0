//! A vocabulary of scores, read by the libraries of its authors and of those who use it.
//!
//! llama.cpp's source package has one, of XLM-RoBERTa, without cases. Python makes them with SentencePiece
//! and with the library `tokenizers`: `tests/vectors/unigram.py`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::vocabularies;
use crate::{root, step};

/// The vocabulary.
const FILE: &str = "ggml-vocab-nomic-bert-moe.gguf";

/// Has cases made, and compares.
pub(super) fn compare(models: &Path, python: &Path) -> Result<()> {
    let folder = root().join("target/text/scores");
    // What an earlier version left would be compared too.
    let _ = fs::remove_dir_all(&folder);
    let mut make = Command::new(python);
    make.arg(root().join("tests/vectors/unigram.py")).arg("compare").arg(models.join(FILE));
    step("cases of a vocabulary of scores", make.arg(&folder))?;
    vocabularies::compare(&folder)
}
