//! Several models on one machine, of which as many are in memory as fit.
//!
//! Each model has a [`Backend`] of its own that takes jobs whether the model is in memory or not. One
//! thread knows which are: it passes jobs on to those, loads a model when it is asked, and makes room
//! by dropping models that were asked longest ago ([`room`]). A model that answers is never dropped; if
//! only such ones are left, they get no more jobs until one has finished, so that nobody waits for
//! ever. Jobs that wait for their model go on together once it is there, so models do not take turns
//! for single jobs.

mod room;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use assay_kernels::Cpu;
use assay_protocol::{Assurance, ModelId};

use crate::job::{Backend, Busy, Deltas, DeltasSender, Job};
use crate::native::{Native, NativeConfig, Place, Places};
use crate::package::{Loaded, Package, PackageError, Summary};
use room::{Tenancy, Way, make_room};

/// How many models share a machine.
#[derive(Clone, Debug)]
pub struct ResidentsConfig {
    /// Bytes of the models in memory together, counted as their packages are long. Keys and values come
    /// on top: at most `native.kv_bytes_max` for each of them.
    pub bytes_max: u64,
    /// Jobs that may wait for a model that is not in memory, all models together. The next one is
    /// refused with [`Busy`].
    pub queue_max: NonZeroUsize,
    /// How each model works while it is in memory.
    pub native: NativeConfig,
}

/// Why models cannot share a machine.
#[derive(Debug, thiserror::Error)]
pub enum ResidentsError {
    /// A package cannot be read.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// A model alone is larger than all may be together.
    #[error("a model needs {found} bytes, all together may have {bytes_max} (model {id})")]
    TooLarge {
        /// Bytes of its package.
        found: u64,
        /// Bytes allowed.
        bytes_max: u64,
        /// Which model.
        id: ModelId,
    },
}

/// Models that share a machine. Dropping it, and every backend it gave, stops its thread; streams that
/// are open then close.
pub struct Residents {
    models: Vec<(Summary, Arc<Resident>)>,
    loads: Arc<AtomicU64>,
}

/// One of the models, in memory or not.
struct Resident {
    model: usize,
    places: Places,
    queue_max: usize,
    assurance: Assurance,
    /// Shared by all, so that the thread stops when the last one is gone.
    keeper: Arc<Keeper>,
}

/// The thread that knows which models are in memory.
struct Keeper {
    events: Sender<Event>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread hears.
enum Event {
    /// A job for a model.
    Asked { model: usize, waiting: Waiting },
    /// A model's job is over.
    Over { model: usize },
    /// A model has been read, or cannot be.
    Read { model: usize, loaded: Result<Box<Loaded>, PackageError> },
    /// Nobody holds a backend any more.
    Stop,
}

struct Waiting {
    job: Job,
    deltas: DeltasSender,
    /// Given back when the job is passed on or dropped.
    _place: Place,
}

/// Says that a job is over, when the stream's sender is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    model: usize,
    events: Sender<Event>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A keeper that has stopped need not know.
        let _ = self.events.send(Event::Over { model: self.model });
    }
}

