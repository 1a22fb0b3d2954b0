//! What is delivered to buyers who act for others, and what is refused them.

use std::sync::atomic::Ordering;

use assay_protocol::wire::{Frame, Payment as Offered, Refusal, Submission};
use assay_protocol::{
    Address, Amount, B256, ChainId, Channel, Grant, Key, ModelId, SignedGrant, U256,
};
use assay_provider::Payment;

use crate::bank::Ledger;
use crate::paid::{channel, here, paid, payment, top_up};
use crate::script::{CHAIN, Disk, MODEL, Script, Stage, order};

const REGISTRY: Address = Address::repeat_byte(0xc5);
const OTHER: ModelId = ModelId(B256::repeat_byte(0xbb));

/// Keys: 2 is the payer's, 1 the buyer's of `paid`, 3 and 4 are between them.
fn key(byte: u8) -> Key {
    Key::from_bytes([byte; 32]).unwrap()
}

/// A grant of the one to the other, for all that is sold here.
fn grant(issuer: u8, holder: u8, spend: u128) -> Grant {
    Grant {
        registry: REGISTRY,
        issuer: key(issuer).address(),
        holder: key(holder).address(),
        models: vec![MODEL, OTHER],
        asset: Address::ZERO,
        spend: Amount(spend),
        rate: 0,
        from: 0,
        until: u64::MAX,
        parent: B256::ZERO,
        nonce: U256::from(1),
    }
}

/// Links grants and has each signed by who the key of that number is.
fn signed(grants: &[(Grant, u8)]) -> Vec<SignedGrant> {
    let mut parent = B256::ZERO;
    let sign = |(grant, issuer): &(Grant, u8)| {
        let grant = Grant { parent, ..grant.clone() };
        parent = grant.digest(CHAIN);
        grant.sign(CHAIN, &key(*issuer))
    };
    grants.iter().map(sign).collect()
}

/// One grant of the payer to the buyer.
pub(crate) fn one(spend: u128) -> Vec<SignedGrant> {
    signed(&[(grant(2, 1, spend), 2)])
}

/// The payer to 3, 3 to 4, 4 to the buyer.
fn three(spends: [u128; 3]) -> Vec<SignedGrant> {
    let [first, second, third] = spends;
    signed(&[(grant(2, 3, first), 2), (grant(3, 4, second), 3), (grant(4, 1, third), 4)])
}

fn digest(signed: &SignedGrant) -> B256 {
    signed.grant.digest(CHAIN)
}

/// The payer's channel number `salt`, whose vouchers the key `signer` signs.
pub(crate) fn payers(salt: u8, signer: u8) -> Channel {
    let (payer, payer_authorizer) = (key(2).address(), key(signer).address());
    Channel { payer, payer_authorizer, ..channel(salt) }
}

/// The buyer's order `nonce` under these grants, for at most `max_tokens`.
pub(crate) fn under(
    line: &[SignedGrant],
    nonce: u64,
    salt: u8,
    claimable: u128,
    max_tokens: u32,
) -> Submission {
    let mut submission = paid(nonce, salt, claimable);
    let channel = payers(salt, 1);
    let voucher = top_up(&channel, claimable, 1);
    submission.payment = Some(Offered { channel, voucher });
    submission.grants = line.to_vec();
    submission.order.grant = line.last().map(digest).unwrap_or_default();
    submission.order.max_tokens = max_tokens;
    submission.order.max_price = Amount(3 + 2 * u128::from(max_tokens));
    resigned(submission)
}

fn resigned(mut submission: Submission) -> Submission {
    submission.signature = submission.order.sign(CHAIN, &key(1));
    submission
}

pub(crate) fn under_grants(ledger: &Ledger) -> Payment {
    let mut payment = payment(ledger);
    payment.accepts.grants = REGISTRY;
    payment
}

