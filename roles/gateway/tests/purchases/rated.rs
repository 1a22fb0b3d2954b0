//! Logprobs as clients get them, and answers that are held to a shape.

use assay_protocol::Assurance;
use serde_json::{Value, json};

use crate::provider::Lie;
use crate::stage::{NAME, Setup, Stage};

/// The tokens of a chat's logprobs, joined, after a look at each.
fn joined(content: &Value, top: usize) -> String {
    let content = content.as_array().unwrap();
    let token = |said: &Value| {
        let text = said["token"].as_str().unwrap().to_owned();
        let logprob = said["logprob"].as_f64().unwrap();
        assert!(logprob <= 0.0 && logprob.is_finite());
        let bytes: Vec<u8> = serde_json::from_value(said["bytes"].clone()).unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes), text);
        let alternatives = said["top_logprobs"].as_array().unwrap();
        assert_eq!(alternatives.len(), top);
        let logprobs = alternatives.iter().map(|other| other["logprob"].as_f64().unwrap());
        assert!(logprobs.is_sorted_by(|one, next| one >= next));
        text
    };
    content.iter().map(token).collect()
}

#[tokio::test]
async fn logprobs_are_of_the_text_whole_and_in_pieces() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("one two three END four");
    let fields = json!({"logprobs": true, "top_logprobs": 3});
    let choice = stage.chat(fields.clone()).await.json()["choices"][0].clone();
    assert_eq!(joined(&choice["logprobs"]["content"], 3), "one two three END four");
    assert!(choice["logprobs"]["refusal"].is_null());

    let mut fields = fields;
    fields["stream"] = json!(true);
    let said = stage.chat(fields).await;
    let (mut text, mut tokens) = (String::new(), String::new());
    for event in said.events().iter().filter(|event| **event != "[DONE]") {
        let chunk: Value = serde_json::from_str(event).unwrap();
        let choice = &chunk["choices"][0];
        text += choice["delta"]["content"].as_str().unwrap_or_default();
        if !choice["logprobs"].is_null() {
            tokens += &joined(&choice["logprobs"]["content"], 3);
        }
    }
    assert_eq!((text.as_str(), tokens), ("one two three END four", text.clone()));

    // What a stop string takes away is no token of the text either.
    let fields = json!({"logprobs": true, "stop": ["END"]});
    let choice = stage.chat(fields).await.json()["choices"][0].clone();
    let text = choice["message"]["content"].as_str().unwrap();
    assert_eq!(text, "one two three ");
    assert!(text.starts_with(&joined(&choice["logprobs"]["content"], 0)));

    let choice = stage.chat(json!({})).await.json()["choices"][0].clone();
    assert!(choice["logprobs"].is_null());
}

#[tokio::test]
async fn completions_have_lists_beside_each_other() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("a b");
    let body = json!({"model": NAME, "prompt": "x", "logprobs": 2}).to_string();
    let said = stage.post_to("/v1/completions", body).await.json();
    let (text, logprobs) = (&said["choices"][0]["text"], &said["choices"][0]["logprobs"]);
    let list = |name: &str| logprobs[name].as_array().unwrap().clone();
    let tokens: Vec<String> =
        list("tokens").iter().map(|token| token.as_str().unwrap().to_owned()).collect();
    assert_eq!(&Value::from(tokens.concat()), text);
    let lengths =
        ["tokens", "token_logprobs", "top_logprobs", "text_offset"].map(|n| list(n).len());
    assert_eq!(lengths, [tokens.len(); 4]);
    assert_eq!(list("text_offset")[1], tokens[0].chars().count());
}

#[tokio::test]
async fn logprobs_that_no_model_gives_are_a_lie() {
    for (lie, asked) in [(Lie::Unrated, true), (Lie::TooLikely, true), (Lie::Unasked, false)] {
        let stage = Stage::new(Setup::default()).await;
        stage.providers[0].says("one");
        stage.providers[0].change(|act| act.lie = Some(lie));
        let said = stage.chat(json!({"logprobs": asked})).await;
        assert_eq!(said.status, 502, "{lie:?}: {}", said.body);
        let listing = stage.get("/v1/providers").await.json();
        assert!(listing["data"][0]["struck"].is_string(), "{lie:?}: {listing}");
    }
}

#[tokio::test]
async fn an_answer_of_a_shape_is_ordered_as_scored() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("one");
    let said = stage.chat(json!({"response_format": {"type": "json_object"}})).await.json();
    let answer = stage.receipt(said["id"].as_str().unwrap()).await;
    assert_eq!(answer.order.assurance, Assurance::Scored);
    assert_eq!(answer.receipt.assurance, Assurance::Scored);
    assert!(answer.terms.grammar.unwrap().starts_with("start: %json"));
    let said = stage.chat(json!({})).await.json();
    let answer = stage.receipt(said["id"].as_str().unwrap()).await;
    assert_eq!((answer.order.assurance, answer.terms.grammar), (Assurance::Replayable, None));

    let schema = json!({"name": "n", "schema": {"$ref": "https://example.org/schema"}});
    let format = json!({"type": "json_schema", "json_schema": schema});
    let refused = stage.chat(json!({"response_format": format})).await;
    assert_eq!(refused.error(), (400, "invalid_json_schema".into()));
}
