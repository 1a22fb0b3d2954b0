//! `assay model pull`: a model of a hub, fetched and imported.

use std::cell::RefCell;
use std::fs::{self, File};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};

use assay_engine::Package;
use assay_engine::import::Report;
use assay_protocol::B256;
use clap::Args;
use serde_json::{Value, json};

use super::choose::{self, Chosen};
use super::fetch::{Fetched, Meter};
use super::part::Part;
use super::reference::{Reference, Variant};
use super::{Digest, Hub, HubError, HubFile, Manner, Remote, Repository};
use crate::data::{Data, DataArgument, create_private};
use crate::failure::{Exit, Failure, Outcome};
use crate::library::{self, Library};
use crate::machine::{ThreadsArgument, disk_free};
use crate::model::{ImportArgument, describe_import, tell_import};
use crate::terminal::{Progress, bytes, note, say, say_json};

/// Most names of files that an error tells.
const NAMES_MAX: usize = 12;

/// Fetch a model from a hub, and import it
///
/// Takes the GGUF file that suits best (Q8_0, else the nearest to it), or config.json with safetensors. Files
/// are fetched in pieces, over several connections; after a cut, or a kill, the same command goes on where it
/// stopped. Nothing is imported before its SHA-256 is what the hub says. HTTPS_PROXY is followed.
#[derive(Args, Debug)]
pub(crate) struct Pull {
    /// The model: ORG/NAME, ORG/NAME:Q4_K_M, ORG/NAME:FILE.gguf or ORG/NAME:safetensors
    #[arg(value_name = "ORG/NAME")]
    model: String,
    /// The file to take, as after the colon
    #[arg(long)]
    file: Option<String>,
    /// Branch, tag or commit
    #[arg(long, value_name = "REV", default_value = "main")]
    revision: String,
    /// The hub, or a mirror of it
    #[arg(long, value_name = "URL", env = "HF_ENDPOINT", default_value = "https://huggingface.co")]
    endpoint: String,
    /// Token for gated and private models; better given by the variable, which `ps` does not show
    #[arg(long, value_name = "TOKEN", env = "HF_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Connections at once
    #[arg(long, value_name = "N", default_value = "4")]
    connections: NonZeroUsize,
    /// Bytes asked for at a time on each connection; a kill wastes no more of each
    #[arg(long, value_name = "BYTES", default_value = "16777216")]
    piece_bytes: NonZeroU64,
    /// Keep what was fetched after it is imported, and say where
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    import: ImportArgument,
    #[command(flatten)]
    data: DataArgument,
    #[command(flatten)]
    threads: ThreadsArgument,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// A model of a hub, about to be fetched.
struct Plan {
    reference: Reference,
    repository: Repository,
    /// Its quantisation, where a file's name tells.
    kind: Option<&'static str>,
    files: Vec<Remote>,
    /// What is imported: a file, or the directory that the files go to.
    source: PathBuf,
}

/// What came of fetching.
#[derive(Default)]
struct Delivery {
    fetched: Fetched,
    seconds: f64,
}

impl Pull {
    pub(crate) fn run(self) -> Outcome {
        let reference = self.reference()?;
        let data = self.data.resolve()?;
        let (library, options, cpu) =
            (Library::of(&data), self.import.options()?, self.threads.cpu()?);
        let manner = Manner {
            connections: self.connections.get(),
            piece_bytes: self.piece_bytes.get(),
            ..Manner::default()
        };
        let hub = Hub::new(&self.endpoint, self.token.as_deref(), manner)?;
        let folder = folder(&data, &reference)?;
        let _lock = lock(&folder, &reference)?;
        let plan = crate::wait(async {
            let planned = plan(&hub, &reference, &self.revision, &folder).await;
            planned.map_err(|error| error.failure(&hub, &reference))?
        })?;
        announce(&plan);
        if let Some(package) =
            plan.known(&library).filter(|_| self.import.is_default() && !self.keep)
        {
            library.remember_pulled(&reference.repository(), &plan.variant(), &package)?;
            note(format_args!("{} is here already", package.name()));
            return self.tell(
                &hub,
                &plan,
                &Delivery::default(),
                &package,
                None,
                &library.path(package.id()),
            );
        }
        plan.check_room()?;
        let delivery = crate::wait(plan.fetch(&hub))?;
        let (package, report) = library::import(&plan.source, &options, &cpu)?;
        let file = library.keep(&package)?;
        if self.import.is_default() {
            if plan.source.is_file() {
                library.remember(&package)?;
            }
            library.remember_pulled(&reference.repository(), &plan.variant(), &package)?;
        }
        if !self.keep {
            plan.clear();
        }
        self.tell(&hub, &plan, &delivery, &package, Some(&report), &file)
    }

