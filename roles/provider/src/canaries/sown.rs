//! What is kept of a canary, from its draft until its prize is back.

use assay_chain::{Canary, Filing};
use assay_protocol::{Answer, B256, ChainId, Signature};
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::store::{Kept, Ordered, StoreError, existing, parse, put};

/// Order → [`Sown`], JSON.
const CANARIES: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("canaries");

/// A canary of this provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sown {
    pub(crate) canary: Canary,
    pub(crate) ordered: Ordered,
    /// The order's.
    pub(crate) signature: Signature,
    /// When it is ordered, Unix seconds.
    pub(crate) serve_at: u64,
    pub(crate) stage: Stage,
}

/// How far a canary is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Stage {
    /// It is kept here; nobody else knows of it.
    Drafted,
    /// It is planted, and waits for its time.
    Planted,
    /// It was answered.
    Served {
        /// No period before this one has its receipt.
        from: u64,
    },
    /// It was not answered in time; what is left is its prize.
    Lapsed,
}

impl Sown {
    /// What is unveiled: the receipt that answered it.
    pub(crate) fn filing(&self, kept: &Kept, chain_id: ChainId) -> Filing {
        let Ordered { order, terms } = self.ordered.clone();
        let sealed = kept.sealed.clone();
        let answer = Answer {
            schema: Answer::SCHEMA.into(),
            chain_id,
            order,
            order_signature: self.signature,
            terms,
            request: None,
            output: sealed.output,
            text: String::new(),
            receipt: sealed.receipt,
            receipt_signature: sealed.signature,
            states: sealed.states,
            vector: None,
        };
        Filing::of(&answer, None)
    }

    fn key(&self) -> [u8; 32] {
        self.canary.order.0.0
    }
}

/// All of them.
pub(crate) fn all(read: &ReadTransaction) -> Result<Vec<Sown>, StoreError> {
    let Some(table) = existing(read.open_table(CANARIES))? else { return Ok(Vec::new()) };
    table.iter()?.map(|row| parse(row?.1.value(), "canary")).collect()
}

/// The one that this order is.
pub(crate) fn of(read: &ReadTransaction, order: B256) -> Result<Option<Sown>, StoreError> {
    let Some(table) = existing(read.open_table(CANARIES))? else { return Ok(None) };
    table.get(order.0)?.map(|bytes| parse(bytes.value(), "canary")).transpose()
}

/// Keeps one.
pub(crate) fn keep(write: &WriteTransaction, sown: &Sown) -> Result<(), StoreError> {
    put(&mut write.open_table(CANARIES)?, sown.key(), sown)
}

/// Forgets one.
pub(crate) fn forget(write: &WriteTransaction, sown: &Sown) -> Result<(), StoreError> {
    write.open_table(CANARIES)?.remove(sown.key())?;
    Ok(())
}
