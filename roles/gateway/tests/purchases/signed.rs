//! Orders that clients sign themselves: prepared, signed elsewhere, submitted; and all that is refused.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use assay_protocol::wire::Refusal;
use assay_protocol::{
    Address, Amount, Answer, Assurance, B256, ChainId, Grant, Key, ModelId, Order, SignedGrant,
    U256,
};
use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_tungstenite::tungstenite::Message;

use crate::bank::{GRANTS, MARKET};
use crate::keys::{listed, made, public, terms};
use crate::stage::{CHAIN, MODEL, NAME, Pay, Setup, Stage, gateway_key};

pub(crate) async fn paying(setup: Setup) -> Stage {
    let stage = Stage::new(Setup { pay: Some(Pay::default()), ..setup }).await;
    stage.providers[0].says("the answer is 2");
    stage
}

pub(crate) fn client() -> Key {
    Key::from_bytes([7; 32]).unwrap()
}

pub(crate) fn request() -> Value {
    json!({ "model": NAME, "messages": [{ "role": "user", "content": "1+1=" }], "max_tokens": 20 })
}

/// Calls a method, with an API key or none; gives its result, or its error.
pub(crate) async fn ask(
    stage: &Stage,
    method: &str,
    params: Value,
    key: Option<&str>,
) -> Result<Value, Value> {
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let mut post = stage.http.post(format!("{}/rpc", stage.url)).json(&call);
    if let Some(key) = key {
        post = post.bearer_auth(key);
    }
    let said = stage.send(post).await;
    assert_eq!(said.status, 200, "{}", said.body);
    let mut said = said.json();
    match said["error"].take() {
        Value::Null => Ok(said["result"].take()),
        error => Err(error),
    }
}

pub(crate) async fn prepare(stage: &Stage, grants: &[SignedGrant]) -> Value {
    let wish = json!({ "buyer": client().address(), "grants": grants });
    ask(stage, "assay_prepare", json!([request(), wish]), None).await.unwrap()
}

/// What is submitted: the prepared order, signed by `key`.
pub(crate) fn signed_by(prepared: &Value, key: &Key) -> Value {
    let order: Order = serde_json::from_value(prepared["order"].clone()).unwrap();
    json!({
        "order": order,
        "terms": prepared["terms"],
        "signature": order.sign(CHAIN, key),
        "grants": prepared["grants"],
    })
}

pub(crate) async fn submit(stage: &Stage, signed: &Value) -> Result<Value, Value> {
    ask(stage, "assay_submit", json!([request(), signed]), None).await
}

/// The code and the facts of a refusal.
pub(crate) fn refusal(outcome: Result<Value, Value>) -> (String, Value) {
    let error = outcome.unwrap_err();
    let data = &error["data"];
    (data["code"].as_str().unwrap_or_else(|| panic!("{error}")).to_owned(), data["facts"].clone())
}

fn code(outcome: Result<Value, Value>) -> String {
    refusal(outcome).0
}

/// A grant of the gateway's owner to `holder`.
pub(crate) fn granted(holder: &Key, change: impl FnOnce(&mut Grant)) -> SignedGrant {
    let mut grant = Grant {
        registry: GRANTS,
        issuer: gateway_key().address(),
        holder: holder.address(),
        models: vec![],
        asset: Address::ZERO,
        spend: Amount(10_000),
        rate: 0,
        from: 0,
        until: u64::MAX,
        parent: B256::ZERO,
        nonce: U256::from(1),
    };
    change(&mut grant);
    grant.sign(CHAIN, &gateway_key())
}

