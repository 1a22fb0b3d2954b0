//! The store's tables, and how their rows are written.
//!
//! State is flat: one row per account and per slot, under the key that its trie uses, so a scan
//! comes in the trie's own order. The plain address and slot stand in the row, since nothing leads
//! back from a hash.

use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256};
use alloy_rlp::{Decodable, Encodable};
use redb::TableDefinition;

use super::error::StoreError;
use super::{Account, AccountChange, Changes};

/// keccak(address) to address and account.
pub(crate) const ACCOUNTS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("accounts");
/// keccak(address) with keccak(slot) to slot and value.
pub(crate) const SLOTS: TableDefinition<'_, &[u8; 64], &[u8]> = TableDefinition::new("slots");
/// Hash to code.
pub(crate) const CODES: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("codes");
/// Number to header, RLP.
pub(crate) const HEADERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("headers");
/// Hash of a block to its number.
pub(crate) const HASHES: TableDefinition<'_, &[u8; 32], u64> = TableDefinition::new("hashes");
/// Number to body, as the caller encoded it.
pub(crate) const BODIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("bodies");
/// Number to receipts, as the caller encoded them.
pub(crate) const RECEIPTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("receipts");
/// Hash of a transaction to its block and its place there.
pub(crate) const TRANSACTIONS: TableDefinition<'_, &[u8; 32], (u64, u32)> =
    TableDefinition::new("transactions");
/// Number to what undoes the block.
pub(crate) const UNDO: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("undo");
/// The rest, by name: `format`, `genesis`, `head`, `chain_id`.
pub(crate) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Bytes of an address at the start of a row.
const ADDRESS: usize = 20;

pub(crate) fn slot_key(account: &B256, slot: &B256) -> [u8; 64] {
    let mut key = [0; 64];
    key[..32].copy_from_slice(&account[..]);
    key[32..].copy_from_slice(&slot[..]);
    key
}

pub(crate) fn account_row(address: &Address, account: &Account) -> Vec<u8> {
    let mut row = Vec::with_capacity(64);
    row.extend_from_slice(address.as_slice());
    write_account(account, &mut row);
    row
}

pub(crate) fn read_account_row(row: &[u8]) -> Result<(Address, Account), StoreError> {
    let (address, mut rest) = row.split_at_checked(ADDRESS).ok_or_else(|| bad("account"))?;
    let account = read_account(&mut rest)?;
    done(rest, "account")?;
    Ok((Address::from_slice(address), account))
}

pub(crate) fn slot_row(slot: U256, value: U256) -> Vec<u8> {
    let mut row = Vec::with_capacity(66);
    slot.encode(&mut row);
    value.encode(&mut row);
    row
}

pub(crate) fn read_slot_row(mut row: &[u8]) -> Result<(U256, U256), StoreError> {
    let read = (read(&mut row, "slot")?, read(&mut row, "slot")?);
    done(row, "slot")?;
    Ok(read)
}

/// Nonce, balance and, for contracts only, the hash of the code.
fn write_account(account: &Account, out: &mut Vec<u8>) {
    account.nonce.encode(out);
    account.balance.encode(out);
    if account.code_hash == KECCAK256_EMPTY {
        out.push(0x80);
    } else {
        account.code_hash.encode(out);
    }
}

fn read_account(rest: &mut &[u8]) -> Result<Account, StoreError> {
    let nonce = read(rest, "account")?;
    let balance = read(rest, "account")?;
    let code_hash = match rest.first() {
        Some(0x80) => {
            *rest = &rest[1..];
            KECCAK256_EMPTY
        }
        _ => read(rest, "account")?,
    };
    Ok(Account { nonce, balance, code_hash })
}

/// Account of an undo row: it was there.
const PRESENT: u8 = 1;
/// Account of an undo row: its storage is cleared first.
const WIPED: u8 = 2;

/// Encodes what undoes a block. Code is never undone.
pub(crate) fn undo_row(undo: &Changes) -> Vec<u8> {
    let mut row = Vec::with_capacity(64 * undo.accounts.len());
    for (address, change) in &undo.accounts {
        row.extend_from_slice(address.as_slice());
        let present = if change.account.is_some() { PRESENT } else { 0 };
        row.push(present | if change.wiped { WIPED } else { 0 });
        if let Some(account) = &change.account {
            write_account(account, &mut row);
        }
        (change.slots.len() as u64).encode(&mut row);
        for (slot, value) in &change.slots {
            slot.encode(&mut row);
            value.encode(&mut row);
        }
    }
    row
}

pub(crate) fn read_undo_row(mut row: &[u8]) -> Result<Changes, StoreError> {
    let mut undo = Changes { keep_empty: true, ..Changes::default() };
    while !row.is_empty() {
        let (start, rest) = row.split_at_checked(ADDRESS + 1).ok_or_else(|| bad("undo"))?;
        row = rest;
        let flags = start[ADDRESS];
        let account = (flags & PRESENT != 0).then(|| read_account(&mut row)).transpose()?;
        let mut change = AccountChange { account, wiped: flags & WIPED != 0, ..Default::default() };
        for _ in 0..read::<u64>(&mut row, "undo")? {
            change.slots.insert(read(&mut row, "undo")?, read(&mut row, "undo")?);
        }
        undo.accounts.insert(Address::from_slice(&start[..ADDRESS]), change);
    }
    Ok(undo)
}

pub(crate) fn read<T: Decodable>(row: &mut &[u8], what: &str) -> Result<T, StoreError> {
    T::decode(row).map_err(|error| StoreError::corrupt(format!("a row of {what}: {error}")))
}

fn done(rest: &[u8], what: &str) -> Result<(), StoreError> {
    if rest.is_empty() { Ok(()) } else { Err(bad(what)) }
}

fn bad(what: &str) -> StoreError {
    StoreError::corrupt(format!("a row of {what} has the wrong length"))
}
