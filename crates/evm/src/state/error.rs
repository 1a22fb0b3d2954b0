//! What can go wrong between the chain and its disk.

use std::path::PathBuf;

use alloy_primitives::B256;

/// Why a store could not do what it was asked. Nothing that was committed before is lost.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process runs on this directory.
    #[error("{} is in use by another process; stop it, or choose another directory", path.display())]
    InUse {
        /// The store's file.
        path: PathBuf,
    },
    /// The disk has no room for the commit; it can be made again once there is some.
    #[error("the disk is full: the last commit was not made")]
    Full,
    /// The disk failed.
    #[error("the disk failed: {0}")]
    Disk(std::io::Error),
    /// The file holds something that this program did not write.
    #[error(
        "the store is damaged: {what}; restore the directory from a copy, or delete it and import \
         a snapshot"
    )]
    Corrupt {
        /// What was found to be wrong.
        what: String,
    },
    /// The file was written in a format that this program does not know.
    #[error("the store has format {found}, this program reads format {expected}")]
    Format {
        /// The file's.
        found: u64,
        /// Ours.
        expected: u64,
    },
    /// The state in the store is not the one that its header commits to.
    #[error(
        "the stored state of block {number} has root {found}, its header says {expected}; delete \
         the directory and import a snapshot"
    )]
    Root {
        /// The head.
        number: u64,
        /// Root of what is stored.
        found: B256,
        /// Root in the header.
        expected: B256,
    },
    /// The directory holds a chain of another id.
    #[error("the data is of a chain with id {found}, this one has id {expected}")]
    ChainId {
        /// The directory's.
        found: u64,
        /// As configured.
        expected: u64,
    },
    /// A block was committed that does not follow the head.
    #[error("block {found} of parent {parent} does not follow block {head} ({hash})")]
    Gap {
        /// Number of the block given.
        found: u64,
        /// Parent of the block given.
        parent: B256,
        /// Number of the head.
        head: u64,
        /// Hash of the head.
        hash: B256,
    },
    /// The history needed is no longer kept.
    #[error("block {number} is pruned; the oldest that is kept is {oldest}")]
    Pruned {
        /// The block asked for.
        number: u64,
        /// The oldest that can be answered.
        oldest: u64,
    },
    /// There is no block yet.
    #[error("the store is empty")]
    Empty,
    /// A store or file that should not be there, is.
    #[error("{} exists already", path.display())]
    Exists {
        /// Where it is.
        path: PathBuf,
    },
    /// A snapshot that cannot be trusted or read.
    #[error("bad snapshot: {what}")]
    Snapshot {
        /// What is wrong with it.
        what: String,
    },
}

impl StoreError {
    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }

    /// Whether the database handle is spent and must be opened anew.
    pub(crate) fn is_disk(&self) -> bool {
        matches!(self, Self::Full | Self::Disk(_))
    }
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full,
            ErrorKind::UnexpectedEof | ErrorKind::InvalidData => Self::corrupt(error.to_string()),
            _ => Self::Disk(error),
        }
    }
}

/// One conversion for all of the database's error types, which all become `redb::Error`.
pub(crate) fn failed(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Io(error) => error.into(),
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => {
            StoreError::Disk(std::io::Error::other("an earlier write failed"))
        }
        error => StoreError::corrupt(error.to_string()),
    }
}
