//! A public gateway: what holders of API keys may do, and what nobody may without one.

use assay_gateway::{KeyBook, KeyRules, KeyTerms};
use assay_protocol::{Amount, keccak256};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::stage::{NAME, Pay, Setup, Stage};

const ADMIN: &str = "the admin's token";

pub(crate) async fn public(setup: Setup) -> Stage {
    let keys = KeyRules { demanded: true, admin: Some(keccak256(ADMIN)) };
    let stage = Stage::new(Setup { keys, ..setup }).await;
    stage.providers[0].says("the answer is 2");
    stage
}

/// Makes a key over HTTP; gives it and its id.
pub(crate) async fn made(stage: &Stage, terms: Value) -> (String, String) {
    let url = format!("{}/v1/keys", stage.url);
    let said = stage.send(stage.http.post(url).bearer_auth(ADMIN).json(&terms)).await;
    assert_eq!(said.status, 201, "{}", said.body);
    let text = |field: &str| said.json()[field].as_str().unwrap().to_owned();
    (text("key"), text("id"))
}

pub(crate) fn terms(budget: u128) -> Value {
    json!({"name": "ada", "budget": budget.to_string(), "requests_per_minute": 1000})
}

pub(crate) async fn listed(stage: &Stage) -> Value {
    let get = stage.http.get(format!("{}/v1/keys", stage.url));
    stage.send(get.bearer_auth(ADMIN)).await.json()["data"].clone()
}

#[tokio::test]
async fn a_key_opens_the_door_and_pays_what_its_answers_cost() {
    let mut stage = public(Setup::default()).await;
    assert_eq!(stage.chat(json!({})).await.error(), (401, "invalid_api_key".into()));
    let stranger = stage.request(json!({})).bearer_auth("sk-assay-00");
    assert_eq!(stage.send(stranger).await.error(), (401, "invalid_api_key".into()));
    let (key, id) = made(&stage, terms(10_000)).await;
    assert!(key.starts_with("sk-assay-"));
    let said = stage.send(stage.request(json!({})).bearer_auth(&key)).await;
    assert_eq!(said.status, 200, "{}", said.body);
    let answer = stage.receipt(said.json()["id"].as_str().unwrap()).await;
    let spent = answer.receipt.price.to_string();
    assert_eq!(listed(&stage).await[0]["spent"], spent);
    // What was spent outlives the gateway, and a revoked key is void.
    stage.restart("answers.redb").await;
    assert_eq!(listed(&stage).await[0]["spent"], spent);
    let delete = stage.http.delete(format!("{}/v1/keys/{id}", stage.url));
    assert_eq!(stage.send(delete.bearer_auth(ADMIN)).await.json()["revoked"], true);
    let revoked = stage.request(json!({})).bearer_auth(&key);
    assert_eq!(stage.send(revoked).await.error(), (401, "invalid_api_key".into()));
    assert_eq!(stage.providers[0].orders(), 1);
}

#[tokio::test]
async fn a_budget_is_never_overspent_however_many_ask_at_once() {
    let pay = Some(Pay { lanes_max: 8, ..Pay::default() });
    let setup = Setup { running_max: 100, requests_max: 100, pay, ..Setup::default() };
    let stage = public(setup).await;
    let (key, _) = made(&stage, terms(1500)).await;
    let ask = || stage.send(stage.request(json!({})).bearer_auth(&key));
    let said = join_all((0..40).map(|_| ask())).await;
    let (mut spent, mut answered) = (0, 0);
    for said in &said {
        if said.status == 200 {
            let answer = stage.receipt(said.json()["id"].as_str().unwrap()).await;
            spent += answer.receipt.price.0;
            answered += 1;
        } else {
            assert_eq!(said.error(), (429, "rate_limit_exceeded".into()), "{}", said.body);
        }
    }
    // Each sets a whole context's price aside, so not all 40 fit at once.
    assert!((1..40).contains(&answered), "{answered}");
    let mut last = ask().await;
    while last.status == 200 {
        let answer = stage.receipt(last.json()["id"].as_str().unwrap()).await;
        spent += answer.receipt.price.0;
        last = ask().await;
    }
    assert_eq!(last.error(), (429, "insufficient_quota".into()), "{}", last.body);
    assert_eq!(last.header("x-should-retry"), "false");
    assert!(spent <= 1500 && spent > 1500 - 256, "{spent}");
    assert_eq!(listed(&stage).await[0]["spent"], spent.to_string());
}

