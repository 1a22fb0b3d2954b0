//! Has jobs answered by an external server: llama.cpp's or vLLM.
//!
//! The gateway knows the model's tokenizer and template, so a job goes there as token ids and comes back as
//! token ids; that is why a receipt can be signed for it. What it proves is who answered what for how
//! much, and no more: the server computes in floats of its own, so its answers are
//! [`Assurance::Scored`], and the hidden hash of every token is zero, which no computation gives.
//!
//! The server is a stranger. It is asked what it is before anything is sold, and again and again after
//! that; while it does not fit, jobs are refused as [`Busy`]. Whatever it says ends in tokens of the model
//! or in a [`RemoteError`], within bounded time.

mod dialect;
mod error;
mod probe;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use assay_protocol::{Assurance, B256, Finish};
use assay_text::Tokenizer;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::job::{Backend, Busy, Delta, Deltas, DeltasSender, Job};
use crate::outline::Outline;
use dialect::{Dialect, Ended, Told};
pub use error::RemoteError;
use wire::{Events, Wire, whole, within};

/// Tokens asked for at once where a server's stream leaves tokens out.
const PIECE_TOKENS: u32 = 16;
/// Between two questions to a server that is still loading its model.
const LOADING_EVERY: Duration = Duration::from_millis(500);

/// Which server is asked, and how patient we are with it.
#[derive(Clone, Debug)]
pub struct RemoteConfig {
    /// Its base URL, such as `http://127.0.0.1:8080`.
    pub url: String,
    /// What it expects as bearer token, if anything.
    pub token: Option<String>,
    /// Jobs at once. The next one is refused with [`Busy`].
    pub jobs_max: usize,
    /// Longest wait for a server that is loading its model when it is first asked.
    pub loading_max: Duration,
    /// Longest wait for a job's next token, the first after a long prompt as well.
    pub token_wait_max: Duration,
    /// Between two looks whether it still fits.
    pub probe_every: Duration,
}

impl RemoteConfig {
    /// A server at `url`, with waits that suit one that has other work as well.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            token: None,
            jobs_max: 256,
            loading_max: Duration::from_secs(120),
            token_wait_max: Duration::from_secs(120),
            probe_every: Duration::from_secs(10),
        }
    }
}

/// A model's answers by an external server. Dropping it breaks its jobs off.
pub struct Remote {
    server: Arc<Server>,
    places: Arc<Semaphore>,
    runtime: Handle,
    tasks: Mutex<JoinSet<()>>,
}

/// A server that fits, as far as can be told.
struct Server {
    wire: Wire,
    dialect: Dialect,
    tokenizer: Arc<Tokenizer>,
    vocabulary: u32,
    context: u32,
    config: RemoteConfig,
    fits: AtomicBool,
}

/// How a request to the server ended, where it did not fail.
enum Turn {
    /// The answer is over by the order's rules.
    Over(Finish),
    /// As many tokens as were asked for came; there may be more.
    More,
    /// The stream leaves tokens out: those of characters that take several.
    Gap,
    /// Nobody wants the answer any more.
    Left,
}

impl Remote {
    /// Asks the server what it is, and takes it for this model if it fits. Must be called on a runtime, where
    /// its jobs then run.
    ///
    /// # Errors
    /// What the server lacks. A server that is loading is waited for.
    pub async fn start(model: &Outline, config: RemoteConfig) -> Result<Self, RemoteError> {
        if model.vector_width().is_some() {
            return Err(RemoteError::Unable { what: "vectors" });
        }
        let tokenizer = model.tokenizer.clone().ok_or(RemoteError::NoTokenizer)?;
        let wire = Wire::new(&config.url, config.token.as_deref())?;
        let context = model.context();
        let began = Instant::now();
        let found = loop {
            match probe::probe(&wire, &tokenizer, context).await {
                Err(RemoteError::Status { status: 503, .. })
                    if began.elapsed() < config.loading_max =>
                {
                    sleep(LOADING_EVERY).await;
                }
                found => break found?,
            }
        };
        let server = Arc::new(Server {
            wire,
            dialect: found.dialect,
            tokenizer,
            vocabulary: model.manifest.shape.vocab,
            context,
            fits: AtomicBool::new(true),
            config,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&server).watch());
        let places = Arc::new(Semaphore::new(server.config.jobs_max.min(Semaphore::MAX_PERMITS)));
        Ok(Self { server, places, runtime: Handle::current(), tasks: Mutex::new(tasks) })
    }

