//! One dispute, from its opening to its end.
//!
//! Its task keeps nothing that matters: each step reads where the dispute stands and does what is owed
//! there, so it goes on after a kill, and after a move that somebody else made.

use std::sync::Arc;
use std::time::Duration;

use assay_chain::{ChainError, Event, Move as Call};
use assay_court::{CourtError, Docket, Look, on_chain};
use assay_evidence::dispute::NoAnswer;
use assay_protocol::OrderHash;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::bench::{BenchError, Undefendable};
use super::duty::{Duty, End, duty};
use super::sender::Made;
use super::{Shared, words};
use crate::canaries::CanaryError;
use crate::now_ms;

/// First wait after a step that failed; each next one is twice as long.
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Longest wait after a step that failed, short beside any clock.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Gas that one dispute may cost: many times what the longest game takes. Beyond it something else is
/// wrong, and nothing more is sent.
const GAS_MAX: u64 = 30_000_000;

/// Why a step came to nothing.
#[derive(Debug, thiserror::Error)]
enum GameError {
    #[error(transparent)]
    Court(#[from] CourtError),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Sent(#[from] Arc<ChainError>),
    #[error(transparent)]
    Bench(#[from] BenchError),
    #[error("the move cannot be made: {0}")]
    NoAnswer(#[from] NoAnswer),
    #[error("the canary cannot be shown: {0}")]
    Canary(#[from] CanaryError),
    #[error("the dispute names no order")]
    NoOrder,
    #[error("the moves cost {0} gas so far, and no more is sent")]
    Dear(u64),
    #[error("the provider is stopping")]
    Stopping,
}

/// What a step came to.
enum Step {
    /// Something was done; there may be more to do.
    Moved,
    /// The other side owes a move.
    Waited,
    /// There is nothing to do any more.
    Over(End),
}

/// A dispute about a receipt of this provider.
pub(super) struct Game {
    docket: Docket,
    /// Whose answer is disputed, once its opening was read.
    order: Option<OrderHash>,
    shared: Arc<Shared>,
    gas: u64,
    /// It was said that nothing can be shown.
    given_up: bool,
    /// Seconds left for the present move, and for whom, as of the last look.
    last_second: Option<u64>,
}

impl Game {
    pub(super) fn new(docket: Docket, shared: Arc<Shared>) -> Self {
        Self { docket, order: None, shared, gas: 0, given_up: false, last_second: None }
    }

    /// Plays to the end, or until `stop`. Returns the dispute's number.
    pub(super) async fn play(mut self, stop: CancellationToken) -> u64 {
        let (id, mut retry) = (self.docket.id(), RETRY_FIRST);
        loop {
            let step = tokio::select! {
                biased;
                () = stop.cancelled() => return self.left(),
                step = self.step() => step,
            };
            let wait = match step {
                Ok(Step::Over(end)) => {
                    self.shared.close(id);
                    tell(id, end, self.gas);
                    return id;
                }
                Ok(Step::Moved) => continue,
                Ok(Step::Waited) => {
                    retry = RETRY_FIRST;
                    self.shared.watch_every
                }
                Err(error) => {
                    tracing::warn!(dispute = id, %error, "a step was not made, and is tried again");
                    let wait = retry;
                    retry = (retry * 2).min(RETRY_MAX);
                    wait
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.left(),
                () = sleep(wait) => {}
            }
        }
    }

    /// Does what is owed now.
    async fn step(&mut self) -> Result<Step, GameError> {
        let shared = Arc::clone(&self.shared);
        let look = self.docket.look(&shared.chain).await?;
        self.note(&look);
        let Some(case) = shared.chain.case(look.dispute.receipt).await? else {
            return Ok(Step::Over(End::Foreign));
        };
        let dispute = self.docket.id();
        match duty(&look.dispute, &case, shared.owner, look.time, now_ms() / 1000) {
            Duty::Answer if self.given_up => Ok(Step::Waited),
            Duty::Answer => self.answer(&look).await,
            Duty::Wait => Ok(Step::Waited),
            Duty::Timeout => {
                // Where this machine's clock is ahead of the chain's, the chain says that it is too early.
                match self.send(Call::Timeout { dispute }).await {
                    Ok(_) => tracing::info!(dispute, "the challenger let its clock run out"),
                    Err(GameError::Sent(error)) if is_refusal(&error) => return Ok(Step::Waited),
                    Err(error) => return Err(error),
                }
                Ok(Step::Moved)
            }
            Duty::Close => {
                self.send(Call::Close { dispute }).await?;
                tracing::info!(dispute, "the challenger's bond is the provider's");
                Ok(Step::Moved)
            }
            Duty::Over(end) => Ok(Step::Over(end)),
        }
    }

    /// Remembers what a look told.
    fn note(&mut self, look: &Look) {
        for happened in &look.news {
            if let Event::Disputed { order, .. } = happened.event {
                if self.order.is_none() {
                    let (id, left) = (self.docket.id(), look.seconds_left().unwrap_or(0));
                    let challenger = look.dispute.challenger;
                    tracing::warn!(dispute = id, order = %OrderHash(order), %challenger, seconds = left, "an answer is disputed");
                }
                self.order = Some(OrderHash(order));
            }
        }
        self.last_second = look.dispute.last_second();
        self.shared.show(self.docket.id(), &look.dispute);
    }

    /// Makes the move that is owed.
    async fn answer(&mut self, look: &Look) -> Result<Step, GameError> {
        let shared = Arc::clone(&self.shared);
        let (id, order) = (self.docket.id(), self.order.ok_or(GameError::NoOrder)?);
        if self.excuse(look, order).await? {
            return Ok(Step::Moved);
        }
        let record = match shared.bench.record(&shared.chain, &look.dispute, order).await {
            Ok(record) => record,
            Err(BenchError::Undefendable(reason)) => return Ok(self.give_up(&reason)),
            Err(error) => return Err(error.into()),
        };
        let (keeper, standing) = (Arc::clone(&record), look.standing.clone());
        let made = tokio::task::spawn_blocking(move || {
            let play = keeper.defend(&standing)?;
            Ok(play.map(|play| (words::say(&keeper, &standing, &play), play)))
        });
        let made: Result<_, NoAnswer> = made.await.map_err(|_| BenchError::Broken)?;
        let Some((said, play)) = made? else { return Ok(Step::Waited) };
        match self.send(on_chain(id, play)).await {
            Ok(Made { mined, gas }) => {
                tracing::info!(dispute = id, gas, block = mined.block, "{said}");
                Ok(Step::Moved)
            }
            // Somebody else made it, or it fell out of its block: the next look tells.
            Err(GameError::Sent(error)) if is_refusal(&error) && self.has_moved(look).await => {
                tracing::debug!(dispute = id, %error, "the dispute has moved on");
                Ok(Step::Moved)
            }
            Err(error) => Err(error),
        }
    }

    /// Shows that the receipt is a canary, if it is: all disputes about it are over, and nobody is slashed.
    async fn excuse(&mut self, look: &Look, order: OrderHash) -> Result<bool, GameError> {
        let shared = Arc::clone(&self.shared);
        let Some(canaries) = &shared.canaries else { return Ok(false) };
        let found = canaries.disputed(&shared.store, order, look.dispute.receipt).await?;
        let Some(found) = found else { return Ok(false) };
        canaries.unveil(&shared.chain, &found).await?;
        let dispute = self.docket.id();
        match self.send(Call::Excuse { dispute }).await {
            Ok(_) => {
                tracing::info!(dispute, "the receipt was a canary, and who disputed it did look")
            }
            Err(GameError::Sent(error)) if is_refusal(&error) && self.has_moved(look).await => {}
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Whether a dispute stands elsewhere than it did.
    async fn has_moved(&self, look: &Look) -> bool {
        let now = self.shared.chain.dispute(self.docket.id()).await;
        matches!(now, Ok(Some(now)) if now != look.dispute)
    }

    async fn send(&mut self, play: Call) -> Result<Made, GameError> {
        /// What a transaction that failed in its block is counted as.
        const FAILED: u64 = 1_000_000;
        if self.gas >= GAS_MAX {
            return Err(GameError::Dear(self.gas));
        }
        let outcome = self.shared.sender.make(play).await.ok_or(GameError::Stopping)?;
        match &outcome {
            Ok(made) => self.gas += made.gas,
            Err(error) if matches!(**error, ChainError::Failed { .. }) => self.gas += FAILED,
            Err(_) => {}
        }
        Ok(outcome?)
    }

    fn give_up(&mut self, reason: &Undefendable) -> Step {
        let id = self.docket.id();
        tracing::error!(dispute = id, %reason, "an answer cannot be defended: the stake is slashed unless its challenger falls silent");
        self.given_up = true;
        Step::Waited
    }

    /// Says what a provider leaves behind that stops.
    fn left(&self) -> u64 {
        let id = self.docket.id();
        if let Some(last) = self.last_second {
            let seconds = last.saturating_sub(now_ms() / 1000);
            tracing::warn!(
                dispute = id,
                seconds,
                "a dispute is open, and goes on without this provider: start it again before its clock runs out"
            );
        }
        id
    }
}

fn is_refusal(error: &ChainError) -> bool {
    matches!(error, ChainError::Refused(_) | ChainError::Failed { .. })
}

fn tell(dispute: u64, end: End, gas: u64) {
    match end {
        End::Won => tracing::info!(dispute, gas, "a dispute is won"),
        End::Lost => {
            tracing::error!(dispute, gas, "a dispute is lost: the receipt was found false")
        }
        End::Elsewhere => tracing::warn!(dispute, gas, "the receipt was decided elsewhere"),
        End::Late => tracing::error!(dispute, gas, "this provider's clock ran out"),
        End::Foreign => tracing::debug!(dispute, "not about a receipt of this provider"),
    }
}
