//! Audits posted receipts that chance draws (`docs/protocol/audits.md`).
//!
//! One task goes through the epochs: it commits to secrets and reveals them (`attend`), finds out what the
//! beacons drew (`draws`), has it shown (`ask`) and computed again (`judge`), commits to its verdicts and
//! reveals them, disputes what is false, and has on chain what it was not shown, or the stake of who hides it
//! (`follow`); and it has others fined that were silent, or called true what is false (`hold`). All that it must not forget is on disk first (`page`), and what was done is read from the chain, so
//! an auditor that was killed goes on where it was. It says what it does in [`Happening`]s.

mod ask;
mod attend;
mod draws;
mod follow;
mod happening;
mod hold;
mod judge;
mod page;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use assay_chain::{AuditTerms, Chain, ChainError, PostedAt};
use assay_kernels::Cpu;
use assay_protocol::{Address, Key};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::ask::Asker;
use self::draws::draws;
use self::judge::{Bench, Judged};
use self::page::{Book, Task};
use crate::challenge::{self, ChallengeError, Ending};

pub use self::happening::{Happening, Lapse};
pub use self::judge::Shelf;
pub use self::page::{BookError, Found, Totals};

/// Epochs after which a page is closed, whatever is left of it: rewards that nobody pays are given up.
const PATIENCE: u64 = 50;

/// How an auditor works.
#[derive(Clone, Copy, Debug)]
pub struct Auditing {
    /// Between two looks at the chain; short beside an epoch.
    pub look_every: Duration,
    /// Longest wait for a provider's answer.
    pub answer_max: Duration,
    /// Commit for one beacon, see to what it draws, and end.
    pub once: bool,
    /// How disputes are played.
    pub disputes: challenge::Config,
}

/// An auditor.
pub struct Auditor {
    /// A connection with the auditor's key.
    pub chain: Chain,
    /// That key.
    pub key: Key,
    /// Where it keeps what it must not forget. One auditor uses a folder at a time.
    pub folder: PathBuf,
    /// The models at hand.
    pub shelf: Arc<dyn Shelf>,
    /// What they are computed with.
    pub cpu: Arc<Cpu>,
    /// How it works.
    pub auditing: Auditing,
}

/// Why an auditor stopped.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// What it must not forget cannot be kept.
    #[error(transparent)]
    Book(#[from] BookError),
    /// The chain has no auditors, or no key to send with.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// No request can be made.
    #[error("providers cannot be asked: {0}")]
    Http(String),
}

/// Whom an auditor tells.
type Told = Arc<dyn Fn(Happening) + Send + Sync>;

