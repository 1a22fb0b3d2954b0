//! A provider that is killed at every write: what either side loses.

use std::sync::atomic::Ordering;
use std::time::Duration;

use assay_protocol::wire::{Frame, Refusal, Sealed, Submission, TopUp};
use assay_protocol::{Amount, Channel, OrderHash};
use assay_provider::Payment;
use tokio::runtime::Runtime;

use crate::bank::Ledger;
use crate::granted::{one, payers, under, under_grants};
use crate::paid::{CREDIT, channel, here, paid, top_up};
use crate::script::{CHAIN, Disk, Script, Stage, hash};

/// Tokens of each answer.
const LENGTH: u32 = 9;

/// What the grant allows in all, where there is one.
const SPEND: u128 = 150;

/// For whom the buyer acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    Itself,
    /// Somebody who granted it [`SPEND`].
    Another,
}

impl For {
    fn channel(self) -> Channel {
        match self {
            Self::Itself => channel(1),
            Self::Another => payers(1, 1),
        }
    }

    fn order(self, nonce: u64, claimable: u128) -> Submission {
        match self {
            Self::Itself => paid(nonce, 1, claimable),
            Self::Another => under(&one(SPEND), nonce, 1, claimable, 20),
        }
    }
}

/// What the buyer knows when the provider is gone.
#[derive(Debug, Default)]
struct Had {
    /// What the tokens cost that arrived.
    cost: u128,
    /// The highest voucher that it signed.
    signed: u128,
    orders: Vec<Submission>,
    /// What it was given receipts for.
    sealed: Vec<(OrderHash, Sealed)>,
}

fn slow(ledger: &Ledger) -> Payment {
    let mut payment = under_grants(ledger);
    payment.watch_every = Duration::from_secs(60);
    payment
}

/// Buys two answers on one channel, paying as it is asked to; a token at a time.
async fn buy(stage: &Stage, whom: For) -> Had {
    let mut had = Had::default();
    for nonce in 1..=2 {
        let claimable = had.signed + 5;
        let order = whom.order(nonce, claimable);
        had.signed = claimable;
        had.orders.push(order.clone());
        let Some((mut lines, top_ups)) = stage.try_talk(&order).await else { return had };
        let mut tokens = 0;
        loop {
            match lines.next().await {
                Some(Frame::Tokens(more)) => {
                    tokens += more.len() as u128;
                    stage.script.pace.add_permits(more.len());
                }
                Some(Frame::Cached(_)) => {}
                Some(Frame::Due(_)) => {
                    had.signed += 7;
                    let next: TopUp = top_up(&whom.channel(), had.signed, 1);
                    top_ups.send(next).await;
                }
                Some(Frame::Sealed(sealed)) => {
                    had.sealed.push((hash(&order), *sealed));
                    break;
                }
                Some(Frame::Failed(_) | Frame::Logprobs(_) | Frame::Vector(_)) | None => break,
            }
        }
        had.cost += if tokens > 0 { 3 + 2 * tokens } else { 0 };
    }
    had
}

/// Buys from a provider that is killed after `writes` writes, and again from the next one on its disk.
/// False if it was not killed any more.
fn kill_after(writes: u64, whom: For) -> bool {
    let ledger = Ledger::default();
    ledger.deposit(whom.channel().id(&here()), 500);
    let disk = Disk::default();
    // A file that is being created holds nothing yet that could be lost.
    drop(redb::Database::builder().create_with_backend(disk.clone()).unwrap());
    disk.writes.store(0, Ordering::SeqCst);
    disk.full_after.store(writes, Ordering::SeqCst);
    let first = Runtime::new().unwrap();
    let had = first.block_on(async {
        let stage = Stage::paid(Script::new(LENGTH, 1), disk.open(), Some(slow(&ledger))).await;
        let bought = tokio::time::timeout(Duration::from_secs(10), buy(&stage, whom)).await;
        bought.unwrap_or_else(|_| panic!("stuck after {writes}"))
    });
    first.shutdown_timeout(Duration::from_secs(5));
    let killed = disk.writes.load(Ordering::SeqCst) > writes;
    let second = Runtime::new().unwrap();
    second.block_on(check(&disk.left(), &ledger, &had, writes, whom));
    second.shutdown_timeout(Duration::from_secs(5));
    killed
}

/// What the next provider on the disk says, beside what the buyer had.
async fn check(disk: &Disk, ledger: &Ledger, had: &Had, writes: u64, whom: For) {
    let stage = Stage::paid(Script::new(LENGTH, 100), disk.open(), Some(slow(ledger))).await;
    let position = stage.position(whom.channel().id(&here())).await;
    let charged = position.map_or(0, |position| position.charged.0);
    let claimable = position.map_or(0, |position| position.voucher.claimable.0);
    let context = format!("{whom:?}, after {writes} writes: {had:?}, {charged} charged");

    // The provider: what it delivered and cannot claim is within its credit.
    assert!(had.cost <= charged.min(claimable) + CREDIT, "{context}");
    // The buyer: it signed what is there, and every unit charged is in a receipt it can have.
    assert!(claimable <= had.signed, "{context}");
    let mut lines = Vec::new();
    for order in &had.orders {
        if let Some(sealed) = stage.try_sealed(order).await {
            let receipt = &sealed.receipt;
            assert!(!sealed.output.is_empty(), "{context}");
            assert_eq!(receipt.price, Amount(3 + 2 * sealed.output.len() as u128), "{context}");
            lines.push((receipt.channel_before.0, receipt.channel_after.0));
        }
    }
    lines.sort_unstable();
    let end = lines.iter().fold(0, |at, &(before, after)| {
        assert_eq!(at, before, "{context}");
        after
    });
    assert_eq!(end, charged, "{context}");
    // No receipt that was given is taken back or changed.
    for (order, sealed) in &had.sealed {
        let submission = had.orders.iter().find(|submission| hash(submission) == *order).unwrap();
        assert_eq!(stage.try_sealed(submission).await.as_ref(), Some(sealed), "{context}");
    }
    // And business goes on where it was.
    let claimable = had.signed.max(charged + 30);
    if whom == For::Another && charged > 0 {
        // Of the grant is spent what the receipts say, no more and no less: one that may cost nearly all
        // of it does not fit.
        let line = one(SPEND);
        let (_, said) = stage.submit(&under(&line, 8, 1, claimable, 73)).await.err().unwrap();
        let (grant, left) = (line[0].grant.digest(CHAIN), Amount(SPEND - charged));
        assert!(
            matches!(said, Refusal::GrantSpent { grant: g, left: l, .. } if (g, l) == (grant, left)),
            "{said:?} {context}"
        );
    }
    let next = whom.order(9, claimable);
    let (_, last) = stage.answer(&next).await;
    let Frame::Sealed(sealed) = last else { panic!("{last:?} {context}") };
    assert_eq!(sealed.receipt.channel_before.0, charged, "{context}");
}

#[test]
fn a_kill_at_any_write_costs_nobody_more_than_the_credit() {
    let most = std::thread::scope(|scope| {
        let both = [For::Itself, For::Another].map(|whom| {
            scope.spawn(move || (1..).find(|&writes| !kill_after(writes, whom)).unwrap())
        });
        both.map(|most| most.join().unwrap())
    });
    assert!(most.iter().all(|&most| most > 30), "only {most:?} writes");
}