/// A provider whose answers have five tokens and cost 13, `permits` tokens at once, and a chain on which
/// channels 1 to 4 of the payer hold 500.
async fn stage(permits: usize) -> (Stage, Ledger) {
    let ledger = Ledger::default();
    for salt in 1..=4 {
        ledger.deposit(payers(salt, 1).id(&here()), 500);
    }
    let open = Disk::default().open();
    (Stage::paid(Script::new(5, permits), open, Some(under_grants(&ledger))).await, ledger)
}

async fn refused(stage: &Stage, submission: &Submission) -> (u16, Refusal) {
    stage.submit(submission).await.err().expect("a refusal")
}

/// What is said of an order under these grants: bad ones are refused before the chain is asked, and
/// before anything is computed.
async fn check(line: &[SignedGrant], expected: &str) {
    let (stage, ledger) = stage(100).await;
    let (status, refusal) = refused(&stage, &under(line, 1, 1, 100, 10)).await;
    let Refusal::Grant { reason } = &refusal else { panic!("{refusal:?}") };
    assert!(status == 403 && reason.contains(expected), "{status}: {reason}");
    assert_eq!(stage.script.jobs.load(Ordering::SeqCst), 0);
    ledger.books(|books| assert_eq!(books.grants_asked, 0));
}

fn changed(change: impl FnOnce(&mut Grant)) -> Vec<SignedGrant> {
    let mut grant = grant(2, 1, 1000);
    change(&mut grant);
    signed(&[(grant, 2)])
}

#[tokio::test]
async fn an_order_under_grants_is_answered_and_its_payer_pays() {
    let (stage, ledger) = stage(100).await;
    assert_eq!(stage.offers().await.accepts.unwrap().grants, REGISTRY);
    for (nonce, line) in [(1, one(1000)), (2, three([300, 200, 100]))] {
        let submission = under(&line, nonce, 1, 100, 10);
        let receipt = checked_short(&submission, stage.answer(&submission).await.1);
        assert_eq!(receipt, (Amount(13 * (u128::from(nonce) - 1)), Amount(13 * u128::from(nonce))));
    }
    // Used again at once, the chain is not asked again.
    ledger.books(|books| assert_eq!(books.grants_asked, 4));
    let again = under(&one(1000), 3, 1, 100, 10);
    checked_short(&again, stage.answer(&again).await.1);
    ledger.books(|books| assert_eq!(books.grants_asked, 4));
}

/// From where to where the receipt in a last frame moves its channel.
fn checked_short(submission: &Submission, frame: Frame) -> (Amount, Amount) {
    let Frame::Sealed(sealed) = frame else { panic!("expected a receipt, found {frame:?}") };
    assert_eq!(sealed.receipt.order, submission.order.hash(CHAIN));
    (sealed.receipt.channel_before, sealed.receipt.channel_after)
}

#[tokio::test]
async fn vouchers_may_be_any_issuers_and_nobody_elses() {
    let (stage, ledger) = stage(100).await;
    let line = three([300, 200, 100]);
    for (nonce, signer) in [(1, 2), (2, 3), (3, 4)] {
        let channel = payers(9, signer);
        ledger.deposit(channel.id(&here()), 100);
        let mut submission = under(&line, nonce, 9, 50, 10);
        let voucher = top_up(&channel, 50, signer);
        submission.payment = Some(Offered { channel: channel.clone(), voucher });
        checked_short(&submission, stage.answer(&submission).await.1);
        // The buyer's word is not that of the channel's signer.
        let mut forged = under(&line, nonce + 10, 9, 50, 10);
        let voucher = top_up(&channel, 50, 1);
        forged.payment = Some(Offered { channel, voucher });
        let (_, refusal) = refused(&stage, &forged).await;
        assert!(matches!(refusal, Refusal::VoucherSigner { .. }), "{refusal:?}");
    }
    let channel = payers(9, 5);
    let mut submission = under(&line, 20, 9, 50, 10);
    let voucher = top_up(&channel, 50, 5);
    submission.payment = Some(Offered { channel, voucher });
    let (_, refusal) = refused(&stage, &submission).await;
    assert!(refusal.to_string().starts_with("the channel's payer authorizer is"), "{refusal}");
}

