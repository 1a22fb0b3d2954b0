//! A provider over real sockets, with a scripted engine behind it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod asked;
mod bank;
mod collected;
mod crash;
mod granted;
mod hostile;
mod paid;
mod script;
mod settled;
mod vectors;

use std::sync::atomic::Ordering;
use std::time::Duration;

use assay_protocol::wire::{Frame, Refusal};
use assay_protocol::{Amount, Finish};
use assay_provider::Open;
use script::{
    CHAIN, Disk, EOS, Script, Stage, checked, drop_connection, hash, order, provider_key,
};

#[tokio::test]
async fn offers_are_signed_and_counted() {
    let stage = Stage::new(Script::new(3, 0)).await;
    let offers = stage.offers().await;
    let signed = &offers.offers[0];
    assert_eq!(signed.offer.is_signed(CHAIN, &signed.signature), Ok(true));
    assert_eq!(offers.provider, provider_key().address());
    assert_eq!((offers.running, offers.running_max), (0, 4));
    let _lines = stage.submit(&order(1)).await.unwrap();
    assert_eq!(stage.offers().await.running, 1);
}

#[tokio::test]
async fn a_retried_order_gets_the_same_answer_without_work() {
    let stage = Stage::new(Script::new(5, 100)).await;
    let (tokens, last) = stage.answer(&order(1)).await;
    assert_eq!(tokens, [10, 11, 12, 13, EOS]);
    let sealed = checked(&order(1), last);
    assert_eq!(sealed.receipt.finish, Finish::Eos);
    let (again, last) = stage.answer(&order(1)).await;
    assert_eq!((again, last), (tokens, Frame::Sealed(Box::new(sealed.clone()))));
    assert_eq!(stage.sealed(&order(1)).await, sealed);
    assert_eq!(stage.script.jobs.load(Ordering::SeqCst), 1);
    assert_eq!(stage.delete(&order(1)).await, 404);
}

