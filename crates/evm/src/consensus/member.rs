//! The chain as a member of a cluster: what [`Application`] asks, answered by a [`Chain`] and its
//! mempool.
//!
//! Executing and writing happen on threads that may block. A block is executed once, when it is
//! proposed or checked, and its outcome waits in the chain's tree of unfinalised blocks.

use super::report::Reports;
use super::seats::{read_seats, seats_call};
use super::{Application, Carried, CommitteeError, Evidence, FinalizeError, Identity};
use super::{Seat, SeatsError};
use crate::block::Block;
use crate::chain::{At, Chain, ChainError};
use crate::clock::Clock;
use crate::execute::{Attributes, Executed, Parent};
use crate::keystore::Signer;
use crate::mempool::{Head, Mempool};
use alloy_consensus::transaction::TxHashRef;
use alloy_eips::eip2718::Encodable2718;
use alloy_evm::Evm as _;
use alloy_primitives::{Address, B256, Bytes, keccak256};
use futures_util::stream::{self, BoxStream, StreamExt};
use std::collections::{BTreeSet, HashSet};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::broadcast::error::RecvError;

/// How far a block's time may be ahead of our clock before we wait with our vote: as far as a
/// producer without a cluster lets its chain's time run ahead.
const FUTURE_MAX: Duration = Duration::from_secs(30);

/// How often a proposer looks for transactions beside being told.
const LOOK: Duration = Duration::from_millis(10);

/// Called with the proof that a validator voted twice.
pub type Accuse = dyn Fn(Evidence) + Send + Sync;

/// How a chain takes part in a cluster.
#[derive(Clone)]
pub struct MemberConfig {
    /// The contract that lists the seats, if there is one. Part of the chain's rules: the same on
    /// every node.
    pub contract: Option<Address>,
    /// Who sits while the contract gives no list. Part of the chain's rules.
    pub seats: Vec<Seat>,
    /// Blocks per epoch. Part of the chain's rules.
    pub epoch_length: NonZeroU64,
    /// Who gets the fees of our blocks.
    pub beneficiary: Address,
    /// The gas limit that our blocks move toward.
    pub gas_limit: u64,
    /// Most bytes of transactions in our blocks; the rest waits for the next.
    pub bytes_max: usize,
    /// Longest that transactions are executed for one of our blocks.
    pub build_max: Duration,
    /// Shortest time from one block to the next.
    pub pace: Duration,
    /// How long our turn waits for a transaction. Shorter than a leader's
    /// [`Patience`](super::simplex::Patience), or our turns are skipped.
    pub wait: Duration,
    /// An empty block is proposed when the last one is this old.
    pub idle: Duration,
    /// Who tells the contract of validators that voted twice, by ordinary transactions that this
    /// account pays for. Needs a contract; `None`: others do.
    pub reporter: Option<Signer>,
    /// Hears of every proof that a validator voted twice; called on the engine's threads, so it
    /// must not block.
    pub accuse: Option<Arc<Accuse>>,
}

impl MemberConfig {
    /// The defaults, for a committee that no contract names.
    pub fn of(seats: Vec<Seat>) -> Self {
        Self {
            contract: None,
            seats,
            epoch_length: NonZeroU64::MIN.saturating_add(999),
            beneficiary: Address::ZERO,
            gas_limit: crate::genesis::GAS_LIMIT,
            bytes_max: 2 << 20,
            build_max: Duration::from_millis(200),
            pace: Duration::from_millis(50),
            wait: Duration::from_millis(300),
            idle: Duration::from_secs(3),
            reporter: None,
            accuse: None,
        }
    }
}

impl std::fmt::Debug for MemberConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemberConfig")
            .field("contract", &self.contract)
            .field("seats", &self.seats)
            .field("epoch_length", &self.epoch_length)
            .finish_non_exhaustive()
    }
}

/// A chain that several validators agree on. Cheap to clone.
#[derive(Clone)]
pub struct Member(Arc<Parts>);

