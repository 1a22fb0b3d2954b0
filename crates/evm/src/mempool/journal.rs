//! Waiting transactions on disk, so that one whose sender was told it waits is not forgotten when
//! the process ends, however it ends.
//!
//! Records are appended as transactions come, without waiting for the disk: what a killed process
//! wrote is safe with the system, what a machine without power had not yet written is lost, as its
//! sender will see from the nonce. Now and then the file is written anew with what still waits.
//!
//! What a full disk refuses is owed: it is written before anything else as soon as the disk takes
//! it, and nobody is told until then that a transaction is kept.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use alloy_primitives::{Bytes, keccak256};

/// A record is a length (4 bytes, big-endian), the start of the hash of what follows, and that.
const LENGTH_BYTES: usize = 4;
const CHECK_BYTES: usize = 4;

/// The file is written anew when it has this many bytes more than twice what waits needs.
const SLACK_BYTES: u64 = 8 << 20;

/// Longest file that is read at the start, in bytes. What a pool can hold is far less.
const FILE_BYTES_MAX: u64 = 4 << 30;

/// The file of waiting transactions.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Length of the whole records in the file, in bytes.
    bytes: u64,
    /// Records that are not in the file yet. Empty between two calls unless the disk refused some.
    owed: Vec<u8>,
    /// Length below which the file is not written anew: the disk refused to when it was shorter.
    patience: u64,
    /// Whether a part of a refused record may stand at the end of the file.
    torn: bool,
    /// Whether the last write failed, so that a full disk is told once and not ten thousand times.
    failed: bool,
    /// Whether writes find the disk full.
    #[cfg(test)]
    pub(super) full: bool,
}

/// What a journal held when it was opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its readable part, oldest first.
    pub(super) records: Vec<Bytes>,
    /// Bytes after it, which mean nothing and are gone now.
    pub(super) unreadable: u64,
}

impl Journal {
    /// Opens the journal at `path`; what its readable part holds comes with it.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Found)> {
        let options = OpenOptions::new().read(true).append(true).create(true).clone();
        let mut file = options.open(path)?;
        let mut text = Vec::new();
        (&mut file).take(FILE_BYTES_MAX).read_to_end(&mut text)?;
        let (records, bytes) = read(&text);
        let unreadable = file.metadata()?.len().saturating_sub(bytes);
        // A record that was cut short ends the file here, lest it garble those that follow.
        file.set_len(bytes)?;
        let path = path.to_owned();
        let (owed, torn, failed) = (Vec::new(), false, false);
        let journal = Self {
            path,
            file,
            bytes,
            patience: 0,
            owed,
            torn,
            failed,
            #[cfg(test)]
            full: false,
        };
        Ok((journal, Found { records, unreadable }))
    }

    /// Appends encoded transactions, after what is owed. On an error all of them are owed.
    pub(super) fn append(&mut self, transactions: &[impl AsRef<[u8]>]) -> io::Result<()> {
        let owed = &mut self.owed;
        transactions.iter().for_each(|transaction| record(owed, transaction.as_ref()));
        self.settle()
    }

    /// Writes what is owed, if anything is.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        if self.owed.is_empty() {
            return Ok(());
        }
        let written = self.write_owed();
        self.tell(written.as_ref().err());
        written
    }

    fn write_owed(&mut self) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.bytes)?;
            self.torn = false;
        }
        if let Err(error) = self.put_owed() {
            self.torn = self.file.set_len(self.bytes).is_err();
            return Err(error);
        }
        self.bytes += self.owed.len() as u64;
        self.owed = Vec::new();
        Ok(())
    }

    fn put_owed(&mut self) -> io::Result<()> {
        #[cfg(test)]
        if self.full {
            // As a disk does: it takes what it can.
            self.file.write_all(&self.owed[..self.owed.len() / 2])?;
            return Err(ErrorKind::StorageFull.into());
        }
        self.file.write_all(&self.owed)
    }

    /// Writes what is owed and waits until the disk has everything.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.settle()?;
        self.file.sync_all()
    }

    /// Whether the file has grown far beyond `waiting`, the bytes of what waits.
    pub(super) fn is_stale(&self, waiting: u64) -> bool {
        let bound = waiting.saturating_mul(2).saturating_add(SLACK_BYTES);
        self.bytes > bound.max(self.patience)
    }

    /// Writes the file anew with these transactions alone, which are all that wait. It is exchanged
    /// whole; if the disk refuses, the old one stands and nothing is lost.
    pub(super) fn rewrite(&mut self, transactions: &[impl AsRef<[u8]>]) {
        let mut text = Vec::new();
        transactions.iter().for_each(|transaction| record(&mut text, transaction.as_ref()));
        let part = self.path.with_extension("part");
        match exchange(&part, &self.path, &text) {
            Ok(file) => {
                (self.file, self.bytes) = (file, text.len() as u64);
                (self.owed, self.torn, self.patience) = (Vec::new(), false, 0);
                self.tell(None);
            }
            Err(error) => {
                // It would take the room that is lacking. That it is not there is no matter.
                drop(fs::remove_file(&part));
                self.patience = self.bytes + SLACK_BYTES;
                let path = self.path.display();
                tracing::warn!(%error, %path, "the file of waiting transactions stays long");
            }
        }
    }

    /// Tells the first of several failures, and their end.
    fn tell(&mut self, failure: Option<&io::Error>) {
        match failure {
            Some(error) if !self.failed => {
                let path = self.path.display();
                let advice = if is_full(error) { "free some space" } else { "look at the disk" };
                tracing::error!(
                    %error, %path, advice,
                    "transactions cannot be kept: new ones are refused until they can"
                );
            }
            None if self.failed => tracing::info!("transactions that wait are kept again"),
            _ => {}
        }
        self.failed = failure.is_some();
    }
}

