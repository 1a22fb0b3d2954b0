//! A network started by the binary, and what clients and operators see of it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::{Up, assay, done, json as parse, refused};
use serde_json::{Value, json};

/// Changes one thing in an answer.
type Lie = fn(&mut Value);

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn it_answers_and_a_restart_keeps_keys_and_receipts() {
    let folder = tempfile::tempdir().unwrap();
    let (data, receipt) = (folder.path().join("data"), folder.path().join("receipt.json"));
    let up = Up::start(&data);
    assert_eq!(up.ready["schema"], "assay.up/1");
    assert_eq!(up.ready["providers"].as_array().unwrap().len(), 2);
    let answer = up.ask("12+45=", &receipt);
    assert_eq!(answer["text"], "57");
    let providers = up.ready["providers"].clone();
    let model = up.ready["model"].clone();
    up.stop();

    let up = Up::start(&data);
    assert_eq!(up.ready["model"], model);
    let addresses = |providers: &Value| -> Vec<Value> {
        providers.as_array().unwrap().iter().map(|one| one["address"].clone()).collect()
    };
    assert_eq!(addresses(&up.ready["providers"]), addresses(&providers));
    let url = format!("{}/v1/receipts/{}", up.url(), answer["id"].as_str().unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let kept: Value =
        runtime.block_on(async { reqwest::get(url).await.unwrap().json().await.unwrap() });
    assert_eq!(kept, read(&receipt));
    up.stop();
}

#[test]
fn who_joins_later_has_coins_too() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    Up::start_with(&data, "ASSAY_PROVIDERS", "1").stop();
    let up = Up::start_with(&data, "ASSAY_PROVIDERS", "2");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let balance = |provider: &Value| {
        let call = json!({
            "jsonrpc": "2.0", "id": 1, "method": "eth_getBalance",
            "params": [provider["owner"], "latest"],
        });
        let sent = reqwest::Client::new().post(up.ready["chain"]["rpc"].as_str().unwrap());
        let answer = async { sent.json(&call).send().await.unwrap().json::<Value>().await };
        runtime.block_on(answer).unwrap()["result"].clone()
    };
    let balances: Vec<_> = up.ready["providers"].as_array().unwrap().iter().map(balance).collect();
    assert_eq!(balances.len(), 2);
    assert!(!balances.contains(&json!("0x0")), "{balances:?}");
    up.stop();
}

#[test]
fn a_receipt_is_true_until_a_byte_of_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let (data, receipt) = (folder.path().join("data"), folder.path().join("receipt.json"));
    let up = Up::start(&data);
    up.ask("Extract JSON: Maria is a 42 year old baker from Oslo.", &receipt);
    up.stop();

    let verify = |file: &Path, model: Option<&str>| {
        let mut verify = assay();
        verify.arg("verify").arg(file).arg("--data-dir").arg(&data).arg("--json");
        verify.args(model.into_iter().flat_map(|model| ["--model", model]));
        let output = verify.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    for model in [None, Some("nano"), Some("../../assets/nano/nano-q8_0.gguf")] {
        let (code, said) = verify(&receipt, model);
        assert_eq!((code, &parse(&said)["verdict"]), (0, &Value::Bool(true)), "{model:?}");
    }

    let honest = read(&receipt);
    let lies: [(&str, Lie); 5] = [
        ("text", |answer| answer["text"] = "57".into()),
        ("output", |answer| answer["output"][2] = 7.into()),
        ("model", |answer| answer["order"]["model"] = format!("0x{}", "12".repeat(32)).into()),
        ("state", |answer| answer["states"][1] = answer["states"][0].clone()),
        ("price", |answer| answer["receipt"]["price"] = "1".into()),
    ];
    for (what, lie) in lies {
        let mut answer = honest.clone();
        lie(&mut answer);
        let file = folder.path().join("lie.json");
        fs::write(&file, answer.to_string()).unwrap();
        let (code, said) = verify(&file, None);
        assert_eq!((code, &parse(&said)["verdict"]), (10, &Value::Bool(false)), "{what}: {said}");
    }
    fs::write(folder.path().join("lie.json"), "not a receipt").unwrap();
    assert_eq!(verify(&folder.path().join("lie.json"), None).0, 3);
    assert_eq!(verify(&folder.path().join("absent.json"), None).0, 4);
    assert_eq!(verify(&receipt, Some("absent.gguf")).0, 4);
}

#[test]
fn another_model_is_not_the_one_that_was_ordered() {
    let folder = tempfile::tempdir().unwrap();
    let (data, receipt) = (folder.path().join("data"), folder.path().join("receipt.json"));
    let up = Up::start(&data);
    up.ask("12+45=", &receipt);
    up.stop();
    let other = folder.path().join("other.assay");
    let mut import = assay();
    import.args(["model", "import", "../../assets/nano/nano-q8_0.gguf", "--no-accuracy", "--json"]);
    let imported = import.args(["--context", "64", "--output"]).arg(&other).output().unwrap();
    let imported = parse(&done(imported));
    assert_ne!(imported["id"], read(&receipt)["order"]["model"]);
    let mut verify = assay();
    verify.arg("verify").arg(&receipt).arg("--model").arg(&other);
    let (code, said) = refused(&mut verify);
    assert_eq!(code, 4);
    assert!(said.contains(imported["id"].as_str().unwrap()), "{said}");
}

