//! What one hostile provider can do to a gateway and its other providers: nothing for long.

use serde_json::json;

use crate::stage::{CONTEXT, Setup, Stage};

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
