//! Keeps what clients want kept: replies that they stored, their files and their batches.
//!
//! A thing belongs to whoever put it here: the holder of a key, or everybody where no keys are. Others
//! cannot tell that it is there. Things are listed by when they were made, and known by ids that cannot be
//! guessed. Stored replies leave after a month, or when there are too many; what a client uploaded stays
//! until the client takes it away.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use assay_protocol::{B256, hex};
use redb::{ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::disk::{Disk, StoreError, json, parsed};
use crate::http::now_s;

/// Kind and id → thing.
const THINGS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("things");

/// Things of one kind. Beyond it the oldest reply leaves, and no file is taken.
pub(crate) const THINGS_MAX: usize = 20_000;

/// How long a stored reply stays, in seconds.
const REPLIES_STAY_S: u64 = 30 * 24 * 3600;

/// What the name of a file begins with while it is uploaded.
pub(crate) const UPLOAD: &str = "upload-";

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A stored chat completion.
    Completion,
    /// A stored response.
    Response,
    /// A file.
    File,
    /// A batch.
    Batch,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Completion => "completion",
            Self::Response => "response",
            Self::File => "file",
            Self::Batch => "batch",
        }
    }

    fn of(name: &str) -> Option<Self> {
        [Self::Completion, Self::Response, Self::File, Self::Batch]
            .into_iter()
            .find(|kind| kind.name() == name)
    }

    /// Whether it is a reply, which leaves by itself.
    fn is_reply(self) -> bool {
        matches!(self, Self::Completion | Self::Response)
    }
}

/// To whom things belong: the holder of this key; none: everybody.
pub(crate) type Owner = Option<B256>;

/// A kept thing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Thing {
    pub(crate) owner: Owner,
    /// Unix seconds.
    pub(crate) created: u64,
    pub(crate) value: Value,
}

/// Which part of a list is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// The id of the thing before the first; after one that is not there nothing comes.
    pub(crate) after: Option<String>,
    pub(crate) limit: usize,
    /// Whether the newest come first.
    pub(crate) newest_first: bool,
}

/// Who may see a thing, by when it was made and its id.
type Index = HashMap<Kind, BTreeMap<(u64, String), Owner>>;

/// Things on disk.
#[derive(Debug)]
pub(crate) struct Shelf {
    disk: Disk,
    folder: PathBuf,
    index: Mutex<Index>,
}

impl Shelf {
    /// Opens the shelf beside the file at `store`, or makes it.
    pub(crate) async fn open(store: &Path) -> Result<Arc<Self>, StoreError> {
        let folder = store.with_file_name("shelf");
        let made = tokio::fs::create_dir_all(&folder).await;
        made.map_err(|error| StoreError::from(redb::StorageError::from(error)))?;
        let disk = Disk::open(store.with_file_name("shelf.redb"), |transaction| {
            transaction.open_table(THINGS)?;
            Ok(())
        });
        let disk = disk.await?;
        sweep(&folder).await;
        let index = disk.read(|transaction| {
            let table = transaction.open_table(THINGS)?;
            let mut index = Index::new();
            for row in table.iter()? {
                let (key, row) = row?;
                let thing: Stamp = parsed(row.value())?;
                let Some((kind, id)) = key.value().split_once('/') else { continue };
                let Some(kind) = Kind::of(kind) else { continue };
                index.entry(kind).or_default().insert((thing.created, id.to_owned()), thing.owner);
            }
            Ok(index)
        });
        Ok(Arc::new(Self { index: Mutex::new(index.await?), disk, folder }))
    }

    /// Where the bytes of a file are.
    pub(crate) fn file(&self, id: &str) -> PathBuf {
        self.folder.join(id)
    }

