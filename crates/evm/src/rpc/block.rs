//! Blocks, their transactions and receipts.

use std::sync::Arc;
use std::time::Duration;

use alloy_eips::{BlockId, Encodable2718};
use alloy_primitives::{B256, Bytes, U64};
use serde_json::value::RawValue;

use super::Rpc;
use super::message::{Answer, Error, answer};
use super::params::Params;
use super::read::failed;
use super::shape;
use crate::Block;

/// Longest that `eth_sendRawTransactionSync` waits, whatever it is asked.
const SEND_WAIT_MAX: Duration = Duration::from_secs(60);

/// How long `eth_sendRawTransactionSync` waits when it is not told.
const SEND_WAIT: Duration = Duration::from_secs(20);

impl Rpc {
    /// `[hash, whole transactions]`
    pub(super) fn eth_get_block_by_hash(&self, params: &Params<'_>) -> Answer {
        self.told_block(params.hash(0)?.into(), params)
    }

    /// `[block, whole transactions]`
    pub(super) fn eth_get_block_by_number(&self, params: &Params<'_>) -> Answer {
        self.told_block(params.height(0)?.into(), params)
    }

    fn told_block(&self, id: BlockId, params: &Params<'_>) -> Answer {
        let full = params.optional(1)?.unwrap_or(false);
        answer(&self.block(id)?.map(|block| shape::block(&block, full)))
    }

    /// `[block]`
    pub(super) fn eth_get_block_receipts(&self, params: &Params<'_>) -> Answer {
        let Some(block) = self.block(params.block(0)?)? else { return null() };
        let receipts = self.receipts(block.number())?;
        let blobs = self.chain().spec().blob_params(block.header.timestamp);
        answer(&shape::receipts(&block, &receipts, blobs))
    }

    /// `[hash]`
    pub(super) fn eth_get_block_transaction_count_by_hash(&self, params: &Params<'_>) -> Answer {
        self.transaction_count(params.hash(0)?.into())
    }

    /// `[block]`
    pub(super) fn eth_get_block_transaction_count_by_number(&self, params: &Params<'_>) -> Answer {
        self.transaction_count(params.height(0)?.into())
    }

    fn transaction_count(&self, id: BlockId) -> Answer {
        answer(&self.block(id)?.map(|block| U64::from(block.transactions.len())))
    }

    /// `[hash]`
    pub(super) fn eth_get_uncle_count_by_block_hash(&self, params: &Params<'_>) -> Answer {
        self.uncle_count(params.hash(0)?.into())
    }

    /// `[block]`
    pub(super) fn eth_get_uncle_count_by_block_number(&self, params: &Params<'_>) -> Answer {
        self.uncle_count(params.height(0)?.into())
    }

    fn uncle_count(&self, id: BlockId) -> Answer {
        answer(&self.block(id)?.map(|block| U64::from(block.ommers.len())))
    }

    /// `[hash, index]`
    pub(super) fn eth_get_uncle_by_block_hash_and_index(&self, params: &Params<'_>) -> Answer {
        self.uncle(params.hash(0)?.into(), params)
    }

    /// `[block, index]`
    pub(super) fn eth_get_uncle_by_block_number_and_index(&self, params: &Params<'_>) -> Answer {
        self.uncle(params.height(0)?.into(), params)
    }

    fn uncle(&self, id: BlockId, params: &Params<'_>) -> Answer {
        let index = index(params)?;
        let block = self.block(id)?;
        answer(&block.and_then(|block| block.ommers.get(index).map(shape::ommer)))
    }

    /// `[hash, index]`
    pub(super) fn eth_get_transaction_by_block_hash_and_index(
        &self,
        params: &Params<'_>,
    ) -> Answer {
        self.transaction_in(params.hash(0)?.into(), params)
    }

    /// `[block, index]`
    pub(super) fn eth_get_transaction_by_block_number_and_index(
        &self,
        params: &Params<'_>,
    ) -> Answer {
        self.transaction_in(params.height(0)?.into(), params)
    }