#[tokio::test]
async fn an_answer_that_is_settled_late_is_billed_to_its_key() {
    let stage = public(Setup { pay: Some(Pay::default()), ..Setup::default() }).await;
    let (key, _) = made(&stage, terms(400)).await;
    stage.providers[0].change(|act| act.breaks_after = Some(2));
    let ask = || stage.send(stage.request(json!({})).bearer_auth(&key));
    assert_eq!(ask().await.error(), (502, "upstream_error".into()));
    assert_eq!(listed(&stage).await[0]["spent"], "0");
    // What it may have cost is set aside until that is known, so not even this is too much.
    assert_eq!(ask().await.error(), (429, "rate_limit_exceeded".into()));
    let (other, _) = made(&stage, terms(10_000)).await;
    stage.providers[0].says("the truth");
    let said = stage.send(stage.request(json!({})).bearer_auth(&other)).await;
    assert_eq!(said.status, 200, "{}", said.body);
    let keys = listed(&stage).await;
    let spent = |budget: &str| {
        let keys = keys.as_array().unwrap().iter();
        let key = keys.filter(|key| key["budget"] == budget).map(|key| key["spent"].clone());
        key.collect::<Vec<_>>()[0].as_str().unwrap().parse::<u128>().unwrap()
    };
    let answer = stage.receipt(said.json()["id"].as_str().unwrap()).await;
    assert_eq!(spent("10000"), answer.receipt.price.0);
    assert_eq!(spent("400"), answer.receipt.channel_before.0);
    assert!(spent("400") > 0);
}

#[tokio::test]
async fn keys_have_a_pace_and_models() {
    let stage = public(Setup::default()).await;
    let slow = json!({"name": "slow", "budget": "10000", "requests_per_minute": 2});
    let (slow, _) = made(&stage, slow).await;
    for _ in 0..2 {
        let said = stage.send(stage.request(json!({})).bearer_auth(&slow)).await;
        assert_eq!(said.status, 200, "{}", said.body);
    }
    let said = stage.send(stage.request(json!({})).bearer_auth(&slow)).await;
    assert_eq!(said.error(), (429, "rate_limit_exceeded".into()));
    let wait: u32 = said.header("retry-after").parse().unwrap();
    assert!((1..=31).contains(&wait), "{wait}");
    for (models, status) in [(json!(["org/other"]), 403), (json!([NAME]), 200)] {
        let mut terms = terms(10_000);
        terms["models"] = models;
        let (key, _) = made(&stage, terms).await;
        let said = stage.send(stage.request(json!({})).bearer_auth(&key)).await;
        assert_eq!(said.status, status, "{}", said.body);
    }
}

#[tokio::test]
async fn json_rpc_needs_a_key_too() {
    let stage = public(Setup::default()).await;
    let (key, _) = made(&stage, terms(10_000)).await;
    let request: Value = serde_json::from_str(&stage.body(json!({}))).unwrap();
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "assay_infer", "params": [request]});
    let post = || stage.http.post(format!("{}/rpc", stage.url)).json(&call);
    assert_eq!(stage.send(post()).await.error(), (401, "invalid_api_key".into()));
    let said = stage.send(post().bearer_auth(&key)).await;
    assert_eq!(said.json()["result"]["text"], "the answer is 2", "{}", said.body);
    assert_ne!(listed(&stage).await[0]["spent"], "0");
}

#[tokio::test]
async fn only_the_admin_sees_keys_and_money() {
    let stage = public(Setup { pay: Some(Pay::default()), ..Setup::default() }).await;
    let (key, id) = made(&stage, terms(10_000)).await;
    for path in ["/v1/keys", "/v1/lanes", "/v1/lies"] {
        let get = || stage.http.get(format!("{}{path}", stage.url));
        for request in [get(), get().bearer_auth(&key)] {
            assert_eq!(stage.send(request).await.error(), (401, "invalid_api_key".into()));
        }
        assert_eq!(stage.send(get().bearer_auth(ADMIN)).await.status, 200);
    }
    let post = stage.http.post(format!("{}/v1/keys", stage.url)).json(&terms(1));
    assert_eq!(stage.send(post.bearer_auth(&key)).await.error(), (401, "invalid_api_key".into()));
    let bad = stage.http.post(format!("{}/v1/keys", stage.url)).json(&json!({"name": 5}));
    assert_eq!(stage.send(bad.bearer_auth(ADMIN)).await.error(), (400, "invalid_json".into()));
    let delete = |id: &str| stage.http.delete(format!("{}/v1/keys/{id}", stage.url));
    let unknown = stage.send(delete("0x00").bearer_auth(ADMIN)).await;
    assert_eq!(unknown.error(), (404, "key_not_found".into()));
    assert_eq!(stage.send(delete(&id)).await.status, 401);
}

#[tokio::test]
async fn a_gateway_that_demands_no_key_looks_at_none() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("free");
    let said = stage.send(stage.request(json!({})).bearer_auth("sk-anything")).await;
    assert_eq!(said.status, 200);
    // Without an admin, nobody makes keys over HTTP.
    let post = stage.http.post(format!("{}/v1/keys", stage.url)).json(&terms(1));
    assert_eq!(stage.send(post.bearer_auth("")).await.error(), (401, "invalid_api_key".into()));
}

#[tokio::test]
async fn a_book_is_open_to_one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("answers");
    let book = KeyBook::open(path.clone()).await.unwrap();
    let terms = KeyTerms {
        name: "ada".into(),
        budget: Amount(5),
        requests_per_minute: 1,
        models: vec![],
        expires: None,
    };
    book.create(terms).await.unwrap();
    assert!(KeyBook::open(path.clone()).await.is_err());
    drop(book);
    assert_eq!(KeyBook::open(path).await.unwrap().list().len(), 1);
}
