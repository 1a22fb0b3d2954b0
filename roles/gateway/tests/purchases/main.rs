//! A gateway over real sockets, between scripted providers and a client.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bank;
mod batches;
mod choices;
mod hostile;
mod keys;
mod killed;
mod media;
mod paid;
mod provider;
mod rated;
mod relay;
mod repeats;
mod rpc;
mod signed;
mod stage;
mod stored;
mod vectors;

use std::sync::Arc;
use std::time::{Duration, Instant};

use assay_protocol::Finish;
use assay_protocol::wire::Refusal;
use provider::{Act, Lie};
use serde_json::json;
use stage::{CONTEXT, NAME, Setup, Stage, streamed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

#[tokio::test]
async fn an_answer_comes_whole_with_its_receipt() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("the answer is 2");
    let said = stage.chat(json!({"temperature": 0})).await;
    assert_eq!(said.status, 200, "{}", said.body);
    let body = said.json();
    let choice = &body["choices"][0];
    assert_eq!(choice["message"]["content"], "the answer is 2");
    assert_eq!(
        (&choice["finish_reason"], &body["object"]),
        (&json!("stop"), &json!("chat.completion"))
    );
    assert_eq!(body["system_fingerprint"], "fp_aaaaaaaaaaaa");
    let id = body["id"].as_str().unwrap();
    let answer = stage.receipt(id).await;
    assert_eq!(stage.receipt(&answer.hash().to_string()).await, answer);
    assert_eq!(answer.text, "the answer is 2");
    assert_eq!(body["usage"]["completion_tokens"], answer.output.len());
    assert_eq!(body["usage"]["prompt_tokens"], answer.terms.prompt.len());
    assert_eq!(body["assay"]["receiptSignature"], answer.receipt_signature.to_string());
    assert!(body["assay"].get("states").is_none());
}

#[tokio::test]
async fn a_stream_says_the_same_as_the_whole() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("the ünïcode 😀 answer is 2");
    let said = stage.chat(json!({"stream": true})).await;
    let (text, finish, id) = streamed(&said, false);
    assert_eq!((text.as_str(), finish.as_str()), ("the ünïcode 😀 answer is 2", "stop"));
    assert_eq!(stage.receipt(&id).await.text, text);
    let fields = json!({"stream": true, "stream_options": {"include_usage": true}});
    let (text, ..) = streamed(&stage.chat(fields).await, true);
    assert_eq!(text, "the ünïcode 😀 answer is 2");
}

#[tokio::test]
async fn the_limit_on_tokens_ends_by_length() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("one two three four five six seven eight");
    let said = stage.chat(json!({"max_tokens": 3})).await;
    let body = said.json();
    assert_eq!(body["choices"][0]["finish_reason"], "length");
    assert_eq!(body["usage"]["completion_tokens"], 3);
}

#[tokio::test]
async fn the_next_provider_answers_for_one_that_fails_early() {
    let check = async |why: &str, change: fn(&mut Act)| {
        let setup = Setup { prices: vec![1, 2], dead: true, ..Setup::default() };
        let stage = Stage::new(setup).await;
        let [first, second] = &stage.providers[..] else { panic!("two providers") };
        first.says("one");
        first.change(change);
        second.says("two");
        // The second time, the first provider is not even asked.
        for orders in [1, 2] {
            let said = stage.chat(json!({})).await;
            assert_eq!(said.status, 200, "{why}: {}", said.body);
            assert_eq!(said.json()["choices"][0]["message"]["content"], "two", "{why}");
            assert_eq!((first.orders(), second.orders()), (1, orders), "{why}");
        }
        let listing = stage.get("/v1/providers").await.json();
        assert!(listing["data"][1]["aside"].is_string(), "{why}: {listing}");
        assert!(listing["data"][2]["aside"].is_null(), "{why}: {listing}");
    };
    check("busy", |act| act.refuse = Some(Refusal::Busy { running_max: 1 })).await;
    check("closing", |act| act.refuse = Some(Refusal::Closing)).await;
    check("says it is invalid", |act| act.refuse = Some(Refusal::Invalid { reason: "no".into() }))
        .await;
    check("says it is too long", |act| {
        act.refuse = Some(Refusal::Context { prompt: 9, context: 1 })
    })
    .await;
    check("says it is late", |act| act.fails = Some(Refusal::Expired { deadline: 1, now: 2 }))
        .await;
    check("broken before its first token", |act| act.breaks_after = Some(0)).await;
    check("failed before its first token", |act| {
        act.fails = Some(Refusal::Internal { reason: "broken".into() });
    })
    .await;
}

