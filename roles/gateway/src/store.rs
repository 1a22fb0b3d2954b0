//! Keeps answers with their receipts, the lanes that paid for them, and the lies that were told, as
//! JSON in a redb file.
//!
//! An answer and what it moved are one row each of one transaction, so neither is there without the
//! other. One commit costs a flush of the disk, whatever it holds. So answers that finish while a commit
//! runs wait and share the next one, and the disk's latency does not limit how many finish.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use assay_protocol::{Amount, Answer, B256, ChannelId, OrderHash};
use redb::{
    Database, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

/// Order hash → [`Answer`].
const ANSWERS: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("answers");
/// Channel id → lane, with the number of its change: a later one is never overwritten by an earlier.
const LANES: TableDefinition<'_, [u8; 32], (u64, &[u8])> = TableDefinition::new("lanes");
/// Hash of an API key → its terms.
const KEYS: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("keys");
/// Hash of an API key → what its answers have cost, in base units.
const SPENT: TableDefinition<'_, [u8; 32], u128> = TableDefinition::new("spent");
/// Order hash → what a provider signed for it that is not so.
const LIES: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("lies");

/// Why an answer could not be kept or found.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The database failed: a full disk, a file in use by another process, a broken file.
    #[error("{0}")]
    Database(Arc<redb::Error>),
    /// A row is no JSON, or not what it should say.
    #[error("a row cannot be written or read: {0}")]
    Format(String),
    /// The store is shutting down.
    #[error("the store has stopped")]
    Stopped,
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self::Database(Arc::new(error.into()))
    }
}

/// Bytes of the file kept in memory. Answers are written once and seldom read.
const CACHE_BYTES: usize = 16 << 20;

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
    /// So much more was spent with a key.
    Spend {
        key: B256,
        amount: Amount,
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
        }
        Ok(())
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Format(error.to_string()))
}

/// What one gateway bought, and how it pays.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// Empty after a failure, until the next use opens it again: a database that met a full disk
    /// does not recover by itself.
    database: RwLock<Option<Arc<Database>>>,
    /// What waits for the next commit.
    waiting: Mutex<Vec<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    rows: Vec<Row>,
    kept: oneshot::Sender<Result<(), StoreError>>,
}

impl Store {
    /// Opens the file at `path`, or creates it.
    pub(crate) async fn open(path: PathBuf) -> Result<Self, StoreError> {
        let inner =
            Arc::new(Inner { path, database: RwLock::default(), waiting: Mutex::default() });
        let store = Self { inner };
        store.blocking(|inner| inner.database().map(drop)).await?;
        Ok(store)
    }

    /// Keeps `rows`, all or none. On return they are on disk.
    pub(crate) async fn keep(&self, rows: Vec<Row>) -> Result<(), StoreError> {
        let (kept, done) = oneshot::channel();
        let waiting = Waiting { rows, kept };
        self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(waiting);
        self.blocking(|inner| {
            inner.commit();
            Ok(())
        })
        .await?;
        done.await.map_err(|_| StoreError::Stopped)?
    }

    /// Every lane, with the number of its last change.
    pub(crate) async fn lanes<T>(&self) -> Result<Vec<(u64, T)>, StoreError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        self.blocking(Inner::lanes).await
    }

    /// The answer to `order` as JSON, if there is one.
    pub(crate) async fn find(&self, order: OrderHash) -> Result<Option<Vec<u8>>, StoreError> {
        self.blocking(move |inner| inner.read(order)).await
    }

    /// Every API key, with what it has spent.
    pub(crate) async fn keys<T>(&self) -> Result<Vec<(B256, T, Amount)>, StoreError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        self.blocking(Inner::keys).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || work(&inner)).await.map_err(|_| StoreError::Stopped)?
    }
}

impl Inner {
    /// The open database.
    fn database(&self) -> Result<Arc<Database>, StoreError> {
        let open = self.database.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(database) = open {
            return Ok(database);
        }
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = slot.as_ref() {
            return Ok(Arc::clone(database));
        }
        let database =
            Arc::new(Database::builder().set_cache_size(CACHE_BYTES).create(&self.path)?);
        *slot = Some(Arc::clone(&database));
        Ok(database)
    }

    /// Forgets a database that failed.
    fn close(&self) {
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Keeps everything that waits, and tells those who wait.
    fn commit(&self) {
        let mut batch = Vec::new();
        let result = self.database().and_then(|database| {
            let transaction = database.begin_write()?;
            // Taken only now: whoever came while another commit ran is in this one.
            batch =
                std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            if batch.is_empty() {
                return Ok(transaction.abort()?);
            }
            for row in batch.iter().flat_map(|waiting| &waiting.rows) {
                row.put(&transaction)?;
            }
            Ok(transaction.commit()?)
        });
        if result.is_err() {
            self.close();
            // Without a transaction nobody was taken yet, and nobody else may come for them.
            let left =
                std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            batch.extend(left);
        }
        for waiting in batch {
            // A buyer's task that is gone needs no word.
            let _ = waiting.kept.send(result.clone());
        }
    }

    fn read(&self, order: OrderHash) -> Result<Option<Vec<u8>>, StoreError> {
        let read = || -> Result<Option<Vec<u8>>, StoreError> {
            let transaction = self.database()?.begin_read()?;
            let table = match transaction.open_table(ANSWERS) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            Ok(table.get(order.0.0)?.map(|bytes| bytes.value().to_vec()))
        };
        read().inspect_err(|_| self.close())
    }

    fn lanes<T: DeserializeOwned>(&self) -> Result<Vec<(u64, T)>, StoreError> {
        let transaction = self.database()?.begin_read()?;
        let Some(table) = existing(transaction.open_table(LANES))? else { return Ok(Vec::new()) };
        let mut lanes = Vec::new();
        for row in table.iter()? {
            let (_, row) = row?;
            let (change, json) = row.value();
            lanes.push((change, parsed(json)?));
        }
        Ok(lanes)
    }

    fn keys<T: DeserializeOwned>(&self) -> Result<Vec<(B256, T, Amount)>, StoreError> {
        let transaction = self.database()?.begin_read()?;
        let Some(table) = existing(transaction.open_table(KEYS))? else { return Ok(Vec::new()) };
        let spent = existing(transaction.open_table(SPENT))?;
        let mut keys = Vec::new();
        for row in table.iter()? {
            let (id, json) = row?;
            let spent = spent.as_ref().map(|spent| spent.get(id.value())).transpose()?.flatten();
            let spent = Amount(spent.map_or(0, |row| row.value()));
            keys.push((B256::from(id.value()), parsed(json.value())?, spent));
        }
        Ok(keys)
    }
}

/// A table, unless nothing was ever written into it.
fn existing<T>(opened: Result<T, TableError>) -> Result<Option<T>, StoreError> {
    match opened {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn parsed<T: DeserializeOwned>(json: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(json).map_err(|error| StoreError::Format(error.to_string()))
}
