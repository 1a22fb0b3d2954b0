//! Several answers to one request, and the older completions API.

use std::sync::Arc;
use std::time::Duration;

use assay_gateway::KeyRules;
use assay_protocol::{Answer, keccak256};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::stage::{CONTEXT, NAME, Pay, Said, Setup, Stage};

impl Stage {
    async fn complete(&self, fields: Value) -> Said {
        let mut body = json!({ "model": NAME, "prompt": "1+1=" });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.post_to("/v1/completions", body.to_string()).await
    }
}

/// The answer in a choice, after everything that can be checked about it.
async fn receipt(stage: &Stage, assay: &Value) -> Answer {
    let answer: Answer = serde_json::from_value(assay.clone()).unwrap();
    let kept = stage.receipt(&answer.hash().to_string()).await;
    assert_eq!(Answer { states: vec![], ..kept }, answer);
    answer
}

#[tokio::test]
async fn each_choice_is_an_order_with_a_receipt() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("the answer is 2");
    // None is told before all are under way.
    let pace = Arc::new(Semaphore::new(0));
    stage.providers[0].change(|act| act.pace = Some(Arc::clone(&pace)));
    let begun = async {
        while stage.providers[0].orders() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        pace.add_permits(1000);
    };
    let (said, ()) = tokio::join!(stage.chat(json!({"n": 3, "seed": 7})), begun);
    let body = said.json();
    let choices = body["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 3);
    assert!(body.get("assay").is_none());
    let (mut orders, mut prompt, mut output) = (vec![], 0, 0);
    for (index, choice) in choices.iter().enumerate() {
        assert_eq!(choice["index"], index);
        assert_eq!(choice["message"]["content"], "the answer is 2");
        let answer = receipt(&stage, &choice["assay"]).await;
        assert_eq!(answer.terms.sampler.choice as usize, index);
        assert_eq!(answer.terms.sampler.seed[31], 7);
        prompt += answer.order.prompt_tokens;
        output += answer.receipt.output_tokens;
        orders.push(answer.hash());
    }
    orders.dedup();
    assert_eq!(orders.len(), 3);
    assert_eq!(body["usage"]["prompt_tokens"], prompt);
    assert_eq!(body["usage"]["completion_tokens"], output);
    // The reply is called by its first order.
    assert_eq!(stage.receipt(body["id"].as_str().unwrap()).await.hash(), orders[0]);
}

#[tokio::test]
async fn a_stream_of_several_tells_whose_each_piece_is() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("one two three");
    let fields = json!({"n": 2, "stream": true, "stream_options": {"include_usage": true}});
    let said = stage.chat(fields).await;
    let mut events = said.events();
    assert_eq!(events.pop(), Some("[DONE]"));
    let chunks: Vec<Value> =
        events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    let (last, chunks) = chunks.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    let mut total = 0;
    for index in 0..2 {
        let mine: Vec<&Value> =
            chunks.iter().filter(|chunk| chunk["choices"][0]["index"] == index).collect();
        let deltas = mine.iter().map(|chunk| &chunk["choices"][0]["delta"]);
        assert_eq!(deltas.clone().filter(|delta| delta["role"] == "assistant").count(), 1);
        let text: String = deltas.filter_map(|delta| delta["content"].as_str()).collect();
        assert_eq!(text, "one two three");
        let ends: Vec<&&Value> =
            mine.iter().filter(|chunk| !chunk["choices"][0]["finish_reason"].is_null()).collect();
        let [end] = &ends[..] else { panic!("one end: {ends:?}") };
        let answer = receipt(&stage, &end["assay"]).await;
        total += answer.order.prompt_tokens + answer.receipt.output_tokens;
    }
    assert_eq!(last["usage"]["total_tokens"], total);
    assert_eq!(chunks.iter().filter(|chunk| chunk["id"] != last["id"]).count(), 0);
}

#[tokio::test]
async fn a_choice_that_fails_is_named_and_the_others_are_cancelled() {
    let stage = Stage::new(Setup { running_max: 16, ..Setup::default() }).await;
    stage.providers[0].says("one two three");
    stage.providers[0].change(|act| act.breaks_after = Some(2));
    let said = stage.chat(json!({"n": 2})).await;
    assert_eq!(said.error(), (502, "upstream_error".into()));
    assert!(said.json()["error"]["message"].as_str().unwrap().contains("choice "), "{}", said.body);
    let said = stage.chat(json!({"n": 2, "stream": true})).await;
    let last: Value = serde_json::from_str(said.events().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "upstream_error");
}

#[tokio::test]
async fn choices_take_places_and_are_paid_each() {
    let pay = Some(Pay::default());
    let stage = Stage::new(Setup { pay, requests_max: 3, ..Setup::default() }).await;
    stage.providers[0].says("the answer is 2");
    let body = stage.chat(json!({"n": 3, "max_tokens": 20})).await.json();
    let prices: Vec<u128> = body["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| {
            let answer: Answer = serde_json::from_value(choice["assay"].clone()).unwrap();
            answer.receipt.price.0
        })
        .collect();
    assert_eq!(prices.len(), 3, "{body}");
    let settled: u128 =
        stage.providers[0].accounts.lock().unwrap().values().map(|account| account.charged).sum();
    assert_eq!(settled, prices.iter().sum::<u128>());
    let said = stage.chat(json!({"n": 4})).await;
    assert_eq!(said.error(), (429, "overloaded".into()));
    // All places are free again.
    stage.until_ok(json!({"n": 3, "max_tokens": 20})).await;
}

