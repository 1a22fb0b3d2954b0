//! A snapshot: the state of one block as a stream of bytes, for others to start from.
//!
//! ```text
//! magic, then chunks: kind (1) ‖ length (4, big-endian) ‖ payload ‖ check (32)
//! Headers   genesis hash ‖ RLP of the head's header and of up to 255 before it, newest first
//! Block     length of the head's body (4) ‖ its body ‖ its receipts, as they were committed
//! Rows      accounts, each followed by its slots, in the order of the trie
//! Codes     each: length (4) ‖ code
//! End       empty
//! ```
//!
//! The check of a chunk is the keccak of the check before it and of the chunk, so damage, a cut or
//! a swapped chunk is seen at once. It proves nothing about who wrote the snapshot: that the state
//! is the right one follows from the state root in the header, and which header is the right one
//! is for the caller to know. Older headers come along because the EVM asks for their hashes, and
//! the head's block because clients ask for the newest one before anything else.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use alloy_consensus::{Header, Sealed};
use alloy_primitives::{B256, Keccak256, keccak256};
use alloy_rlp::Decodable;
use redb::{ReadTransaction, ReadableDatabase, ReadableTable, WriteTransaction};

use super::error::{StoreError, failed};
use super::store::{FILE, Store, StoreOptions, part, put, set_head};
use super::tables::{
    ACCOUNTS, BODIES, CODES, HASHES, HEADERS, META, RECEIPTS, SLOTS, TRANSACTIONS, account_row,
    read_account_row, read_slot_row, slot_key, slot_row,
};

const MAGIC: &[u8; 16] = b"evm-snapshot-02\n";

/// Bytes after which the writer closes a chunk.
const CHUNK: usize = 1 << 20;

/// Bytes that a reader accepts in one chunk; room for one code of any chain after a full chunk.
const CHUNK_MAX: usize = 64 << 20;

/// Hashes of earlier blocks that a block may ask for, the parent's included.
const HEADERS_MAX: usize = 256;

/// The highest number and time of a head that a chain can go on from for as long as it likes.
const LATEST: u64 = u64::MAX >> 1;

/// Chunks written in one transaction while importing.
const CHUNKS_AT_ONCE: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Headers = 1,
    Block = 2,
    Rows = 3,
    Codes = 4,
    End = 5,
}

/// Before a row: an account, or a slot of the account before it.
const ACCOUNT: u8 = 1;
const SLOT: u8 = 2;

/// Says whether a body and receipts are those of a header, and if so which transactions are in it.
/// The store knows nothing of what it keeps for its caller.
pub(crate) type Judge =
    dyn Fn(&Sealed<Header>, &[u8], &[u8]) -> Result<Vec<B256>, StoreError> + Sync;

/// How far an export or import is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Accounts written or read.
    pub accounts: u64,
    /// Slots written or read.
    pub slots: u64,
    /// Bytes of the snapshot written or read.
    pub bytes: u64,
}

