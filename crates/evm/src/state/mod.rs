//! The state of the chain: accounts, their storage and code, as one value per block.
//!
//! A [`State`] is the trie itself. Reading goes through it, applying a block makes a new one that
//! shares what did not change, and every state keeps its root. So a block that is not yet final, a
//! recent block that someone asks about, and a proof against either are the same thing: a `State`.

mod error;
mod flat;
mod load;
mod node;
mod snapshot;
mod store;
mod tables;
#[cfg(test)]
pub(crate) mod tests;
mod trie;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256};
use alloy_rlp::{Encodable, Header};
use alloy_rpc_types_eth::{EIP1186AccountProofResponse, EIP1186StorageProof};
use alloy_trie::EMPTY_ROOT_HASH;
use rayon::prelude::*;
use revm::bytecode::Bytecode;

pub use error::StoreError;
pub use snapshot::Progress;
pub use store::{Commit, FILE, Store, StoreOptions};
use trie::{Edit, PARALLEL_MIN, Trie, Value};

/// What an account is, but for its storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Transactions sent, or contracts created.
    pub nonce: u64,
    /// In wei.
    pub balance: U256,
    /// Keccak of its code; of no bytes where it has none.
    pub code_hash: B256,
}

impl Default for Account {
    fn default() -> Self {
        Self { nonce: 0, balance: U256::ZERO, code_hash: KECCAK256_EMPTY }
    }
}

impl Account {
    /// Whether it is as good as absent (EIP-161): no nonce, no balance, no code.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a block did to the state: net writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Accounts touched.
    pub accounts: BTreeMap<Address, AccountChange>,
    /// Code that was deployed, by its hash.
    pub codes: BTreeMap<B256, Bytes>,
    /// Whether an account that is written empty stays, as it did before Spurious Dragon and does
    /// in a genesis. Otherwise it is removed (EIP-161).
    pub keep_empty: bool,
}

impl Changes {
    /// These changes and then `next`, as one.
    pub fn then(mut self, next: Self) -> Self {
        self.settle();
        for (address, change) in next.accounts {
            let account = change.account.filter(|a| next.keep_empty || !a.is_empty());
            let merged = self.accounts.entry(address).or_default();
            if change.wiped || account.is_none() {
                *merged = AccountChange { account, wiped: true, slots: change.slots };
            } else {
                merged.account = account;
                merged.slots.extend(change.slots);
            }
        }
        self.codes.extend(next.codes);
        self
    }

    /// Says by `account` alone which accounts are gone, and by `wiped` that their storage is.
    fn settle(&mut self) {
        for change in self.accounts.values_mut() {
            change.account = change.account.filter(|a| self.keep_empty || !a.is_empty());
            if change.account.is_none() {
                change.wiped = true;
                change.slots.clear();
            }
        }
        self.keep_empty = true;
    }
}

/// What a block did to one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountChange {
    /// What it is now; `None`: it is gone, and its storage with it. An empty one counts as gone,
    /// unless [`Changes::keep_empty`] says otherwise.
    pub account: Option<Account>,
    /// Its storage was cleared before `slots` were written.
    pub wiped: bool,
    /// Slots written; zero removes one.
    pub slots: BTreeMap<U256, U256>,
}

/// All accounts at one block. Cloning it costs nothing; it shares memory with its relatives.
#[derive(Clone, Default)]
pub struct State {
    accounts: Trie<Entry>,
    codes: Arc<RwLock<HashMap<B256, Bytecode>>>,
}

/// What a leaf of the accounts' trie holds.
#[derive(Clone)]
struct Entry {
    nonce: u64,
    balance: U256,
    /// Only for accounts with code or storage, which are few, so that the others stay small.
    contract: Option<Box<Contract>>,
}

#[derive(Clone)]
struct Contract {
    code_hash: B256,
    storage: Trie<U256>,
}

impl Entry {
    fn new(account: Account, storage: Trie<U256>) -> Self {
        let Account { nonce, balance, code_hash } = account;
        let plain = code_hash == KECCAK256_EMPTY && storage.root() == EMPTY_ROOT_HASH;
        let contract = (!plain).then(|| Box::new(Contract { code_hash, storage }));
        Self { nonce, balance, contract }
    }

    fn account(&self) -> Account {
        let code_hash = self.contract.as_ref().map_or(KECCAK256_EMPTY, |c| c.code_hash);
        Account { nonce: self.nonce, balance: self.balance, code_hash }
    }

    fn storage(&self) -> Trie<U256> {
        self.contract.as_ref().map(|contract| contract.storage.clone()).unwrap_or_default()
    }
}

impl Value for Entry {
    fn write(&self, out: &mut Vec<u8>) {
        let Account { nonce, balance, code_hash } = self.account();
        let root = self.contract.as_ref().map_or(EMPTY_ROOT_HASH, |c| c.storage.root());
        let payload_length = nonce.length() + balance.length() + root.length() + code_hash.length();
        Header { list: true, payload_length }.encode(out);
        nonce.encode(out);
        balance.encode(out);
        root.encode(out);
        code_hash.encode(out);
    }
}