#[tokio::test]
async fn a_keys_budget_holds_for_all_choices_together() {
    let keys = KeyRules { demanded: true, admin: Some(keccak256("admin")) };
    let pay = Some(Pay::default());
    let stage = Stage::new(Setup { keys, pay, ..Setup::default() }).await;
    stage.providers[0].says("the answer is 2");
    let terms = json!({"name": "ada", "budget": "60", "requests_per_minute": 60});
    let made = stage.http.post(format!("{}/v1/keys", stage.url)).bearer_auth("admin").json(&terms);
    let made = stage.send(made).await.json();
    let key = made["key"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
    let ask = async |n: u32| {
        stage.send(stage.request(json!({"n": n, "max_tokens": 10})).bearer_auth(&key)).await
    };
    let said = ask(5).await;
    assert_eq!(said.status, 429, "{}", said.body);
    assert_eq!(stage.providers[0].orders(), 0);
    let said = ask(2).await;
    assert_eq!(said.status, 200, "{}", said.body);
}

#[tokio::test]
async fn the_older_api_goes_on_from_prompts() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("2 and more");
    let body = stage.complete(json!({})).await.json();
    assert_eq!(
        (&body["object"], &body["choices"][0]["text"]),
        (&json!("text_completion"), &json!("2 and more"))
    );
    let id = body["id"].as_str().unwrap();
    assert!(id.starts_with("cmpl-"), "{id}");
    let answer = stage.receipt(id).await;
    assert_eq!(answer.terms.prompt, stage.tokenizer.encode("1+1="));
    assert_eq!(answer.request.as_deref(), Some(r#"{"prompt":"1+1="}"#));
    assert_eq!(answer.order.max_tokens, 16);
    assert_eq!(body["usage"]["prompt_tokens"], answer.order.prompt_tokens);

    let echoed = stage.complete(json!({"echo": true, "max_tokens": 1})).await.json();
    assert_eq!(echoed["choices"][0]["text"], "1+1=2");
    assert_eq!(echoed["choices"][0]["finish_reason"], "length");

    let ids = stage.tokenizer.encode("1+1=");
    let several = stage.complete(json!({"prompt": ["a", "b"], "n": 2, "echo": true})).await.json();
    let texts = several["choices"].as_array().unwrap();
    let texts: Vec<&str> = texts.iter().map(|choice| choice["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["a2 and more", "a2 and more", "b2 and more", "b2 and more"]);
    let tokens = stage.complete(json!({"prompt": [ids.clone(), ids], "echo": true})).await.json();
    assert_eq!(tokens["choices"][1]["text"], "1+1=2 and more");

    let stopped = stage.complete(json!({"stop": " more", "seed": 3})).await.json();
    assert_eq!(stopped["choices"][0]["text"], "2 and");
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    for (fields, code) in [
        (json!({"suffix": "x"}), "unsupported_parameter"),
        (json!({"max_tokens": CONTEXT}), "context_length_exceeded"),
        (json!({"prompt": [1_000_000]}), "invalid_value"),
    ] {
        assert_eq!(stage.complete(fields).await.error(), (400, code.into()));
    }
}

#[tokio::test]
async fn the_older_api_streams_in_its_own_shape() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("2 and more");
    let fields = json!({"stream": true, "echo": true, "stream_options": {"include_usage": true}});
    let said = stage.complete(fields).await;
    let mut events = said.events();
    assert_eq!(events.pop(), Some("[DONE]"));
    let chunks: Vec<Value> =
        events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    let text: String =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["text"].as_str()).collect();
    assert_eq!(text, "1+1=2 and more");
    assert!(chunks.iter().all(|chunk| chunk["object"] == "text_completion"));
    let (last, chunks) = chunks.split_last().unwrap();
    assert!(chunks.iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some()));
    let answer = receipt(&stage, &last["assay"]).await;
    assert_eq!(last["usage"]["completion_tokens"], answer.receipt.output_tokens);
}

#[tokio::test]
async fn of_no_tokens_nothing_is_bought() {
    let stage = Stage::new(Setup::default()).await;
    let body = stage.chat(json!({"max_tokens": 0})).await.json();
    let choice = &body["choices"][0];
    assert_eq!(
        (&choice["message"]["content"], &choice["finish_reason"]),
        (&json!(""), &json!("length"))
    );
    assert!(body["usage"]["prompt_tokens"].as_u64().unwrap() > 0);
    assert_eq!(body["usage"]["completion_tokens"], 0);
    let echoed = stage.complete(json!({"max_tokens": 0, "echo": true, "stream": true})).await;
    assert!(echoed.body.contains(r#""text":"1+1=""#), "{}", echoed.body);
    assert!(echoed.body.ends_with("data: [DONE]\n\n"));
    assert_eq!(stage.providers[0].orders(), 0);
}
