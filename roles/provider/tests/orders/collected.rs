//! What becomes of receipts and vouchers after the answers.

use std::time::Duration;

use assay_protocol::wire::{Payment as Offered, Submission};
use assay_protocol::{Amount, B256, ChannelId, U256, leaf_hash, root};
use assay_provider::{Collecting, Payment};
use tokio::runtime::Runtime;

use crate::bank::{Books, Ledger, PostsFail, WINDOW};
use crate::paid::{channel, here, id, paid, payment, top_up};
use crate::script::{CHAIN, Disk, Script, Stage, checked};

const OFTEN: Duration = Duration::from_millis(20);

fn often(ledger: &Ledger) -> Payment {
    let mut payment = payment(ledger);
    payment.collecting.every = OFTEN;
    payment
}

/// A chain on which channels 1 to `channels` hold 100 each.
fn ledger(channels: u8) -> Ledger {
    let ledger = Ledger::default();
    (1..=channels).for_each(|salt| ledger.deposit(id(salt), 100));
    ledger
}

async fn provider(disk: &Disk, payment: Payment) -> Stage {
    Stage::paid(Script::new(5, 10_000), disk.open(), Some(payment)).await
}

/// An order that channel `number` pays, of more than `paid` can tell apart; and that channel.
fn numbered(number: u64) -> (Submission, ChannelId) {
    let mut submission = paid(number, 1, 50);
    let mut channel = channel(1);
    channel.salt = B256::from(U256::from(number));
    let voucher = top_up(&channel, 50, 1);
    let id = channel.id(&here());
    submission.payment = Some(Offered { channel, voucher });
    (submission, id)
}

