//! What gas costs: now, in the next block, and in those before.

use std::ops::RangeInclusive;

use alloy_consensus::{Header, Transaction as _};
use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::{U64, U256};
use alloy_rpc_types_eth::FeeHistory;
use serde::Deserialize;

use super::Rpc;
use super::message::{Answer, Error, answer};
use super::params::{Params, argument};
use crate::{Block, Receipt};

/// Blocks whose tips say what the next one takes.
const TIP_BLOCKS: u64 = 20;

/// The tip that is proposed where blocks have room, in wei per gas: it buys an order among equals.
const TIP_MIN: u128 = 1_000_000;

/// A block that used less of its gas than this, in percent, would have taken the least tip.
const FULL_PERCENT: u64 = 90;

/// Blocks of one history, as other clients give.
const HISTORY_BLOCKS_MAX: u64 = 1024;

/// Percentiles of one history.
const PERCENTILES_MAX: usize = 100;

impl Rpc {
    /// `[]`: the proposed tip over the greater of two base fees, the newest block's and the next
    /// one's: a client that knows this price alone estimates with it over the one, and pays the other.
    pub(super) fn eth_gas_price(&self, _: &Params<'_>) -> Answer {
        let newest = self.chain().head().header.base_fee_per_gas;
        let base_fee = self.next_base_fee().max(newest).unwrap_or(0);
        answer(&U256::from(self.tip()?.saturating_add(u128::from(base_fee))))
    }

    /// `[]`
    pub(super) fn eth_max_priority_fee_per_gas(&self, _: &Params<'_>) -> Answer {
        answer(&U256::from(self.tip()?))
    }

    /// `[]`: the next block's.
    pub(super) fn eth_base_fee(&self, _: &Params<'_>) -> Answer {
        answer(&self.next_base_fee().map(U64::from))
    }

    /// `[]`: the newest block's.
    pub(super) fn eth_blob_base_fee(&self, _: &Params<'_>) -> Answer {
        let head = self.chain().head();
        let header = &head.header;
        let blobs = self.chain().spec().blob_params(header.timestamp);
        answer(&blobs.and_then(|params| header.blob_fee(params)).map(U256::from))
    }

    pub(super) fn next_base_fee(&self) -> Option<u64> {
        let head = self.chain().head();
        let soon = head.header.timestamp.saturating_add(1);
        self.chain().spec().base_fee_after(&head.header, soon)
    }

    /// The tip that the newest blocks suggest: the middle one of what each would have taken.
    pub(super) fn tip(&self) -> Result<u128, Error> {
        let newest = self.newest();
        let mut tips = Vec::new();
        for number in newest.saturating_sub(TIP_BLOCKS - 1)..=newest {
            let id = BlockId::number(number);
            let Some(header) = self.header(id)? else { continue };
            let block = if is_full(&header) { self.block(id)? } else { None };
            tips.push(block.map_or(0, |block| least_tip(&block)).max(TIP_MIN));
        }
        tips.sort_unstable();
        Ok(tips.get(tips.len() / 2).copied().unwrap_or(TIP_MIN))
    }

    /// `[count, newest block, percentiles]`
    pub(super) fn eth_fee_history(&self, params: &Params<'_>) -> Answer {
        let count = params.required::<Count>(0)?.get().min(HISTORY_BLOCKS_MAX);
        let height: BlockNumberOrTag = params.height(1)?;
        let percentiles: Vec<f64> = params.optional(2)?.unwrap_or_default();
        check_percentiles(&percentiles)?;
        let newest = self.number(height);
        let head = self.newest();
        if newest > head {
            return Err(Error::Failed(format!("block {newest} is beyond the newest, {head}")));
        }
        if count == 0 {
            return answer(&FeeHistory::default());
        }
        let oldest = (newest + 1).saturating_sub(count);
        answer(&self.fee_history(oldest..=newest, &percentiles)?)
    }

    fn fee_history(
        &self,
        blocks: RangeInclusive<u64>,
        percentiles: &[f64],
    ) -> Result<FeeHistory, Error> {
        let mut history = FeeHistory { oldest_block: *blocks.start(), ..FeeHistory::default() };
        let mut rewards = Vec::new();
        let mut last = None;
        for number in blocks {
            let Some(header) = self.header(BlockId::number(number))? else { break };
            self.add_block(&mut history, &header);
            if !percentiles.is_empty() {
                let block = self.block(BlockId::number(number))?;
                let receipts = self.receipts(number)?;
                let paid = block.map(|block| paid(&block, &receipts)).unwrap_or_default();
                rewards.push(pick(paid, percentiles, header.gas_used));
            }
            last = Some(header);
        }
        if let Some(header) = last {
            self.add_next(&mut history, &header);
        }
        history.reward = (!percentiles.is_empty()).then_some(rewards);
        Ok(history)
    }