#[tokio::test]
async fn a_client_signs_its_own_order_and_the_gateways_channel_pays() {
    let stage = paying(Setup::default()).await;
    let prepared = prepare(&stage, &[]).await;
    let order: Order = serde_json::from_value(prepared["order"].clone()).unwrap();
    assert_eq!(prepared["digest"], json!(order.hash(CHAIN)));
    assert_eq!((&prepared["chainId"], order.market), (&json!(CHAIN), MARKET));
    assert_eq!(order.buyer, client().address());
    assert_eq!(prepared["maxPrice"], json!(order.max_price));
    assert_eq!(prepared["typedData"]["message"]["nonce"], order.nonce.to_string());
    // The gateway's grant is for this buyer, this model and this price alone.
    let minted: Vec<SignedGrant> = serde_json::from_value(prepared["grants"].clone()).unwrap();
    let [SignedGrant { grant, .. }] = minted.as_slice() else { panic!("{minted:?}") };
    assert_eq!((grant.holder, grant.spend), (order.buyer, order.max_price));
    assert_eq!((&grant.models, grant.until), (&vec![MODEL], order.deadline));
    assert_eq!(grant.digest(CHAIN), order.grant);

    let bought = submit(&stage, &signed_by(&prepared, &client())).await.unwrap();
    assert_eq!(bought["text"], "the answer is 2");
    assert_eq!(bought["order"], prepared["digest"]);
    let answer = stage.receipt(bought["order"].as_str().unwrap()).await;
    assert_eq!((&answer.order, answer.order.buyer), (&order, client().address()));
    assert!(answer.receipt.channel_after > answer.receipt.channel_before);
    let found = ask(&stage, "assay_receipt", json!([bought["order"]]), None).await.unwrap();
    let verdict = ask(&stage, "assay_verify", json!([found]), None).await.unwrap();
    assert_eq!(verdict["consistent"], true, "{verdict}");
}

#[tokio::test]
async fn the_document_has_the_words_of_an_order() {
    let stage = paying(Setup::default()).await;
    let document = ask(&stage, "rpc.discover", json!([]), None).await.unwrap();
    let prepared = prepare(&stage, &[]).await;
    let signed = signed_by(&prepared, &client());
    let check = |name: &str, value: &Value| {
        let schema = &document["components"]["schemas"][name]["properties"];
        let names =
            |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
        assert!(names(value).iter().all(|field| schema[field].is_object()), "{name}: {value}");
    };
    check("Prepared", &prepared);
    check("SignedOrder", &signed);
    check("Order", &prepared["order"]);
    check("Grant", &prepared["grants"][0]);
    let grant = &document["components"]["schemas"]["Grant"]["properties"]["grant"]["properties"];
    let fields = prepared["grants"][0]["grant"].as_object().unwrap();
    assert!(fields.keys().all(|field| grant[field].is_object()));
}

#[tokio::test]
async fn where_nobody_is_paid_nothing_is_granted() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("free");
    let prepared = prepare(&stage, &[]).await;
    assert_eq!(prepared["grants"], json!([]));
    let order: Order = serde_json::from_value(prepared["order"].clone()).unwrap();
    assert!(order.grant.is_zero() && order.market.is_zero());
    let mut signed = signed_by(&prepared, &client());
    assert_eq!(submit(&stage, &signed).await.unwrap()["text"], "free");
    signed["grants"] = json!([granted(&client(), |_| ())]);
    // It was bought, so this is not even looked at; another order is refused.
    assert_eq!(submit(&stage, &signed).await.unwrap()["text"], "free");
    let mut other = signed_by(&prepare(&stage, &[]).await, &client());
    other["grants"] = signed["grants"].clone();
    assert_eq!(code(submit(&stage, &other).await), "grants_unsupported");
}

#[tokio::test]
async fn an_order_is_bought_once_even_after_a_restart() {
    let mut stage = paying(Setup::default()).await;
    let prepared = prepare(&stage, &[]).await;
    let signed = signed_by(&prepared, &client());
    let first = submit(&stage, &signed).await.unwrap();
    let again = submit(&stage, &signed).await.unwrap();
    assert_eq!(first, again);
    stage.restart("answers.redb").await;
    assert_eq!(submit(&stage, &signed).await.unwrap(), first);
    assert_eq!(stage.providers[0].orders(), 1);
    // Another order with the same nonce is none, and another request has no answer.
    let mut order: Order = serde_json::from_value(prepared["order"].clone()).unwrap();
    order.deadline += 1;
    let mut other = prepared.clone();
    other["order"] = json!(order);
    let (said, facts) = refusal(submit(&stage, &signed_by(&other, &client())).await);
    assert_eq!((said.as_str(), &facts["order"]), ("nonce_used", &first["order"]));
    let mut other = request();
    other["messages"][0]["content"] = json!("1+2=");
    let outcome = ask(&stage, "assay_submit", json!([other, signed]), None).await;
    let (said, facts) = refusal(outcome);
    assert_eq!((said.as_str(), &facts["what"]), ("order_mismatch", &json!("request")));
    assert_eq!(stage.providers[0].orders(), 1);
}

