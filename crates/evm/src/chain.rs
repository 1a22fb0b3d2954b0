//! The chain: finalised blocks in a line, unfinalised ones in a small tree above them.
//!
//! Every block here carries the state after it (see [`crate::state`]), so building on any of them,
//! reading at any of them and dropping any of them is the same cheap thing. Reads take a lock for
//! the time of a look-up; the only writer is whoever finalises, and a reader never waits for its
//! disk.

mod tree;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use alloy_consensus::Header;
use alloy_primitives::{B256, Sealed};
use tokio::sync::broadcast;

use crate::block::{Block, Receipt};
use crate::execute::{Executed, Executor, Parent, Precompile};
use crate::genesis::Genesis;
use crate::spec::Spec;
use crate::state::State;

use tree::Tree;

/// How much a chain keeps at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

impl Default for Options {
    fn default() -> Self {
        Self { states: 128, transactions: 65_536, unfinalised: 128, subscriber_lag: 256 }
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
    /// The state is too old to be rebuilt.
    #[error("the state of block {number} is no longer kept, the oldest is that of {oldest}")]
    Pruned {
        /// The block asked for.
        number: u64,
        /// The oldest whose state can be had.
        oldest: u64,
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

/// One chain and its data.
#[derive(Debug)]
pub struct Chain {
    executor: Executor,
    genesis: B256,
    options: Options,
    tree: RwLock<Tree>,
    /// Held by who changes the line of finalised blocks, also while the disk is written.
    writer: Mutex<()>,
    finalised: broadcast::Sender<Arc<Executed>>,
}

impl Chain {
    /// Opens the chain that `genesis` starts, with its data in `directory`; `None` keeps it in
    /// memory alone. `precompiles` are those that this chain has beside Ethereum's.
    ///
    /// # Errors
    /// [`ChainError::Genesis`] if the directory holds another chain.
    pub fn open(
        genesis: &Genesis,
        directory: Option<&Path>,
        precompiles: impl IntoIterator<Item = Precompile>,
        options: Options,
    ) -> Result<Arc<Self>, ChainError> {
        let _ = directory;
        let executor = Executor::with_precompiles(genesis.spec(), precompiles);
        let (header, state, changes) = genesis.block();
        let tree = Tree::new(header, state, changes);
        let genesis = tree.head().header.hash();
        Ok(Arc::new(Self {
            executor,
            genesis,
            tree: RwLock::new(tree),
            writer: Mutex::new(()),
            finalised: broadcast::Sender::new(options.subscriber_lag),
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

    /// The newest finalised block.
    pub fn head(&self) -> Arc<Parent> {
        self.tree().head().clone()
    }

    /// A block to build on or to read at, with the state after it.
    ///
    /// # Errors
    /// [`ChainError::Unknown`], or [`ChainError::Pruned`] if its state is too old.
    pub fn parent(&self, at: impl Into<At>) -> Result<Arc<Parent>, ChainError> {
        let at = at.into();
        self.tree().parent(at).ok_or(ChainError::Unknown(at))
    }

    /// The state after a block. Fails as [`Chain::parent`].
    pub fn state(&self, at: impl Into<At>) -> Result<State, ChainError> {
        Ok(self.parent(at)?.state.clone())
    }

    /// A block's header and hash.
    pub fn header(&self, at: impl Into<At>) -> Result<Option<Sealed<Header>>, ChainError> {
        Ok(self.tree().parent(at.into()).map(|parent| parent.header.clone()))
    }

    /// A block with its transactions and their senders.
    pub fn block(&self, at: impl Into<At>) -> Result<Option<Arc<Block>>, ChainError> {
        Ok(self.tree().executed(at.into()).map(|executed| executed.block.clone()))
    }

    /// A block's receipts, one per transaction.
    pub fn receipts(&self, at: impl Into<At>) -> Result<Option<Arc<Vec<Receipt>>>, ChainError> {
        Ok(self.tree().executed(at.into()).map(|executed| executed.receipts.clone()))
    }

    /// Where a transaction of a finalised block stands: the block and the position in it.
    pub fn transaction(&self, hash: &B256) -> Result<Option<(Arc<Block>, usize)>, ChainError> {
        Ok(self.tree().transaction(hash))
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
    /// [`ChainError::Unknown`] or [`ChainError::Fork`] for a block out of line. On any error the
    /// head stays and the blocks are still held, so this can be tried again.
    pub fn finalize(&self, hashes: &[B256]) -> Result<(), ChainError> {
        let _writing = self.writing();
        let line = self.tree().line(hashes)?;
        self.tree_mut().advance(&line, &self.options);
        for executed in line {
            // Nobody listening is no error.
            let _ = self.finalised.send(executed);
        }
        Ok(())
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
        self.tree_mut().rewind(&target);
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
