//! How bodies and receipts lie in the store.
//!
//! A body with its senders, so that reading an old block recovers no signature. Receipts without
//! their bloom filters, which are most of their bytes and follow from the logs.

use alloy_consensus::transaction::{SignerRecoverable, TxHashRef};
use alloy_consensus::{
    BlockBody, Eip658Value, Header, Receipt as Outcome, ReceiptEnvelope, TxEnvelope, TxReceipt,
    TxType, proofs,
};
use alloy_eips::Typed2718;
use alloy_primitives::{Address, B256, Log, Sealed};
use alloy_rlp::{Decodable, Encodable, Header as Prefix, RlpDecodable, RlpEncodable};
use rayon::prelude::*;

use crate::block::{Block, Receipt, Transaction};
use crate::state::StoreError;

pub(super) fn body_row(block: &Block) -> Vec<u8> {
    let senders: Vec<u8> =
        block.transactions.iter().flat_map(|transaction| transaction.signer().0.0).collect();
    let mut row = Vec::new();
    Prefix { list: false, payload_length: senders.len() }.encode(&mut row);
    row.extend_from_slice(&senders);
    block.body().encode(&mut row);
    row
}

pub(super) fn read_body(mut row: &[u8], header: Sealed<Header>) -> Result<Block, StoreError> {
    let number = header.number;
    let damaged = || corrupt("body", number);
    let senders = Prefix::decode_bytes(&mut row, false).map_err(|_| damaged())?;
    let body = BlockBody::<TxEnvelope>::decode(&mut row).map_err(|_| damaged())?;
    let (senders, rest) = senders.as_chunks::<20>();
    if !rest.is_empty() || senders.len() != body.transactions.len() {
        return Err(damaged());
    }
    Ok(Block::with_senders(header, body, senders.iter().map(Address::from)))
}

/// The hashes of a block's transactions, if these rows are what `header` commits to.
///
/// A body says its senders by itself, so they are recovered once more here.
pub(super) fn judge(
    header: &Sealed<Header>,
    body: &[u8],
    receipts: &[u8],
) -> Result<Vec<B256>, StoreError> {
    let block = read_body(body, header.clone())?;
    let kept = read_receipts(receipts, header.number)?;
    // Anything that would be written differently says more than it means.
    let written = body_row(&block) == body && receipts_row(&kept) == receipts;
    let parts = block.body();
    let committed = proofs::calculate_transaction_root(&parts.transactions)
        == header.transactions_root
        && parts.calculate_ommers_root() == header.ommers_hash
        && parts.calculate_withdrawals_root() == header.withdrawals_root
        && proofs::calculate_receipt_root(&kept) == header.receipts_root;
    let signed = |transaction: &Transaction| {
        transaction.recover_signer().is_ok_and(|signer| signer == transaction.signer())
    };
    if !(written && committed && block.transactions.par_iter().all(signed)) {
        let what = format!("the block it holds is not block {}", header.hash());
        return Err(StoreError::Snapshot { what });
    }
    Ok(block.transactions.iter().map(|transaction| *transaction.tx_hash()).collect())
}

/// A receipt as it is stored.
#[derive(RlpEncodable, RlpDecodable)]
struct Row {
    kind: u8,
    /// One byte, or a state root of before Byzantium.
    status: Eip658Value,
    cumulative_gas: u64,
    logs: Vec<Log>,
}

pub(super) fn receipts_row(receipts: &[Receipt]) -> Vec<u8> {
    let rows: Vec<Row> = receipts
        .iter()
        .map(|receipt| Row {
            kind: receipt.ty(),
            status: receipt.status_or_post_state(),
            cumulative_gas: receipt.cumulative_gas_used(),
            logs: receipt.logs().to_vec(),
        })
        .collect();
    alloy_rlp::encode(rows)
}

pub(super) fn read_receipts(mut row: &[u8], number: u64) -> Result<Vec<Receipt>, StoreError> {
    let damaged = || corrupt("receipts", number);
    let rows = Vec::<Row>::decode(&mut row).map_err(|_| damaged())?;
    rows.into_iter().map(|row| row.receipt().ok_or_else(damaged)).collect()
}

impl Row {
    fn receipt(self) -> Option<Receipt> {
        let Self { kind, status, cumulative_gas: cumulative_gas_used, logs } = self;
        let kind = TxType::try_from(kind).ok()?;
        let outcome = Outcome { status, cumulative_gas_used, logs };
        Some(ReceiptEnvelope::from_typed(kind, outcome.with_bloom()))
    }
}

fn corrupt(what: &str, number: u64) -> StoreError {
    StoreError::Corrupt { what: format!("the {what} of block {number} cannot be read") }
}