#[tokio::test]
async fn a_restarted_provider_remembers() {
    let disk = Disk::default();
    let wait = Duration::from_secs(10);
    let first = Stage::with(Script::new(5, 100), disk.open(), 4, wait).await;
    let (_, sealed) = first.answer(&order(1)).await;
    first.shutdown.cancel();
    first.running.await.unwrap().unwrap();
    let second = Stage::with(Script::new(5, 100), disk.open(), 4, wait).await;
    let (_, again) = second.answer(&order(1)).await;
    assert_eq!(again, sealed);
    assert_eq!(second.script.jobs.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_cancelled_answer_is_sealed_and_may_grow_later() {
    let stage = Stage::new(Script::new(6, 2)).await;
    let mut lines = stage.submit(&order(1)).await.unwrap();
    assert_eq!(lines.tokens(2).await, [10, 11]);
    assert_eq!(stage.delete(&order(1)).await, 204);
    let (rest, last) = lines.rest().await;
    assert!(rest.is_empty());
    let short = checked(&order(1), last);
    assert_eq!(short.receipt.finish, Finish::Cancelled);
    assert_eq!(stage.sealed(&order(1)).await, short);

    stage.script.pace.add_permits(100);
    let (tokens, last) = stage.answer(&order(1)).await;
    let long = checked(&order(1), last);
    assert_eq!(long.receipt.finish, Finish::Eos);
    assert_eq!(tokens, long.output);
    assert!(long.states.starts_with(&short.states));
    assert_eq!(stage.sealed(&order(1)).await, long);
}

#[tokio::test]
async fn a_sealed_answer_never_shrinks() {
    let stage = Stage::new(Script::new(6, 3)).await;
    let mut lines = stage.submit(&order(1)).await.unwrap();
    lines.tokens(3).await;
    stage.delete(&order(1)).await;
    let (_, first) = lines.rest().await;

    stage.script.pace.add_permits(1);
    let mut lines = stage.submit(&order(1)).await.unwrap();
    assert_eq!(lines.tokens(1).await, [10]);
    stage.delete(&order(1)).await;
    let (rest, second) = lines.rest().await;
    assert_eq!(rest, [11, 12]);
    assert_eq!(first, second);
}

#[tokio::test]
async fn an_engine_whose_bits_changed_gets_no_second_receipt() {
    let stage = Stage::new(Script::new(6, 2)).await;
    let mut lines = stage.submit(&order(1)).await.unwrap();
    lines.tokens(2).await;
    stage.delete(&order(1)).await;
    let (_, first) = lines.rest().await;

    stage.script.other_bits.store(true, Ordering::SeqCst);
    stage.script.pace.add_permits(100);
    let (_, last) = stage.answer(&order(1)).await;
    assert!(matches!(last, Frame::Failed(Refusal::Internal { .. })), "{last:?}");
    assert_eq!(Frame::Sealed(Box::new(stage.sealed(&order(1)).await)), first);
}

#[tokio::test]
async fn a_buyer_who_hangs_up_cancels() {
    let stage = Stage::new(Script::new(6, 2)).await;
    let mut lines = stage.submit(&order(1)).await.unwrap();
    lines.tokens(2).await;
    drop_connection(lines).await;
    let sealed = stage.sealed(&order(1)).await;
    assert_eq!((sealed.receipt.finish, sealed.output.len()), (Finish::Cancelled, 2));
}

#[tokio::test]
async fn nothing_delivered_is_a_receipt_too() {
    let stage = Stage::new(Script::new(6, 0)).await;
    let lines = stage.submit(&order(1)).await.unwrap();
    stage.delete(&order(1)).await;
    let (tokens, last) = lines.rest().await;
    assert!(tokens.is_empty());
    assert_eq!(checked(&order(1), last).receipt.price, Amount(3));
}

#[tokio::test]
async fn a_running_order_and_a_full_house_are_refused() {
    let script = Script::new(6, 0);
    let stage = Stage::with(script, Disk::default().open(), 1, Duration::ZERO).await;
    let _lines = stage.submit(&order(1)).await.unwrap();
    let (status, refusal) = stage.submit(&order(1)).await.err().unwrap();
    assert_eq!((status, refusal), (409, Refusal::Running { order: hash(&order(1)) }));
    let (status, refusal) = stage.submit(&order(2)).await.err().unwrap();
    assert_eq!((status, refusal), (429, Refusal::Busy { running_max: 1 }));
}

#[tokio::test]
async fn without_a_disk_there_is_no_receipt_and_nothing_is_owed() {
    let disk = Disk::default();
    let wait = Duration::from_secs(10);
    let stage = Stage::with(Script::new(4, 100), disk.open(), 4, wait).await;
    stage.offers().await;
    disk.full.store(true, Ordering::SeqCst);
    let (tokens, last) = stage.answer(&order(1)).await;
    assert_eq!(tokens.len(), 4);
    assert!(matches!(last, Frame::Failed(Refusal::Storage { .. })), "{last:?}");
    disk.full.store(false, Ordering::SeqCst);
    let (_, last) = stage.answer(&order(1)).await;
    let sealed = checked(&order(1), last);
    assert_eq!(stage.sealed(&order(1)).await, sealed);
}

#[tokio::test]
async fn an_engine_that_breaks_off_is_the_providers_failure() {
    let stage = Stage::new(Script::new(4, 100)).await;
    stage.script.breaks.store(true, Ordering::SeqCst);
    let (_, last) = stage.answer(&order(1)).await;
    assert!(matches!(last, Frame::Failed(Refusal::Internal { .. })), "{last:?}");
}

#[tokio::test]
async fn what_is_no_order_is_refused_with_a_reason() {
    let stage = Stage::new(Script::new(4, 100)).await;
    let send = async |body: String| {
        let reply = stage.http.post(format!("{}/v1/orders", stage.url)).body(body).send();
        let reply = reply.await.unwrap();
        (reply.status().as_u16(), reply.json::<Refusal>().await.unwrap().to_string())
    };
    let (status, reason) = send("{\"chainId\": 7777,".into()).await;
    assert_eq!(status, 400);
    assert!(reason.contains("line 1 column 17"), "{reason}");
    let mut forged = order(1);
    forged.order.max_tokens += 1;
    let (status, reason) = send(serde_json::to_string(&forged).unwrap()).await;
    assert_eq!(status, 400);
    assert!(reason.starts_with("order is signed by"), "{reason}");
    let mut strange = order(1);
    strange.order.model.0.0[0] ^= 1;
    assert_eq!(send(serde_json::to_string(&strange).unwrap()).await.0, 404);
    assert_eq!(stage.script.jobs.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_closing_provider_finishes_what_runs_and_takes_nothing_new() {
    let stage = Stage::new(Script::new(4, 1)).await;
    let mut lines = stage.submit(&order(1)).await.unwrap();
    lines.tokens(1).await;
    stage.shutdown.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (status, refusal) = stage.submit(&order(2)).await.err().unwrap();
    assert_eq!((status, refusal), (503, Refusal::Closing));
    stage.script.pace.add_permits(100);
    let (_, last) = lines.rest().await;
    assert_eq!(checked(&order(1), last).receipt.finish, Finish::Eos);
    stage.running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_drain_ends_in_time_with_receipts() {
    let drain_max = Duration::from_millis(50);
    let stage = Stage::with(Script::new(4, 1), Disk::default().open(), 4, drain_max).await;
    let mut lines = stage.submit(&order(1)).await.unwrap();
    lines.tokens(1).await;
    stage.shutdown.cancel();
    let (_, last) = lines.rest().await;
    assert_eq!(checked(&order(1), last).receipt.finish, Finish::Cancelled);
    stage.running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_store_in_use_is_an_error_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sealed.redb");
    let _held = redb::Database::create(&path).unwrap();
    let stage = Stage::with(Script::new(1, 1), Open::file(path), 4, Duration::ZERO).await;
    let error = stage.running.await.unwrap().unwrap_err().to_string();
    assert!(error.starts_with("cannot open the store"), "{error}");
}
