//! What is written of a batch while it runs: its journal, and its answers.
//!
//! Each is lines that are only added. A gateway that ended while it wrote leaves half a line, which is
//! taken off before more is added.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use assay_protocol::OrderHash;
use serde::{Deserialize, Serialize};

/// Longest line that is read, in bytes.
pub(super) const LINE_BYTES_MAX: usize = 16 << 20;

/// A file to which lines are added.
#[derive(Clone, Debug)]
pub(super) struct Paper(Arc<Mutex<std::fs::File>>);

impl Paper {
    /// Opens a file, or makes it; each whole line in it is shown to `see`.
    pub(super) async fn open(
        path: &Path,
        mut see: impl FnMut(&str) + Send + 'static,
    ) -> io::Result<Self> {
        let path = path.to_owned();
        blocking(move || {
            let mut file = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)?;
            let (mut reader, mut whole) = (BufReader::new(&file), 0);
            let mut line = Vec::new();
            loop {
                line.clear();
                let read = reader.read_until(b'\n', &mut line)?;
                if line.last() != Some(&b'\n') {
                    break;
                }
                whole += read as u64;
                see(String::from_utf8_lossy(&line).trim_end());
            }
            file.set_len(whole)?;
            file.seek(SeekFrom::Start(whole))?;
            Ok(Self(Arc::new(Mutex::new(file))))
        })
        .await
    }

    /// Adds a line. On return it is on disk.
    pub(super) async fn add(&self, mut line: String) -> io::Result<()> {
        line.push('\n');
        let file = Arc::clone(&self.0);
        blocking(move || {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.write_all(line.as_bytes())?;
            file.sync_data()
        })
        .await
    }
}

/// Which orders were made for which lines.
#[derive(Debug)]
pub(super) struct Journal(Paper);

/// Orders by line, one list for each time it was tried.
pub(super) type Bought = HashMap<usize, Vec<Vec<OrderHash>>>;

#[derive(Serialize, Deserialize)]
struct Entry {
    line: usize,
    orders: Vec<OrderHash>,
}

impl Journal {
    /// Opens a journal; gives what is in it.
    pub(super) async fn open(path: &Path) -> io::Result<(Self, Bought)> {
        let bought = Arc::new(Mutex::new(Bought::new()));
        let seen = Arc::clone(&bought);
        let paper = Paper::open(path, move |line| {
            if let Ok(entry) = serde_json::from_str::<Entry>(line) {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.entry(entry.line).or_default().push(entry.orders);
            }
        });
        let paper = paper.await?;
        let bought = std::mem::take(&mut *bought.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((Self(paper), bought))
    }

    /// Notes that these orders are about to be bought for a line. On return that is on disk.
    pub(super) async fn note(&self, line: usize, orders: &[OrderHash]) -> io::Result<()> {
        let entry = Entry { line, orders: orders.to_vec() };
        self.0.add(serde_json::to_string(&entry)?).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use assay_protocol::B256;

    #[tokio::test]
    async fn half_a_line_is_taken_off_and_the_rest_is_seen_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let order = |byte| OrderHash(B256::repeat_byte(byte));
        let (journal, bought) = Journal::open(&path).await.unwrap();
        assert!(bought.is_empty());
        journal.note(3, &[order(1), order(2)]).await.unwrap();
        journal.note(3, &[order(4)]).await.unwrap();
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"line\":4,\"ord").unwrap();
        let (journal, bought) = Journal::open(&path).await.unwrap();
        assert_eq!(bought[&3], [vec![order(1), order(2)], vec![order(4)]]);
        assert_eq!(bought.len(), 1);
        journal.note(5, &[]).await.unwrap();
        assert_eq!(Journal::open(&path).await.unwrap().1.len(), 2);
    }
}
