//! What one hostile provider can do to a gateway and its other providers: nothing for long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use assay_gateway::Patience;
use assay_protocol::wire::Refusal;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::provider::Lie;
use crate::stage::{CONTEXT, Pay, Setup, Stage};

#[tokio::test]
async fn a_hostile_offer_raises_no_order() {
    let prices = vec![1, 2, 3, 4, u128::MAX / 1_000_000];
    let stage = Stage::new(Setup { prices, ..Setup::default() }).await;
    stage.providers[0].says("cheap");
    let said = stage.chat(json!({})).await;
    let answer = stage.receipt(said.json()["id"].as_str().unwrap()).await;
    // Three tries at most, so the third price for a full context.
    assert_eq!(answer.order.max_price.0, 3 * u128::from(CONTEXT));
}

#[tokio::test]
async fn what_costs_too_much_is_not_bought() {
    let stage = Stage::new(Setup { prices: vec![11], ..Setup::default() }).await;
    let said = stage.chat(json!({})).await;
    assert_eq!(said.error(), (503, "price_too_high".into()));
    assert!(said.body.contains("2560 base units"), "{}", said.body);
    assert_eq!(stage.providers[0].orders(), 0);
}

#[tokio::test]
async fn all_who_refuse_are_asked_before_a_client_hears_no() {
    let stage = Stage::new(Setup { prices: vec![1; 5], ..Setup::default() }).await;
    for provider in &stage.providers {
        provider.change(|act| act.refuse = Some(Refusal::Expired { deadline: 1, now: 2 }));
    }
    let said = stage.chat(json!({})).await;
    assert_eq!(said.error(), (502, "upstream_error".into()));
    assert!(said.body.contains("the order's deadline 1 has passed"), "{}", said.body);
    assert!(stage.providers.iter().all(|provider| provider.orders() == 1));
    // Nobody else is left, so who failed is asked again.
    stage.providers[3].says("yes");
    assert_eq!(stage.chat(json!({})).await.status, 200);
}

#[tokio::test]
async fn an_order_outlives_the_connection_it_was_sent_over() {
    for pay in [None, Some(Pay { prepay_max: 20, ..Pay::default() })] {
        let stage = Stage::new(Setup { hang_ups: 1, pay, ..Setup::default() }).await;
        stage.providers[0].says("still here");
        let said = stage.chat(json!({})).await;
        assert_eq!(said.status, 200, "{}", said.body);
        assert_eq!(stage.providers[0].orders(), 1);
    }
}

#[tokio::test]
async fn who_hangs_up_twice_is_left() {
    let stage = Stage::new(Setup { hang_ups: 2, ..Setup::default() }).await;
    let said = stage.chat(json!({})).await;
    assert_eq!(said.error(), (502, "upstream_error".into()));
    assert!(said.body.contains("the provider cannot be reached: "), "{}", said.body);
    // The next order finds it well.
    stage.providers[0].says("yes");
    assert_eq!(stage.chat(json!({})).await.status, 200);
}

#[tokio::test]
async fn frames_of_nothing_are_a_lie() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].change(|act| act.lie = Some(Lie::Nothing));
    let said = tokio::time::timeout(Duration::from_secs(5), stage.chat(json!({}))).await.unwrap();
    assert_eq!(said.error(), (502, "receipt_mismatch".into()));
    let listing = stage.get("/v1/providers").await.json();
    assert!(listing["data"][0]["struck"].is_string(), "{listing}");
}

#[tokio::test]
async fn a_price_below_the_offers_is_no_lie() {
    let stage = Stage::new(Setup { prices: vec![3], ..Setup::default() }).await;
    stage.providers[0].says("cheaper");
    stage.providers[0].change(|act| act.lie = Some(Lie::Cheaper));
    assert_eq!(stage.chat(json!({})).await.status, 200);
}

/// A provider that never ends a cancelled order, and a gateway that waits so long for it.
async fn deaf(patience: Patience) -> Stage {
    let stage = Stage::new(Setup { patience, requests_max: 1, ..Setup::default() }).await;
    stage.providers[0].change(|act| act.lie = Some(Lie::Deaf));
    stage
}

#[tokio::test]
async fn a_cancelled_order_is_given_up_when_its_receipt_is_overdue() {
    let seal_wait_max = Duration::from_millis(100);
    let stage = deaf(Patience { seal_wait_max, ..Patience::default() }).await;
    let started = Instant::now();
    let mut reply = stage.request(json!({"stream": true})).send().await.unwrap();
    reply.chunk().await.unwrap();
    drop(reply);
    // The only place for a request is free again, long before the answer's 256 tokens are here.
    let free = async {
        while stage.chat(json!({"max_tokens": 1})).await.status == 429 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3), free).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(3));
    let listing = stage.get("/v1/providers").await.json();
    assert!(listing["data"][0]["aside"].is_string() || listing["data"][0]["struck"].is_string());
}

#[tokio::test]
async fn an_answer_that_creeps_is_given_up() {
    let (answer_wait_base, token_wait_max) = (Duration::from_millis(100), Duration::from_millis(1));
    let patience = Patience { answer_wait_base, token_wait_max, ..Patience::default() };
    let stage = deaf(patience).await;
    let said = stage.chat(json!({"max_tokens": 100})).await;
    assert_eq!(said.error(), (504, "timeout".into()));
}

#[tokio::test]
async fn a_long_body_takes_no_room_while_it_is_answered() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("one two three");
    stage.providers[0].change(|act| act.pace = Some(Arc::new(Semaphore::new(10))));
    // Blanks make a body long and a prompt no longer.
    let body = " ".repeat(100_000) + &stage.body(json!({"stream": true}));
    let mut running = Vec::new();
    for _ in 0..10 {
        // Without a length, each may become as long as any, and the room is for eight such.
        let chunks = futures_util::stream::iter([Ok::<_, std::io::Error>(body.clone())]);
        let request = stage.post(String::new()).body(reqwest::Body::wrap_stream(chunks));
        let reply = request.send().await.unwrap();
        assert_eq!(reply.status(), 200);
        running.push(reply);
    }
}

#[tokio::test]
async fn other_web_pages_have_nothing_signed() {
    let stage = Stage::new(Setup::default()).await;
    let said = async |request: reqwest::RequestBuilder| {
        let said = stage.send(request.header("origin", "https://evil.example")).await;
        assert_eq!(said.header("access-control-allow-origin"), "");
        said.error()
    };
    let refused = (403, "origin_not_allowed".to_owned());
    assert_eq!(said(stage.request(json!({}))).await, refused);
    // What a page can send without asking first: no content type.
    let url = format!("{}/v1/chat/completions", stage.url);
    let bare = stage.http.post(&url).body(stage.body(json!({})));
    assert_eq!(said(bare).await, refused);
    assert_eq!(said(stage.http.request(reqwest::Method::OPTIONS, &url)).await, refused);
    assert_eq!(said(stage.http.get(format!("{}/v1/models", stage.url))).await, refused);
    assert_eq!(stage.providers[0].orders(), 0);
}
