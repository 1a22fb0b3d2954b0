//! Builds the state from the flat tables when a chain starts.
//!
//! The rows come in the order of the trie, so each batch of them touches a trie's right edge only,
//! and no node but those of the edge is hashed twice.

use std::collections::BTreeMap;

use alloy_primitives::{B256, Bytes, KECCAK256_EMPTY, U256, keccak256};
use redb::{ReadTransaction, ReadableTable};

use super::error::{StoreError, failed};
use super::store::{self, Store};
use super::tables::{
    ACCOUNTS, CODES, META, SLOTS, UNDO, read_account_row, read_slot_row, read_undo_row,
};
use super::trie::{Edit, Trie};
use super::{Entry, State};

/// Rows that are hashed at a time.
const BATCH: usize = 16_384;

impl Store {
    /// The state of the head, checked against the state root in its header.
    pub fn load(&self) -> Result<State, StoreError> {
        let (number, _) = self.head().ok_or(StoreError::Empty)?;
        let header = self.header(number)?;
        let header = header.ok_or_else(|| StoreError::corrupt("the head has no header"))?;
        let state = self.read(|reader| {
            let mut state = scan(reader)?;
            // Blocks that are there although their commit failed.
            let found = store::head(&reader.open_table(META).map_err(failed)?)?;
            let undo = reader.open_table(UNDO).map_err(failed)?;
            for parent in (number..found.map_or(number, |(found, _)| found)).rev() {
                let row = undo.get(parent + 1).map_err(failed)?;
                let row = row.ok_or_else(|| StoreError::corrupt("a block without undo"))?;
                state = state.apply(&read_undo_row(row.value())?);
            }
            Ok(state)
        })?;
        let (found, expected) = (state.root(), header.state_root);
        if found != expected {
            return Err(StoreError::Root { number, found, expected });
        }
        Ok(state)
    }
}

fn scan(reader: &ReadTransaction) -> Result<State, StoreError> {
    let accounts = reader.open_table(ACCOUNTS).map_err(failed)?;
    let slots = reader.open_table(SLOTS).map_err(failed)?;
    let mut slots = slots.iter().map_err(failed)?.peekable();
    let codes = codes(reader)?;
    let mut trie = Trie::default();
    let mut batch: Vec<Edit<Entry>> = Vec::with_capacity(BATCH);
    for row in accounts.iter().map_err(failed)? {
        let (key, row) = row.map_err(failed)?;
        let key = B256::from(key.value());
        let (_, account) = read_account_row(row.value())?;
        if account.code_hash != KECCAK256_EMPTY && !codes.contains_key(&account.code_hash) {
            return Err(StoreError::corrupt(format!("code {} is missing", account.code_hash)));
        }
        let mut storage = Growing::default();
        loop {
            let next = slots.next_if(|row| {
                row.as_ref().map_or(true, |(slot, _)| slot.value()[..32] == key[..])
            });
            let Some(row) = next else { break };
            let (slot, row) = row.map_err(failed)?;
            let (_, value) = read_slot_row(row.value())?;
            storage.push(B256::from_slice(&slot.value()[32..]), value);
        }
        batch.push((key, Some(Entry::new(account, storage.finish()))));
        if batch.len() == BATCH {
            trie = trie.edit(&batch);
            batch.clear();
        }
    }
    if slots.next().is_some() {
        return Err(StoreError::corrupt("storage without an account"));
    }
    let state = State { accounts: trie.edit(&batch), ..State::default() };
    state.learn(&codes);
    Ok(state)
}

fn codes(reader: &ReadTransaction) -> Result<BTreeMap<B256, Bytes>, StoreError> {
    let table = reader.open_table(CODES).map_err(failed)?;
    let mut codes = BTreeMap::new();
    for row in table.iter().map_err(failed)? {
        let (hash, code) = row.map_err(failed)?;
        let (hash, code) = (B256::from(hash.value()), Bytes::copy_from_slice(code.value()));
        if keccak256(&code) != hash {
            return Err(StoreError::corrupt(format!("the code with hash {hash}")));
        }
        codes.insert(hash, code);
    }
    Ok(codes)
}

/// A storage trie that grows in ascending order of its keys.
#[derive(Default)]
struct Growing {
    trie: Trie<U256>,
    batch: Vec<Edit<U256>>,
}

impl Growing {
    fn push(&mut self, key: B256, value: U256) {
        self.batch.push((key, Some(value)));
        if self.batch.len() == BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.trie = self.trie.edit(&self.batch);
        self.batch.clear();
    }

    fn finish(mut self) -> Trie<U256> {
        self.flush();
        self.trie
    }
}
