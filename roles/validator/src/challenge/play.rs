//! The game, move by move, until it is decided.
//!
//! One loop: look where the dispute stands, say what is to be said, look again. Nothing is remembered
//! that a look does not give back, so a refused move, a node that fails, a reorganisation or a restart
//! costs no more than another look.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use assay_chain::{ChainError, Event as OnChain, Happened, Mined, Move, Side};
use assay_court::{Docket, Look, NodeServer, Record};
use assay_evidence::dispute::Explanation;
use assay_protocol::{B256, Phase};

use super::collect::Spent;
use super::number::judged;
use super::plan::{Plan, Sight};
use super::source::Source;
use super::{Challenge, ChallengeError, Event, Reason, Told, blocking};

/// Refusals of one move until the dispute is left alone.
const REFUSALS_MAX: u32 = 5;
/// Between two tries.
const TRY_EVERY: Duration = Duration::from_millis(500);
/// Of the challenger's own clock, the part that the provider's server may use up with its answers.
const SERVED_PART: u32 = 2;

/// How a game ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The receipt is false.
    Won(Reason),
    /// The bond is the provider's.
    Lost,
    /// The receipt was false on purpose: all bonds go back.
    Canary,
}

/// A dispute that is being played.
pub(crate) struct Game<'a> {
    case: &'a Challenge,
    docket: Docket,
    record: Arc<Record>,
    told: Told,
    /// What was sent so far.
    pub(crate) spent: Spent,
    /// The number that was judged.
    pub(crate) number: Option<Box<Explanation>>,
    opened: u64,
    source: Option<Arc<Source>>,
    /// Where the dispute stood when something was last tried, and what became of it.
    tried: Tried,
    /// When the chain last did what was asked.
    calm: Instant,
}

/// What was tried at one point of the game.
#[derive(Clone, Copy, Debug, Default)]
struct Tried {
    at: (Phase, B256),
    refusals: u32,
    /// One's own proof was tried, or is not to be had.
    proved: bool,
    waited: bool,
}

impl<'a> Game<'a> {
    /// A dispute of `docket`, with the honest trace of what it is about.
    pub(crate) fn new(
        case: &'a Challenge,
        docket: Docket,
        record: Arc<Record>,
        told: &Told,
        spent: Spent,
    ) -> Self {
        Self {
            case,
            opened: docket.opened(),
            docket,
            record,
            told: Arc::clone(told),
            spent,
            number: None,
            source: None,
            tried: Tried::default(),
            calm: Instant::now(),
        }
    }

    /// The block that the dispute was opened in.
    pub(crate) fn opened(&self) -> u64 {
        self.opened
    }

    /// Plays until the end.
    pub(crate) async fn play(&mut self) -> Result<End, ChallengeError> {
        loop {
            match self.turn().await {
                Ok(Some(end)) => return Ok(end),
                Ok(None) => self.calm = Instant::now(),
                Err(error) => self.trouble(error).await?,
            }
        }
    }

    /// One look, and what follows from it; gives the end, if it is one.
    async fn turn(&mut self) -> Result<Option<End>, ChallengeError> {
        let look = self.docket.look(&self.case.chain).await?;
        for happened in &look.news {
            (self.told)(Event::Happened(happened.clone()));
        }
        if let Some(end) = self.end(&look).await? {
            return Ok(Some(end));
        }
        let at = (look.dispute.phase, look.dispute.point);
        if self.tried.at != at {
            self.tried = Tried { at, ..Tried::default() };
        }
        match look.dispute.turn() {
            Some(Side::Challenger) => self.move_on(&look).await?,
            Some(Side::Defender) => self.await_defender(&look).await?,
            None => {}
        }
        Ok(None)
    }

    /// How the dispute ended, if it did.
    async fn end(&mut self, look: &Look) -> Result<Option<End>, ChallengeError> {
        let decided = look.news.iter().rev().find_map(|happened| match happened.event {
            OnChain::Decided { .. } => Some(happened.clone()),
            _ => None,
        });
        if let Some(decided) = decided {
            self.number = self.judged(&decided).await?;
        }
        let reason = if self.number.is_some() { Reason::Number } else { Reason::Silence };
        match look.dispute.phase {
            Phase::Lost | Phase::Forfeited => return Ok(Some(End::Lost)),
            Phase::Won | Phase::Returned => return Ok(Some(End::Won(reason))),
            _ => {}
        }
        // Another's dispute may have found the receipt false, or its provider unveiled it.
        let case = self.case.chain.case(look.dispute.receipt).await?;
        Ok(case.and_then(|case| match (case.guilty, case.canary) {
            (true, _) => Some(End::Won(Reason::Before)),
            (_, true) => Some(End::Canary),
            _ => None,
        }))
    }

    /// The number that a decision is about; none for one by silence.
    async fn judged(&self, decided: &Happened) -> Result<Option<Box<Explanation>>, ChainError> {
        let proofs = self.case.chain.proofs_in(decided.transaction).await?;
        let proof = proofs.into_iter().find(|proof| proof.dispute == self.docket.id());
        let Some(proof) = proof else { return Ok(None) };
        let record = Arc::clone(&self.record);
        // Words are not worth a conviction.
        Ok(blocking(move || judged(&record, &proof)).await.ok())
    }