#[test]
fn a_data_directory_is_used_by_one_network() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path());
    let mut second = assay();
    second.args(["up", "--port", "0", "--rpc-port", "0", "--data-dir"]).arg(folder.path());
    let (code, said) = refused(&mut second);
    assert_eq!(code, 8);
    assert!(said.contains(&format!("process {}", up.ready["pid"])), "{said}");
    up.stop();
}

#[test]
fn a_taken_port_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let mut up = assay();
    up.args(["up", "--port", &port, "--rpc-port", "0", "--data-dir"]).arg(folder.path());
    let (code, said) = refused(&mut up);
    assert_eq!(code, 8);
    assert!(said.contains(&port) && said.contains("--port"), "{said}");
}

#[test]
fn an_open_key_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    Up::start(folder.path()).stop();
    let key = folder.path().join("gateway/key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let mut up = assay();
    up.args(["up", "--port", "0", "--rpc-port", "0", "--data-dir"]).arg(folder.path());
    let (code, said) = refused(&mut up);
    assert_eq!(code, 5);
    assert!(said.contains("chmod 600"), "{said}");
    let mut doctor = assay();
    doctor.args(["doctor", "--json", "--port", "0", "--data-dir"]).arg(folder.path());
    let output = doctor.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(parse(&String::from_utf8(output.stdout).unwrap())["ok"], false);
}

#[test]
fn status_and_doctor_say_what_is() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path());
    let status = assay().args(["status", "--json", "--url", up.url()]).output().unwrap();
    let status = parse(&done(status));
    assert_eq!(status["gateway"]["ready"], true);
    assert_eq!(status["models"][0]["id"], "nano");
    assert_eq!(status["providers"].as_array().unwrap().len(), 2);
    done(assay().args(["status", "--url", up.url()]).output().unwrap());
    let mut doctor = assay();
    doctor.args(["doctor", "--json", "--port", "0", "--data-dir"]).arg(&up.data);
    let doctor = parse(&done(doctor.output().unwrap()));
    assert_eq!(doctor["ok"], true, "{doctor}");
    up.signal("-TERM");
    let (status, said) = up.end();
    assert_eq!(status.code(), Some(0), "{said}");
}

#[test]
fn a_second_interrupt_ends_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = Up::start(folder.path());
    // An answer that cannot end by itself soon: its end token is as good as forbidden.
    let request = json!({
        "model": "nano",
        "temperature": 2,
        "stream": true,
        "logit_bias": { "2": -100 },
        "messages": [{ "role": "user", "content": "Sort: 1" }],
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = format!("{}/v1/chat/completions", up.url());
    let _answer = runtime.block_on(async {
        let asked = reqwest::Client::new().post(url).json(&request).send().await;
        let mut answer = asked.unwrap();
        answer.chunk().await.unwrap();
        answer
    });
    up.signal("-INT");
    up.hear("interrupted");
    up.signal("-INT");
    let (status, said) = up.end();
    assert_eq!(status.code(), Some(130), "{said}");
}

#[test]
fn a_full_disk_breaks_no_promise() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start_with_files_of(folder.path(), 2 << 20);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let http = reqwest::Client::new();
    let ask = |n: usize| {
        let request = json!({
            "model": "nano",
            "temperature": 0,
            "messages": [{ "role": "user", "content": format!("Sort: 5 3 {n} 9 1 7") }],
        });
        let asked = http.post(format!("{}/v1/chat/completions", up.url())).json(&request).send();
        async { asked.await.unwrap().json::<Value>().await.unwrap() }
    };
    let (mut promised, mut refused) = (Vec::new(), Vec::new());
    for n in 0..200 {
        let answers = (0..16).map(|one| ask(16 * n + one));
        let answers = runtime.block_on(futures_util::future::join_all(answers));
        for answer in answers {
            match answer["id"].as_str() {
                Some(id) => promised.push(id.to_owned()),
                None => refused.push(answer["error"].clone()),
            }
        }
        if refused.len() >= 16 {
            break;
        }
    }
    assert!(!refused.is_empty(), "nothing was full after {} answers", promised.len());
    for error in &refused {
        let code = error["code"].as_str().unwrap();
        assert!(["storage_error", "upstream_error"].contains(&code), "{error}");
    }
    for id in promised {
        let url = format!("{}/v1/receipts/{id}", up.url());
        let status = runtime.block_on(http.get(url).send()).unwrap().status();
        assert_eq!(status, 200, "{id}");
    }
    up.stop();
}
