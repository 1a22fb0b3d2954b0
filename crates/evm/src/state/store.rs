//! The chain on disk: one file, written in one durable transaction per commit.
//!
//! The file holds flat state, blocks and undo records, but no trie: that is built from the flat
//! state when a chain starts, and the header's state root then says whether the disk kept its word.
//! A commit is all or nothing, also when the process is killed in the middle of it.

use std::fmt;
use std::fs;
use std::ops::RangeBounds;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use alloy_consensus::{Header, Sealed};
use alloy_primitives::{B256, Bytes, keccak256};
use redb::backends::InMemoryBackend;
use redb::{
    Builder, Database, Key, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition,
    Value, WriteTransaction,
};

use super::Changes;
use super::error::{StoreError, failed};
use super::flat::Flat;
use super::tables::{
    ACCOUNTS, BODIES, CODES, HASHES, HEADERS, META, RECEIPTS, SLOTS, TRANSACTIONS, UNDO, read,
    read_undo_row, undo_row,
};

/// Name of the file in a chain's directory.
pub const FILE: &str = "chain.redb";

/// Version of the tables and rows.
const FORMAT: u64 = 1;

/// How a store keeps its file.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Blocks behind the head whose state can be rebuilt. Older undo records are dropped as new
    /// blocks come.
    pub history: u64,
    /// Bytes of the file kept in memory.
    pub cache_bytes: usize,
    /// Whether opening reads the whole file and checks every page, so that damage is found before
    /// it is used. Without it, damage of the state is still found, by the state root.
    pub verify: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { history: 100_000, cache_bytes: 256 << 20, verify: true }
    }
}

/// One block to commit. Body and receipts are the caller's bytes, returned as they were given.
#[derive(Clone, Copy, Debug)]
pub struct Commit<'a> {
    /// Its header.
    pub header: &'a Header,
    /// The header's hash.
    pub hash: B256,
    /// Its body.
    pub body: &'a [u8],
    /// Its receipts.
    pub receipts: &'a [u8],
    /// Hashes of its transactions, in order.
    pub transactions: &'a [B256],
    /// What it did to the state of its parent; in the first block of a chain: the whole state.
    pub changes: &'a Changes,
}

/// The chain's file. One process at a time; any number of threads.
pub struct Store {
    /// `None` after a failed disk, until it can be opened again.
    database: RwLock<Option<Database>>,
    /// The last block whose commit was acknowledged. A disk that fails in a commit may have kept
    /// it all the same; such blocks are not shown, and taken back by the next commit.
    acknowledged: RwLock<Option<(u64, B256)>>,
    source: Source,
    options: StoreOptions,
}

/// Where the file is, in order to open it again after the disk failed.
enum Source {
    Memory,
    File(PathBuf),
    /// A disk that fails when a test says so.
    #[cfg(test)]
    Backend(Box<dyn Fn() -> super::tests::Disk + Send + Sync>),
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in `directory`, or makes an empty one there. The file has its name only
    /// once it is whole, so a process killed meanwhile, or a full disk, leaves nothing that cannot
    /// be opened.
    pub fn open(directory: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        fs::create_dir_all(directory)?;
        let path = directory.join(FILE);
        let part = part(directory);
        if !path.exists() {
            Self::make(directory, &path, &part, options)?;
        }
        let store = Self::open_file(path, options)?;
        // Left by another who made the same store; most often there is none.
        let _ = fs::remove_file(part);
        Ok(store)
    }

    /// Makes an empty store at `path`, which nobody else can do meanwhile: the part is locked.
    fn make(
        directory: &Path,
        path: &Path,
        part: &Path,
        options: &StoreOptions,
    ) -> Result<(), StoreError> {
        let made = match Self::fresh(part, options) {
            Ok(made) => made,
            Err(error @ StoreError::InUse { .. }) => return Err(error),
            Err(error) => {
                let _ = fs::remove_file(part);
                return Err(error);
            }
        };
        // Another process was quicker.
        if !path.exists() {
            fs::rename(part, path)?;
            fs::File::open(directory)?.sync_all()?;
        }
        drop(made);
        Ok(())
    }