#[tokio::test]
async fn a_grant_of_somebody_elses_money_is_refused() {
    let (stage, _) = stage(100).await;
    let mut submission = under(&one(1000), 1, 1, 100, 10);
    let mut channel = payers(1, 1);
    channel.payer = key(7).address();
    let voucher = top_up(&channel, 100, 1);
    submission.payment = Some(Offered { channel, voucher });
    let (status, refusal) = refused(&stage, &submission).await;
    assert!(
        status == 403 && refusal.to_string().starts_with("grant 0: its issuer is"),
        "{refusal}"
    );
}

#[tokio::test]
async fn a_bad_line_is_refused_before_the_chain_is_asked() {
    check(&changed(|grant| grant.until = 1000), "does not allow the order's time").await;
    check(&changed(|grant| grant.from = u64::MAX), "does not allow the order's time").await;
    check(&changed(|grant| grant.models = vec![OTHER]), "does not allow the order's model").await;
    check(&changed(|grant| grant.spend = Amount(22)), "does not allow the order's price").await;
    check(&changed(|grant| grant.asset = OTHER_ASSET), "does not allow the order's asset").await;
    check(&changed(|grant| grant.registry = OTHER_ASSET), "its registry is").await;
    check(&changed(|grant| grant.holder = key(7).address()), "its holder is").await;
    check(&signed(&[(grant(2, 1, 1000), 7)]), "its signer is").await;
    // Signed for another chain, the signature is nobody's here.
    let elsewhere = grant(2, 1, 1000).sign(ChainId(1), &key(2));
    check(&[elsewhere], "its signer is").await;
    check(&three([100, 101, 50]), "its spend goes beyond the grant it stands on").await;
    let four = [(grant(2, 3, 9), 2), (grant(3, 4, 9), 3), (grant(4, 5, 9), 4), (grant(5, 1, 9), 5)];
    check(&signed(&four), "4 grants are shown, expected 1 to 3").await;
}

const OTHER_ASSET: Address = Address::repeat_byte(0xee);

#[tokio::test]
async fn grants_are_named_and_shown_or_neither() {
    let (stage, _) = stage(100).await;
    let said = async |submission: &Submission| {
        let (status, refusal) = refused(&stage, submission).await;
        assert_eq!(status, 403, "{refusal}");
        refusal.to_string()
    };
    let mut unnamed = under(&one(1000), 1, 1, 100, 10);
    unnamed.order.grant = B256::ZERO;
    assert!(said(&resigned(unnamed)).await.starts_with("the order names grant 0x0000"));
    let mut other = under(&one(1000), 1, 1, 100, 10);
    other.grants = one(999);
    assert!(said(&other).await.contains("the last one shown is"));
    let mut hidden = under(&one(1000), 1, 1, 100, 10);
    hidden.grants = Vec::new();
    assert_eq!(said(&hidden).await, "0 grants are shown, expected 1 to 3");
}

#[tokio::test]
async fn a_provider_without_a_registry_or_payment_takes_no_grants() {
    let ledger = Ledger::default();
    let open = Disk::default().open();
    let plain = Stage::paid(Script::new(5, 100), open, Some(payment(&ledger))).await;
    let not_offered = Refusal::NotOffered { what: "grant".into() };
    let submission = under(&one(1000), 1, 1, 100, 10);
    assert_eq!(refused(&plain, &submission).await, (400, not_offered.clone()));
    let mut unnamed = submission.clone();
    unnamed.order.grant = B256::ZERO;
    assert_eq!(refused(&plain, &resigned(unnamed)).await, (400, not_offered.clone()));
    let free = Stage::new(Script::new(5, 100)).await;
    let mut named = order(1);
    named.order.grant = B256::repeat_byte(1);
    assert_eq!(refused(&free, &resigned(named)).await, (400, not_offered));
}

