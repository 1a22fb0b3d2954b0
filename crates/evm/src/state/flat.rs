//! The flat state inside a write transaction, and what undoes a change to it.

use alloy_primitives::{Address, B256, U256, keccak256};
use rayon::prelude::*;
use redb::{Table, WriteTransaction};

use super::error::{StoreError, failed};
use super::tables::{
    ACCOUNTS, SLOTS, account_row, read_account_row, read_slot_row, slot_key, slot_row,
};
use super::{Account, AccountChange, Changes};

/// The accounts and slots of the head.
pub(crate) struct Flat<'a> {
    accounts: Table<'a, &'static [u8; 32], &'static [u8]>,
    slots: Table<'a, &'static [u8; 64], &'static [u8]>,
}

impl<'a> Flat<'a> {
    pub(crate) fn open(writer: &'a WriteTransaction) -> Result<Self, StoreError> {
        let accounts = writer.open_table(ACCOUNTS).map_err(failed)?;
        let slots = writer.open_table(SLOTS).map_err(failed)?;
        Ok(Self { accounts, slots })
    }

    /// Writes `changes` and returns the changes that take them back.
    pub(crate) fn apply(&mut self, changes: &Changes) -> Result<Changes, StoreError> {
        // In the order of the table, which is faster than in the order of addresses.
        let mut ordered: Vec<_> = changes
            .accounts
            .par_iter()
            .map(|(address, change)| (keccak256(address), address, change))
            .collect();
        ordered.par_sort_unstable_by_key(|(key, ..)| *key);
        let mut undo = Changes { keep_empty: true, ..Changes::default() };
        for (key, address, change) in ordered {
            let account =
                change.account.filter(|account| changes.keep_empty || !account.is_empty());
            let change = self.apply_one(&key, address, account, change)?;
            undo.accounts.insert(*address, change);
        }
        Ok(undo)
    }

    fn apply_one(
        &mut self,
        key: &B256,
        address: &Address,
        account: Option<Account>,
        change: &AccountChange,
    ) -> Result<AccountChange, StoreError> {
        let old = match &account {
            Some(account) => {
                let row = account_row(address, account);
                let old = self.accounts.insert(&key.0, row.as_slice()).map_err(failed)?;
                old.map(|row| read_account_row(row.value())).transpose()?
            }
            None => {
                let old = self.accounts.remove(&key.0).map_err(failed)?;
                old.map(|row| read_account_row(row.value())).transpose()?
            }
        };
        let old = old.map(|(_, account)| account);
        let wiped = change.wiped || account.is_none();
        let mut undo =
            AccountChange { account: old, wiped: wiped || old.is_none(), ..Default::default() };
        if wiped && old.is_some() {
            self.wipe(key, &mut undo)?;
        }
        if account.is_some() {
            self.write_slots(key, change, &mut undo)?;
        }
        Ok(undo)
    }

    /// Clears the storage of an account.
    fn wipe(&mut self, key: &B256, undo: &mut AccountChange) -> Result<(), StoreError> {
        let (first, last) = (slot_key(key, &B256::ZERO), slot_key(key, &B256::repeat_byte(0xff)));
        let mut wiped = self
            .slots
            .extract_from_if::<&[u8; 64], _>(&first..=&last, |_, _| true)
            .map_err(failed)?;
        for row in &mut wiped {
            let (_, row) = row.map_err(failed)?;
            let (slot, value) = read_slot_row(row.value())?;
            undo.slots.insert(slot, value);
        }
        Ok(())
    }

    fn write_slots(
        &mut self,
        key: &B256,
        change: &AccountChange,
        undo: &mut AccountChange,
    ) -> Result<(), StoreError> {
        let mut slots: Vec<_> = change
            .slots
            .par_iter()
            .map(|(slot, value)| (slot_key(key, &keccak256(slot.to_be_bytes::<32>())), slot, value))
            .collect();
        slots.par_sort_unstable_by_key(|(key, ..)| *key);
        for (key, slot, value) in slots {
            let old = if value.is_zero() {
                self.slots.remove(&key).map_err(failed)?
            } else {
                let row = slot_row(*slot, *value);
                self.slots.insert(&key, row.as_slice()).map_err(failed)?
            };
            let old = old.map(|row| read_slot_row(row.value())).transpose()?;
            // Where all is cleared anyway, there is no old value to go back to.
            if !undo.wiped {
                undo.slots.insert(*slot, old.map_or(U256::ZERO, |(_, value)| value));
            }
        }
        Ok(())
    }
}
