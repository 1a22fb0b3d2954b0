//! Orders that clients sign themselves, at a gateway that was killed before it kept their answers.

use std::sync::Arc;
use std::time::Duration;

use assay_protocol::{Amount, Order, SignedGrant};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::signed::{
    answered, ask, client, granted, paying, prepare, refusal, request, signed_by, submit,
};
use crate::stage::{NAME, Setup, Stage};

/// A gateway that was killed while an order of its client's was answered, and started again; the order.
/// The answer was sealed meanwhile, whole or as far as it had come.
async fn killed(whole: bool) -> (Stage, Vec<SignedGrant>, Value) {
    let mut stage = paying(Setup::default()).await;
    let grants = vec![granted(&client(), |grant| grant.spend = Amount(400))];
    // A first answer, so that the channel is known when the gateway is killed.
    answered(&stage, &grants).await.unwrap();
    let pace = Arc::new(Semaphore::new(1));
    stage.providers[0].change(|act| act.pace = Some(Arc::clone(&pace)));
    let signed = signed_by(&prepare(&stage, &grants).await, &client());
    let buying = async {
        let cut = tokio::time::timeout(Duration::from_millis(500), submit(&stage, &signed));
        assert!(cut.await.is_err() || whole);
    };
    let kill = async {
        while stage.providers[0].orders() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stage.copy_store("killed");
        if whole {
            pace.add_permits(100);
        }
    };
    tokio::join!(buying, kill);
    stage.until("/v1/lanes", |said| said.json()["data"][0]["busy"] == false).await;
    stage.providers[0].says("another answer");
    stage.restart("killed").await;
    (stage, grants, signed)
}

/// Hands in an order that was answered before the gateway was killed, and checks what that did.
async fn handed_in_again(stage: &Stage, grants: &[SignedGrant], signed: &Value) {
    let again = submit(stage, signed).await.unwrap();
    assert_eq!(again["text"], "the answer is 2");
    assert_eq!(submit(stage, signed).await.unwrap(), again);
    is_honest(stage).await;
    // Nothing but the two answers was spent under the grant, and the next order goes on as ever.
    let price = |bought: &Value| {
        bought["receipt"]["receipt"]["price"].as_str().unwrap().parse::<u128>().unwrap()
    };
    let next = answered(stage, grants).await.unwrap();
    assert_eq!(next["text"], "another answer");
    let spent = 2 * price(&again) + price(&next);
    let wish = json!([{ "model": NAME, "messages": request()["messages"], "max_tokens": 200 },
        { "buyer": client().address(), "grants": grants }]);
    let mut large = ask(stage, "assay_prepare", wish, None).await.unwrap();
    let mut order: Order = serde_json::from_value(large["order"].clone()).unwrap();
    order.max_price = Amount(400 - spent + 1);
    large["order"] = json!(order);
    let mut body = request();
    body["max_tokens"] = json!(200);
    let outcome = ask(stage, "assay_submit", json!([body, signed_by(&large, &client())]), None);
    let (said, facts) = refusal(outcome.await);
    assert_eq!((said.as_str(), &facts["left"]), ("grant_spent", &json!(Amount(400 - spent))));
}

/// The provider is not struck, and its lanes go on.
async fn is_honest(stage: &Stage) {
    let listing = stage.get("/v1/providers").await.json();
    assert!(listing["data"][0]["struck"].is_null(), "{listing}");
    let lanes = stage.get("/v1/lanes").await.json();
    assert!(lanes["data"].as_array().unwrap().iter().all(|lane| lane["ended"] == false), "{lanes}");
}

#[tokio::test]
async fn an_order_whose_answer_was_not_kept_gets_it_when_it_is_handed_in_again() {
    let (stage, grants, signed) = killed(true).await;
    let seen = stage.providers[0].accounts.lock().unwrap().clone();
    let charged = seen.values().map(|account| account.charged).sum::<u128>();
    handed_in_again(&stage, &grants, &signed).await;
    let lanes = stage.get("/v1/lanes").await.json();
    let lane = &lanes["data"][0];
    assert!(lane["charged"].as_str().unwrap().parse::<u128>().unwrap() > charged, "{lane}");
    assert_eq!(lane["unsure"], "0");
}

#[tokio::test]
async fn so_it_does_while_its_channel_pays_for_another_order() {
    let (stage, grants, signed) = killed(true).await;
    let pace = Arc::new(Semaphore::new(0));
    stage.providers[0].change(|act| act.pace = Some(Arc::clone(&pace)));
    let other = tokio::spawn(stage.request(json!({})).send());
    stage.until("/v1/lanes", |said| said.json()["data"][0]["busy"] == true).await;
    let again = submit(&stage, &signed).await.unwrap();
    assert_eq!(again["text"], "the answer is 2");
    pace.add_permits(100);
    assert_eq!(other.await.unwrap().unwrap().status(), 200);
    handed_in_again(&stage, &grants, &signed).await;
}

#[tokio::test]
async fn an_order_that_a_kill_cancelled_is_not_its_providers_fault() {
    let (stage, grants, signed) = killed(false).await;
    for _ in 0..2 {
        let (said, facts) = refusal(submit(&stage, &signed).await);
        assert_eq!((said.as_str(), facts["tokens"].as_u64() > Some(0)), ("order_cancelled", true));
    }
    is_honest(&stage).await;
    assert_eq!(answered(&stage, &grants).await.unwrap()["text"], "another answer");
}