    fn reference(&self) -> Outcome<Reference> {
        let wrong = |text: &str| {
            Failure::new(Exit::Usage, format_args!("{text:?} names no model of a hub"))
                .fix("write ORG/NAME, ORG/NAME:Q8_0, ORG/NAME:FILE.gguf or ORG/NAME:safetensors")
        };
        let mut reference = Reference::parse(&self.model).ok_or_else(|| wrong(&self.model))?;
        if let Some(file) = &self.file {
            reference.variant = Variant::parse(file).ok_or_else(|| wrong(file))?;
        }
        Ok(reference)
    }

    fn tell(
        &self,
        hub: &Hub,
        plan: &Plan,
        delivery: &Delivery,
        package: &Package,
        report: Option<&Report>,
        file: &Path,
    ) -> Outcome {
        if !self.json {
            tell_import(package, report, file);
            say(format_args!(
                "  source      {} at {}",
                plan.reference.repository(),
                plan.repository.commit
            ));
            if self.keep {
                say(format_args!("  kept        {}", plan.source.display()));
            }
            return Ok(());
        }
        let mut document = describe_import(package, report, file);
        document["schema"] = "assay.pull/1".into();
        document["hub"] = json!({
            "endpoint": hub.endpoint.as_str().trim_end_matches('/'),
            "repository": plan.reference.repository(),
            "revision": plan.repository.commit,
            "licence": plan.repository.licence,
            "files": plan.files.iter().map(tell_file).collect::<Vec<_>>(),
            "bytes_fetched": delivery.fetched.fetched,
            "bytes_found": delivery.fetched.found,
            "seconds": delivery.seconds,
            "kept": self.keep.then_some(&plan.source),
        });
        say_json(&document);
        Ok(())
    }
}

fn tell_file(file: &Remote) -> Value {
    let mut told = json!({ "name": file.name, "bytes": file.size });
    let kind = if matches!(file.digest, Digest::Sha256(_)) { "sha256" } else { "git_blob" };
    told[kind] = file.digest.to_string().into();
    told
}

/// Where the files of a repository are put while they come.
fn folder(data: &Data, reference: &Reference) -> Outcome<PathBuf> {
    let folder = data.downloads().join(&reference.org).join(&reference.name);
    create_private(&folder)?;
    Ok(folder)
}

/// The right to put files there, until dropped.
fn lock(folder: &Path, reference: &Reference) -> Outcome<File> {
    let path = folder.with_extension("lock");
    let failed = |error| Failure::file(format_args!("{} cannot be used", path.display()), &error);
    let file = File::create(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            let what = format!("{} is being fetched", reference.repository());
            Err(Failure::new(Exit::Conflict, what).fix("wait for the other `assay model pull`"))
        }
        Err(fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Asks the hub what it has, and picks.
async fn plan(
    hub: &Hub,
    reference: &Reference,
    revision: &str,
    folder: &Path,
) -> Result<Outcome<Plan>, HubError> {
    let repository = hub.repository(reference, revision).await?;
    let chosen = match choose::choose(&repository.files, &reference.variant) {
        Ok(chosen) => chosen,
        Err(error) => return Ok(Err(unsuitable(reference, &error))),
    };
    let (kind, wanted, source) = match chosen {
        Chosen::Gguf(file) => {
            let source = folder.join(file.name.rsplit('/').next().unwrap_or_default());
            (choose::kind_of(&file.name), vec![file], source)
        }
        // The directory's name may become the model's.
        Chosen::Directory(files) => (None, files, folder.join(&reference.name)),
    };
    let files = remotes(hub, reference, &repository.commit, &wanted).await?;
    Ok(Ok(Plan { reference: reference.clone(), repository, kind, files, source }))
}

async fn remotes(
    hub: &Hub,
    reference: &Reference,
    commit: &str,
    files: &[HubFile],
) -> Result<Vec<Remote>, HubError> {
    let mut remotes = Vec::with_capacity(files.len());
    for file in files {
        remotes.push(hub.remote(reference, commit, file).await?);
    }
    Ok(remotes)
}

fn unsuitable(reference: &Reference, error: &choose::ChooseError) -> Failure {
    let repository = reference.repository();
    let names = error.found().iter().take(NAMES_MAX).map(|name| format!("\n       {name}"));
    let names: String = names.collect();
    let failure =
        Failure::new(Exit::NotFound, format_args!("{repository} gives no model")).why(error);
    if names.is_empty() {
        return failure
            .fix("take a repository with GGUF files, or with config.json and safetensors");
    }
    failure.fix(format_args!("name one of its files, as in {repository}:FILE.gguf{names}"))
}

fn announce(plan: &Plan) {
    let what = match plan.files.as_slice() {
        [file] => file.name.clone(),
        files => format!("{} files", files.len()),
    };
    let commit: String = plan.repository.commit.chars().take(12).collect();
    note(format_args!(
        "{} at {commit}: {what}, {}, licence {}",
        plan.reference.repository(),
        bytes(plan.bytes()),
        plan.repository.licence.as_deref().unwrap_or("not stated"),
    ));
}

impl Plan {
    fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.size))
    }

