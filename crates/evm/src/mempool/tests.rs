//! The pool under random traffic, and one test for each way of being refused.

use std::collections::HashMap;

use alloy_consensus::{SignableTransaction, Signed, Transaction as _, TxEip1559, TxLegacy};
use alloy_eips::Encodable2718;
use alloy_primitives::{Signature, TxKind, address, keccak256};
use proptest::prelude::*;
use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use secp256k1::{Message, PublicKey, SecretKey};

use super::*;

const CHAIN: u64 = 31_337;
const GAS: u64 = 21_000;

/// Accounts as a test says they are.
#[derive(Clone, Default)]
struct Ledger(HashMap<Address, Standing>);

impl Accounts for Ledger {
    fn standing(&self, address: &Address) -> Standing {
        let nobody = Standing { nonce: 0, balance: U256::ZERO, signs: true };
        self.0.get(address).copied().unwrap_or(nobody)
    }
}

fn sender(number: u8) -> Address {
    Address::repeat_byte(number + 1)
}

fn ledger(balance: u128) -> Ledger {
    let standing = Standing { nonce: 0, balance: U256::from(balance), signs: true };
    Ledger((0..8).map(|number| (sender(number), standing)).collect())
}

fn head(ledger: &Ledger) -> Head {
    Head {
        accounts: Arc::new(ledger.clone()),
        base_fee: 10,
        gas_limit: 30_000_000,
        spec: SpecId::OSAKA,
    }
}

fn pool(limits: Limits, ledger: &Ledger) -> Arc<Mempool> {
    Mempool::new(CHAIN, limits, head(ledger))
}

fn draft(nonce: u64, fee: u128, tip: u128) -> TxEip1559 {
    TxEip1559 {
        chain_id: CHAIN,
        nonce,
        gas_limit: GAS,
        max_fee_per_gas: fee,
        max_priority_fee_per_gas: tip,
        to: TxKind::Call(Address::ZERO),
        ..Default::default()
    }
}

/// A transaction with a signature that nobody looks at. Equal drafts of two senders differ in it.
fn from(sender: Address, draft: impl Into<Draft>) -> Transaction {
    let signature = Signature::new(U256::from_be_slice(sender.as_slice()), U256::from(1), false);
    Transaction::new_unchecked(draft.into().0(signature), sender)
}

/// Any kind of transaction, waiting for its signature.
struct Draft(Box<dyn FnOnce(Signature) -> Envelope>);

impl<T> From<T> for Draft
where
    T: SignableTransaction<Signature> + 'static,
    Envelope: From<Signed<T>>,
{
    fn from(draft: T) -> Self {
        Self(Box::new(|signature| draft.into_signed(signature).into()))
    }
}

fn order(mempool: &Arc<Mempool>, base_fee: u64) -> Vec<(Address, u64)> {
    mempool.best(base_fee).map(|transaction| (transaction.signer(), transaction.nonce())).collect()
}

#[test]
fn a_higher_tip_goes_first_and_nonces_stay_in_order() {
    let mempool = pool(Limits::default(), &ledger(u128::MAX));
    let (ada, bob) = (sender(0), sender(1));
    mempool.add(from(ada, draft(0, 100, 1))).unwrap();
    mempool.add(from(ada, draft(1, 100, 50))).unwrap();
    mempool.add(from(bob, draft(0, 100, 2))).unwrap();
    mempool.add(from(bob, draft(1, 100, 1))).unwrap();
    assert_eq!(order(&mempool, 10), [(bob, 0), (ada, 0), (ada, 1), (bob, 1)]);
}

#[test]
fn who_pays_less_than_the_base_fee_waits_and_holds_back_what_follows() {
    let mempool = pool(Limits::default(), &ledger(u128::MAX));
    mempool.add(from(sender(0), draft(0, 20, 1))).unwrap();
    mempool.add(from(sender(0), draft(1, 90, 1))).unwrap();
    assert!(mempool.has_ready(20) && !mempool.has_ready(21));
    assert_eq!(order(&mempool, 21), []);
    assert_eq!(order(&mempool, 20).len(), 2);
}