impl Store {
    /// Writes the head's state to `out`, as it is at this moment; the chain can go on meanwhile.
    /// Returns the header that the snapshot is of. Memory does not grow with the state.
    pub fn export(
        &self,
        out: &mut impl Write,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Sealed<Header>, StoreError> {
        let mut chunks = Chunks { out, check: B256::ZERO, progress, at: Progress::default() };
        self.with(|database| {
            let reader = database.begin_read().map_err(failed)?;
            let head = write_headers(&reader, &mut chunks)?;
            write_block(&reader, head.number, &mut chunks)?;
            write_rows(&reader, &mut chunks)?;
            write_codes(&reader, &mut chunks)?;
            chunks.write(Kind::End, &mut Vec::new())?;
            Ok(head)
        })
    }

    /// Makes a store in `directory`, which has none, from the snapshot in `input`.
    ///
    /// The state must have the root that the snapshot's header names, and `judge` must find the
    /// block to be that header's. If `trusted` is given, the header must have this hash; without
    /// it, whoever wrote the snapshot is believed. A snapshot that is refused, or a process killed
    /// meanwhile, leaves no store behind.
    pub(crate) fn import(
        directory: &Path,
        options: &StoreOptions,
        input: &mut impl Read,
        trusted: Option<B256>,
        judge: &Judge,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, StoreError> {
        fs::create_dir_all(directory)?;
        let (path, part) = (directory.join(FILE), part(directory));
        if path.exists() {
            return Err(StoreError::Exists { path });
        }
        let made = fill(&part, options, input, trusted, judge, progress);
        if let Err(error) = made {
            // Another process that imports into the same place keeps its file.
            if !matches!(error, StoreError::InUse { .. }) {
                let _ = fs::remove_file(&part);
            }
            return Err(error);
        }
        fs::rename(&part, &path)?;
        fs::File::open(directory)?.sync_all()?;
        Self::open_file(path, &StoreOptions { verify: false, ..options.clone() })
    }
}

/// Writes chunks.
struct Chunks<'a, W> {
    out: &'a mut W,
    check: B256,
    progress: &'a mut dyn FnMut(Progress),
    at: Progress,
}

impl<W: Write> Chunks<'_, W> {
    /// Writes `payload` and clears it.
    fn write(&mut self, kind: Kind, payload: &mut Vec<u8>) -> Result<(), StoreError> {
        let length = u32::try_from(payload.len()).ok().filter(|l| *l as usize <= CHUNK_MAX);
        let length = length.ok_or_else(|| bad(format!("a piece of {} bytes", payload.len())))?;
        self.check = check(&self.check, kind as u8, payload);
        let mut write = |bytes: &[u8]| {
            self.at.bytes += bytes.len() as u64;
            self.out.write_all(bytes).map_err(|error| bad(format!("it cannot be written: {error}")))
        };
        if kind == Kind::Headers {
            write(MAGIC)?;
        }
        write(&[kind as u8])?;
        write(&length.to_be_bytes())?;
        write(payload)?;
        write(self.check.as_slice())?;
        payload.clear();
        (self.progress)(self.at);
        Ok(())
    }

    fn write_if_full(&mut self, kind: Kind, payload: &mut Vec<u8>) -> Result<(), StoreError> {
        if payload.len() < CHUNK { Ok(()) } else { self.write(kind, payload) }
    }
}

fn write_headers<W: Write>(
    reader: &ReadTransaction,
    chunks: &mut Chunks<'_, W>,
) -> Result<Sealed<Header>, StoreError> {
    let meta = reader.open_table(META).map_err(failed)?;
    let genesis = meta.get("genesis").map_err(failed)?.ok_or(StoreError::Empty)?;
    let headers = reader.open_table(HEADERS).map_err(failed)?;
    let mut payload = genesis.value().to_vec();
    let mut head = None;
    for row in headers.iter().map_err(failed)?.rev().take(HEADERS_MAX) {
        let (_, row) = row.map_err(failed)?;
        payload.extend_from_slice(row.value());
        if head.is_none() {
            let header = Header::decode(&mut row.value());
            let header = header.map_err(|error| StoreError::corrupt(format!("head: {error}")))?;
            head = Some(Sealed::new_unchecked(header, keccak256(row.value())));
        }
    }
    chunks.write(Kind::Headers, &mut payload)?;
    head.ok_or(StoreError::Empty)
}

fn write_block<W: Write>(
    reader: &ReadTransaction,
    number: u64,
    chunks: &mut Chunks<'_, W>,
) -> Result<(), StoreError> {
    let row = |table| {
        let table = reader.open_table(table).map_err(failed)?;
        let row = table.get(number).map_err(failed)?;
        row.ok_or_else(|| bad(format!("block {number} itself is pruned, make another first")))
    };
    let (body, receipts) = (row(BODIES)?, row(RECEIPTS)?);
    let (body, receipts) = (body.value(), receipts.value());
    let mut payload = [&(body.len() as u32).to_be_bytes(), body, receipts].concat();
    chunks.write(Kind::Block, &mut payload)
}

