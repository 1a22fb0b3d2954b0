//! The text of what subscribers are told, made once and told to all.

use alloy_primitives::B256;
use serde_json::value::RawValue;

use super::logs::LogFilter;
use super::message::answer;
use super::shape;
use crate::{Executed, Transaction};

/// A new block's header.
pub(crate) fn head(executed: &Executed) -> Option<Box<RawValue>> {
    let block = &executed.block;
    answer(&shape::header(&block.header, Some(block.encoded_len()))).ok()
}

/// A new block's logs that `filter` lets through.
pub(crate) fn logs(executed: &Executed, filter: &LogFilter) -> Vec<Box<RawValue>> {
    let block = &executed.block;
    if !filter.matches_bloom(block.header.logs_bloom) {
        return Vec::new();
    }
    let logs = shape::logs(block, &executed.receipts, |log| filter.matches(log));
    logs.iter().filter_map(|log| answer(log).ok()).collect()
}

/// The hash of a transaction that began to wait.
pub(crate) fn pending(hash: &B256) -> Option<Box<RawValue>> {
    answer(hash).ok()
}

/// All of a transaction that began to wait.
pub(crate) fn pending_full(transaction: &Transaction) -> Option<Box<RawValue>> {
    answer(&shape::waiting(transaction)).ok()
}
