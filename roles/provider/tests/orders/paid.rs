//! What is delivered against which payment.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use assay_protocol::wire::{Accepts, Frame, Payment as Offered, Position, Refusal, TopUp};
use assay_protocol::{
    Address, Amount, B256, Channel, ChannelId, Channels, Finish, Key, Signature, Voucher,
    wire::Submission,
};
use assay_provider::{Collecting, Payment};

use crate::bank::{CONTRACT, Ledger};
use crate::script::{CHAIN, Disk, EOS, Lines, Script, Stage, checked, order, provider_key};

pub(crate) const CREDIT: u128 = 4;
const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(20);

pub(crate) fn here() -> Channels {
    Channels { chain: CHAIN, contract: CONTRACT }
}

pub(crate) fn buyer() -> Key {
    Key::from_bytes([1; 32]).unwrap()
}

pub(crate) fn payment(ledger: &Ledger) -> Payment {
    Payment {
        owner: Address::repeat_byte(0xb0),
        accepts: Accepts {
            channels: CONTRACT,
            market: Address::repeat_byte(0xc2),
            token: Address::repeat_byte(0xc3),
            receiver: Address::repeat_byte(0xc4),
            receiver_authorizer: provider_key().address(),
            withdraw_delay_min: 900,
            credit_max: Amount(CREDIT),
            grants: Address::ZERO,
        },
        bank: Arc::new(ledger.clone()),
        confirmations: 0,
        voucher_wait_max: LONG,
        watch_every: Duration::from_millis(20),
        collecting: Collecting { every: LONG, coin_price: Amount(0), parts_min: 1 },
    }
}

/// The buyer's channel number `salt`.
pub(crate) fn channel(salt: u8) -> Channel {
    Channel {
        payer: Address::repeat_byte(0xd1),
        payer_authorizer: buyer().address(),
        receiver: Address::repeat_byte(0xc4),
        receiver_authorizer: provider_key().address(),
        token: Address::repeat_byte(0xc3),
        withdraw_delay: 900,
        salt: B256::repeat_byte(salt),
    }
}

pub(crate) fn id(salt: u8) -> ChannelId {
    channel(salt).id(&here())
}

pub(crate) fn voucher(salt: u8, claimable: u128) -> TopUp {
    top_up(&channel(salt), claimable, 1)
}

/// A voucher on a channel, by the key of 32 bytes `signer`.
pub(crate) fn top_up(channel: &Channel, claimable: u128, signer: u8) -> TopUp {
    let word = Voucher { channel: channel.id(&here()), claimable: Amount(claimable) };
    let signer = Key::from_bytes([signer; 32]).unwrap();
    TopUp { claimable: word.claimable, signature: word.sign(&here(), &signer) }
}

/// Order `nonce`, paid by channel `salt`.
pub(crate) fn paid(nonce: u64, salt: u8, claimable: u128) -> Submission {
    let mut submission = order(nonce);
    submission.order.market = Address::repeat_byte(0xc2);
    submission.signature = submission.order.sign(CHAIN, &buyer());
    let (channel, voucher) = (channel(salt), voucher(salt, claimable));
    submission.payment = Some(Offered { channel, voucher });
    submission
}

/// A provider whose answers have `length` tokens, `permits` of them at once, and a chain on which
/// channels 1 and 2 hold 100.
async fn stage(length: u32, permits: usize) -> (Stage, Ledger) {
    staged(length, permits, |_| ()).await
}

async fn staged(length: u32, permits: usize, change: impl FnOnce(&mut Payment)) -> (Stage, Ledger) {
    let ledger = Ledger::default();
    ledger.deposit(id(1), 100);
    ledger.deposit(id(2), 100);
    let mut payment = payment(&ledger);
    change(&mut payment);
    let open = Disk::default().open();
    let stage = Stage::paid(Script::new(length, permits), open, Some(payment)).await;
    (stage, ledger)
}

async fn refused(stage: &Stage, submission: &Submission) -> (u16, Refusal) {
    stage.submit(submission).await.err().expect("a refusal")
}