struct Parts {
    chain: Arc<Chain>,
    mempool: Arc<Mempool>,
    clock: Arc<dyn Clock>,
    config: MemberConfig,
    genesis: Carried,
    reports: Option<Reports>,
    /// The newest block executed, and when.
    newest: Mutex<(u64, Instant)>,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl Member {
    /// Joins a chain and what waits for it. `genesis` is the header of block 0, which needs no
    /// store.
    pub fn new(
        chain: Arc<Chain>,
        mempool: Arc<Mempool>,
        clock: Arc<dyn Clock>,
        genesis: &crate::Genesis,
        config: MemberConfig,
    ) -> Result<Self, super::CarriedError> {
        let (header, _, _) = genesis.block();
        let withdrawals = header.withdrawals_root.map(|_| Default::default());
        let body = alloy_consensus::BlockBody::<alloy_consensus::TxEnvelope> {
            withdrawals,
            ..Default::default()
        };
        let encoded = alloy_consensus::Block::rlp_encoded_from_parts(&header, &body);
        let genesis = Carried::trusted(encoded.into())?;
        let newest = Mutex::new((0, Instant::now()));
        let reporter = config.reporter.clone().zip(config.contract);
        let reports = reporter.map(|(signer, contract)| Reports::new(signer, contract));
        Ok(Self(Arc::new(Parts { chain, mempool, clock, config, genesis, reports, newest })))
    }

    /// The chain.
    pub fn chain(&self) -> &Arc<Chain> {
        &self.0.chain
    }

    /// Who sits after the block at `height`, by the contract's word in that block's state.
    fn listed(&self, parent: &Parent, contract: Address) -> Result<Vec<Seat>, SeatsError> {
        let executor = self.0.chain.executor();
        let env = executor.env(&parent.header);
        let mut evm = executor.evm(parent.view(), env);
        let answer = evm
            .transact_system_call(alloy_eips::eip4788::SYSTEM_ADDRESS, contract, seats_call())
            .map_err(|error| SeatsError::Call(error.to_string()))?;
        match answer.result.output() {
            Some(output) if answer.result.is_success() => read_seats(output),
            _ => Err(SeatsError::Call("the call does not succeed".into())),
        }
    }

    fn remember(&self, height: u64) {
        let mut newest = self.0.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if height > newest.0 {
            *newest = (height, Instant::now());
        }
    }

    /// When the child of the block at `height` may be proposed.
    fn due(&self, height: u64) -> Instant {
        let newest = *self.0.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let since = if newest.0 == height { newest.1 } else { Instant::now() };
        since + self.0.config.pace
    }

    /// The transactions of `hash` and its ancestors above the head: they wait in the mempool until
    /// their block is final, and must not be proposed again on top of it.
    fn taken(&self, mut hash: B256) -> HashSet<B256> {
        let head = self.0.chain.head().header.hash();
        let mut taken = HashSet::new();
        while hash != head
            && let Some(executed) = self.0.chain.executed(At::Hash(hash))
            && executed.block.number() > self.0.chain.head().header.number
        {
            taken.extend(executed.block.transactions.iter().map(|tx| *tx.tx_hash()));
            hash = executed.block.header.parent_hash;
        }
        taken
    }

    fn base_fee(&self, parent: &Parent) -> u64 {
        let now = parent.header.timestamp;
        self.0.chain.spec().base_fee_after(&parent.header, now).unwrap_or_default()
    }

    /// Whether anything waits that a block on `parent` could take.
    fn something_waits(&self, parent: &Parent, taken: &HashSet<B256>) -> bool {
        let base_fee = self.base_fee(parent);
        let mempool = &self.0.mempool;
        mempool.has_ready(base_fee)
            && (taken.is_empty() || mempool.best(base_fee).any(|tx| !taken.contains(tx.tx_hash())))
    }

    /// Waits for the turn's moment and for a transaction. `false`: the turn is given up.
    async fn wait(&self, parent: &Parent, taken: &HashSet<B256>) -> bool {
        let height = parent.header.number;
        tokio::time::sleep_until(self.due(height).into()).await;
        let until = Instant::now() + self.0.config.wait;
        loop {
            if self.something_waits(parent, taken) {
                return true;
            }
            let age = self.0.clock.now().as_secs().saturating_sub(parent.header.timestamp);
            if Duration::from_secs(age) >= self.0.config.idle {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn build(&self, parent: &Parent, taken: &HashSet<B256>) -> Option<Carried> {
        let Parts { chain, mempool, clock, config, .. } = &*self.0;
        let attributes = Attributes {
            // Blocks may share a second, and never go back.
            timestamp: clock.now().as_secs().max(parent.header.timestamp),
            beneficiary: config.beneficiary,
            gas_limit: config.gas_limit,
            prev_randao: randao(parent.header.hash()),
            parent_beacon_root: B256::ZERO,
            extra_data: Bytes::new(),
        };
        let begun = Instant::now();
        let mut bytes = 0;
        let waiting = mempool
            .best(self.base_fee(parent))
            .filter(|tx| !taken.contains(tx.tx_hash()))
            .take_while(|tx| {
                bytes += tx.encode_2718_len();
                bytes <= config.bytes_max
            });
        let stop = || begun.elapsed() > config.build_max;
        let built = match chain.executor().build(parent, &attributes, waiting, stop) {
            Ok(built) => built,
            Err(error) => {
                tracing::error!(%error, "no block can be built");
                return None;
            }
        };
        if parent.header.hash() == chain.head().header.hash() {
            mempool.drop_all(built.refused.iter().map(|(hash, _)| hash));
        }
        let carried = Carried::trusted(built.executed.block.encode().into()).ok()?;
        self.keep(built.executed)?;
        Some(carried)
    }

    /// Executes a block on its parent.
    fn execute(&self, carried: &Carried) -> Result<Executed, String> {
        let parent = self.parent(carried.parent()).map_err(|error| error.to_string())?;
        let mempool = &self.0.mempool;
        let known = |hash: &B256| mempool.get(hash).map(|tx| tx.signer());
        let block =
            Block::decode_with(carried.encoded(), known).map_err(|error| error.to_string())?;
        self.0.chain.executor().validate(&parent, block).map_err(|error| error.to_string())
    }

    fn parent(&self, hash: B256) -> Result<Arc<Parent>, ChainError> {
        self.0.chain.parent(At::Hash(hash))
    }

    /// Keeps what executing gave. `None` if the block's parent is no longer one to build on.
    fn keep(&self, executed: Executed) -> Option<()> {
        let height = executed.block.number();
        match self.0.chain.insert(executed) {
            Ok(()) => {
                self.remember(height);
                Some(())
            }
            Err(error) => {
                tracing::debug!(height, %error, "an unfinalised block is not kept");
                None
            }
        }
    }

    /// Checks and keeps a peer's proposal; as [`Application::verify`] once its time has come.
    fn check(&self, carried: &Carried) -> bool {
        let header = carried.header();
        if header.mix_hash != randao(header.parent_hash)
            || header.parent_beacon_block_root.is_some_and(|root| !root.is_zero())
        {
            tracing::warn!(block = ?carried, "a proposal chose what is not its to choose");
            return false;
        }
        match self.execute(carried) {
            Ok(executed) => self.keep(executed).is_some(),
            Err(reason) => {
                tracing::warn!(block = ?carried, %reason, "a proposal is invalid");
                false
            }
        }
    }

    fn end(&self, blocks: &[Carried]) -> Result<(), FinalizeError> {
        let Parts { chain, mempool, config, .. } = &*self.0;
        let mut line = Vec::new();
        for block in blocks {
            let (height, hash) = (block.height(), block.hash());
            let invalid = |reason| FinalizeError::Invalid { height, reason, hash };
            if height <= chain.head().header.number {
                match chain.header(height) {
                    Ok(Some(header)) if header.hash() != hash => {
                        let reason = format!("this node has {} there", header.hash());
                        return Err(invalid(reason));
                    }
                    _ => continue,
                }
            }
            if !self.knows(&hash) {
                let executed = self.execute(block).map_err(invalid)?;
                chain.insert(executed).map_err(|error| invalid(error.to_string()))?;
            }
            line.push((height, hash));
        }
        let Some((height, hash)) = line.first().copied() else { return Ok(()) };
        let hashes: Vec<_> = line.iter().map(|(_, hash)| *hash).collect();
        let outcomes: Vec<_> =
            hashes.iter().filter_map(|hash| chain.executed(At::Hash(*hash))).collect();
        chain.finalize(&hashes).map_err(|error| match error {
            ChainError::Store(error) => {
                FinalizeError::Storage { height, reason: error.to_string() }
            }
            error => FinalizeError::Invalid { height, reason: error.to_string(), hash },
        })?;
        let touched: BTreeSet<Address> = outcomes
            .iter()
            .flat_map(|executed| executed.changes.accounts.keys().copied())
            .collect();
        mempool.advance(Head::after(&chain.head(), chain.executor(), config.gas_limit), touched);
        Ok(())
    }
}

/// What `PREVRANDAO` gives after `parent`: nobody's choice.
fn randao(parent: B256) -> B256 {
    keccak256(parent)
}

/// Runs `work` on a thread that may block. `None` if it did not end, and the log says why.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => Some(outcome),
        Err(error) => {
            tracing::error!(%error, "work on the chain ended without an outcome");
            None
        }
    }
}

impl Application for Member {
    fn identity(&self) -> Identity {
        let chain = &self.0.chain;
        Identity { chain_id: chain.chain_id(), genesis: chain.genesis_hash() }
    }

    fn genesis(&self) -> Carried {
        self.0.genesis.clone()
    }

    fn head(&self) -> (u64, B256) {
        let head = self.0.chain.head();
        (head.header.number, head.header.hash())
    }

    fn block(&self, height: u64) -> Option<Carried> {
        match self.0.chain.block(height) {
            Ok(block) => Carried::trusted(block?.encode().into()).ok(),
            Err(error) => {
                tracing::warn!(height, %error, "a block cannot be read");
                None
            }
        }
    }

    fn height(&self, hash: &B256) -> Option<u64> {
        let header = self.0.chain.header(At::Hash(*hash)).ok()??;
        (header.number <= self.0.chain.head().header.number).then_some(header.number)
    }

    fn knows(&self, hash: &B256) -> bool {
        let head = self.0.chain.head();
        head.header.hash() == *hash
            || self
                .0
                .chain
                .executed(At::Hash(*hash))
                .is_some_and(|executed| executed.block.number() > head.header.number)
    }

    fn committee(&self, epoch: u64) -> Result<Vec<Seat>, CommitteeError> {
        let Parts { chain, config, .. } = &*self.0;
        let fixed = |reason| match config.seats.is_empty() {
            true => Err(CommitteeError::Seats { reason, epoch }),
            false => Ok(config.seats.clone()),
        };
        let Some(contract) = config.contract else {
            return fixed(SeatsError::Empty { listed: 0 });
        };
        let needed = (epoch * config.epoch_length.get()).saturating_sub(1);
        let head = chain.head().header.number;
        if head < needed {
            return Err(CommitteeError::Early { head, needed, epoch });
        }
        let parent = chain.parent(needed).map_err(|_| CommitteeError::Pruned { needed, epoch })?;
        self.listed(&parent, contract).or_else(|reason| {
            tracing::warn!(%reason, epoch, "the contract names no seats; those configured sit");
            fixed(reason)
        })
    }

    async fn propose(&self, parent: Carried) -> Option<Carried> {
        let base = self.parent(parent.hash()).ok()?;
        let taken = self.taken(parent.hash());
        if !self.wait(&base, &taken).await {
            return None;
        }
        let member = self.clone();
        blocking(move || member.build(&base, &taken)).await?
    }

    async fn verify(&self, block: Carried) -> bool {
        let time = Duration::from_secs(block.header().timestamp);
        // A clock that is wrong, ours or the proposer's, costs the proposer its turn and no more.
        while let Some(early) = time.checked_sub(self.0.clock.now() + FUTURE_MAX)
            && !early.is_zero()
        {
            tracing::warn!(?block, seconds = early.as_secs(), "a proposal is from the future");
            tokio::time::sleep(early.min(Duration::from_secs(1))).await;
        }
        let member = self.clone();
        blocking(move || member.check(&block)).await.unwrap_or(false)
    }

    async fn finalize(&self, blocks: Vec<Carried>) -> Result<(), FinalizeError> {
        let height = blocks.first().map_or(0, Carried::height);
        let member = self.clone();
        blocking(move || member.end(&blocks)).await.unwrap_or_else(|| {
            let reason = "the writing ended without an outcome".into();
            Err(FinalizeError::Storage { height, reason })
        })
    }

    fn arrivals(&self) -> BoxStream<'static, B256> {
        let news = self.0.mempool.subscribe();
        stream::unfold(news, |mut news| async move {
            loop {
                match news.recv().await {
                    Ok(hash) => return Some((hash, news)),
                    // Those missed are in our own mempool and enter a block in our own turn.
                    Err(RecvError::Lagged(missed)) => {
                        tracing::debug!(missed, "arrivals not passed on");
                    }
                    Err(RecvError::Closed) => return None,
                }
            }
        })
        .boxed()
    }

    fn waiting(&self, hash: &B256) -> Option<Bytes> {
        let transaction = self.0.mempool.get(hash)?;
        Some(transaction.inner().encoded_2718().into())
    }

    fn receive(&self, transactions: Vec<Bytes>) {
        // A peer's transaction that is refused is the peer's loss.
        drop(self.0.mempool.add_many(&transactions));
    }

    fn accuse(&self, evidence: Evidence) {
        if let Some(reports) = &self.0.reports {
            reports.report(&self.0.chain, &self.0.mempool, &evidence);
        }
        if let Some(accuse) = &self.0.config.accuse {
            accuse(evidence);
        }
    }
}
