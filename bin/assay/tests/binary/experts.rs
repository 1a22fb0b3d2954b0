//! A model with experts, on a network of its own: chats, and receipts that anyone can replay.

use std::fs;

use serde_json::{Value, json};

use crate::random_family;
use crate::support::{Up, said};

#[test]
fn a_model_with_experts_chats_and_its_receipt_is_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let (data, model) = (folder.path().join("data"), folder.path().join("tiny-experts.gguf"));
    fs::write(&model, random_family::random_with_experts().file()).unwrap();
    let up = Up::start_with(&data, "ASSAY_MODEL", model.to_str().unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let chat = |text: &str| {
        let messages = [json!({"role": "user", "content": text})];
        let body = json!({"model": "tiny-experts", "messages": messages, "seed": 3,
            "temperature": 1.5, "max_tokens": 12});
        let sent =
            reqwest::Client::new().post(format!("{}/v1/chat/completions", up.url())).json(&body);
        async { sent.send().await.unwrap().json::<Value>().await.unwrap() }
    };
    let texts = ["the seven experts", "or one of 12", "the seven experts"];
    // At once, so that rows which choose different experts share a batch.
    let (first, other, again) =
        runtime.block_on(async { tokio::join!(chat(texts[0]), chat(texts[1]), chat(texts[2])) });
    let text = |reply: &Value| reply["choices"][0]["message"]["content"].clone();
    assert!(text(&first).as_str().is_some_and(|text| text.len() > 3), "{first}");
    assert_eq!(text(&first), text(&again));
    assert_ne!(text(&first), text(&other));
    up.stop();

    let file = folder.path().join("reply.json");
    let verify = |body: &Value| {
        fs::write(&file, body.to_string()).unwrap();
        let (code, verdict) = said(&data, &["verify", file.to_str().unwrap()]);
        (code, verdict["assurance"].clone())
    };
    assert_eq!(verify(&first), (0, json!("scored")));
    assert_eq!(verify(&other), (0, json!("scored")));
    let mut changed = first;
    let token = changed["assay"]["output"][2].as_u64().unwrap();
    changed["assay"]["output"][2] = json!((token + 1) % random_family::VOCAB);
    assert_eq!(verify(&changed).0, 10);
}
