//! A folder of keys, each in a file under a password.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use alloy_primitives::{Address, B256};

use super::Signer;
use super::secret::{Closed, Document};

/// Longest key file that is looked at, in bytes; real ones have some 500.
const FILE_MAX: u64 = 64 << 10;

/// A folder of key files, one per account, each under a password.
#[derive(Clone, Debug)]
pub struct Keystore {
    folder: PathBuf,
}

/// Why a key file is not written, or not opened.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    /// The disk, or the system's permissions.
    #[error("{path} cannot be used: {source}")]
    File {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// No file in the folder is for this account.
    #[error("no key file for {address} in {folder}")]
    Absent {
        /// The account.
        address: Address,
        /// The folder.
        folder: PathBuf,
    },
    /// The file is no key file, or its key is not that of its account.
    #[error("{path} is no key file: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The password does not open the file.
    #[error("the password does not open {path}")]
    Password {
        /// The file.
        path: PathBuf,
    },
}

impl Keystore {
    /// The keystore in `folder`, which is made, for its owner alone, if it is not there.
    pub fn open(folder: &Path) -> Result<Self, KeystoreError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| failed(folder, source))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// The accounts that have a file, in the order of their addresses. What is no key file is
    /// passed over.
    pub fn accounts(&self) -> Result<Vec<Address>, KeystoreError> {
        let mut accounts: Vec<_> = self.files()?.into_iter().map(|(address, _)| address).collect();
        accounts.sort();
        accounts.dedup();
        Ok(accounts)
    }

    /// Makes a key and writes it under `password`.
    pub fn create(&self, password: &str) -> Result<Signer, KeystoreError> {
        loop {
            // All but one in 2^127 draws are keys.
            if let Some(signer) = Signer::from_bytes(B256::random().0) {
                self.write(&signer, password)?;
                return Ok(signer);
            }
        }
    }

    /// Writes `signer`'s key under `password`, readable by the owner alone, in place of an older
    /// file for the same account that this keystore wrote. It appears whole or not at all.
    pub fn write(&self, signer: &Signer, password: &str) -> Result<PathBuf, KeystoreError> {
        let address = signer.address();
        let path = self.folder.join(format!("{address:x}.json"));
        let part = self.folder.join(format!(".{address:x}.{}", std::process::id()));
        let document = Document::seal(address, signer.secret(), password);
        let written = write(&part, &document).and_then(|()| fs::rename(&part, &path));
        if let Err(source) = written {
            // It may not even exist; what went wrong is already known.
            let _ = fs::remove_file(&part);
            return Err(failed(&path, source));
        }
        Ok(path)
    }

    /// Opens the key of `address`. Takes its time, by design.
    pub fn unlock(&self, address: &Address, password: &str) -> Result<Signer, KeystoreError> {
        let file = self.files()?.into_iter().find(|(found, _)| found == address);
        let Some((_, path)) = file else {
            return Err(KeystoreError::Absent { address: *address, folder: self.folder.clone() });
        };
        let signer = open(&path, password)?;
        if signer.address() != *address {
            let reason = format!("it holds the key of {}, expected {address}", signer.address());
            return Err(KeystoreError::Malformed { path, reason });
        }
        Ok(signer)
    }

    fn files(&self) -> Result<Vec<(Address, PathBuf)>, KeystoreError> {
        let entries = fs::read_dir(&self.folder).map_err(|source| failed(&self.folder, source))?;
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        Ok(paths.filter_map(|path| Some((address_in(&path)?, path))).collect())
    }
}

fn write(path: &Path, document: &Document) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&serde_json::to_vec(document)?)?;
    file.sync_all()
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > FILE_MAX {
        return Err(ErrorKind::FileTooLarge.into());
    }
    fs::read(path)
}

/// The account that a key file says it is for; `None` for any other file.
fn address_in(path: &Path) -> Option<Address> {
    let hidden = path.file_name()?.as_encoded_bytes().starts_with(b".");
    let document: Document = serde_json::from_slice(&read(path).ok()?).ok()?;
    document.address().filter(|_| !hidden)
}

fn open(path: &Path, password: &str) -> Result<Signer, KeystoreError> {
    let malformed = |reason: String| KeystoreError::Malformed { path: path.to_owned(), reason };
    let bytes = read(path).map_err(|source| failed(path, source))?;
    let document: Document =
        serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
    let secret = document.open(password).map_err(|closed| match closed {
        Closed::Password => KeystoreError::Password { path: path.to_owned() },
        Closed::Malformed(reason) => malformed(reason),
    })?;
    let secret = secret.try_into().ok().and_then(Signer::from_bytes);
    secret.ok_or_else(|| malformed("its contents are no key of secp256k1".into()))
}