    fn add_block(&self, history: &mut FeeHistory, header: &Header) {
        history.base_fee_per_gas.push(header.base_fee_per_gas.unwrap_or(0).into());
        history.gas_used_ratio.push(ratio(header.gas_used, header.gas_limit));
        let blobs = self.chain().spec().blob_params(header.timestamp);
        let blob_fee = blobs.and_then(|params| header.blob_fee(params));
        history.base_fee_per_blob_gas.push(blob_fee.unwrap_or(0));
        let blob_gas_max = blobs.map_or(0, |params| params.max_blob_gas_per_block());
        let blob_gas = header.blob_gas_used.unwrap_or(0);
        history.blob_gas_used_ratio.push(ratio(blob_gas, blob_gas_max));
    }

    /// What the block after `header` costs.
    fn add_next(&self, history: &mut FeeHistory, header: &Header) {
        let spec = self.chain().spec();
        let soon = header.timestamp.saturating_add(1);
        let base_fee = spec.base_fee_after(header, soon);
        history.base_fee_per_gas.push(base_fee.unwrap_or(0).into());
        let blob_fee = spec.blob_params(soon).and_then(|params| header.next_block_blob_fee(params));
        history.base_fee_per_blob_gas.push(blob_fee.unwrap_or(0));
    }
}

/// A count in hexadecimal, or as a number, which some libraries send.
#[derive(Deserialize)]
#[serde(untagged)]
enum Count {
    Number(u64),
    Text(U64),
}

impl Count {
    fn get(&self) -> u64 {
        match self {
            Self::Number(count) => *count,
            Self::Text(count) => count.to(),
        }
    }
}

fn check_percentiles(percentiles: &[f64]) -> Result<(), Error> {
    if percentiles.len() > PERCENTILES_MAX {
        return Err(argument(2, format!("at most {PERCENTILES_MAX} percentiles are given")));
    }
    let rising = percentiles.is_sorted();
    if !rising || percentiles.iter().any(|percentile| !(0.0..=100.0).contains(percentile)) {
        return Err(argument(2, "percentiles rise from 0 to 100"));
    }
    Ok(())
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn is_full(header: &Header) -> bool {
    header.gas_used.saturating_mul(100) >= header.gas_limit.saturating_mul(FULL_PERCENT)
}

/// The least tip with which a transaction entered `block`.
fn least_tip(block: &Block) -> u128 {
    let base_fee = block.header.base_fee_per_gas.unwrap_or(0);
    let tips = block.transactions.iter();
    tips.filter_map(|one| one.effective_tip_per_gas(base_fee)).min().unwrap_or(0)
}

/// What each transaction paid per gas beside the base fee, and how much gas it used; rising.
fn paid(block: &Block, receipts: &[Receipt]) -> Vec<(u128, u64)> {
    let base_fee = block.header.base_fee_per_gas.unwrap_or(0);
    let mut before = 0;
    let mut paid: Vec<(u128, u64)> = block
        .transactions
        .iter()
        .zip(receipts)
        .map(|(transaction, receipt)| {
            let gas = receipt.cumulative_gas_used().saturating_sub(before);
            before = receipt.cumulative_gas_used();
            (transaction.effective_tip_per_gas(base_fee).unwrap_or(0), gas)
        })
        .collect();
    paid.sort_unstable();
    paid
}

/// For each percentile of the gas used, the tip of the transaction that used it.
fn pick(paid: Vec<(u128, u64)>, percentiles: &[f64], gas_used: u64) -> Vec<u128> {
    let mut picked = Vec::with_capacity(percentiles.len());
    let mut rest = paid.iter();
    let (mut tip, mut gas) = rest.next().copied().unwrap_or_default();
    for percentile in percentiles {
        let threshold = (gas_used as f64 * percentile / 100.0) as u64;
        while gas < threshold {
            let Some((next, more)) = rest.next() else { break };
            tip = *next;
            gas += more;
        }
        picked.push(tip);
    }
    picked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_of_gas_not_of_transactions() {
        let paid = vec![(1, 90), (2, 5), (9, 5)];
        assert_eq!(pick(paid, &[0.0, 50.0, 90.0, 95.0, 100.0], 100), [1, 1, 1, 2, 9]);
        assert_eq!(pick(Vec::new(), &[50.0], 0), [0]);
    }

    #[test]
    fn percentiles_that_fall_or_leave_the_scale_are_refused() {
        assert!(check_percentiles(&[0.0, 50.0, 100.0]).is_ok());
        for wrong in [vec![2.0, 1.0], vec![-1.0], vec![101.0], vec![f64::NAN], vec![1.0; 101]] {
            assert!(check_percentiles(&wrong).is_err(), "{wrong:?}");
        }
    }
}