fn write_rows<W: Write>(
    reader: &ReadTransaction,
    chunks: &mut Chunks<'_, W>,
) -> Result<(), StoreError> {
    let accounts = reader.open_table(ACCOUNTS).map_err(failed)?;
    let slots = reader.open_table(SLOTS).map_err(failed)?;
    let mut payload = Vec::with_capacity(CHUNK + 256);
    for row in accounts.iter().map_err(failed)? {
        let (key, row) = row.map_err(failed)?;
        let (address, _) = read_account_row(row.value())?;
        let key = B256::from(key.value());
        if keccak256(address) != key {
            return Err(StoreError::corrupt(format!("account {address} under a wrong key")));
        }
        push_row(ACCOUNT, row.value(), &mut payload);
        chunks.at.accounts += 1;
        let (first, last) = (slot_key(&key, &B256::ZERO), slot_key(&key, &B256::repeat_byte(255)));
        for row in slots.range::<&[u8; 64]>(&first..=&last).map_err(failed)? {
            push_row(SLOT, row.map_err(failed)?.1.value(), &mut payload);
            chunks.at.slots += 1;
            chunks.write_if_full(Kind::Rows, &mut payload)?;
        }
        chunks.write_if_full(Kind::Rows, &mut payload)?;
    }
    chunks.write(Kind::Rows, &mut payload)
}

fn write_codes<W: Write>(
    reader: &ReadTransaction,
    chunks: &mut Chunks<'_, W>,
) -> Result<(), StoreError> {
    let mut payload = Vec::new();
    for row in reader.open_table(CODES).map_err(failed)?.iter().map_err(failed)? {
        let (_, code) = row.map_err(failed)?;
        payload.extend_from_slice(&(code.value().len() as u32).to_be_bytes());
        payload.extend_from_slice(code.value());
        chunks.write_if_full(Kind::Codes, &mut payload)?;
    }
    chunks.write(Kind::Codes, &mut payload)
}

/// A row is its kind, its length in one byte (none is longer than 124) and itself.
fn push_row(kind: u8, row: &[u8], payload: &mut Vec<u8>) {
    payload.push(kind);
    payload.push(row.len() as u8);
    payload.extend_from_slice(row);
}

fn check(before: &B256, kind: u8, payload: &[u8]) -> B256 {
    let mut hasher = Keccak256::new();
    hasher.update(before);
    hasher.update([kind]);
    hasher.update((payload.len() as u32).to_be_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Reads chunks.
struct Reader<'a, R> {
    input: &'a mut R,
    check: B256,
    at: Progress,
}

impl<R: Read> Reader<'_, R> {
    fn next(&mut self) -> Result<(Kind, Vec<u8>), StoreError> {
        let mut start = [0; 5];
        self.exact(&mut start)?;
        let kind = match start[0] {
            1 => Kind::Headers,
            2 => Kind::Block,
            3 => Kind::Rows,
            4 => Kind::Codes,
            5 => Kind::End,
            kind => return Err(bad(format!("a chunk of unknown kind {kind}"))),
        };
        let length = u32::from_be_bytes([start[1], start[2], start[3], start[4]]) as usize;
        if length > CHUNK_MAX {
            return Err(bad(format!("a chunk of {length} bytes, of {CHUNK_MAX} allowed")));
        }
        // Grows with what comes, so that a false length takes no memory.
        let mut payload = Vec::new();
        let read = self.input.by_ref().take(length as u64).read_to_end(&mut payload);
        read.map_err(|error| bad(format!("it cannot be read: {error}")))?;
        let mut given = B256::ZERO;
        self.exact(&mut given[..])?;
        self.check = check(&self.check, start[0], &payload);
        if payload.len() != length || given != self.check {
            return Err(bad("a chunk is damaged"));
        }
        self.at.bytes += (length + 37) as u64;
        Ok((kind, payload))
    }

    fn exact(&mut self, bytes: &mut [u8]) -> Result<(), StoreError> {
        self.input.read_exact(bytes).map_err(|error| bad(format!("it cannot be read: {error}")))
    }
}

