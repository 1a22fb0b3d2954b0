//! The same answers by JSON-RPC, over HTTP and over a WebSocket.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_tungstenite::tungstenite::Message;

use crate::stage::{NAME, Setup, Stage};

async fn call(stage: &Stage, method: &str, params: Value) -> Value {
    let call = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
    let said = stage.send(stage.http.post(format!("{}/rpc", stage.url)).json(&call)).await;
    assert_eq!(said.status, 200, "{}", said.body);
    let answer = said.json();
    assert_eq!((&answer["jsonrpc"], &answer["id"]), (&json!("2.0"), &json!(7)));
    answer
}

fn request() -> Value {
    json!({ "model": NAME, "messages": [{ "role": "user", "content": "1+1=" }], "temperature": 0 })
}

#[tokio::test]
async fn it_quotes_answers_keeps_and_checks() {
    let stage = Stage::new(Setup { prices: vec![3, 2], ..Setup::default() }).await;
    stage.providers[1].says("the answer is 2");
    let models = call(&stage, "assay_models", json!([])).await;
    assert_eq!(models["result"][0]["name"], NAME);
    assert_eq!(models["result"][0]["offers"].as_array().unwrap().len(), 2);

    let quote = call(&stage, "assay_quote", json!([request()])).await["result"].clone();
    let inferred = call(&stage, "assay_infer", json!([request()])).await["result"].clone();
    assert_eq!(
        (&inferred["text"], &inferred["finishReason"]),
        (&json!("the answer is 2"), &json!("stop"))
    );
    let amount = |value: &Value| value.as_str().unwrap().parse::<u128>().unwrap();
    let paid = amount(&inferred["receipt"]["receipt"]["price"]);
    assert!(amount(&quote["minPrice"]) <= paid && paid <= amount(&quote["maxPrice"]), "{quote}");
    assert_eq!(quote["promptTokens"], inferred["usage"]["prompt_tokens"]);

    let order = inferred["order"].clone();
    let kept = call(&stage, "assay_receipt", json!([order])).await["result"].clone();
    assert_eq!(kept["receipt"], inferred["receipt"]["receipt"]);
    let other = format!("0x{}", "11".repeat(32));
    assert_eq!(call(&stage, "assay_receipt", json!([other])).await["result"], Value::Null);

    let verdict = call(&stage, "assay_verify", json!([kept])).await["result"].clone();
    assert_eq!((&verdict["consistent"], &verdict["order"]), (&json!(true), &order));
    assert_eq!(verdict["replayed"], false);
    assert!(verdict["advice"].as_str().unwrap().contains("`assay verify FILE`"), "{verdict}");
    for (field, value) in
        [("text", json!("the answer is 3")), ("output", json!([1])), ("chainId", json!(1))]
    {
        let mut changed = kept.clone();
        changed[field] = value;
        let verdict = call(&stage, "assay_verify", json!([changed])).await["result"].clone();
        assert_eq!(verdict["consistent"], false, "{field}");
        assert!(verdict["reason"].is_string(), "{field}");
    }
}

#[tokio::test]
async fn a_mistake_is_named() {
    let stage = Stage::new(Setup::default()).await;
    let code = async |method: &str, params: Value| {
        let answer = call(&stage, method, params).await;
        (answer["error"]["code"].as_i64().unwrap(), answer["error"]["data"]["code"].clone())
    };
    assert_eq!(code("assay_nothing", json!([])).await.0, -32601);
    assert_eq!(code("assay_infer", json!([])).await.0, -32602);
    assert_eq!(
        code("assay_infer", json!([{ "model": NAME }])).await,
        (-32602, json!("missing_required_parameter"))
    );
    let unknown = json!([{ "model": "x", "messages": [{ "role": "user", "content": "1" }] }]);
    assert_eq!(code("assay_quote", unknown).await, (-32602, json!("model_not_found")));
    assert_eq!(code("assay_verify", json!([{}])).await.0, -32602);
    assert_eq!(code("assay_receipt", json!(["0x12"])).await.0, -32602);
    assert_eq!(code("assay_subscribe", json!(["infer", request()])).await.0, -32600);

    let batch = json!([
        { "jsonrpc": "2.0", "id": "a", "method": "assay_models" },
        { "jsonrpc": "2.0", "method": "assay_models" },
        7,
    ]);
    let said = stage.send(stage.http.post(format!("{}/rpc", stage.url)).json(&batch)).await.json();
    assert_eq!(said.as_array().unwrap().len(), 2, "a notification gets no answer: {said}");
    assert_eq!((&said[0]["id"], &said[1]["error"]["code"]), (&json!("a"), &json!(-32600)));
}

