//! What a provider may not forget, in a redb file: sealed answers, answers that run, channels, what is
//! spent of grants, the line of receipts, the periods they were posted in, and canaries.
//!
//! One commit costs a flush of the disk, whatever it holds. So changes that come while a commit
//! runs wait and share the next one, and the disk's latency does not limit how many answers finish.

mod posted;
mod tables;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use assay_protocol::OrderHash;
use redb::{Database, DatabaseError, ReadTransaction, ReadableDatabase, WriteTransaction};
use tokio::sync::oneshot;

pub(crate) use posted::{
    Accounts, Line, Period, accounts, drop_period, last_period, period, receipts, set_period,
};
pub(crate) use tables::{
    Begun, Kept, Left, Ordered, account, begin, begun, checkpoint, existing, forget, kept, left,
    mark, meta, parse, put, seal, set_meta, spent, update,
};

/// Why something could not be kept or found.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The database failed: a full disk, a file in use by another process, a broken file.
    #[error("{0}")]
    Database(Arc<redb::Error>),
    /// What is stored is not what it should be.
    #[error("the stored {what} cannot be read: {reason}")]
    Format {
        /// What it should be.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
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

/// What one provider may not forget.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    inner: Arc<Inner>,
}

/// A change to the tables. Those of one commit are made in the order in which they were handed in.
type Change = Box<dyn FnOnce(&WriteTransaction) -> Result<(), StoreError> + Send>;

struct Inner {
    open: Open,
    /// Empty after a failure, until the next use opens it again.
    database: RwLock<Option<Arc<Database>>>,
    /// Changes that wait for the next commit.
    waiting: Mutex<Vec<Waiting>>,
}

struct Waiting {
    change: Change,
    done: oneshot::Sender<Result<(), StoreError>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("open", &self.open).finish_non_exhaustive()
    }
}

impl Store {
    pub(crate) async fn open(open: Open) -> Result<Self, StoreError> {
        let inner =
            Arc::new(Inner { open, database: RwLock::default(), waiting: Mutex::default() });
        let store = Self { inner };
        store.blocking(|inner| inner.database().map(drop)).await?;
        Ok(store)
    }

    /// Makes a change. On return it is on disk, whole. After an error it may be there or not.
    pub(crate) async fn write(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        self.inner
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Waiting { change: Box::new(change), done });
        self.blocking(|inner| {
            inner.commit();
            Ok(())
        })
        .await?;
        answer.await.map_err(|_| StoreError::Stopped)?
    }

    /// Reads what is on disk.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.blocking(move |inner| {
            let result = inner.database().and_then(|database| read(&database.begin_read()?));
            if let Err(StoreError::Database(_)) = &result {
                inner.close();
            }
            result
        })
        .await
    }

    /// The answer to `order`, if there is one.
    pub(crate) async fn find(&self, order: OrderHash) -> Result<Option<Kept>, StoreError> {
        self.read(move |transaction| kept(transaction, order)).await
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

    /// Makes every change that waits, in one commit, and tells those who wait.
    fn commit(&self) {
        let mut told = Vec::new();
        let result = self.database().and_then(|database| {
            let transaction = database.begin_write()?;
            // Taken only now: whoever came while another commit ran is in this one.
            let batch = self.take();
            if batch.is_empty() {
                return Ok(transaction.abort()?);
            }
            let mut changes = Vec::with_capacity(batch.len());
            for Waiting { change, done } in batch {
                changes.push(change);
                told.push(done);
            }
            for change in changes {
                change(&transaction)?;
            }
            Ok(transaction.commit()?)
        });
        if result.is_err() {
            self.close();
            // Without a transaction nobody was taken yet, and nobody else may come for them.
            told.extend(self.take().into_iter().map(|waiting| waiting.done));
        }
        for done in told {
            // A buyer's task that is gone needs no word.
            let _ = done.send(result.clone());
        }
    }

    fn take(&self) -> Vec<Waiting> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
