//! What a block has written so far, over the state it began with; at the end, its net [`Changes`].
//!
//! Every account and slot is read from the state once and remembered beside its new value, so the
//! changes are exactly what differs: a slot written and written back is no change.

use std::collections::BTreeMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;

use alloy_primitives::map::{AddressMap, B256Map, U256Map};
use alloy_primitives::{Address, B256, U256};
use revm::bytecode::Bytecode;
use revm::state::{AccountInfo, EvmStorage};
use revm::{Database, DatabaseCommit, DatabaseRef};

use crate::state::{Account, AccountChange, Changes};
use crate::view::{View, info};

/// A state and the writes on top of it. This is the database a block is executed on.
#[derive(Debug)]
pub struct Overlay {
    view: View,
    accounts: AddressMap<Cached>,
    codes: B256Map<Bytecode>,
}

#[derive(Clone, Debug)]
struct Cached {
    before: Option<Account>,
    now: Option<Account>,
    /// Storage was cleared: slots not in `slots` are zero.
    wiped: bool,
    slots: U256Map<Slot>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    before: U256,
    now: U256,
}

impl Overlay {
    /// Nothing written yet.
    pub fn new(view: View) -> Self {
        Self { view, accounts: AddressMap::default(), codes: B256Map::default() }
    }

    /// What differs from the state below.
    pub fn changes(&self) -> Changes {
        let changed = self.accounts.iter().filter_map(|(address, cached)| {
            let change = cached.change()?;
            Some((*address, change))
        });
        let accounts: BTreeMap<_, _> = changed.collect();
        let codes = accounts
            .values()
            .filter_map(|change| {
                let code_hash = change.account.as_ref()?.code_hash;
                Some((code_hash, self.codes.get(&code_hash)?.original_bytes()))
            })
            .collect();
        // What EIP-161 removes is gone already (see `commit_iter`); an empty account that is still
        // here is of a fork before it.
        Changes { accounts, codes, keep_empty: true }
    }

    fn cached(&mut self, address: Address) -> &mut Cached {
        let view = &self.view;
        self.accounts.entry(address).or_insert_with(|| Cached::read(view, &address))
    }
}

impl Cached {
    fn read(view: &View, address: &Address) -> Self {
        let before = view.state().account(address);
        Self { now: before, before, wiped: false, slots: U256Map::default() }
    }

    fn change(&self) -> Option<AccountChange> {
        let slots: BTreeMap<U256, U256> = self
            .slots
            .iter()
            // After a wipe every slot is zero until written, so only what is there now counts.
            .filter(
                |(_, slot)| if self.wiped { !slot.now.is_zero() } else { slot.now != slot.before },
            )
            .map(|(index, slot)| (*index, slot.now))
            .collect();
        // An account that was not there had nothing to clear.
        let wiped = self.wiped && self.before.is_some();
        let unchanged = self.now == self.before && !wiped && slots.is_empty();
        (!unchanged).then_some(AccountChange { account: self.now, wiped, slots })
    }

    fn destroy(&mut self) {
        self.now = None;
        self.clear_storage();
    }

    fn clear_storage(&mut self) {
        self.wiped = true;
        self.slots.clear();
    }

    fn write(&mut self, info: &AccountInfo, storage: &EvmStorage, wiped: bool) {
        self.now =
            Some(Account { nonce: info.nonce, balance: info.balance, code_hash: info.code_hash });
        for (index, slot) in storage {
            if wiped || slot.is_changed() {
                let known = self.slots.entry(*index);
                let known =
                    known.or_insert(Slot { before: slot.original_value(), now: U256::ZERO });
                known.now = slot.present_value();
            }
        }
    }
}

impl Database for Overlay {
    type Error = Infallible;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, Infallible> {
        Ok(self.cached(address).now.map(info))
    }

    fn code_by_hash(&mut self, code_hash: B256) -> Result<Bytecode, Infallible> {
        match self.codes.entry(code_hash) {
            Entry::Occupied(known) => Ok(known.get().clone()),
            Entry::Vacant(_) => self.view.code_by_hash_ref(code_hash),
        }
    }

    fn storage(&mut self, address: Address, index: U256) -> Result<U256, Infallible> {
        let view = &self.view;
        let cached = self.accounts.entry(address).or_insert_with(|| Cached::read(view, &address));
        let wiped = cached.wiped;
        let slot = cached.slots.entry(index).or_insert_with(|| {
            let value = if wiped { U256::ZERO } else { view.state().slot(&address, index) };
            Slot { before: value, now: value }
        });
        Ok(slot.now)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, Infallible> {
        self.view.block_hash_ref(number)
    }
}

impl DatabaseCommit for Overlay {
    fn commit(&mut self, accounts: AddressMap<revm::state::Account>) {
        self.commit_iter(&mut accounts.into_iter());
    }

    fn commit_iter(&mut self, accounts: &mut dyn Iterator<Item = (Address, revm::state::Account)>) {
        for (address, account) in accounts.filter(|(_, account)| account.is_touched()) {
            let code = account.info.code.as_ref().filter(|code| !code.is_empty());
            let cached = self.cached(address);
            if account.is_selfdestructed() {
                cached.destroy();
                continue;
            }
            let created = account.is_created();
            // EIP-161: what is touched and empty goes. Before that fork the EVM itself marks such
            // an account as created, or as not touched.
            if account.is_empty() && !created {
                cached.destroy();
                continue;
            }
            if created {
                cached.clear_storage();
            }
            let new_code =
                cached.now.as_ref().is_none_or(|now| now.code_hash != account.info.code_hash);
            cached.write(&account.info, &account.storage, created);
            if let Some(code) = code.filter(|_| new_code) {
                self.codes.insert(account.info.code_hash, code.clone());
            }
        }
    }
}