    fn is_directory(&self) -> bool {
        !matches!(self.files.as_slice(), [file] if file.name.ends_with(".gguf"))
    }

    /// What this model is called among those of its repository.
    fn variant(&self) -> String {
        if self.is_directory() { "safetensors".into() } else { self.files[0].name.clone() }
    }

    fn place(&self, file: &Remote) -> PathBuf {
        if self.is_directory() { self.source.join(&file.name) } else { self.source.clone() }
    }

    /// The model that was made of this very file before.
    fn known(&self, library: &Library) -> Option<Package> {
        match self.files.as_slice() {
            [Remote { digest: Digest::Sha256(hash), .. }] => library.by_source(B256::from(*hash)),
            _ => None,
        }
    }

    /// Whether what is missing fits on the disk, and the model beside it.
    fn check_room(&self) -> Outcome {
        let held: u64 = self.files.iter().map(|file| Part::held(&self.place(file), file)).sum();
        if held > 0 {
            note(format_args!("  {} of it are here already", bytes(held)));
        }
        let missing = self.bytes().saturating_sub(held);
        let package = (self.bytes() as f64 * choose::growth(self.kind)) as u64;
        let needed = missing.saturating_add(package);
        match disk_free(&self.source) {
            Some(free) if free < needed => {
                let what = format!("{} does not fit on the disk", self.reference.repository());
                Err(Failure::new(Exit::Failed, what)
                    .why(format_args!(
                        "{} to fetch and about {} for the model, {} are free",
                        bytes(missing),
                        bytes(package),
                        bytes(free)
                    ))
                    .fix("free some space, or pass a --data-dir on a larger disk"))
            }
            _ => Ok(()),
        }
    }

    /// Brings all files.
    async fn fetch(&self, hub: &Hub) -> Outcome<Delivery> {
        let began = std::time::Instant::now();
        if self.is_directory() {
            create_private(&self.source)?;
            self.prune();
        }
        let progress = RefCell::new(Progress::of_bytes());
        let total = self.bytes();
        let show = |held| progress.borrow_mut().show("fetching", held, total);
        let meter = Meter::new(&show);
        let mut fetched = Fetched::default();
        for file in &self.files {
            let one = hub.fetch(file, &self.place(file), &meter).await;
            let one = one.map_err(|error| error.failure(hub, &self.reference))?;
            fetched.found += one.found;
            fetched.fetched += one.fetched;
        }
        Ok(Delivery { fetched, seconds: began.elapsed().as_secs_f64() })
    }

    /// Removes what an earlier state of the repository left in the directory, so that the model is made of
    /// these files alone.
    fn prune(&self) {
        let entries = fs::read_dir(&self.source).into_iter().flatten().filter_map(Result::ok);
        for path in entries.map(|entry| entry.path()) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let whole = name.split(".part").next().unwrap_or_default();
            if !self.files.iter().any(|file| file.name == whole) {
                // What cannot be removed is left out if it is no part of a model, else it is in its id.
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Removes what was fetched. What cannot be removed only takes room.
    fn clear(&self) {
        for file in &self.files {
            let _ = fs::remove_file(self.place(file));
        }
        let folder = if self.is_directory() { Some(self.source.as_path()) } else { None };
        // Directories go if nothing else lies in them.
        for folder in folder.into_iter().chain(self.source.parent()) {
            let _ = fs::remove_dir(folder);
        }
    }
}
