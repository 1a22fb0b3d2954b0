//! Models that the operator's own servers answer for: bytes pass through, keys and budgets hold, and what
//! a server does wrong is told.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use assay_gateway::{KeyRules, Patience, Relayed};
use assay_protocol::{Amount, keccak256};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio::net::TcpListener;

use crate::stage::{NAME, Said, Setup, Stage};

const OWN: &str = "own/model";
const SHORT: Duration = Duration::from_millis(300);

/// A server that answers with what it was asked.
#[derive(Default)]
struct Echo {
    asked: AtomicUsize,
    heads: Mutex<Vec<HeaderMap>>,
}

async fn echo(State(echo): State<Arc<Echo>>, headers: HeaderMap, body: String) -> Response {
    echo.asked.fetch_add(1, Ordering::SeqCst);
    echo.heads.lock().unwrap().push(headers);
    let piece = |text: &str| Ok::<_, std::io::Error>(format!("data: {text}\n\n"));
    let kind = [("content-type", "text/event-stream")];
    if body.contains("\"late\"") {
        tokio::time::sleep(2 * SHORT).await;
    }
    if body.contains("\"silent\"") {
        let pieces = stream::iter([piece("1")]).chain(stream::pending());
        return (kind, Body::from_stream(pieces)).into_response();
    }
    if body.contains("\"breaks\"") {
        let broken = async {
            tokio::time::sleep(SHORT / 4).await;
            Err(std::io::Error::other("gone"))
        };
        let pieces = stream::iter([piece("1")]).chain(stream::once(broken));
        return (kind, Body::from_stream(pieces)).into_response();
    }
    if body.contains("\"stream\":true") {
        let pieces = stream::iter([piece("1"), piece("2"), piece("[DONE]")]);
        return (kind, Body::from_stream(pieces)).into_response();
    }
    if body.contains("\"wrong\"") {
        let busy = [("retry-after", "7"), ("content-type", "application/json")];
        return (axum::http::StatusCode::SERVICE_UNAVAILABLE, busy, "{}").into_response();
    }
    ([("content-type", "application/json"), ("set-cookie", "a=b")], body).into_response()
}

async fn server() -> (Arc<Echo>, String) {
    let state = Arc::new(Echo::default());
    let router = Router::new().route("/base/v1/chat/completions", post(echo));
    let router = router.with_state(Arc::clone(&state));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/base/", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, router).await });
    (state, url)
}

fn relayed(servers: &[&str], price: u128) -> Relayed {
    Relayed {
        model: OWN.into(),
        servers: servers.iter().map(|url| url.parse().unwrap()).collect(),
        authorization: Some("Bearer secret".parse().unwrap()),
        price: Amount(price),
    }
}

async fn stage(servers: &[&str]) -> Stage {
    let patience = Patience { frame_wait_max: SHORT, ..Patience::default() };
    let relayed = vec![relayed(servers, 3)];
    Stage::new(Setup { relayed, patience, ..Setup::default() }).await
}

async fn ask(stage: &Stage, fields: serde_json::Value) -> Said {
    let mut body = json!({"model": OWN, "messages": []});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    stage.send(stage.post(body.to_string()).bearer_auth("client's own")).await
}

#[tokio::test]
async fn bytes_pass_as_they_are() {
    let (echo, url) = server().await;
    let stage = stage(&[&url]).await;
    // What we do not know is the server's affair.
    let said = ask(&stage, json!({"tools": [1], "unknown": "é"})).await;
    let expected = json!({"model": OWN, "messages": [], "tools": [1], "unknown": "é"});
    assert_eq!((said.status, said.json()), (200, expected));
    assert_eq!(said.header("x-assay-assurance"), "none");
    assert_eq!((said.header("content-type"), said.header("set-cookie")), ("application/json", ""));
    let said = ask(&stage, json!({"stream": true})).await;
    assert_eq!(said.events(), ["1", "2", "[DONE]"]);
    let refused = ask(&stage, json!({"user": "wrong"})).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, "7"));
    // The server hears the operator's word, never the client's.
    let heads = echo.heads.lock().unwrap().clone();
    assert!(heads.iter().all(|head| head["authorization"] == "Bearer secret"));
    let listed = stage.get("/v1/models").await.json();
    assert_eq!(listed["data"][1]["id"], OWN);
    assert_eq!(stage.get(&format!("/v1/models/{OWN}")).await.json()["owned_by"], "operator");
    // Everything else goes to the network.
    stage.providers[0].says("2");
    assert_eq!(stage.chat(json!({"model": NAME})).await.status, 200);
    assert_eq!(stage.chat(json!({"model": "no"})).await.error(), (404, "model_not_found".into()));
}

