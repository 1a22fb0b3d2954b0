//! What a hub says that a file hashes to: SHA-256 for large files, git's own hash for small ones.

use std::fmt;

use sha1::{Digest as _, Sha1};
use sha2::{Digest as _, Sha256};

/// What a file's bytes hash to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Digest {
    /// SHA-256, for files in large file storage.
    Sha256([u8; 32]),
    /// As git hashes a file: SHA-1 over `blob LENGTH`, a zero byte and the bytes.
    GitBlob([u8; 20]),
}

/// Computes a [`Digest`].
pub(super) enum Hasher {
    Sha256(Sha256),
    GitBlob(Sha1),
}

impl Digest {
    /// Reads an ETag: 64 hexadecimal digits are SHA-256, 40 are git's; others are not known.
    pub(super) fn of_etag(etag: &str) -> Option<Self> {
        let digits = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
        if !digits.is_ascii() {
            return None;
        }
        let byte = |place| u8::from_str_radix(digits.get(2 * place..2 * place + 2)?, 16).ok();
        let bytes = (0..digits.len() / 2).map(byte).collect::<Option<Vec<u8>>>()?;
        match digits.len() {
            64 => Some(Self::Sha256(bytes.try_into().ok()?)),
            40 => Some(Self::GitBlob(bytes.try_into().ok()?)),
            _ => None,
        }
    }

    /// Begins to hash a file of so many bytes in the same way.
    pub(super) fn hasher(&self, size: u64) -> Hasher {
        match self {
            Self::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Self::GitBlob(_) => Hasher::GitBlob(Sha1::new().chain_update(format!("blob {size}\0"))),
        }
    }
}

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::GitBlob(hasher) => hasher.update(bytes),
        }
    }

    pub(super) fn finish(self) -> Digest {
        match self {
            Self::Sha256(hasher) => Digest::Sha256(hasher.finalize().into()),
            Self::GitBlob(hasher) => Digest::GitBlob(hasher.finalize().into()),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: &[u8] = match self {
            Self::Sha256(bytes) => bytes,
            Self::GitBlob(bytes) => bytes,
        };
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(etag: &str, bytes: &[u8]) {
        let told = Digest::of_etag(etag).unwrap();
        let mut hasher = told.hasher(bytes.len() as u64);
        hasher.update(bytes);
        assert_eq!(hasher.finish(), told);
    }

    #[test]
    fn files_hash_as_others_hash_them() {
        // `printf abc | sha256sum`; `printf 'hello\n' | git hash-object --stdin`.
        check("\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"", b"abc");
        check("W/\"ce013625030ba8dba906f756967f9e9ca394464a\"", b"hello\n");
    }

    #[test]
    fn other_tags_are_no_hashes() {
        let long = "zz".repeat(32);
        for etag in ["", "\"\"", "abc", "d41d8cd98f00b204e9800998ecf8427e", &long, "ü"] {
            assert_eq!(Digest::of_etag(etag), None, "{etag}");
        }
    }
}