#[test]
fn a_hole_is_waited_for() {
    let mempool = pool(Limits::default(), &ledger(u128::MAX));
    let mut news = mempool.subscribe();
    let second = mempool.add(from(sender(0), draft(1, 100, 1))).unwrap();
    assert_eq!(mempool.status(), Status { pending: 0, queued: 1, bytes: mempool.status().bytes });
    assert_eq!((mempool.next_nonce(&sender(0)), order(&mempool, 10)), (0, vec![]));
    let first = mempool.add(from(sender(0), draft(0, 100, 1))).unwrap();
    assert_eq!(mempool.next_nonce(&sender(0)), 2);
    assert_eq!(order(&mempool, 10).len(), 2);
    let announced = [news.try_recv().unwrap(), news.try_recv().unwrap()];
    assert_eq!(announced, [first, second]);
}

#[test]
fn a_replacement_pays_a_tenth_more_of_both() {
    let mempool = pool(Limits::default(), &ledger(u128::MAX));
    let first = mempool.add(from(sender(0), draft(0, 100, 11))).unwrap();
    let needed = (110, 13);
    for (fee, tip) in [(101, 12), (109, 99), (200, 12)] {
        let refused = mempool.add(from(sender(0), draft(0, fee, tip))).unwrap_err();
        let (fee_needed, tip_needed) = needed;
        assert_eq!(refused, Refused::Underpriced { fee, tip, fee_needed, tip_needed });
    }
    let second = mempool.add(from(sender(0), draft(0, 110, 13))).unwrap();
    assert!(!mempool.contains(&first) && mempool.contains(&second));
    assert_eq!(mempool.status().pending, 1);
}

#[test]
fn what_waits_can_be_paid_together() {
    let each = u128::from(GAS) * 100;
    let mempool = pool(Limits::default(), &ledger(2 * each));
    mempool.add(from(sender(0), draft(0, 100, 1))).unwrap();
    mempool.add(from(sender(0), draft(1, 100, 1))).unwrap();
    let refused = mempool.add(from(sender(0), draft(2, 100, 1))).unwrap_err();
    let (balance, cost) = (U256::from(2 * each), U256::from(each));
    assert_eq!(refused, Refused::Funds { balance, cost, waiting: balance });
}

#[test]
fn a_poorer_account_loses_its_last_transactions() {
    let each = u128::from(GAS) * 100;
    let mempool = pool(Limits::default(), &ledger(3 * each));
    for nonce in 0..3 {
        mempool.add(from(sender(0), draft(nonce, 100, 1))).unwrap();
    }
    mempool.advance(head(&ledger(2 * each)), [sender(0)]);
    assert_eq!(order(&mempool, 10), [(sender(0), 0), (sender(0), 1)]);
    mempool.lock().audit();
}

#[test]
fn a_full_pool_keeps_those_who_pay_more() {
    let limits = Limits { count: 2, ..Limits::default() };
    let mempool = pool(limits, &ledger(u128::MAX));
    mempool.add(from(sender(0), draft(0, 50, 1))).unwrap();
    mempool.add(from(sender(1), draft(0, 60, 1))).unwrap();
    let refused = mempool.add(from(sender(2), draft(0, 50, 1))).unwrap_err();
    assert!(matches!(refused, Refused::Full { count: 2, .. }), "{refused}");
    mempool.add(from(sender(2), draft(0, 55, 1))).unwrap();
    assert_eq!(mempool.content().into_keys().collect::<Vec<_>>(), [sender(1), sender(2)]);
    mempool.lock().audit();
}

#[test]
fn a_flood_of_holes_pushes_out_nothing_that_can_be_executed() {
    let limits = Limits { count: 64, gapped_count: 16, ..Limits::default() };
    let mempool = pool(limits, &ledger(u128::MAX));
    for nonce in 0..40 {
        mempool.add(from(sender(0), draft(nonce, 20, 1))).unwrap();
    }
    for nonce in 2..1000 {
        let _ = mempool.add(from(sender(1), draft(nonce, 1_000_000, 1)));
    }
    assert_eq!((mempool.status().pending, mempool.status().queued), (40, 16));
    mempool.lock().audit();
}

