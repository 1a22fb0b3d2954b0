//! Computes exact-1 on this machine, many jobs in one batch.
//!
//! One thread ([`scheduler`]) owns the model's sequences and waits in one place: the channel of
//! admitted jobs. Each turn it starts the jobs whose tenants were served least ([`queue`]) as long as
//! there are pages for their keys and values ([`pool`]), forms a batch ([`batch`]), runs it, draws the
//! next tokens of every sequence that is due some ([`sequence`]), and hands them over. Where a
//! sequence repeats itself, the batch computes ahead what it may say next ([`guess`]). A model that makes
//! vectors of texts needs none of that: its jobs are computed whole, several at once ([`encoding`]).
//!
//! A row's arithmetic is its own, so nothing here can change a bit: not the batch, the chunks of a
//! prompt, what was remembered of other jobs, the guesses, who leaves, or who has to make room.

mod batch;
mod encoding;
mod figures;
mod guess;
mod place;
mod pool;
mod queue;
mod scheduler;
mod sequence;

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use assay_kernels::Cpu;
use assay_protocol::Assurance;

use crate::job::{Backend, Busy, Deltas, DeltasSender, Job};
use crate::package::Loaded;
#[cfg(feature = "onnx")]
pub(crate) use encoding::Vectors;
use encoding::{Encoding, Exact};
use figures::Counters;
pub use figures::Figures;
pub(crate) use place::{Place, Places};
use scheduler::Scheduler;

/// How much a native backend takes on at once.
#[derive(Clone, Debug)]
pub struct NativeConfig {
    /// Jobs in one batch. The next ones wait in the queue.
    pub running_max: NonZeroUsize,
    /// Jobs that may wait. The next one is refused with [`Busy`].
    pub queue_max: NonZeroUsize,
    /// Rows of one batch: decoding jobs first, then chunks of prompts. More rows make prompts
    /// faster and running answers less smooth.
    pub rows_max: NonZeroUsize,
    /// Bytes of keys and values, of running jobs and of those remembered for prompts that begin
    /// alike. When they are used up, jobs wait, and running ones may have to and are computed again.
    /// One whole context fits whatever this says.
    pub kv_bytes_max: usize,
    /// Most rows of a batch that computes guesses ahead; zero guesses nothing. More rows make
    /// answers that repeat prompt or output faster; beyond what memory can feed they cost time.
    pub guess_rows_max: usize,
}

impl Default for NativeConfig {
    fn default() -> Self {
        let some = |n| NonZeroUsize::new(n).expect("defaults are positive");
        Self {
            running_max: some(32),
            queue_max: some(256),
            rows_max: some(256),
            kv_bytes_max: 4 << 30,
            guess_rows_max: 8,
        }
    }
}

/// A job on its way to the scheduler.
struct Admitted {
    job: Job,
    deltas: DeltasSender,
    place: Place,
}

/// What the backend's thread does: draw tokens, or make vectors.
enum Worker {
    Decodes(Box<Scheduler>),
    Encodes(Box<Encoding>),
}

impl Worker {
    fn new(
        loaded: Arc<Loaded>,
        cpu: Arc<Cpu>,
        config: NativeConfig,
        stop: Arc<AtomicBool>,
        counters: Arc<Counters>,
    ) -> Self {
        if loaded.vector_width().is_none() {
            return Self::Decodes(Box::new(Scheduler::new(loaded, cpu, config, stop, counters)));
        }
        let vectors = Box::new(Exact::new(loaded, cpu));
        Self::Encodes(Box::new(Encoding::new(vectors, config, stop, counters)))
    }

    fn run(&mut self, jobs: &Receiver<Admitted>) {
        match self {
            Self::Decodes(scheduler) => scheduler.run(jobs),
            Self::Encodes(encoding) => encoding.run(jobs),
        }
    }

    fn reset(&mut self) {
        match self {
            Self::Decodes(scheduler) => scheduler.reset(),
            Self::Encodes(encoding) => encoding.reset(),
        }
    }
}

/// The native backend. Dropping it stops its thread; streams that are open then close.
pub struct Native {
    queue: Option<Sender<Admitted>>,
    queue_max: usize,
    places: Places,
    counters: Arc<Counters>,
    assurance: Assurance,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Native {
    /// Starts the backend's thread. The model is shared with whoever else holds it.
    pub fn start(loaded: Arc<Loaded>, cpu: Arc<Cpu>, config: NativeConfig) -> Self {
        let (queue_max, assurance) = (config.queue_max.get(), loaded.assurance());
        Self::spawn(queue_max, assurance, |stop, counters| {
            Worker::new(loaded, cpu, config, stop, counters)
        })
    }

    /// Starts the thread of a backend whose vectors something else makes.
    #[cfg(feature = "onnx")]
    pub(crate) fn encode(
        vectors: Box<dyn Vectors>,
        assurance: Assurance,
        config: NativeConfig,
    ) -> Self {
        Self::spawn(config.queue_max.get(), assurance, |stop, counters| {
            Worker::Encodes(Box::new(Encoding::new(vectors, config, stop, counters)))
        })
    }

    fn spawn(
        queue_max: usize,
        assurance: Assurance,
        worker: impl FnOnce(Arc<AtomicBool>, Arc<Counters>) -> Worker,
    ) -> Self {
        // Whoever sends holds a place, so the channel is bounded by them.
        let (queue, jobs) = mpsc::channel();
        let (stop, counters) = (Arc::new(AtomicBool::new(false)), Arc::new(Counters::default()));
        let mut worker = worker(Arc::clone(&stop), Arc::clone(&counters));
        let thread = std::thread::Builder::new()
            .name("assay-native".into())
            .spawn(move || {
                // A panic is our mistake. It costs the batch at hand, not the provider.
                while catch_unwind(AssertUnwindSafe(|| worker.run(&jobs))).is_err() {
                    tracing::error!("the engine broke and starts again");
                    worker.reset();
                }
            })
            .expect("the system can start one thread");
        let places = Places::new(queue_max);
        Self {
            queue: Some(queue),
            queue_max,
            places,
            counters,
            assurance,
            stop,
            thread: Some(thread),
        }
    }

    /// A place for one more job, if there is one.
    pub(crate) fn place(&self) -> Option<Place> {
        self.places.take()
    }

    /// Answers a job that has a place.
    pub(crate) fn hand(&self, job: Job, deltas: DeltasSender, place: Place) {
        let queue = self.queue.as_ref().expect("the queue is open until drop");
        // If the thread is gone, the closed stream says so.
        let _ = queue.send(Admitted { job, deltas, place });
    }

    /// What it did so far.
    pub fn figures(&self) -> Figures {
        self.counters.figures(self.places.taken())
    }
}

impl Backend for Native {
    fn assurance(&self) -> Assurance {
        self.assurance
    }

    fn so_far(&self) -> Option<Figures> {
        Some(self.figures())
    }

    fn run(&self, job: Job) -> Result<Deltas, Busy> {
        let place = self.place().ok_or(Busy { queue_max: self.queue_max })?;
        let (sender, deltas) = Deltas::channel(job.ending.tokens_max);
        self.hand(job, sender, place);
        Ok(deltas)
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}