#[tokio::test]
async fn the_document_describes_what_is_there() {
    let stage = Stage::new(Setup::default()).await;
    let document = call(&stage, "rpc.discover", json!([])).await["result"].clone();
    let methods = document["methods"].as_array().unwrap();
    assert!(methods.len() >= 8);
    for method in methods {
        let answer = call(&stage, method["name"].as_str().unwrap(), json!([])).await;
        assert_ne!(answer["error"]["code"], -32601, "{method}");
    }
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 50);
    for reference in found {
        let there = document.pointer(reference.strip_prefix('#').unwrap());
        assert!(there.is_some(), "{reference}");
    }
}

/// Everything that a document refers to within itself.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|field| references(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn an_answer_comes_piece_by_piece_until_the_client_has_enough() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("one two three four");
    let url = format!("{}/rpc", stage.url.replace("http", "ws"));
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    let mut say = async |method: &str, params: Value| {
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        socket.send(Message::text(call.to_string())).await.unwrap();
        let (mut id, mut text) = (Value::Null, String::new());
        loop {
            let heard = socket.next().await.unwrap().unwrap();
            let Message::Text(heard) = heard else { continue };
            let heard: Value = serde_json::from_str(&heard).unwrap();
            if heard["id"] == 1 {
                id = heard.clone();
                if heard["result"].is_string() && method == "assay_subscribe" {
                    continue;
                }
                return (id, text, Value::Null);
            }
            assert_eq!(heard["params"]["subscription"], id["result"]);
            let result = &heard["params"]["result"];
            match result["type"].as_str().unwrap() {
                "text" => text += result["text"].as_str().unwrap(),
                _ => return (id, text, result.clone()),
            }
        }
    };
    let (_, text, done) = say("assay_subscribe", json!(["infer", request()])).await;
    assert_eq!(
        (text.as_str(), &done["text"]),
        ("one two three four", &json!("one two three four"))
    );
    assert!(done["receipt"]["receiptSignature"].is_string());
    let (refused, ..) = say("assay_subscribe", json!(["weather", {}])).await;
    assert_eq!(refused["error"]["code"], -32602);
    let (unknown, ..) = say("assay_unsubscribe", json!(["0x00"])).await;
    assert_eq!(unknown["result"], false);
    let (models, ..) = say("assay_models", json!([])).await;
    assert_eq!(models["result"][0]["name"], NAME);
}

#[tokio::test]
async fn leaving_cancels_the_order() {
    let stage = Stage::new(Setup::default()).await;
    let provider = &stage.providers[0];
    provider.says("one two three four");
    let pace = Arc::new(Semaphore::new(1));
    provider.change(|act| act.pace = Some(Arc::clone(&pace)));
    let url = format!("{}/rpc", stage.url.replace("http", "ws"));
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    let params = json!(["infer", request()]);
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "assay_subscribe", "params": params });
    socket.send(Message::text(call.to_string())).await.unwrap();
    // Its id, then the first piece.
    for _ in 0..2 {
        socket.next().await.unwrap().unwrap();
    }
    drop(socket);
    for _ in 0..500 {
        if provider.deletes() == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the order was not cancelled");
}
