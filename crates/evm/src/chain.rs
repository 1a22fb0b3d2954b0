//! The chain: finalised blocks in a line, unfinalised ones in a small tree above them.
//!
//! Every block here carries the state after it (see [`crate::state`]), so building on any of them,
//! reading at any of them and dropping any of them is the same cheap thing. Reads take a lock for
//! the time of a look-up; the only writer is whoever finalises, and a reader never waits for its
//! disk.

mod past;
mod rows;
#[cfg(test)]
mod tests;
mod tree;

use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use alloy_consensus::Header;
use alloy_eips::eip4895::Withdrawals;
use alloy_primitives::{B256, Sealable, Sealed};
use rayon::prelude::*;
use tokio::sync::broadcast;

use crate::block::{Block, Receipt};
use crate::execute::{Executed, Executor, Parent, Precompile};
use crate::genesis::Genesis;
use crate::spec::Spec;
use crate::state::{Commit, Progress, State, Store, StoreError, StoreOptions};
use crate::view::Hashes;

use past::Past;
use tree::Tree;

/// How much a chain keeps at hand.
#[derive(Clone, Debug)]
pub struct Options {
    /// States of the newest blocks kept in memory; older ones are rebuilt from the disk when asked
    /// for.
    pub states: usize,
    /// Transactions whose blocks and receipts are kept in memory, newest blocks first; older ones
    /// are read from the disk.
    pub transactions: usize,
    /// Unfinalised blocks held at once. The next is refused.
    pub unfinalised: usize,
    /// Finalised blocks a subscriber may lag behind before it misses some.
    pub subscriber_lag: usize,
    /// How the disk is used.
    pub store: StoreOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            states: 128,
            transactions: 65_536,
            unfinalised: 128,
            subscriber_lag: 256,
            store: StoreOptions::default(),
        }
    }
}

/// Which block: by height among the finalised, or by hash among all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The finalised block of this height.
    Number(u64),
    /// The block with this hash, finalised or not.
    Hash(B256),
}

impl From<u64> for At {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<B256> for At {
    fn from(hash: B256) -> Self {
        Self::Hash(hash)
    }
}

/// Why the chain cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The directory holds another chain.
    #[error("the data is of a chain with genesis {found}, this one starts with {expected}")]
    Genesis {
        /// Hash of block 0 in the directory.
        found: B256,
        /// Hash of block 0 as configured.
        expected: B256,
    },
    /// The disk failed, is full, is in use by another process, or holds what it should not.
    #[error(transparent)]
    Store(StoreError),
    /// The state is too old to be rebuilt.
    #[error("the state of block {number} is no longer kept, the oldest is that of {oldest}")]
    Pruned {
        /// The block asked for.
        number: u64,
        /// The oldest whose state can be had.
        oldest: u64,
    },
    /// The state is kept, but far behind; asking again comes further.
    #[error("the state of block {number} takes longer to rebuild, {reached} is reached: ask again")]
    Far {
        /// The block asked for.
        number: u64,
        /// How far down it came.
        reached: u64,
    },
    /// No such block here.
    #[error("no block {0:?} is known")]
    Unknown(At),
    /// A block that is to be finalised does not follow the head.
    #[error("block {hash} follows {parent}, the head is {head}")]
    Fork {
        /// The block's parent.
        parent: B256,
        /// The newest finalised block.
        head: B256,
        /// The block.
        hash: B256,
    },
    /// Too many unfinalised blocks.
    #[error("{most} unfinalised blocks are held already")]
    Full {
        /// [`Options::unfinalised`].
        most: usize,
    },
}

impl From<StoreError> for ChainError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Pruned { number, oldest } => Self::Pruned { number, oldest },
            other => Self::Store(other),
        }
    }
}

/// One chain and its data.
#[derive(Debug)]
pub struct Chain {
    executor: Executor,
    genesis: B256,
    options: Options,
    store: Store,
    past: Past,
    tree: RwLock<Tree>,
    /// Held by who changes the line of finalised blocks, also while the disk is written.
    writer: Mutex<()>,
    finalised: broadcast::Sender<Arc<Executed>>,
}

impl Chain {
    /// Opens the chain that `genesis` starts, with its data in `directory`; `None` keeps it in
    /// memory alone. `precompiles` are those that this chain has beside Ethereum's.
    ///
    /// The state is read and checked against the root in the head's header before this returns.
    ///
    /// # Errors
    /// [`ChainError::Genesis`] if the directory holds another chain; [`ChainError::Store`] if it is
    /// in use, damaged, or of a chain of another id.
    pub fn open(
        genesis: &Genesis,
        directory: Option<&Path>,
        precompiles: impl IntoIterator<Item = Precompile>,
        options: Options,
    ) -> Result<Arc<Self>, ChainError> {
        let store = match directory {
            Some(directory) => Store::open(directory, &options.store)?,
            None => Store::memory(),
        };
        Self::on(store, genesis, precompiles, options)
    }