#[tokio::test]
async fn a_provider_that_breaks_off_is_an_error_and_no_end() {
    let stage = Stage::new(Setup { prices: vec![1, 2], ..Setup::default() }).await;
    stage.providers[0].says("one two three");
    stage.providers[0].change(|act| act.breaks_after = Some(2));
    let said = stage.chat(json!({"stream": true})).await;
    let events = said.events();
    let last: serde_json::Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "upstream_error");
    assert_eq!(stage.providers[1].orders(), 0);
}

#[tokio::test]
async fn a_provider_that_lies_is_struck() {
    let lies = [
        Lie::Signer,
        Lie::Provider,
        Lie::Text,
        Lie::Price,
        Lie::Output,
        Lie::Overrun,
        Lie::States,
        Lie::Order,
    ];
    for lie in lies {
        let stage = Stage::new(Setup { prices: vec![1, 2], ..Setup::default() }).await;
        stage.providers[0].says("a lie");
        stage.providers[0].change(|act| act.lie = Some(lie));
        stage.providers[1].says("the truth");
        let said = stage.chat(json!({})).await;
        assert_eq!(said.error(), (502, "receipt_mismatch".into()), "{lie:?}");
        let listing = stage.get("/v1/providers").await.json();
        assert!(listing["data"][0]["struck"].is_string(), "{lie:?}: {listing}");
        assert!(listing["data"][1]["struck"].is_null());
        let said = stage.chat(json!({})).await;
        assert_eq!(said.json()["choices"][0]["message"]["content"], "the truth");
        assert_eq!(stage.providers[0].orders(), 1);
    }
}

#[tokio::test]
async fn what_shows_a_lie_can_be_read() {
    let stage = Stage::new(Setup::default()).await;
    assert_eq!(stage.get("/v1/lies").await.json()["data"], json!([]));
    stage.providers[0].says("the answer is 2");
    stage.providers[0].change(|act| act.lie = Some(Lie::Text));
    assert_eq!(stage.chat(json!({})).await.error(), (502, "receipt_mismatch".into()));
    let lies = stage.get("/v1/lies").await.json()["data"].clone();
    let order = stage.providers[0].seen.lock().unwrap().orders[0].to_string();
    assert_eq!((lies.as_array().unwrap().len(), &lies[0]["order"]), (1, &json!(order)));
    assert!(lies[0]["reason"].is_string() && lies[0]["time"].as_u64() > Some(1_600_000_000));
    let lie = stage.get(&format!("/v1/lies/{order}")).await.json();
    assert_eq!(lie["offer"]["provider"], lies[0]["provider"]);
    assert_eq!(lie["sealed"]["receipt"]["order"], lies[0]["order"]);
    for unknown in ["0x00".to_owned(), format!("0x{}", "11".repeat(32))] {
        let said = stage.get(&format!("/v1/lies/{unknown}")).await;
        assert_eq!(said.error(), (404, "lie_not_found".into()));
    }
}

#[tokio::test]
async fn a_lie_at_the_end_of_a_stream_is_told_in_the_stream() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("a lie");
    stage.providers[0].change(|act| act.lie = Some(Lie::Text));
    let said = stage.chat(json!({"stream": true})).await;
    assert!(said.events().last().unwrap().contains("receipt_mismatch"));
    assert!(!said.body.contains("[DONE]"));
    // The only provider is struck now.
    assert_eq!(stage.chat(json!({})).await.error(), (503, "no_provider".into()));
}

