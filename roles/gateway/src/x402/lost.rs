//! Tests of what is lost on its way: replies, ends of streams, the gateway itself.

use std::sync::atomic::Ordering;
use std::time::Duration;

use assay_protocol::{Amount, keccak256};

use super::journal::{Paid, Pending};
use super::paper;
use super::sales::{COST, PRICE, Shop, exact, funded};
use super::wire::{self, PAYMENT_RESPONSE, PAYMENT_SIGNATURE, SettlementResponse};
use crate::openai::Api;

/// A client's name for a payment.
const ID: &str = "pay_0123456789abcdef";

#[tokio::test]
async fn a_named_payment_is_taken_once() {
    let shop = funded().await;
    let id = "pay_0123456789abcdef";
    let first = shop.ask("hi", Some(&paper::named(exact(1), id))).await;
    assert_eq!((first.status, first.body.as_str()), (200, "answer 1"));
    shop.settled_down().await;
    // Its client never saw the reply, and signs again.
    let second = shop.ask("hi", Some(&paper::named(exact(2), id))).await;
    assert_eq!((second.status, second.body.as_str()), (200, "answer 1"));
    assert_eq!(second.settled, first.settled);
    let other = shop.ask("something else", Some(&paper::named(exact(3), id))).await;
    assert_eq!(other.status, 409);
    let bad = shop.ask("hi", Some(&paper::named(exact(4), "short"))).await;
    assert_eq!(bad.status, 400);
    assert_eq!((shop.answers(), shop.paper.sent()), (1, 1));
}

#[tokio::test]
async fn a_crash_before_the_answer_leaves_the_right_to_ask_again() {
    let shop = funded().await;
    let id = "pay_0123456789abcdef";
    for (payment, again) in
        [(exact(1), exact(1)), (paper::named(exact(2), id), paper::named(exact(3), id))]
    {
        let sent = shop.paper.sent() + 1;
        let http = shop.http.clone();
        let url = format!("{}/v1/chat/completions", shop.url);
        let header = wire::header(&payment).unwrap();
        let asked = http.post(url).body("hang").header(PAYMENT_SIGNATURE, header).send();
        let asked = tokio::spawn(asked);
        // Its money is on the chain, and its answer never comes.
        while shop.paper.sent() < sent {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let after = shop.crashed().await;
        asked.abort();
        let got = after.ask("hang on", Some(&again)).await;
        assert_ne!(got.status, 200, "it paid for another request");
        let http = after.http.post(format!("{}/v1/chat/completions", after.url)).body("hang");
        let header = wire::header(&again).unwrap();
        let asked = tokio::spawn(http.header(PAYMENT_SIGNATURE, header).send());
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!asked.is_finished(), "it is answered, which takes for ever here");
        assert_eq!(shop.paper.sent(), sent, "and not paid again");
        asked.abort();
    }
}

#[tokio::test]
async fn a_charge_and_its_whole_answer_survive_a_crash_together() {
    let shop = funded().await;
    let payer = paper::payer();
    let id = "pay_0123456789abcdef";
    let first = paper::batch_payment(&payer, 0, PRICE, Some(500));
    assert_eq!(shop.begin("hi", &first).await.status(), 200);
    let after = shop.crashed().await;
    let got = after.ask("hi", Some(&first)).await;
    assert_eq!((got.status, got.body.as_str(), got.charged()), (200, "answer 1", "60"));
    let second = paper::named(paper::batch_payment(&payer, COST, PRICE, None), id);
    assert_eq!(after.begin("yo", &second).await.status(), 200);
    let last = after.crashed().await;
    let anew = paper::named(paper::batch_payment(&payer, 2 * COST, PRICE, None), id);
    for payment in [&second, &anew] {
        let got = last.ask("yo", Some(payment)).await;
        assert_eq!((got.status, got.body.as_str(), got.charged()), (200, "answer 1", "60"));
    }
    assert_eq!((after.answers(), last.answers(), last.paper.sent()), (1, 0, 1));
}

#[tokio::test]
async fn a_stream_cut_off_by_a_crash_is_credited_and_bought_once() {
    let shop = funded().await;
    let payer = paper::payer();
    let id = "pay_0123456789abcdef";
    let body = "stream that hangs";
    let first = paper::named(paper::batch_payment(&payer, 0, PRICE, Some(500)), id);
    let begun = shop.begin(body, &first).await;
    assert_eq!(begun.status(), 200);
    let after = shop.crashed().await;
    // The header said that 100 were charged; its client goes on from there.
    let again = paper::named(paper::batch_payment(&payer, PRICE, PRICE, None), id);
    let begun = after.begin(body, &again).await;
    assert_eq!(begun.status(), 200);
    let settled: SettlementResponse = wire::read(&begun.headers()[PAYMENT_RESPONSE]).unwrap();
    assert_eq!(settled.extra["chargedAmount"], "0", "what was cut off pays for it");
    assert_eq!(settled.extra["channelState"]["chargedCumulativeAmount"], PRICE.to_string());
}

