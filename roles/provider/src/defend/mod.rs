//! Defends this provider's receipts: whoever disputes one is answered in time, without a human.
//!
//! One task watches for disputes about the owner; each of them has a task of its own (`game`), which
//! looks, decides (`duty`) and moves, and all of them send through one (`sender`), many moves in one
//! transaction. An answer is computed again once (`bench`), on threads that may block. Nothing is
//! remembered but the block from which to look on: whatever a dispute needs is on the chain, in the
//! store and in the model, so a provider that was killed goes on where its disputes stand.
//!
//! `nodes` serves challengers what they would otherwise have revealed on chain.

mod bench;
mod duty;
mod game;
mod nodes;
mod sender;
mod words;

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use assay_chain::{Chain, ChainError, Dispute, Event};
use assay_court::{CourtError, Docket, Tracer};
use assay_protocol::{Address, B256, ChainId, ModelId, Phase};
use axum::http::StatusCode;
use tokio::sync::Semaphore;
use tokio::task::{Id, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub(crate) use nodes::{leaf, nodes};

use self::bench::Bench;
use self::game::Game;
use self::sender::{Queue, Sender};
use crate::canaries::Canaries;
use crate::store::{self, Store, StoreError};

/// Blocks asked about at once: nodes refuse more.
const BLOCKS_MAX: u64 = 1000;
/// Disputes played at once. Each has cost its challenger a bond; more wait until others end.
const GAMES_MAX: usize = 1024;
/// Questions of challengers answered at once: each may compute a position again.
const SERVING_MAX: usize = 2;
/// Questions answered about one dispute: several ways down of a large model.
const QUESTIONS_MAX: u32 = 2048;
/// The name under which the store keeps the first block that has to be looked at again.
const CURSOR: &str = "block of disputes";

/// How a provider defends its receipts.
#[derive(Clone, Debug)]
pub struct Defence {
    /// Whose stake answers for the receipts.
    pub owner: Address,
    /// The chain, with an account that pays for moves: the owner's or an operator's of its. One that
    /// nothing else sends from, since an account's transactions come one after another.
    pub chain: Chain,
    /// Time between two looks. Each move of a game comes that late at most, so it must be short beside
    /// the deployment's clock.
    pub watch_every: Duration,
    /// Blocks after which nothing changes any more; zero where blocks are final.
    pub confirmations: u64,
    /// Disputed answers whose traces are held at once; the next one takes the place of another, which
    /// is computed again when it is asked for.
    pub traces_max: NonZeroUsize,
}

/// What a provider's disputes share.
pub(crate) struct Shared {
    owner: Address,
    chain: Chain,
    watch_every: Duration,
    confirmations: u64,
    bench: Bench,
    sender: Sender,
    /// Taken by the task that sends.
    queue: Mutex<Option<Queue>>,
    /// Disputes about committed traces, for who asks for nodes.
    open: Mutex<HashMap<u64, Committed>>,
    serving: Semaphore,
    /// Receipts that are false on purpose are shown to be so, not defended.
    canaries: Option<Arc<Canaries>>,
    store: Store,
}

/// A trace that this provider committed to.
#[derive(Clone, Copy, Debug)]
struct Committed {
    receipt: B256,
    trace: B256,
    /// Questions answered about it.
    asked: u32,
}

impl Shared {
    pub(crate) fn new(
        defence: Defence,
        store: Store,
        chain_id: ChainId,
        tracers: HashMap<ModelId, Arc<dyn Tracer>>,
        canaries: Option<Arc<Canaries>>,
    ) -> Self {
        let Defence { owner, chain, watch_every, confirmations, traces_max } = defence;
        let (sender, queue) = Sender::new();
        Self {
            owner,
            chain,
            watch_every,
            confirmations,
            bench: Bench::new(store.clone(), chain_id, tracers, traces_max),
            sender,
            queue: Mutex::new(Some(queue)),
            open: Mutex::default(),
            serving: Semaphore::new(SERVING_MAX),
            canaries,
            store,
        }
    }

    /// Lets nodes of a dispute be asked for once its trace is committed.
    fn show(&self, id: u64, dispute: &Dispute) {
        if dispute.trace.is_zero() || dispute.turn().is_none() {
            return;
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let committed = Committed { receipt: dispute.receipt, trace: dispute.trace, asked: 0 };
        open.entry(id).or_insert(committed);
    }

    /// Forgets a dispute that is over.
    fn close(&self, id: u64) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// The trace that a dispute is about, for one question more.
    fn asked(&self, id: u64) -> Result<Committed, StatusCode> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let committed = open.get_mut(&id).ok_or(StatusCode::NOT_FOUND)?;
        if committed.asked >= QUESTIONS_MAX {
            return Err(StatusCode::TOO_MANY_REQUESTS);
        }
        committed.asked += 1;
        Ok(*committed)
    }
}

/// Why a round of watching came to nothing.
#[derive(Debug, thiserror::Error)]
enum DefendError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Court(#[from] CourtError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Defends until `stop`. A dispute that is open then is said in the log, with its deadline.
pub(crate) async fn defend(shared: &Arc<Shared>, store: &Store, stop: CancellationToken) {
    let queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(queue) = queue else { return };
    let sending = async {
        tokio::select! {
            biased;
            // What was sent is found on the chain at the next start.
            () = stop.cancelled() => {}
            () = queue.send(&shared.chain) => {}
        }
    };
    let mut watch = Watch {
        shared,
        store,
        next: None,
        live: BTreeMap::new(),
        over: BTreeMap::new(),
        tasks: HashMap::new(),
        games: JoinSet::new(),
        stop: stop.clone(),
    };
    tokio::join!(sending, watch.run());
}

/// Which disputes there are.
struct Watch<'a> {
    shared: &'a Arc<Shared>,
    store: &'a Store,
    /// The first block that was not looked at; none before the first round.
    next: Option<u64>,
    /// Disputes that are not over, and the block each was opened in.
    live: BTreeMap<u64, u64>,
    /// Those that are, as long as their blocks may be looked at again.
    over: BTreeMap<u64, u64>,
    /// Which dispute a task plays.
    tasks: HashMap<Id, u64>,
    games: JoinSet<u64>,
    stop: CancellationToken,
}

impl Watch<'_> {
    async fn run(&mut self) {
        let stop = self.stop.clone();
        loop {
            let round = async {
                if let Err(error) = self.round().await {
                    tracing::warn!(%error, "disputes cannot be watched");
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = round => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = self.games.join_next_with_id() => self.ended(ended),
                () = sleep(self.shared.watch_every) => {}
            }
        }
        // They hear of `stop` by themselves, and say what they leave.
        while self.games.join_next().await.is_some() {}
    }

    /// Finds disputes that are new, and plays them.
    async fn round(&mut self) -> Result<(), DefendError> {
        let height = self.shared.chain.height().await?;
        let kept = self.store.read(|read| store::meta(read, CURSOR)).await?;
        let from = match (self.next, kept) {
            (Some(next), _) => next.saturating_sub(self.shared.confirmations),
            (None, Some(kept)) => kept,
            (None, None) => {
                self.first().await?;
                height + 1
            }
        };
        let mut next = from;
        while next <= height {
            let to = height.min(next + BLOCKS_MAX - 1);
            for happened in self.shared.chain.events(next, to).await? {
                match happened.event {
                    Event::Disputed { dispute, owner, .. } if owner == self.shared.owner => {
                        self.found(dispute, happened.block);
                    }
                    _ => {}
                }
            }
            next = to + 1;
        }
        self.next = Some(self.next.unwrap_or(0).max(height + 1));
        self.start();
        self.keep(kept).await?;
        Ok(())
    }

    /// Finds disputes of before anything was kept.
    async fn first(&mut self) -> Result<(), DefendError> {
        let chain = &self.shared.chain;
        for id in chain.disputes_about(self.shared.owner).await? {
            let phase = chain.dispute(id).await?.map(|dispute| dispute.phase);
            if !matches!(phase, None | Some(Phase::Forfeited | Phase::Returned | Phase::Won)) {
                let opened = Docket::find(chain, id).await?.opened();
                self.found(id, opened);
            }
        }
        Ok(())
    }

    fn found(&mut self, id: u64, opened: u64) {
        if !self.over.contains_key(&id) {
            self.live.entry(id).or_insert(opened);
        }
    }

    /// Plays those that are not played, as many as there is room for, the oldest first.
    fn start(&mut self) {
        let playing: Vec<u64> = self.tasks.values().copied().collect();
        let waiting = self.live.iter().filter(|(id, _)| !playing.contains(id));
        let room = GAMES_MAX.saturating_sub(playing.len());
        for (id, opened) in waiting.take(room) {
            let game = Game::new(Docket::new(*id, *opened), Arc::clone(self.shared));
            let task = self.games.spawn(game.play(self.stop.clone()));
            self.tasks.insert(task.id(), *id);
        }
    }

    /// Notes that a dispute's task has ended; one that broke is played again.
    fn ended(&mut self, ended: Result<(Id, u64), tokio::task::JoinError>) {
        match ended {
            Ok((task, id)) => {
                self.tasks.remove(&task);
                let opened = self.live.remove(&id);
                self.over.extend(opened.map(|opened| (id, opened)));
            }
            Err(broken) => {
                let dispute = self.tasks.remove(&broken.id());
                tracing::error!(?dispute, %broken, "a dispute's task broke, and is begun again");
            }
        }
    }

    /// Keeps from where on to look after the next start: no dispute that is open is looked past.
    async fn keep(&mut self, kept: Option<u64>) -> Result<(), StoreError> {
        let next = self.next.unwrap_or(0).saturating_sub(self.shared.confirmations);
        self.over.retain(|_, opened| *opened >= next);
        let cursor = self.live.values().copied().fold(next, u64::min);
        if kept == Some(cursor) {
            return Ok(());
        }
        self.store.write(move |write| store::set_meta(write, CURSOR, cursor)).await
    }
}
