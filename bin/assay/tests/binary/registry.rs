//! Models in public: published once, on terms, and made of what they are said to be made of.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{Up, assay, done, json, refused};

fn nano() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/nano/nano-q8_0.gguf")
}

#[test]
fn a_model_is_published_once_and_on_terms() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder.path().join("data"));
    let rpc = up.ready["chain"]["rpc"].as_str().unwrap().to_owned();
    let key = |who: &str| up.data.join(who).join("key").to_str().unwrap().to_owned();
    let (admin, gateway) = (key("admin"), key("gateway"));
    let model = |arguments: &[&str]| {
        let mut command = assay();
        command.arg("model").args(arguments).args(["nano", "--json", "--rpc", &rpc]);
        command.arg("--data-dir").arg(&up.data);
        command
    };
    let said = |arguments: &[&str]| -> Value { json(&done(model(arguments).output().unwrap())) };
    let (code, words) = refused(&mut model(&["terms"]));
    assert!(code == 4 && words.contains("model publish"), "{code}: {words}");
    let (code, words) = refused(&mut model(&["probe"]));
    assert!(code == 4 && words.contains("filed"), "{code}: {words}");

    let terms = ["--floor-out", "0.5", "--royalty", "250", "--uri", "https://example.org/nano"];
    let publish = [&["publish", "--key", &admin][..], &terms].concat();
    let first = said(&publish);
    assert!(first["published"]["gas"].as_u64() > Some(21_000), "{first}");
    assert_eq!((&first["id"], &first["revised"]), (&up.ready["model"]["id"], &Value::Null));
    let second = said(&publish);
    for step in ["published", "revised", "filed"] {
        assert_eq!(second[step], Value::Null, "{second}");
    }

    // New terms are the owner's to state, and only what is said of them changes.
    let revise = |key: &str| -> Vec<String> {
        ["publish", "--revise", "--floor-in", "1", "--key", key].map(str::to_owned).into()
    };
    let arguments = revise(&gateway);
    let (code, words) =
        refused(&mut model(&arguments.iter().map(String::as_str).collect::<Vec<_>>()));
    assert!(code == 5 && words.contains("its owner's"), "{code}: {words}");
    let arguments = revise(&admin);
    let revised = said(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(revised["revised"]["block"].is_u64(), "{revised}");
    let stated = said(&["terms"]);
    assert_eq!((&stated["owner"], &stated["revisions"]), (&first["owner"], &2.into()));
    assert_eq!(stated["royalty_to"], first["owner"]);
    assert_eq!(
        (&stated["floor_in"], &stated["floor_out"], &stated["filed"]),
        (&"1000000000000000000".into(), &"500000000000000000".into(), &true.into())
    );
    // Both providers of the network have it; a server that is none does not count.
    let probed = said(&["probe"]);
    assert_eq!((&probed["copies"], &probed["verifiable"]), (&2.into(), &true.into()), "{probed}");
    let gateway = up.url().to_owned();
    let (code, words) = refused(&mut model(&["probe", "--least", "3", "--provider", &gateway]));
    assert!(code == 10 && words.contains("0 independent copies"), "{code}: {words}");

    let (code, words) =
        refused(&mut model(&["publish", "--royalty", "10001", "--revise", "--key", &admin]));
    assert!(code == 1 && words.contains("RoyaltyTooHigh"), "{code}: {words}");
    up.stop();
}

#[test]
fn a_models_source_is_converted_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let run = |arguments: &[&str], path: &Path| {
        let mut command: Command = assay();
        command.arg("model").args(arguments).arg(path).arg("--data-dir").arg(&data);
        command
    };
    done(run(&["import", "--no-accuracy", "--name", "mine"], &nano()).output().unwrap());
    let said = done(run(&["verify-source", "mine"], &nano()).output().unwrap());
    assert!(said.starts_with("true\n"), "{said}");
    done(
        run(&["import", "--no-accuracy", "--name", "short", "--context", "64"], &nano())
            .output()
            .unwrap(),
    );
    let said = done(run(&["verify-source", "short"], &nano()).output().unwrap());
    assert!(said.starts_with("true\n"), "{said}");

    // One weight of the last tensors is another.
    let mut bytes = std::fs::read(nano()).unwrap();
    let last = bytes.len() - 2_000;
    bytes[last] ^= 0x10;
    let altered = folder.path().join("altered.gguf");
    std::fs::write(&altered, bytes).unwrap();
    let output = run(&["verify-source", "mine", "--json"], &altered).output().unwrap();
    let document: Value = json(&String::from_utf8(output.stdout).unwrap());
    let (code, words) = refused(&mut run(&["verify-source", "mine"], &altered));
    assert_eq!((code, &document["verdict"]), (10, &false.into()), "{words}");
    let difference = document["difference"].as_str().unwrap();
    assert!(difference.starts_with("the first tensor that differs is "), "{difference}");
    assert!(words.contains(difference), "{words}");
    let (code, _) = refused(&mut run(&["verify-source", "mine"], &folder.path().join("none.gguf")));
    assert_eq!(code, 4);
}
