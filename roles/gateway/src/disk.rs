//! Keeps tables in one redb file, and shares commits among all who write.
//!
//! A change is a function run inside the write that keeps its result, so no two changes of one row can
//! lose one another, and what a change touches is kept whole or not at all. One commit costs a flush of
//! the disk, whatever it holds: changes that come while one runs wait and share the next, so the disk's
//! latency does not limit how many are made.
//!
//! A database that met a full disk does not recover by itself. After a failure it is closed, and the next
//! use opens it again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use redb::{Database, ReadTransaction, ReadableDatabase, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

/// Why something could not be kept or found.
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

/// Bytes of the file kept in memory. Most rows are written once and seldom read.
const CACHE_BYTES: usize = 16 << 20;

/// A file of tables; clones share it.
#[derive(Clone)]
pub(crate) struct Disk {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    /// Empty after a failure, until the next use opens it again.
    database: RwLock<Option<Arc<Database>>>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// Changes that wait for the next commit.
    waiting: Vec<Change>,
    /// Whether a thread commits, and will look at what waits when it is done.
    committing: bool,
}

/// Makes a change within the commit's transaction, if there is one.
type Change = Box<dyn FnOnce(Result<&WriteTransaction, &StoreError>) -> Made + Send>;

/// What came of a change.
struct Made {
    /// Why the whole commit cannot be.
    broke: Option<StoreError>,
    settle: Settle,
}

/// Takes note of what came of a change, once that is on disk, …
type Settle = Box<dyn FnOnce(Result<(), StoreError>) -> Tell + Send>;

/// … and tells whoever asked for it.
type Tell = Box<dyn FnOnce() + Send>;

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("path", &self.inner.path).finish_non_exhaustive()
    }
}

impl Disk {
    /// Opens the file at `path`, or creates it, and lets `prepare` make its tables.
    pub(crate) async fn open(
        path: PathBuf,
        prepare: impl FnOnce(&WriteTransaction) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<Self, StoreError> {
        let inner = Inner { path, database: RwLock::default(), queue: Mutex::default() };
        let disk = Self { inner: Arc::new(inner) };
        disk.write(prepare).await?;
        Ok(disk)
    }

    /// Looks at what is on disk.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&ReadTransaction) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        let read = tokio::task::spawn_blocking(move || inner.read(look));
        read.await.map_err(|_| StoreError::Stopped)?
    }

    /// Makes a change; on return it is on disk. It is made even if nobody waits for it any more.
    ///
    /// A change that fails with [`StoreError::Format`] must not have written anything: the changes that
    /// share its commit stand. Any other failure undoes them all.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.write_then(change, |_| {}).await
    }

    /// As [`Disk::write`]; `after` sees what the change said once that is on disk, or nothing if it is not,
    /// before any later change is made.
    pub(crate) async fn write_then<T: Send + 'static>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, StoreError> + Send + 'static,
        after: impl FnOnce(Option<&T>) + Send + 'static,
    ) -> Result<T, StoreError> {
        let (tell, told) = oneshot::channel();
        let change: Change = Box::new(move |transaction| {
            let said = transaction.map_err(StoreError::clone).and_then(change);
            let broke = said.as_ref().err().filter(|error| error.is_fatal()).cloned();
            let settle: Settle = Box::new(move |kept| {
                let said = kept.and(said);
                after(said.as_ref().ok());
                // Whoever asked may be gone; the change stands all the same.
                Box::new(move || drop(tell.send(said)))
            });
            Made { broke, settle }
        });
        self.enqueue(change);
        told.await.map_err(|_| StoreError::Stopped)?
    }

    fn enqueue(&self, change: Change) {
        let mut queue = lock(&self.inner.queue);
        queue.waiting.push(change);
        if !std::mem::replace(&mut queue.committing, true) {
            drop(queue);
            let inner = Arc::clone(&self.inner);
            // It ends by itself, when nothing waits.
            tokio::task::spawn_blocking(move || commit_all(inner));
        }
    }
}