    /// What the server is, in words.
    pub fn kind(&self) -> &'static str {
        match self.server.dialect {
            Dialect::LlamaCpp => "llama.cpp",
            Dialect::Vllm { .. } => "vLLM",
        }
    }

    /// Whether it fitted when it was last looked at.
    pub fn is_ready(&self) -> bool {
        self.server.fits.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let url = self.server.wire.url();
        f.debug_struct("Remote")
            .field("url", &url)
            .field("kind", &self.kind())
            .finish_non_exhaustive()
    }
}

impl Backend for Remote {
    fn assurance(&self) -> Assurance {
        Assurance::Scored
    }

    fn unable(&self, job: &Job) -> Option<&'static str> {
        unable(job)
    }

    fn run(&self, job: Job) -> Result<Deltas, Busy> {
        let busy = Busy { queue_max: self.server.config.jobs_max };
        if !self.is_ready() {
            return Err(busy);
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| busy)?;
        let (sender, deltas) = Deltas::channel(job.ending.tokens_max);
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(Arc::clone(&self.server).work(job, sender, place), &self.runtime);
        Ok(deltas)
    }
}

/// What of a job no such server can do.
fn unable(job: &Job) -> Option<&'static str> {
    match (&job.grammar, job.logprobs) {
        (Some(_), _) => Some("grammar"),
        (None, Some(_)) => Some("logprobs"),
        (None, None) => None,
    }
}

impl Server {
    /// Looks again and again whether the server still fits: it may be started anew with another model.
    async fn watch(self: Arc<Self>) {
        loop {
            sleep(self.config.probe_every).await;
            let found = probe::probe(&self.wire, &self.tokenizer, self.context).await;
            let same = found.map(|found| found.dialect == self.dialect);
            let fits = matches!(same, Ok(true));
            if self.fits.swap(fits, Ordering::Relaxed) == fits {
                continue;
            }
            let url = self.wire.url();
            match same {
                Ok(true) => tracing::info!(url, "the backend fits again"),
                Ok(false) => tracing::warn!(url, "the backend is another kind of server now"),
                Err(error) => tracing::warn!(url, %error, "the backend does not fit any more"),
            }
        }
    }

    /// Answers one job. A stream that closes before its end tells the reader that it failed.
    async fn work(self: Arc<Self>, job: Job, deltas: DeltasSender, _place: OwnedSemaphorePermit) {
        match self.answer(&job, &deltas).await {
            Ok(Some(finish)) => {
                // A reader that left needs no end.
                let _ = deltas.send(Delta::Done(finish));
            }
            Ok(None) => {}
            Err(error) => {
                if matches!(error, RemoteError::Unreachable { .. }) {
                    self.fits.store(false, Ordering::Relaxed);
                }
                let url = self.wire.url();
                tracing::warn!(order = %job.order, url, %error, "the backend failed");
            }
        }
    }

    /// The tokens of a job, one after the other; why they ended, if the reader did not leave.
    async fn answer(
        &self,
        job: &Job,
        deltas: &DeltasSender,
    ) -> Result<Option<Finish>, RemoteError> {
        if let Some(what) = unable(job) {
            return Err(RemoteError::Unable { what });
        }
        deltas.start(0);
        let mut output = Vec::new();
        let mut streams = true;
        loop {
            let turn = tokio::select! {
                biased;
                () = deltas.closed() => return Ok(None),
                turn = self.turn(job, &mut output, deltas, streams) => turn?,
            };
            match turn {
                Turn::Over(finish) => return Ok(Some(finish)),
                Turn::Left => return Ok(None),
                Turn::More => {}
                Turn::Gap => streams = false,
            }
        }
    }