#[test]
fn what_no_block_could_hold_is_refused() {
    let mempool = pool(Limits::default(), &ledger(u128::MAX));
    let refused = |change: fn(&mut TxEip1559)| {
        let mut draft = draft(0, 100, 1);
        change(&mut draft);
        mempool.add(from(sender(0), draft)).unwrap_err()
    };
    let found = 20_999;
    assert_eq!(refused(|tx| tx.gas_limit = 20_999), Refused::IntrinsicGas { found, needed: GAS });
    // 100 bytes that are not zero: 21,000 + 100 × 40 by EIP-7623, more than 100 × 16.
    let needed = refused(|tx| tx.input = vec![1; 100].into());
    assert_eq!(needed, Refused::IntrinsicGas { found: GAS, needed: 25_000 });
    let most = 1 << 24;
    let found = most + 1;
    assert_eq!(refused(|tx| tx.gas_limit = (1 << 24) + 1), Refused::GasCap { found, most });
    assert_eq!(refused(|tx| tx.chain_id = 1), Refused::Chain { found: 1, expected: CHAIN });
    let tip = refused(|tx| tx.max_priority_fee_per_gas = 101);
    assert_eq!(tip, Refused::TipAboveFee { tip: 101, fee: 100 });
    assert_eq!(refused(|tx| tx.nonce = u64::MAX), Refused::NonceMax { found: u64::MAX });
    let far = refused(|tx| tx.nonce = 16_385);
    assert_eq!(far, Refused::NonceTooHigh { found: 16_385, expected: 0, most: 16_384 });
    let large = refused(|tx| tx.input = vec![0; 200_000].into());
    assert!(matches!(large, Refused::Size { most: 131_072, .. }), "{large}");
    let create = refused(|tx| {
        (tx.to, tx.gas_limit) = (TxKind::Create, 10_000_000);
        tx.input = vec![0; 49_153].into();
    });
    assert_eq!(create, Refused::InitCode { found: 49_153, most: 49_152 });
    let dear = refused(|tx| tx.value = U256::MAX);
    assert!(matches!(dear, Refused::Funds { cost: U256::MAX, .. }), "{dear}");
    assert_eq!(mempool.status(), Status::default());
}

#[test]
fn contracts_sign_nothing() {
    let mut ledger = ledger(u128::MAX);
    ledger.0.insert(sender(0), Standing { nonce: 1, balance: U256::MAX, signs: false });
    let refused = pool(Limits::default(), &ledger).add(from(sender(0), draft(1, 100, 1)));
    assert_eq!(refused, Err(Refused::SenderHasCode { sender: sender(0) }));
}

/// A transaction as a wallet would sign it, and who signed it.
fn signed(secret: u8, nonce: u64) -> (Bytes, Address) {
    let secret = SecretKey::from_secret_bytes([secret; 32]).unwrap();
    let public = PublicKey::from_secret_key(&secret).serialize_uncompressed();
    let draft = TxLegacy {
        chain_id: Some(CHAIN),
        nonce,
        gas_price: 100,
        gas_limit: GAS,
        to: TxKind::Call(address!("0x00000000000000000000000000000000000000ff")),
        ..Default::default()
    };
    let digest = Message::from_digest(draft.signature_hash().0);
    let signed = RecoverableSignature::sign_ecdsa_recoverable(digest, &secret);
    let (id, bytes) = signed.serialize_compact();
    let signature = Signature::from_bytes_and_parity(&bytes, id == RecoveryId::One);
    let envelope = Envelope::from(draft.into_signed(signature));
    (envelope.encoded_2718().into(), Address::from_slice(&keccak256(&public[1..])[12..]))
}

#[test]
fn encoded_transactions_are_recovered_one_by_one_and_many_at_once() {
    let senders: Vec<_> = (1..=20).map(|secret| signed(secret, 0)).collect();
    let standing = Standing { nonce: 0, balance: U256::from(u64::MAX), signs: true };
    let ledger = Ledger(senders.iter().map(|(_, address)| (*address, standing)).collect());
    let mempool = pool(Limits::default(), &ledger);

    let hash = mempool.add_raw(&senders[0].0).unwrap();
    assert_eq!(mempool.get(&hash).unwrap().signer(), senders[0].1);

    let mut raw: Vec<_> = senders.iter().map(|(raw, _)| raw.clone()).collect();
    raw.push(vec![0xc0].into());
    let answers = mempool.add_many(&raw);
    assert_eq!(answers[0], Err(Refused::Known { hash }));
    assert!(answers[1..20].iter().all(Result::is_ok));
    assert!(matches!(answers[20], Err(Refused::Malformed { .. })));
    assert_eq!(mempool.status().pending, 20);
}

