//! The Responses API, and replies that clients keep.

use serde_json::{Value, json};
use tokio::sync::Semaphore;

use std::sync::Arc;

use crate::keys::{made, public, terms};
use crate::stage::{NAME, Said, Setup, Stage};

impl Stage {
    pub(crate) async fn respond(&self, fields: Value) -> Said {
        let mut body = json!({ "model": NAME, "input": "1+1=" });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.post_to("/v1/responses", body.to_string()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Said {
        self.send(self.http.delete(format!("{}{path}", self.url))).await
    }
}

/// The types of a stream's events, and the last one's response.
fn events(said: &Said) -> (Vec<String>, Value) {
    let events: Vec<Value> = said
        .body
        .split("\n\n")
        .filter_map(|event| serde_json::from_str(event.split_once("data: ")?.1).ok())
        .collect();
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number, "{event}");
    }
    let kinds = events.iter().map(|event| event["type"].as_str().unwrap().to_owned());
    (kinds.collect(), events.last().unwrap()["response"].clone())
}

#[tokio::test]
async fn a_response_is_an_answer_under_other_names() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("the answer is 2");
    let said = stage.respond(json!({"instructions": "be brief", "temperature": 0})).await;
    assert_eq!(said.status, 200, "{}", said.body);
    let body = said.json();
    assert_eq!((&body["object"], &body["status"]), (&json!("response"), &json!("completed")));
    assert_eq!(body["output"][0]["content"][0]["text"], "the answer is 2");
    assert_eq!((&body["instructions"], &body["temperature"]), (&json!("be brief"), &json!(0)));
    let id = body["id"].as_str().unwrap();
    let answer = stage.receipt(id).await;
    assert_eq!(body["usage"]["input_tokens"], answer.order.prompt_tokens);
    assert_eq!(body["usage"]["output_tokens"], answer.receipt.output_tokens);
    let counted = stage
        .post_to(
            "/v1/responses/input_tokens",
            json!({"model": NAME, "input": "1+1=", "instructions": "be brief"}).to_string(),
        )
        .await;
    assert_eq!(counted.json()["input_tokens"], answer.order.prompt_tokens);
    // It was stored, by its clients' habit.
    assert_eq!(stage.get(&format!("/v1/responses/{id}")).await.json(), body);
    let items = stage.get(&format!("/v1/responses/{id}/input_items")).await.json();
    assert_eq!(items["data"][0]["content"][0], json!({"type": "input_text", "text": "1+1="}));
    let cancelled = stage.post_to(&format!("/v1/responses/{id}/cancel"), "{}".into()).await;
    assert_eq!(cancelled.error(), (400, "invalid_value".into()));
    assert_eq!(stage.delete(&format!("/v1/responses/{id}")).await.json()["deleted"], true);
    assert_eq!(stage.get(&format!("/v1/responses/{id}")).await.error(), (404, "not_found".into()));
    let short = stage.respond(json!({"max_output_tokens": 1, "store": false})).await.json();
    assert_eq!(short["incomplete_details"], json!({"reason": "max_output_tokens"}));
    let id = short["id"].as_str().unwrap();
    assert_eq!(stage.get(&format!("/v1/responses/{id}")).await.status, 404);
}

#[tokio::test]
async fn a_responses_stream_has_every_event_once_and_is_told_again() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("one two");
    let said = stage.respond(json!({"stream": true})).await;
    let (mut kinds, response) = events(&said);
    assert!(!said.body.contains("[DONE]"));
    assert_eq!(kinds.first().map(String::as_str), Some("response.created"));
    assert_eq!(kinds.last().map(String::as_str), Some("response.completed"));
    assert_eq!(response["output"][0]["content"][0]["text"], "one two");
    let id = response["id"].as_str().unwrap();
    assert_eq!(stage.get(&format!("/v1/responses/{id}")).await.json(), response);
    let again = stage.get(&format!("/v1/responses/{id}?stream=true")).await;
    let (told, same) = events(&again);
    kinds.dedup();
    assert_eq!((told, same), (kinds, response));
}

#[tokio::test]
async fn a_response_goes_on_from_another() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("two");
    let first = stage.respond(json!({"instructions": "count"})).await.json();
    let fields = json!({"input": "and more?", "previous_response_id": first["id"]});
    let second = stage.respond(fields).await.json();
    let answer = stage.receipt(second["id"].as_str().unwrap()).await;
    let said = r#"{"messages":[{"content":"1+1=","role":"user"},{"content":"two","role":"assistant"},{"content":"and more?","role":"user"}]}"#;
    assert_eq!(answer.request.as_deref(), Some(said));
    let missing = stage.respond(json!({"previous_response_id": "resp_none"})).await;
    assert_eq!(missing.error(), (404, "not_found".into()));
    assert_eq!(missing.json()["error"]["param"], "previous_response_id");
}