/// Writes the snapshot into a new file and checks the state that it makes.
fn fill(
    part: &Path,
    options: &StoreOptions,
    input: &mut impl Read,
    trusted: Option<B256>,
    judge: &Judge,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), StoreError> {
    let mut chunks = Reader { input, check: B256::ZERO, at: Progress::default() };
    let mut magic = [0; MAGIC.len()];
    chunks.exact(&mut magic)?;
    if magic != *MAGIC {
        return Err(bad("it does not start like one"));
    }
    let (kind, payload) = chunks.next()?;
    if kind != Kind::Headers {
        return Err(bad("it does not start with headers"));
    }
    let start = Start::read(&payload, &mut chunks, trusted, judge)?;
    fill_rows(&Store::fresh(part, options)?, chunks, &start, progress)
}

/// What a snapshot says before the state.
struct Start {
    genesis: B256,
    /// Newest first.
    headers: Vec<(Header, B256)>,
    body: Vec<u8>,
    receipts: Vec<u8>,
    transactions: Vec<B256>,
}

impl Start {
    /// From the payload of the headers, and the chunk after it.
    fn read(
        headers: &[u8],
        chunks: &mut Reader<'_, impl Read>,
        trusted: Option<B256>,
        judge: &Judge,
    ) -> Result<Self, StoreError> {
        let (genesis, headers) = read_headers(headers)?;
        let (head, hash) = &headers[0];
        if let Some(expected) = trusted
            && *hash != expected
        {
            return Err(bad(format!("it is of block {hash}, expected {expected}")));
        }
        let (kind, payload) = chunks.next()?;
        if kind != Kind::Block {
            return Err(bad("it has no block"));
        }
        let (body, receipts) = split_block(&payload).ok_or_else(|| bad("its block is cut off"))?;
        let head = Sealed::new_unchecked(head.clone(), *hash);
        let transactions = judge(&head, body, receipts).map_err(foreign)?;
        let (body, receipts) = (body.to_vec(), receipts.to_vec());
        Ok(Self { genesis, headers, body, receipts, transactions })
    }

    fn write(&self, writer: &WriteTransaction) -> Result<(), StoreError> {
        for (header, hash) in &self.headers {
            put(writer, HEADERS, header.number, alloy_rlp::encode(header).as_slice())?;
            put(writer, HASHES, &hash.0, header.number)?;
        }
        let (head, hash) = &self.headers[0];
        put(writer, BODIES, head.number, self.body.as_slice())?;
        put(writer, RECEIPTS, head.number, self.receipts.as_slice())?;
        for (place, hash) in self.transactions.iter().enumerate() {
            put(writer, TRANSACTIONS, &hash.0, (head.number, place as u32))?;
        }
        put(writer, META, "genesis", self.genesis.as_slice())?;
        set_head(writer, head.number, *hash)
    }
}

/// A body and receipts.
fn split_block(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = payload.split_first_chunk()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}

fn fill_rows(
    store: &Store,
    mut chunks: Reader<'_, impl Read>,
    start: &Start,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), StoreError> {
    let mut owner = None;
    let mut last = false;
    while !last {
        store.write(|writer| {
            for _ in 0..CHUNKS_AT_ONCE {
                let (kind, payload) = chunks.next()?;
                match kind {
                    Kind::Headers | Kind::Block => return Err(bad("it begins twice")),
                    Kind::Rows => read_rows(writer, &payload, &mut owner, &mut chunks.at)?,
                    Kind::Codes => read_codes(writer, &payload)?,
                    Kind::End => {
                        last = true;
                        break;
                    }
                }
                progress(chunks.at);
            }
            Ok(())
        })?;
    }
    store.write(|writer| start.write(writer))?;
    let (head, hash) = &start.headers[0];
    store.acknowledge(Some((head.number, *hash)));
    match store.load() {
        Ok(_) => Ok(()),
        Err(StoreError::Root { found, expected, .. }) => {
            Err(bad(format!("its state has root {found}, its header says {expected}")))
        }
        Err(StoreError::Corrupt { what }) => Err(bad(what)),
        Err(error) => Err(error),
    }
}

