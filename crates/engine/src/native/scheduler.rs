//! The thread that owns the sequences.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};

use assay_kernels::Cpu;
use assay_models::{Cache, Output, Page, Row, Scratch};
use assay_protocol::hidden_hash;

use super::batch::{Progress, guesses, plan};
use super::figures::Counters;
use super::pool::Pool;
use super::queue::Queue;
use super::sequence::{Running, Sequence, Share};
use super::{Admitted, NativeConfig};
use crate::package::Loaded;

pub(super) struct Scheduler {
    loaded: Arc<Loaded>,
    cpu: Arc<Cpu>,
    config: NativeConfig,
    stop: Arc<AtomicBool>,
    counters: Arc<Counters>,
    pool: Pool<Page>,
    waiting: Queue<Sequence>,
    running: Vec<Running>,
    /// Jobs started so far.
    started: u64,
    scratch: Scratch,
}

impl Scheduler {
    pub(super) fn new(
        loaded: Arc<Loaded>,
        cpu: Arc<Cpu>,
        config: NativeConfig,
        stop: Arc<AtomicBool>,
        counters: Arc<Counters>,
    ) -> Self {
        let pool = pool(&loaded, &config);
        Self {
            loaded,
            cpu,
            config,
            stop,
            counters,
            pool,
            waiting: Queue::new(),
            running: Vec::new(),
            started: 0,
            scratch: Scratch::default(),
        }
    }

    /// Forgets what runs, whose streams close without an end. What is left works as if new.
    pub(super) fn reset(&mut self) {
        self.running.clear();
        self.pool = pool(&self.loaded, &self.config);
        self.scratch = Scratch::default();
        let waiting = std::mem::replace(&mut self.waiting, Queue::new()).take(|_| true);
        for sequence in waiting {
            self.waiting.push(sequence.flow(), sequence);
        }
    }

    /// Runs until the queue closes and nothing is left, or until told to stop.
    pub(super) fn run(&mut self, jobs: &Receiver<Admitted>) {
        self.tell();
        while !self.stop.load(Ordering::Relaxed) && self.admit(jobs) {
            self.let_go();
            self.start();
            if !self.running.is_empty() {
                self.step();
            }
            self.tell();
        }
    }

    /// Says how much room keys and values take.
    fn tell(&self) {
        let bytes = page_bytes(&self.loaded);
        self.counters.set(|figures| &figures.kv_used_bytes, self.pool.used() * bytes);
        self.counters.set(|figures| &figures.kv_bytes, self.pool.len() * bytes);
        self.counters.set(|figures| &figures.kv_bytes_max, self.pool.pages_max() * bytes);
    }

    /// Takes in what has come; waits for a job if there is nothing to do. `false` once the queue is
    /// closed and everything is answered.
    fn admit(&mut self, jobs: &Receiver<Admitted>) -> bool {
        if self.running.is_empty() && self.waiting.is_empty() {
            match jobs.recv() {
                Ok(admitted) => self.take(admitted),
                Err(_) => return false,
            }
        }
        loop {
            match jobs.try_recv() {
                Ok(admitted) => self.take(admitted),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return true,
            }
        }
    }

    fn take(&mut self, admitted: Admitted) {
        let sequence = Sequence::new(admitted);
        let positions = sequence.tokens.len() + sequence.job.ending.tokens_max as usize;
        if sequence.tokens.is_empty() || positions > self.loaded.model.shape().context {
            // Jobs are checked before they are admitted, so this is our mistake; the stream closes
            // without an end.
            tracing::error!(order = %sequence.job.order, positions, "a job of no tokens or too many");
            return;
        }
        self.waiting.push(sequence.flow(), sequence);
    }

    /// Drops the jobs whose readers have left.
    fn let_go(&mut self) {
        for running in std::mem::take(&mut self.running) {
            match running.sequence.deltas.is_cancelled() {
                true => self.end(running),
                false => self.running.push(running),
            }
        }
        drop(self.waiting.take(|sequence| sequence.deltas.is_cancelled()));
    }

    /// Starts the jobs that are next, as long as there are slots and pages.
    fn start(&mut self) {
        while self.running.len() < self.config.running_max.get() {
            let Some((flow, next)) = self.waiting.next() else { break };
            let Some((table, pages)) = self.pool.open(flow.tenant, &next.tokens) else { break };
            let mut cache = Cache::new(self.loaded.model.shape());
            for (index, page) in pages.iter().enumerate() {
                cache.put_page(index, page);
            }
            let Some(mut sequence) = self.waiting.start(flow) else { break };
            self.started += 1;
            if sequence.start(self.started, cache.len()) {
                let prompt = sequence.tokens.len();
                self.waiting.charge(flow, prompt - cache.len());
                self.counters.add(|figures| &figures.prompt_tokens, prompt);
                self.counters.add(|figures| &figures.cached_tokens, cache.len());
            }
            self.running.push(Running { sequence, cache, table });
        }
    }