#[tokio::test]
async fn an_order_under_way_is_not_bought_again() {
    let stage = paying(Setup::default()).await;
    let pace = Arc::new(Semaphore::new(0));
    stage.providers[0].change(|act| act.pace = Some(Arc::clone(&pace)));
    let prepared = prepare(&stage, &[]).await;
    let signed = signed_by(&prepared, &client());
    let second = async {
        while stage.providers[0].orders() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (said, facts) = refusal(submit(&stage, &signed).await);
        assert_eq!((said.as_str(), &facts["order"]), ("order_running", &prepared["digest"]));
        pace.add_permits(100);
    };
    let (first, ()) = tokio::join!(submit(&stage, &signed), second);
    assert_eq!(first.unwrap()["text"], "the answer is 2");
    assert_eq!(stage.providers[0].orders(), 1);
}

#[tokio::test]
async fn an_order_that_broke_off_is_not_bought_again_before_it_is_settled() {
    let stage = paying(Setup::default()).await;
    stage.providers[0].change(|act| act.breaks_after = Some(2));
    let prepared = prepare(&stage, &[]).await;
    let order = prepared["digest"].as_str().unwrap().to_owned();
    let signed = signed_by(&prepared, &client());
    assert_eq!(code(submit(&stage, &signed).await), "upstream_error");
    assert_eq!(code(submit(&stage, &signed).await), "order_running");
    // The next order on the channel settles it.
    stage.providers[0].says("the truth");
    let next = signed_by(&prepare(&stage, &[]).await, &client());
    assert_eq!(submit(&stage, &next).await.unwrap()["text"], "the truth");
    let (said, facts) = refusal(submit(&stage, &signed).await);
    assert_eq!((said.as_str(), &facts["order"]), ("order_cancelled", &json!(order)));
    assert!(facts["tokens"].as_u64() > Some(0), "{facts}");
    assert_eq!(stage.receipt(&order).await.text, "the answer ");
    assert_eq!(stage.providers[0].orders(), 2);
}

#[tokio::test]
async fn what_a_broken_answer_may_have_cost_is_not_set_aside_for_ever() {
    let stage = paying(Setup::default()).await;
    let once = prepare(&stage, &[granted(&client(), |_| ())]).await;
    let most: u128 = once["maxPrice"].as_str().unwrap().parse().unwrap();
    // A grant for one answer at its highest price, and no more.
    let grants = [granted(&client(), |grant| grant.spend = Amount(most))];
    stage.providers[0].change(|act| act.breaks_after = Some(2));
    let signed = signed_by(&prepare(&stage, &grants).await, &client());
    assert_eq!(code(submit(&stage, &signed).await), "upstream_error");
    let next = signed_by(&prepare(&stage, &grants).await, &client());
    assert_eq!(code(submit(&stage, &next).await), "rate_limit_exceeded");
    assert_eq!(code(submit(&stage, &signed).await), "order_running");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(601)).await;
    tokio::time::resume();
    stage.until("/readyz", |said| said.status == 200).await;
    // It is free for the next order, whose channel is settled at the gateway's own cost.
    stage.providers[0].says("the truth");
    assert_eq!(submit(&stage, &next).await.unwrap()["text"], "the truth");
    let lanes = stage.get("/v1/lanes").await.json();
    assert_eq!(lanes["data"][0]["unsure"], "0");
}

/// An order prepared as usual, changed, and signed as it then is.
async fn changed(stage: &Stage, change: impl FnOnce(&mut Order)) -> Value {
    let mut prepared = prepare(stage, &[]).await;
    let mut order: Order = serde_json::from_value(prepared["order"].clone()).unwrap();
    change(&mut order);
    prepared["order"] = json!(order);
    signed_by(&prepared, &client())
}

