//! Logs: searches, and filters that go on where they stopped.
//!
//! A header's bloom filter says most often that a block has nothing to look for, so a search reads
//! headers and only a few bodies. It is bounded all the same: in blocks, in what it finds, in time.

use std::sync::Arc;
use std::time::Instant;

use alloy_eips::BlockId;
use alloy_primitives::B256;
use alloy_rpc_types_eth::{Filter, FilterBlockOption, Log};

use super::Rpc;
use super::filters::{FilterId, Watch};
use super::message::{Answer, Error, answer};
use super::params::Params;
use super::shape;

/// Which logs are wanted: addresses, topics, and blocks.
pub(crate) type LogFilter = Filter;

impl Rpc {
    /// `[filter]`
    pub(super) fn eth_get_logs(&self, params: &Params<'_>) -> Answer {
        answer(&self.find_logs(&params.required(0)?)?)
    }

    fn find_logs(&self, filter: &LogFilter) -> Result<Vec<Log>, Error> {
        match filter.block_option {
            FilterBlockOption::AtBlockHash(hash) => {
                let number = self.number_of_hash(hash)?;
                let number = number.ok_or_else(|| Error::Failed("unknown block".into()))?;
                self.search(filter, number, number)
            }
            FilterBlockOption::Range { from_block, to_block } => {
                let newest = self.newest();
                let from = from_block.map_or(newest, |from| self.number(from));
                let to = to_block.map_or(newest, |to| self.number(to));
                if from > to {
                    return Err(Error::Arguments(format!("blocks {from} to {to} are no range")));
                }
                if to > newest {
                    let reason = format!("block {to} is beyond the newest, {newest}");
                    return Err(Error::Arguments(reason));
                }
                self.search(filter, from, to)
            }
        }
    }

    /// The logs of blocks `from` to `to`.
    fn search(&self, filter: &LogFilter, from: u64, to: u64) -> Result<Vec<Log>, Error> {
        let limits = self.limits();
        let span = to - from + 1;
        if span > limits.logs_blocks_max {
            let max = limits.logs_blocks_max;
            return Err(narrow(&format!(
                "{span} blocks are asked for, at most {max} are searched"
            )));
        }
        let deadline = limits.deadline();
        let mut found = Vec::new();
        for number in from..=to {
            if Instant::now() >= deadline {
                let reason = format!("the search took too long and came to block {number}");
                return Err(narrow(&reason));
            }
            let Some(header) = self.header(BlockId::number(number))? else { continue };
            if !filter.matches_bloom(header.logs_bloom) {
                continue;
            }
            let Some(block) = self.block(BlockId::number(number))? else { continue };
            let receipts = self.receipts(number)?;
            found.extend(shape::logs(&block, &receipts, |log| filter.matches(log)));
            if found.len() > limits.logs_max {
                let max = limits.logs_max;
                return Err(narrow(&format!("more than {max} logs up to block {number}")));
            }
        }
        Ok(found)
    }

    /// `[filter]`
    pub(super) fn eth_new_filter(&self, params: &Params<'_>) -> Answer {
        let filter: LogFilter = params.required(0)?;
        if filter.block_option.is_block_hash() {
            return Err(Error::Arguments("a filter of one block never changes".into()));
        }
        let next = self.newest() + 1;
        let from = filter.get_from_block().map_or(next, |from| from.max(next));
        self.add_filter(Watch::Logs(Arc::new(filter), from))
    }

    /// `[]`
    pub(super) fn eth_new_block_filter(&self, _: &Params<'_>) -> Answer {
        self.add_filter(Watch::Blocks(self.newest() + 1))
    }

    /// `[]`
    pub(super) fn eth_new_pending_transaction_filter(&self, _: &Params<'_>) -> Answer {
        self.add_filter(Watch::Pending(self.mempool().subscribe()))
    }

    fn add_filter(&self, watch: Watch) -> Answer {
        answer(&self.filters().add(watch, Instant::now())?)
    }

    /// `[filter id]`
    pub(super) fn eth_uninstall_filter(&self, params: &Params<'_>) -> Answer {
        answer(&self.filters().remove(params.required(0)?))
    }

    /// `[filter id]`
    pub(super) fn eth_get_filter_logs(&self, params: &Params<'_>) -> Answer {
        let id: FilterId = params.required(0)?;
        let filter = self.filters().ask(id, Instant::now(), |watch| match watch {
            Watch::Logs(filter, _) => Ok(Arc::clone(filter)),
            _ => Err(Error::Failed("this is no filter of logs".into())),
        })?;
        answer(&self.find_logs(&filter)?)
    }

    /// `[filter id]`
    pub(super) fn eth_get_filter_changes(&self, params: &Params<'_>) -> Answer {
        let id: FilterId = params.required(0)?;
        match self.filters().ask(id, Instant::now(), |watch| Ok(self.step(watch)))? {
            Step::Blocks(from, to) => answer(&self.hashes(from, to)?),
            Step::Logs(filter, from, to) => answer(&self.changed_logs(&filter, from, to)?),
            Step::Pending(hashes) => answer(&hashes),
        }
    }

    /// Moves a filter past all that there is, and gives what is between. The reading comes after,
    /// when the filters are no longer held.
    fn step(&self, watch: &mut Watch) -> Step {
        let newest = self.newest();
        // Blocks are taken back only by development methods; what comes after is new again.
        let past = |next: &mut u64| {
            let from = (*next).min(newest + 1);
            *next = newest + 1;
            from
        };
        match watch {
            Watch::Blocks(next) => Step::Blocks(past(next), newest),
            Watch::Logs(filter, next) if *next > newest + 1 => {
                // It begins in the future.
                Step::Logs(Arc::clone(filter), 1, 0)
            }
            Watch::Logs(filter, next) => Step::Logs(Arc::clone(filter), past(next), newest),
            Watch::Pending(pending) => {
                let mut hashes = Vec::new();
                loop {
                    match pending.try_recv() {
                        Ok(hash) => hashes.push(hash),
                        Err(tokio::sync::broadcast::error::TryRecvError::Lagged(_)) => {}
                        Err(_) => return Step::Pending(hashes),
                    }
                }
            }
        }
    }

    fn hashes(&self, from: u64, to: u64) -> Result<Vec<B256>, Error> {
        let max = self.limits().logs_blocks_max;
        // Who did not ask for so long hears of the newest.
        let from = from.max((to + 1).saturating_sub(max));
        let mut hashes = Vec::new();
        for number in from..=to {
            hashes.extend(self.header(BlockId::number(number))?.map(|header| header.hash()));
        }
        Ok(hashes)
    }

    fn changed_logs(&self, filter: &LogFilter, from: u64, to: u64) -> Result<Vec<Log>, Error> {
        let last = filter.get_to_block().map_or(to, |last| last.min(to));
        if from > last { Ok(Vec::new()) } else { self.search(filter, from, last) }
    }
}

/// What a filter has to tell.
enum Step {
    Blocks(u64, u64),
    Logs(Arc<LogFilter>, u64, u64),
    Pending(Vec<B256>),
}

fn narrow(reason: &str) -> Error {
    Error::Limit(format!("{reason}: ask for fewer blocks, addresses or topics"))
}
