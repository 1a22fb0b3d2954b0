//! Which model a file means does not depend on what was imported before.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Up, assay, done};

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/nano/nano-q8_0.gguf")
}

fn import(data: &Path, options: &[&str]) {
    let mut import: Command = assay();
    import.args(["model", "import", "--no-accuracy", "--data-dir"]).arg(data);
    done(import.args(options).arg(source()).output().unwrap());
}

#[test]
fn an_import_does_not_rename_or_shorten_what_up_serves() {
    let folder = tempfile::tempdir().unwrap();
    import(folder.path(), &["--name", "mine"]);
    import(folder.path(), &["--context", "64"]);
    let up = Up::start(folder.path());
    assert_eq!(up.ready["model"]["name"], "nano");
    let receipt = folder.path().join("receipt.json");
    up.ask("12+45=", &receipt);
    up.stop();

    import(folder.path(), &["--context", "128"]);
    let mut verify = assay();
    verify.arg("verify").arg(&receipt).arg("--model").arg(source());
    let said = done(verify.arg("--data-dir").arg(folder.path()).output().unwrap());
    assert!(said.starts_with("true\n"), "{said}");
}

#[test]
fn what_was_left_half_written_is_swept() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    std::fs::create_dir_all(&models).unwrap();
    for name in ["0xab.7.partial", "nano.gguf", "nano.gguf.7.part"] {
        std::fs::write(models.join(name), "half").unwrap();
    }
    Up::start(folder.path()).stop();
    let mut left: Vec<String> = std::fs::read_dir(&models)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left[0].ends_with(".assay") && left[1] == "sources", "{left:?}");
}