    /// Keeps a thing, instead of one of the same id. On return it is on disk.
    pub(crate) async fn put(&self, kind: Kind, id: &str, thing: Thing) -> Result<(), StoreError> {
        let left = self.make_room(kind, id);
        let (key, bytes) = (key(kind, id), json(&thing)?);
        let put = self.disk.write(move |transaction| {
            let mut table = transaction.open_table(THINGS)?;
            table.insert(key.as_str(), bytes.as_slice())?;
            for key in &left {
                table.remove(key.as_str())?;
            }
            Ok(())
        });
        put.await?;
        let place = (thing.created, id.to_owned());
        self.lock().entry(kind).or_default().insert(place, thing.owner);
        Ok(())
    }

    /// The thing of an id, if it belongs to `owner`.
    pub(crate) async fn get(
        &self,
        kind: Kind,
        id: &str,
        owner: Owner,
    ) -> Result<Option<Thing>, StoreError> {
        let key = key(kind, id);
        let found = self.disk.read(move |transaction| {
            let table = transaction.open_table(THINGS)?;
            table.get(key.as_str())?.map(|row| parsed::<Thing>(row.value())).transpose()
        });
        Ok(found.await?.filter(|thing| thing.owner == owner))
    }

    /// Takes a thing away; whether it was there.
    pub(crate) async fn remove(
        &self,
        kind: Kind,
        id: &str,
        owner: Owner,
    ) -> Result<bool, StoreError> {
        let Some(thing) = self.get(kind, id, owner).await? else { return Ok(false) };
        let key = key(kind, id);
        let removed = self.disk.write(move |transaction| {
            Ok(transaction.open_table(THINGS)?.remove(key.as_str())?.is_some())
        });
        let removed = removed.await?;
        if let Some(things) = self.lock().get_mut(&kind) {
            things.remove(&(thing.created, id.to_owned()));
        }
        Ok(removed)
    }

    /// Things of `owner` that are `wanted`, and whether there are more after them.
    pub(crate) async fn list(
        &self,
        kind: Kind,
        owner: Owner,
        page: &Page,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<(Vec<(String, Thing)>, bool), StoreError> {
        let mut listed = Vec::new();
        for id in self.ids(kind, owner, page) {
            let Some(thing) = self.get(kind, &id, owner).await? else { continue };
            if !wanted(&thing.value) {
                continue;
            }
            if listed.len() == page.limit {
                return Ok((listed, true));
            }
            listed.push((id, thing));
        }
        Ok((listed, false))
    }

    /// Bytes of all files on the shelf, those that are on their way included.
    pub(crate) async fn files_bytes(&self) -> u64 {
        let folder = self.folder.clone();
        let counted = tokio::task::spawn_blocking(move || {
            let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
            files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
        });
        counted.await.unwrap_or_default()
    }

    /// How many things of a kind there are.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.lock().get(&kind).map_or(0, BTreeMap::len)
    }

    /// All things of a kind, with whom they belong to.
    pub(crate) fn all(&self, kind: Kind) -> Vec<(String, Owner)> {
        let index = self.lock();
        let things = index.get(&kind).into_iter().flatten();
        things.map(|((_, id), owner)| (id.clone(), *owner)).collect()
    }

    fn ids(&self, kind: Kind, owner: Owner, page: &Page) -> Vec<String> {
        let index = self.lock();
        let things = index.get(&kind).into_iter().flatten();
        let mut ids: Vec<String> =
            things.filter(|(_, whose)| **whose == owner).map(|((_, id), _)| id.clone()).collect();
        if page.newest_first {
            ids.reverse();
        }
        match &page.after {
            None => ids,
            Some(after) => match ids.iter().position(|id| id == after) {
                Some(place) => ids.split_off(place + 1),
                None => Vec::new(),
            },
        }
    }