    fn on(
        store: Store,
        genesis: &Genesis,
        precompiles: impl IntoIterator<Item = Precompile>,
        options: Options,
    ) -> Result<Arc<Self>, ChainError> {
        let (expected, head) = start(&store, genesis)?;
        Ok(Arc::new(Self {
            executor: Executor::with_precompiles(genesis.spec(), precompiles),
            genesis: expected,
            store,
            past: Past::default(),
            tree: RwLock::new(Tree::new(Arc::new(head))),
            writer: Mutex::new(()),
            finalised: broadcast::Sender::new(options.subscriber_lag.max(1)),
            options,
        }))
    }

    /// Runs blocks by this chain's rules.
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    /// The chain's rules.
    pub fn spec(&self) -> &Spec {
        self.executor.spec()
    }

    /// The number that signatures name.
    pub fn chain_id(&self) -> u64 {
        self.spec().chain_id()
    }

    /// The hash of block 0.
    pub fn genesis_hash(&self) -> B256 {
        self.genesis
    }

    /// Makes the store of a chain in `directory`, which has none, from the snapshot that
    /// [`Store::export`] wrote.
    ///
    /// If `trusted` is given, the snapshot must be of the block with this hash; without it, whoever
    /// wrote it is believed. Blocks with transactions that nobody signed (a development chain takes
    /// them for impersonated accounts) are refused.
    ///
    /// # Errors
    /// [`StoreError::Snapshot`], [`StoreError::Exists`], or what the disk says; no store is then
    /// left behind.
    pub fn restore(
        directory: &Path,
        options: &StoreOptions,
        snapshot: &mut impl Read,
        trusted: Option<B256>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Store, StoreError> {
        Store::import(directory, options, snapshot, trusted, &rows::judge, progress)
    }

    /// The newest finalised block.
    pub fn head(&self) -> Arc<Parent> {
        self.tree().head().clone()
    }

    /// Where blocks and states are kept, for export, import and pruning.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// A block to build on or to read at, with the state after it. The newest are in memory; an
    /// older one costs as much as the blocks that came after it changed.
    ///
    /// # Errors
    /// [`ChainError::Unknown`], [`ChainError::Pruned`] if its state is too old, [`ChainError::Far`]
    /// if it is old enough to take seconds.
    pub fn parent(&self, at: impl Into<At>) -> Result<Arc<Parent>, ChainError> {
        let at = at.into();
        let oldest = {
            let tree = self.tree();
            if let Some(node) = tree.node(at) {
                return Ok(node.parent.clone());
            }
            tree.oldest().clone()
        };
        let number = self.number(at)?.ok_or(ChainError::Unknown(at))?;
        if number >= oldest.header.number {
            return Err(ChainError::Unknown(at));
        }
        self.past.parent(&self.store, &oldest, number)
    }

    /// The state after a block. Fails as [`Chain::parent`].
    pub fn state(&self, at: impl Into<At>) -> Result<State, ChainError> {
        Ok(self.parent(at)?.state.clone())
    }

    /// A block's header and hash; `None` if there is no such block.
    pub fn header(&self, at: impl Into<At>) -> Result<Option<Sealed<Header>>, ChainError> {
        let at = at.into();
        if let Some(node) = self.tree().node(at) {
            return Ok(Some(node.parent.header.clone()));
        }
        match self.number(at)? {
            Some(number) => Ok(self.store.header(number)?),
            None => Ok(None),
        }
    }

    /// A block with its transactions and their senders; `None` if there is no such block, or its
    /// body was pruned.
    pub fn block(&self, at: impl Into<At>) -> Result<Option<Arc<Block>>, ChainError> {
        let at = at.into();
        if let Some(executed) = self.executed(at) {
            return Ok(Some(executed.block.clone()));
        }
        let Some(header) = self.header(at)? else { return Ok(None) };
        match self.store.body(header.number)? {
            Some(row) => Ok(Some(Arc::new(rows::read_body(&row, header)?))),
            None => Ok(None),
        }
    }

    /// A block's receipts, one per transaction; `None` as with [`Chain::block`].
    pub fn receipts(&self, at: impl Into<At>) -> Result<Option<Arc<Vec<Receipt>>>, ChainError> {
        let at = at.into();
        if let Some(executed) = self.executed(at) {
            return Ok(Some(executed.receipts.clone()));
        }
        let Some(number) = self.number(at)? else { return Ok(None) };
        match self.store.receipts(number)? {
            Some(row) => Ok(Some(Arc::new(rows::read_receipts(&row, number)?))),
            None => Ok(None),
        }
    }

    /// Where a transaction of a finalised block stands: the block and the position in it.
    pub fn transaction(&self, hash: &B256) -> Result<Option<(Arc<Block>, usize)>, ChainError> {
        let Some((number, index)) = self.store.transaction(hash)? else { return Ok(None) };
        Ok(self.block(number)?.map(|block| (block, index as usize)))
    }

    /// A block and its outcome, if it is one of the newest.
    pub(crate) fn executed(&self, at: At) -> Option<Arc<Executed>> {
        self.tree().node(at)?.executed.clone()
    }

    /// The height of a finalised block that may or may not be there, if it is given by height.
    fn number(&self, at: At) -> Result<Option<u64>, ChainError> {
        match at {
            At::Number(number) => Ok(Some(number)),
            At::Hash(hash) => Ok(self.store.number(&hash)?),
        }
    }

    /// Keeps a block that is not final, so that others can be built on it and it can become final.
    /// One that is known already is no error.
    ///
    /// # Errors
    /// [`ChainError::Unknown`] parent; [`ChainError::Full`].
    pub fn insert(&self, executed: Executed) -> Result<(), ChainError> {
        let most = self.options.unfinalised;
        self.tree_mut().insert(Arc::new(executed), most)
    }

    /// Makes these blocks final: each the child of the one before, the first a child of the head.
    /// They are on the disk, in one durable write, when this returns; then the head moves, siblings
    /// that lost are dropped and subscribers are told. Those that are final already are passed over.
    ///
    /// # Errors
    /// [`ChainError::Unknown`] or [`ChainError::Fork`] for a block out of line;
    /// [`ChainError::Store`] if the disk is full or fails. On any error the head stays and the
    /// blocks are still held, so this can be tried again.
    pub fn finalize(&self, hashes: &[B256]) -> Result<(), ChainError> {
        let writing = self.writing();
        let done = |hash: &B256| Ok(self.store.number(hash)?.is_some());
        let line = self.tree().line(hashes, done)?;
        self.commit(&line)?;
        let dropped = self.tree_mut().advance(&line, &self.options);
        for executed in line {
            // Nobody listening is no error.
            let _ = self.finalised.send(executed);
        }
        drop(writing);
        drop(dropped);
        Ok(())
    }

    /// Writes blocks to the disk, all or none.
    fn commit(&self, line: &[Arc<Executed>]) -> Result<(), ChainError> {
        let rows: Vec<Rows> = line.par_iter().map(|executed| Rows::of(executed)).collect();
        let commits: Vec<_> =
            line.iter().zip(&rows).map(|(executed, rows)| rows.commit(executed)).collect();
        Ok(self.store.commit(&commits)?)
    }

    /// Inserts a block and makes it final, for a producer that needs nobody's consent.
    pub fn append(&self, executed: Executed) -> Result<(), ChainError> {
        let hash = executed.block.hash();
        self.insert(executed)?;
        self.finalize(&[hash])
    }

    /// Takes back every block above `number`, finalised or not. For development chains alone: on
    /// any other, final is final.
    ///
    /// # Errors
    /// [`ChainError::Unknown`] above the head; [`ChainError::Pruned`].
    pub fn rewind(&self, number: u64) -> Result<(), ChainError> {
        let _writing = self.writing();
        let target = self.parent(number)?;
        self.store.rewind(number)?;
        self.past.rewind(number);
        self.tree_mut().rewind(target);
        Ok(())
    }

    /// Every block that becomes final from now on, in order.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Executed>> {
        self.finalised.subscribe()
    }

