//! Commands that need no network, and what they say when one is missing.

use std::io::Write;
use std::process::Stdio;

use crate::support::{assay, done, json, refused};

#[test]
fn no_gateway_is_an_answer_too() {
    for arguments in [&["run", "12+45="][..], &["status"], &["chat"]] {
        let (code, said) = refused(assay().args(arguments).args(["--url", "http://127.0.0.1:1"]));
        assert_eq!(code, 6, "{said}");
        assert!(said.contains("no gateway at http://127.0.0.1:1"), "{said}");
        assert!(said.contains("assay up"), "{said}");
    }
}

#[test]
fn a_missing_model_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = assay();
    up.args(["up", "--port", "0", "--rpc-port", "0", "--model", "absent.gguf", "--data-dir"])
        .arg(folder.path());
    let (code, said) = refused(&mut up);
    assert_eq!(code, 4);
    assert!(said.contains("there is no model file absent.gguf") && said.contains("fix:"), "{said}");
}

#[test]
fn what_is_no_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["noise.gguf", "noise.assay"] {
        let file = folder.path().join(name);
        std::fs::write(&file, b"GGUF\x03\0\0\0 and then nothing that makes sense").unwrap();
        let mut show = assay();
        show.args(["model", "show"]).arg(&file).arg("--data-dir").arg(folder.path());
        let (code, said) = refused(&mut show);
        assert_eq!(code, 3, "{said}");
        assert!(said.contains(name), "{said}");
    }
}

#[test]
fn an_imported_model_is_listed_shown_and_verified() {
    let folder = tempfile::tempdir().unwrap();
    let with = |arguments: &[&str]| {
        let mut command = assay();
        command.arg("model").args(arguments).args(["--json", "--data-dir"]).arg(folder.path());
        json(&done(command.output().unwrap()))
    };
    let source = "../../assets/nano/nano-q8_0.gguf";
    let imported = with(&["import", source, "--name", "small"]);
    assert_eq!(imported["parameters"], 869_504);
    assert!(imported["accuracy"]["kl"].as_f64().unwrap() < 0.01, "{imported}");
    let id = imported["id"].as_str().unwrap();
    assert_eq!(with(&["ls"])["models"][0]["id"], id);
    for name in ["small", id, &id[..8], source, imported["file"].as_str().unwrap()] {
        assert_eq!(with(&["show", name])["id"], id, "{name}");
    }
    assert_eq!(with(&["verify", "small"])["verdict"], true);

    // One weight changed is another model under a stolen name.
    let file = imported["file"].as_str().unwrap();
    let mut bytes = std::fs::read(file).unwrap();
    let place = bytes.len() - 5_000;
    bytes[place] ^= 1;
    std::fs::write(file, bytes).unwrap();
    let mut verify = assay();
    verify.args(["model", "verify", file]);
    let (code, said) = refused(&mut verify);
    assert_eq!(code, 10, "{said}");
}

#[test]
fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = done(assay().args(["completion", shell]).output().unwrap());
        assert!(script.contains("verify"), "{shell}");
    }
}

#[test]
fn help_lists_the_exit_codes() {
    let help = done(assay().arg("--help").output().unwrap());
    assert!(help.contains("10  verification failed"), "{help}");
    assert_eq!(refused(assay().arg("juggle")).0, 2);
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let mut completion =
        assay().args(["completion", "zsh"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(completion.stdout.take());
    assert!(completion.wait().unwrap().success());
}

#[test]
fn an_empty_standard_input_is_still_asked() {
    let mut run = assay();
    run.args(["run", "-", "--url", "http://127.0.0.1:1"]).stdin(Stdio::piped());
    let mut child = run.stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"12+45=\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(6));
}

#[test]
fn a_temperature_that_is_no_number_is_not_asked_with() {
    for temperature in ["nan", "inf", "warm"] {
        let mut run = assay();
        run.args(["run", "hi", "--url", "http://127.0.0.1:1", "--temperature", temperature]);
        assert_eq!(refused(&mut run).0, 2, "{temperature}");
    }
}

#[test]
fn a_log_filter_that_means_nothing_is_said() {
    let mut status = assay();
    status.args(["status", "--url", "http://127.0.0.1:1"]).env("ASSAY_LOG", "assay=loudly");
    let (_, said) = refused(&mut status);
    assert!(said.starts_with("ASSAY_LOG is not followed"), "{said}");
}