impl Stage {
    pub(crate) async fn position(&self, id: ChannelId) -> Option<Position> {
        let url = format!("{}/v1/channels/{id}", self.url);
        let reply = self.http.get(url).send().await.unwrap();
        reply.status().is_success().then_some(())?;
        Some(reply.json().await.unwrap())
    }
}

/// All tokens until the provider asks for more, and how much it asks for.
async fn until_due(lines: &mut Lines) -> (usize, Amount) {
    let mut tokens = 0;
    loop {
        match lines.next().await {
            Some(Frame::Tokens(more)) => tokens += more.len(),
            Some(Frame::Due(due)) => return (tokens, due),
            other => panic!("expected tokens or a due, found {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_paid_answer_moves_its_channel_by_its_price() {
    let (stage, _) = stage(5, 100).await;
    assert_eq!(stage.offers().await.accepts.unwrap().credit_max, Amount(CREDIT));
    assert_eq!(stage.position(id(1)).await, None);
    let (tokens, last) = stage.answer(&paid(1, 1, 50)).await;
    assert_eq!(tokens, [10, 11, 12, 13, EOS]);
    let receipt = checked(&paid(1, 1, 50), last).receipt;
    assert_eq!((receipt.channel, receipt.price), (id(1), Amount(13)));
    assert_eq!((receipt.channel_before, receipt.channel_after), (Amount(0), Amount(13)));
    let position = Position { charged: Amount(13), voucher: voucher(1, 50) };
    assert_eq!(stage.position(id(1)).await, Some(position));

    let (_, last) = stage.answer(&paid(2, 1, 50)).await;
    let receipt = checked(&paid(2, 1, 50), last).receipt;
    assert_eq!((receipt.channel_before, receipt.channel_after), (Amount(13), Amount(26)));
}

#[tokio::test]
async fn a_retried_order_is_charged_once_whatever_it_brings() {
    let (stage, _) = stage(5, 100).await;
    let (_, first) = stage.answer(&paid(1, 1, 50)).await;
    let mut again = paid(1, 1, 60);
    assert_eq!(stage.answer(&again).await.1, first);
    again.payment = None;
    assert_eq!(stage.answer(&again).await.1, first);
    assert_eq!(stage.position(id(1)).await.unwrap().charged, Amount(13));
    assert_eq!(stage.script.jobs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_was_sealed_and_paid_does_not_grow() {
    let (stage, _) = stage(6, 2).await;
    let mut lines = stage.submit(&paid(1, 1, 50)).await.unwrap();
    lines.tokens(2).await;
    assert_eq!(stage.delete(&paid(1, 1, 50)).await, 204);
    let (_, first) = lines.rest().await;
    assert_eq!(checked(&paid(1, 1, 50), first.clone()).receipt.channel_after, Amount(7));
    stage.script.pace.add_permits(100);
    assert_eq!(stage.answer(&paid(1, 1, 50)).await.1, first);
}

#[tokio::test]
async fn without_payment_nothing_is_computed() {
    let (stage, _) = stage(5, 100).await;
    let mut unpaid = paid(1, 1, 50);
    unpaid.payment = None;
    assert_eq!(refused(&stage, &unpaid).await, (402, Refusal::Unpaid));
    let other_market = Refusal::NotOffered { what: "market".into() };
    assert_eq!(refused(&stage, &order(1)).await, (400, other_market));
    let free = Stage::new(Script::new(5, 100)).await;
    let mut generous = order(1);
    generous.payment = paid(1, 1, 50).payment;
    let unknown = Refusal::NotOffered { what: "payment".into() };
    assert_eq!(refused(&free, &generous).await, (400, unknown));
    assert_eq!(stage.script.jobs.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_channel_or_voucher_of_somebody_else_is_refused() {
    let (stage, ledger) = stage(5, 100).await;
    let said = async |change: &dyn Fn(&mut Offered)| {
        let mut submission = paid(1, 1, 50);
        change(submission.payment.as_mut().unwrap());
        let (status, refusal) = refused(&stage, &submission).await;
        assert_eq!(status, 402, "{refusal}");
        refusal.to_string()
    };
    let elsewhere = said(&|payment| payment.channel.receiver = Address::repeat_byte(7)).await;
    assert!(elsewhere.starts_with("the channel's receiver is 0x0707"), "{elsewhere}");
    let hasty = said(&|payment| payment.channel.withdraw_delay = 10).await;
    assert!(hasty.starts_with("the channel's withdraw delay is 10 s"), "{hasty}");
    let signed = "the voucher is signed by";
    assert!(said(&|payment| payment.voucher.claimable = Amount(51)).await.starts_with(signed));
    assert!(said(&|payment| payment.voucher = voucher(2, 50)).await.starts_with(signed));
    assert!(said(&|payment| payment.channel.salt = B256::ZERO).await.starts_with(signed));
    let forge = |payment: &mut Offered| {
        let word = Voucher { channel: id(1), claimable: Amount(50) };
        payment.voucher.signature = word.sign(&here(), &provider_key());
    };
    assert!(said(&forge).await.starts_with(signed));
    let mut broken = paid(1, 1, 50);
    broken.payment.as_mut().unwrap().voucher.signature = Signature([0; 65]);
    assert_eq!(refused(&stage, &broken).await.0, 400);
    // None of this asked the chain about a channel, and none was computed.
    ledger.books(|books| assert!(books.channels.len() == 2));
    assert_eq!(stage.script.jobs.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_voucher_pays_once() {
    let (stage, _) = stage(5, 100).await;
    stage.answer(&paid(1, 1, 20)).await;
    // The same voucher for another order still covers its prompt, but not all of its answer.
    let mut lines = stage.submit(&paid(2, 1, 20)).await.unwrap();
    assert_eq!(until_due(&mut lines).await, (4, Amount(13 + 103)));
    let sealed = checked(&paid(2, 1, 20), lines.rest().await.1);
    assert_eq!(sealed.receipt.finish, Finish::Cancelled);
    assert_eq!(sealed.receipt.channel_after, Amount(20 + CREDIT));
}

#[tokio::test]
async fn a_lower_or_spent_voucher_is_refused_with_what_it_takes() {
    let (stage, _) = stage(5, 100).await;
    stage.answer(&paid(1, 1, 30)).await;
    let lower = Refusal::Voucher { found: Amount(29), expected: Amount(30) };
    assert_eq!(refused(&stage, &paid(2, 1, 29)).await, (402, lower));
    stage.answer(&paid(2, 1, 30)).await;
    let mut lines = stage.submit(&paid(3, 1, 31)).await.unwrap();
    assert_eq!(until_due(&mut lines).await.0, 3);
    lines.rest().await;
    assert_eq!(stage.position(id(1)).await.unwrap().charged, Amount(31 + CREDIT));
    let spent = Refusal::Voucher { found: Amount(31), expected: Amount(34) };
    assert_eq!(refused(&stage, &paid(4, 1, 31)).await, (402, spent));
}

#[tokio::test]
async fn a_voucher_without_money_behind_it_is_refused() {
    let (stage, ledger) = stage(5, 100).await;
    let short = Refusal::Deposit { found: Amount(100), expected: Amount(101) };
    assert_eq!(refused(&stage, &paid(1, 1, 101)).await, (402, short));
    let nothing = Refusal::Deposit { found: Amount(0), expected: Amount(3) };
    assert_eq!(refused(&stage, &paid(1, 3, 0)).await, (402, nothing));
    ledger.withdraw(id(2), 80);
    let leaving = Refusal::Deposit { found: Amount(20), expected: Amount(50) };
    assert_eq!(refused(&stage, &paid(1, 2, 50)).await, (402, leaving));
    assert_eq!(stage.position(id(3)).await, None);
}

#[tokio::test]
async fn a_deposit_counts_when_its_blocks_are_final() {
    let (stage, ledger) = staged(5, 100, |payment| payment.confirmations = 2).await;
    let unconfirmed = Refusal::Deposit { found: Amount(0), expected: Amount(50) };
    assert_eq!(refused(&stage, &paid(1, 1, 50)).await, (402, unconfirmed.clone()));
    ledger.reorganise(id(1), 40);
    ledger.books(|books| books.height += 3);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let less = Refusal::Deposit { found: Amount(40), expected: Amount(50) };
    assert_eq!(refused(&stage, &paid(1, 1, 50)).await, (402, less));
    let (_, last) = stage.answer(&paid(1, 1, 40)).await;
    checked(&paid(1, 1, 40), last);
}

#[tokio::test]
async fn a_channel_pays_for_one_order_at_a_time() {
    let (stage, _) = stage(5, 0).await;
    let first = stage.submit(&paid(1, 1, 50)).await.unwrap();
    let busy = Refusal::ChannelBusy { channel: id(1) };
    assert_eq!(refused(&stage, &paid(2, 1, 50)).await, (409, busy));
    let second = stage.submit(&paid(2, 2, 50)).await.unwrap();
    stage.script.pace.add_permits(100);
    for (nonce, salt, lines) in [(1, 1, first), (2, 2, second)] {
        let sealed = checked(&paid(nonce, salt, 50), lines.rest().await.1);
        assert_eq!(sealed.receipt.channel, id(salt));
    }
}

#[tokio::test]
async fn an_answer_waits_for_its_voucher_and_goes_on() {
    let (stage, _) = stage(20, 100).await;
    let (mut lines, top_ups) = stage.talk(&paid(1, 1, 9)).await;
    // 3 for the prompt and 5 tokens at 2 are 13: what the voucher and the credit allow.
    assert_eq!(until_due(&mut lines).await, (5, Amount(100 + 3)));
    assert_eq!(stage.position(id(1)).await.unwrap().voucher, voucher(1, 9));
    top_ups.send(voucher(1, 20)).await;
    assert_eq!(until_due(&mut lines).await, (5, Amount(100 + 3)));
    // Too little for a token more, the one before again, and one above the deposit: it waits on.
    top_ups.send(voucher(1, 20)).await;
    top_ups.send(voucher(1, 5)).await;
    top_ups.send(voucher(1, 101)).await;
    top_ups.send(voucher(1, 90)).await;
    let (tokens, last) = lines.rest().await;
    assert_eq!(tokens.len(), 10);
    let sealed = checked(&paid(1, 1, 9), last);
    assert_eq!((sealed.receipt.finish, sealed.receipt.price), (Finish::Eos, Amount(43)));
    assert_eq!(stage.position(id(1)).await.unwrap().voucher, voucher(1, 90));
}

#[tokio::test]
async fn who_never_tops_up_gets_what_is_paid_and_its_receipt() {
    let (stage, _) = staged(20, 100, |payment| payment.voucher_wait_max = SHORT).await;
    let (mut lines, _top_ups) = stage.talk(&paid(1, 1, 9)).await;
    until_due(&mut lines).await;
    let sealed = checked(&paid(1, 1, 9), lines.rest().await.1);
    assert_eq!((sealed.receipt.finish, sealed.receipt.price), (Finish::Cancelled, Amount(13)));
    // Nothing more on credit: the debt is part of the channel's position.
    let spent = Refusal::Voucher { found: Amount(9), expected: Amount(12) };
    assert_eq!(refused(&stage, &paid(2, 1, 9)).await, (402, spent));
}

#[tokio::test]
async fn a_body_that_ends_is_not_waited_for() {
    let (stage, _) = stage(20, 100).await;
    let mut lines = stage.submit(&paid(1, 1, 9)).await.unwrap();
    assert_eq!(until_due(&mut lines).await, (5, Amount(103)));
    let sealed = checked(&paid(1, 1, 9), lines.rest().await.1);
    assert_eq!(sealed.receipt.finish, Finish::Cancelled);
}

#[tokio::test]
async fn a_forged_top_up_ends_the_talk() {
    let (stage, _) = stage(20, 100).await;
    let (mut lines, top_ups) = stage.talk(&paid(1, 1, 9)).await;
    until_due(&mut lines).await;
    let mut forged = voucher(1, 50);
    forged.claimable = Amount(51);
    top_ups.send(forged).await;
    let sealed = checked(&paid(1, 1, 9), lines.rest().await.1);
    assert_eq!(sealed.receipt.price, Amount(13));
    assert_eq!(stage.position(id(1)).await.unwrap().voucher, voucher(1, 9));
}

#[tokio::test]
async fn a_payer_who_withdraws_gets_no_more_than_is_safe() {
    let (stage, ledger) = stage(20, 3).await;
    let (mut lines, _top_ups) = stage.talk(&paid(1, 1, 100)).await;
    lines.tokens(3).await;
    ledger.withdraw(id(1), 100);
    let sealed = checked(&paid(1, 1, 100), lines.rest().await.1);
    assert_eq!((sealed.receipt.finish, sealed.receipt.price), (Finish::Cancelled, Amount(9)));
}

#[tokio::test]
async fn a_deposit_that_is_reorganised_away_pays_for_nothing_more() {
    let (stage, ledger) = stage(20, 3).await;
    let (mut lines, _top_ups) = stage.talk(&paid(1, 1, 100)).await;
    lines.tokens(3).await;
    ledger.reorganise(id(1), 0);
    let sealed = checked(&paid(1, 1, 100), lines.rest().await.1);
    assert_eq!(sealed.receipt.finish, Finish::Cancelled);
    let gone = Refusal::Deposit { found: Amount(0), expected: Amount(100) };
    assert_eq!(refused(&stage, &paid(2, 1, 100)).await, (402, gone));
}

#[tokio::test]
async fn a_chain_out_of_reach_stops_new_channels_only() {
    let (stage, ledger) = stage(5, 100).await;
    stage.answer(&paid(1, 1, 20)).await;
    ledger.books(|books| books.unreachable = true);
    let (status, refusal) = refused(&stage, &paid(2, 2, 20)).await;
    assert_eq!((status, matches!(refusal, Refusal::Chain { .. })), (503, true), "{refusal}");
    let (_, last) = stage.answer(&paid(3, 1, 40)).await;
    assert_eq!(checked(&paid(3, 1, 40), last).receipt.channel_after, Amount(26));
}

#[tokio::test]
async fn an_engine_that_breaks_off_charges_nothing() {
    let (stage, _) = stage(5, 100).await;
    stage.script.breaks.store(true, Ordering::SeqCst);
    let (_, last) = stage.answer(&paid(1, 1, 50)).await;
    assert!(matches!(last, Frame::Failed(Refusal::Internal { .. })), "{last:?}");
    stage.script.breaks.store(false, Ordering::SeqCst);
    let (_, last) = stage.answer(&paid(2, 1, 50)).await;
    assert_eq!(checked(&paid(2, 1, 50), last).receipt.channel_before, Amount(0));
}

/// What a failed disk left of an answer stays with the channel that it began on: two channels would make
/// two receipts of one order.
#[tokio::test]
async fn an_order_that_a_full_disk_cut_off_is_not_begun_on_another_channel() {
    let ledger = Ledger::default();
    ledger.deposit(id(1), 500);
    ledger.deposit(id(2), 500);
    let disk = Disk::default();
    let stage = Stage::paid(Script::new(9, 1), disk.open(), Some(payment(&ledger))).await;
    let (mut lines, _top_ups) = stage.talk(&paid(1, 1, 100)).await;
    let mut tokens = 0;
    let last = loop {
        match lines.next().await.unwrap() {
            Frame::Tokens(more) => {
                tokens += more.len();
                // By then a part of it is on disk, and the next part will not be.
                disk.full.store(tokens > 4, Ordering::SeqCst);
                stage.script.pace.add_permits(more.len());
            }
            last => break last,
        }
    };
    assert!(matches!(last, Frame::Failed(Refusal::Storage { .. })), "{last:?}");
    disk.full.store(false, Ordering::SeqCst);

    let (status, refusal) = stage.submit(&paid(1, 2, 100)).await.err().unwrap();
    assert_eq!((status, refusal), (409, Refusal::ChannelBusy { channel: id(1) }));
    stage.script.pace.add_permits(100);
    let (_, last) = stage.answer(&paid(2, 1, 100)).await;
    assert!(matches!(last, Frame::Sealed(_)), "{last:?}");
    let (_, last) = stage.answer(&paid(1, 2, 100)).await;
    let Frame::Sealed(sealed) = last else { panic!("{last:?}") };
    assert_eq!((sealed.receipt.channel, sealed.receipt.finish), (id(1), Finish::Cancelled));
}