impl Residents {
    /// Makes the packages at these paths ready to answer. None is loaded before it is asked.
    ///
    /// # Errors
    /// If a package cannot be read, or does not fit even alone.
    pub fn start(
        paths: &[PathBuf],
        cpu: Arc<Cpu>,
        config: ResidentsConfig,
    ) -> Result<Self, ResidentsError> {
        let bytes_max = config.bytes_max;
        let mut summaries = Vec::new();
        let mut models = Vec::new();
        for path in paths {
            let summary = Package::peek(path)?;
            let found = length(path)?;
            if found > bytes_max {
                return Err(ResidentsError::TooLarge { found, bytes_max, id: summary.id() });
            }
            models.push(Model::new(path.clone(), found));
            summaries.push(summary);
        }
        let (events, heard) = mpsc::channel();
        let queue_max = config.queue_max.get();
        let loads = Arc::new(AtomicU64::new(0));
        let mut keeping = Keeping {
            models,
            cpu,
            config,
            asked: 0,
            loads: Arc::clone(&loads),
            events: events.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("assay-residents".into())
            .spawn(move || keeping.run(&heard))
            .expect("the system can start one thread");
        let keeper = Arc::new(Keeper { events, thread: Some(thread) });
        let places = Places::new(queue_max);
        let resident = |(model, summary)| {
            let (places, keeper) = (places.clone(), Arc::clone(&keeper));
            let assurance = Summary::assurance(&summary);
            (summary, Arc::new(Resident { model, places, queue_max, assurance, keeper }))
        };
        Ok(Self { models: summaries.into_iter().enumerate().map(resident).collect(), loads })
    }

    /// How often a model was loaded so far.
    pub fn loads(&self) -> u64 {
        self.loads.load(Ordering::Relaxed)
    }

    /// The models, and what answers for each.
    pub fn backends(&self) -> impl Iterator<Item = (&Summary, Arc<dyn Backend>)> {
        self.models.iter().map(|(summary, resident)| {
            let backend: Arc<dyn Backend> = Arc::clone(resident) as _;
            (summary, backend)
        })
    }
}

impl Backend for Resident {
    fn assurance(&self) -> Assurance {
        self.assurance
    }