#[tokio::test]
async fn what_is_not_the_order_is_refused_before_anyone_is_asked() {
    let stage = paying(Setup::default()).await;
    type Change = fn(&mut Order);
    let cases: [(Change, &str, &str); 9] = [
        (|order| order.market = Address::ZERO, "wrong_market", ""),
        (|order| order.deadline = 1, "order_expired", ""),
        (|order| order.max_price = Amount(2561), "price_above_limit", ""),
        (|order| order.assurance = Assurance::Scored, "order_mismatch", "assurance"),
        (|order| order.asset = MARKET, "order_mismatch", "asset"),
        (|order| order.grant = B256::ZERO, "order_mismatch", "grant"),
        (|order| order.model = ModelId::default(), "order_mismatch", "model"),
        (|order| order.max_tokens = 21, "order_mismatch", "maxTokens"),
        (|order| order.request = B256::ZERO, "order_mismatch", "request"),
    ];
    for (change, expected, what) in cases {
        let (said, facts) = refusal(submit(&stage, &changed(&stage, change).await).await);
        assert_eq!(said, expected, "{facts}");
        if !what.is_empty() {
            assert_eq!(facts["what"], what);
            assert_ne!(facts["found"], facts["expected"]);
        }
    }
    let prepared = prepare(&stage, &[]).await;
    // Somebody else's signature, one for another chain, and one of nobody.
    let stranger = Key::from_bytes([9; 32]).unwrap();
    let (said, facts) = refusal(submit(&stage, &signed_by(&prepared, &stranger)).await);
    assert_eq!(said, "wrong_signature");
    assert_eq!(facts["expected"], json!(client().address()));
    let order: Order = serde_json::from_value(prepared["order"].clone()).unwrap();
    let mut foreign = signed_by(&prepared, &client());
    foreign["signature"] = json!(order.sign(ChainId(1), &client()));
    assert_eq!(code(submit(&stage, &foreign).await), "wrong_signature");
    foreign["chainId"] = json!(1);
    let (said, facts) = refusal(submit(&stage, &foreign).await);
    assert_eq!((said.as_str(), facts), ("wrong_chain", json!({ "found": 1, "expected": CHAIN })));
    foreign["chainId"] = json!(CHAIN);
    foreign["signature"] = json!(format!("0x{}", "00".repeat(65)));
    assert_eq!(code(submit(&stage, &foreign).await), "wrong_signature");
    // Terms that the order does not commit to, and a sampler that the request does not ask for.
    let mut signed = signed_by(&prepared, &client());
    signed["terms"]["prompt"] = json!([1, 2, 3]);
    assert_eq!(code(submit(&stage, &signed).await), "invalid_order");
    let signed = signed_by(&prepared, &client());
    let mut hot = request();
    hot["temperature"] = json!(2);
    let (_, facts) = refusal(ask(&stage, "assay_submit", json!([hot, signed]), None).await);
    assert_eq!(facts["what"], "sampler");
    let mut other = request();
    other["messages"][0]["content"] = json!("1+2=");
    let (_, facts) = refusal(ask(&stage, "assay_submit", json!([other, signed]), None).await);
    assert_eq!(facts["what"], "request");
    // No signature at all is no submission.
    let bare = json!({ "order": prepared["order"], "terms": prepared["terms"] });
    assert_eq!(submit(&stage, &bare).await.unwrap_err()["code"], -32602);
    assert_eq!(stage.providers[0].orders(), 0);
    // After all that the order is as good as ever.
    assert_eq!(submit(&stage, &signed).await.unwrap()["text"], "the answer is 2");
}

/// A stage where keys are demanded, and who has none is a stranger.
async fn locked(pay: Pay) -> Stage {
    let setup = Setup { running_max: 100, requests_max: 100, pay: Some(pay), ..Setup::default() };
    public(setup).await
}

pub(crate) async fn answered(stage: &Stage, grants: &[SignedGrant]) -> Result<Value, Value> {
    let prepared = prepare(stage, grants).await;
    submit(stage, &signed_by(&prepared, &client())).await
}

