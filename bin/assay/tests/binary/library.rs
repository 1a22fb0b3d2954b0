//! Which model a file means does not depend on what was imported before.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

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
    assert!(left[0].ends_with(".assay"), "{left:?}");
    assert_eq!(left[1..], ["checked", "sources"]);
}

#[test]
fn a_file_that_was_checked_is_checked_again_once_it_changed() {
    let folder = tempfile::tempdir().unwrap();
    Up::start(folder.path()).stop();
    let models = folder.path().join("models");
    let package = std::fs::read_dir(&models).unwrap().map(|entry| entry.unwrap().path());
    let package = package.into_iter().find(|path| path.is_file()).unwrap();
    let mut bytes = std::fs::read(&package).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&package, bytes).unwrap();
    let mut up = assay();
    up.args(["up", "--port", "0", "--rpc-port", "0", "--data-dir"]);
    let output = up.arg(folder.path()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("is not what its id says"), "{said}");
}

/// What the model that this is the name of answers, with its receipt.
fn ask(up: &Up, model: &str, receipt: &Path) -> (String, Value) {
    let mut run = assay();
    run.args(["run", "12+45=", "--model", model, "--url", up.url(), "--receipt"]);
    let said = done(run.arg(receipt).output().unwrap());
    (said, serde_json::from_slice(&std::fs::read(receipt).unwrap()).unwrap())
}

#[test]
fn several_models_are_served_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    import(folder.path(), &["--name", "short", "--context", "64"]);
    let receipt = folder.path().join("receipt.json");
    let mut answers: Vec<Vec<String>> = Vec::new();
    // All in memory, and one after the other.
    for options in [&[] as &[&str], &["--memory-max", "1.5MiB"]] {
        let up = Up::start_serving(folder.path(), &["nano", "short", "nano"], options);
        let models = up.ready["models"].as_array().unwrap();
        let names: Vec<&str> = models.iter().map(|m| m["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["nano", "short"]);
        assert_eq!(up.ready["model"], models[0]);
        answers.push(Vec::new());
        for model in models.iter().chain(models) {
            let (said, bought) = ask(&up, model["name"].as_str().unwrap(), &receipt);
            assert_eq!(bought["order"]["model"], model["id"]);
            answers.last_mut().unwrap().push(said);
            let mut verify = assay();
            verify.arg("verify").arg(&receipt).arg("--data-dir").arg(folder.path());
            assert!(done(verify.output().unwrap()).starts_with("true\n"));
        }
        up.stop();
    }
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn a_model_that_never_fits_is_refused_with_what_would() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = assay();
    up.args(["up", "--port", "0", "--rpc-port", "0", "--memory-max", "100k", "--data-dir"]);
    let output = up.arg(folder.path()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(9), "{said}");
    assert!(said.contains("pass --memory-max "), "{said}");
}
