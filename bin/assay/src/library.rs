//! The models of this machine: found by file, id or name, and made from foreign files.

use std::fs;
use std::path::{Path, PathBuf};

use assay_engine::import::{self, ImportError, Options, Report};
use assay_engine::{Package, PackageError, Summary};
use assay_kernels::Cpu;
use assay_protocol::{B256, ModelId};
use sha2::{Digest, Sha256};

use crate::data::{Data, create_private, write_whole};
use crate::failure::{Exit, Failure, Outcome};
use crate::terminal::Progress;

/// The model that comes with the program: 869,504 parameters, trained for seven small tasks.
const SHIPPED: &[u8] = include_bytes!("../../../assets/nano/nano-q8_0.gguf");
/// What clients call it.
const SHIPPED_NAME: &str = "nano";
/// Folder of notes, one per source file, of the model it gives.
const SOURCES: &str = "sources";

/// The models in a data directory.
#[derive(Clone, Debug)]
pub(crate) struct Library {
    folder: PathBuf,
}

impl Library {
    /// The library of a data directory, which need not exist.
    pub(crate) fn of(data: &Data) -> Self {
        Self { folder: data.models() }
    }

    /// Where the model with this id lies, or would.
    pub(crate) fn path(&self, id: ModelId) -> PathBuf {
        self.folder.join(format!("{id}.assay"))
    }

