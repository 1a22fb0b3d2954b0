//! The seam to engines: a job goes in, a stream of deltas comes out.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use assay_models::Sampler;
use assay_protocol::{
    Address, Assurance, B256, Draws, Ending, Finish, Logprobs, Order, OrderHash, Terms,
};
use assay_text::Grammar;
use tokio::sync::mpsc;

use crate::native::Figures;
use crate::residents::Lease;

/// An admitted order as the engine sees it.
#[derive(Clone, Debug)]
pub struct Job {
    /// Which order this answers.
    pub order: OrderHash,
    /// Token ids of the prompt; at least one, and short of the context.
    pub prompt: Arc<[u32]>,
    /// When the answer ends.
    pub ending: Ending,
    /// How tokens are drawn.
    pub sampler: Sampler,
    /// Random numbers to draw them with.
    pub draws: Draws,
    /// How many alternatives to give with each token, and logprobs of all; none: no logprobs.
    pub logprobs: Option<u8>,
    /// What the answer has to be a sentence of: the order's grammar, compiled for the model's vocabulary.
    pub grammar: Option<Box<Grammar>>,
    /// Who asks: tenants share a backend fairly, and none finds what it computed for another.
    pub tenant: Address,
    /// How much of the backend it is worth beside other jobs.
    pub priority: Priority,
}

/// How much of a backend a job is worth beside others; none waits for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// What nobody is waiting for.
    Low,
    /// What people wait for.
    #[default]
    Normal,
    /// What others wait for.
    High,
}

impl Priority {
    /// What a token weighs in the tally of who was served: a step of priority is worth four times as
    /// many tokens.
    pub(crate) fn token_weight(self) -> u64 {
        match self {
            Self::Low => 16,
            Self::Normal => 4,
            Self::High => 1,
        }
    }
}

impl Job {
    /// The job of a checked order, for a model with these end tokens and this context. It is of normal
    /// priority and gives no logprobs: those are no part of an order. A grammar is for the caller to
    /// compile.
    pub fn new(hash: OrderHash, order: &Order, terms: &Terms, eos: &[u32], context: u32) -> Self {
        let room = context.saturating_sub(order.prompt_tokens);
        let sampler = &terms.sampler;
        Self {
            order: hash,
            prompt: terms.prompt.as_slice().into(),
            ending: Ending {
                eos: eos.to_vec(),
                stops: terms.stops.clone(),
                tokens_max: order.max_tokens.min(room),
            },
            sampler: Sampler {
                inv_t_q16: sampler.inv_t_q16,
                top_k: sampler.top_k,
                top_p_q16: sampler.top_p_q16,
                min_p_q16: sampler.min_p_q16,
                rep_q16: sampler.rep_q16,
                freq_q16: sampler.freq_q16,
                pres_q16: sampler.pres_q16,
                bias: terms.bias.clone(),
            },
            draws: Draws::new(order, sampler),
            logprobs: None,
            grammar: None,
            tenant: order.buyer,
            priority: Priority::Normal,
        }
    }
}

/// One step of an answer on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delta {
    /// The next output token.
    Token {
        /// Its id.
        token: u32,
        /// Hash of the quantised last-norm vector that produced it
        /// ([`assay_protocol::hidden_hash`]).
        hidden: B256,
        /// How likely it was, if the job asks.
        logprobs: Option<Box<Logprobs>>,
    },
    /// The vector of the prompt, of a model that makes vectors: numbers in `Fx<30>`. One token follows,
    /// whose `hidden` is the vector's hash ([`assay_protocol::vector_hash`]).
    Vector(Vec<i32>),
    /// The answer is complete. Nothing follows.
    Done(Finish),
}

/// The stream of one job. Dropping it cancels the job.
///
/// A stream that closes without [`Delta::Done`] means that the backend failed or is shutting down.
#[derive(Debug)]
pub struct Deltas {
    receiver: mpsc::Receiver<Delta>,
    started: Arc<OnceLock<Started>>,
}

/// How a job was started.
#[derive(Clone, Copy, Debug)]
struct Started {
    cached_tokens: u32,
    at: Instant,
}

/// The backend's end of a job's stream.
#[derive(Clone, Debug)]
pub struct DeltasSender {
    sender: mpsc::Sender<Delta>,
    started: Arc<OnceLock<Started>>,
    /// Dropped with the last sender: the job is over.
    lease: Option<Arc<Lease>>,
}

impl Deltas {
    /// A stream with room for every delta that a job of `tokens_max` tokens can have, so that a
    /// slow reader never holds up a batch.
    pub fn channel(tokens_max: u32) -> (DeltasSender, Self) {
        let (sender, receiver) = mpsc::channel(tokens_max as usize + 2);
        let started = Arc::default();
        let sender = DeltasSender { sender, started: Arc::clone(&started), lease: None };
        (sender, Self { receiver, started })
    }

    /// Prompt tokens that did not have to be computed, since an earlier job of the same tenant began
    /// alike; `None` as long as the job waits to be started, and of backends that do not say.
    pub fn cached_tokens(&self) -> Option<u32> {
        self.started.get().map(|started| started.cached_tokens)
    }

    /// When the job was started; `None` as long as it waits for that.
    pub fn started_at(&self) -> Option<Instant> {
        self.started.get().map(|started| started.at)
    }

    /// The next delta; `None` once the stream is closed.
    pub async fn next(&mut self) -> Option<Delta> {
        self.receiver.recv().await
    }

    /// The next delta, for callers without an async runtime.
    pub fn next_blocking(&mut self) -> Option<Delta> {
        self.receiver.blocking_recv()
    }
}

impl DeltasSender {
    /// Hands a delta over; `false` if the reader has left, which cancels the job.
    ///
    /// # Panics
    /// If the backend sends more deltas than the job can have.
    pub fn send(&self, delta: Delta) -> bool {
        match self.sender.try_send(delta) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                unreachable!("a stream has room for every delta of its job")
            }
        }
    }

    /// Lets somebody know when the job is over.
    pub(crate) fn lease(&mut self, lease: Lease) {
        self.lease = Some(Arc::new(lease));
    }

    /// Says that the job was started, and how many of its prompt tokens need not be computed. The
    /// first word counts.
    pub fn start(&self, cached_tokens: u32) {
        // A job that had to make room is started again; what counts is the first time.
        let _ = self.started.set(Started { cached_tokens, at: Instant::now() });
    }

    /// Waits until the reader has left.
    #[cfg(feature = "remote")]
    pub(crate) async fn closed(&self) {
        self.sender.closed().await;
    }

    /// Whether the reader has left.
    pub fn is_cancelled(&self) -> bool {
        self.sender.is_closed()
    }
}

/// Every slot of a backend and its queue are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the engine's queue of {queue_max} jobs is full")]
pub struct Busy {
    /// Jobs that may wait.
    pub queue_max: usize,
}

/// Answers jobs with tokens.
///
/// Batching, caches and devices are a backend's own affair, because the kinds there are (native,
/// a remote server, ONNX) share none of them.
pub trait Backend: Send + Sync {
    /// What a verifier can later check about this backend's answers.
    fn assurance(&self) -> Assurance;

    /// What it did so far, in numbers; none if it does not count.
    fn so_far(&self) -> Option<Figures> {
        None
    }

    /// What of `job` it cannot do, in a word; such a job is for nobody to run.
    fn unable(&self, job: &Job) -> Option<&'static str> {
        let _ = job;
        None
    }

    /// Starts `job`. The stream ends after [`Delta::Done`]; dropping it cancels the job.
    fn run(&self, job: Job) -> Result<Deltas, Busy>;
}