#[tokio::test]
async fn a_grant_of_the_gateways_owner_opens_the_door_without_a_key() {
    let stage = locked(Pay::default()).await;
    let agent = Key::from_bytes([8; 32]).unwrap();
    let first = granted(&agent, |grant| grant.models = vec![MODEL]);
    let child = Grant {
        issuer: agent.address(),
        holder: client().address(),
        spend: Amount(500),
        parent: first.grant.digest(CHAIN),
        ..first.grant.clone()
    };
    let line = [first, child.sign(CHAIN, &agent)];
    let bought = answered(&stage, &line).await.unwrap();
    assert_eq!(bought["text"], "the answer is 2");
    let answer = stage.receipt(bought["order"].as_str().unwrap()).await;
    assert_eq!(answer.order.grant, line[1].grant.digest(CHAIN));
    // Without grants there is no way in, by any method.
    let wish = json!([request(), { "buyer": client().address() }]);
    for params in [wish, json!([request()])] {
        let method = if params[1].is_null() { "assay_infer" } else { "assay_prepare" };
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let said = stage.send(stage.http.post(format!("{}/rpc", stage.url)).json(&call)).await;
        let code = said.json()["error"]["data"]["code"].clone();
        assert!(said.status == 401 || code == "invalid_api_key", "{}", said.body);
    }
    // A line that does not lead here, or not to the buyer, opens nothing.
    let wish = |grants: &[SignedGrant]| json!([request(), { "buyer": client().address(), "grants": grants }]);
    let forged = granted(&client(), |_| ()).grant.sign(CHAIN, &agent);
    let others = granted(&client(), |grant| grant.models = vec![ModelId(B256::repeat_byte(1))]);
    let far = granted(&client(), |grant| grant.from = u64::MAX);
    let registry = granted(&client(), |grant| grant.registry = MARKET);
    for grants in [&line[..1], &line[1..], &[forged], &[others], &[far], &[registry]] {
        let said = ask(&stage, "assay_prepare", wish(grants), None).await;
        assert_eq!(code(said), "invalid_grant");
    }
    assert_eq!(stage.providers[0].orders(), 1);
}

#[tokio::test]
async fn a_grant_that_was_taken_back_buys_nothing() {
    let stage = locked(Pay::default()).await;
    let grant = granted(&client(), |_| ());
    let digest = grant.grant.digest(CHAIN);
    let grants = [grant];
    stage.vault.down.store(true, Ordering::Relaxed);
    let wish = json!([request(), { "buyer": client().address(), "grants": grants }]);
    assert_eq!(code(ask(&stage, "assay_prepare", wish.clone(), None).await), "chain_unreachable");
    stage.vault.down.store(false, Ordering::Relaxed);
    stage.vault.revoked.lock().unwrap().insert((gateway_key().address(), digest));
    let (said, facts) = refusal(ask(&stage, "assay_prepare", wish, None).await);
    assert_eq!((said.as_str(), facts["grant"].clone()), ("grant_revoked", json!(digest)));
    // Nor does one that is shown to the second method only.
    let own = changed_by_key(&stage, &grants, digest).await;
    assert_eq!(code(submit(&stage, &own).await), "grant_revoked");
    assert_eq!(stage.providers[0].orders(), 0);
}

#[tokio::test]
async fn the_chain_is_asked_about_good_grants_only() {
    let stage = locked(Pay::default()).await;
    let asked = || stage.vault.asked.load(Ordering::Relaxed);
    let good = granted(&client(), |_| ());
    let forged = good.grant.clone().sign(CHAIN, &Key::from_bytes([8; 32]).unwrap());
    let four = vec![good.clone(); 4];
    let many = vec![good.clone(); 100];
    for grants in [vec![forged], four, many] {
        let wish = json!([request(), { "buyer": client().address(), "grants": grants }]);
        assert_eq!(code(ask(&stage, "assay_prepare", wish, None).await), "invalid_grant");
        assert_eq!(asked(), 0);
    }
    prepare(&stage, &[good]).await;
    assert_eq!(asked(), 1);
}