#[test]
fn no_bytes_make_it_panic() {
    let mempool = pool(Limits::default(), &ledger(u128::MAX));
    let (good, _) = signed(1, 0);
    for cut in 0..good.len() {
        mempool.add_raw(&good[..cut]).unwrap_err();
        let mut flipped = good.to_vec();
        flipped[cut] ^= 0x55;
        let _ = mempool.add_raw(&flipped);
    }
    let mut longer = good.to_vec();
    longer.push(0);
    assert!(matches!(mempool.add_raw(&longer), Err(Refused::Malformed { .. })));
    for kind in 0..=8 {
        let _ = mempool.add_raw(&[kind, 0xc0]);
        let _ = mempool.add_raw(&[kind, 0xf8, 0xff]);
    }
}

/// A pool with a journal in `folder`, whose first twenty secrets own something.
fn kept(folder: &tempfile::TempDir) -> Arc<Mempool> {
    let standing = Standing { nonce: 0, balance: U256::from(u64::MAX), signs: true };
    let ledger = Ledger((1..=20).map(|secret| (signed(secret, 0).1, standing)).collect());
    let path = folder.path().join("waiting");
    Mempool::open(CHAIN, Limits::default(), head(&ledger), &path).unwrap()
}

#[test]
fn what_was_acknowledged_is_on_disk_even_if_the_disk_was_full_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let mempool = kept(&folder);
    let journal = || mempool.journal.as_ref().unwrap().lock().unwrap();
    let before = mempool.add_raw(&signed(1, 0).0).unwrap();
    journal().full = true;
    let refused: Vec<_> = (2..=4).map(|secret| mempool.add_raw(&signed(secret, 0).0)).collect();
    let many: Vec<_> = (2..=14).map(|secret| signed(secret, 0).0).collect();
    let refused = refused.into_iter().chain(mempool.add_many(&many));
    for refused in refused {
        assert!(refused.as_ref().unwrap_err().to_string().contains("disk is full"), "{refused:?}");
    }
    assert_eq!(mempool.status().pending, 2, "only the first was let in before it was known");
    journal().full = false;
    let after = mempool.add_raw(&signed(20, 0).0).unwrap();
    assert_eq!(mempool.status().pending, 3);
    let again = kept(&folder);
    assert!(again.contains(&before) && again.contains(&after));
    assert_eq!(again.status().pending, 3, "what waited in memory alone is on disk again");
}

#[test]
fn what_is_signed_here_is_kept_as_well_but_not_what_nobody_signed() {
    let folder = tempfile::tempdir().unwrap();
    let mempool = kept(&folder);
    let (raw, sender) = signed(1, 0);
    let envelope = admit::decode(&raw, &Limits::default()).unwrap();
    let real = mempool.add(Transaction::new_unchecked(envelope, sender)).unwrap();
    let somebody = signed(2, 0).1;
    mempool.add(from(somebody, draft(0, 100, 1))).unwrap();
    assert_eq!(mempool.status().pending, 2);
    let again = kept(&folder);
    assert!(again.contains(&real));
    assert_eq!(again.status().pending, 1);
}

/// Something that happens to a pool.
#[derive(Clone, Debug)]
enum Event {
    Add { sender: u8, nonce: u64, fee: u128, tip: u128, length: usize },
    Mine { base_fee: u64, count: usize },
    Rewind { sender: u8, by: u64 },
    Pay { sender: u8, balance: u64 },
    Refuse { sender: u8, nth: usize },
}

fn event() -> impl Strategy<Value = Event> {
    let add = (0..8_u8, 0..12_u64, 1..200_u128, 0..100_u128, 0..40_usize).prop_map(
        |(sender, nonce, fee, tip, length)| Event::Add {
            sender,
            nonce,
            fee,
            tip: tip.min(fee),
            length,
        },
    );
    prop_oneof![
        20 => add,
        2 => (0..150_u64, 0..10_usize).prop_map(|(base_fee, count)| Event::Mine { base_fee, count }),
        1 => (0..8_u8, 0..5_u64).prop_map(|(sender, by)| Event::Rewind { sender, by }),
        1 => (0..8_u8, 0..60_000_000_u64)
            .prop_map(|(sender, balance)| Event::Pay { sender, balance }),
        1 => (0..8_u8, 0..4_usize).prop_map(|(sender, nth)| Event::Refuse { sender, nth }),
    ]
}

