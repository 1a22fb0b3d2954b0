//! Keeps answers with their receipts, the lanes that paid for them, what was spent, and the lies that were
//! told.
//!
//! An answer and what it moved are one row each of one change, so neither is there without the other.

use std::path::PathBuf;

use assay_protocol::{Amount, Answer, B256, ChannelId, OrderHash};
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use crate::disk::StoreError;
use crate::disk::{Disk, json, parsed};

/// Order hash → [`Answer`].
const ANSWERS: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("answers");
/// Channel id → lane, with the number of its change: a later one is never overwritten by an earlier.
const LANES: TableDefinition<'_, [u8; 32], (u64, &[u8])> = TableDefinition::new("lanes");
/// Hash of an API key → its terms.
const KEYS: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("keys");
/// Hash of an API key, or digest of a grant → what its answers have cost, in base units.
const SPENT: TableDefinition<'_, [u8; 32], u128> = TableDefinition::new("spent");
/// Order hash → what a provider signed for it that is not so.
const LIES: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("lies");
/// keccak256 of a buyer and its nonce → hash of the order that used it up.
const NONCES: TableDefinition<'_, [u8; 32], [u8; 32]> = TableDefinition::new("nonces");

/// One thing to keep.
#[derive(Debug)]
pub(crate) enum Row {
    Answer {
        order: OrderHash,
        json: Vec<u8>,
    },
    Lane {
        channel: ChannelId,
        change: u64,
        json: Vec<u8>,
    },
    Lie {
        order: OrderHash,
        json: Vec<u8>,
    },
    Key {
        id: B256,
        json: Vec<u8>,
    },
    /// So much more was spent with a key, or under a grant.
    Spend {
        key: B256,
        amount: Amount,
    },
    /// A buyer's nonce was used up; `name` is for both.
    Nonce {
        name: B256,
        order: OrderHash,
    },
}

impl Row {
    pub(crate) fn answer(order: OrderHash, answer: &Answer) -> Result<Self, StoreError> {
        Ok(Self::Answer { order, json: json(answer)? })
    }

    /// The `change`th state of a lane.
    pub(crate) fn lane(
        channel: ChannelId,
        change: u64,
        lane: &impl Serialize,
    ) -> Result<Self, StoreError> {
        Ok(Self::Lane { channel, change, json: json(lane)? })
    }

    pub(crate) fn lie(order: OrderHash, lie: &impl Serialize) -> Result<Self, StoreError> {
        Ok(Self::Lie { order, json: json(lie)? })
    }

    pub(crate) fn key(id: B256, key: &impl Serialize) -> Result<Self, StoreError> {
        Ok(Self::Key { id, json: json(key)? })
    }

    fn put(&self, transaction: &WriteTransaction) -> Result<(), StoreError> {
        match self {
            Self::Answer { order, json } => {
                transaction.open_table(ANSWERS)?.insert(order.0.0, json.as_slice())?;
            }
            Self::Lane { channel, change, json } => {
                let mut lanes = transaction.open_table(LANES)?;
                let newest = lanes.get(channel.0.0)?.map_or(0, |row| row.value().0);
                if newest < *change {
                    lanes.insert(channel.0.0, (*change, json.as_slice()))?;
                }
            }
            Self::Lie { order, json } => {
                transaction.open_table(LIES)?.insert(order.0.0, json.as_slice())?;
            }
            Self::Key { id, json } => {
                transaction.open_table(KEYS)?.insert(id.0, json.as_slice())?;
            }
            Self::Spend { key, amount } => {
                let mut spent = transaction.open_table(SPENT)?;
                let before = spent.get(key.0)?.map_or(0, |row| row.value());
                spent.insert(key.0, before.saturating_add(amount.0))?;
            }
            Self::Nonce { name, order } => {
                transaction.open_table(NONCES)?.insert(name.0, order.0.0)?;
            }
        }
        Ok(())
    }
}

/// What one gateway bought, and how it pays.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    disk: Disk,
}

