//! A chain keeps what became final, forgets what lost, and is the same after a restart.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::sync::Arc;

use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope, transaction::Recovered};
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256};
use assay_evm::keystore::Signer;
use assay_evm::state::StoreError;
use assay_evm::{
    At, Attributes, BlockError, Built, Chain, ChainError, Executed, Genesis, Options, Parent,
    Refusal, Transaction,
};

const CHAIN_ID: u64 = 7;

fn genesis() -> Genesis {
    let funded: Vec<_> =
        (1..=9).map(|who| (sender(who), U256::from(10).pow(U256::from(20)))).collect();
    Genesis::development(CHAIN_ID, &funded)
}

fn sender(who: u8) -> Address {
    Address::repeat_byte(who)
}

fn open(directory: Option<&Path>) -> Arc<Chain> {
    Chain::open(&genesis(), directory, [], Options::default()).unwrap()
}

fn attributes(parent: &Parent, salt: u8) -> Attributes {
    Attributes {
        timestamp: parent.header.timestamp + 1,
        beneficiary: Address::repeat_byte(0xfe),
        gas_limit: parent.header.gas_limit,
        prev_randao: B256::repeat_byte(salt),
        parent_beacon_root: B256::ZERO,
        extra_data: Bytes::new(),
    }
}

fn draft(nonce: u64, gas_limit: u64) -> TxEip1559 {
    TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit,
        max_fee_per_gas: 10_000_000_000,
        max_priority_fee_per_gas: 1,
        to: TxKind::Call(Address::repeat_byte(0x77)),
        value: U256::from(1),
        ..TxEip1559::default()
    }
}

/// One whose signature nobody checks, since senders come recovered.
fn transfer(who: u8, nonce: u64, gas_limit: u64) -> Transaction {
    let signed = draft(nonce, gas_limit).into_signed(Signature::test_signature());
    Recovered::new_unchecked(TxEnvelope::Eip1559(signed), sender(who))
}

fn build(chain: &Chain, parent: &Parent, salt: u8, candidates: Vec<Transaction>) -> Built {
    chain.executor().build(parent, &attributes(parent, salt), candidates, || false).unwrap()
}

fn next(chain: &Chain, parent: &Parent, salt: u8) -> Executed {
    let nonce = parent.state.account(&sender(1)).map_or(0, |account| account.nonce);
    build(chain, parent, salt, vec![transfer(1, nonce, 21_000)]).executed
}

fn grow(chain: &Chain, blocks: u64) {
    for _ in 0..blocks {
        chain.append(next(chain, &chain.head(), 0)).unwrap();
    }
}

#[test]
fn what_one_builds_another_finds_valid() {
    let (one, other) = (open(None), open(None));
    for _ in 0..3 {
        let built = next(&one, &one.head(), 0);
        let judged = other.executor().validate(&other.head(), (*built.block).clone()).unwrap();
        assert_eq!(judged.receipts, built.receipts);
        assert_eq!(judged.changes, built.changes);
        one.append(built).unwrap();
        other.append(judged).unwrap();
    }
    assert_eq!(one.head().header, other.head().header);
}

#[test]
fn a_restart_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let chain = open(Some(directory.path()));
    grow(&chain, 5);
    let head = chain.head();
    let block = chain.block(At::Number(3)).unwrap().unwrap();
    let receipts = chain.receipts(At::Number(3)).unwrap().unwrap();
    drop(chain);

    let chain = open(Some(directory.path()));
    assert_eq!(chain.head().header, head.header);
    assert_eq!(chain.head().state.root(), head.state.root());
    assert_eq!(chain.block(At::Number(3)).unwrap().unwrap(), block, "senders included");
    assert_eq!(chain.receipts(At::Number(3)).unwrap().unwrap(), receipts, "bloom included");
    let hash = *block.transactions[0].inner().tx_hash();
    assert_eq!(chain.transaction(&hash).unwrap(), Some((block, 0)));
    for number in 0..=5 {
        let parent = chain.parent(At::Number(number)).unwrap();
        assert_eq!(parent.state.root(), parent.header.state_root, "block {number}");
    }
    // A child of a reopened head sees the same hashes as it would have before.
    assert_eq!(next(&chain, &chain.head(), 0).block.header, next(&chain, &head, 0).block.header);
}