fn failed(path: &Path, source: std::io::Error) -> KeystoreError {
    KeystoreError::File { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use alloy_primitives::address;

    use super::*;

    #[test]
    fn a_key_comes_back_with_its_password_only() {
        let folder = tempfile::tempdir().unwrap();
        let keystore = Keystore::open(&folder.path().join("keys")).unwrap();
        let made = keystore.create("open sesame").unwrap();
        assert_eq!(keystore.accounts().unwrap(), [made.address()]);
        let opened = keystore.unlock(&made.address(), "open sesame").unwrap();
        assert_eq!(opened.secret(), made.secret());
        let refused = keystore.unlock(&made.address(), "open barley").unwrap_err();
        assert!(matches!(refused, KeystoreError::Password { .. }), "{refused}");
        let nobody = keystore.unlock(&Address::ZERO, "").unwrap_err();
        assert!(matches!(nobody, KeystoreError::Absent { .. }), "{nobody}");
        for (_, path) in keystore.files().unwrap() {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    /// The key of the format's definition, sealed with OpenSSL and Python at fewer rounds than there.
    const PBKDF2: &str = r#"{"address":"008aeeda4d805471df9b2a5b0f38a0c3bcba786b","crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"6087dab2f9fdbbfaddc31a909735c1e6"},"ciphertext":"fbd0fff3ca9ae731ed2eb9ab007f7ebb7a53fbad65fb4781366078363d8c6996","kdf":"pbkdf2","kdfparams":{"c":1000,"dklen":32,"prf":"hmac-sha256","salt":"ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"},"mac":"85cdd1742e807b6d1b17d0d2e18ce20e3cbe562ce27b7a7df458b7ae78d7933e"},"id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}"#;
    const SCRYPT: &str = r#"{"address":"008aeeda4d805471df9b2a5b0f38a0c3bcba786b","crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"6087dab2f9fdbbfaddc31a909735c1e6"},"ciphertext":"de3f5962b67bda23a1e56e19fbc7900e7eecb4ed4f77e5eb3ea853126ec00ec7","kdf":"scrypt","kdfparams":{"dklen":32,"n":1024,"p":1,"r":8,"salt":"ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"},"mac":"dbb4c0f18597a22886f50d7c175fc7b92e3fa0f4a24eea91203c4c0b8540a461"},"id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}"#;

    #[test]
    fn files_of_other_wallets_open() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("notes.txt"), "not a key").unwrap();
        let keystore = Keystore::open(folder.path()).unwrap();
        let account = address!("0x008aeeda4d805471df9b2a5b0f38a0c3bcba786b");
        for document in [PBKDF2, SCRYPT] {
            fs::write(folder.path().join("UTC--2014--somewhere"), document).unwrap();
            assert_eq!(keystore.accounts().unwrap(), [account]);
            let signer = keystore.unlock(&account, "testpassword").unwrap();
            let expected = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d";
            assert_eq!(alloy_primitives::hex::encode(signer.secret()), expected);
        }
    }

    #[test]
    fn a_file_that_asks_too_much_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let keystore = Keystore::open(folder.path()).unwrap();
        let account = address!("0x008aeeda4d805471df9b2a5b0f38a0c3bcba786b");
        let changes = [
            ("\"c\":1000", "\"c\":4294967295"),
            (
                "\"kdf\":\"pbkdf2\",\"kdfparams\":{\"c\":1000",
                "\"kdf\":\"scrypt\",\"kdfparams\":{\"n\":1073741824,\"r\":8,\"p\":1",
            ),
            (
                "\"kdf\":\"pbkdf2\",\"kdfparams\":{\"c\":1000",
                "\"kdf\":\"scrypt\",\"kdfparams\":{\"n\":3,\"r\":8,\"p\":1",
            ),
            ("\"dklen\":32", "\"dklen\":8"),
            ("6087dab2f9fdbbfaddc31a909735c1e6", "60"),
            ("aes-128-ctr", "none"),
            ("\"version\":3", "\"version\""),
        ];
        for (from, to) in changes {
            let file = PBKDF2.replace(from, to);
            fs::write(folder.path().join("key"), file).unwrap();
            let refused = keystore.unlock(&account, "testpassword").unwrap_err();
            let named =
                matches!(refused, KeystoreError::Malformed { .. } | KeystoreError::Absent { .. });
            assert!(named, "{to}: {refused}");
        }
    }
}
