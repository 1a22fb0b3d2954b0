//! One dispute, from a receipt to the money.
//!
//! Replay first: who disputes a true answer loses its bond. What signed words alone show false takes one
//! call; all else is a game ([`play`]). The challenger computes its own trace before it opens, for its
//! clock does not wait. Nothing is kept on disk: a challenger that was killed finds its dispute on chain.

mod collect;
mod committed;
mod error;
mod grounds;
mod number;
mod plan;
mod play;
mod retrace;
mod source;

use std::sync::Arc;
use std::time::Duration;

use assay_chain::{Chain, ChainError, Equivocation, Filing, Happened, Mined, Move};
use assay_court::{Disputed, Docket, Record};
use assay_engine::Loaded;
use assay_evidence::Fault;
use assay_evidence::dispute::Explanation;
use assay_kernels::Cpu;
use assay_protocol::{Address, Amount, Answer, B256};
use tokio::task::spawn_blocking;

use self::collect::{Spent, collect};
use self::play::{End, Game};
use self::retrace::Retrace;

pub use self::collect::Spoils;
pub use self::error::ChallengeError;
pub(crate) use self::grounds::find;
pub use self::grounds::{Finding, Grounds};
pub use self::number::judged;

/// How a dispute is played.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Dispute a true answer too, to see its provider win; costs the bond.
    pub anyway: bool,
    /// Ask the provider's server for nodes, and have numbers judged without waiting for the provider.
    pub asks_server: bool,
    /// Between two looks at the chain while the provider owes a move.
    pub look_every: Duration,
    /// How long a chain may be out of reach before the dispute is left alone; it can be resumed.
    pub patience: Duration,
}

/// One dispute to be played.
#[derive(Clone, Debug)]
pub struct Challenge {
    /// A connection with the challenger's key.
    pub chain: Chain,
    /// The model that was ordered, its weights checked against its id.
    pub loaded: Arc<Loaded>,
    /// What it is computed with.
    pub cpu: Arc<Cpu>,
    /// The answer that is doubted.
    pub answer: Answer,
    /// Another answer of the same provider to the same order, if there is one.
    pub other: Option<Answer>,
    /// How to play.
    pub config: Config,
}

/// What a challenger does, and sees.
#[derive(Clone, Debug)]
pub enum Event {
    /// Positions replayed.
    Replaying {
        /// So far.
        done: u64,
        /// Of how many.
        total: u64,
    },
    /// What the replay showed.
    Found(Finding),
    /// The model's manifest was filed, so that answers of it can be judged.
    Filed(Mined),
    /// Positions traced.
    Tracing {
        /// So far.
        done: u64,
        /// Of how many.
        total: u64,
    },
    /// A dispute was opened.
    Opened {
        /// Its number.
        dispute: u64,
        /// What it took, base units of ASY.
        bond: Amount,
        /// Where.
        mined: Mined,
    },
    /// A dispute that this account opened earlier goes on.
    Resumed {
        /// Its number.
        dispute: u64,
    },
    /// The number that is about to be named.
    Doubts(Box<Explanation>),
    /// Something happened in the dispute.
    Happened(Happened),
    /// A transaction of this account is in a block.
    Sent(Mined),
    /// The provider owes a move.
    Waits {
        /// Seconds until it loses by silence.
        seconds: u64,
    },
    /// Something failed and is tried again.
    Retries {
        /// What failed.
        reason: String,
    },
}

/// Why a receipt was not disputed, or how the dispute went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The answer is true; nothing was sent.
    True,
    /// The provider was convicted.
    Convicted {
        /// What that moved.
        spoils: Box<Spoils>,
        /// How.
        reason: Reason,
        /// The number that was judged, if one was.
        number: Option<Box<Explanation>>,
    },
    /// The answer was false on purpose, to see who checks: nobody is slashed, and bonds go back.
    Canary,
    /// The challenger lost; the bond is the provider's.
    Lost {
        /// The dispute.
        dispute: u64,
        /// Base units of ASY.
        bond: Amount,
        /// The number that was judged, if one was.
        number: Option<Box<Explanation>>,
    },
}