#[test]
fn another_genesis_in_the_directory_is_refused_with_both_hashes() {
    let directory = tempfile::tempdir().unwrap();
    let ours = open(Some(directory.path())).genesis_hash();
    let theirs = Genesis::development(CHAIN_ID + 1, &[]);
    let error = Chain::open(&theirs, Some(directory.path()), [], Options::default()).unwrap_err();
    let ChainError::Genesis { found, expected } = error else { panic!("{error}") };
    assert_eq!(found, ours);
    assert_ne!(expected, ours);
}

#[test]
fn two_chains_on_one_directory_are_one_too_many() {
    let directory = tempfile::tempdir().unwrap();
    let _first = open(Some(directory.path()));
    let error = Chain::open(&genesis(), Some(directory.path()), [], Options::default());
    assert!(matches!(error, Err(ChainError::Store(StoreError::InUse { .. }))));
}

#[test]
fn losers_are_dropped_and_their_descendants_with_them() {
    let chain = open(None);
    let root = chain.head();
    let winner = next(&chain, &root, 1);
    let loser = next(&chain, &root, 2);
    let nephew = next(&chain, &root.child(&loser), 3);
    let child = next(&chain, &root.child(&winner), 4);
    let [winner_hash, loser_hash, nephew_hash, child_hash] =
        [&winner, &loser, &nephew, &child].map(|executed| executed.block.hash());
    for executed in [winner, loser, nephew, child] {
        chain.insert(executed).unwrap();
    }
    assert!(chain.parent(nephew_hash).is_ok());
    chain.finalize(&[winner_hash]).unwrap();
    assert!(matches!(chain.parent(loser_hash), Err(ChainError::Unknown(_))));
    assert!(matches!(chain.parent(nephew_hash), Err(ChainError::Unknown(_))));
    assert!(chain.parent(child_hash).is_ok());
    chain.finalize(&[winner_hash, child_hash]).unwrap();
    assert_eq!(chain.head().header.hash(), child_hash);
}

#[test]
fn only_a_line_from_the_head_becomes_final() {
    let chain = open(None);
    let root = chain.head();
    let first = next(&chain, &root, 1);
    let second = next(&chain, &root.child(&first), 2);
    let hashes = [first.block.hash(), second.block.hash()];
    assert!(matches!(chain.insert(second.clone()), Err(ChainError::Unknown(_))), "no parent");
    chain.insert(first).unwrap();
    chain.insert(second).unwrap();
    assert!(matches!(chain.finalize(&hashes[1..]), Err(ChainError::Fork { .. })));
    assert!(matches!(chain.finalize(&[B256::ZERO]), Err(ChainError::Unknown(_))));
    assert_eq!(chain.head().header.number, 0);
    chain.finalize(&hashes).unwrap();
    assert_eq!(chain.head().header.number, 2);
}

#[test]
fn unfinalised_blocks_are_bounded() {
    let options = Options { unfinalised: 2, ..Options::default() };
    let chain = Chain::open(&genesis(), None, [], options).unwrap();
    let root = chain.head();
    for salt in 0..2 {
        chain.insert(next(&chain, &root, salt)).unwrap();
    }
    assert!(matches!(chain.insert(next(&chain, &root, 2)), Err(ChainError::Full { most: 2 })));
    chain.insert(next(&chain, &root, 1)).unwrap();
}

#[test]
fn states_that_left_memory_are_rebuilt_until_they_are_pruned() {
    let store = assay_evm::state::StoreOptions { history: 10, ..Default::default() };
    let options = Options { states: 3, transactions: 2, store, ..Options::default() };
    let directory = tempfile::tempdir().unwrap();
    let chain = Chain::open(&genesis(), Some(directory.path()), [], options).unwrap();
    let mut roots = vec![chain.head().header.state_root];
    for _ in 0..20 {
        grow(&chain, 1);
        roots.push(chain.head().state.root());
    }
    for number in (10..=20).chain([12, 19]) {
        assert_eq!(chain.state(number as u64).unwrap().root(), roots[number], "block {number}");
    }
    let error = chain.state(9).err().unwrap();
    assert!(matches!(error, ChainError::Pruned { oldest: 10, .. }), "{error}");
    assert!(matches!(chain.state(21), Err(ChainError::Unknown(_))));
    assert_eq!(chain.block(1).unwrap().unwrap().transactions.len(), 1);
}

#[test]
fn a_rewound_chain_is_the_chain_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { states: 2, ..Options::default() };
    let chain = Chain::open(&genesis(), Some(directory.path()), [], options).unwrap();
    grow(&chain, 3);
    let there = chain.head();
    grow(&chain, 6);
    chain.rewind(3).unwrap();
    assert_eq!(chain.head().header, there.header);
    assert!(chain.block(4).unwrap().is_none());
    assert!(chain.rewind(4).is_err());
    grow(&chain, 2);
    drop(chain);
    assert_eq!(open(Some(directory.path())).head().header.number, 5);
}

