//! Waiting transactions on disk, so that one whose sender was told it waits is not forgotten when
//! the process ends, however it ends.
//!
//! Records are appended as transactions come, without waiting for the disk: what a killed process
//! wrote is safe with the system, what a machine without power had not yet written is lost, as its
//! sender will see from the nonce. Now and then the file is written anew with what still waits.

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
    /// Length of the file, in bytes.
    bytes: u64,
    /// Whether the last write failed, so that a full disk is told once and not ten thousand times.
    failed: bool,
}

impl Journal {
    /// Opens the journal at `path`; what its readable part holds comes with it, oldest first.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<Bytes>)> {
        let options = OpenOptions::new().read(true).append(true).create(true).clone();
        let mut file = options.open(path)?;
        let mut text = Vec::new();
        (&mut file).take(FILE_BYTES_MAX).read_to_end(&mut text)?;
        let (records, whole) = read(&text);
        // A record that was cut short ends the file here, lest it garble those that follow.
        file.set_len(whole)?;
        Ok((Self { path: path.to_owned(), file, bytes: whole, failed: false }, records))
    }

    /// Appends encoded transactions. A failure is told and costs no more than the promise.
    pub(super) fn append(&mut self, transactions: &[impl AsRef<[u8]>]) {
        let mut text = Vec::new();
        transactions.iter().for_each(|transaction| record(&mut text, transaction.as_ref()));
        if text.is_empty() {
            return;
        }
        let written = self.file.write_all(&text);
        match &written {
            Ok(()) => self.bytes += text.len() as u64,
            // Part of it may be there.
            Err(_) => drop(self.file.set_len(self.bytes)),
        }
        self.tell(written);
    }

    /// Whether the file has grown far beyond `waiting`, the bytes of what waits.
    pub(super) fn is_stale(&self, waiting: u64) -> bool {
        self.bytes > waiting.saturating_mul(2).saturating_add(SLACK_BYTES)
    }

    /// Writes the file anew with these transactions alone. It is exchanged whole.
    pub(super) fn rewrite(&mut self, transactions: &[impl AsRef<[u8]>]) {
        let mut text = Vec::new();
        transactions.iter().for_each(|transaction| record(&mut text, transaction.as_ref()));
        let part = self.path.with_extension("part");
        let exchanged = fs::write(&part, &text).and_then(|()| fs::rename(&part, &self.path));
        let opened = exchanged.and_then(|()| OpenOptions::new().append(true).open(&self.path));
        let outcome = opened.map(|file| {
            self.file = file;
            self.bytes = text.len() as u64;
        });
        self.tell(outcome);
    }

    fn tell(&mut self, outcome: io::Result<()>) {
        match outcome {
            Err(error) if !self.failed => {
                let path = self.path.display();
                let full = error.kind() == ErrorKind::StorageFull;
                let advice = if full { "free some space" } else { "look at the disk" };
                tracing::error!(
                    %error, %path, advice,
                    "transactions that wait are not kept: they would be lost if the process ended"
                );
                self.failed = true;
            }
            Err(_) => {}
            Ok(()) if self.failed => {
                tracing::info!("transactions that wait are kept again");
                self.failed = false;
            }
            Ok(()) => {}
        }
    }
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
        assert_eq!(old, Vec::<Bytes>::new());
        journal.append(&[&b"one"[..], b"two"]);
        journal.append(&[&b"three"[..]]);
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (mut journal, old) = Journal::open(&path).unwrap();
            let expected = [&b"one"[..], b"two", b"three"].map(Bytes::from_static);
            assert_eq!(old, expected[..old.len()]);
            journal.append(&[&b"more"[..]]);
            let (_, again) = Journal::open(&path).unwrap();
            assert_eq!(again.len(), old.len() + 1);
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
        journal.append(&[vec![1; SLACK_BYTES as usize]]);
        assert!(journal.is_stale(0) && !journal.is_stale(SLACK_BYTES));
        journal.rewrite(&[&b"left"[..]]);
        journal.append(&[&b"new"[..]]);
        let (_, read) = Journal::open(&path).unwrap();
        assert_eq!(read, [&b"left"[..], b"new"].map(Bytes::from_static));
    }
}