/// What convicted a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A contract computed a number, and it was another.
    Number,
    /// The provider's clock ran out.
    Silence,
    /// Its signed words contradict each other.
    Words,
    /// Somebody else had convicted it before.
    Before,
}

/// Whom a challenger tells.
pub(crate) type Told = Arc<dyn Fn(Event) + Send + Sync>;

impl Challenge {
    /// Plays the dispute to its end, and collects. Going on with one that this account opened earlier is
    /// the same call. `told` hears what happens, from several threads.
    ///
    /// # Errors
    /// If there is nothing to open a dispute with or about, or the chain stays out of reach; what was
    /// begun then goes on with the same call.
    pub async fn run(
        self,
        told: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Ending, ChallengeError> {
        let (told, case): (Told, _) = (Arc::new(told), Arc::new(self));
        let grounds = match case.find(&told).await? {
            Finding::True if !case.config.anyway => return Ok(Ending::True),
            Finding::True => Grounds::Computation,
            Finding::Undisputable { fault } => return Err(ChallengeError::Undisputable { fault }),
            Finding::Disputable { grounds, .. } => grounds,
        };
        case.fits().await?;
        let receipt = case.receipt();
        let from = case.chain.height().await?;
        match case.chain.case(receipt).await? {
            Some(found) if found.guilty => {
                return case.convicted(Reason::Before, None, (0, Spent::default()), None).await;
            }
            Some(found) if found.canary => return Ok(Ending::Canary),
            _ => {}
        }
        let mut spent = Spent::default();
        case.file(&told, &mut spent).await?;
        let filing = Box::new(Filing::of(&case.answer, None));
        let call = match grounds {
            Grounds::Computation => return case.game(&told, spent).await,
            Grounds::Contradiction => Move::Contradict(filing),
            Grounds::Ending(tail) => Move::Misfinish(filing, tail),
            Grounds::SecondAnswer(pair) => case.equivocation(pair),
        };
        let mined = case.chain.play(&[call, Move::Punish { receipt }]).await?;
        spent.add(mined);
        told(Event::Sent(mined));
        case.convicted(Reason::Words, None, (from, spent), None).await
    }

    fn receipt(&self) -> B256 {
        self.answer.receipt.digest(self.answer.chain_id)
    }

    /// Replays the answer.
    async fn find(self: &Arc<Self>, told: &Told) -> Result<Finding, ChallengeError> {
        let (case, tells) = (Arc::clone(self), Arc::clone(told));
        let found = blocking(move || {
            let Self { answer, other, loaded, cpu, .. } = &*case;
            find(answer, other.as_ref(), loaded, cpu, &mut |done, total| {
                tells(Event::Replaying { done, total });
            })
        });
        let found = found.await??;
        told(Event::Found(found.clone()));
        Ok(found)
    }

    /// Refuses what no contract of this chain can judge.
    async fn fits(&self) -> Result<(), ChallengeError> {
        let (found, expected) = (self.answer.chain_id.0, self.chain.client().chain_id());
        if found != expected {
            return Err(ChallengeError::OtherChain { found, expected });
        }
        let operator = self.answer.provider();
        match self.chain.owner_of(operator).await? {
            Some(_) => Ok(()),
            None => Err(ChallengeError::NoProvider { operator }),
        }
    }

    /// Has the model known to the judges.
    async fn file(&self, told: &Told, spent: &mut Spent) -> Result<(), ChallengeError> {
        let account = self.chain.client().account().ok_or(ChainError::NoKey)?;
        if self.chain.client().balance(account).await?.is_zero() {
            return Err(ChallengeError::NoCoins { account });
        }
        if !self.chain.is_filed(self.loaded.id).await? {
            let mined = self.chain.file_spec(&self.loaded.manifest).await?;
            spent.add(mined);
            told(Event::Filed(mined));
        }
        Ok(())
    }

    fn equivocation(&self, pair: assay_evidence::dispute::Equivocation) -> Move {
        let other = self.other.as_ref().unwrap_or(&self.answer);
        Move::Equivocate(Box::new(Equivocation {
            receipts: [self.answer.receipt.clone(), other.receipt.clone()],
            signatures: [self.answer.receipt_signature, other.receipt_signature],
            index: pair.index,
            tokens: pair.tokens,
        }))
    }

    /// Plays the game.
    async fn game(
        self: &Arc<Self>,
        told: &Told,
        mut spent: Spent,
    ) -> Result<Ending, ChallengeError> {
        let account = self.chain.client().account().ok_or(ChainError::NoKey)?;
        let resumed = self.opened_before(account).await?;
        if resumed.is_none() {
            self.affords(account).await?;
        }
        let record = self.compute(told).await?;
        let bond = self.chain.dispute_terms().await?.bond;
        let docket = match resumed {
            Some(dispute) => {
                told(Event::Resumed { dispute });
                Docket::find(&self.chain, dispute).await?
            }
            None => {
                let filing = Filing::of(&self.answer, None);
                let (dispute, mined) = self.chain.open_dispute(&filing).await?;
                spent.add(mined);
                told(Event::Opened { dispute, bond, mined });
                Docket::new(dispute, mined.block)
            }
        };
        let dispute = docket.id();
        let mut game = Game::new(self, docket, record, told, spent);
        let end = game.play().await?;
        let (from, number, spent) = (game.opened(), game.number.take(), game.spent);
        match end {
            End::Won(reason) => self.convicted(reason, Some(dispute), (from, spent), number).await,
            End::Canary => {
                let closed = self.chain.play(&[Move::Close { dispute }]).await?;
                told(Event::Sent(closed));
                Ok(Ending::Canary)
            }
            End::Lost => Ok(Ending::Lost { dispute, bond, number }),
        }
    }

    /// The dispute about this receipt that `account` opened and that still goes on.
    async fn opened_before(&self, account: Address) -> Result<Option<u64>, ChainError> {
        let (receipt, Some(owner)) =
            (self.receipt(), self.chain.owner_of(self.answer.provider()).await?)
        else {
            return Ok(None);
        };
        for id in self.chain.disputes_about(owner).await?.into_iter().rev() {
            let found = self.chain.dispute(id).await?;
            let goes_on = found.is_some_and(|dispute| {
                (dispute.receipt, dispute.challenger) == (receipt, account)
                    && dispute.turn().is_some()
            });
            if goes_on {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    async fn affords(&self, account: Address) -> Result<(), ChallengeError> {
        let bond = self.chain.dispute_terms().await?.bond;
        let found = self.chain.asy_of(account).await?;
        if found < bond { Err(ChallengeError::Poor { account, found, bond }) } else { Ok(()) }
    }

    /// The honest trace of the answer.
    async fn compute(self: &Arc<Self>, told: &Told) -> Result<Arc<Record>, ChallengeError> {
        let facts = self.chain.facts_of(&Filing::of(&self.answer, None)).await?;
        let disputed = Disputed { answer: self.answer.clone(), facts };
        let (case, tells) = (Arc::clone(self), Arc::clone(told));
        let record = blocking(move || {
            let (loaded, cpu) = (Arc::clone(&case.loaded), Arc::clone(&case.cpu));
            Record::compute(&Retrace::new(loaded, cpu, tells), disputed)
        });
        Ok(Arc::new(record.await??))
    }

    async fn convicted(
        &self,
        reason: Reason,
        dispute: Option<u64>,
        (from, spent): (u64, Spent),
        number: Option<Box<Explanation>>,
    ) -> Result<Ending, ChallengeError> {
        let receipt = self.receipt();
        let spoils = collect(&self.chain, &self.answer, (receipt, dispute), (from, spent)).await;
        let spoils = spoils.map_err(|last| ChallengeError::Uncollected { receipt, last })?;
        Ok(Ending::Convicted { spoils: Box::new(spoils), reason, number })
    }
}

/// Runs what computes on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ChallengeError> {
    spawn_blocking(work).await.map_err(|panic| ChallengeError::Broken(panic.to_string()))
}

/// What a replay found, in one line; none if it found nothing wrong.
impl Finding {
    /// The fault that a replay showed.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Disputable { fault, .. } => fault.as_ref(),
            Self::Undisputable { fault } => Some(fault),
            Self::True => None,
        }
    }
}