/// Waits until the books are as they should be.
async fn until(ledger: &Ledger, holds: impl Fn(&Books) -> bool) {
    for _ in 0..1000 {
        if ledger.books(|books| holds(books)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not in time: {:?}", ledger.books(|books| format!("{books:?}")));
}

fn claimed(books: &Books, salt: u8) -> u128 {
    books.channels.get(&id(salt)).map_or(0, |state| state.claimed.0)
}

fn covered(books: &Books, salt: u8) -> u128 {
    books.covered.get(&id(salt)).map_or(0, |amount| amount.0)
}

fn paid_out(books: &Books, salt: u8) -> u128 {
    books.paid_out.get(&id(salt)).map_or(0, |amount| amount.0)
}

#[tokio::test]
async fn receipts_are_posted_claimed_and_paid_a_window_later() {
    let ledger = ledger(2);
    let mut payment = often(&ledger);
    payment.collecting.every = Duration::from_millis(300);
    let stage = provider(&Disk::default(), payment).await;
    let mut digests: Vec<(ChannelId, B256)> = Vec::new();
    for (nonce, salt) in [(1, 1), (2, 2), (3, 1)] {
        let order = paid(nonce, salt, 50);
        let receipt = checked(&order, stage.answer(&order).await.1).receipt;
        digests.push((receipt.channel, receipt.digest(CHAIN)));
    }
    until(&ledger, |books| claimed(books, 1) == 26 && claimed(books, 2) == 13).await;
    until(&ledger, |books| books.releases.len() >= 2).await;
    digests.sort_by_key(|(channel, _)| *channel);
    let leaves = digests.iter().map(|(_, digest)| leaf_hash(digest.as_slice()));
    ledger.books(|books| {
        assert_eq!((covered(books, 1), covered(books, 2)), (26, 13));
        assert_eq!(books.periods.len(), 1);
        assert_eq!((books.periods[0].0, books.periods[0].1), (root(leaves), 3));
        assert_eq!((books.claims, paid_out(books, 1)), (1, 0));
        books.time += WINDOW;
    });
    until(&ledger, |books| paid_out(books, 1) == 26 && paid_out(books, 2) == 13).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    // Both channels at once, when they were claimed and when their window was over.
    ledger.books(|books| {
        assert_eq!((books.releases.len(), books.release_calls, books.claims), (4, 2, 1));
    });
}

#[tokio::test]
async fn one_bad_row_does_not_keep_the_others_back() {
    let ledger = ledger(5);
    ledger.books(|books| books.poisoned.push(id(3)));
    let stage = provider(&Disk::default(), often(&ledger)).await;
    for salt in 1..=5 {
        stage.answer(&paid(salt.into(), salt, 50)).await;
    }
    until(&ledger, |books| [1, 2, 4, 5].iter().all(|&salt| claimed(books, salt) == 13)).await;
    ledger.books(|books| assert_eq!(claimed(books, 3), 0));
}

#[tokio::test]
async fn one_stuck_channel_does_not_keep_the_others_unreleased() {
    let ledger = ledger(5);
    ledger.books(|books| books.stuck.push(id(2)));
    let stage = provider(&Disk::default(), often(&ledger)).await;
    for salt in 1..=5 {
        stage.answer(&paid(salt.into(), salt, 50)).await;
    }
    let all_but_one = |books: &Books| [1, 3, 4, 5].map(|salt| books.releases.contains(&id(salt)));
    until(&ledger, |books| all_but_one(books) == [true; 4]).await;
    ledger.books(|books| assert!(!books.releases.contains(&id(2))));
}

/// Posting fails for good: payers that leave are claimed all the same, each time, on however many channels.
async fn leavers_are_claimed(posts_fail: PostsFail) {
    // More than are collected at once.
    const STAYING: u64 = 501;
    let ledger = Ledger::default();
    let disk = Disk::default();
    let mut slow = payment(&ledger);
    slow.watch_every = Duration::from_secs(60);
    let stage = provider(&disk, slow).await;
    let mut ids = Vec::new();
    for number in 1..=STAYING {
        let (order, id) = numbered(number);
        ledger.deposit(id, 100);
        stage.answer(&order).await;
        ids.push(id);
    }
    ids.sort_unstable();
    stage.shutdown.cancel();
    stage.running.await.unwrap().unwrap();

    ledger.books(|books| books.posts_fail = Some(posts_fail));
    let _stage = provider(&disk, often(&ledger)).await;
    until(&ledger, |books| books.questions > 0).await;
    // In the order of ids, the last is not among those that are collected first.
    for leaver in [ids[0], ids[250], ids[500]] {
        ledger.withdraw(leaver, 100);
        until(&ledger, |books| books.channels[&leaver].claimed == Amount(13)).await;
    }
    ledger.books(|books| {
        let claimed = books.channels.values().filter(|state| state.claimed.0 > 0).count();
        assert_eq!((claimed, books.periods.len()), (3, 0));
        books.posts_fail = None;
    });
    until(&ledger, |books| ids.iter().all(|id| books.covered.get(id) == Some(&Amount(13)))).await;
}

#[tokio::test]
async fn leavers_are_claimed_while_posts_are_refused() {
    leavers_are_claimed(PostsFail::Refused).await;
}

#[tokio::test]
async fn leavers_are_claimed_while_nobody_answers_posts() {
    leavers_are_claimed(PostsFail::Silent).await;
}

#[tokio::test]
async fn a_payer_who_leaves_is_claimed_whatever_the_gas_and_the_outage() {
    let ledger = ledger(2);
    let disk = Disk::default();
    let dear = |ledger: &Ledger| {
        let mut payment = often(ledger);
        payment.collecting =
            Collecting { every: OFTEN, coin_price: Amount(1 << 100), parts_min: 50 };
        payment
    };
    let stage = provider(&disk, dear(&ledger)).await;
    stage.answer(&paid(1, 1, 50)).await;
    stage.answer(&paid(2, 2, 50)).await;
    tokio::time::sleep(5 * OFTEN).await;
    ledger.books(|books| {
        assert_eq!(books.claims, 0);
        books.unreachable = true;
    });
    stage.shutdown.cancel();
    stage.running.await.unwrap().unwrap();
    // The provider is down, the payer leaves, and at the restart the chain is still out of reach.
    ledger.withdraw(id(1), 100);
    let _stage = provider(&disk.left(), dear(&ledger)).await;
    tokio::time::sleep(5 * OFTEN).await;
    ledger.books(|books| books.unreachable = false);
    until(&ledger, |books| claimed(books, 1) == 13).await;
    ledger.books(|books| assert_eq!(claimed(books, 2), 0));
}

/// Collects until the chain was asked `left` times, and is then killed; when it is up again, all is
/// done, and once.
fn kill_after(left: u64, deaf: bool) -> bool {
    let ledger = ledger(2);
    let disk = Disk::default();
    let first = Runtime::new().unwrap();
    let interrupted = first.block_on(async {
        let mut slow = payment(&ledger);
        slow.watch_every = Duration::from_secs(60);
        let stage = provider(&disk, slow).await;
        for (nonce, salt) in [(1, 1), (2, 2), (3, 1)] {
            stage.answer(&paid(nonce, salt, 50)).await;
        }
        stage.shutdown.cancel();
        stage.running.await.unwrap().unwrap();
        let mut slow = often(&ledger);
        slow.watch_every = Duration::from_secs(60);
        ledger.books(|books| (books.left, books.deaf) = (Some(left), deaf));
        let _stage = provider(&disk, slow).await;
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let (stopped, done) =
                ledger.books(|books| (books.left == Some(0) || deaf, books.releases.len() >= 2));
            if stopped {
                return true;
            }
            if done {
                return false;
            }
        }
        true
    });
    first.shutdown_timeout(Duration::from_secs(5));
    let second = Runtime::new().unwrap();
    second.block_on(async {
        ledger.books(|books| (books.left, books.deaf) = (None, false));
        let _stage = provider(&disk.left(), often(&ledger)).await;
        until(&ledger, |books| claimed(books, 1) == 26 && claimed(books, 2) == 13).await;
        until(&ledger, |books| [1, 2].iter().all(|&salt| books.releases.contains(&id(salt)))).await;
        ledger.books(|books| {
            assert_eq!((covered(books, 1), covered(books, 2)), (26, 13), "after {left}");
            let posted: u64 = books.periods.iter().map(|period| period.1).sum();
            assert_eq!(posted, 3, "after {left}");
            books.time += WINDOW;
        });
        until(&ledger, |books| paid_out(books, 1) == 26 && paid_out(books, 2) == 13).await;
    });
    second.shutdown_timeout(Duration::from_secs(5));
    interrupted
}

#[test]
fn a_kill_at_any_question_to_the_chain_loses_and_repeats_nothing() {
    let mut left = 0;
    while kill_after(left, false) {
        left += 1;
    }
    assert!(left > 15, "only {left} questions were interrupted");
}

#[test]
fn a_transaction_whose_answer_is_lost_is_not_sent_again() {
    for left in 12..30 {
        kill_after(left, true);
    }
}