    fn tree(&self) -> RwLockReadGuard<'_, Tree> {
        self.tree.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn tree_mut(&self) -> RwLockWriteGuard<'_, Tree> {
        self.tree.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Commits the genesis if the store is empty, and gives its hash and the head.
fn start(store: &Store, genesis: &Genesis) -> Result<(B256, Parent), ChainError> {
    let (header, state, changes) = genesis.block();
    let header = header.seal_slow();
    let expected = header.hash();
    match store.genesis()? {
        None => {
            let withdrawals = header.withdrawals_root.map(|_| Withdrawals::default());
            let ommers = Vec::new();
            let transactions = Vec::new();
            let block = Block { header: header.clone(), transactions, ommers, withdrawals };
            let executed = Executed {
                block: Arc::new(block),
                receipts: Arc::default(),
                changes,
                state: state.clone(),
            };
            store.commit(&[Rows::of(&executed).commit(&executed)])?;
        }
        Some(found) if found != expected => return Err(ChainError::Genesis { found, expected }),
        Some(_) => {}
    }
    store.tie(genesis.0.config.chain_id)?;
    let (number, hash) = store.head().ok_or(StoreError::Empty)?;
    if hash == expected {
        let hashes = Hashes::new(number, [hash]);
        return Ok((expected, Parent { header, state, hashes }));
    }
    let state = store.load()?;
    let header = store.header(number)?.ok_or(StoreError::Empty)?;
    Ok((expected, Parent { header, state, hashes: past::hashes(store, number, hash)? }))
}

/// What the store gets of a block beside its header and changes.
struct Rows {
    body: Vec<u8>,
    receipts: Vec<u8>,
    transactions: Vec<B256>,
}

impl Rows {
    fn of(executed: &Executed) -> Self {
        let transactions = &executed.block.transactions;
        Self {
            body: rows::body_row(&executed.block),
            receipts: rows::receipts_row(&executed.receipts),
            transactions: transactions.iter().map(|tx| *tx.inner().tx_hash()).collect(),
        }
    }

    fn commit<'a>(&'a self, executed: &'a Executed) -> Commit<'a> {
        Commit {
            header: executed.block.header.inner(),
            hash: executed.block.hash(),
            body: &self.body,
            receipts: &self.receipts,
            transactions: &self.transactions,
            changes: &executed.changes,
        }
    }
}
