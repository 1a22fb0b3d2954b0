//! What calls name, found in the chain: blocks by number, tag or hash, and the state after them.

use std::sync::Arc;

use alloy_consensus::Header;
use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::{B256, Sealed};

use super::Rpc;
use super::message::Error;
use crate::{At, Block, ChainError, Parent, Receipt};

impl Rpc {
    /// The number that a tag stands for. What waits for a block is in none, so the pending block is
    /// the newest; what stands in a block is final, so the safe one is too.
    pub(super) fn number(&self, height: BlockNumberOrTag) -> u64 {
        match height {
            BlockNumberOrTag::Number(number) => number,
            BlockNumberOrTag::Earliest => 0,
            BlockNumberOrTag::Latest
            | BlockNumberOrTag::Finalized
            | BlockNumberOrTag::Safe
            | BlockNumberOrTag::Pending => self.newest(),
        }
    }

    /// The number of the newest block.
    pub(super) fn newest(&self) -> u64 {
        self.chain().head().header.number
    }

    /// The number of the block that `id` names, if there is such a one.
    pub(super) fn number_of(&self, id: BlockId) -> Result<Option<u64>, Error> {
        match id {
            BlockId::Number(height) => {
                let number = self.number(height);
                Ok((number <= self.newest()).then_some(number))
            }
            BlockId::Hash(hash) => self.number_of_hash(hash.block_hash),
        }
    }

    /// The number of the block with this hash, if it is final.
    pub(super) fn number_of_hash(&self, hash: B256) -> Result<Option<u64>, Error> {
        let Some(header) = self.chain().header(hash).map_err(failed)? else { return Ok(None) };
        let number = header.number;
        let last = self.chain().header(number).map_err(failed)?;
        Ok(last.is_some_and(|last| last.hash() == hash).then_some(number))
    }

    /// The header of the block that `id` names, if there is such a one.
    pub(super) fn header(&self, id: BlockId) -> Result<Option<Sealed<Header>>, Error> {
        let Some(number) = self.number_of(id)? else { return Ok(None) };
        self.chain().header(number).map_err(failed)
    }

    /// The block that `id` names, if there is such a one.
    pub(super) fn block(&self, id: BlockId) -> Result<Option<Arc<Block>>, Error> {
        let Some(number) = self.number_of(id)? else { return Ok(None) };
        let block = self.chain().block(number).map_err(failed)?;
        block.ok_or_else(|| pruned(number)).map(Some)
    }

    /// The receipts of block `number`, which is there.
    pub(super) fn receipts(&self, number: u64) -> Result<Arc<Vec<Receipt>>, Error> {
        self.chain().receipts(number).map_err(failed)?.ok_or_else(|| pruned(number))
    }

    /// The oldest block whose transactions are still kept, beside genesis.
    pub(super) fn oldest(&self) -> Result<u64, Error> {
        let kept = |number| Ok(self.chain().receipts(number).map_err(failed)?.is_some());
        let (mut low, mut high) = (0, self.newest());
        if kept(1.min(high))? {
            return Ok(0);
        }
        while low + 1 < high {
            let middle = low.midpoint(high);
            if kept(middle)? { high = middle } else { low = middle }
        }
        Ok(high)
    }

    /// The block that `id` names, with the state after it.
    pub(super) fn at(&self, id: BlockId) -> Result<Arc<Parent>, Error> {
        let number = self.number_of(id)?.ok_or_else(|| unknown(id))?;
        self.chain().parent(number).map_err(failed)
    }
}

/// The error that there is no such block.
pub(super) fn unknown(id: BlockId) -> Error {
    Error::Failed(match id {
        BlockId::Hash(hash) => format!("block {} not found", hash.block_hash),
        BlockId::Number(number) => format!("block {number} not found"),
    })
}

/// The error that a block's transactions were dropped.
fn pruned(number: u64) -> Error {
    Error::Pruned(format!("the transactions of block {number} are no longer kept"))
}

/// The error of a chain that could not be read.
pub(super) fn failed(error: ChainError) -> Error {
    match error {
        ChainError::Pruned { .. } => Error::Pruned(error.to_string()),
        ChainError::Far { .. } => Error::Limit(error.to_string()),
        ChainError::Unknown(At::Number(number)) => unknown(BlockId::number(number)),
        ChainError::Unknown(At::Hash(hash)) => unknown(hash.into()),
        error => Error::Internal(error.to_string()),
    }
}