impl Value for U256 {
    fn write(&self, out: &mut Vec<u8>) {
        self.encode(out);
    }
}

impl State {
    /// The account at `address`.
    pub fn account(&self, address: &Address) -> Option<Account> {
        self.entry(address).map(Entry::account)
    }

    /// The value of an account's storage slot; zero where nothing was written.
    pub fn slot(&self, address: &Address, slot: U256) -> U256 {
        let contract = self.entry(address).and_then(|entry| entry.contract.as_ref());
        let key = || keccak256(slot.to_be_bytes::<32>());
        contract.and_then(|c| c.storage.get(&key()).copied()).unwrap_or_default()
    }

    /// The code with this hash, if it was ever deployed here.
    pub fn code(&self, hash: &B256) -> Option<Bytecode> {
        if *hash == KECCAK256_EMPTY {
            return Some(Bytecode::default());
        }
        self.codes.read().unwrap_or_else(PoisonError::into_inner).get(hash).cloned()
    }

    /// Root of an account's storage trie.
    pub fn storage_root(&self, address: &Address) -> B256 {
        self.entry(address).map_or(EMPTY_ROOT_HASH, |entry| entry.storage().root())
    }

    /// The state root, as it stands in a header.
    pub fn root(&self) -> B256 {
        self.accounts.root()
    }

    /// The state after `changes`. This one stays as it is.
    pub fn apply(&self, changes: &Changes) -> Self {
        self.learn(&changes.codes);
        let edits = sorted(&changes.accounts, |address, change| {
            let key = keccak256(address);
            let value = changed(self.accounts.get(&key), change, changes.keep_empty);
            (key, value)
        });
        Self { accounts: self.accounts.edit(&edits), codes: Arc::clone(&self.codes) }
    }

    /// Proves an account and some of its slots, present or absent, against [`State::root`]
    /// (EIP-1186).
    pub fn proof(&self, address: &Address, slots: &[B256]) -> EIP1186AccountProofResponse {
        let key = keccak256(address);
        let entry = self.accounts.get(&key);
        let Account { nonce, balance, code_hash } = entry.map(Entry::account).unwrap_or_default();
        let storage = entry.map(Entry::storage).unwrap_or_default();
        let storage_proof = slots.iter().map(|slot| {
            let key = keccak256(slot);
            let value = storage.get(&key).copied().unwrap_or_default();
            EIP1186StorageProof { key: (*slot).into(), value, proof: storage.proof(&key) }
        });
        EIP1186AccountProofResponse {
            address: *address,
            balance,
            code_hash,
            nonce,
            storage_hash: storage.root(),
            account_proof: self.accounts.proof(&key),
            storage_proof: storage_proof.collect(),
        }
    }

    fn entry(&self, address: &Address) -> Option<&Entry> {
        self.accounts.get(&keccak256(address))
    }

    /// Code is only ever added: it is shared by all states that came from the same first one.
    fn learn(&self, codes: &BTreeMap<B256, Bytes>) {
        if codes.is_empty() {
            return;
        }
        let mut known = self.codes.write().unwrap_or_else(PoisonError::into_inner);
        for (hash, code) in codes {
            known.entry(*hash).or_insert_with(|| {
                // Bytes that start like a delegation (EIP-7702) but are none are ordinary code.
                Bytecode::new_raw_checked(code.clone())
                    .unwrap_or_else(|_| Bytecode::new_legacy(code.clone()))
            });
        }
    }
}

/// Turns writes into edits, in the order of the trie.
fn sorted<K: Ord + Sync, C: Sync, V: Send>(
    writes: &BTreeMap<K, C>,
    edit: impl Fn(&K, &C) -> Edit<V> + Sync + Send,
) -> Vec<Edit<V>> {
    let mut edits: Vec<_> = if writes.len() < PARALLEL_MIN {
        writes.iter().map(|(key, change)| edit(key, change)).collect()
    } else {
        writes.par_iter().map(|(key, change)| edit(key, change)).collect()
    };
    edits.sort_unstable_by_key(|(key, _)| *key);
    edits
}

/// What is stored for an account after `change`.
fn changed(old: Option<&Entry>, change: &AccountChange, keep_empty: bool) -> Option<Entry> {
    let account = change.account.filter(|account| keep_empty || !account.is_empty())?;
    let kept = old.filter(|_| !change.wiped).map(Entry::storage).unwrap_or_default();
    let edits = sorted(&change.slots, |slot, value| {
        let value = Some(*value).filter(|value| !value.is_zero());
        (keccak256(slot.to_be_bytes::<32>()), value)
    });
    Some(Entry::new(account, kept.edit(&edits)))
}
