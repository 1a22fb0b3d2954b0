//! The models of this machine: found by file, id or name, and made from foreign files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use assay_engine::import::{self, ImportError, Options, Report};
use assay_engine::{OnnxPackage, Package, PackageError, Summary};
use assay_kernels::Cpu;
use assay_protocol::{B256, ModelId};
use sha2::{Digest, Sha256};

use crate::data::{Data, create_private, write_whole};
use crate::failure::{Exit, Failure, Outcome};
use crate::fit::Fit;
use crate::hub::{Reference, Variant, kind_of};
use crate::machine::memory_available;
use crate::onnx;
use crate::terminal::Progress;

/// The model that comes with the program: 869,504 parameters, trained for seven small tasks.
const SHIPPED: &[u8] = include_bytes!("../../../assets/nano/nano-q8_0.gguf");
/// What clients call it.
const SHIPPED_NAME: &str = "nano";
/// Folder of notes, one per source file, of the model it gives.
const SOURCES: &str = "sources";
/// Folder of notes, one per model whose weights were checked, of the file that they lie in.
const CHECKED: &str = "checked";
/// Folder of notes, one per file of a hub's repository, of the model it gave.
const PULLED: &str = "pulled";

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

    /// Notes that this is what a file of a hub's repository, or its safetensors, gave.
    pub(crate) fn remember_pulled(
        &self,
        repository: &str,
        file: &str,
        package: &Package,
    ) -> Outcome {
        let folder = self.folder.join(PULLED).join(repository);
        create_private(&folder)?;
        write_whole(&folder.join(file.replace('/', "--")), package.id().to_string().as_bytes())
    }

    /// The model that was pulled from a hub under this name.
    fn pulled(&self, reference: &Reference) -> Outcome<Package> {
        let repository = reference.repository();
        let folder = self.folder.join(PULLED).join(&repository);
        let entries = fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok);
        let is_named = |file: &str| match &reference.variant {
            Variant::Best => true,
            Variant::File(name) => file == name.replace('/', "--"),
            Variant::Kind(kind) => kind_of(file) == Some(kind),
            Variant::Safetensors => file == "safetensors",
        };
        let known = entries.filter_map(|entry| {
            let file = entry.file_name().into_string().ok().filter(|file| is_named(file))?;
            let id: ModelId = fs::read_to_string(entry.path()).ok()?.parse().ok()?;
            self.path(id).exists().then_some((file, id))
        });
        let mut known: Vec<(String, ModelId)> = known.collect();
        known.sort();
        known.dedup_by_key(|(_, id)| *id);
        match known.as_slice() {
            [(_, id)] => read(&self.path(*id)),
            [] => Err(Failure::new(Exit::NotFound, format_args!("{reference} is not here"))
                .why("there is no such file, and no model was pulled under this name")
                .fix(format_args!("fetch it from its hub: assay model pull {reference}"))),
            several => {
                let files: Vec<&str> = several.iter().map(|(file, _)| file.as_str()).collect();
                let what = format!("{} models of {repository} are here", several.len());
                Err(Failure::new(Exit::Usage, what)
                    .why(files.join(", "))
                    .fix(format_args!("name one, as in {repository}:{}", files[0])))
            }
        }
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
        if let Some(reference) = Reference::parse(what).filter(|_| !ends_as_a_file(what)) {
            return self.pulled(&reference);
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
        self.by_name(what, cpu)
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
        if OnnxPackage::is_source(path) {
            return Err(onnx::unwanted(path.display()));
        }
        if is_foreign(path)
            && let Some(known) = self.by_source(source_of(path)?)
        {
            return Ok(known);
        }
        import(path, &Options::default(), cpu).map(|(package, _)| package)
    }

    /// The model as `up` serves it, or the one that ships: found or converted, kept, and its weights checked
    /// against its id, since providers sign for them. A file that was checked is trusted until it changes.
    pub(crate) fn checked(&self, what: Option<&str>, cpu: &Cpu) -> Outcome<Package> {
        let package = match what {
            Some(what) => self.find(what, cpu)?,
            None => self.shipped(cpu)?,
        };
        let (id, path) = (package.id(), what.map(Path::new).unwrap_or(Path::new("")));
        // A package of somebody else's says itself which model it is.
        let is_strange = path.is_file() && !is_foreign(path);
        if self.is_checked(id) && !is_strange {
            return Ok(package);
        }
        verify(&package)?;
        if !self.path(id).exists() || is_strange && !self.is_checked(id) {
            self.keep(&package)?;
            if is_foreign(path) {
                self.remember(&package)?;
            }
        }
        self.remember_checked(id)?;
        Ok(package)
    }

    /// Whether the weights of a model were compared with its id, and its file has not changed since.
    fn is_checked(&self, id: ModelId) -> bool {
        let noted = fs::read_to_string(self.folder.join(CHECKED).join(id.to_string()));
        noted.is_ok_and(|noted| stamp(&self.path(id)).is_ok_and(|found| found == noted))
    }

    /// Notes that the weights of a model are those of its id.
    fn remember_checked(&self, id: ModelId) -> Outcome {
        let path = self.path(id);
        let found = stamp(&path).map_err(|error| Failure::file(path.display(), &error))?;
        create_private(&self.folder.join(CHECKED))?;
        write_whole(&self.folder.join(CHECKED).join(id.to_string()), found.as_bytes())
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
    pub(crate) fn by_source(&self, source: B256) -> Option<Package> {
        let id = fs::read_to_string(self.note_of(source)).ok()?.parse().ok()?;
        Package::read(&self.path(id)).ok()
    }

    /// What the readable models say of themselves.
    fn summaries(&self) -> impl Iterator<Item = (PathBuf, Summary)> {
        let peek = |path: PathBuf| Package::peek(&path).ok().map(|summary| (path, summary));
        self.files().into_iter().filter_map(peek)
    }

    /// How many models of exact-1 are called `name`.
    pub(crate) fn count_named(&self, name: &str) -> usize {
        self.summaries().filter(|(_, model)| model.name == name).count()
    }

    /// The file of the model whose id is, or begins like, `what`.
    pub(crate) fn by_id(&self, what: &str) -> Outcome<Option<PathBuf>> {
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

    fn by_name(&self, name: &str, cpu: &Cpu) -> Outcome<Package> {
        let named = self.summaries().filter(|(_, model)| model.name == name);
        let named: Vec<PathBuf> = named.map(|(path, _)| path).collect();
        match named.as_slice() {
            [path] => read(path),
            [] if name == SHIPPED_NAME => self.shipped(cpu),
            [] if onnx::is_named(self, name) => Err(onnx::unwanted(format_args!("model {name}"))),
            [] => Err(Failure::new(Exit::NotFound, format_args!("there is no model {name}"))
                .why(format_args!(
                    "no file and no model in {} is called that",
                    self.folder.display()
                ))
                .fix("`assay model ls` lists what there is; `assay model pull ORG/NAME` and `assay model import FILE` add some")),
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
    if OnnxPackage::is_package(path) {
        return Err(onnx::unwanted(path.display()));
    }
    let summary = Package::peek(path).map_err(|error| unreadable(path, &error))?;
    let length = fs::metadata(path).map_or(0, |file| file.len());
    Fit::of(&summary, length).check(&summary.name, memory_available())?;
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

/// What tells a file from what it was before: its length, when it changed, and its number on the disk.
fn stamp(path: &Path) -> std::io::Result<String> {
    let file = fs::metadata(path)?;
    Ok(format!("{} {}.{:09} {}", file.len(), file.mtime(), file.mtime_nsec(), file.ino()))
}

/// Whether this is a file that others published, to be converted.
fn is_foreign(path: &Path) -> bool {
    path.is_file() && path.extension().is_none_or(|kind| kind != "assay")
}

fn looks_like_a_file(what: &str) -> bool {
    what.contains('/') || ends_as_a_file(what)
}

/// Whether this is a file's name, and not `org/name:FILE.gguf`.
fn ends_as_a_file(what: &str) -> bool {
    let ends = [".gguf", ".assay", ".safetensors", ".onnx"].iter().any(|end| what.ends_with(end));
    ends && !what.contains(':')
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
