//! The key that a validator votes and speaks to its peers with.

use alloy_primitives::{B256, hex};
use std::io::Write;
use std::path::{Path, PathBuf};

/// An ed25519 secret. It is written as 64 hexadecimal digits, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeKey(B256);

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("key file {}: {source}", path.display())]
    File {
        /// What the system said.
        source: std::io::Error,
        /// Which file.
        path: PathBuf,
    },
    /// The file holds something else.
    #[error("key file {} does not hold 64 hexadecimal digits", path.display())]
    Format {
        /// Which file.
        path: PathBuf,
    },
    /// Others on this machine can read the secret.
    #[error("key file {} is readable by others (mode {mode:o}, 600 is needed)", path.display())]
    Readable {
        /// The file's mode.
        mode: u32,
        /// Which file.
        path: PathBuf,
    },
}

impl NodeKey {
    /// A new key from the system's randomness.
    pub fn generate() -> Self {
        Self(B256::random())
    }

    /// The key made of these bytes; for tests and for keys kept elsewhere.
    pub const fn from_secret(secret: B256) -> Self {
        Self(secret)
    }

    /// Reads a key file. Fails with a [`KeyError`]; a file that others may read is refused.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let fail = |source| KeyError::File { source, path: path.into() };
        check_mode(path)?;
        let text = std::fs::read_to_string(path).map_err(fail)?;
        let mut secret = B256::ZERO;
        hex::decode_to_slice(text.trim(), secret.as_mut_slice())
            .map_err(|_| KeyError::Format { path: path.into() })?;
        Ok(Self(secret))
    }

    /// Writes a key file that only its owner can read. An existing file is left as it is and is an
    /// error.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        let fail = |source| KeyError::File { source, path: path.into() };
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path).map_err(fail)?;
        writeln!(file, "{}", hex::encode(self.0)).map_err(fail)?;
        file.sync_all().map_err(fail)
    }

    /// The secret itself, for the engine alone.
    #[cfg(feature = "cluster")]
    pub(crate) fn secret(&self) -> &B256 {
        &self.0
    }
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeKey(secret)")
    }
}

#[cfg(unix)]
fn check_mode(path: &Path) -> Result<(), KeyError> {
    use std::os::unix::fs::PermissionsExt;
    let fail = |source| KeyError::File { source, path: path.into() };
    let mode = std::fs::metadata(path).map_err(fail)?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(KeyError::Readable { mode, path: path.into() }) }
}

#[cfg(not(unix))]
fn check_mode(_: &Path) -> Result<(), KeyError> {
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_read_back_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let key = NodeKey::generate();
        key.save(&path).unwrap();
        assert_eq!(NodeKey::load(&path).unwrap(), key);
        assert!(matches!(NodeKey::generate().save(&path), Err(KeyError::File { .. })));
        assert_eq!(NodeKey::load(&path).unwrap(), key);
    }

    #[cfg(unix)]
    #[test]
    fn what_others_can_read_is_no_secret() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        NodeKey::generate().save(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(NodeKey::load(&path), Err(KeyError::Readable { mode: 0o644, .. })));
    }
}