/// Whether a disk has no room left, or none for us.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Puts a file that holds `text` at `path`, by way of `part`; returns it, to be appended to.
///
/// After a loss of power either the old file is there or the new one, whole.
fn exchange(part: &Path, path: &Path, text: &[u8]) -> io::Result<File> {
    // What an earlier try left is not appended to.
    match fs::remove_file(part) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().append(true).create_new(true).open(part)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(part, path)?;
    sync_folder(path);
    Ok(file)
}

/// Waits until the disk knows the new name. A failure costs no more than the old file's return, so
/// it does not undo the exchange, which has happened.
fn sync_folder(path: &Path) {
    #[cfg(unix)]
    {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let synced = File::open(folder.unwrap_or(Path::new("."))).and_then(|file| file.sync_all());
        if let Err(error) = synced {
            let path = path.display();
            tracing::warn!(%error, %path, "a loss of power now could bring back an older file");
        }
    }
    #[cfg(not(unix))]
    let _ = path;
}

fn record(text: &mut Vec<u8>, transaction: &[u8]) {
    // A transaction has at most some hundred thousand bytes.
    text.extend((transaction.len() as u32).to_be_bytes());
    text.extend(&keccak256(transaction)[..CHECK_BYTES]);
    text.extend(transaction);
}

/// The records at the start of `text`, up to the first that is not whole, and their length.
fn read(text: &[u8]) -> (Vec<Bytes>, u64) {
    let mut records = Vec::new();
    let mut rest = text;
    while let Some((length, after)) = rest.split_first_chunk::<LENGTH_BYTES>() {
        let Some((check, after)) = after.split_first_chunk::<CHECK_BYTES>() else { break };
        let Some((body, after)) = after.split_at_checked(u32::from_be_bytes(*length) as usize)
        else {
            break;
        };
        if keccak256(body)[..CHECK_BYTES] != check[..] {
            break;
        }
        records.push(Bytes::copy_from_slice(body));
        rest = after;
    }
    (records, (text.len() - rest.len()) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_appended_is_read_again_up_to_a_torn_record() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("waiting");
        let (mut journal, old) = Journal::open(&path).unwrap();
        assert_eq!(old, Found { records: Vec::new(), unreadable: 0 });
        journal.append(&[&b"one"[..], b"two"]).unwrap();
        journal.append(&[&b"three"[..]]).unwrap();
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (mut journal, Found { records: old, unreadable }) = Journal::open(&path).unwrap();
            let expected = [&b"one"[..], b"two", b"three"].map(Bytes::from_static);
            assert_eq!(old, expected[..old.len()]);
            assert_eq!(fs::metadata(&path).unwrap().len() + unreadable, cut as u64);
            journal.append(&[&b"more"[..]]).unwrap();
            let (_, again) = Journal::open(&path).unwrap();
            assert_eq!(again.records.len(), old.len() + 1);
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_reading_and_no_more() {
        let mut text = Vec::new();
        record(&mut text, b"first");
        record(&mut text, b"second");
        for at in 0..text.len() {
            let mut flipped = text.clone();
            flipped[at] ^= 0x10;
            let (records, _) = read(&flipped);
            assert_eq!(records.len(), usize::from(at > 12));
        }
    }

    #[test]
    fn a_rewritten_journal_holds_what_it_was_given() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("waiting");
        let (mut journal, _) = Journal::open(&path).unwrap();
        journal.append(&[vec![1; SLACK_BYTES as usize]]).unwrap();
        assert!(journal.is_stale(0) && !journal.is_stale(SLACK_BYTES));
        journal.rewrite(&[&b"left"[..]]);
        journal.append(&[&b"new"[..]]).unwrap();
        let (_, read) = Journal::open(&path).unwrap();
        assert_eq!(read.records, [&b"left"[..], b"new"].map(Bytes::from_static));
    }

    #[test]
    fn a_file_that_is_no_journal_is_said_to_be_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("waiting");
        fs::write(&path, [0x5a; 1000]).unwrap();
        let (_, found) = Journal::open(&path).unwrap();
        assert_eq!(found, Found { records: Vec::new(), unreadable: 1000 });
    }

    #[test]
    fn what_an_earlier_rewrite_left_behind_is_not_taken_for_ours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("waiting");
        fs::write(path.with_extension("part"), "left over").unwrap();
        let (mut journal, _) = Journal::open(&path).unwrap();
        journal.rewrite(&[&b"one"[..]]);
        let (_, found) = Journal::open(&path).unwrap();
        let records = vec![Bytes::from_static(b"one")];
        assert_eq!(found, Found { records, unreadable: 0 });
    }

    #[test]
    fn a_rewrite_that_fails_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("waiting");
        let (mut journal, _) = Journal::open(&path).unwrap();
        journal.append(&[&b"one"[..]]).unwrap();
        // A folder at the place of the new file.
        let part = path.with_extension("part");
        fs::create_dir(&part).unwrap();
        journal.rewrite(&[&b"one"[..]]);
        journal.append(&[&b"two"[..]]).unwrap();
        let (_, found) = Journal::open(&path).unwrap();
        assert_eq!(found.records, [&b"one"[..], b"two"].map(Bytes::from_static));
    }

    #[test]
    fn what_a_full_disk_refused_is_written_before_what_follows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("waiting");
        let (mut journal, _) = Journal::open(&path).unwrap();
        journal.append(&[&b"one"[..]]).unwrap();
        journal.full = true;
        for owed in [&b"two"[..], b"three"] {
            let whole = fs::read(&path).unwrap();
            assert!(is_full(&journal.append(&[owed]).unwrap_err()));
            assert_eq!(fs::read(&path).unwrap(), whole, "half a record was left behind");
        }
        assert!(is_full(&journal.sync().unwrap_err()));
        journal.full = false;
        journal.append(&[&b"four"[..]]).unwrap();
        journal.sync().unwrap();
        let (_, found) = Journal::open(&path).unwrap();
        let expected = [&b"one"[..], b"two", b"three", b"four"].map(Bytes::from_static);
        assert_eq!(found.records, expected);
    }
}