#[tokio::test]
async fn a_lost_reply_of_a_channel_is_repeated_for_nothing() {
    let shop = funded().await;
    let payment = paper::batch_payment(&paper::payer(), 0, PRICE, Some(500));
    assert_eq!(shop.ask("hi", Some(&payment)).await.body, "answer 1");
    shop.settled_down().await;
    let again = shop.ask("hi", Some(&payment)).await;
    assert_eq!((again.status, again.body.as_str(), again.charged()), (200, "answer 1", "60"));
    assert_eq!((shop.answers(), shop.paper.sent()), (1, 1));
}

/// The copy of a long answer is not kept, but that it was paid is.
#[tokio::test]
async fn a_named_payment_is_not_taken_again_where_its_answer_was_too_long_to_keep() {
    let (body, payer) = ("stream that is long", paper::payer());
    let shop = funded().await;
    let first = shop.ask(body, Some(&paper::named(exact(1), ID))).await;
    assert_eq!((first.status, first.body.len() > 1 << 20), (200, true));
    shop.settled_down().await;
    let again = shop.ask(body, Some(&paper::named(exact(2), ID))).await;
    assert_eq!((again.status, again.settled), (410, first.settled));
    assert!(again.body.contains("payment_answered"), "{}", again.body);
    assert_eq!((shop.answers(), shop.paper.sent()), (1, 1));

    let shop = funded().await;
    let first = paper::named(paper::batch_payment(&payer, 0, PRICE, Some(500)), ID);
    let first = shop.ask(body, Some(&first)).await;
    assert_eq!((first.status, first.charged()), (200, "100"));
    shop.settled_down().await;
    let anew = paper::named(paper::batch_payment(&payer, PRICE, PRICE, None), ID);
    let again = shop.ask(body, Some(&anew)).await;
    assert_eq!((again.status, again.settled), (410, first.settled));
    assert_eq!((shop.answers(), shop.paper.sent()), (1, 1));
}

#[tokio::test]
async fn a_named_payment_is_not_taken_again_where_its_answer_made_room() {
    let shop = funded().await;
    let first = shop.ask("hi", Some(&paper::named(exact(1), ID))).await;
    assert_eq!(first.status, 200);
    shop.facilitator.journal.prune(crate::http::now_s(), 0).await.unwrap();
    let again = shop.ask("hi", Some(&paper::named(exact(2), ID))).await;
    assert_eq!((again.status, again.settled), (410, first.settled));
    assert_eq!((shop.answers(), shop.paper.sent()), (1, 1));
}

/// How a payer's channel stands: what was charged, what is credited, what is still open.
async fn channel(shop: &Shop) -> (Amount, Amount, Amount) {
    let id = paper::channel(&paper::payer()).id(&paper::place().channels);
    let account = shop.facilitator.journal.account(id).await.unwrap().unwrap();
    (account.charged, account.credit, account.open)
}

#[tokio::test]
async fn the_end_of_a_stream_is_kept_when_the_disk_lets_it() {
    let shop = funded().await;
    let payment = paper::named(paper::batch_payment(&paper::payer(), 0, PRICE, Some(500)), ID);
    let begun = shop.begin("stream that waits", &payment).await;
    shop.facilitator.journal.fails.store(2, Ordering::SeqCst);
    assert_eq!(begun.text().await.unwrap(), "answer 1 and its end", "its client does not wait");
    shop.settled_down().await;
    let credit = Amount(PRICE - COST);
    assert_eq!(channel(&shop).await, (Amount(PRICE), credit, Amount(0)));
    let again = shop.ask("stream that waits", Some(&payment)).await;
    assert_eq!((again.status, shop.answers()), (410, 1));
}

/// A stream whose end was never kept is credited by whatever comes next under its name.
#[tokio::test]
async fn a_stream_without_an_end_is_credited_by_the_next_of_its_name() {
    for body in ["stream", "hi", "transfer"] {
        let shop = funded().await;
        let payer = paper::payer();
        let first = paper::batch_payment(&payer, 0, PRICE, Some(500));
        assert_eq!(shop.ask("first", Some(&first)).await.status, 200);
        let channel_id = paper::channel(&payer).id(&paper::place().channels);
        let request = keccak256([Api::Chat.path().as_bytes(), keccak256(body).as_slice()].concat());
        let left = shop.facilitator.journal.write(move |rows| {
            let mut account = rows.account(channel_id)?.unwrap();
            let voucher = paper::voucher(&paper::payer(), COST + PRICE);
            account.begin(&voucher, Amount(PRICE), paper::NOW);
            rows.keep_account(channel_id, account)?;
            let paid = Paid::Stream { channel: channel_id, charged: Amount(PRICE) };
            let payer = paper::payer().address();
            let name = keccak256(format!("id:{ID}"));
            rows.keep_pending(name, &Pending { request, payer, paid, until: paper::NOW })
        });
        left.await.unwrap();
        assert_eq!(channel(&shop).await.2, Amount(PRICE));
        let payment = match body {
            "transfer" => exact(1),
            _ => paper::batch_payment(&payer, COST + PRICE, PRICE, None),
        };
        assert_eq!(shop.ask(body, Some(&paper::named(payment, ID))).await.status, 200);
        shop.settled_down().await;
        let credit = match body {
            "transfer" => PRICE,
            _ => PRICE - COST,
        };
        assert_eq!(
            channel(&shop).await,
            (Amount(COST + PRICE), Amount(credit), Amount(0)),
            "{body}"
        );
    }
}