#[tokio::test]
async fn a_response_in_the_background_is_fetched_or_cancelled() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("one two three");
    let done = stage.respond(json!({"background": true})).await.json();
    assert_eq!((&done["status"], &done["background"]), (&json!("in_progress"), &json!(true)));
    let path = format!("/v1/responses/{}", done["id"].as_str().unwrap());
    let done = stage.until(&path, |said| said.json()["status"] == "completed").await.json();
    assert_eq!(done["output"][0]["content"][0]["text"], "one two three");

    stage.providers[0].change(|act| act.pace = Some(Arc::new(Semaphore::new(1))));
    let slow = stage.respond(json!({"background": true})).await.json();
    let path = format!("/v1/responses/{}", slow["id"].as_str().unwrap());
    let cancelled = stage.post_to(&format!("{path}/cancel"), "{}".into()).await.json();
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(stage.get(&path).await.json()["status"], "cancelled");
    for _ in 0..500 {
        if stage.providers[0].deletes() == 1 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the order was not cancelled");
}

#[tokio::test]
async fn what_a_gateway_left_unfinished_failed() {
    let drain_max = std::time::Duration::from_millis(50);
    let mut stage = Stage::new(Setup { drain_max, ..Setup::default() }).await;
    stage.providers[0].says("one two three");
    stage.providers[0].change(|act| act.pace = Some(Arc::new(Semaphore::new(0))));
    let slow = stage.respond(json!({"background": true})).await.json();
    let path = format!("/v1/responses/{}", slow["id"].as_str().unwrap());
    stage.restart("answers.redb").await;
    let found = stage.get(&path).await.json();
    assert_eq!(found["status"], "failed", "{found}");
}

#[tokio::test]
async fn stored_completions_are_listed_noted_on_and_taken_away() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("the answer is 2");
    stage.chat(json!({})).await;
    assert_eq!(stage.get("/v1/chat/completions").await.json()["data"], json!([]));
    let one = stage.chat(json!({"store": true, "metadata": {"a": "1"}})).await.json();
    let fields = json!({"store": true, "metadata": {"a": "2"}, "stream": true});
    stage.chat(fields).await;
    let list = stage.get("/v1/chat/completions").await.json();
    assert_eq!(list["data"].as_array().unwrap().len(), 2);
    let noted = stage.get("/v1/chat/completions?metadata[a]=1&model=org/nano").await.json();
    assert_eq!(noted["data"].as_array().unwrap().len(), 1);
    let id = one["id"].as_str().unwrap();
    let path = format!("/v1/chat/completions/{id}");
    let found = stage.get(&path).await.json();
    assert_eq!(found["choices"], one["choices"]);
    let messages = stage.get(&format!("{path}/messages")).await.json();
    assert_eq!(
        (&messages["data"][0]["role"], &messages["data"][0]["content"]),
        (&json!("user"), &json!("1+1="))
    );
    let noted = stage.post_to(&path, json!({"metadata": {"b": "3"}}).to_string()).await.json();
    assert_eq!(noted["metadata"], json!({"b": "3"}));
    assert_eq!(stage.get(&path).await.json()["metadata"], json!({"b": "3"}));
    assert_eq!(stage.delete(&path).await.json()["deleted"], true);
    assert_eq!(stage.get(&path).await.status, 404);
    let bad = stage.chat(json!({"metadata": {"a": 1}})).await;
    assert_eq!(bad.error(), (400, "invalid_type".into()));
}

#[tokio::test]
async fn what_one_key_stored_no_other_sees() {
    let stage = public(Setup::default()).await;
    let (ada, _) = made(&stage, terms(10_000)).await;
    let (bob, _) = made(&stage, terms(10_000)).await;
    let said = stage.send(stage.request(json!({"store": true})).bearer_auth(&ada)).await;
    let path = format!("/v1/chat/completions/{}", said.json()["id"].as_str().unwrap());
    let get = async |key: &str, path: &str| {
        stage.send(stage.http.get(format!("{}{path}", stage.url)).bearer_auth(key)).await
    };
    assert_eq!(get(&ada, &path).await.status, 200);
    assert_eq!(get(&bob, &path).await.status, 404);
    assert_eq!(get(&bob, "/v1/chat/completions").await.json()["data"], json!([]));
    assert_eq!(stage.get(&path).await.error(), (401, "invalid_api_key".into()));
}

#[tokio::test]
async fn an_alias_is_a_name_and_vectors_are_not_made_up() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("2");
    let body = stage.chat(json!({"model": "gpt"})).await.json();
    assert_eq!(body["model"], NAME);
    assert_eq!(stage.get("/v1/models/gpt").await.json()["id"], NAME);
    assert_eq!(stage.get("/v1/models/gpt-2").await.error(), (404, "model_not_found".into()));
    let kept = stage.delete(&format!("/v1/models/{NAME}")).await;
    assert_eq!(kept.error(), (403, "model_not_deletable".into()));
    let embed = async |model: &str| {
        let body = json!({"model": model, "input": "a"}).to_string();
        stage.post_to("/v1/embeddings", body).await.error()
    };
    assert_eq!(embed(NAME).await, (400, "model_not_supported".into()));
    assert_eq!(embed("nobody").await, (404, "model_not_found".into()));
}