    /// Asks for what is missing of an answer: by stream all of it, else a piece.
    async fn turn(
        &self,
        job: &Job,
        output: &mut Vec<u32>,
        deltas: &DeltasSender,
        streams: bool,
    ) -> Result<Turn, RemoteError> {
        let had = output.len();
        let rest = job.ending.tokens_max.saturating_sub(u32::try_from(had).unwrap_or(u32::MAX));
        let asked = if streams { rest } else { rest.min(PIECE_TOKENS) };
        let request = self.dialect.request(job, output, asked, streams);
        let wait_max = self.config.token_wait_max;
        let started = self.wire.start(self.dialect.path(), &request, "answer");
        let response = within(wait_max, "answer", started).await?;
        if !streams {
            let body = whole(response, self.wire.url(), "answer");
            let told = self.dialect.read(&within(wait_max, "answer", body).await?)?;
            if told.ended.is_none() && told.tokens.is_empty() {
                return Err(early(job, output));
            }
            let found = told.tokens.len() as u64;
            let expected = told.counted.unwrap_or(found);
            return match self.take(job, output, had, told, deltas)? {
                // A piece has all of its tokens, or never will.
                Some(Turn::Gap) => Err(RemoteError::Count { found, expected }),
                Some(turn) => Ok(turn),
                None if output.len() - had == asked as usize => Ok(Turn::More),
                None => Err(early(job, output)),
            };
        }
        let mut events = Events::new(response, self.wire.url());
        loop {
            // Events without tokens do not put the end of patience off.
            let told = within(wait_max, "token", async {
                loop {
                    match events.next().await? {
                        None => return Ok(None),
                        Some(event) => {
                            let told = self.dialect.read(&event)?;
                            if !told.tokens.is_empty() || told.ended.is_some() {
                                return Ok(Some(told));
                            }
                        }
                    }
                }
            });
            let Some(told) = told.await? else { return Err(early(job, output)) };
            if let Some(turn) = self.take(job, output, had, told, deltas)? {
                return Ok(turn);
            }
        }
    }

    /// Takes what the server told; how the request ends with it, if it does.
    fn take(
        &self,
        job: &Job,
        output: &mut Vec<u32>,
        had: usize,
        told: Told,
        deltas: &DeltasSender,
    ) -> Result<Option<Turn>, RemoteError> {
        let Told { mut tokens, counted, ended } = told;
        let found = (output.len() - had + tokens.len()) as u64;
        if let Some(expected) = counted {
            if found > expected {
                return Err(RemoteError::Count { found, expected });
            }
            // Counted, but not told. What came is in order; what lies before the newest token is missing.
            if found < expected {
                return Ok(Some(Turn::Gap));
            }
        }
        let ended_by_model = ended == Some(Ended::Eos);
        // Some servers tell that the model ended its answer, but not by which token.
        if let (true, [eos]) = (ended_by_model, job.ending.eos.as_slice())
            && tokens.last().or(output.last()) != Some(eos)
        {
            tokens.push(*eos);
        }
        for token in tokens {
            if token >= self.vocabulary {
                return Err(RemoteError::Token { found: token, vocabulary: self.vocabulary });
            }
            output.push(token);
            if !deltas.send(Delta::Token { token, hidden: B256::ZERO, logprobs: None }) {
                return Ok(Some(Turn::Left));
            }
            // What a server says beyond the end is not wanted.
            if let Some(finish) = job.ending.at(output) {
                return Ok(Some(Turn::Over(finish)));
            }
        }
        match ended {
            None => Ok(None),
            // A piece may be full; a stream was asked for all there is.
            Some(Ended::Length) => Ok(None),
            Some(Ended::Eos | Ended::Other) => Err(early(job, output)),
        }
    }
}

fn early(job: &Job, output: &[u32]) -> RemoteError {
    RemoteError::Early { found: output.len(), max: job.ending.tokens_max }
}
