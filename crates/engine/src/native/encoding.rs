//! The thread of a model that makes vectors: whole prompts, as many at once as a batch holds.
//!
//! A prompt is computed in one piece, since each of its positions sees all others; nothing is remembered
//! of it, and nothing waits for room. What computes them is behind [`Vectors`]: exact-1, or ONNX.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};

use assay_kernels::Cpu;
use assay_models::Scratch;
use assay_protocol::vector_hash;

use super::figures::Counters;
use super::queue::{Flow, Queue};
use super::{Admitted, NativeConfig};
use crate::job::{Delta, DeltasSender, Job};
use crate::package::Loaded;

/// Makes vectors of texts.
pub(crate) trait Vectors: Send {
    /// The vectors of these texts in `Fx<30>`, in their order.
    fn embed(&mut self, texts: &[&[u32]]) -> Result<Vec<Vec<i32>>, Box<dyn Error + Send + Sync>>;

    /// The one output token of every answer.
    fn token(&self) -> u32;

    /// Forgets what it was at when it broke. What is left works as if new.
    fn reset(&mut self);
}

/// Vectors by exact-1.
pub(super) struct Exact {
    loaded: Arc<Loaded>,
    cpu: Arc<Cpu>,
    scratch: Scratch,
}

impl Exact {
    pub(super) fn new(loaded: Arc<Loaded>, cpu: Arc<Cpu>) -> Self {
        Self { loaded, cpu, scratch: Scratch::default() }
    }
}

impl Vectors for Exact {
    fn embed(&mut self, texts: &[&[u32]]) -> Result<Vec<Vec<i32>>, Box<dyn Error + Send + Sync>> {
        Ok(self.loaded.model.embed_all(&self.cpu, texts, &mut self.scratch, &mut ())?)
    }

    fn token(&self) -> u32 {
        self.loaded.vector_token()
    }

    fn reset(&mut self) {
        self.scratch = Scratch::default();
    }
}

pub(super) struct Encoding {
    vectors: Box<dyn Vectors>,
    config: NativeConfig,
    stop: Arc<AtomicBool>,
    counters: Arc<Counters>,
    waiting: Queue<Admitted>,
}

/// A job that is being computed.
struct Running {
    flow: Flow,
    job: Job,
    deltas: DeltasSender,
}

impl Encoding {
    pub(super) fn new(
        vectors: Box<dyn Vectors>,
        config: NativeConfig,
        stop: Arc<AtomicBool>,
        counters: Arc<Counters>,
    ) -> Self {
        Self { vectors, config, stop, counters, waiting: Queue::new() }
    }

    /// Forgets what runs, whose streams have closed without an end. What is left works as if new.
    pub(super) fn reset(&mut self) {
        self.vectors.reset();
        for admitted in std::mem::replace(&mut self.waiting, Queue::new()).take(|_| true) {
            self.waiting.push(Flow::of(&admitted.job), admitted);
        }
    }

    /// Runs until the queue closes and nothing is left, or until told to stop.
    pub(super) fn run(&mut self, jobs: &Receiver<Admitted>) {
        while !self.stop.load(Ordering::Relaxed) && self.admit(jobs) {
            drop(self.waiting.take(|admitted| admitted.deltas.is_cancelled()));
            let batch = self.batch();
            self.embed(batch);
        }
    }

    /// Takes in what has come; waits for a job if there is nothing to do. `false` once the queue is
    /// closed and everything is answered.
    fn admit(&mut self, jobs: &Receiver<Admitted>) -> bool {
        if self.waiting.is_empty() {
            match jobs.recv() {
                Ok(admitted) => self.waiting.push(Flow::of(&admitted.job), admitted),
                Err(_) => return false,
            }
        }
        loop {
            match jobs.try_recv() {
                Ok(admitted) => self.waiting.push(Flow::of(&admitted.job), admitted),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return true,
            }
        }
    }

    /// The jobs that are next, as many as a batch has rows for, and at least one if any waits.
    fn batch(&mut self) -> Vec<Running> {
        let (mut batch, mut rows) = (Vec::new(), 0);
        while batch.len() < self.config.running_max.get() {
            let Some((flow, next)) = self.waiting.next() else { break };
            let more = next.job.prompt.len();
            if !batch.is_empty() && rows + more > self.config.rows_max.get() {
                break;
            }
            let Some(Admitted { job, deltas, .. }) = self.waiting.start(flow) else { break };
            rows += more;
            deltas.start(0);
            self.waiting.charge(flow, more);
            batch.push(Running { flow, job, deltas });
        }
        batch
    }

    /// Computes the vectors of a batch, and hands them out.
    fn embed(&mut self, batch: Vec<Running>) {
        let texts: Vec<&[u32]> = batch.iter().map(|running| &*running.job.prompt).collect();
        let rows = texts.iter().map(|text| text.len()).sum();
        match self.vectors.embed(&texts) {
            Ok(vectors) => {
                self.counters.add(|figures| &figures.prompt_tokens, rows);
                self.counters.add(|figures| &figures.output_tokens, batch.len());
                let token = self.vectors.token();
                for (running, vector) in batch.iter().zip(vectors) {
                    hand_over(running, token, vector);
                }
            }
            // Jobs are checked before they are admitted, so this is our mistake, or a foreign graph's; the
            // streams close without an end, and their providers say so.
            Err(error) => tracing::error!(%error, "a batch failed"),
        }
        for running in batch {
            self.waiting.end(running.flow);
        }
    }
}

/// Tells a job's answer. If its reader has left there is nobody to tell.
fn hand_over(running: &Running, token: u32, vector: Vec<i32>) {
    let hidden = vector_hash(&vector);
    let told = [Delta::Vector(vector), Delta::Token { token, hidden, logprobs: None }];
    if !told.into_iter().all(|delta| running.deltas.send(delta)) {
        return;
    }
    match running.job.ending.at(&[token]) {
        Some(finish) => {
            let _ = running.deltas.send(Delta::Done(finish));
        }
        // As above: a job for a vector has room for one token.
        None => tracing::error!(order = %running.job.order, "a job for more than a vector"),
    }
}