/// An order under `grants` that was prepared with an API key.
async fn changed_by_key(stage: &Stage, grants: &[SignedGrant], digest: B256) -> Value {
    let (key, _) = made(stage, terms(10_000)).await;
    let wish = json!([request(), { "buyer": client().address() }]);
    let mut prepared = ask(stage, "assay_prepare", wish, Some(&key)).await.unwrap();
    prepared["order"]["grant"] = json!(digest);
    prepared["grants"] = json!(grants);
    signed_by(&prepared, &client())
}

#[tokio::test]
async fn a_grant_is_never_overspent_however_many_ask_at_once() {
    let mut stage = locked(Pay { lanes_max: 8, ..Pay::default() }).await;
    let grants = [granted(&client(), |grant| grant.spend = Amount(300))];
    let all = join_all((0..30).map(|_| answered(&stage, &grants))).await;
    let (mut spent, mut answers) = (0, 0);
    for outcome in all {
        match outcome {
            Ok(bought) => {
                let price = bought["receipt"]["receipt"]["price"].as_str().unwrap();
                spent += price.parse::<u128>().unwrap();
                answers += 1;
            }
            error => {
                let said = code(error);
                assert!(["rate_limit_exceeded", "grant_spent"].contains(&said.as_str()), "{said}");
            }
        }
    }
    assert!((1..30).contains(&answers), "{answers}");
    // One after the other until it is used up, and what was spent outlives the gateway.
    for _ in 0..30 {
        match answered(&stage, &grants).await {
            Ok(bought) => {
                let price = bought["receipt"]["receipt"]["price"].as_str().unwrap();
                spent += price.parse::<u128>().unwrap();
            }
            error => assert_eq!(code(error), "grant_spent"),
        }
    }
    assert!(spent <= 300 && spent > 200, "{spent}");
    stage.restart("answers.redb").await;
    let (said, facts) = refusal(answered(&stage, &grants).await);
    assert_eq!((said.as_str(), facts["left"].clone()), ("grant_spent", json!(Amount(300 - spent))));
}

#[tokio::test]
async fn a_grant_has_a_pace() {
    let stage = locked(Pay::default()).await;
    let grants = [granted(&client(), |grant| grant.rate = 2)];
    answered(&stage, &grants).await.unwrap();
    let mut prepared = prepare(&stage, &grants).await;
    submit(&stage, &signed_by(&prepared, &client())).await.unwrap();
    let mut order: Order = serde_json::from_value(prepared["order"].clone()).unwrap();
    order.nonce += U256::from(1);
    prepared["order"] = json!(order);
    let (said, facts) = refusal(submit(&stage, &signed_by(&prepared, &client())).await);
    assert_eq!((said.as_str(), &facts["perMinute"]), ("rate_limit_exceeded", &json!(2)));
}

#[tokio::test]
async fn a_provider_that_refuses_the_grants_is_as_good_as_before() {
    let setup = Setup { prices: vec![1, 2], pay: Some(Pay::default()), ..Setup::default() };
    let stage = Stage::new(setup).await;
    let shown = granted(&client(), |_| ());
    let (grant, grants) = (shown.grant.digest(CHAIN), [shown]);
    let spent = Refusal::GrantSpent { grant, asked: Amount(9), left: Amount(4) };
    let cases = [
        (
            Refusal::GrantRate { grant, rate: 2 },
            "rate_limit_exceeded",
            json!({ "grant": grant, "perMinute": 2 }),
        ),
        (spent, "grant_spent", json!({ "grant": grant, "asked": Amount(9), "left": Amount(4) })),
        (Refusal::GrantRevoked { grant }, "grant_revoked", json!({ "grant": grant })),
        (
            Refusal::Grant { reason: "too new".into() },
            "invalid_grant",
            json!({ "reason": "too new" }),
        ),
    ];
    for (refusal, expected, facts) in cases {
        for provider in &stage.providers {
            provider.change(|act| act.refuse = Some(refusal.clone()));
        }
        let error = answered(&stage, &grants).await.unwrap_err();
        assert_eq!(error["data"]["code"], expected, "{error}");
        assert_eq!(error["data"]["facts"], facts);
        assert_eq!(error["data"]["retryAfter"].is_u64(), expected == "rate_limit_exceeded");
        let listing = stage.get("/v1/providers").await.json();
        assert!(listing["data"][0]["aside"].is_null(), "{listing}");
    }
    // One that takes them answers, and nothing is unsure after those that did not.
    stage.providers[1].says("the answer is 2");
    assert_eq!(answered(&stage, &grants).await.unwrap()["text"], "the answer is 2");
    let lanes = stage.get("/v1/lanes").await.json();
    assert!(lanes["data"].as_array().unwrap().iter().all(|lane| lane["unsure"] == "0"), "{lanes}");
    // The gateway's own orders come under no grants, so there the same word is the provider's failure.
    assert_eq!(stage.chat(json!({})).await.status, 200);
    let listing = stage.get("/v1/providers").await.json();
    assert!(listing["data"][0]["aside"].is_string(), "{listing}");
}

