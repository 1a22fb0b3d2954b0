//! The thread that owns the sequences.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};

use assay_kernels::Cpu;
use assay_models::{Cache, Output, Row, Scratch};
use assay_protocol::hidden_hash;

use super::batch::{Progress, plan};
use super::{Admitted, NativeConfig};
use crate::draw::{Drawing, Drawn};
use crate::job::{Delta, DeltasSender, Job};
use crate::package::Loaded;

/// One job in the batch.
struct Sequence {
    job: Job,
    deltas: DeltasSender,
    cache: Cache,
    drawing: Drawing,
    output: Vec<u32>,
    /// Bytes of cache that the job may come to need.
    kv_bytes: usize,
}

impl Sequence {
    fn progress(&self) -> Progress {
        Progress { known: self.job.prompt.len() + self.output.len(), fed: self.cache.len() }
    }

    fn token(&self, position: usize) -> u32 {
        match position.checked_sub(self.job.prompt.len()) {
            None => self.job.prompt[position],
            Some(index) => self.output[index],
        }
    }

    /// Draws the next token and hands it over. `false` once the job is over.
    fn advance(&mut self, logits: &mut [i32], hidden: assay_protocol::B256) -> bool {
        let Drawn { token, logprobs } = match self.drawing.next(logits) {
            Ok(drawn) => drawn,
            Err(error) => {
                // The stream closes without an end, and its provider says so.
                tracing::warn!(%error, "an answer cannot go on");
                return false;
            }
        };
        self.output.push(token);
        if !self.deltas.send(Delta::Token { token, hidden, logprobs }) {
            return false;
        }
        match self.job.ending.at(&self.output) {
            None => true,
            Some(finish) => {
                // If the reader has left there is nobody to tell.
                let _ = self.deltas.send(Delta::Done(finish));
                false
            }
        }
    }
}

pub(super) struct Scheduler {
    loaded: Arc<Loaded>,
    cpu: Arc<Cpu>,
    config: NativeConfig,
    stop: Arc<AtomicBool>,
    running: Vec<Sequence>,
    waiting: VecDeque<Admitted>,
    scratch: Scratch,
}

impl Scheduler {
    pub(super) fn new(
        loaded: Arc<Loaded>,
        cpu: Arc<Cpu>,
        config: NativeConfig,
        stop: Arc<AtomicBool>,
    ) -> Self {
        Self {
            loaded,
            cpu,
            config,
            stop,
            running: Vec::new(),
            waiting: VecDeque::new(),
            scratch: Scratch::default(),
        }
    }

    /// Forgets every job, whose streams close without an end. What is left works as if new.
    pub(super) fn reset(&mut self) {
        self.running.clear();
        self.scratch = Scratch::default();
    }

    /// Runs until the queue closes and nothing is left, or until told to stop.
    pub(super) fn run(&mut self, jobs: &Receiver<Admitted>) {
        while !self.stop.load(Ordering::Relaxed) && self.admit(jobs) {
            self.running.retain(|sequence| !sequence.deltas.is_cancelled());
            if !self.running.is_empty() {
                self.step();
            }
        }
    }

    /// Takes in what fits; waits for a job if there is nothing to do. `false` once the queue is
    /// closed and everything is answered.
    fn admit(&mut self, jobs: &Receiver<Admitted>) -> bool {
        if self.running.is_empty() && self.waiting.is_empty() {
            match jobs.recv() {
                Ok(admitted) => self.waiting.push_back(admitted),
                Err(_) => return false,
            }
        }
        while self.running.len() < self.config.running_max.get() {
            if self.waiting.is_empty() {
                match jobs.try_recv() {
                    Ok(admitted) => self.waiting.push_back(admitted),
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                }
            }
            if !self.start_next() {
                break;
            }
        }
        true
    }

    /// Moves the job that has waited longest into the batch, if its cache fits.
    fn start_next(&mut self) -> bool {
        let Some(next) = self.waiting.front() else { return false };
        let shape = self.loaded.model.shape();
        let positions = next.job.prompt.len() + next.job.ending.tokens_max as usize;
        let kv_bytes = positions * shape.kv_bytes_per_position();
        let taken: usize = self.running.iter().map(|sequence| sequence.kv_bytes).sum();
        if taken + kv_bytes > self.config.kv_bytes_max && !self.running.is_empty() {
            return false;
        }
        if let Some(Admitted { job, deltas }) = self.waiting.pop_front() {
            let drawing = Drawing::new(&job);
            let cache = Cache::new(shape);
            let output = Vec::new();
            self.running.push(Sequence { job, deltas, cache, drawing, output, kv_bytes });
        }
        true
    }

    /// One batch through the model, then one token for each sequence that is due.
    fn step(&mut self) {
        let progress: Vec<Progress> = self.running.iter().map(Sequence::progress).collect();
        let shares = plan(&progress, self.config.rows_max.get());
        let mut rows = Vec::new();
        let mut due = vec![false; self.running.len()];
        for (index, (sequence, &share)) in self.running.iter().zip(&shares).enumerate() {
            let fed = sequence.cache.len();
            let complete = fed + share == sequence.progress().known;
            due[index] = share > 0 && complete;
            rows.extend((fed..fed + share).map(|position| Row {
                token: sequence.token(position),
                sequence: index,
                wanted: complete && position + 1 == fed + share,
            }));
        }
        let mut caches: Vec<&mut Cache> = self.running.iter_mut().map(|s| &mut s.cache).collect();
        let model = &self.loaded.model;
        let forward = model.forward(&self.cpu, &rows, &mut caches, &mut self.scratch, &mut ());
        let output = match forward {
            Ok(output) => output,
            Err(error) => {
                // Jobs are checked before they are admitted, so this is our mistake; the streams
                // close without an end, and their providers say so.
                tracing::error!(%error, "a batch failed");
                self.running.clear();
                return;
            }
        };
        let vocab = self.loaded.model.shape().vocab;
        let Output { hidden, mut logits } = output;
        let mut results = logits.chunks_exact_mut(vocab).enumerate();
        let mut due = due.into_iter();
        self.running.retain_mut(|sequence| {
            if due.next() != Some(true) {
                return true;
            }
            let (row, logits) = results.next().expect("one result per sequence that is due");
            let (quants, scales) = hidden.row(row);
            sequence.advance(logits, hidden_hash(quants, scales))
        });
        self.scratch.recycle(Output { hidden, logits });
    }
}
