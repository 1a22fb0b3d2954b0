//! Keeps sealed answers: order hash → [`Kept`], as JSON in a redb file.
//!
//! One commit costs a flush of the disk, whatever it holds. So answers that finish while a commit
//! runs wait and share the next one, and the disk's latency does not limit how many finish.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use assay_protocol::wire::Sealed;
use assay_protocol::{OrderHash, Signature};
use redb::{Database, DatabaseError, ReadableDatabase, TableDefinition, TableError};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

const SEALED: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("kept");

/// A sealed answer, and who may have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Kept {
    /// The order's signature as it was handed in: who knows it may read the answer.
    pub(crate) order_signature: Signature,
    pub(crate) sealed: Sealed,
}

/// Why an answer could not be kept or found.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The database failed: a full disk, a file in use by another process, a broken file.
    #[error("{0}")]
    Database(Arc<redb::Error>),
    /// What is stored is not an answer.
    #[error("the stored answer cannot be read: {0}")]
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

/// How the store's database is opened: at start, and again after it failed, because a database
/// that met a full disk does not recover by itself.
#[derive(Clone)]
pub struct Open(Arc<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>);

impl Open {
    /// Opens the file at `path`, or creates it.
    pub fn file(path: PathBuf) -> Self {
        Self::with(move || Database::builder().set_cache_size(CACHE_BYTES).create(&path))
    }

    /// Opens what `open` opens.
    pub fn with(
        open: impl Fn() -> Result<Database, DatabaseError> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(open))
    }
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Open")
    }
}

/// Bytes of the file kept in memory. Answers are written once and seldom read.
const CACHE_BYTES: usize = 16 << 20;

/// The sealed answers of one provider.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    open: Open,
    /// Empty after a failure, until the next use opens it again.
    database: RwLock<Option<Arc<Database>>>,
    /// Answers that wait for the next commit.
    waiting: Mutex<Vec<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    order: OrderHash,
    sealed: Vec<u8>,
    kept: oneshot::Sender<Result<(), StoreError>>,
}

impl Store {
    pub(crate) async fn open(open: Open) -> Result<Self, StoreError> {
        let inner =
            Arc::new(Inner { open, database: RwLock::default(), waiting: Mutex::default() });
        let store = Self { inner };
        store.blocking(|inner| inner.database().map(drop)).await?;
        Ok(store)
    }

    /// Keeps an answer. On return it is on disk.
    pub(crate) async fn keep(&self, order: OrderHash, kept: &Kept) -> Result<(), StoreError> {
        let sealed = serde_json::to_vec(kept).map_err(format_error)?;
        let (kept, answer) = oneshot::channel();
        self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(Waiting {
            order,
            sealed,
            kept,
        });
        self.blocking(|inner| {
            inner.commit();
            Ok(())
        })
        .await?;
        answer.await.map_err(|_| StoreError::Stopped)?
    }

    /// The answer to `order`, if there is one.
    pub(crate) async fn find(&self, order: OrderHash) -> Result<Option<Kept>, StoreError> {
        self.blocking(move |inner| {
            let Some(bytes) = inner.read(order)? else { return Ok(None) };
            serde_json::from_slice(&bytes).map(Some).map_err(format_error)
        })
        .await
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
        let database = Arc::new((self.open.0)()?);
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
            {
                let mut table = transaction.open_table(SEALED)?;
                for waiting in &batch {
                    table.insert(waiting.order.0.0, waiting.sealed.as_slice())?;
                }
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
            let table = match transaction.open_table(SEALED) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            Ok(table.get(order.0.0)?.map(|bytes| bytes.value().to_vec()))
        };
        read().inspect_err(|_| self.close())
    }
}

fn format_error(error: serde_json::Error) -> StoreError {
    StoreError::Format(error.to_string())
}