#[tokio::test]
async fn a_grant_that_was_taken_back_is_refused_and_those_below_it() {
    for taken_back in 0..3 {
        let (stage, ledger) = stage(100).await;
        let line = three([300, 200, 100]);
        let gone = &line[taken_back];
        ledger.books(|books| books.revoked.insert((gone.grant.issuer, digest(gone))));
        for nonce in 1..=2 {
            let said = refused(&stage, &under(&line, nonce, 1, 100, 10)).await;
            assert_eq!(said, (403, Refusal::GrantRevoked { grant: digest(gone) }));
        }
        // What was taken back stays so: the chain was asked once about each.
        ledger.books(|books| {
            books.revoked.clear();
            assert_eq!(books.grants_asked, 3);
        });
        let said = refused(&stage, &under(&line, 3, 1, 100, 10)).await;
        assert_eq!(said.1, Refusal::GrantRevoked { grant: digest(gone) });
        assert_eq!(stage.script.jobs.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test]
async fn who_takes_back_anothers_grant_changes_nothing() {
    let (stage, ledger) = stage(100).await;
    let line = one(1000);
    ledger.books(|books| books.revoked.insert((key(7).address(), digest(&line[0]))));
    let submission = under(&line, 1, 1, 100, 10);
    checked_short(&submission, stage.answer(&submission).await.1);
}

#[tokio::test]
async fn a_silent_chain_stops_grants_that_were_never_asked_about() {
    let (stage, ledger) = stage(100).await;
    let first = under(&one(1000), 1, 1, 100, 10);
    checked_short(&first, stage.answer(&first).await.1);
    ledger.books(|books| books.unreachable = true);
    let known = under(&one(1000), 2, 1, 100, 10);
    checked_short(&known, stage.answer(&known).await.1);
    let (status, refusal) = refused(&stage, &under(&one(999), 3, 1, 100, 10)).await;
    assert!(status == 503 && matches!(refusal, Refusal::Chain { .. }), "{refusal}");
}

#[tokio::test]
async fn what_was_bought_under_a_grant_is_taken_off_it() {
    let (stage, _) = stage(100).await;
    // The middle one is the narrowest.
    let line = three([100, 60, 60]);
    for nonce in 1..=3 {
        let submission = under(&line, nonce, 1, 100, 10);
        checked_short(&submission, stage.answer(&submission).await.1);
    }
    let middle = digest(&line[1]);
    let spent = |asked, left| Refusal::GrantSpent { grant: middle, asked, left };
    let said = refused(&stage, &under(&line, 4, 1, 100, 10)).await;
    assert_eq!(said, (403, spent(Amount(23), Amount(60 - 39))));
    // A shorter answer fits, and a sibling under the first has what is left of that.
    let short = under(&line, 5, 1, 100, 9);
    checked_short(&short, stage.answer(&short).await.1);
    let sibling = signed(&[(grant(2, 3, 100), 2), (grant(3, 1, 100), 3)]);
    let said = refused(&stage, &under(&sibling, 6, 1, 100, 23)).await;
    let first =
        Refusal::GrantSpent { grant: digest(&line[0]), asked: Amount(49), left: Amount(48) };
    assert_eq!(said, (403, first));
}

#[tokio::test]
async fn orders_at_once_do_not_overspend() {
    let (stage, _) = stage(0).await;
    let line = one(45);
    let mut running = Vec::new();
    // Each may cost 23, and will cost 13: two do not fit, wherever the first is on its way.
    let (first, second) = (under(&line, 1, 1, 100, 10), under(&line, 2, 2, 100, 10));
    let (first, second) = tokio::join!(stage.submit(&first), stage.submit(&second));
    for taken in [first, second] {
        match taken {
            Ok(lines) => running.push(lines),
            Err((_, refusal)) => {
                let left = Amount(45 - 23);
                let grant = digest(&line[0]);
                assert_eq!(refusal, Refusal::GrantSpent { grant, asked: Amount(23), left });
            }
        }
    }
    assert_eq!(running.len(), 1);
    assert_eq!(refused(&stage, &under(&line, 3, 3, 100, 10)).await.0, 403);
    // What the first did not cost is there again.
    stage.script.pace.add_permits(100);
    for lines in running {
        lines.rest().await;
    }
    let third = under(&line, 4, 3, 100, 10);
    checked_short(&third, stage.answer(&third).await.1);
}

#[tokio::test]
async fn an_answer_that_the_engine_broke_off_costs_its_grant_nothing() {
    let (stage, _) = stage(100).await;
    let line = one(23);
    stage.script.breaks.store(true, Ordering::SeqCst);
    let (_, last) = stage.answer(&under(&line, 1, 1, 100, 10)).await;
    assert!(matches!(last, Frame::Failed(Refusal::Internal { .. })), "{last:?}");
    stage.script.breaks.store(false, Ordering::SeqCst);
    let again = under(&line, 2, 1, 100, 10);
    checked_short(&again, stage.answer(&again).await.1);
}

#[tokio::test]
async fn a_retried_order_is_answered_after_its_grant_was_spent_or_taken_back() {
    let (stage, ledger) = stage(100).await;
    let line = one(23);
    let submission = under(&line, 1, 1, 100, 10);
    let (_, first) = stage.answer(&submission).await;
    ledger.books(|books| books.revoked.insert((line[0].grant.issuer, digest(&line[0]))));
    assert_eq!(stage.answer(&submission).await.1, first);
}

#[tokio::test]
async fn more_orders_than_a_grant_allows_in_a_minute_are_refused() {
    let (stage, _) = stage(100).await;
    let mut slow = grant(3, 1, 500);
    slow.rate = 2;
    let line = signed(&[(grant(2, 3, 500), 2), (slow, 3)]);
    for nonce in 1..=2 {
        let submission = under(&line, nonce, 1, 100, 10);
        checked_short(&submission, stage.answer(&submission).await.1);
    }
    let submission = under(&line, 3, 1, 100, 10);
    let reply = stage.http.post(format!("{}/v1/orders", stage.url)).json(&submission).send().await;
    let reply = reply.unwrap();
    assert_eq!(
        (reply.status().as_u16(), reply.headers()["retry-after"].to_str().unwrap()),
        (429, "1")
    );
    let grant = digest(&line[1]);
    assert_eq!(reply.json::<Refusal>().await.unwrap(), Refusal::GrantRate { grant, rate: 2 });
    // Its parent has no such bound.
    let parent = signed(&[(self::grant(2, 1, 500), 2)]);
    let submission = under(&parent, 4, 1, 100, 10);
    checked_short(&submission, stage.answer(&submission).await.1);
}

#[tokio::test]
async fn what_is_spent_survives_a_restart() {
    let ledger = Ledger::default();
    ledger.deposit(payers(1, 1).id(&here()), 500);
    let (disk, line) = (Disk::default(), one(40));
    let start = async || {
        let payment = under_grants(&ledger);
        Stage::paid(Script::new(5, 100), disk.open(), Some(payment)).await
    };
    let first = start().await;
    let submission = under(&line, 1, 1, 100, 10);
    checked_short(&submission, first.answer(&submission).await.1);
    first.shutdown.cancel();
    first.running.await.unwrap().unwrap();
    let second = start().await;
    let spent =
        Refusal::GrantSpent { grant: digest(&line[0]), asked: Amount(33), left: Amount(27) };
    assert_eq!(refused(&second, &under(&line, 2, 1, 100, 15)).await, (403, spent));
}