impl Store {
    /// Opens the file at `path`, or creates it.
    pub(crate) async fn open(path: PathBuf) -> Result<Self, StoreError> {
        let disk = Disk::open(path, |transaction| {
            transaction.open_table(ANSWERS)?;
            transaction.open_table(LANES)?;
            transaction.open_table(LIES)?;
            transaction.open_table(KEYS)?;
            transaction.open_table(SPENT)?;
            transaction.open_table(NONCES)?;
            Ok(())
        });
        Ok(Self { disk: disk.await? })
    }

    /// Keeps `rows`, all or none. On return they are on disk.
    pub(crate) async fn keep(&self, rows: Vec<Row>) -> Result<(), StoreError> {
        self.disk
            .write(move |transaction| rows.iter().try_for_each(|row| row.put(transaction)))
            .await
    }

    /// Every lane, with the number of its last change.
    pub(crate) async fn lanes<T>(&self) -> Result<Vec<(u64, T)>, StoreError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let lanes = self.disk.read(|transaction| {
            let table = transaction.open_table(LANES)?;
            let mut lanes = Vec::new();
            for row in table.iter()? {
                let (_, row) = row?;
                let (change, json) = row.value();
                lanes.push((change, parsed(json)?));
            }
            Ok(lanes)
        });
        lanes.await
    }

    /// The answer to `order` as JSON, if there is one.
    pub(crate) async fn find(&self, order: OrderHash) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(ANSWERS, order).await
    }

    /// What a provider signed for `order` that is not so, as JSON, if it did.
    pub(crate) async fn lie(&self, order: OrderHash) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(LIES, order).await
    }

    async fn read(
        &self,
        table: TableDefinition<'static, [u8; 32], &'static [u8]>,
        order: OrderHash,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.disk.read(move |transaction| {
            let table = transaction.open_table(table)?;
            Ok(table.get(order.0.0)?.map(|bytes| bytes.value().to_vec()))
        });
        found.await
    }

    /// The first `max` orders, by hash, about which a provider lied, with what `T` reads of it.
    pub(crate) async fn lies<T>(&self, max: usize) -> Result<Vec<(OrderHash, T)>, StoreError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let lies = self.disk.read(move |transaction| {
            let table = transaction.open_table(LIES)?;
            let mut lies = Vec::new();
            for row in table.iter()?.take(max) {
                let (order, json) = row?;
                lies.push((OrderHash(order.value().into()), parsed(json.value())?));
            }
            Ok(lies)
        });
        lies.await
    }

    /// What answers under each of `names` have cost, in their order.
    pub(crate) async fn spent(&self, names: Vec<B256>) -> Result<Vec<Amount>, StoreError> {
        let spent = self.disk.read(move |transaction| {
            let table = transaction.open_table(SPENT)?;
            let mut spent = Vec::with_capacity(names.len());
            for name in &names {
                spent.push(Amount(table.get(name.0)?.map_or(0, |row| row.value())));
            }
            Ok(spent)
        });
        spent.await
    }

    /// The order that used up a buyer's nonce; `name` is for both.
    pub(crate) async fn nonce(&self, name: B256) -> Result<Option<OrderHash>, StoreError> {
        let order = self.disk.read(move |transaction| {
            let table = transaction.open_table(NONCES)?;
            Ok(table.get(name.0)?.map(|row| OrderHash(row.value().into())))
        });
        order.await
    }

    /// Every API key, with what it has spent.
    pub(crate) async fn keys<T>(&self) -> Result<Vec<(B256, T, Amount)>, StoreError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let keys = self.disk.read(|transaction| {
            let (table, spent) = (transaction.open_table(KEYS)?, transaction.open_table(SPENT)?);
            let mut keys = Vec::new();
            for row in table.iter()? {
                let (id, json) = row?;
                let spent = Amount(spent.get(id.value())?.map_or(0, |row| row.value()));
                keys.push((B256::from(id.value()), parsed(json.value())?, spent));
            }
            Ok(keys)
        });
        keys.await
    }
}