/// The genesis' hash and at least one header, each followed by its parent.
fn read_headers(payload: &[u8]) -> Result<(B256, Vec<(Header, B256)>), StoreError> {
    let (genesis, mut rest) =
        payload.split_first_chunk().ok_or_else(|| bad("it names no genesis"))?;
    let mut headers: Vec<(Header, B256)> = Vec::new();
    while !rest.is_empty() && headers.len() < HEADERS_MAX {
        let before = rest;
        let header =
            Header::decode(&mut rest).map_err(|error| bad(format!("a header: {error}")))?;
        let hash = keccak256(&before[..before.len() - rest.len()]);
        if let Some((child, _)) = headers.last()
            && (child.parent_hash != hash || child.number.checked_sub(1) != Some(header.number))
        {
            return Err(bad(format!("header {} is not the parent of the next", header.number)));
        }
        headers.push((header, hash));
    }
    let (Some((head, _)), Some((oldest, hash))) = (headers.first(), headers.last()) else {
        return Err(bad("it has no header"));
    };
    if !rest.is_empty() {
        return Err(bad(format!("it has more than {HEADERS_MAX} headers")));
    }
    if head.number > LATEST || head.timestamp > LATEST {
        let (number, time) = (head.number, head.timestamp);
        return Err(bad(format!("block {number} of time {time} is past {LATEST}")));
    }
    let genesis = B256::from(*genesis);
    if oldest.number == 0 && *hash != genesis {
        return Err(bad(format!("it names genesis {genesis}, its block 0 is {hash}")));
    }
    Ok((genesis, headers))
}

/// Writes rows. `owner` is the key of the account that the next slots belong to.
fn read_rows(
    writer: &WriteTransaction,
    mut payload: &[u8],
    owner: &mut Option<B256>,
    at: &mut Progress,
) -> Result<(), StoreError> {
    let mut accounts = writer.open_table(ACCOUNTS).map_err(failed)?;
    let mut slots = writer.open_table(SLOTS).map_err(failed)?;
    while let [kind, length, rest @ ..] = payload {
        let (row, rest) =
            rest.split_at_checked((*length).into()).ok_or_else(|| bad("a row is cut off"))?;
        payload = rest;
        match (*kind, &*owner) {
            (ACCOUNT, _) => {
                let (address, account) = read_account_row(row).map_err(foreign)?;
                let key = keccak256(address);
                if owner.is_some_and(|last| key <= last) {
                    return Err(bad(format!("account {address} is out of order")));
                }
                *owner = Some(key);
                let row = account_row(&address, &account);
                accounts.insert(&key.0, row.as_slice()).map_err(failed)?;
                at.accounts += 1;
            }
            (SLOT, Some(account)) => {
                let (slot, value) = read_slot_row(row).map_err(foreign)?;
                if value.is_zero() {
                    return Err(bad(format!("slot {slot} is zero")));
                }
                let key = slot_key(account, &keccak256(slot.to_be_bytes::<32>()));
                let row = slot_row(slot, value);
                if slots.insert(&key, row.as_slice()).map_err(failed)?.is_some() {
                    return Err(bad(format!("slot {slot} comes twice")));
                }
                at.slots += 1;
            }
            _ => return Err(bad(format!("a row of unknown kind {kind}"))),
        }
    }
    if payload.is_empty() { Ok(()) } else { Err(bad("a row is cut off")) }
}

fn read_codes(writer: &WriteTransaction, mut payload: &[u8]) -> Result<(), StoreError> {
    let mut codes = writer.open_table(CODES).map_err(failed)?;
    while let Some((length, rest)) = payload.split_first_chunk() {
        let length = u32::from_be_bytes(*length) as usize;
        let (code, rest) = rest.split_at_checked(length).ok_or_else(|| bad("a code is cut off"))?;
        codes.insert(&keccak256(code).0, code).map_err(failed)?;
        payload = rest;
    }
    if payload.is_empty() { Ok(()) } else { Err(bad("a code is cut off")) }
}

fn bad(what: impl Into<String>) -> StoreError {
    StoreError::Snapshot { what: what.into() }
}

/// What is damage in our own file is a fault of the writer in a snapshot.
fn foreign(error: StoreError) -> StoreError {
    match error {
        StoreError::Corrupt { what } => bad(what),
        error => error,
    }
}