    fn run(&self, job: Job) -> Result<Deltas, Busy> {
        let place = self.places.take().ok_or(Busy { queue_max: self.queue_max })?;
        let (deltas, stream) = Deltas::channel(job.ending.tokens_max);
        let waiting = Waiting { job, deltas, _place: place };
        // If the thread is gone, the closed stream says so.
        let _ = self.keeper.events.send(Event::Asked { model: self.model, waiting });
        Ok(stream)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // If the thread is gone already, so is whoever would hear it.
        let _ = self.events.send(Event::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// What the thread knows.
struct Keeping {
    models: Vec<Model>,
    cpu: Arc<Cpu>,
    config: ResidentsConfig,
    /// Jobs asked so far.
    asked: u64,
    loads: Arc<AtomicU64>,
    events: Sender<Event>,
}

struct Model {
    path: PathBuf,
    bytes: u64,
    place: Where,
    /// Jobs passed on and not over.
    jobs: usize,
    /// Number of the last job asked.
    asked: u64,
    /// Jobs that wait for it, each with its number.
    waiting: VecDeque<(u64, Waiting)>,
}

/// Where a model is.
enum Where {
    Disk,
    /// On its way.
    Reading(JoinHandle<()>),
    Memory(Native),
}

impl Model {
    fn new(path: PathBuf, bytes: u64) -> Self {
        Self { path, bytes, place: Where::Disk, jobs: 0, asked: 0, waiting: VecDeque::new() }
    }

    fn tenancy(&self) -> Tenancy {
        let reading = matches!(self.place, Where::Reading(_));
        Tenancy {
            bytes: self.bytes,
            is_in: !matches!(self.place, Where::Disk),
            jobs: self.jobs + usize::from(reading),
            asked: self.asked,
        }
    }
}

impl Keeping {
    fn run(&mut self, heard: &Receiver<Event>) {
        while let Ok(event) = heard.recv() {
            match event {
                Event::Asked { model, waiting } => {
                    self.asked += 1;
                    let model = &mut self.models[model];
                    model.asked = self.asked;
                    model.waiting.push_back((self.asked, waiting));
                }
                Event::Over { model } => self.models[model].jobs -= 1,
                Event::Read { model, loaded } => self.arrive(model, loaded),
                Event::Stop => break,
            }
            self.pass_on();
        }
        for model in &mut self.models {
            if let Where::Reading(thread) = std::mem::replace(&mut model.place, Where::Disk) {
                // What it reads is not needed any more.
                let _ = thread.join();
            }
        }
    }

    /// A model was read.
    fn arrive(&mut self, index: usize, loaded: Result<Box<Loaded>, PackageError>) {
        let model = &mut self.models[index];
        if let Where::Reading(thread) = std::mem::replace(&mut model.place, Where::Disk) {
            // It has said its last word.
            let _ = thread.join();
        }
        match loaded {
            Ok(loaded) => {
                let (cpu, config) = (Arc::clone(&self.cpu), self.config.native.clone());
                model.place = Where::Memory(Native::start(Arc::from(loaded), cpu, config));
                // Before others can ask for its room, or it would go as it came.
                self.hand_over(index);
            }
            Err(error) => {
                // The streams close without an end, and their providers say so.
                tracing::error!(%error, path = %model.path.display(), "a model cannot be loaded");
                model.waiting.clear();
            }
        }
    }

    /// Passes jobs on to the models that are in memory, and makes room for the one that was asked first
    /// of those that are not.
    fn pass_on(&mut self) {
        for model in &mut self.models {
            model.waiting.retain(|(_, waiting)| !waiting.deltas.is_cancelled());
        }
        let leaving = self.fetch();
        for index in (0..self.models.len()).filter(|index| !leaving.contains(index)) {
            self.hand_over(index);
        }
    }

    /// Loads what is asked for, in the order of asking, as long as there is room. The models that must
    /// finish before there is more.
    fn fetch(&mut self) -> Vec<usize> {
        loop {
            let outside = self.models.iter().enumerate().filter(|(_, m)| !m.tenancy().is_in);
            let first = outside.filter_map(|(index, m)| Some((m.waiting.front()?.0, index))).min();
            let Some((_, wanted)) = first else { return Vec::new() };
            let tenancies: Vec<Tenancy> = self.models.iter().map(Model::tenancy).collect();
            match make_room(&tenancies, wanted, self.config.bytes_max) {
                Way::Drain(leaving) => return leaving,
                Way::Free(leaving) => {
                    for index in leaving {
                        tracing::debug!(path = %self.models[index].path.display(), "model dropped");
                        self.models[index].place = Where::Disk;
                    }
                    self.read(wanted);
                }
            }
        }
    }

    /// Begins to read a model, for which there is room.
    fn read(&mut self, index: usize) {
        let inside = self.models.iter().filter(|model| model.tenancy().is_in);
        let bytes = self.models[index].bytes + inside.map(|model| model.bytes).sum::<u64>();
        assert!(bytes <= self.config.bytes_max, "{bytes} bytes of models");
        self.loads.fetch_add(1, Ordering::Relaxed);
        let (path, events) = (self.models[index].path.clone(), self.events.clone());
        let thread = std::thread::Builder::new().name("assay-load".into()).spawn(move || {
            let loaded = Package::read(&path).and_then(Package::load).map(Box::new);
            // A keeper that has stopped needs no model.
            let _ = events.send(Event::Read { model: index, loaded });
        });
        self.models[index].place = Where::Reading(thread.expect("the system can start a thread"));
    }

    /// Gives a model in memory the jobs that wait for it, as many as it takes.
    fn hand_over(&mut self, index: usize) {
        let model = &mut self.models[index];
        let Where::Memory(native) = &model.place else { return };
        while !model.waiting.is_empty() {
            let Some(place) = native.place() else { return };
            let Some((_, Waiting { job, mut deltas, .. })) = model.waiting.pop_front() else {
                return;
            };
            deltas.lease(Lease { model: index, events: self.events.clone() });
            model.jobs += 1;
            native.hand(job, deltas, place);
        }
    }
}

fn length(path: &Path) -> Result<u64, PackageError> {
    let metadata = std::fs::metadata(path);
    let failed = |source| PackageError::Io { path: path.to_owned(), source };
    metadata.map(|metadata| metadata.len()).map_err(failed)
}