#[tokio::test]
async fn little_is_heard_from_a_stranger() {
    let stage = locked(Pay::default()).await;
    let (key, _) = made(&stage, terms(1000)).await;
    let mut long = request();
    long["messages"][0]["content"] = json!("x".repeat(70 << 10));
    let wish = json!({ "buyer": client().address(), "grants": [granted(&client(), |_| ())] });
    let params = json!([long, wish]);
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "assay_prepare", "params": params });
    let url = format!("{}/rpc", stage.url);
    let post = || stage.http.post(&url).header("content-type", "application/json");
    let said = stage.send(post().json(&call)).await;
    assert_eq!(said.error(), (413, "request_too_large".into()));
    // The same without a word of its length.
    let pieces = call.to_string().into_bytes().chunks(9000).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let pieces = futures_util::stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>));
    let said = stage.send(post().body(reqwest::Body::wrap_stream(pieces))).await;
    assert_eq!(said.error(), (413, "request_too_large".into()));
    // Who has a key is heard out.
    assert_eq!(
        code(ask(&stage, "assay_prepare", params, Some(&key)).await),
        "context_length_exceeded"
    );
    let url = url.replace("http", "ws");
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    // It may be left before it has said everything.
    let _ = socket.send(Message::text(call.to_string())).await;
    while let Some(Ok(heard)) = socket.next().await {
        assert!(!heard.is_text(), "{heard}");
    }
}

#[tokio::test]
async fn to_have_an_order_made_counts_as_a_request() {
    let stage = locked(Pay::default()).await;
    let slow = json!({ "name": "slow", "budget": "10000", "requests_per_minute": 2 });
    let (key, _) = made(&stage, slow).await;
    let wish = json!([request(), { "buyer": client().address() }]);
    let grants = [granted(&client(), |grant| grant.rate = 2)];
    let shown = json!([request(), { "buyer": client().address(), "grants": grants }]);
    for (wish, key) in [(wish, Some(key.as_str())), (shown, None)] {
        for _ in 0..2 {
            ask(&stage, "assay_prepare", wish.clone(), key).await.unwrap();
        }
        let error = ask(&stage, "assay_prepare", wish, key).await.unwrap_err();
        assert_eq!(error["data"]["code"], "rate_limit_exceeded", "{error}");
        assert!(error["data"]["retryAfter"].is_u64(), "{error}");
    }
}

#[tokio::test]
async fn a_minted_grant_spends_its_callers_key_and_is_no_key_itself() {
    let stage = locked(Pay::default()).await;
    let (key, _) = made(&stage, terms(60)).await;
    let wish = json!([request(), { "buyer": client().address() }]);
    let with_key = async |method: &str, params| ask(&stage, method, params, Some(&key)).await;
    let prepared = with_key("assay_prepare", wish).await.unwrap();
    let signed = signed_by(&prepared, &client());
    assert_eq!(code(submit(&stage, &signed).await), "invalid_api_key");
    let bought = with_key("assay_submit", json!([request(), signed])).await.unwrap();
    let answer: Answer = serde_json::from_value(bought["receipt"].clone()).unwrap();
    assert_eq!(listed(&stage).await[0]["spent"], json!(answer.receipt.price));
    // The grant itself buys no second answer of that price, and the key not a third.
    let mut order = answer.order.clone();
    order.nonce += U256::from(1);
    let mut again = prepared.clone();
    again["order"] = json!(order);
    let said = with_key("assay_submit", json!([request(), signed_by(&again, &client())])).await;
    assert_eq!(code(said), "grant_spent");
    let (poor, _) = made(&stage, terms(3)).await;
    let wish = json!([request(), { "buyer": client().address() }]);
    let prepared = ask(&stage, "assay_prepare", wish, Some(&poor)).await.unwrap();
    let signed = signed_by(&prepared, &client());
    let said = ask(&stage, "assay_submit", json!([request(), signed]), Some(&poor)).await;
    assert_eq!(code(said), "insufficient_quota");
    assert_eq!(stage.providers[0].orders(), 1);
}

