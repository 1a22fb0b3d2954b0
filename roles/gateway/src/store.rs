//! Keeps answers with their receipts: order hash → [`Answer`], as JSON in a redb file.
//!
//! One commit costs a flush of the disk, whatever it holds. So answers that finish while a commit
//! runs wait and share the next one, and the disk's latency does not limit how many finish.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use assay_protocol::{Answer, OrderHash};
use redb::{Database, ReadableDatabase, TableDefinition, TableError};
use tokio::sync::oneshot;

const ANSWERS: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("answers");

/// Why an answer could not be kept or found.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The database failed: a full disk, a file in use by another process, a broken file.
    #[error("{0}")]
    Database(Arc<redb::Error>),
    /// The answer is no JSON.
    #[error("the answer cannot be written: {0}")]
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

/// The answers that one gateway bought.
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
    /// Answers that wait for the next commit.
    waiting: Mutex<Vec<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    order: OrderHash,
    answer: Vec<u8>,
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

    /// Keeps an answer. On return it is on disk.
    pub(crate) async fn keep(&self, order: OrderHash, answer: &Answer) -> Result<(), StoreError> {
        let answer = serde_json::to_vec(answer).map_err(|e| StoreError::Format(e.to_string()))?;
        let (kept, done) = oneshot::channel();
        self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(Waiting {
            order,
            answer,
            kept,
        });
        self.blocking(|inner| {
            inner.commit();
            Ok(())
        })
        .await?;
        done.await.map_err(|_| StoreError::Stopped)?
    }

    /// The answer to `order` as JSON, if there is one.
    pub(crate) async fn find(&self, order: OrderHash) -> Result<Option<Vec<u8>>, StoreError> {
        self.blocking(move |inner| inner.read(order)).await
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
            {
                let mut table = transaction.open_table(ANSWERS)?;
                for waiting in &batch {
                    table.insert(waiting.order.0.0, waiting.answer.as_slice())?;
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
            let table = match transaction.open_table(ANSWERS) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            Ok(table.get(order.0.0)?.map(|bytes| bytes.value().to_vec()))
        };
        read().inspect_err(|_| self.close())
    }
}
