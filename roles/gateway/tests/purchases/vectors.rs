//! Embeddings: bought one order each, told as clients want them, and never another than was signed.

use assay_protocol::{Answer, OrderHash};
use serde_json::{Value, json};

use crate::provider::{Act, Lie};
use crate::stage::{CONTEXT, NAME, Said, Setup, Stage};

/// A gateway whose one model makes vectors, and a provider that gives every text this one.
async fn stage(vector: &[i32]) -> Stage {
    let width = u32::try_from(vector.len()).unwrap();
    let stage = Stage::new(Setup { vector_width: Some(width), ..Setup::default() }).await;
    let vector = Some(vector.to_vec());
    stage.providers[0].change(|act| *act = Act { vector, ..Act::default() });
    stage
}

async fn embed(stage: &Stage, fields: Value) -> Said {
    let mut body = json!({"model": NAME});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    stage.post_to("/v1/embeddings", body.to_string()).await
}

const HALF: i32 = 1 << 29;

#[tokio::test]
async fn a_vector_is_bought_checked_and_told() {
    let stage = stage(&[HALF, -HALF, 2 * HALF]).await;
    let body = embed(&stage, json!({"input": "1+1="})).await.json();
    assert_eq!(body["object"], "list");
    assert_eq!(body["model"], NAME);
    assert_eq!(body["data"][0]["object"], "embedding");
    assert_eq!(body["data"][0]["embedding"], json!([0.5, -0.5, 1.0]));
    let tokens = stage.tokenizer.encode_plain("1+1=").len();
    assert_eq!(body["usage"], json!({"prompt_tokens": tokens, "total_tokens": tokens}));
    // The receipt stands in the reply, and is kept with the vector.
    let answer: Answer = serde_json::from_value(body["assay"].clone()).unwrap();
    assert_eq!(answer.vector, Some(vec![HALF, -HALF, 2 * HALF]));
    assert!(answer.receipt.binds(&[HALF, -HALF, 2 * HALF], &answer.output));
    assert_eq!(answer.request.as_deref(), Some(r#"{"input":"1+1="}"#));
    let kept = stage.receipt(body["data"][0]["receipt"].as_str().unwrap()).await;
    assert_eq!(Answer { states: vec![], ..kept }, answer);
}

#[tokio::test]
async fn several_inputs_are_as_many_orders() {
    let stage = stage(&[HALF, 0]).await;
    let tokens = stage.tokenizer.encode_plain("b");
    let inputs: Vec<Value> = (0..30).map(|n| json!(format!("a{n}"))).collect();
    let said = embed(&stage, json!({"input": inputs, "encoding_format": "base64"})).await.json();
    let data = said["data"].as_array().unwrap();
    assert_eq!((data.len(), stage.providers[0].orders()), (30, 30));
    for (index, item) in data.iter().enumerate() {
        assert_eq!((&item["index"], &item["embedding"]), (&json!(index), &json!("AAAAPwAAAAA=")));
        let order: OrderHash = item["receipt"].as_str().unwrap().parse().unwrap();
        let kept = stage.receipt(&order.to_string()).await;
        assert_eq!(kept.request.unwrap(), format!(r#"{{"input":"a{index}"}}"#));
    }
    assert!(said.get("assay").is_none());
    let said = embed(&stage, json!({"input": [tokens, tokens], "dimensions": 1})).await.json();
    assert_eq!(said["data"][1]["embedding"], json!([1.0]));
    assert_eq!(said["usage"]["prompt_tokens"], json!(2 * tokens.len()));
}

#[tokio::test]
async fn what_cannot_be_had_is_refused_before_anything_is_bought() {
    let stage = stage(&[HALF, 0]).await;
    let refused = async |fields: Value, code: &str| {
        assert_eq!(embed(&stage, fields.clone()).await.error(), (400, code.into()), "{fields}");
    };
    refused(json!({"input": ""}), "invalid_value").await;
    refused(json!({"input": ["a", ""]}), "invalid_value").await;
    refused(json!({"input": vec!["a"; 2049]}), "invalid_value").await;
    refused(json!({"input": "a", "dimensions": 3}), "invalid_value").await;
    refused(json!({"input": "1 ".repeat(CONTEXT as usize)}), "context_length_exceeded").await;
    refused(json!({"input": vec![7; CONTEXT as usize]}), "context_length_exceeded").await;
    refused(json!({"input": [1 << 30]}), "invalid_value").await;
    let fits = vec![7; CONTEXT as usize - 1];
    assert_eq!(embed(&stage, json!({"input": fits})).await.status, 200);
    assert_eq!(stage.providers[0].orders(), 1);
    // It does not chat, and says so.
    let chat = stage.chat(json!({})).await.error();
    assert_eq!(chat, (400, "model_not_supported".into()));
    let card = stage.get(&format!("/v1/models/{NAME}")).await.json();
    assert_eq!((&card["capabilities"], &card["dimensions"]), (&json!(["embeddings"]), &json!(2)));
}

#[tokio::test]
async fn texts_are_told_apart() {
    let labels: Vec<String> = ["bad", "good"].map(str::to_owned).to_vec();
    let (width, labels) = (Some(2), Some(labels.into()));
    let stage = Stage::new(Setup { vector_width: width, labels, ..Setup::default() }).await;
    let vector = vec![HALF / 2, HALF + HALF / 2];
    stage.providers[0].change(|act| *act = Act { vector: Some(vector), ..Act::default() });
    let classify = async |input: Value| {
        let body = json!({"model": NAME, "input": input});
        stage.post_to("/classify", body.to_string()).await
    };
    let one = classify(json!("1+1=")).await.json();
    let said = &one["data"][0];
    assert_eq!((&said["label"], &said["probs"]), (&json!("good"), &json!([0.25, 0.75])));
    assert_eq!((&said["num_classes"], &said["index"]), (&json!(2), &json!(0)));
    let answer: Answer = serde_json::from_value(one["assay"].clone()).unwrap();
    assert!(answer.receipt.binds(answer.vector.as_ref().unwrap(), &answer.output));
    let several = classify(json!(["a", "b", "c"])).await.json();
    assert_eq!(several["data"].as_array().unwrap().len(), 3);
    assert!(several.get("assay").is_none());
    // Its probabilities are no embedding, and an embedding is no probabilities.
    let refused = (400, "model_not_supported".into());
    assert_eq!(embed(&stage, json!({"input": "a"})).await.error(), refused);
    let card = stage.get(&format!("/v1/models/{NAME}")).await.json();
    assert_eq!((&card["capabilities"], card.get("dimensions")), (&json!(["classify"]), None));
    let embeds = self::stage(&[HALF, 0]).await;
    let body = json!({"model": NAME, "input": "a"}).to_string();
    assert_eq!(embeds.post_to("/classify", body).await.error(), refused);
}

#[tokio::test]
async fn a_vector_that_was_not_signed_for_ends_the_session() {
    for lie in [Lie::Vector, Lie::NoVector] {
        let stage = stage(&[HALF, 0]).await;
        stage.providers[0].change(|act| act.lie = Some(lie));
        let said = embed(&stage, json!({"input": "a"})).await;
        assert_eq!(said.error(), (502, "receipt_mismatch".into()), "{lie:?}: {}", said.body);
        // What shows the lie is kept, the vector that came included.
        let lies = stage.get("/v1/lies").await;
        assert!(lies.body.contains("vector"), "{}", lies.body);
        assert_eq!(embed(&stage, json!({"input": "a"})).await.status, 503);
    }
    let stage = stage(&[HALF, 0]).await;
    stage.providers[0].change(|act| act.lie = Some(Lie::Vectors));
    assert_eq!(embed(&stage, json!({"input": "a"})).await.error().0, 502);
}

#[tokio::test]
async fn a_model_that_writes_gives_no_vector() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].change(|act| act.vector = Some(vec![1]));
    assert_eq!(stage.chat(json!({})).await.error().0, 502);
}

#[tokio::test]
async fn one_failure_is_named_and_cancels_the_rest() {
    let stage = stage(&[HALF, 0]).await;
    stage.providers[0].change(|act| act.breaks_after = Some(0));
    let said = embed(&stage, json!({"input": ["a", "b", "c"]})).await;
    assert_eq!(said.status, 502, "{}", said.body);
    assert!(said.json()["error"]["message"].as_str().unwrap().starts_with("input[0] failed: "));
}