#[test]
fn subscribers_hear_every_final_block_in_order() {
    let chain = open(None);
    let mut heard = chain.subscribe();
    grow(&chain, 3);
    for number in 1..=3 {
        assert_eq!(heard.try_recv().unwrap().block.number(), number);
    }
    assert!(heard.try_recv().is_err());
}

#[test]
fn a_full_block_leaves_the_rest_and_says_nothing_against_it() {
    let chain = open(None);
    let parent = chain.head();
    let mut small = (*parent).clone();
    let mut header = small.header.inner().clone();
    header.gas_limit = 50_000;
    small.header = alloy_primitives::Sealable::seal_slow(header);
    let candidates = vec![
        transfer(1, 0, 21_000),
        transfer(2, 0, 40_000),
        // Follows one that found no room.
        transfer(2, 1, 21_000),
        transfer(3, 5, 21_000),
        transfer(4, 0, 21_000),
    ];
    let attributes = Attributes { gas_limit: 50_000, ..attributes(&small, 0) };
    let built = chain.executor().build(&small, &attributes, candidates, || false).unwrap();
    let senders: Vec<_> =
        built.executed.block.transactions.iter().map(|transaction| transaction.signer()).collect();
    assert_eq!(senders, [sender(1), sender(4)]);
    let [(_, Refusal::Invalid(reason))] = built.refused.as_slice() else {
        panic!("{:?}", built.refused)
    };
    assert_eq!(reason.to_string(), "nonce 5 too high, expected 0");
}

#[test]
fn a_time_that_goes_back_builds_nothing() {
    let chain = open(None);
    let genesis = chain.head();
    let first = Attributes { timestamp: 10, ..attributes(&genesis, 0) };
    chain.append(chain.executor().build(&genesis, &first, [], || false).unwrap().executed).unwrap();
    let parent = chain.head();
    let same = Attributes { timestamp: 10, ..attributes(&parent, 0) };
    assert!(chain.executor().build(&parent, &same, [], || false).is_ok());
    let back = Attributes { timestamp: 9, ..same };
    let error = chain.executor().build(&parent, &back, [], || false).unwrap_err();
    let expected = BlockError::Timestamp { found: 9, parent: 10 };
    assert_eq!(error, assay_evm::BuildError::Attributes(expected));
}

#[test]
fn a_snapshot_brings_the_newest_block_whole() {
    let signer = Signer::from_bytes([1; 32]).unwrap();
    let genesis =
        Genesis::development(CHAIN_ID, &[(signer.address(), U256::from(10).pow(U256::from(20)))]);
    let open = |directory: Option<&Path>| {
        Chain::open(&genesis, directory, [], Options::default()).unwrap()
    };
    let chain = open(None);
    let add = |transaction| {
        let signed = Recovered::new_unchecked(transaction, signer.address());
        chain.append(build(&chain, &chain.head(), 0, vec![signed]).executed).unwrap();
        let mut snapshot = Vec::new();
        chain.store().export(&mut snapshot, &mut |_| ()).unwrap();
        snapshot
    };
    let restore = |snapshot: &[u8], directory: &Path| {
        let options = Options::default().store;
        Chain::restore(directory, &options, &mut &*snapshot, None, &mut |_| ()).map(drop)
    };

    add(signer.sign_transaction(draft(0, 21_000)));
    let transaction = signer.sign_transaction(draft(1, 21_000));
    let hash = *transaction.tx_hash();
    let directory = tempfile::tempdir().unwrap();
    restore(&add(transaction), directory.path()).unwrap();
    let copy = open(Some(directory.path()));
    let head = At::Number(2);
    assert_eq!(copy.block(head).unwrap(), chain.block(head).unwrap());
    assert_eq!(copy.receipts(head).unwrap(), chain.receipts(head).unwrap());
    assert_eq!(copy.transaction(&hash).unwrap(), chain.transaction(&hash).unwrap());
    assert!(copy.block(At::Number(1)).unwrap().is_none());

    let unsigned = draft(2, 21_000).into_signed(Signature::test_signature());
    let directory = tempfile::tempdir().unwrap();
    let refused = restore(&add(unsigned.into()), directory.path());
    assert!(matches!(refused, Err(StoreError::Snapshot { .. })), "{refused:?}");
}