#[tokio::test]
async fn a_deployment_without_grants_says_what_to_do() {
    let pay = Pay { grants: Address::ZERO, ..Pay::default() };
    let stage = Stage::new(Setup { pay: Some(pay), ..Setup::default() }).await;
    let wish = json!([request(), { "buyer": client().address() }]);
    let error = ask(&stage, "assay_prepare", wish, None).await.unwrap_err();
    assert_eq!(error["data"]["code"], "grants_unsupported");
    assert!(error["message"].as_str().unwrap().contains("assay_infer"), "{error}");
}

#[tokio::test]
async fn providers_of_other_grants_are_not_asked() {
    let pay = Pay { taken: MARKET, ..Pay::default() };
    let stage = Stage::new(Setup { pay: Some(pay), ..Setup::default() }).await;
    let wish = json!([request(), { "buyer": client().address() }]);
    let error = ask(&stage, "assay_prepare", wish, None).await.unwrap_err();
    assert_eq!(error["data"]["code"], "no_provider");
    assert!(error["message"].as_str().unwrap().contains("under grants"), "{error}");
    // They answer what the gateway signs itself.
    stage.providers[0].says("yes");
    assert_eq!(stage.chat(json!({})).await.status, 200);
}

#[tokio::test]
async fn a_signed_order_is_answered_piece_by_piece() {
    let stage = locked(Pay::default()).await;
    stage.providers[0].says("one two three four");
    let grants = [granted(&client(), |_| ())];
    let signed = signed_by(&prepare(&stage, &grants).await, &client());
    let url = format!("{}/rpc", stage.url.replace("http", "ws"));
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    let mut heard = async |method: &str, params: Value| {
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        socket.send(Message::text(call.to_string())).await.unwrap();
        let mut lines = Vec::new();
        loop {
            let Message::Text(text) = socket.next().await.unwrap().unwrap() else { continue };
            let line: Value = serde_json::from_str(&text).unwrap();
            let ended = line["error"].is_object()
                || ["done", "failed"]
                    .contains(&line["params"]["result"]["type"].as_str().unwrap_or(""));
            lines.push(line);
            if ended {
                return lines;
            }
        }
    };
    let lines = heard("assay_subscribe", json!(["submit", request(), signed])).await;
    let texts = lines.iter().filter_map(|line| line["params"]["result"]["text"].as_str());
    assert!(lines.len() > 4, "{lines:?}");
    let done = &lines.last().unwrap()["params"]["result"];
    assert_eq!(done["text"], "one two three four");
    assert_eq!(texts.collect::<String>(), "one two three four".repeat(2));
    // The same order again is the same answer, at once.
    let again = heard("assay_subscribe", json!(["submit", request(), signed])).await;
    assert_eq!(&again.last().unwrap()["params"]["result"], done);
    assert_eq!(stage.providers[0].orders(), 1);
    // Nothing else is open to who has no key.
    let refused = heard("assay_models", json!([])).await;
    assert_eq!(refused[0]["error"]["data"]["code"], "invalid_api_key");
    let refused = heard("assay_subscribe", json!(["infer", request()])).await;
    let failed = &refused.last().unwrap()["params"]["result"];
    assert_eq!(failed["error"]["data"]["code"], "invalid_api_key");
    assert_eq!(stage.providers[0].orders(), 1);
}
