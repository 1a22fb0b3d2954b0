//! A file on its way: its bytes so far, and beside them which of them are there.
//!
//! ```text
//! FILE.part         as long as the file will be, with holes
//! FILE.part.json    what file it is, by hash, and which pieces of it are on disk
//! FILE              only ever whole, and checked
//! ```
//! A piece is on disk before it is noted, and a note replaces the one before in one step. So whatever ends
//! the process, the next one finds no more noted than there is.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{HubError, Remote};

/// Longest note that is read.
const NOTE_MAX: u64 = 16 << 20;

/// A file on its way.
#[derive(Debug)]
pub(crate) struct Part {
    file: File,
    path: PathBuf,
    note_path: PathBuf,
    note: Note,
}

/// What stands in the note.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    schema: String,
    digest: String,
    size: u64,
    piece_bytes: u64,
    /// Numbers of the pieces on disk, ascending.
    done: Vec<u64>,
}

impl Part {
    /// The file on its way to `to`: as an earlier process left it if that was after the same file, else new,
    /// in pieces of so many bytes.
    pub(crate) fn open(to: &Path, remote: &Remote, piece_bytes: u64) -> Result<Self, HubError> {
        let (path, note_path) = (beside(to, ".part"), beside(to, ".part.json"));
        let failed = failed(&path);
        let note = Note::read(&note_path, remote);
        let known = note.filter(|_| fs::metadata(&path).is_ok_and(|it| it.len() == remote.size));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(known.is_none());
        let file = options.open(&path).map_err(&failed)?;
        let Some(note) = known else {
            // The note of another file must not outlive its bytes.
            let part =
                Self { file, path: path.clone(), note_path, note: Note::new(remote, piece_bytes) };
            part.save()?;
            part.file.set_len(remote.size).map_err(&failed)?;
            return Ok(part);
        };
        Ok(Self { file, path, note_path, note })
    }

    /// Bytes of a file that are on this disk, whole or on its way.
    pub(crate) fn held(to: &Path, remote: &Remote) -> u64 {
        if fs::metadata(to).is_ok_and(|it| it.len() == remote.size) {
            return remote.size;
        }
        let note = Note::read(&beside(to, ".part.json"), remote);
        note.map_or(0, |note| note.bytes())
    }

    /// Bytes noted.
    pub(crate) fn bytes(&self) -> u64 {
        self.note.bytes()
    }

    /// The pieces that are missing: number, first byte, end.
    pub(crate) fn missing(&self) -> Vec<(u64, u64, u64)> {
        let Note { size, piece_bytes, done, .. } = &self.note;
        let missing = (0..size.div_ceil(*piece_bytes)).filter(|n| done.binary_search(n).is_err());
        let end = |n: u64| (n + 1).saturating_mul(*piece_bytes).min(*size);
        missing.map(|n| (n, n * piece_bytes, end(n))).collect()
    }

    /// Writes bytes from `at` on.
    pub(crate) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), HubError> {
        self.file.write_all_at(bytes, at).map_err(failed(&self.path))
    }

    /// Notes that all of piece number `n` was written.
    pub(crate) fn finish(&mut self, n: u64) -> Result<(), HubError> {
        self.file.sync_data().map_err(failed(&self.path))?;
        if let Err(place) = self.note.done.binary_search(&n) {
            self.note.done.insert(place, n);
        }
        self.save()
    }

    /// Notes that nothing is there.
    pub(crate) fn forget(&mut self) -> Result<(), HubError> {
        self.note.done.clear();
        self.save()
    }

    /// Makes it the file at `to`. Whoever calls this has checked every byte.
    pub(crate) fn complete(self, to: &Path) -> Result<(), HubError> {
        self.file.sync_all().map_err(failed(&self.path))?;
        fs::rename(&self.path, to).map_err(failed(&self.path))?;
        // A note without its bytes is no file's, and is replaced by the next.
        let _ = fs::remove_file(&self.note_path);
        Ok(())
    }

    /// The bytes.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn save(&self) -> Result<(), HubError> {
        let text = serde_json::to_vec(&self.note).expect("a note has no keys but words");
        let new = beside(&self.note_path, ".new");
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &self.note_path));
        written.map_err(failed(&self.note_path))
    }
}

