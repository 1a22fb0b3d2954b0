//! The data directory: keys, models and receipts of this machine. One network uses it at a time;
//! other commands read it, and write only whole files.
//!
//! ```text
//! <data-dir>/lock                 held while `assay up` runs; holds its process id
//! <data-dir>/models/<id>.assay    models, by their id
//! <data-dir>/models/sources/      which model a source file gives, by its SHA-256
//! <data-dir>/models/pulled/       which model a hub's file gave, by repository and name
//! <data-dir>/downloads/           what is being fetched from a hub
//! <data-dir>/gateway/key          who buys
//! <data-dir>/gateway/answers      answers bought, with their receipts; channels, clients' keys
//! <data-dir>/gateway/admin/key    token with which clients' keys are made
//! <data-dir>/admin/key            who governs the local chain
//! <data-dir>/chain/               its genesis, blocks and state
//! <data-dir>/contracts/<id>.json where a chain's contracts are, by chain id
//! <data-dir>/providers/<n>/key    who sells
//! <data-dir>/providers/<n>/sealed answers sold
//! <data-dir>/providers/<n>/canaries/{planter,buyer}/key  who plants its canaries, and who orders them
//! ```

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::failure::{Exit, Failure, Outcome};

/// Which data directory a command uses.
#[derive(Args, Clone, Debug)]
pub(crate) struct DataArgument {
    /// Directory for keys, models and receipts [default: ~/.local/share/assay]
    #[arg(long, value_name = "DIR", env = "ASSAY_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

impl DataArgument {
    #[cfg(test)]
    pub(crate) fn at(folder: &Path) -> Self {
        Self { data_dir: Some(folder.to_owned()) }
    }

    /// The directory, whether it exists or not.
    pub(crate) fn resolve(&self) -> Outcome<Data> {
        let folder =
            self.data_dir.clone().or_else(|| default_folder(|name| std::env::var_os(name)));
        folder.map(|folder| Data { folder }).ok_or_else(|| {
            Failure::new(Exit::Usage, "there is no place for data")
                .why("neither HOME nor XDG_DATA_HOME is set")
                .fix("pass --data-dir DIR, or set ASSAY_DATA_DIR")
        })
    }
}

fn default_folder(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let path = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = path("XDG_DATA_HOME").or_else(|| Some(path("HOME")?.join(".local/share")))?;
    Some(data.join("assay"))
}

/// A data directory.
#[derive(Clone, Debug)]
pub(crate) struct Data {
    folder: PathBuf,
}

/// The right to change a data directory, until dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Data {
    /// The directory itself.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where models lie.
    pub(crate) fn models(&self) -> PathBuf {
        self.folder.join("models")
    }

    /// Where files of hubs lie while they are fetched.
    pub(crate) fn downloads(&self) -> PathBuf {
        self.folder.join("downloads")
    }

    /// Where the gateway keeps its things.
    pub(crate) fn gateway(&self) -> PathBuf {
        self.folder.join("gateway")
    }

    /// Where the key of who disputes lies.
    pub(crate) fn validator(&self) -> PathBuf {
        self.folder.join("validator")
    }

    /// Where the key of the local chain's admin lies.
    pub(crate) fn admin(&self) -> PathBuf {
        self.folder.join("admin")
    }

    /// Where the local chain lies.
    pub(crate) fn chain(&self) -> PathBuf {
        self.folder.join("chain")
    }

    /// Where the address book of a chain lies.
    pub(crate) fn contracts(&self, chain_id: u64) -> PathBuf {
        self.folder.join("contracts").join(format!("{chain_id}.json"))
    }

    /// Where provider number `n` keeps its things, and the key of its owner.
    pub(crate) fn provider(&self, n: usize) -> PathBuf {
        self.folder.join("providers").join(n.to_string())
    }

    /// Where the key lies that provider number `n` signs offers and receipts with.
    pub(crate) fn operator(&self, n: usize) -> PathBuf {
        self.provider(n).join("operator")
    }

    /// Creates the directory if need be, and claims it for this process.
    pub(crate) fn lock(&self) -> Outcome<Lock> {
        create_private(&self.folder)?;
        let path = self.folder.join("lock");
        let failed = |error| {
            Failure::file(format_args!("{} cannot be used", path.display()), &error)
                .fix("pass a --data-dir that you may write to")
        };
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(self.in_use(&mut file)),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(Lock { _file: file })
    }

    fn in_use(&self, file: &mut File) -> Failure {
        let mut holder = String::new();
        let holder = match file.read_to_string(&mut holder) {
            Ok(_) if !holder.trim().is_empty() => format!("process {}", holder.trim()),
            _ => "another process".into(),
        };
        let what = format!("the data directory {} is in use", self.folder.display());
        Failure::new(Exit::Conflict, what)
            .why(format_args!("{holder} runs a network on it"))
            .fix("stop that one first, or pass another --data-dir")
    }
}

/// Creates a directory that only its owner enters, with its parents.
pub(crate) fn create_private(folder: &Path) -> Outcome {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
        Failure::file(format_args!("{} cannot be created", folder.display()), &error)
            .fix("pass a --data-dir that you may write to")
    })
}

/// Writes a file so that readers see the old contents or the new, never a part.
pub(crate) fn write_whole(path: &Path, contents: &[u8]) -> Outcome {
    let failed =
        |error| Failure::file(format_args!("{} cannot be written", path.display()), &error);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let written = File::create(&part).and_then(|mut file| {
        file.write_all(contents)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&part, path)).map_err(|error| {
        // What was written so far is of no use to anyone.
        let _ = fs::remove_file(&part);
        failed(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(home: Option<&str>, xdg: Option<&str>, expected: Option<&str>) {
        let folder = default_folder(|name| match name {
            "HOME" => home.map(OsString::from),
            _ => xdg.map(OsString::from),
        });
        assert_eq!(folder, expected.map(PathBuf::from));
    }

    #[test]
    fn data_lies_where_the_desktop_says() {
        check(Some("/u/ada"), None, Some("/u/ada/.local/share/assay"));
        check(Some("/u/ada"), Some("/data"), Some("/data/assay"));
        check(Some("/u/ada"), Some("relative"), Some("/u/ada/.local/share/assay"));
        check(None, None, None);
    }

    #[test]
    fn a_directory_is_used_by_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let data = Data { folder: folder.path().join("new") };
        let lock = data.lock().unwrap();
        let refused = data.lock().unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(lock);
        data.lock().unwrap();
    }
}