    fn transaction_in(&self, id: BlockId, params: &Params<'_>) -> Answer {
        let index = index(params)?;
        answer(&self.block(id)?.and_then(|block| shape::transaction(&block, index)))
    }

    /// `[hash]`
    pub(super) fn eth_get_transaction_by_hash(&self, params: &Params<'_>) -> Answer {
        let hash = params.hash(0)?;
        if let Some((block, index)) = self.place(&hash)? {
            return answer(&shape::transaction(&block, index));
        }
        answer(&self.mempool().get(&hash).map(|waiting| shape::waiting(&waiting)))
    }

    /// `[hash]`
    pub(super) fn eth_get_raw_transaction_by_hash(&self, params: &Params<'_>) -> Answer {
        answer(&self.raw_transaction(&params.hash(0)?)?)
    }

    /// The encoded transaction, from the chain or the mempool.
    pub(super) fn raw_transaction(&self, hash: &B256) -> Result<Option<Bytes>, Error> {
        if let Some((block, index)) = self.place(hash)? {
            let found = block.transactions.get(index);
            return Ok(found.map(|found| found.encoded_2718().into()));
        }
        Ok(self.mempool().get(hash).map(|waiting| waiting.encoded_2718().into()))
    }

    /// `[hash]`
    pub(super) fn eth_get_transaction_receipt(&self, params: &Params<'_>) -> Answer {
        answer(&self.receipt(&params.hash(0)?)?)
    }

    fn receipt(&self, hash: &B256) -> Result<Option<shape::ToldReceipt>, Error> {
        let Some((block, index)) = self.place(hash)? else { return Ok(None) };
        let receipts = self.receipts(block.number())?;
        let blobs = self.chain().spec().blob_params(block.header.timestamp);
        Ok(shape::receipt(&block, &receipts, index, blobs))
    }

    /// The block that holds a transaction, and its position there.
    pub(super) fn place(&self, hash: &B256) -> Result<Option<(Arc<Block>, usize)>, Error> {
        self.chain().transaction(hash).map_err(failed)
    }

    /// `[signed transaction]`
    pub(super) fn eth_send_raw_transaction(&self, params: &Params<'_>) -> Answer {
        let raw = params.bytes(0)?;
        answer(&self.mempool().add_raw(&raw).map_err(refused)?)
    }

    /// `[signed transaction, wait in ms]`: answers with the receipt once it stands in a block.
    pub(super) async fn eth_send_raw_transaction_sync(&self, params: Params<'_>) -> Answer {
        let raw = params.bytes(0)?;
        let wait = match params.optional::<Wait>(1)? {
            None => SEND_WAIT,
            Some(wait) => wait.duration().min(SEND_WAIT_MAX),
        };
        let mut blocks = self.chain().subscribe();
        let hash = self.mempool().add_raw(&raw).map_err(refused)?;
        let found = tokio::time::timeout(wait, async {
            loop {
                if let Some(receipt) = self.receipt(&hash)? {
                    return answer(&receipt);
                }
                if let Err(tokio::sync::broadcast::error::RecvError::Closed) = blocks.recv().await {
                    return Err(Error::Failed("the node stops".into()));
                }
            }
        });
        let wait_ms = wait.as_millis().try_into().unwrap_or(u64::MAX);
        found.await.unwrap_or(Err(Error::Pending { wait_ms, hash }))
    }
}

/// Milliseconds, as a number or in hexadecimal.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Wait {
    Number(u64),
    Text(U64),
}

impl Wait {
    fn duration(&self) -> Duration {
        Duration::from_millis(match self {
            Self::Number(ms) => *ms,
            Self::Text(ms) => ms.to(),
        })
    }
}

/// Why the mempool does not take a transaction.
pub(super) fn refused(refused: crate::mempool::Refused) -> Error {
    Error::Failed(refused.to_string())
}

/// The second parameter, a position in a block.
fn index(params: &Params<'_>) -> Result<usize, Error> {
    Ok(usize::try_from(params.quantity(1)?).unwrap_or(usize::MAX))
}

fn null() -> Result<Box<RawValue>, Error> {
    answer(&())
}
