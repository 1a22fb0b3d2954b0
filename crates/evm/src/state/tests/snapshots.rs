//! Snapshots: a state travels, and a bad one leaves nothing behind.

use std::fs;
use std::path::Path;

use alloy_consensus::{Header, Sealed};
use alloy_primitives::{B256, Keccak256, keccak256};

use super::super::{FILE, Store, StoreError, StoreOptions};
use super::{Block, Dice, chain, commits};

const TRANSACTION: B256 = B256::repeat_byte(7);

fn export(blocks: &[Block]) -> Vec<u8> {
    let store = Store::memory();
    store.commit(&commits(blocks)).unwrap();
    let mut bytes = Vec::new();
    let header = store.export(&mut bytes, &mut |_| ()).unwrap();
    assert_eq!(header.hash(), blocks.last().unwrap().hash);
    bytes
}

fn import(to: &Path, bytes: &[u8], trusted: Option<B256>) -> Result<Store, StoreError> {
    Store::import(to, &StoreOptions::default(), &mut &*bytes, trusted, &judge, &mut |_| ())
}

/// What is in a block is not the store's to know.
fn judge(_: &Sealed<Header>, _: &[u8], _: &[u8]) -> Result<Vec<B256>, StoreError> {
    Ok(vec![TRANSACTION])
}

#[test]
fn a_state_travels() {
    let blocks: Vec<_> = chain(20).take(300).collect();
    let bytes = export(&blocks[..280]);
    let directory = tempfile::tempdir().unwrap();
    let store = import(directory.path(), &bytes, Some(blocks[279].hash)).unwrap();
    assert_eq!(store.head(), Some((279, blocks[279].hash)));
    assert_eq!(store.genesis().unwrap(), Some(blocks[0].hash));
    assert_eq!(store.load().unwrap().root(), blocks[279].state.root());
    assert!(store.header(24).unwrap().is_some());
    assert!(store.header(23).unwrap().is_none());
    assert_eq!(store.oldest_state().unwrap(), 279);
    assert_eq!(store.body(279).unwrap().unwrap(), blocks[279].body);
    assert_eq!(&store.receipts(279).unwrap().unwrap()[..], b"receipts");
    assert_eq!(store.transaction(&TRANSACTION).unwrap(), Some((279, 0)));
    store.commit(&commits(&blocks[280..])).unwrap();
    assert_eq!(store.load().unwrap().root(), blocks[299].state.root());
    let mut again = Vec::new();
    store.rewind(279).unwrap();
    store.export(&mut again, &mut |_| ()).unwrap();
    assert_eq!(again, bytes);
    drop(store);
    let exists = import(directory.path(), &bytes, None);
    assert!(matches!(exists, Err(StoreError::Exists { .. })));
    Store::open(directory.path(), &StoreOptions::default()).unwrap();
}

#[test]
fn another_block_than_the_trusted_one_is_refused() {
    let blocks: Vec<_> = chain(21).take(5).collect();
    let directory = tempfile::tempdir().unwrap();
    let refused = import(directory.path(), &export(&blocks), Some(blocks[3].hash));
    assert!(matches!(refused, Err(StoreError::Snapshot { .. })));
    assert!(fs::read_dir(directory.path()).unwrap().next().is_none());
}

#[test]
fn damage_leaves_nothing_behind() {
    let blocks: Vec<_> = chain(22).take(9).collect();
    let bytes = export(&blocks);
    let directory = tempfile::tempdir().unwrap();
    for seed in 0..150 {
        let mut dice = Dice(seed);
        let mut bad = bytes.clone();
        let at = dice.below(bytes.len() as u64) as usize;
        match seed % 3 {
            0 => bad.truncate(at),
            1 => bad[at] ^= 1 << dice.below(8),
            _ => bad.splice(at..at, [dice.below(256) as u8; 3]).for_each(drop),
        }
        let refused = import(directory.path(), &bad, None);
        assert!(matches!(refused, Err(StoreError::Snapshot { .. })), "seed {seed}: {refused:?}");
        assert!(fs::read_dir(directory.path()).unwrap().next().is_none(), "seed {seed}");
    }
}