#[tokio::test]
async fn a_client_that_leaves_cancels_and_the_receipt_is_kept() {
    let stage = Stage::new(Setup::default()).await;
    let pace = Arc::new(Semaphore::new(2));
    stage.providers[0].says("one two three four");
    stage.providers[0].change(|act| act.pace = Some(Arc::clone(&pace)));
    let mut reply = stage.request(json!({"stream": true})).send().await.unwrap();
    let mut seen = String::new();
    while !seen.contains("two") {
        seen += std::str::from_utf8(&reply.chunk().await.unwrap().unwrap()).unwrap();
    }
    let id = seen.split('"').nth(3).unwrap().to_owned();
    drop(reply);
    let answer = stage.receipt(&id).await;
    assert_eq!(answer.receipt.finish, Finish::Cancelled);
    assert_eq!(answer.text, "one two ");
    assert_eq!(stage.providers[0].deletes(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_end_of_a_whole_answer_cancels_too() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("one two three four");
    stage.providers[0].change(|act| act.pace = Some(Arc::new(Semaphore::new(1))));
    let request = stage.request(json!({})).send();
    assert!(tokio::time::timeout(Duration::from_millis(200), request).await.is_err());
    for _ in 0..500 {
        if stage.providers[0].deletes() == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the order was not cancelled");
}

#[tokio::test]
async fn a_stop_string_ends_the_text_however_it_is_cut_into_tokens() {
    let stage = Stage::new(Setup::default()).await;
    let letters = |text: &str| {
        let letters = text.chars().map(|c| stage.tokenizer.encode_plain(&c.to_string()));
        letters.collect::<Vec<_>>()
    };
    // One token in the order, three in the answer: the token rule does not see it.
    assert_eq!(stage.tokenizer.encode_plain("the").len(), 1);
    let pieces = letters("a tht the end");
    stage.providers[0].change(|act| act.pieces = pieces);
    let said = stage.chat(json!({"stop": ["the", "zzz"], "stream": true})).await;
    let (text, finish, id) = streamed(&said, false);
    assert_eq!((text.as_str(), finish.as_str()), ("a tht ", "stop"));
    assert!(stage.receipt(&id).await.text.starts_with("a tht the"));
    assert_eq!(stage.providers[0].deletes(), 1);

    // As the order's own tokens, the provider sees it and nothing is cancelled.
    stage.providers[0].change(|act| {
        act.pieces = vec![stage.tokenizer.encode_plain("a "), stage.tokenizer.encode_plain("the")];
    });
    let said = stage.chat(json!({"stop": "the"})).await;
    let body = said.json();
    assert_eq!(body["choices"][0]["message"]["content"], "a ");
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    assert_eq!(body["assay"]["receipt"]["finish"], "stop");
    assert_eq!(stage.providers[0].deletes(), 1);
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nobody() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says(&"word ".repeat(100));
    let body =
        json!({"model": NAME, "messages": [{"role": "user", "content": "x"}], "stream": true});
    let body = body.to_string();
    let mut slow = TcpStream::connect(stage.url.trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut start = [0; 512];
    let read = slow.read(&mut start).await.unwrap();
    assert!(read > 0);
    assert_eq!(stage.chat(json!({})).await.status, 200);
    assert_eq!(stage.providers[0].orders(), 2);
    assert_eq!(stage.providers[0].deletes(), 0);
}

#[tokio::test]
async fn long_prompts_cost_nothing() {
    let stage = Stage::new(Setup::default()).await;
    let long =
        json!({"model": NAME, "messages": [{"role": "user", "content": "a".repeat(10 << 20)}]});
    let started = Instant::now();
    let said = stage.send(stage.post(long.to_string())).await;
    assert_eq!(said.error(), (400, "context_length_exceeded".into()));
    assert_eq!(said.json()["error"]["param"], "messages");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    let many = json!({"max_tokens": CONTEXT});
    assert_eq!(stage.chat(many).await.error(), (400, "context_length_exceeded".into()));
    assert_eq!(stage.providers[0].orders(), 0);
}

#[tokio::test]
async fn every_error_has_the_shape_and_an_id() {
    let stage = Stage::new(Setup::default()).await;
    let check = async |request: reqwest::RequestBuilder, status: u16, code: &str| {
        let said = stage.send(request.header("origin", PAGE)).await;
        assert_eq!(said.error(), (status, code.to_owned()), "{}", said.body);
        assert!(said.header("x-request-id").starts_with("req_"));
        assert_eq!(said.header("access-control-allow-origin"), PAGE);
        assert_eq!(said.header("x-should-retry"), if status < 500 { "false" } else { "" });
        said.json()["error"]["message"].as_str().unwrap().to_owned()
    };
    let at = |path: &str| format!("{}{path}", stage.url);
    let message = check(stage.post("{\"model\":\n 1,}".into()), 400, "invalid_json").await;
    assert!(message.contains("line 2 column 4"), "{message}");
    check(stage.post("{}".into()), 400, "missing_required_parameter").await;
    check(stage.request(json!({"model": "nobody"})), 404, "model_not_found").await;
    check(stage.request(json!({"temperature": 3})), 400, "invalid_value").await;
    check(stage.http.get(at("/v1/nowhere")), 404, "not_found").await;
    check(stage.http.get(at("/v1/models/a/b%FF")), 404, "model_not_found").await;
    check(stage.http.get(at("/v1/receipts/x")), 404, "receipt_not_found").await;
    check(stage.http.get(at("/v1/completions")), 405, "method_not_allowed").await;
    let text = stage.http.post(at("/v1/chat/completions")).header("content-type", "text/plain");
    check(text.body("{}"), 415, "unsupported_media_type").await;
    let zipped = stage.post("{}".into()).header("content-encoding", "gzip");
    check(zipped, 415, "unsupported_media_type").await;
}

#[tokio::test]
async fn a_body_far_beyond_bounds_is_refused_unread() {
    let stage = Stage::new(Setup::default()).await;
    let mut connection = TcpStream::connect(stage.url.trim_start_matches("http://")).await.unwrap();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                content-length: 100000000\r\n\r\n{";
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut reply = String::new();
    connection.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 413 "), "{reply}");
    assert!(reply.contains("request_too_large"), "{reply}");
}

/// The origin of a web page that may ask.
const PAGE: &str = "http://localhost:3000";

#[tokio::test]
async fn trusted_web_pages_may_ask() {
    let stage = Stage::new(Setup::default()).await;
    let url = format!("{}/v1/chat/completions", stage.url);
    let request = stage.http.request(reqwest::Method::OPTIONS, url).header("origin", PAGE);
    let said = stage.send(request.header("access-control-request-headers", "x-mine")).await;
    assert_eq!(said.status, 204);
    assert_eq!(said.header("access-control-allow-origin"), PAGE);
    assert_eq!(said.header("vary"), "origin");
    assert_eq!(said.header("access-control-allow-headers"), "x-mine");
    assert!(said.header("access-control-allow-methods").contains("POST"));
}

#[tokio::test]
async fn models_are_found_by_name_and_by_id() {
    let stage = Stage::new(Setup::default()).await;
    let list = stage.get("/v1/models").await.json();
    assert_eq!(list["data"][0]["id"], NAME);
    assert_eq!(list["data"][0]["max_model_len"], CONTEXT);
    let root = list["data"][0]["root"].as_str().unwrap().to_owned();
    for name in [NAME, "org%2Fnano", &root] {
        let card = stage.get(&format!("/v1/models/{name}")).await;
        assert_eq!((card.status, &card.json()["id"]), (200, &json!(NAME)), "{name}");
    }
    stage.providers[0].says("ok");
    assert_eq!(stage.chat(json!({"model": root})).await.status, 200);
    assert!(stage.get("/version").await.json()["version"].is_string());
}

#[tokio::test]
async fn without_providers_the_gateway_says_so() {
    let stage = Stage::new(Setup { prices: vec![], dead: true, ..Setup::default() }).await;
    assert_eq!(stage.get("/livez").await.status, 200);
    assert_eq!(stage.get("/readyz").await.error(), (503, "no_provider".into()));
    let said = stage.chat(json!({})).await;
    assert_eq!(said.error(), (503, "no_provider".into()));
    assert_eq!(said.header("retry-after"), "2");
}

#[tokio::test]
async fn busy_providers_are_a_reason_to_come_back() {
    let stage = Stage::new(Setup { running_max: 1, ..Setup::default() }).await;
    stage.providers[0].says("one two three");
    stage.providers[0].change(|act| act.pace = Some(Arc::new(Semaphore::new(1))));
    let _first = stage.request(json!({"stream": true})).send().await.unwrap();
    let said = stage.chat(json!({})).await;
    assert_eq!(said.error(), (429, "rate_limit_exceeded".into()));
    assert_eq!(said.header("retry-after"), "1");
    assert_eq!(stage.providers[0].orders(), 1);
}

#[tokio::test]
async fn more_requests_than_the_gateway_takes_are_refused() {
    let stage = Stage::new(Setup { requests_max: 1, ..Setup::default() }).await;
    stage.providers[0].says("one two three");
    stage.providers[0].change(|act| act.pace = Some(Arc::new(Semaphore::new(1))));
    let _first = stage.request(json!({"stream": true})).send().await.unwrap();
    assert_eq!(stage.chat(json!({})).await.error(), (429, "overloaded".into()));
}

#[tokio::test]
async fn a_closing_gateway_finishes_what_runs_and_takes_nothing_new() {
    let stage = Stage::new(Setup::default()).await;
    let pace = Arc::new(Semaphore::new(1));
    stage.providers[0].says("one two three");
    stage.providers[0].change(|act| act.pace = Some(Arc::clone(&pace)));
    let running = stage.request(json!({"stream": true})).send().await.unwrap();
    stage.shutdown.cancel();
    stage.until("/readyz", |said| said.status == 503).await;
    assert_eq!(stage.chat(json!({})).await.error(), (503, "closing".into()));
    pace.add_permits(10);
    let body = running.text().await.unwrap();
    assert!(body.ends_with("data: [DONE]\n\n"), "{body}");
    stage.running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_drain_ends_in_time_and_says_so() {
    let setup = Setup { drain_max: Duration::from_millis(50), ..Setup::default() };
    let stage = Stage::new(setup).await;
    stage.providers[0].says("one two three");
    stage.providers[0].change(|act| act.pace = Some(Arc::new(Semaphore::new(1))));
    let running = stage.request(json!({"stream": true})).send().await.unwrap();
    stage.shutdown.cancel();
    let body = running.text().await.unwrap();
    assert!(body.contains("the gateway is shutting down"), "{body}");
    assert_eq!(stage.providers[0].deletes(), 1);
    stage.running.await.unwrap().unwrap();
}

/// A request's head for a body of `length` bytes.
fn head(length: usize) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
}

async fn connect(stage: &Stage) -> TcpStream {
    TcpStream::connect(stage.url.trim_start_matches("http://")).await.unwrap()
}

#[tokio::test]
async fn who_sends_too_much_hears_why() {
    let stage = Stage::new(Setup::default()).await;
    let mut client = connect(&stage).await;
    let body = vec![b' '; 20 << 20];
    client.write_all(head(body.len()).as_bytes()).await.unwrap();
    client.write_all(&body).await.unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 413 "), "{said}");
    assert!(said.contains("request_too_large"), "{said}");
}

#[tokio::test]
async fn long_bodies_that_never_end_take_bounded_memory_and_stop_nobody_else() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("2");
    let (length, mut stalled) = (16 << 20, Vec::new());
    for _ in 0..4 {
        let mut client = connect(&stage).await;
        client.write_all(head(length).as_bytes()).await.unwrap();
        client.write_all(&vec![b' '; 1 << 20]).await.unwrap();
        stalled.push(client);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let long = stage.post(" ".repeat(length));
    let (long, short) = tokio::join!(stage.send(long), stage.chat(json!({})));
    assert_eq!(long.error(), (429, "overloaded".into()));
    assert_eq!(short.status, 200, "{}", short.body);
    drop(stalled);
    let long = stage.send(stage.post(" ".repeat(length))).await;
    assert_eq!(long.error(), (400, "invalid_json".into()));
}
