//! An ONNX model, from the folder of a hub to the receipt that is compared.

use std::fs;

use serde_json::{Value, json};

use crate::onnx_writer::{Parts, WIDTH, node, tiny, write, write_classifier};
use crate::support::{Up, assay, refused, said};

#[test]
fn a_text_gets_a_vector_of_an_onnx_model() {
    let folder = tempfile::tempdir().unwrap();
    let (data, source) = (folder.path().join("data"), folder.path().join("tiny-onnx"));
    write(&source, &tiny());
    let up = Up::start_serving(&data, &[source.to_str().unwrap(), "nano"], &[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let post = |path: &str, body: Value| {
        let sent = reqwest::Client::new().post(format!("{}{path}", up.url())).json(&body);
        let answer = async { sent.send().await.unwrap().json::<Value>().await };
        runtime.block_on(answer).unwrap()
    };
    let inputs = ["the weather is lovely", "a sun", "the weather is lovely"];
    let several = post("/v1/embeddings", json!({"model": "tiny-onnx", "input": inputs}));
    let vector = |index: usize| several["data"][index]["embedding"].as_array().unwrap();
    assert_eq!((vector(0).len(), vector(0)), (WIDTH, vector(2)));
    assert_ne!(vector(0), vector(1));
    assert_eq!(several["usage"]["prompt_tokens"], 6 + 4 + 6);
    let mut one = post("/v1/embeddings", json!({"model": "tiny-onnx", "input": inputs[0]}));
    assert_eq!(one["data"][0]["embedding"].as_array(), Some(vector(0)));
    assert_eq!(one["assay"]["receipt"]["assurance"], "scored");
    // The other model answers as ever, and this one does not chat.
    let chat = |model: &str| {
        let messages = [json!({"role": "user", "content": "12+45="})];
        post("/v1/chat/completions", json!({"model": model, "messages": messages}))
    };
    assert_eq!(chat("nano")["choices"][0]["message"]["content"], "57");
    assert_eq!(chat("tiny-onnx")["error"]["code"], "model_not_supported");
    up.stop();

    // It was kept, and is found without its source.
    fs::remove_dir_all(&source).unwrap();
    let (_, listed) = said(&data, &["model", "ls"]);
    let models = listed["models"].as_array().unwrap();
    let ours = models.iter().find(|model| model["name"] == "tiny-onnx").unwrap();
    assert_eq!((&ours["makes"], &ours["width"]), (&json!("vectors"), &json!(WIDTH)));
    assert_eq!(ours["id"], one["assay"]["order"]["model"]);
    let id = ours["id"].as_str().unwrap();
    assert_eq!(said(&data, &["model", "show", &id[..10]]).1["id"], ours["id"]);
    assert_eq!(said(&data, &["model", "verify", "tiny-onnx"]).0, 0);
    let mut publish = assay();
    publish.args(["model", "verify-source", "tiny-onnx", "Cargo.toml", "--data-dir"]).arg(&data);
    assert_eq!(refused(&mut publish).0, 2);

    let file = folder.path().join("reply.json");
    let verify = |body: &Value| {
        fs::write(&file, body.to_string()).unwrap();
        let (code, said) = said(&data, &["verify", file.to_str().unwrap()]);
        (code, said["verdict"].clone(), said["blame"].clone())
    };
    assert_eq!(verify(&one), (0, json!(true), Value::Null));
    let number = one["assay"]["vector"][5].as_i64().unwrap();
    one["assay"]["vector"][5] = json!(number ^ 1);
    assert_eq!(verify(&one), (10, json!(false), json!("file")));
    // Where the model is not at hand, nothing is said about the answer.
    let kept = data.join("models").join(format!("{id}.assay"));
    let mut bytes = fs::read(&kept).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&kept, bytes).unwrap();
    let mut command = assay();
    let (code, words) = refused(command.arg("verify").arg(&file).arg("--data-dir").arg(&data));
    assert!(code == 3 && words.contains("does not match the card"), "{code}: {words}");
}

#[test]
fn a_text_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (data, source) = (folder.path().join("data"), folder.path().join("judge"));
    write_classifier(&source, &Parts::classifier().file(), &["bad", "fair", "good"], "");
    let up = Up::start_serving(&data, &[source.join("model.onnx").to_str().unwrap()], &[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let post = |path: &str| {
        let body = json!({"model": "judge", "input": "the weather is lovely"});
        let sent = reqwest::Client::new().post(format!("{}{path}", up.url())).json(&body);
        let answer = async { sent.send().await.unwrap().json::<Value>().await };
        runtime.block_on(answer).unwrap()
    };
    let said = post("/classify");
    let probs: Vec<f64> = serde_json::from_value(said["data"][0]["probs"].clone()).unwrap();
    let likeliest = (0..3).max_by(|&a, &b| probs[a].total_cmp(&probs[b])).unwrap();
    assert_eq!(said["data"][0]["label"], ["bad", "fair", "good"][likeliest]);
    assert!((probs.iter().sum::<f64>() - 1.0).abs() < 1e-8, "{probs:?}");
    assert_eq!(post("/v1/embeddings")["error"]["code"], "model_not_supported");
    up.stop();
    let file = folder.path().join("reply.json");
    fs::write(&file, said.to_string()).unwrap();
    assert_eq!(self::said(&data, &["verify", file.to_str().unwrap()]).0, 0);
}

#[test]
fn graphs_that_are_not_run_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("odd");
    let check = |graph: &[u8], more: &[&str], code: i32, expected: &str| {
        write(&source, graph);
        let mut import = assay();
        import.args(["model", "import"]).arg(&source).args(more);
        let (found, words) = refused(import.arg("--data-dir").arg(folder.path().join("data")));
        assert!(found == code && words.contains(expected), "{found}: {words}");
    };
    let whole = tiny();
    check(&whole[..whole.len() / 2], &[], 3, "not an ONNX file");
    check(&whole, &["--weights", "w4"], 2, "kept as it is");
    check(&whole, &["--context", "65"], 3, "the model has 64");
    let mut odd = Parts::encoder();
    odd.nodes.push(node("NoSuchOperator", &["normed"], "more", &[]));
    check(&odd.file(), &[], 3, "NoSuchOperator");
}