/// A writer of snapshots who lies knows how to make checks fit.
fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let (mut at, mut check) = (16, B256::ZERO);
    while at + 37 <= bytes.len() {
        let length = u32::from_be_bytes(bytes[at + 1..at + 5].try_into().unwrap()) as usize;
        let end = at + 5 + length;
        if end + 32 > bytes.len() {
            break;
        }
        let mut hasher = Keccak256::new();
        hasher.update(check);
        hasher.update(&bytes[at..end]);
        check = hasher.finalize();
        bytes[end..end + 32].copy_from_slice(&check[..]);
        at = end + 32;
    }
    bytes
}

#[test]
fn a_lie_with_fitting_checks_is_refused() {
    let blocks: Vec<_> = chain(23).take(9).collect();
    let bytes = export(&blocks);
    assert_eq!(seal(bytes.clone()), bytes);
    let directory = tempfile::tempdir().unwrap();
    let mut lies = 0;
    for seed in 0..150 {
        let mut dice = Dice(seed);
        let mut bad = bytes.clone();
        for _ in 0..1 + dice.below(3) {
            bad[dice.below(bytes.len() as u64) as usize] ^= 1 << dice.below(8);
        }
        let bad = seal(bad);
        match import(directory.path(), &bad, Some(blocks[8].hash)) {
            Err(StoreError::Snapshot { .. }) => lies += 1,
            // The genesis' hash and code that nobody uses are not part of the state.
            Ok(store) => assert_eq!(store.load().unwrap().root(), blocks[8].state.root()),
            Err(error) => panic!("seed {seed}: {error}"),
        }
        let _ = fs::remove_file(directory.path().join(FILE));
        assert!(fs::read_dir(directory.path()).unwrap().next().is_none(), "seed {seed}");
    }
    assert!(lies > 100, "{lies} refused");
}

#[test]
fn a_huge_length_takes_no_memory() {
    let mut bytes = b"evm-snapshot-02\n\x01".to_vec();
    bytes.extend_from_slice(&(64_u32 << 20).to_be_bytes());
    bytes.extend_from_slice(keccak256(b"").as_slice());
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(import(directory.path(), &bytes, None), Err(StoreError::Snapshot { .. })));
}

/// A snapshot of these headers, newest first, and no state.
fn of_headers(genesis: B256, headers: &[Header]) -> Vec<u8> {
    let payload: Vec<u8> =
        headers.iter().fold(genesis.to_vec(), |all, one| [all, alloy_rlp::encode(one)].concat());
    let mut bytes = b"evm-snapshot-02\n".to_vec();
    for (kind, payload) in [(1, &payload[..]), (2, &[0; 4]), (5, &[])] {
        bytes.push(kind);
        bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes.extend_from_slice(&[0; 32]);
    }
    seal(bytes)
}

#[test]
fn a_head_that_no_block_can_follow_is_refused() {
    let state_root = alloy_trie::EMPTY_ROOT_HASH;
    let fine = Header { number: 9, timestamp: 9, state_root, ..Header::default() };
    let directory = tempfile::tempdir().unwrap();
    import(directory.path(), &of_headers(B256::ZERO, std::slice::from_ref(&fine)), None).unwrap();
    for (number, timestamp) in [(u64::MAX, 9), (9, u64::MAX), (u64::MAX - 1, 9)] {
        let bytes = of_headers(B256::ZERO, &[Header { number, timestamp, ..fine.clone() }]);
        let directory = tempfile::tempdir().unwrap();
        let refused = import(directory.path(), &bytes, None);
        assert!(matches!(refused, Err(StoreError::Snapshot { .. })), "{refused:?}");
    }
}

#[test]
fn a_genesis_that_is_not_its_block_0_is_refused() {
    let header = Header { state_root: alloy_trie::EMPTY_ROOT_HASH, ..Header::default() };
    for (genesis, fine) in [(header.hash_slow(), true), (B256::repeat_byte(1), false)] {
        let directory = tempfile::tempdir().unwrap();
        let read =
            import(directory.path(), &of_headers(genesis, std::slice::from_ref(&header)), None);
        assert_eq!(read.is_ok(), fine, "{read:?}");
    }
}
