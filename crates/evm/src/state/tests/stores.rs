//! The store: what was committed is found again, undone and pruned, and damage is noticed.

use std::fs;

use super::super::{FILE, Store, StoreError, StoreOptions};
use super::{Block, Dice, Model, chain, commits};

fn is(store: &Store, block: &Block) {
    assert_eq!(store.head(), Some((block.header.number, block.hash)));
    assert_eq!(store.load().unwrap().root(), block.state.root());
}

#[test]
fn what_was_committed_is_found_again() {
    let blocks: Vec<_> = chain(1).take(40).collect();
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), &StoreOptions::default()).unwrap();
    assert_eq!(store.head(), None);
    assert!(matches!(store.load(), Err(StoreError::Empty)));
    for part in blocks.chunks(9) {
        store.commit(&commits(part)).unwrap();
    }
    drop(store);
    let store = Store::open(directory.path(), &StoreOptions::default()).unwrap();
    is(&store, &blocks[39]);
    assert_eq!(store.genesis().unwrap(), Some(blocks[0].hash));
    for block in &blocks {
        let number = block.header.number;
        assert_eq!(store.header(number).unwrap().unwrap().hash(), block.hash);
        assert_eq!(store.number(&block.hash).unwrap(), Some(number));
        assert_eq!(store.body(number).unwrap().unwrap(), block.body[..]);
        assert_eq!(store.receipts(number).unwrap().unwrap(), b"receipts"[..]);
        for (place, hash) in block.transactions.iter().enumerate() {
            assert_eq!(store.transaction(hash).unwrap(), Some((number, place as u32)));
        }
    }
    let state = store.load().unwrap();
    for block in &blocks {
        for hash in block.changes.codes.keys() {
            assert_eq!(state.code(hash).unwrap().hash_slow(), *hash);
        }
    }
}

#[test]
fn every_earlier_state_can_be_rebuilt() {
    for seed in 0..6 {
        let blocks: Vec<_> = chain(seed).take(30).collect();
        let store = Store::memory();
        store.commit(&commits(&blocks)).unwrap();
        let head = store.load().unwrap();
        let mut state = head.clone();
        let mut all = super::Changes::default();
        for number in (1..30).rev() {
            let undo = store.undo(number as u64).unwrap();
            state = state.apply(&undo);
            all = all.then(undo);
            assert_eq!(state.root(), blocks[number - 1].state.root(), "seed {seed}, {number}");
            assert_eq!(head.apply(&all).root(), state.root(), "seed {seed}, {number} at once");
        }
    }
}

#[test]
fn a_rewound_chain_can_take_another_way() {
    let blocks: Vec<_> = chain(2).take(30).collect();
    let store = Store::memory();
    store.commit(&commits(&blocks)).unwrap();
    for to in [29, 20, 3, 0] {
        store.rewind(to).unwrap();
        is(&store, &blocks[to as usize]);
        assert_eq!(store.header(to + 1).unwrap(), None);
        assert_eq!(
            store
                .number(&blocks.get(to as usize + 1).map_or(Default::default(), |b| b.hash))
                .unwrap(),
            None
        );
    }
    for block in &blocks[1..] {
        assert!(block.transactions.iter().all(|hash| store.transaction(hash).unwrap().is_none()));
    }
    store.commit(&commits(&blocks[1..])).unwrap();
    is(&store, &blocks[29]);
}

#[test]
fn what_is_pruned_is_named() {
    let blocks: Vec<_> = chain(3).take(30).collect();
    let directory = tempfile::tempdir().unwrap();
    let options = StoreOptions { history: 20, ..StoreOptions::default() };
    let store = Store::open(directory.path(), &options).unwrap();
    for block in &blocks {
        store.commit(&[block.commit()]).unwrap();
    }
    assert_eq!(store.oldest_state().unwrap(), 9);
    assert!(matches!(store.undo(9), Err(StoreError::Pruned { number: 9, oldest: 9 })));
    store.prune(10, 5).unwrap();
    assert_eq!(store.oldest_state().unwrap(), 24);
    assert_eq!(store.body(19).unwrap(), None);
    assert!(store.body(20).unwrap().is_some());
    assert!(store.header(0).unwrap().is_some());
    assert!(matches!(store.rewind(23), Err(StoreError::Pruned { number: 23, oldest: 24 })));
    is(&store, &blocks[29]);
    store.rewind(24).unwrap();
    is(&store, &blocks[24]);
    store.commit(&commits(&blocks[25..])).unwrap();
    is(&store, &blocks[29]);
}

#[test]
fn a_block_that_does_not_follow_is_refused() {
    let blocks: Vec<_> = chain(4).take(9).collect();
    let other: Vec<_> = chain(5).take(9).collect();
    let store = Store::memory();
    store.commit(&commits(&blocks[..5])).unwrap();
    for wrong in [&blocks[4], &blocks[6], &other[5]] {
        let both = [blocks[5].commit(), wrong.commit()];
        assert!(matches!(store.commit(&both[1..]), Err(StoreError::Gap { head: 4, .. })));
        is(&store, &blocks[4]);
    }
    for wrong in [&blocks[4], &blocks[7], &other[6]] {
        let both = [blocks[5].commit(), wrong.commit()];
        assert!(matches!(store.commit(&both), Err(StoreError::Gap { head: 5, .. })));
        is(&store, &blocks[4]);
    }
}

