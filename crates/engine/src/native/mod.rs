//! Computes exact-1 on this machine, many jobs in one batch.
//!
//! One thread owns the model's sequences and waits in one place: the queue of admitted jobs. Each
//! turn it forms a batch ([`batch`]), runs it, draws a token for every sequence that is due one,
//! and hands it over. A row's arithmetic is its own, so nothing here can change a bit: not the
//! batch, the chunks of a prompt, the other jobs, or who leaves.

mod batch;
mod scheduler;

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread::JoinHandle;

use assay_kernels::Cpu;
use assay_protocol::Assurance;

use crate::job::{Backend, Busy, Deltas, DeltasSender, Job};
use crate::package::Loaded;
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
    /// Bytes of keys and values that all running jobs together may come to need. A job that would
    /// exceed it waits, unless it is alone.
    pub kv_bytes_max: usize,
}

impl Default for NativeConfig {
    fn default() -> Self {
        let some = |n| NonZeroUsize::new(n).expect("defaults are positive");
        Self {
            running_max: some(32),
            queue_max: some(256),
            rows_max: some(256),
            kv_bytes_max: 4 << 30,
        }
    }
}

/// A job on its way to the scheduler.
struct Admitted {
    job: Job,
    deltas: DeltasSender,
}

/// The native backend. Dropping it stops its thread; streams that are open then close.
pub struct Native {
    queue: Option<SyncSender<Admitted>>,
    queue_max: usize,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Native {
    /// Starts the backend's thread. The model is shared with whoever else holds it.
    pub fn start(loaded: Arc<Loaded>, cpu: Arc<Cpu>, config: NativeConfig) -> Self {
        let queue_max = config.queue_max.get();
        let (queue, jobs) = mpsc::sync_channel(queue_max);
        let stop = Arc::new(AtomicBool::new(false));
        let mut scheduler = Scheduler::new(loaded, cpu, config, Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("assay-native".into())
            .spawn(move || {
                // A panic is our mistake. It costs the batch at hand, not the provider.
                while catch_unwind(AssertUnwindSafe(|| scheduler.run(&jobs))).is_err() {
                    tracing::error!("the engine broke and starts again");
                    scheduler.reset();
                }
            })
            .expect("the system can start one thread");
        Self { queue: Some(queue), queue_max, stop, thread: Some(thread) }
    }
}

impl Backend for Native {
    fn assurance(&self) -> Assurance {
        Assurance::Replayable
    }

    fn run(&self, job: Job) -> Result<Deltas, Busy> {
        let (sender, deltas) = Deltas::channel(job.ending.tokens_max);
        let queue = self.queue.as_ref().expect("the queue is open until drop");
        match queue.try_send(Admitted { job, deltas: sender }) {
            Ok(()) => Ok(deltas),
            Err(TrySendError::Full(_)) => Err(Busy { queue_max: self.queue_max }),
            // The thread is gone; the closed stream says so.
            Err(TrySendError::Disconnected(_)) => Ok(deltas),
        }
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