impl StoreError {
    /// Whether nothing can be kept together with what failed so.
    fn is_fatal(&self) -> bool {
        !matches!(self, Self::Format(_))
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

    fn read<T>(
        &self,
        look: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let begun = self.database().and_then(|database| Ok(database.begin_read()?));
        let seen = begun.and_then(|transaction| look(&transaction));
        if seen.as_ref().is_err_and(StoreError::is_fatal) {
            self.close();
        }
        seen
    }

    /// What waits; none, and nobody commits any more, if nothing does.
    fn next(&self) -> Option<Vec<Change>> {
        let mut queue = lock(&self.queue);
        if queue.waiting.is_empty() {
            queue.committing = false;
            return None;
        }
        Some(std::mem::take(&mut queue.waiting))
    }

    /// Makes changes; those who asked for them are still to be told.
    fn commit(&self, changes: Vec<Change>) -> Vec<Tell> {
        let begun = self.database().and_then(|database| Ok(database.begin_write()?));
        let (mut broke, mut settled) = (None, Vec::with_capacity(changes.len()));
        for change in changes {
            let made = change(begun.as_ref());
            broke = broke.or(made.broke);
            settled.push(made.settle);
        }
        let kept = match (begun, broke) {
            (Ok(transaction), None) => transaction.commit().map_err(StoreError::from),
            // A transaction that is dropped changes nothing.
            (_, Some(error)) | (Err(error), None) => Err(error),
        };
        if kept.is_err() {
            self.close();
        }
        settled.into_iter().map(|settle| settle(kept.clone())).collect()
    }
}

/// Commits until nothing waits.
fn commit_all(inner: Arc<Inner>) {
    let mut next = inner.next();
    while let Some(changes) = next {
        // A change that panics is a mistake of ours, and must not leave all others waiting for ever.
        let tells = catch_unwind(AssertUnwindSafe(|| inner.commit(changes)));
        let tells = tells.unwrap_or_else(|_| {
            inner.close();
            Vec::new()
        });
        next = inner.next();
        if next.is_none() {
            // Who is told may drop the last other hold on the file, and expects it to be closed then.
            drop(inner);
            tells.into_iter().for_each(|tell| tell());
            return;
        }
        tells.into_iter().for_each(|tell| tell());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A row's bytes.
pub(crate) fn json(value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Format(error.to_string()))
}

/// What a row says.
pub(crate) fn parsed<T: DeserializeOwned>(json: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(json).map_err(|error| StoreError::Format(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use redb::{ReadableTable, TableDefinition};

    use super::*;

    const COUNTS: TableDefinition<'_, u8, u64> = TableDefinition::new("counts");

    async fn disk(path: &Path) -> Disk {
        let prepare = |transaction: &WriteTransaction| {
            transaction.open_table(COUNTS)?;
            Ok(())
        };
        Disk::open(path.to_owned(), prepare).await.unwrap()
    }

    async fn count(disk: &Disk, key: u8) -> Result<(), StoreError> {
        let counted = disk.write(move |transaction| {
            let mut table = transaction.open_table(COUNTS)?;
            let before = table.get(key)?.map_or(0, |row| row.value());
            table.insert(key, before + 1)?;
            Ok(())
        });
        counted.await
    }

    async fn counted(disk: &Disk, key: u8) -> Option<u64> {
        let look = move |transaction: &ReadTransaction| {
            Ok(transaction.open_table(COUNTS)?.get(key)?.map(|row| row.value()))
        };
        disk.read(look).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn changes_at_the_same_time_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let disk = disk(&folder.path().join("rows")).await;
        futures_util::future::try_join_all((0..100).map(|_| count(&disk, 1))).await.unwrap();
        assert_eq!(counted(&disk, 1).await, Some(100));
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        count(&disk(&path).await, 1).await.unwrap();
        assert_eq!(counted(&disk(&path).await, 1).await, Some(1));
    }

    #[tokio::test]
    async fn a_change_that_cannot_be_written_down_costs_the_others_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let disk = disk(&folder.path().join("rows")).await;
        let bad = disk.write(|_| Err::<(), _>(StoreError::Format("no row".to_owned())));
        let (bad, good) = tokio::join!(bad, count(&disk, 1));
        assert!(matches!(bad, Err(StoreError::Format(_))), "{bad:?}");
        assert!(good.is_ok());
        assert_eq!(counted(&disk, 1).await, Some(1));
    }

    #[tokio::test]
    async fn a_failed_database_undoes_its_commit_and_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let disk = disk(&folder.path().join("rows")).await;
        let full = || StoreError::from(redb::StorageError::from(std::io::Error::other("full")));
        // The first commit lasts until the next two changes wait, so that those share one.
        let (go, wait) = std::sync::mpsc::channel();
        let first = disk.write(move |_| {
            let _ = wait.recv();
            Ok(())
        });
        let fails = disk.write(move |transaction| {
            transaction.open_table(COUNTS)?.insert(1, 7)?;
            Err::<(), _>(full())
        });
        let begin = async { go.send(()) };
        let (_, fails, with_it, _) = tokio::join!(first, fails, count(&disk, 2), begin);
        assert!(fails.is_err() && with_it.is_err(), "{fails:?} {with_it:?}");
        assert!(disk.inner.database.read().unwrap().is_none());
        count(&disk, 2).await.unwrap();
        assert_eq!((counted(&disk, 1).await, counted(&disk, 2).await), (None, Some(1)));
    }

    #[tokio::test]
    async fn a_commit_that_panics_stops_nobody_for_good() {
        let folder = tempfile::tempdir().unwrap();
        let disk = disk(&folder.path().join("rows")).await;
        let panics = disk.write::<()>(|_| panic!("a broken invariant"));
        assert!(matches!(panics.await, Err(StoreError::Stopped)));
        count(&disk, 1).await.unwrap();
        assert_eq!(counted(&disk, 1).await, Some(1));
    }
}