    /// One batch through the model, then the next tokens of each sequence that is due some.
    fn step(&mut self) {
        let shares = self.share();
        let mut rows: Vec<Row> = Vec::new();
        for (index, (running, share)) in self.running.iter().zip(&shares).enumerate() {
            rows.extend(running.rows(index, share));
        }
        let mut caches: Vec<&mut Cache> = self.running.iter_mut().map(|r| &mut r.cache).collect();
        let model = &self.loaded.model;
        let forward = model.forward(&self.cpu, &rows, &mut caches, &mut self.scratch, &mut ());
        match forward {
            Ok(output) => self.advance(&shares, output),
            Err(error) => {
                // Jobs are checked before they are admitted, so this is our mistake; the streams
                // close without an end, and their providers say so.
                tracing::error!(%error, "a batch failed");
                for running in std::mem::take(&mut self.running) {
                    self.end(running);
                }
            }
        }
    }

    /// What the next batch computes of each sequence that runs, for which there is room then.
    fn share(&mut self) -> Vec<Share> {
        let progress: Vec<Progress> = self
            .running
            .iter()
            .map(|running| running.progress(self.waiting.served(running.sequence.flow())))
            .collect();
        let rows = plan(&progress, self.config.rows_max.get());
        let guesses_max = guesses(&progress, &rows, self.config.guess_rows_max);
        let mut shares: Vec<Share> =
            rows.into_iter().map(|rows| Share { rows, guess: Vec::new() }).collect();
        if guesses_max > 0 {
            for (running, share) in self.running.iter_mut().zip(&mut shares) {
                share.guess = running.sequence.guess(guesses_max);
            }
        }
        self.make_room(&mut shares);
        shares
    }

    /// Reserves pages for every share. Where the pool is full, guesses are given up first, then the
    /// sequences that can wait best: of the lowest priority, started last. They wait for room and are
    /// computed again.
    ///
    /// The first in rank always finds room, since a pool holds a whole context: so jobs do end.
    fn make_room(&mut self, shares: &mut Vec<Share>) {
        let rank =
            |running: &Running| (Reverse(running.sequence.job.priority), running.sequence.started);
        let mut order: Vec<usize> = (0..self.running.len()).collect();
        order.sort_by_key(|&index| rank(&self.running[index]));
        let (mut at, mut gone) = (0, Vec::new());
        while let Some(&index) = order.get(at) {
            let (running, share) = (&mut self.running[index], &mut shares[index]);
            let positions = running.cache.len() + share.rows;
            if self.pool.reserve(&mut running.table, positions + share.guess.len()) {
                at += 1;
            } else if !share.guess.is_empty() {
                share.guess.clear();
            } else if let Some(last) = order.pop() {
                self.pool.close(&mut self.running[last].table);
                gone.push(last);
            }
        }
        gone.sort_unstable();
        for index in gone.into_iter().rev() {
            let Running { sequence, .. } = self.running.remove(index);
            shares.remove(index);
            self.counters.add(|figures| &figures.preempted, 1);
            self.waiting.give_back(sequence.flow(), sequence);
        }
    }

    /// Hands out what a batch gave.
    fn advance(&mut self, shares: &[Share], mut output: Output) {
        let vocab = self.loaded.model.shape().vocab;
        let (mut logits, mut first) = (&mut output.logits[..], 0);
        for (mut running, share) in std::mem::take(&mut self.running).into_iter().zip(shares) {
            let flow = running.sequence.flow();
            let mut goes_on = true;
            if running.is_due(share) {
                let count = 1 + share.guess.len();
                let (mine, others) = std::mem::take(&mut logits).split_at_mut(count * vocab);
                let results = mine.chunks_exact_mut(vocab).zip(first..).map(|(logits, row)| {
                    let (quants, scales) = output.hidden.row(row);
                    (logits, hidden_hash(quants, scales))
                });
                let advance = running.sequence.advance(&share.guess, results);
                (logits, first, goes_on) = (others, first + count, advance.goes_on);
                self.waiting.charge(flow, advance.drawn);
                self.counters.add(|figures| &figures.output_tokens, advance.drawn);
                self.counters.add(|figures| &figures.guessed_tokens, share.guess.len());
                self.counters.add(|figures| &figures.guessed_right, advance.drawn - 1);
            }
            running.settle(&mut self.pool);
            match goes_on {
                true => self.running.push(running),
                false => self.end(running),
            }
        }
        self.scratch.recycle(output);
    }

    /// Lets a job go that is over.
    fn end(&mut self, mut running: Running) {
        self.pool.close(&mut running.table);
        self.waiting.end(running.sequence.flow());
    }
}

/// The pages that a model may have; a whole context always fits.
fn pool(loaded: &Loaded, config: &NativeConfig) -> Pool<Page> {
    let context = loaded.model.shape().context.div_ceil(Page::POSITIONS);
    Pool::new(Page::POSITIONS, context.max(config.kv_bytes_max / page_bytes(loaded)))
}

fn page_bytes(loaded: &Loaded) -> usize {
    Page::POSITIONS * loaded.model.shape().kv_bytes_per_position()
}
