//! What buyers may not do to each other, and what a provider owes whatever happens.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use assay_protocol::wire::{Frame, Refusal, Submission};
use assay_protocol::{Finish, Key};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::script::{CHAIN, Disk, Script, Stage, checked, hash, order};

#[tokio::test]
async fn an_order_is_its_buyers() {
    let stage = Stage::new(Script::new(6, 2)).await;
    let mut lines = stage.submit(&order(1)).await.unwrap();
    lines.tokens(2).await;
    let url = format!("{}/v1/orders/{}", stage.url, hash(&order(1)));
    let said =
        async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();
    let stranger = Key::from_bytes([5; 32]).unwrap().sign(hash(&order(1)).0);
    assert_eq!(said(stage.http.delete(&url)).await, 401);
    assert_eq!(said(stage.http.delete(&url).bearer_auth(stranger)).await, 401);
    assert_eq!(said(stage.http.delete(&url).bearer_auth("0x")).await, 401);
    assert_eq!(stage.delete(&order(1)).await, 204);
    let (_, last) = lines.rest().await;
    let sealed = checked(&order(1), last);
    assert_eq!(said(stage.http.get(&url)).await, 401);
    assert_eq!(said(stage.http.get(&url).bearer_auth(stranger)).await, 401);
    assert_eq!(stage.sealed(&order(1)).await, sealed);
    assert_eq!(stage.delete(&order(2)).await, 404);
}

#[tokio::test]
async fn what_was_sealed_is_replayed_when_no_more_can_be_had() {
    let stage = Stage::with(Script::new(6, 2), Disk::default().open(), 1, Duration::ZERO).await;
    let mut lines = stage.submit(&order(1)).await.unwrap();
    lines.tokens(2).await;
    stage.delete(&order(1)).await;
    let (_, first) = lines.rest().await;
    let _busy = stage.submit(&order(2)).await.unwrap();
    let (status, refusal) = stage.submit(&order(3)).await.err().unwrap();
    assert_eq!((status, refusal), (429, Refusal::Busy { running_max: 1 }));
    let (tokens, again) = stage.answer(&order(1)).await;
    assert_eq!((tokens, again), (vec![10, 11], first));
}

/// An order that is to be answered before `deadline`, Unix seconds.
fn until(deadline: u64, nonce: u64) -> Submission {
    let mut submission = order(nonce);
    submission.order.deadline = deadline;
    let key = Key::from_bytes([1; 32]).unwrap();
    submission.signature = submission.order.sign(CHAIN, &key);
    submission
}

#[tokio::test]
async fn an_order_that_is_not_started_by_its_deadline_is_let_go() {
    let stage = Stage::new(Script::new(3, 0)).await;
    let deadline = UNIX_EPOCH.elapsed().unwrap().as_secs() + 2;
    let (tokens, last) = stage.answer(&until(deadline, 1)).await;
    assert_eq!(tokens, Vec::<u32>::new());
    let Frame::Failed(Refusal::Expired { deadline: named, now }) = last else { panic!("{last:?}") };
    assert!(named == deadline && now >= deadline);
}

#[tokio::test]
async fn what_was_sealed_is_replayed_after_the_deadline() {
    let stage = Stage::new(Script::new(6, 2)).await;
    let deadline = UNIX_EPOCH.elapsed().unwrap().as_secs() + 2;
    let expiring = until(deadline, 1);
    let mut lines = stage.submit(&expiring).await.unwrap();
    lines.tokens(2).await;
    stage.delete(&expiring).await;
    let (_, first) = lines.rest().await;
    assert_eq!(checked(&expiring, first.clone()).receipt.finish, Finish::Cancelled);
    // It has passed when its second begins.
    let passed = UNIX_EPOCH + Duration::from_secs(deadline);
    tokio::time::sleep(passed.duration_since(SystemTime::now()).unwrap_or_default()).await;
    let (status, refusal) = stage.submit(&until(deadline, 2)).await.err().unwrap();
    assert!(status == 400 && matches!(refusal, Refusal::Expired { .. }), "{refusal}");
    assert_eq!(stage.answer(&expiring).await, (vec![10, 11], first));
}

/// Begins a submission of `length` bytes, and sends `sent` of them.
async fn begin(stage: &Stage, length: usize, sent: usize) -> TcpStream {
    let mut stream = TcpStream::connect(stage.url.trim_start_matches("http://")).await.unwrap();
    let head = format!("POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b' '; sent]).await.unwrap();
    stream
}

#[tokio::test]
async fn who_sends_slowly_is_not_in_the_way_of_short_orders() {
    let stage = Stage::new(Script::new(4, 100)).await;
    let mut slow = Vec::new();
    for _ in 0..80 {
        slow.push(begin(&stage, 200 << 10, 100 << 10).await);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let short = order(1);
    let answer = tokio::time::timeout(Duration::from_secs(2), stage.answer(&short));
    checked(&short, answer.await.unwrap().1);
}

#[tokio::test]
async fn no_submission_is_longer_than_the_longest_order() {
    let stage = Stage::new(Script::new(4, 100)).await;
    let mut stream = begin(&stage, 1 << 30, 300 << 10).await;
    let mut said = [0; 12];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"HTTP/1.1 400");
}