    /// Takes replies that have to leave out of the index; gives their keys.
    fn make_room(&self, kind: Kind, id: &str) -> Vec<String> {
        let mut index = self.lock();
        let Some(things) = index.get_mut(&kind).filter(|_| kind.is_reply()) else {
            return Vec::new();
        };
        let stale = now_s().saturating_sub(REPLIES_STAY_S);
        let mut left = Vec::new();
        while let Some(first) = things.first_entry()
            && first.key().0 < stale
        {
            left.push(key(kind, &first.remove_entry().0.1));
        }
        // The thing itself may stand here already, and takes no more room.
        while things.len() > THINGS_MAX
            && let Some(((_, oldest), _)) = things.pop_first()
        {
            left.push(key(kind, &oldest));
        }
        left.retain(|left| *left != key(kind, id));
        left
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes away uploads that broke off with the gateway.
async fn sweep(folder: &Path) {
    let folder = folder.to_owned();
    let swept = tokio::task::spawn_blocking(move || {
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        for file in files.filter(|file| file.file_name().to_string_lossy().starts_with(UPLOAD)) {
            // What cannot be removed is in nobody's way.
            let _ = std::fs::remove_file(file.path());
        }
    });
    let _ = swept.await;
}

/// What the index needs of a thing.
#[derive(Deserialize)]
struct Stamp {
    owner: Owner,
    created: u64,
}

fn key(kind: Kind, id: &str) -> String {
    format!("{}/{id}", kind.name())
}

/// A new id that cannot be guessed.
pub(crate) fn new_id(prefix: &str, random: B256) -> String {
    format!("{prefix}{}", hex::encode(&random[..16]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn page(after: Option<&str>, limit: usize, newest_first: bool) -> Page {
        Page { after: after.map(str::to_owned), limit, newest_first }
    }

    async fn names(shelf: &Shelf, owner: Owner, page: Page) -> (String, bool) {
        let listed = shelf.list(Kind::File, owner, &page, |value| value != &json!("hidden")).await;
        let (things, more) = listed.unwrap();
        (things.into_iter().map(|(id, _)| id).collect::<Vec<_>>().join(" "), more)
    }

    #[tokio::test]
    async fn things_are_their_owners_listed_by_age_and_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("answers");
        let shelf = Shelf::open(&store).await.unwrap();
        let ada = Some(B256::repeat_byte(1));
        for (id, created, owner, value) in [
            ("b", 1, None, "x"),
            ("a", 2, None, "x"),
            ("h", 2, None, "hidden"),
            ("c", 3, None, "x"),
            ("mine", 2, ada, "x"),
        ] {
            let thing = Thing { owner, created, value: json!(value) };
            shelf.put(Kind::File, id, thing).await.unwrap();
        }
        drop(shelf);
        let shelf = Shelf::open(&store).await.unwrap();
        assert_eq!(names(&shelf, None, page(None, 9, false)).await, ("b a c".into(), false));
        assert_eq!(names(&shelf, None, page(None, 2, true)).await, ("c a".into(), true));
        assert_eq!(names(&shelf, None, page(Some("a"), 9, false)).await, ("c".into(), false));
        assert_eq!(
            names(&shelf, None, page(Some("nobody"), 9, false)).await,
            (String::new(), false)
        );
        assert_eq!(names(&shelf, ada, page(None, 9, false)).await, ("mine".into(), false));
        assert!(shelf.get(Kind::File, "mine", None).await.unwrap().is_none());
        assert!(!shelf.remove(Kind::File, "mine", None).await.unwrap());
        assert!(shelf.remove(Kind::File, "mine", ada).await.unwrap());
        assert_eq!(shelf.count(Kind::File), 4);
        assert_eq!(shelf.count(Kind::Batch), 0);
    }

    #[tokio::test]
    async fn an_old_reply_leaves_when_a_new_one_comes() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(&folder.path().join("answers")).await.unwrap();
        let thing = |created| Thing { owner: None, created, value: json!(1) };
        let now = now_s();
        for (id, created) in [("old", now - REPLIES_STAY_S - 9), ("new", now)] {
            shelf.put(Kind::Response, id, thing(created)).await.unwrap();
            shelf.put(Kind::File, id, thing(created)).await.unwrap();
        }
        assert!(shelf.get(Kind::Response, "old", None).await.unwrap().is_none());
        assert!(shelf.get(Kind::File, "old", None).await.unwrap().is_some());
    }
}