#[tokio::test]
async fn a_server_that_is_gone_is_passed_over() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gone = format!("http://{gone}");
    let (echo, url) = server().await;
    let stage = stage(&[&gone, &url]).await;
    for _ in 0..4 {
        assert_eq!(ask(&stage, json!({})).await.status, 200);
    }
    assert_eq!(echo.asked.load(Ordering::SeqCst), 4);
    let alone = self::stage(&[&gone]).await;
    assert_eq!(ask(&alone, json!({})).await.error(), (502, "upstream_error".into()));
}

#[tokio::test]
async fn a_server_that_falls_silent_or_breaks_off_ends_the_stream() {
    let (_, url) = server().await;
    let stage = stage(&[&url]).await;
    for word in ["silent", "breaks"] {
        let body = json!({"model": OWN, "user": word}).to_string();
        let reply = stage.post(body).send().await.unwrap();
        let text = tokio::time::timeout(10 * SHORT, reply.text()).await.unwrap();
        assert!(text.is_err(), "{word}: {text:?}");
    }
    // Nothing is held by what ended.
    stage.shutdown.cancel();
    tokio::time::timeout(10 * SHORT, stage.running).await.unwrap().unwrap().unwrap();
}

/// Nothing is heard of a whole answer before its last token, of a stream soon.
#[tokio::test]
async fn a_whole_answer_is_waited_for_as_long_as_it_may_take() {
    let (_, url) = server().await;
    let stage = stage(&[&url]).await;
    assert_eq!(ask(&stage, json!({"user": "late"})).await.status, 200);
    let late = ask(&stage, json!({"user": "late", "stream": true})).await;
    assert_eq!(late.error(), (504, "timeout".into()));
}

#[tokio::test]
async fn keys_pay_by_the_answer() {
    let (echo, url) = server().await;
    let keys = KeyRules { demanded: true, admin: Some(keccak256("admin")) };
    let relayed = vec![relayed(&[&url], 3)];
    let mut stage = Stage::new(Setup { relayed, keys, ..Setup::default() }).await;
    assert_eq!(ask(&stage, json!({})).await.error(), (401, "invalid_api_key".into()));
    let terms = json!({
        "name": "ada", "budget": "7", "requests_per_minute": 1000, "models": [OWN],
    });
    let make = stage.http.post(format!("{}/v1/keys", stage.url)).bearer_auth("admin");
    let made = stage.send(make.json(&terms)).await.json();
    let body = json!({"model": OWN}).to_string();
    let key = made["key"].as_str().unwrap();
    let asked = || stage.send(stage.post(body.clone()).bearer_auth(key));
    assert_eq!([asked().await.status, asked().await.status], [200, 200]);
    assert_eq!(asked().await.error(), (429, "insufficient_quota".into()));
    let network = stage.request(json!({})).bearer_auth(key);
    assert_eq!(stage.send(network).await.error(), (403, "model_not_allowed".into()));
    stage.restart("answers.redb").await;
    let list = stage.http.get(format!("{}/v1/keys", stage.url)).bearer_auth("admin");
    assert_eq!(stage.send(list).await.json()["data"][0]["spent"], "6");
    assert_eq!(echo.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn where_answers_have_receipts_an_own_server_is_not_asked() {
    let (echo, url) = server().await;
    let both = Relayed { model: NAME.into(), ..relayed(&[&url], 3) };
    let relayed = vec![relayed(&[&url], 3), both];
    let stage = Stage::new(Setup { relayed, ..Setup::default() }).await;
    stage.providers[0].says("2");
    let call = async |method: &str, model: &str| {
        let request =
            json!({ "model": model, "messages": [{ "role": "user", "content": "1+1=" }] });
        let mut params = vec![request];
        if method == "assay_prepare" {
            params.push(json!({ "buyer": format!("0x{}", "11".repeat(20)) }));
        }
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let said = stage.send(stage.http.post(format!("{}/rpc", stage.url)).json(&call)).await;
        said.json()
    };
    for method in ["assay_infer", "assay_quote", "assay_prepare"] {
        let said = call(method, OWN).await;
        let error = &said["error"];
        assert_eq!(
            (&error["code"], &error["data"]["code"]),
            (&json!(-32602), &json!("no_receipt"))
        );
        assert!(error["message"].as_str().unwrap().contains("/v1/chat/completions"), "{error}");
        // What neither has does not exist, and what both have is the network's here.
        assert_eq!(call(method, "no/such").await["error"]["data"]["code"], "model_not_found");
        assert!(call(method, NAME).await["result"].is_object(), "{method}");
    }
    assert_eq!(echo.asked.load(Ordering::SeqCst), 0);
}