    /// The files of all models, in order of id.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().filter_map(Result::ok);
        let mut files: Vec<PathBuf> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|kind| kind == "assay"))
            .collect();
        files.sort();
        files
    }

    /// Removes what processes that were stopped left half-written. Whoever calls this holds the
    /// lock of the data directory.
    pub(crate) fn sweep(&self) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().filter_map(Result::ok);
        for path in entries.map(|entry| entry.path()) {
            if path.is_file() && path.extension().is_none_or(|kind| kind != "assay") {
                // What cannot be removed is in nobody's way.
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Notes that this is what its source gives with default options, so that the source need not
    /// be converted again.
    pub(crate) fn remember(&self, package: &Package) -> Outcome {
        let note = self.note_of(package.manifest().parts.source);
        create_private(&self.folder)?;
        create_private(&self.folder.join(SOURCES))?;
        write_whole(&note, package.id().to_string().as_bytes())
    }

    /// Where the id of the model that a source gives is noted.
    fn note_of(&self, source: B256) -> PathBuf {
        self.folder.join(SOURCES).join(source.to_string())
    }

    /// Stores a model under its id.
    pub(crate) fn keep(&self, package: &Package) -> Outcome<PathBuf> {
        create_private(&self.folder)?;
        let path = self.path(package.id());
        package.write(&path).map_err(|error| unreadable(&path, &error))?;
        Ok(path)
    }

    /// The model called `what`: a file or directory of any known format, an id (or how one
    /// begins), or a name. Foreign formats are converted in memory.
    pub(crate) fn find(&self, what: &str, cpu: &Cpu) -> Outcome<Package> {
        let path = Path::new(what);
        if path.exists() {
            return self.open(path, cpu);
        }
        if looks_like_a_file(what) {
            return Err(Failure::new(
                Exit::NotFound,
                format_args!("there is no model file {what}"),
            )
            .fix("check the path; `assay model ls` lists the models of this machine"));
        }
        if let Some(found) = self.by_id(what)? {
            return read(&found);
        }
        self.by_name(what)
    }

    /// The model that an order names.
    pub(crate) fn of_id(&self, id: ModelId) -> Outcome<Package> {
        let path = self.path(id);
        if !path.exists() {
            return Err(Failure::new(Exit::NotFound, format_args!("model {id} is not here"))
                .why(format_args!("{} has no such file", self.folder.display()))
                .fix(
                    "pass the model's file with --model, or import it with `assay model import`",
                ));
        }
        read(&path)
    }

    /// A file or directory as a package.
    fn open(&self, path: &Path, cpu: &Cpu) -> Outcome<Package> {
        if path.extension().is_some_and(|kind| kind == "assay") {
            return read(path);
        }
        if is_foreign(path)
            && let Some(known) = self.by_source(source_of(path)?)
        {
            return Ok(known);
        }
        import(path, &Options::default(), cpu).map(|(package, _)| package)
    }

    /// The model as `up` serves it: found or converted, and then kept.
    pub(crate) fn open_and_keep(&self, what: &str, cpu: &Cpu) -> Outcome<Package> {
        let package = self.find(what, cpu)?;
        if !self.path(package.id()).exists() {
            self.keep(&package)?;
            if is_foreign(Path::new(what)) {
                self.remember(&package)?;
            }
        }
        Ok(package)
    }

    /// The model called `what`, or the one with this id if that was made from the same file.
    pub(crate) fn find_or_ordered(&self, what: &str, id: ModelId, cpu: &Cpu) -> Outcome<Package> {
        let (path, kept) = (Path::new(what), self.path(id));
        if is_foreign(path)
            && let Ok(ordered) = Package::peek(&kept)
            && ordered.manifest.parts.source == source_of(path)?
        {
            return read(&kept);
        }
        self.find(what, cpu)
    }

    /// The model that comes with the program, converted on its first use.
    pub(crate) fn shipped(&self, cpu: &Cpu) -> Outcome<Package> {
        let source = B256::from_slice(&Sha256::digest(SHIPPED));
        let known = self.by_source(source).filter(|known| known.name() == SHIPPED_NAME);
        if let Some(known) = known {
            return Ok(known);
        }
        create_private(&self.folder)?;
        let file = self.folder.join(format!("{SHIPPED_NAME}.gguf"));
        write_whole(&file, SHIPPED)?;
        let options = Options { name: Some(SHIPPED_NAME.into()), ..Options::default() };
        let imported = import(&file, &options, cpu);
        // The package replaces it; if it stays behind, the next start overwrites it.
        let _ = fs::remove_file(&file);
        let (package, _) = imported?;
        self.keep(&package)?;
        self.remember(&package)?;
        Ok(package)
    }

    /// The model that was made from a source file with default options.
    fn by_source(&self, source: B256) -> Option<Package> {
        let id = fs::read_to_string(self.note_of(source)).ok()?.parse().ok()?;
        Package::read(&self.path(id)).ok()
    }

    /// What the readable models say of themselves.
    fn summaries(&self) -> impl Iterator<Item = (PathBuf, Summary)> {
        let peek = |path: PathBuf| Package::peek(&path).ok().map(|summary| (path, summary));
        self.files().into_iter().filter_map(peek)
    }

    fn by_id(&self, what: &str) -> Outcome<Option<PathBuf>> {
        let Some(digits) = what.strip_prefix("0x") else { return Ok(None) };
        let begins = |path: &PathBuf| {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            stem.strip_prefix("0x").unwrap_or(stem).starts_with(&digits.to_lowercase())
        };
        let mut found: Vec<PathBuf> = self.files().into_iter().filter(begins).collect();
        match found.len() {
            1 => Ok(found.pop()),
            0 => Ok(None),
            count => Err(Failure::new(Exit::Usage, format_args!("{what} names {count} models"))
                .fix("give more of its digits")),
        }
    }

    fn by_name(&self, name: &str) -> Outcome<Package> {
        let named = self.summaries().filter(|(_, model)| model.name == name);
        let named: Vec<PathBuf> = named.map(|(path, _)| path).collect();
        match named.as_slice() {
            [path] => read(path),
            [] => Err(Failure::new(Exit::NotFound, format_args!("there is no model {name}"))
                .why(format_args!(
                    "no file and no model in {} is called that",
                    self.folder.display()
                ))
                .fix("`assay model ls` lists what there is, `assay model import FILE` adds one")),
            several => {
                let count = several.len();
                Err(Failure::new(Exit::Usage, format_args!("{count} models are called {name}"))
                    .fix("give an id instead; `assay model ls` lists them"))
            }
        }
    }
}

/// Converts a foreign file or directory, showing progress.
pub(crate) fn import(path: &Path, options: &Options, cpu: &Cpu) -> Outcome<(Package, Report)> {
    let mut progress = Progress::new();
    let imported = import::import(path, options, cpu, &mut |step| {
        progress.show(step.stage, step.done, step.total);
    });
    drop(progress);
    imported.map_err(|error| not_imported(path, &error))
}

/// Reads a package.
pub(crate) fn read(path: &Path) -> Outcome<Package> {
    Package::read(path).map_err(|error| unreadable(path, &error))
}

/// Computes everything a package's id commits to again, showing progress.
pub(crate) fn verify(package: &Package) -> Outcome {
    let mut progress = Progress::new();
    let rows = package.manifest().tensors.iter().map(|tensor| u64::from(tensor.rows)).sum();
    let verified = package.verify(&mut |done| progress.show("verifying", done, rows));
    drop(progress);
    verified.map_err(|error| {
        Failure::new(Exit::False, format_args!("model {} is not what its id says", package.name()))
            .why(error)
            .fix("delete the file and import the model again from its source")
    })
}

/// Whether this is a file that others published, to be converted.
fn is_foreign(path: &Path) -> bool {
    path.is_file() && path.extension().is_none_or(|kind| kind != "assay")
}

fn looks_like_a_file(what: &str) -> bool {
    what.contains('/') || [".gguf", ".assay", ".safetensors"].iter().any(|end| what.ends_with(end))
}

/// SHA-256 of a file, which is what a manifest calls its source.
fn source_of(path: &Path) -> Outcome<B256> {
    import::source_hash(path, &mut |_| ()).map_err(|error| not_imported(path, &error))
}

fn unreadable(path: &Path, error: &PackageError) -> Failure {
    if let PackageError::Io { source, .. } = error {
        return Failure::file(format_args!("{} cannot be used", path.display()), source);
    }
    Failure::new(Exit::Malformed, format_args!("{} is not a model package", path.display()))
        .why(error)
        .fix("import the model again from its source: assay model import FILE.gguf")
}

fn not_imported(path: &Path, error: &ImportError) -> Failure {
    if let ImportError::Io { source, .. } = error {
        return Failure::file(format_args!("{} cannot be read", path.display()), source);
    }
    Failure::new(Exit::Malformed, format_args!("{} cannot be imported", path.display()))
        .why(error)
        .fix(
            "llama models are read, as GGUF (F32, F16, BF16, Q8_0, Q4_0) or as a directory with \
              config.json and safetensors",
        )
}
