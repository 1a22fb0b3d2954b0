//! Paying providers: lanes, vouchers, positions, and providers that lie about any of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use assay_gateway::{Patience, Standing};
use assay_protocol::wire::Refusal;
use assay_protocol::{Address, Amount, Answer, ChannelId};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::provider::Lie;
use crate::stage::{Pay, Setup, Stage, streamed};

async fn paying(pay: Pay) -> Stage {
    Stage::new(Setup { pay: Some(pay), ..Setup::default() }).await
}

/// Buys one answer and gives it back with all that is kept of it.
async fn bought(stage: &Stage) -> Answer {
    let said = stage.chat(json!({})).await;
    assert_eq!(said.status, 200, "{}", said.body);
    stage.receipt(said.json()["id"].as_str().unwrap()).await
}

async fn lanes(stage: &Stage) -> Vec<Value> {
    stage.get("/v1/lanes").await.json()["data"].as_array().unwrap().clone()
}

fn amount(value: &Value) -> u128 {
    value.as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn answers_follow_each_other_on_one_line() {
    let stage = paying(Pay::default()).await;
    stage.providers[0].says("the answer is 2");
    let mut charged = Amount(0);
    for _ in 0..3 {
        let answer = bought(&stage).await;
        assert_eq!(answer.order.market, crate::bank::MARKET);
        assert_eq!(answer.receipt.channel_before, charged);
        charged = answer.receipt.channel_after;
        assert_eq!(charged.0 - answer.receipt.channel_before.0, answer.receipt.price.0);
    }
    let lanes = lanes(&stage).await;
    assert_eq!((lanes.len(), amount(&lanes[0]["charged"])), (1, charged.0));
    assert_eq!(amount(&lanes[0]["deposited"]), 10_000);
    assert!(amount(&lanes[0]["signed"]) >= charged.0);
    assert_eq!(stage.providers[0].seen.lock().unwrap().positions, 1);
}

#[tokio::test]
async fn a_long_answer_is_paid_in_steps_while_it_pauses() {
    let stage = paying(Pay { prepay_max: 20, ..Pay::default() }).await;
    stage.providers[0].says("one two three four five six seven eight nine ten eleven twelve");
    let said = stage.chat(json!({"stream": true})).await;
    let (text, finish, id) = streamed(&said, false);
    assert!(text.ends_with("eleven twelve"), "{text}");
    assert_eq!(finish, "stop");
    let answer = stage.receipt(&id).await;
    let dues = stage.providers[0].seen.lock().unwrap().dues.clone();
    assert!(dues.len() >= 2, "{dues:?}");
    // Every step is bounded: nothing is signed further ahead than the answer allows.
    let signed = dues.last().unwrap().1;
    assert!(signed <= answer.receipt.price.0 + 20 && signed < dues[0].0, "{dues:?}");
}

#[tokio::test]
async fn credit_saves_pauses() {
    let stage = paying(Pay { prepay_max: 0, credit: 100_000, ..Pay::default() }).await;
    stage.providers[0].says("one two three");
    bought(&stage).await;
    assert_eq!(stage.providers[0].seen.lock().unwrap().dues, []);
}

#[tokio::test]
async fn a_hundred_requests_share_four_lanes() {
    let setup = Setup {
        running_max: 200,
        requests_max: 200,
        pay: Some(Pay { prepay_max: 20, ..Pay::default() }),
        ..Setup::default()
    };
    let stage = Stage::new(setup).await;
    stage.providers[0].says("one two three four five six");
    let answers = join_all((0..100).map(|_| bought(&stage))).await;
    let lanes = lanes(&stage).await;
    assert_eq!(lanes.len(), 4);
    assert_eq!(stage.providers[0].seen.lock().unwrap().at_once, 4);
    // The receipts of each channel are one unbroken line from zero to what was charged.
    for lane in &lanes {
        let id: ChannelId = lane["channel"].as_str().unwrap().parse().unwrap();
        let mut spans: Vec<_> = answers
            .iter()
            .filter(|answer| answer.receipt.channel == id)
            .map(|answer| (answer.receipt.channel_before.0, answer.receipt.channel_after.0))
            .collect();
        spans.sort_unstable();
        let end = spans.iter().fold(0, |end, (before, after)| {
            assert_eq!(end, *before);
            *after
        });
        assert_eq!(end, amount(&lane["charged"]));
        assert_eq!(end, stage.providers[0].account(id).charged);
        assert_eq!(lane["busy"], false);
    }
}

#[tokio::test]
async fn a_lane_that_runs_low_is_topped_up() {
    // An answer may cost 256, so the second or third order finds too little.
    let stage = paying(Pay { deposit: 300, lanes_max: 1, ..Pay::default() }).await;
    stage.providers[0].says(&"word ".repeat(40));
    for _ in 0..8 {
        bought(&stage).await;
    }
    let lanes = lanes(&stage).await;
    let [deposited, charged] = ["deposited", "charged"].map(|name| amount(&lanes[0][name]));
    assert!(charged > 300 && deposited >= charged, "{lanes:?}");
    assert_eq!(deposited % 300, 0);
    assert_eq!(stage.vault.held(), deposited);
}

/// Who answers next, once the listing says that the first provider is barred, or is not.
async fn answered_by(stage: &Stage, barred: bool) -> String {
    let began = std::time::Instant::now();
    loop {
        let first = &stage.get("/v1/providers").await.json()["data"][0];
        if first["barred"].is_string() == barred {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{first}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bought(stage).await.text
}

#[tokio::test]
async fn who_is_in_jail_or_has_no_stake_is_not_bought_from() {
    let setup = Setup { prices: vec![1, 2], pay: Some(Pay::default()), ..Setup::default() };
    let stage = Stage::new(setup).await;
    stage.providers[0].says("cheap");
    stage.providers[1].says("dear");
    assert_eq!(answered_by(&stage, false).await, "cheap");
    let listing = stage.get("/v1/providers").await.json();
    let cheap: Address = listing["data"][0]["address"].as_str().unwrap().parse().unwrap();
    let bad =
        [Standing::Jailed { until: 5 }, Standing::Short { bonded: Amount(1) }, Standing::Stranger];
    for standing in bad {
        stage.vault.standings.lock().unwrap().insert(cheap, standing);
        assert_eq!(answered_by(&stage, true).await, "dear", "{standing:?}");
        // What the chain said last holds while it says nothing.
        stage.vault.down.store(true, Ordering::Relaxed);
        stage.vault.standings.lock().unwrap().clear();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(answered_by(&stage, true).await, "dear");
        stage.vault.down.store(false, Ordering::Relaxed);
        // Out of jail, it sells again.
        assert_eq!(answered_by(&stage, false).await, "cheap");
    }
}

#[tokio::test]
async fn a_provider_that_lies_about_money_is_struck_and_its_lanes_end() {
    let lies = [Lie::Position, Lie::Channel, Lie::Price, Lie::Output, Lie::Greed];
    for lie in lies {
        let pay = Pay { prepay_max: 15, ..Pay::default() };
        let setup = Setup { prices: vec![1, 2], pay: Some(pay), ..Setup::default() };
        let stage = Stage::new(setup).await;
        stage.providers[0].says("a lie that goes on for a while until all is paid");
        stage.providers[0].change(|act| act.lie = Some(lie));
        stage.providers[1].says("the truth");
        let said = stage.chat(json!({})).await;
        assert_eq!(said.error(), (502, "receipt_mismatch".into()), "{lie:?}: {}", said.body);
        let listing = stage.get("/v1/providers").await.json();
        assert!(listing["data"][0]["struck"].is_string(), "{lie:?}: {listing}");
        // What is left in its lanes is on its way back.
        let ended = stage.until("/v1/lanes", |_| stage.vault.withdrawals() > 0).await.json();
        assert_eq!(ended["data"][0]["ended"], true, "{lie:?}: {ended}");
        assert_eq!(bought(&stage).await.text, "the truth");
        assert_eq!(stage.providers[0].orders(), 1);
    }
}

#[tokio::test]
async fn who_takes_the_voucher_and_sends_nothing_gets_a_bounded_amount_and_no_receipt() {
    let patience = Patience { frame_wait_max: Duration::from_millis(100), ..Patience::default() };
    let pay = Pay { prepay_max: 15, ..Pay::default() };
    let setup = Setup { prices: vec![1, 2], pay: Some(pay), patience, ..Setup::default() };
    let stage = Stage::new(setup).await;
    stage.providers[0].change(|act| act.lie = Some(Lie::Silence));
    stage.providers[1].says("the truth");
    assert_eq!(bought(&stage).await.text, "the truth");
    let lanes = lanes(&stage).await;
    let silent = lanes.iter().find(|lane| amount(&lane["unsure"]) > 0).unwrap();
    assert_eq!((amount(&silent["signed"]), amount(&silent["charged"])), (15, 0));
}

/// Buys an answer that breaks off after two frames; gives the id of its order.
async fn broken_off(stage: &Stage, lie: Option<Lie>) -> String {
    stage.providers[0].says("one two three");
    stage.providers[0].change(|act| (act.breaks_after, act.lie) = (Some(2), lie));
    let said = stage.chat(json!({"stream": true})).await;
    assert!(said.events().last().unwrap().contains("upstream_error"), "{}", said.body);
    assert!(amount(&lanes(stage).await[0]["unsure"]) > 0);
    stage.providers[0].says("the truth");
    let first: Value = serde_json::from_str(said.events()[0]).unwrap();
    first["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_answer_that_broke_off_is_settled_by_its_receipt() {
    let stage = paying(Pay::default()).await;
    let broken = broken_off(&stage, None).await;
    let answer = bought(&stage).await;
    let broken = stage.receipt(&broken).await;
    assert_eq!(broken.text, "one two ");
    assert_eq!(broken.receipt.channel_before, Amount(0));
    assert_eq!(answer.receipt.channel_before, broken.receipt.channel_after);
    assert_eq!(amount(&lanes(&stage).await[0]["unsure"]), 0);
}

#[tokio::test]
async fn nothing_is_believed_to_be_charged_without_its_answer() {
    for lie in [Lie::Unproven, Lie::OtherAnswer] {
        let stage = paying(Pay::default()).await;
        broken_off(&stage, Some(lie)).await;
        let said = stage.chat(json!({})).await;
        assert_eq!(said.error(), (502, "receipt_mismatch".into()), "{lie:?}: {}", said.body);
        let listing = stage.get("/v1/providers").await.json();
        assert!(listing["data"][0]["struck"].is_string(), "{listing}");
        assert_eq!(stage.providers[0].orders(), 1);
    }
}

#[tokio::test]
async fn a_client_that_leaves_pays_for_what_it_asked_for() {
    let stage = paying(Pay::default()).await;
    stage.providers[0].says("one two three four");
    stage.providers[0].change(|act| act.pace = Some(Arc::new(Semaphore::new(0))));
    let request = stage.request(json!({})).send();
    assert!(tokio::time::timeout(Duration::from_millis(200), request).await.is_err());
    let charged = |said: &crate::stage::Said| said.json()["data"][0]["charged"] != "0";
    let lanes = stage.until("/v1/lanes", charged).await.json();
    assert_eq!(lanes["data"][0]["unsure"], "0");
    assert_eq!(stage.providers[0].deletes(), 1);
}

#[tokio::test]
async fn a_gateway_that_is_killed_mid_answer_goes_on_where_its_provider_is() {
    let mut stage = paying(Pay { prepay_max: 20, lanes_max: 1, ..Pay::default() }).await;
    stage.providers[0].says("one two three four five six seven");
    let first = bought(&stage).await;
    stage.providers[0].change(|act| act.pace = Some(Arc::new(Semaphore::new(3))));
    let mut reply = stage.request(json!({"stream": true})).send().await.unwrap();
    let mut seen = String::new();
    while !seen.contains("three") {
        seen += std::str::from_utf8(&reply.chunk().await.unwrap().unwrap()).unwrap();
    }
    // What a kill would leave: the file as it is while the answer runs.
    stage.copy_store("killed");
    drop(reply);
    stage.until("/v1/lanes", |said| said.json()["data"][0]["busy"] == false).await;
    let charged = stage.providers[0].account(first.receipt.channel).charged;
    assert!(charged > first.receipt.channel_after.0);
    stage.restart("killed").await;
    stage.providers[0].says("the truth");
    assert_eq!(bought(&stage).await.receipt.channel_before, Amount(charged));
    assert_eq!(stage.vault.channels(), 1);
}

#[tokio::test]
async fn a_deposit_that_does_not_count_yet_is_waited_for() {
    let stage = paying(Pay { lanes_max: 1, ..Pay::default() }).await;
    stage.providers[0].says("the answer is 2");
    let young = Refusal::Deposit { found: Amount(0), expected: Amount(10) };
    stage.providers[0].change(|act| act.refuse = Some(young));
    let count = async {
        while stage.providers[0].orders() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stage.providers[0].change(|act| act.refuse = None);
    };
    tokio::join!(count, bought(&stage));
    assert_eq!(stage.vault.held(), 10_000);
}

#[tokio::test]
async fn a_lane_on_which_an_order_still_runs_rests_while_another_is_used() {
    let patience = Patience { frame_wait_max: Duration::from_millis(200), ..Patience::default() };
    let setup = Setup { pay: Some(Pay::default()), patience, ..Setup::default() };
    let stage = Stage::new(setup).await;
    stage.providers[0].says("one two three");
    // The provider does not notice that the gateway has given up.
    stage.providers[0].change(|act| act.lie = Some(Lie::Silence));
    assert_eq!(stage.chat(json!({})).await.error(), (504, "timeout".into()));
    stage.providers[0].change(|act| act.lie = None);
    let first: ChannelId = lanes(&stage).await[0]["channel"].as_str().unwrap().parse().unwrap();
    assert!(stage.providers[0].account(first).busy);
    let answer = tokio::spawn({
        let request = stage.request(json!({}));
        async move { request.send().await.unwrap().status() }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    stage.providers[0].accounts.lock().unwrap().get_mut(&first).unwrap().busy = false;
    assert_eq!(answer.await.unwrap(), 200);
}

#[tokio::test]
async fn a_lost_purse_finds_its_channels_and_goes_on() {
    let mut stage = paying(Pay { lanes_max: 1, ..Pay::default() }).await;
    stage.providers[0].says("the answer is 2");
    let before = bought(&stage).await.receipt.channel_after;
    let held = stage.vault.held();
    stage.restart("empty").await;
    let answer = bought(&stage).await;
    assert_eq!(answer.receipt.channel_before, before);
    assert_eq!((stage.vault.channels(), stage.vault.held()), (1, held));
    // A purse that was not lost does too.
    stage.restart("empty").await;
    assert_eq!(bought(&stage).await.receipt.channel_before, answer.receipt.channel_after);
    assert_eq!((stage.vault.channels(), stage.vault.held()), (1, held));
}

#[tokio::test]
async fn a_deposit_that_is_gone_is_made_again() {
    let stage = paying(Pay { lanes_max: 1, ..Pay::default() }).await;
    stage.providers[0].says("the answer is 2");
    let first = bought(&stage).await;
    stage.vault.lose(first.receipt.channel);
    let second = bought(&stage).await;
    assert_eq!(second.receipt.channel_before, first.receipt.channel_after);
    assert_eq!(stage.vault.held(), 10_000);
}

#[tokio::test]
async fn a_chain_that_is_down_keeps_nobody_waiting_long() {
    let stage = Stage::new(Setup { prices: vec![], dead: true, ..Setup::default() }).await;
    drop(stage);
    let pay = Pay { deposit: 300, lanes_max: 1, ..Pay::default() };
    let stage = paying(pay).await;
    stage.providers[0].says(&"word ".repeat(40));
    bought(&stage).await;
    stage.vault.down.store(true, Ordering::Relaxed);
    // The lane has too little for another answer at the highest price, and cannot be filled.
    let said = tokio::time::timeout(Duration::from_secs(5), stage.chat(json!({}))).await.unwrap();
    assert_eq!(said.error(), (503, "payment_unavailable".into()), "{}", said.body);
    assert!(said.body.contains("it is down"), "{}", said.body);
    stage.vault.down.store(false, Ordering::Relaxed);
    stage.until("/v1/lanes", |_| stage.vault.held() > 300).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    bought(&stage).await;
}

#[tokio::test]
async fn who_waits_too_long_for_a_lane_hears_it() {
    let lane_wait_max = Duration::from_millis(200);
    let stage = paying(Pay { lanes_max: 1, lane_wait_max, ..Pay::default() }).await;
    stage.providers[0].says("one two three");
    bought(&stage).await;
    stage.providers[0].change(|act| act.pace = Some(Arc::new(Semaphore::new(1))));
    let _first = stage.request(json!({"stream": true})).send().await.unwrap();
    let said = stage.chat(json!({})).await;
    assert_eq!(said.error(), (503, "payment_unavailable".into()), "{}", said.body);
    assert!(said.body.contains("was free within 200 ms"), "{}", said.body);
}

#[tokio::test]
async fn a_provider_that_is_paid_elsewhere_is_no_candidate() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("free");
    // A free gateway and a free provider agree; each other pair does not.
    assert_eq!(stage.chat(json!({})).await.status, 200);
    let stage = paying(Pay::default()).await;
    stage.providers[0].change(|act| act.refuse = Some(Refusal::StoppedPaying));
    let said = stage.chat(json!({})).await;
    assert_eq!(said.error(), (502, "upstream_error".into()));
    assert!(said.body.contains("stopped paying"), "{}", said.body);
}

#[tokio::test]
async fn a_burst_opens_no_more_lanes_than_it_still_needs() {
    let setup = Setup {
        running_max: 64,
        requests_max: 64,
        pay: Some(Pay { lanes_max: 64, ..Pay::default() }),
        ..Setup::default()
    };
    let stage = Stage::new(setup).await;
    stage.providers[0].says("one");
    join_all((0..40).map(|_| bought(&stage))).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    // A block takes as long as several answers, so most of the burst is served before more lanes are.
    let opened = stage.vault.channels();
    assert!((2..40).contains(&opened), "{opened}");
}