impl Auditor {
    /// Audits until `stop`, or, once, until all that one beacon drew is seen to. `told` hears what happens. What
    /// the audits of this folder came to is returned.
    ///
    /// A chain that does not answer is asked again in the next round.
    ///
    /// # Errors
    /// If the folder cannot be used, or the chain has no auditors.
    pub async fn run(
        self,
        told: impl Fn(Happening) + Send + Sync + 'static,
        stop: CancellationToken,
    ) -> Result<Totals, AuditError> {
        let mut desk = Desk::open(self, Arc::new(told)).await?;
        let mut next = tokio::time::Instant::now();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(done) = desk.work.join_next() => desk.finished(done)?,
                () = tokio::time::sleep_until(next) => {
                    next = tokio::time::Instant::now() + desk.auditing.look_every;
                    let round = tokio::select! {
                        biased;
                        // What was sent is found on the chain at the next start.
                        () = stop.cancelled() => break,
                        round = desk.round() => round,
                    };
                    match round {
                        Ok(true) => break,
                        Ok(false) => {}
                        Err(AuditError::Chain(error)) => desk.tell(Happening::Failed {
                            what: "a look at the chain",
                            reason: error.to_string(),
                        }),
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        desk.leave();
        Ok(desk.book.totals)
    }

    /// What the audits of `folder` came to.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn totals(folder: &std::path::Path) -> Result<Totals, BookError> {
        Book::totals(folder)
    }
}

/// What a task came to.
enum Done {
    /// A receipt was judged; an error if the chain failed.
    Judged { epoch: u64, at: PostedAt, judged: Result<Judged, ChainError> },
    /// A dispute is over.
    Disputed { epoch: u64, at: PostedAt, ending: Box<Result<Ending, ChallengeError>> },
}

/// An auditor at work.
struct Desk {
    chain: Chain,
    auditor: Address,
    terms: AuditTerms,
    auditing: Auditing,
    bench: Arc<Bench>,
    book: Book,
    /// What tasks are about.
    busy: HashSet<PostedAt>,
    work: JoinSet<Done>,
    /// Epochs whose missed reveal was told.
    missed: HashSet<u64>,
    /// Receipts that are disputed now.
    disputing: HashSet<PostedAt>,
    /// The epoch in which something was last tried about a receipt that may fail.
    tried: HashMap<PostedAt, u64>,
    /// The last epoch that it committed for.
    last: Option<u64>,
    /// The last epoch in which it said that there is no bond.
    poor: Option<u64>,
    /// Looks until a charge is sent; none while there is none.
    charging: Option<u8>,
    /// Where among the cases the next look begins.
    next_case: usize,
    told: Told,
}

/// What time it is.
#[derive(Clone, Copy, Debug)]
struct Now {
    /// The epoch of the latest block: what is over there is final.
    seen: u64,
    /// The epoch that a transaction would be in.
    epoch: u64,
    /// Seconds until that is over.
    left: u64,
    /// When that would be, unix seconds.
    time: u64,
}

impl Desk {
    async fn open(auditor: Auditor, told: Told) -> Result<Self, AuditError> {
        let Auditor { chain, key, folder, shelf, cpu, auditing } = auditor;
        let account = chain.client().account().ok_or(ChainError::NoKey)?;
        let terms = chain.audit_terms().await?;
        let http = reqwest::Client::builder()
            .timeout(auditing.answer_max)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| AuditError::Http(error.to_string()))?;
        let asker = Asker { chain: chain.clone(), key, http };
        Ok(Self {
            bench: Arc::new(Bench::new(asker, shelf, cpu)),
            auditor: account,
            terms,
            auditing,
            book: Book::open(&folder)?,
            busy: HashSet::new(),
            work: JoinSet::new(),
            missed: HashSet::new(),
            disputing: HashSet::new(),
            tried: HashMap::new(),
            last: None,
            poor: None,
            charging: None,
            next_case: 0,
            chain,
            told,
        })
    }

    fn tell(&self, happening: Happening) {
        (self.told)(happening);
    }

    async fn now(&self) -> Result<Now, ChainError> {
        let head = self.chain.client().time().await?;
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        // Blocks that are made in a hurry run ahead of the clock.
        let next = clock.max(head + 1);
        let length = self.terms.epoch.max(1);
        Ok(Now {
            seen: head / length,
            epoch: next / length,
            left: length - next % length,
            time: next,
        })
    }

    /// Does all that is due now; whether nothing will be due any more.
    async fn round(&mut self) -> Result<bool, AuditError> {
        let now = self.now().await?;
        self.attend(now).await?;
        self.draw(now).await?;
        self.judge(now)?;
        self.follow(now).await?;
        self.hold(now).await?;
        self.turn_over(now)?;
        let over = self.auditing.once && self.last.is_some() && self.book.pages.is_empty();
        Ok(over && self.work.is_empty() && self.charging.is_none())
    }