/// What goes into a block without limits: of each sender, what comes before the first hole and the
/// first offer below the base fee.
fn servable(mempool: &Mempool, base_fee: u64) -> Vec<(Address, u64)> {
    let content = mempool.content();
    let servable = content.iter().flat_map(|(sender, content)| {
        let pays = |waiting: &&Arc<Transaction>| waiting.effective_tip_per_gas(base_fee).is_some();
        content.pending.iter().take_while(pays).map(|waiting| (*sender, waiting.nonce()))
    });
    servable.collect()
}

/// Checks that `mempool` yields all that can go into a block, no hole, and never a lower tip before a
/// higher one that could have come first.
fn check_order(mempool: &Arc<Mempool>, ledger: &Ledger, base_fee: u64) {
    let found: Vec<_> = mempool.best(base_fee).collect();
    let mut next: HashMap<Address, u64> = HashMap::new();
    for (at, transaction) in found.iter().enumerate() {
        let sender = transaction.signer();
        let nonce = next.entry(sender).or_insert_with(|| ledger.standing(&sender).nonce);
        assert_eq!(transaction.nonce(), *nonce, "a hole before {transaction:?}");
        *nonce += 1;
        let tip = transaction.effective_tip_per_gas(base_fee).unwrap();
        let mut seen = vec![sender];
        for later in &found[at + 1..] {
            if !seen.contains(&later.signer()) {
                // The first that its sender has left: it could have stood here.
                seen.push(later.signer());
                assert!(later.effective_tip_per_gas(base_fee).unwrap() <= tip);
            }
        }
    }
    let mut found: Vec<_> = found.iter().map(|tx| (tx.signer(), tx.nonce())).collect();
    found.sort();
    assert_eq!(found, servable(mempool, base_fee));
}

fn happen(event: Event, mempool: &Arc<Mempool>, ledger: &mut Ledger) {
    match event {
        Event::Add { sender: number, nonce, fee, tip, length } => {
            let mut draft = draft(nonce, fee, tip);
            draft.input = vec![0; length].into();
            draft.gas_limit = 30_000;
            let _ = mempool.add(from(sender(number), draft));
        }
        Event::Mine { base_fee, count } => {
            let mined: Vec<_> = mempool.best(base_fee).take(count).collect();
            let mut touched = Vec::new();
            for transaction in &mined {
                let standing = ledger.0.get_mut(&transaction.signer()).unwrap();
                standing.nonce = transaction.nonce() + 1;
                let price = u64::try_from(transaction.effective_gas_price(Some(base_fee))).unwrap();
                standing.balance -= U256::from(price * GAS);
                touched.push(transaction.signer());
            }
            mempool.advance(head(ledger), touched);
        }
        Event::Rewind { sender: number, by } => {
            let standing = ledger.0.get_mut(&sender(number)).unwrap();
            standing.nonce = standing.nonce.saturating_sub(by);
            mempool.reset(head(ledger));
        }
        Event::Pay { sender: number, balance } => {
            ledger.0.get_mut(&sender(number)).unwrap().balance = U256::from(balance);
            mempool.advance(head(ledger), [sender(number)]);
        }
        Event::Refuse { sender: number, nth } => {
            let content = mempool.content_of(&sender(number));
            if let Some(transaction) = content.pending.get(nth) {
                mempool.drop_all([transaction.tx_hash()]);
                assert_eq!(mempool.content_of(&sender(number)).pending.len(), nth);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens, the books agree, the limits hold and the order is right.
    #[test]
    fn the_pool_stays_whole(events in proptest::collection::vec(event(), 1..150)) {
        let mut ledger = ledger(50_000_000);
        let limits = Limits {
            count: 24,
            bytes: 2_500,
            sender_count: 6,
            gapped_count: 8,
            nonce_gap: 10,
            ..Limits::default()
        };
        let mempool = pool(limits, &ledger);
        for event in events {
            happen(event, &mempool, &mut ledger);
            mempool.lock().audit();
            check_order(&mempool, &ledger, 20);
        }
    }
}