    /// An empty store at `part`, where a process that was killed may have left something. It is
    /// opened first, which fails while another process fills it.
    pub(crate) fn fresh(part: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        let options = StoreOptions { verify: false, ..options.clone() };
        match Self::open_file(part.to_owned(), &options) {
            Err(error @ StoreError::InUse { .. }) => return Err(error),
            left => drop(left),
        }
        match fs::remove_file(part) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Self::open_file(part.to_owned(), &options),
        }
    }

    /// An empty store that is gone with the process.
    pub fn memory() -> Self {
        let options = StoreOptions { verify: false, ..StoreOptions::default() };
        Self::closed(Source::Memory, &options)
    }

    pub(crate) fn open_file(path: PathBuf, options: &StoreOptions) -> Result<Self, StoreError> {
        Self::start(Source::File(path), options)
    }

    #[cfg(test)]
    pub(crate) fn on(
        disk: impl Fn() -> super::tests::Disk + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        Self::start(Source::Backend(Box::new(disk)), &StoreOptions::default())
    }

    fn start(source: Source, options: &StoreOptions) -> Result<Self, StoreError> {
        let store = Self::closed(source, options);
        let database = store.connect(options.verify)?;
        *store.database.write().unwrap_or_else(PoisonError::into_inner) = Some(database);
        let found = store.read(|reader| head(&reader.open_table(META).map_err(failed)?))?;
        store.acknowledge(found);
        Ok(store)
    }

    fn closed(source: Source, options: &StoreOptions) -> Self {
        let (database, acknowledged) = (RwLock::new(None), RwLock::new(None));
        Self { database, acknowledged, source, options: options.clone() }
    }

    pub(crate) fn acknowledge(&self, head: Option<(u64, B256)>) {
        *self.acknowledged.write().unwrap_or_else(PoisonError::into_inner) = head;
    }

    /// How it was opened.
    pub fn options(&self) -> &StoreOptions {
        &self.options
    }

    /// Number and hash of the last committed block; `None` in an empty store.
    pub fn head(&self) -> Option<(u64, B256)> {
        *self.acknowledged.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn shows(&self, number: u64) -> bool {
        self.head().is_some_and(|(head, _)| number <= head)
    }

    /// Hash of the chain's first block; `None` in an empty store.
    pub fn genesis(&self) -> Result<Option<B256>, StoreError> {
        let genesis = self.row(META, "genesis", hash)?.transpose()?;
        Ok(genesis.filter(|_| self.head().is_some()))
    }

    /// Ties the store to the chain with this id, if it is tied to none yet.
    ///
    /// # Errors
    /// [`StoreError::ChainId`] if it is tied to another.
    pub fn tie(&self, chain_id: u64) -> Result<(), StoreError> {
        match self.row(META, "chain_id", number)?.transpose()? {
            None => self.write(|writer| put(writer, META, "chain_id", &chain_id.to_be_bytes())),
            Some(found) if found != chain_id => {
                Err(StoreError::ChainId { found, expected: chain_id })
            }
            Some(_) => Ok(()),
        }
    }

    /// The header of a block.
    pub fn header(&self, number: u64) -> Result<Option<Sealed<Header>>, StoreError> {
        let row = self.row(HEADERS, number, <[u8]>::to_vec)?;
        let decode = |row: Vec<u8>| {
            let hash = keccak256(&row);
            Ok(Sealed::new_unchecked(read(&mut row.as_slice(), "headers")?, hash))
        };
        row.filter(|_| self.shows(number)).map(decode).transpose()
    }

    /// The body of a block, as it was committed.
    pub fn body(&self, number: u64) -> Result<Option<Bytes>, StoreError> {
        let row = self.row(BODIES, number, Bytes::copy_from_slice)?;
        Ok(row.filter(|_| self.shows(number)))
    }

    /// The receipts of a block, as they were committed.
    pub fn receipts(&self, number: u64) -> Result<Option<Bytes>, StoreError> {
        let row = self.row(RECEIPTS, number, Bytes::copy_from_slice)?;
        Ok(row.filter(|_| self.shows(number)))
    }

    /// The number of the block with this hash.
    pub fn number(&self, hash: &B256) -> Result<Option<u64>, StoreError> {
        Ok(self.row(HASHES, &hash.0, |number| number)?.filter(|number| self.shows(*number)))
    }

    /// The block a transaction is in, and its place there.
    pub fn transaction(&self, hash: &B256) -> Result<Option<(u64, u32)>, StoreError> {
        let place = self.row(TRANSACTIONS, &hash.0, |place| place)?;
        Ok(place.filter(|(number, _)| self.shows(*number)))
    }

    /// The changes that turn the state after block `number` into the state before it.
    pub fn undo(&self, number: u64) -> Result<Changes, StoreError> {
        match self.row(UNDO, number, <[u8]>::to_vec)? {
            Some(row) => read_undo_row(&row),
            None => Err(StoreError::Pruned { number, oldest: self.oldest_state()? }),
        }
    }

    /// The oldest block whose state can be rebuilt.
    pub fn oldest_state(&self) -> Result<u64, StoreError> {
        self.read(|reader| {
            let undo = reader.open_table(UNDO).map_err(failed)?;
            if let Some((first, _)) = undo.first().map_err(failed)? {
                return Ok(first.value().saturating_sub(1));
            }
            Ok(self.head().ok_or(StoreError::Empty)?.0)
        })
    }

    /// Makes `commits`, which follow the head and each other, durable: all of them or none.
    ///
    /// The first commit of an empty store is the chain's genesis.
    pub fn commit(&self, commits: &[Commit<'_>]) -> Result<(), StoreError> {
        let Some(last) = commits.last() else { return Ok(()) };
        let first = commits[0].header.number;
        self.write(|writer| {
            self.take_back(writer)?;
            for commit in commits {
                self.commit_one(writer, commit, first)?;
            }
            Ok(())
        })?;
        self.acknowledge(Some((last.header.number, last.hash)));
        Ok(())
    }

    /// Goes back to block `number`: its state, and no block after it. A number after the head
    /// changes nothing.
    pub fn rewind(&self, number: u64) -> Result<(), StoreError> {
        let oldest = self.oldest_state()?;
        if number < oldest {
            return Err(StoreError::Pruned { number, oldest });
        }
        if !self.shows(number) {
            return Ok(());
        }
        let hash = self.write(|writer| rewind(writer, number))?;
        self.acknowledge(Some((number, hash)));
        Ok(())
    }

    /// Removes blocks whose commit failed, but which are there.
    fn take_back(&self, writer: &WriteTransaction) -> Result<(), StoreError> {
        let found = head(&writer.open_table(META).map_err(failed)?)?;
        match self.head() {
            acknowledged if acknowledged == found => Ok(()),
            Some((number, _)) => rewind(writer, number).map(drop),
            None => clear(writer),
        }
    }

    /// Drops bodies, receipts and transactions of all blocks but the last `blocks`, and what
    /// rebuilds states older than the last `states`. Headers stay.
    pub fn prune(&self, blocks: u64, states: u64) -> Result<(), StoreError> {
        self.write(|writer| {
            let (head, _) = self.head().ok_or(StoreError::Empty)?;
            let (first_block, first_state) =
                ((head + 1).saturating_sub(blocks), (head + 1).saturating_sub(states));
            forget(writer, BODIES, ..first_block)?;
            forget(writer, RECEIPTS, ..first_block)?;
            forget(writer, UNDO, ..first_state)?;
            let mut transactions = writer.open_table(TRANSACTIONS).map_err(failed)?;
            transactions.retain(|_, (block, _)| first_block <= block).map_err(failed)
        })
    }

    fn commit_one(
        &self,
        writer: &WriteTransaction,
        commit: &Commit<'_>,
        first: u64,
    ) -> Result<(), StoreError> {
        let number = commit.header.number;
        let parent = head(&writer.open_table(META).map_err(failed)?)?;
        if let Some((head, hash)) = parent
            && (number != head + 1 || commit.header.parent_hash != hash)
        {
            let parent = commit.header.parent_hash;
            return Err(StoreError::Gap { found: number, parent, head, hash });
        }
        let undo = Flat::open(writer)?.apply(commit.changes)?;
        let mut codes = writer.open_table(CODES).map_err(failed)?;
        for (hash, code) in &commit.changes.codes {
            codes.insert(&hash.0, code.as_ref()).map_err(failed)?;
        }
        put(writer, HEADERS, number, alloy_rlp::encode(commit.header).as_slice())?;
        put(writer, HASHES, &commit.hash.0, number)?;
        put(writer, BODIES, number, commit.body)?;
        put(writer, RECEIPTS, number, commit.receipts)?;
        let mut transactions = writer.open_table(TRANSACTIONS).map_err(failed)?;
        for (place, hash) in commit.transactions.iter().enumerate() {
            transactions.insert(&hash.0, (number, place as u32)).map_err(failed)?;
        }
        if parent.is_some() {
            put(writer, UNDO, number, undo_row(&undo).as_slice())?;
            // What is committed together can be taken back together.
            let kept = (number + 1).saturating_sub(self.options.history).min(first);
            forget(writer, UNDO, ..kept)?;
        } else {
            put(writer, META, "genesis", commit.hash.as_slice())?;
        }
        set_head(writer, number, commit.hash)
    }

    fn row<K: Key + 'static, V: Value + 'static, T>(
        &self,
        table: TableDefinition<'static, K, V>,
        key: K::SelfType<'_>,
        convert: impl Fn(V::SelfType<'_>) -> T,
    ) -> Result<Option<T>, StoreError> {
        self.read(|reader| {
            let table = reader.open_table(table).map_err(failed)?;
            let row = table.get(&key).map_err(failed)?;
            Ok(row.map(|row| convert(row.value())))
        })
    }

    /// Reads, once more on a newly opened file if the disk failed before.
    pub(crate) fn read<T>(
        &self,
        body: impl Fn(&ReadTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let read = || self.with(|database| body(&database.begin_read().map_err(failed)?));
        match read() {
            Err(error) if error.is_disk() => read(),
            done => done,
        }
    }

    pub(crate) fn write<T>(
        &self,
        body: impl FnOnce(&WriteTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.with(|database| {
            let writer = database.begin_write().map_err(failed)?;
            let done = body(&writer)?;
            writer.commit().map_err(failed)?;
            Ok(done)
        })
    }

    /// Runs `body` on the open database. One whose disk failed is closed, and opened again by the
    /// next call: it answers nothing any more, not even reads.
    pub(crate) fn with<T>(
        &self,
        body: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        loop {
            let open = self.database.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(database) = &*open {
                let done = guard(|| body(database));
                drop(open);
                let spent = done.as_ref().is_err_and(StoreError::is_disk);
                if spent && !matches!(self.source, Source::Memory) {
                    *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
                }
                return done;
            }
            drop(open);
            let mut closed = self.database.write().unwrap_or_else(PoisonError::into_inner);
            if closed.is_none() {
                *closed = Some(self.connect(false)?);
            }
        }
    }

    fn connect(&self, verify: bool) -> Result<Database, StoreError> {
        let mut builder = Builder::new();
        builder.set_cache_size(self.options.cache_bytes).set_check_integrity_on_open(verify);
        let database = guard(|| match &self.source {
            Source::Memory => builder.create_with_backend(InMemoryBackend::new()).map_err(failed),
            Source::File(path) => builder.create(path).map_err(|error| match error {
                redb::DatabaseError::DatabaseAlreadyOpen => {
                    StoreError::InUse { path: path.clone() }
                }
                error => failed(error),
            }),
            #[cfg(test)]
            Source::Backend(disk) => builder.create_with_backend(disk()).map_err(failed),
        })?;
        guard(|| prepare(&database))?;
        Ok(database)
    }
}

/// Where the file of a directory is made before it has its name.
pub(crate) fn part(directory: &Path) -> PathBuf {
    directory.join(format!("{FILE}.part"))
}

/// Takes back all blocks after `number`; returns its hash.
fn rewind(writer: &WriteTransaction, number: u64) -> Result<B256, StoreError> {
    let head = head(&writer.open_table(META).map_err(failed)?)?;
    let (head, _) = head.ok_or(StoreError::Empty)?;
    for block in (number + 1..=head).rev() {
        let row = {
            let mut undo = writer.open_table(UNDO).map_err(failed)?;
            let row = undo.remove(block).map_err(failed)?;
            row.map(|row| row.value().to_vec())
        };
        let row = row.ok_or_else(|| StoreError::corrupt(format!("block {block} has no undo")))?;
        Flat::open(writer)?.apply(&read_undo_row(&row)?)?;
    }
    forget(writer, BODIES, number + 1..)?;
    forget(writer, RECEIPTS, number + 1..)?;
    forget(writer, HEADERS, number + 1..)?;
    let mut hashes = writer.open_table(HASHES).map_err(failed)?;
    hashes.retain(|_, block| block <= number).map_err(failed)?;
    let mut transactions = writer.open_table(TRANSACTIONS).map_err(failed)?;
    transactions.retain(|_, (block, _)| block <= number).map_err(failed)?;
    let headers = writer.open_table(HEADERS).map_err(failed)?;
    let header = headers.get(number).map_err(failed)?;
    let header = header.ok_or_else(|| StoreError::corrupt(format!("no header {number}")))?;
    let hash = keccak256(header.value());
    set_head(writer, number, hash)?;
    Ok(hash)
}

/// Makes the store as empty as a new one.
fn clear(writer: &WriteTransaction) -> Result<(), StoreError> {
    for table in [ACCOUNTS, CODES] {
        writer.delete_table(table).map_err(failed)?;
    }
    for table in [HEADERS, BODIES, RECEIPTS, UNDO] {
        writer.delete_table(table).map_err(failed)?;
    }
    writer.delete_table(SLOTS).map_err(failed)?;
    writer.delete_table(HASHES).map_err(failed)?;
    writer.delete_table(TRANSACTIONS).map_err(failed)?;
    writer.delete_table(META).map_err(failed)?;
    create(writer)
}

/// Checks the format of a file, or writes it into a new one with all tables.
fn prepare(database: &Database) -> Result<(), StoreError> {
    let reader = database.begin_read().map_err(failed)?;
    if reader.list_tables().map_err(failed)?.next().is_some() {
        let meta = reader.open_table(META).map_err(failed)?;
        let row = meta.get("format").map_err(failed)?;
        let row = row.ok_or_else(|| StoreError::corrupt("the file is of another program"))?;
        let (found, expected) = (number(row.value())?, FORMAT);
        let known = found == expected;
        return if known { Ok(()) } else { Err(StoreError::Format { found, expected }) };
    }
    drop(reader);
    let writer = database.begin_write().map_err(failed)?;
    create(&writer)?;
    writer.commit().map_err(failed)
}

fn create(writer: &WriteTransaction) -> Result<(), StoreError> {
    put(writer, META, "format", &FORMAT.to_be_bytes())?;
    for table in [ACCOUNTS, CODES] {
        writer.open_table(table).map_err(failed)?;
    }
    for table in [HEADERS, BODIES, RECEIPTS, UNDO] {
        writer.open_table(table).map_err(failed)?;
    }
    writer.open_table(SLOTS).map_err(failed)?;
    writer.open_table(HASHES).map_err(failed)?;
    writer.open_table(TRANSACTIONS).map_err(failed)?;
    Ok(())
}

/// Runs `body`; a panic of the database over damaged pages becomes an error.
fn guard<T>(body: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|_| Err(StoreError::corrupt("a page cannot be read")))
}

pub(crate) fn put<K: Key + 'static, V: Value + 'static>(
    writer: &WriteTransaction,
    table: TableDefinition<'_, K, V>,
    key: K::SelfType<'_>,
    value: V::SelfType<'_>,
) -> Result<(), StoreError> {
    writer.open_table(table).map_err(failed)?.insert(key, value).map_err(failed)?;
    Ok(())
}

/// Removes the rows of these blocks.
fn forget(
    writer: &WriteTransaction,
    table: TableDefinition<'_, u64, &[u8]>,
    blocks: impl RangeBounds<u64>,
) -> Result<(), StoreError> {
    let mut table = writer.open_table(table).map_err(failed)?;
    table.retain_in(blocks, |_, _| false).map_err(failed)
}

pub(crate) fn head(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<Option<(u64, B256)>, StoreError> {
    let Some(row) = meta.get("head").map_err(failed)? else { return Ok(None) };
    let (block, block_hash) =
        row.value().split_at_checked(8).ok_or_else(|| StoreError::corrupt("the head"))?;
    Ok(Some((number(block)?, hash(block_hash)?)))
}

pub(crate) fn set_head(
    writer: &WriteTransaction,
    number: u64,
    hash: B256,
) -> Result<(), StoreError> {
    let row = [&number.to_be_bytes()[..], &hash[..]].concat();
    put(writer, META, "head", row.as_slice())
}

fn number(row: &[u8]) -> Result<u64, StoreError> {
    let bytes = row.try_into().map_err(|_| StoreError::corrupt("a number"))?;
    Ok(u64::from_be_bytes(bytes))
}

fn hash(row: &[u8]) -> Result<B256, StoreError> {
    B256::try_from(row).map_err(|_| StoreError::corrupt("a hash"))
}