    /// Finds out what the beacons drew that are final.
    async fn draw(&mut self, now: Now) -> Result<(), AuditError> {
        let due: Vec<u64> = self
            .book
            .pages
            .values()
            .filter(|page| page.tasks.is_none())
            .map(|page| page.epoch)
            .collect();
        for epoch in due.into_iter().filter(|epoch| epoch + 2 <= now.seen) {
            let terms = (self.terms.epoch, self.terms.rate);
            let drawn = draws(&self.chain, self.auditor, epoch, terms).await?;
            let mine = drawn.places.iter();
            let tasks: Vec<Task> = mine.map(|(at, other)| Task::new(*at, *other)).collect();
            let count = tasks.len() as u64;
            let others = drawn.others;
            self.book.change(epoch, |page| (page.tasks, page.others) = (Some(tasks), others))?;
            self.book.count(|totals| totals.drawn += count)?;
            if drawn.receipts > 0 {
                let (receipts, revealed) = (drawn.receipts, drawn.revealed);
                self.tell(Happening::Drew { epoch, receipts, revealed, mine: drawn.places.len() });
            }
        }
        Ok(())
    }

    /// Has what was drawn judged, and gives up what cannot be said any more.
    fn judge(&mut self, now: Now) -> Result<(), AuditError> {
        let mut late = Vec::new();
        for page in self.book.pages.values() {
            let open = page.drawn().iter().filter(|task| task.found.is_none());
            for task in open {
                if page.epoch + 3 < now.epoch && !self.busy.contains(&task.at) {
                    late.push((page.epoch, task.at));
                } else if self.busy.insert(task.at) {
                    let (bench, epoch, at) = (Arc::clone(&self.bench), page.epoch, task.at);
                    self.work.spawn(async move {
                        Done::Judged { epoch, at, judged: bench.judge(&at).await }
                    });
                }
            }
        }
        for (epoch, at) in late {
            self.found(epoch, at, Judged { found: Found::Late, posted: None, answer: None })?;
        }
        Ok(())
    }

    /// Keeps what a task came to.
    fn finished(&mut self, done: Result<Done, tokio::task::JoinError>) -> Result<(), AuditError> {
        match done {
            Ok(Done::Judged { epoch, at, judged: Ok(judged) }) => {
                self.busy.remove(&at);
                self.found(epoch, at, judged)?;
            }
            Ok(Done::Judged { at, judged: Err(error), .. }) => {
                self.busy.remove(&at);
                let reason = error.to_string();
                self.tell(Happening::Failed { what: "a look at what was posted", reason });
            }
            Ok(Done::Disputed { epoch, at, ending }) => {
                self.busy.remove(&at);
                self.disputed(epoch, at, *ending)?;
            }
            Err(broken) => {
                let reason = broken.to_string();
                self.tell(Happening::Failed { what: "a task", reason });
            }
        }
        Ok(())
    }

    /// Keeps what was found about a receipt, the answer first.
    fn found(&mut self, epoch: u64, at: PostedAt, judged: Judged) -> Result<(), AuditError> {
        let Judged { found, posted, answer } = judged;
        if let (Some(posted), Some(answer)) = (&posted, &answer) {
            self.book.keep_answer(posted.receipt, answer)?;
        }
        let disputable = answer.is_some();
        let kept = found.clone();
        let known = self.book.pages.get(&epoch).and_then(|page| {
            page.drawn().iter().find(|task| task.at == at).and_then(|task| task.found.as_ref())
        });
        let first = known.is_none();
        self.book.change(epoch, |page| {
            if let Some(task) = page.task(&at) {
                task.disputed = !disputable;
                (task.found, task.posted) = (Some(kept), posted.or(task.posted.take()));
            }
        })?;
        self.book.count(|totals| match &found {
            // It was counted as a silence, before the provider published it.
            _ if !first => {}
            Found::True => totals.truthful += 1,
            Found::False { .. } => totals.falsehoods += 1,
            Found::Silent { .. } => totals.silences += 1,
            Found::Unable { .. } | Found::Late => totals.unchecked += 1,
        })?;
        self.tell(Happening::Judged { epoch, at, found });
        Ok(())
    }

    /// Says what an auditor that stops has left open.
    fn leave(&self) {
        let owes = |page: &&page::Page| {
            (page.committed && !page.revealed) || (page.list_committed && !page.list_revealed)
        };
        let owed: Vec<u64> = self.book.pages.values().filter(owes).map(|page| page.epoch).collect();
        if !owed.is_empty() {
            self.tell(Happening::Owes { epochs: owed });
        }
    }
}
