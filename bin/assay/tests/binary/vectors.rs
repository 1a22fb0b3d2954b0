//! A network that serves a model that makes vectors, from the file to the receipt that is replayed.

use std::fs;

use serde_json::{Value, json};

use crate::random_family;
use crate::support::{Up, said};

#[test]
fn a_text_gets_a_vector_that_anyone_can_replay() {
    let folder = tempfile::tempdir().unwrap();
    let (data, model) = (folder.path().join("data"), folder.path().join("tiny-bert.gguf"));
    fs::write(&model, random_family::random_bert().file()).unwrap();
    let up = Up::start_with(&data, "ASSAY_MODEL", model.to_str().unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let post = |path: &str, body: Value| {
        let sent = reqwest::Client::new().post(format!("{}{path}", up.url())).json(&body);
        let answer = async { sent.send().await.unwrap().json::<Value>().await };
        runtime.block_on(answer).unwrap()
    };
    let inputs = ["the weather", "is lovely", "the weather"];
    let several = post("/v1/embeddings", json!({"model": "tiny-bert", "input": inputs}));
    let vector = |index: usize| several["data"][index]["embedding"].as_array().unwrap();
    assert_eq!((vector(0).len(), vector(0)), (64, vector(2)));
    assert_ne!(vector(0), vector(1));
    let mut one = post("/v1/embeddings", json!({"model": "tiny-bert", "input": inputs[0]}));
    assert_eq!(one["data"][0]["embedding"].as_array(), Some(vector(0)));
    let chat = json!({"model": "tiny-bert", "messages": [{"role": "user", "content": "hi"}]});
    let refused = post("/v1/chat/completions", chat);
    assert_eq!(refused["error"]["code"], "model_not_supported");
    up.stop();

    let file = folder.path().join("reply.json");
    let verify = |body: &Value| {
        fs::write(&file, body.to_string()).unwrap();
        let (code, verdict) = said(&data, &["verify", file.to_str().unwrap()]);
        (code, verdict["blame"].clone())
    };
    assert_eq!(verify(&one), (0, Value::Null));
    // Without its vector it is judged by its state alone.
    let number = one["assay"]["vector"][5].as_i64().unwrap();
    let honest = one["assay"].as_object_mut().unwrap().remove("vector").unwrap();
    assert_eq!(verify(&one), (0, Value::Null));
    one["assay"]["vector"] = honest;
    one["assay"]["vector"][5] = json!(number ^ 1);
    assert_eq!(verify(&one), (10, json!("file")));
}
