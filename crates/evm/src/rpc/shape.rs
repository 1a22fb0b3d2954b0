//! Blocks, transactions, receipts and logs in the form that Ethereum's JSON-RPC gives them.

use alloy_consensus::transaction::TxHashRef;
use alloy_consensus::{Header, Transaction as _, TxEnvelope};
use alloy_eips::eip7840::BlobParams;
use alloy_primitives::{B256, Sealed, U256};
use alloy_rpc_types_eth as rpc;
use alloy_rpc_types_eth::{BlockTransactions, TransactionReceipt};

use crate::{Block, Receipt, Transaction};

/// A receipt as it is told.
pub(crate) type ToldReceipt = TransactionReceipt<alloy_consensus::ReceiptEnvelope<rpc::Log>>;

/// Where a transaction stands in a block.
fn placed(block: &Block, index: usize) -> Option<rpc::Transaction> {
    let transaction = block.transactions.get(index)?;
    let header = &block.header;
    let base_fee = header.base_fee_per_gas;
    Some(rpc::Transaction {
        effective_gas_price: Some(transaction.effective_gas_price(base_fee)),
        inner: transaction.clone(),
        block_hash: Some(header.hash()),
        block_number: Some(header.number),
        transaction_index: Some(index as u64),
        block_timestamp: Some(header.timestamp),
    })
}

/// The transaction at `index` of `block`, if there are as many.
pub(crate) fn transaction(block: &Block, index: usize) -> Option<rpc::Transaction> {
    placed(block, index)
}

/// A transaction that waits for a block. Its price is the most it may cost, for no base fee is
/// certain yet.
pub(crate) fn waiting(transaction: &Transaction) -> rpc::Transaction<TxEnvelope> {
    rpc::Transaction {
        effective_gas_price: Some(transaction.max_fee_per_gas()),
        inner: transaction.clone(),
        block_hash: None,
        block_number: None,
        transaction_index: None,
        block_timestamp: None,
    }
}

/// A header; `size` is the length of the whole block, in bytes.
pub(crate) fn header(header: &Sealed<Header>, size: Option<usize>) -> rpc::Header {
    rpc::Header {
        hash: header.hash(),
        inner: header.inner().clone(),
        total_difficulty: None,
        size: size.map(U256::from),
    }
}

/// A block, with its transactions whole or by hash.
pub(crate) fn block(block: &Block, full: bool) -> rpc::Block {
    let transactions = if full {
        let all = (0..block.transactions.len()).filter_map(|index| placed(block, index));
        BlockTransactions::Full(all.collect())
    } else {
        BlockTransactions::Hashes(block.transactions.iter().map(|tx| *tx.tx_hash()).collect())
    };
    rpc::Block {
        header: header(&block.header, Some(block.encoded_len())),
        uncles: block.ommers.iter().map(Header::hash_slow).collect(),
        transactions,
        withdrawals: block.withdrawals.clone(),
    }
}

/// A stale sibling, told as a block without transactions.
pub(crate) fn ommer(ommer: &Header) -> rpc::Block {
    rpc::Block::uncle_from_header(ommer.clone())
}

/// The logs of `block` that `wanted` lets through, in their order.
pub(crate) fn logs(
    block: &Block,
    receipts: &[Receipt],
    wanted: impl Fn(&alloy_primitives::Log) -> bool,
) -> Vec<rpc::Log> {
    let mut told = Vec::new();
    let mut before = 0;
    for (index, receipt) in receipts.iter().enumerate() {
        for (offset, log) in receipt.logs().iter().enumerate() {
            if wanted(log) {
                let hash = block.transactions.get(index).map(|tx| *tx.tx_hash());
                told.push(place_log(block, log.clone(), index, hash, before + offset));
            }
        }
        before += receipt.logs().len();
    }
    told
}

fn place_log(
    block: &Block,
    inner: alloy_primitives::Log,
    transaction: usize,
    hash: Option<B256>,
    index: usize,
) -> rpc::Log {
    rpc::Log {
        inner,
        block_hash: Some(block.hash()),
        block_number: Some(block.number()),
        block_timestamp: Some(block.header.timestamp),
        transaction_hash: hash,
        transaction_index: Some(transaction as u64),
        log_index: Some(index as u64),
        removed: false,
    }
}

/// What a receipt takes from those before it in its block.
#[derive(Clone, Copy, Default)]
struct Before {
    gas: u64,
    logs: usize,
}

impl Before {
    fn past(self, receipt: &Receipt) -> Self {
        Self { gas: receipt.cumulative_gas_used(), logs: self.logs + receipt.logs().len() }
    }
}

/// All receipts of `block`; `blobs` are the rules of blobs at its time.
pub(crate) fn receipts(
    block: &Block,
    receipts: &[Receipt],
    blobs: Option<BlobParams>,
) -> Vec<ToldReceipt> {
    let mut before = Before::default();
    let mut told = Vec::with_capacity(receipts.len());
    for (index, (transaction, kept)) in block.transactions.iter().zip(receipts).enumerate() {
        told.push(place_receipt(block, transaction, kept, index, before, blobs));
        before = before.past(kept);
    }
    told
}

/// The receipt at `index` of `block`, if there are as many.
pub(crate) fn receipt(
    block: &Block,
    receipts: &[Receipt],
    index: usize,
    blobs: Option<BlobParams>,
) -> Option<ToldReceipt> {
    let (transaction, kept) = (block.transactions.get(index)?, receipts.get(index)?);
    let before = receipts.iter().take(index).fold(Before::default(), Before::past);
    Some(place_receipt(block, transaction, kept, index, before, blobs))
}

fn place_receipt(
    block: &Block,
    transaction: &Transaction,
    kept: &Receipt,
    index: usize,
    before: Before,
    blobs: Option<BlobParams>,
) -> ToldReceipt {
    let hash = *transaction.tx_hash();
    let sender = transaction.signer();
    let mut log_index = before.logs;
    let inner = kept.clone().map_logs(|log| {
        log_index += 1;
        place_log(block, log, index, Some(hash), log_index - 1)
    });
    let blob_gas_used = transaction.blob_gas_used();
    let blob_gas_price = blob_gas_used.and(blobs).and_then(|params| block.header.blob_fee(params));
    TransactionReceipt {
        inner,
        transaction_hash: hash,
        transaction_index: Some(index as u64),
        block_hash: Some(block.hash()),
        block_number: Some(block.number()),
        gas_used: kept.cumulative_gas_used().saturating_sub(before.gas),
        effective_gas_price: transaction.effective_gas_price(block.header.base_fee_per_gas),
        blob_gas_used,
        blob_gas_price,
        from: sender,
        to: transaction.to(),
        contract_address: transaction.is_create().then(|| sender.create(transaction.nonce())),
    }
}
