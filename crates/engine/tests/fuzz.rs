//! Graphs of strangers end in vectors or an error, whatever is in them.

#![cfg(feature = "onnx")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "test code, which writes what it reads"
)]

#[path = "support/onnx_writer.rs"]
mod onnx_writer;

use std::path::Path;

use assay_engine::{OnnxOptions, OnnxPackage};

#[test]
fn fuzz_onnx() {
    let folder = tempfile::tempdir().unwrap();
    onnx_writer::write(folder.path(), &[]);
    let words =
        ["Gather", "MatMul", "Softmax", "last_hidden_state", "attention_mask", "\u{8}\u{7f}"];
    assay_fuzz::hold("onnx", &words, |bytes| {
        std::fs::write(folder.path().join("model.onnx"), bytes).unwrap();
        let Ok(package) = OnnxPackage::import(folder.path(), &OnnxOptions::default()) else {
            return false;
        };
        let model = package.load(1).unwrap();
        model.embed(&[2, 4, 5, 3]).is_ok()
    });
}

/// `ASSAY_BLESS=1` writes the file anew.
#[test]
fn the_corpus_is_what_the_writer_writes() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/onnx/encoder.onnx");
    let written = onnx_writer::tiny();
    if std::env::var_os("ASSAY_BLESS").is_some() {
        std::fs::write(&kept, &written).unwrap();
    }
    assert_eq!(std::fs::read(&kept).unwrap(), written);
}