impl Note {
    const SCHEMA: &str = "assay.part/1";

    fn new(remote: &Remote, piece_bytes: u64) -> Self {
        Self {
            schema: Self::SCHEMA.into(),
            digest: remote.digest.to_string(),
            size: remote.size,
            piece_bytes,
            done: Vec::new(),
        }
    }

    /// The note at `path`, if it is one of this file.
    fn read(path: &Path, remote: &Remote) -> Option<Self> {
        if fs::metadata(path).ok()?.len() > NOTE_MAX {
            return None;
        }
        let note: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let same = note.schema == Self::SCHEMA
            && note.digest == remote.digest.to_string()
            && note.size == remote.size
            && note.piece_bytes > 0;
        let in_order = note.done.is_sorted_by(|one, next| one < next);
        let pieces = if same { note.size.div_ceil(note.piece_bytes) } else { 0 };
        let inside = note.done.last().is_none_or(|last| *last < pieces);
        (same && in_order && inside).then_some(note)
    }

    fn bytes(&self) -> u64 {
        let last = self.size / self.piece_bytes;
        let bytes =
            |n: &u64| if *n == last { self.size % self.piece_bytes } else { self.piece_bytes };
        self.done.iter().map(bytes).sum()
    }
}

/// `path` with something behind its name.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(end);
    path.with_file_name(name)
}

/// What turns the system's errors about a file into ours.
pub(crate) fn failed(path: &Path) -> impl Fn(io::Error) -> HubError + use<> {
    let path = path.to_owned();
    move |source| HubError::File { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Digest;

    const PIECE_BYTES: u64 = 1 << 10;

    fn remote(size: u64, digest: u8) -> Remote {
        Remote {
            url: "http://hub/a".parse().unwrap(),
            name: "a".into(),
            size,
            digest: Digest::Sha256([digest; 32]),
        }
    }

    #[test]
    fn what_is_noted_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("m.gguf");
        let remote = remote(2 * PIECE_BYTES + 5, 1);
        let mut part = Part::open(&to, &remote, PIECE_BYTES).unwrap();
        assert_eq!(part.missing().len(), 3);
        part.write(2 * PIECE_BYTES, b"12345").unwrap();
        part.finish(2).unwrap();
        part.finish(0).unwrap();
        assert_eq!(part.bytes(), PIECE_BYTES + 5);
        drop(part);
        assert_eq!(Part::held(&to, &remote), PIECE_BYTES + 5);
        let part = Part::open(&to, &remote, PIECE_BYTES).unwrap();
        assert_eq!(part.missing(), [(1, PIECE_BYTES, 2 * PIECE_BYTES)]);
        part.complete(&to).unwrap();
        assert_eq!(
            (Part::held(&to, &remote), fs::read_dir(folder.path()).unwrap().count()),
            (remote.size, 1)
        );
    }

    #[test]
    fn another_file_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("m.gguf");
        for other in [remote(9, 2), remote(8, 1)] {
            let mut part = Part::open(&to, &remote(9, 1), PIECE_BYTES).unwrap();
            part.finish(0).unwrap();
            assert_eq!(Part::open(&to, &other, PIECE_BYTES).unwrap().bytes(), 0);
        }
    }

    #[test]
    fn a_damaged_note_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("m.gguf");
        let remote = remote(9, 1);
        for done in ["[1]", "[0,0]", "[18446744073709551615]", "[", "7"] {
            drop(Part::open(&to, &remote, PIECE_BYTES).unwrap());
            let note = folder.path().join("m.gguf.part.json");
            let text = fs::read_to_string(&note).unwrap().replace("[]", done);
            fs::write(&note, text).unwrap();
            assert_eq!(
                Part::open(&to, &remote, PIECE_BYTES).unwrap().missing(),
                [(0, 0, 9)],
                "{done}"
            );
        }
        // Nor is one whose bytes are gone.
        Part::open(&to, &remote, PIECE_BYTES).unwrap().finish(0).unwrap();
        fs::remove_file(folder.path().join("m.gguf.part")).unwrap();
        assert_eq!(Part::open(&to, &remote, PIECE_BYTES).unwrap().bytes(), 0);
    }
}