    /// Makes the move that the challenger owes.
    async fn move_on(&mut self, look: &Look) -> Result<(), ChallengeError> {
        match self.plan(look).await? {
            Some(plan) => self.send(plan).await,
            None => Err(ChallengeError::Agrees { dispute: self.docket.id() }),
        }
    }

    /// Ends the game once the provider is too late; has a named number judged if that can be done
    /// without it; else waits.
    async fn await_defender(&mut self, look: &Look) -> Result<(), ChallengeError> {
        let (dispute, receipt) = (self.docket.id(), look.dispute.receipt);
        let last = look.dispute.last_second().unwrap_or_default();
        let now = look.time.max(wall());
        if now > last {
            let ends =
                [Move::Timeout { dispute }, Move::Punish { receipt }, Move::Close { dispute }];
            match self.case.chain.play(&ends).await {
                Ok(mined) => {
                    self.sent(mined);
                    return Ok(());
                }
                // The chain's clock is behind this machine's.
                Err(ChainError::Refused(refusal)) if refusal.reason.starts_with("TooEarly") => {}
                Err(error) => return Err(error.into()),
            }
        }
        if look.dispute.phase == Phase::Prove && !self.tried.proved {
            self.tried.proved = true;
            if let Some(plan) = self.plan(look).await? {
                return self.send(plan).await;
            }
        }
        if !self.tried.waited {
            self.tried.waited = true;
            (self.told)(Event::Waits { seconds: last.saturating_sub(now) });
        }
        tokio::time::sleep(self.case.config.look_every).await;
        Ok(())
    }

    async fn plan(&mut self, look: &Look) -> Result<Option<Plan>, ChallengeError> {
        let source = self.source(look).await?;
        let (record, standing) = (Arc::clone(&self.record), look.standing.clone());
        let (dispute, receipt) = (self.docket.id(), look.dispute.receipt);
        let anyway = self.case.config.anyway;
        let planned = blocking(move || {
            let sight = Sight { record: &record, dispute, receipt, source: &*source, anyway };
            sight.plan(&standing)
        });
        Ok(planned.await??)
    }

    /// Where nodes are asked for, for the whole game: a server that has used up its time is not asked
    /// again.
    async fn source(&mut self, look: &Look) -> Result<Arc<Source>, ChallengeError> {
        if let Some(source) = &self.source {
            return Ok(Arc::clone(source));
        }
        let server = match self.case.config.asks_server {
            true => self.server(look).await?,
            false => None,
        };
        let source = Arc::new(Source::new(server));
        self.source = Some(Arc::clone(&source));
        Ok(source)
    }

    async fn server(&self, look: &Look) -> Result<Option<NodeServer>, ChallengeError> {
        let chain = &self.case.chain;
        let Some(owner) = chain.owner_of(self.case.answer.provider()).await? else {
            return Ok(None);
        };
        let Some(provider) = chain.provider(owner).await? else { return Ok(None) };
        let patience = Duration::from_secs(look.dispute.challenger_left) / SERVED_PART;
        // Without it, nodes come from the chain.
        Ok(NodeServer::new(&provider.endpoint, self.docket.id(), patience).ok())
    }

    async fn send(&mut self, plan: Plan) -> Result<(), ChallengeError> {
        if let Some(number) = plan.doubts {
            (self.told)(Event::Doubts(number));
        }
        if let Some(calls) = plan.convicting {
            match self.case.chain.play(&calls).await {
                Ok(mined) => {
                    self.sent(mined);
                    return Ok(());
                }
                Err(ChainError::Refused(refusal)) => {
                    self.tried.proved = true;
                    (self.told)(Event::Retries { reason: refusal.to_string() });
                }
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(call) = plan.alone {
            let mined = self.case.chain.play(&[call]).await?;
            self.sent(mined);
        }
        Ok(())
    }

    fn sent(&mut self, mined: Mined) {
        self.spent.add(mined);
        (self.told)(Event::Sent(mined));
    }

    /// Bears what may pass, for a while.
    async fn trouble(&mut self, error: ChallengeError) -> Result<(), ChallengeError> {
        use ChainError::{Busy, Failed, Node, Pending, Refused, Unreachable};
        let dispute = self.docket.id();
        let reason = error.to_string();
        match error {
            ChallengeError::Chain(last @ Refused(_)) => {
                self.tried.refusals += 1;
                let times = self.tried.refusals;
                if times >= REFUSALS_MAX {
                    return Err(ChallengeError::Refused { dispute, times, last });
                }
            }
            ChallengeError::Chain(
                Unreachable { .. } | Node { .. } | Pending { .. } | Busy { .. } | Failed { .. },
            )
            | ChallengeError::Court(_)
                if self.calm.elapsed() < self.case.config.patience => {}
            error => return Err(error),
        }
        (self.told)(Event::Retries { reason });
        tokio::time::sleep(TRY_EVERY).await;
        Ok(())
    }
}

/// Unix seconds of this machine.
fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
