//! Signing keys as files: 32 random bytes in hex, readable by their owner alone.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use assay_protocol::{Key, hex};

use crate::data::create_private;
use crate::failure::{Exit, Failure, Outcome};

/// Longest contents that are looked at: `0x`, 64 digits, white space.
const FILE_MAX: u64 = 128;

/// The key in `folder`, made if there is none yet.
pub(crate) fn load_or_create(folder: &Path) -> Outcome<Key> {
    create_private(folder)?;
    let path = folder.join("key");
    match File::open(&path) {
        Ok(file) => read(&path, file),
        Err(error) if error.kind() == ErrorKind::NotFound => create(&path),
        Err(error) => Err(failed(&path, "read", &error)),
    }
}

/// Refuses a key file that somebody else could read, or that holds no key.
pub(crate) fn check(path: &Path) -> Outcome<Key> {
    let file = File::open(path).map_err(|error| failed(path, "read", &error))?;
    read(path, file)
}

fn read(path: &Path, file: File) -> Outcome<Key> {
    // The open file is asked, not its name, so that nothing can be exchanged in between.
    let mode = file.metadata().map_err(|error| failed(path, "read", &error))?.mode();
    if mode & 0o077 != 0 {
        let what = format!("the key file {} can be read by others", path.display());
        return Err(Failure::new(Exit::Permission, what)
            .why(format_args!("its mode is {:03o}, expected 600", mode & 0o777))
            .fix(format_args!("if nobody else has read it: chmod 600 '{}'", path.display())));
    }
    let mut text = String::new();
    let read = file.take(FILE_MAX).read_to_string(&mut text);
    read.map_err(|error| failed(path, "read", &error))?;
    parse(&text).ok_or_else(|| {
        Failure::new(Exit::Malformed, format_args!("{} holds no key", path.display()))
            .why("expected 64 hex digits, a number below the order of secp256k1")
            .fix("restore it from a backup; without it nothing can be signed in its name")
    })
}

fn parse(text: &str) -> Option<Key> {
    let bytes: [u8; 32] = hex::decode(text.trim()).ok()?.try_into().ok()?;
    Key::from_bytes(bytes).ok()
}

/// Makes a key and its file. The file appears complete or not at all, and never replaces one.
fn create(path: &Path) -> Outcome<Key> {
    let key = random();
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&part)
        .and_then(|mut file| {
            writeln!(file, "{}", hex::encode(key.to_bytes()))?;
            file.sync_all()
        })
        .and_then(|()| fs::hard_link(&part, path));
    // The link is the file; the name it was written under is not needed either way.
    let _ = fs::remove_file(&part);
    written.map_err(|error| failed(path, "written", &error))?;
    Ok(key)
}

fn random() -> Key {
    loop {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).expect("the system has random numbers");
        // All but one in 2^127 draws are keys.
        if let Ok(key) = Key::from_bytes(bytes) {
            return key;
        }
    }
}

fn failed(path: &Path, verb: &str, error: &std::io::Error) -> Failure {
    Failure::file(format_args!("the key file {} cannot be {verb}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let first = load_or_create(&folder.path().join("a/b")).unwrap();
        let again = load_or_create(&folder.path().join("a/b")).unwrap();
        assert_eq!(first.address(), again.address());
        let mode = fs::metadata(folder.path().join("a/b/key")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path().join("a/b")).unwrap().count(), 1);
    }

    #[test]
    fn an_open_key_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        load_or_create(folder.path()).unwrap();
        let path = folder.path().join("key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let said = load_or_create(folder.path()).unwrap_err().to_string();
        assert!(said.contains("mode is 640") && said.contains("chmod 600"), "{said}");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "00", &"0".repeat(64), &"f".repeat(64), &"1".repeat(66)] {
            assert!(parse(text).is_none(), "{text:?}");
        }
        assert!(parse(&format!("0x{}\n", "1".repeat(64))).is_some());
    }
}
