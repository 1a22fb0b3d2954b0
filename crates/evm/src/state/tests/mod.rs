//! Tests of the state: against other implementations, and on disks that fail.

mod crash;
mod disk;
mod roots;
mod snapshots;
mod stores;

use std::collections::BTreeMap;

use alloy_consensus::Header;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_trie::TrieAccount;
use alloy_trie::root::{state_root_unhashed, storage_root_unhashed};

pub(crate) use disk::Disk;

use super::{Account, AccountChange, Changes, Commit, State};

/// Numbers that are the same for the same seed (SplitMix64).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// Addresses that the blocks below touch.
fn address(dice: &mut Dice) -> Address {
    Address::with_last_byte(dice.below(48) as u8)
}

/// Some block's writes: payments, contracts, storage, removals, and accounts that come back.
fn changes(dice: &mut Dice) -> Changes {
    let mut changes = Changes::default();
    for _ in 0..dice.below(24) {
        let code = Bytes::from(vec![0x5b; 1 + dice.below(4) as usize]);
        let mut account = Account {
            nonce: dice.below(300),
            balance: U256::from(dice.below(u64::MAX)) << dice.below(190),
            ..Account::default()
        };
        let mut change = AccountChange::default();
        match dice.below(8) {
            0 => {}
            1 => change.account = Some(Account::default()),
            2 | 3 => change.account = Some(account),
            kind => {
                account.code_hash = keccak256(&code);
                changes.codes.insert(account.code_hash, code);
                change.account = Some(account);
                change.wiped = kind == 4;
                for _ in 0..dice.below(90) {
                    let value = U256::from(dice.below(3)) << dice.below(250);
                    change.slots.insert(U256::from(dice.below(120)), value);
                }
            }
        }
        changes.accounts.insert(address(dice), change);
    }
    changes
}

/// What a state should hold, in plain maps.
#[derive(Clone, Default)]
struct Model(BTreeMap<Address, (Account, BTreeMap<U256, U256>)>);

impl Model {
    fn apply(&mut self, changes: &Changes) {
        for (address, change) in &changes.accounts {
            let old = self.0.remove(address);
            let Some(account) = change.account.filter(|a| changes.keep_empty || !a.is_empty())
            else {
                continue;
            };
            let mut slots = old.filter(|_| !change.wiped).map(|old| old.1).unwrap_or_default();
            slots.extend(&change.slots);
            slots.retain(|_, value| !value.is_zero());
            self.0.insert(*address, (account, slots));
        }
    }

    /// The state root, by another implementation.
    fn root(&self) -> B256 {
        state_root_unhashed(self.0.iter().map(|(address, (account, slots))| {
            let slots = slots.iter().map(|(slot, value)| (B256::from(*slot), *value));
            let Account { nonce, balance, code_hash } = *account;
            let storage_root = storage_root_unhashed(slots);
            (*address, TrieAccount { nonce, balance, code_hash, storage_root })
        }))
    }

    /// The changes that make it out of nothing.
    fn whole(&self) -> Changes {
        let whole = |(address, (account, slots)): (&Address, &(Account, BTreeMap<U256, U256>))| {
            let (account, slots) = (Some(*account), slots.clone());
            (*address, AccountChange { account, wiped: false, slots })
        };
        Changes { accounts: self.0.iter().map(whole).collect(), ..Changes::default() }
    }
}

/// One block of a made-up chain.
struct Block {
    header: Header,
    hash: B256,
    body: Vec<u8>,
    transactions: Vec<B256>,
    changes: Changes,
    state: State,
}

impl Block {
    fn commit(&self) -> Commit<'_> {
        Commit {
            header: &self.header,
            hash: self.hash,
            body: &self.body,
            receipts: b"receipts",
            transactions: &self.transactions,
            changes: &self.changes,
        }
    }
}

fn commits(blocks: &[Block]) -> Vec<Commit<'_>> {
    blocks.iter().map(Block::commit).collect()
}

/// A chain that is the same for the same seed.
fn chain(seed: u64) -> impl Iterator<Item = Block> {
    let mut dice = Dice(seed);
    let mut parent_hash = B256::ZERO;
    let mut state = State::default();
    (0..).map(move |number| {
        let changes = changes(&mut dice);
        state = state.apply(&changes);
        let state_root = state.root();
        let header = Header { number, parent_hash, state_root, ..Header::default() };
        let hash = header.hash_slow();
        parent_hash = hash;
        let transaction =
            |place: u64| keccak256([number.to_be_bytes(), place.to_be_bytes()].concat());
        let transactions = (0..dice.below(9)).map(transaction).collect();
        let body = vec![number as u8; dice.below(9_000) as usize];
        Block { header, hash, body, transactions, changes, state: state.clone() }
    })
}