#[test]
fn a_directory_is_for_one_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), &StoreOptions::default()).unwrap();
    let second = Store::open(directory.path(), &StoreOptions::default());
    assert!(matches!(second, Err(StoreError::InUse { path }) if path.ends_with(FILE)));
    drop(store);
    Store::open(directory.path(), &StoreOptions::default()).unwrap();
}

#[test]
fn wrong_roots_are_noticed() {
    let mut blocks: Vec<_> = chain(6).take(3).collect();
    let expected = blocks[2].state.root();
    let unseen = super::Account { nonce: 1, ..super::Account::default() };
    let change = super::AccountChange { account: Some(unseen), ..Default::default() };
    blocks[2].changes.accounts.insert(alloy_primitives::Address::repeat_byte(9), change);
    let store = Store::memory();
    store.commit(&commits(&blocks)).unwrap();
    let found = blocks[1].state.apply(&blocks[2].changes).root();
    let error = store.load().err().unwrap();
    assert!(
        matches!(error, StoreError::Root { number: 2, found: f, expected: e } if f == found && e == expected),
        "{error}"
    );
}

#[test]
fn a_damaged_file_is_repaired_or_refused() {
    let blocks: Vec<_> = chain(10).take(12).collect();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(FILE);
    let store = Store::open(directory.path(), &StoreOptions::default()).unwrap();
    store.commit(&commits(&blocks)).unwrap();
    drop(store);
    let whole = fs::read(&file).unwrap();
    let (mut fine, mut refused) = (0, 0);
    for seed in 0..160 {
        let mut dice = Dice(seed);
        let mut bytes = whole.clone();
        match seed % 4 {
            0 => bytes.truncate(dice.below(whole.len() as u64) as usize),
            1 => bytes[dice.below(400) as usize] ^= 1 << dice.below(8),
            2 => {
                let page = dice.below(whole.len() as u64 / 4096) as usize * 4096;
                bytes[page..page + 4096].fill(dice.below(256) as u8);
            }
            _ => {
                for _ in 0..1 + dice.below(30) {
                    bytes[dice.below(whole.len() as u64) as usize] ^= 1 << dice.below(8);
                }
            }
        }
        fs::write(&file, &bytes).unwrap();
        let read = || {
            let store = Store::open(directory.path(), &StoreOptions::default())?;
            let Some((head, _)) = store.head() else { return Ok(None) };
            let state = store.load()?;
            for number in 0..=head {
                store.header(number)?;
                store.body(number)?;
                let undo = if number > 0 { store.undo(number)? } else { Default::default() };
                drop(undo);
            }
            Ok(Some((head, state.root())))
        };
        match read() {
            Ok(None) => assert_eq!(bytes.len(), 0, "seed {seed}: a store that forgot all"),
            Ok(Some((head, root))) => {
                fine += 1;
                assert_eq!(root, blocks[head as usize].state.root(), "seed {seed}");
            }
            Err(
                StoreError::Corrupt { .. } | StoreError::Root { .. } | StoreError::Format { .. },
            ) => {
                refused += 1;
            }
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    assert!(fine > 0 && refused > 20, "{fine} fine, {refused} refused");
}

#[test]
fn files_of_others_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    for bytes in [&b"not a database"[..], &[0; 10_000], &[255; 4096]] {
        fs::write(directory.path().join(FILE), bytes).unwrap();
        let opened = Store::open(directory.path(), &StoreOptions::default());
        assert!(matches!(opened, Err(StoreError::Corrupt { .. })), "{opened:?}");
        assert_eq!(fs::read(directory.path().join(FILE)).unwrap(), bytes, "it was touched");
    }
}

#[test]
fn empty_accounts_stay_where_they_may() {
    let mut changes = super::Changes { keep_empty: true, ..Default::default() };
    let address = alloy_primitives::Address::with_last_byte(9);
    let account = Some(super::Account::default());
    changes.accounts.insert(address, super::AccountChange { account, ..Default::default() });
    let mut model = Model::default();
    model.apply(&changes);
    let state = super::State::default().apply(&changes);
    assert_eq!(state.account(&address), account);
    assert_eq!(state.root(), model.root());
    let touched = super::Changes { keep_empty: false, ..changes };
    assert_eq!(state.apply(&touched).account(&address), None);
}

#[test]
fn what_a_killed_process_left_is_made_anew() {
    for left in [&b""[..], &[0; 4096], b"half a file"] {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(format!("{FILE}.part")), left).unwrap();
        let store = Store::open(directory.path(), &StoreOptions::default()).unwrap();
        assert_eq!(store.head(), None);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}

#[test]
fn a_store_is_of_one_chain_id() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Store::open(directory.path(), &StoreOptions::default()).unwrap();
    open().tie(7).unwrap();
    open().tie(7).unwrap();
    let refused = open().tie(8);
    assert!(matches!(refused, Err(StoreError::ChainId { found: 7, expected: 8 })), "{refused:?}");
}
