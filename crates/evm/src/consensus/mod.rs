//! One order for the blocks of several validators.
//!
//! An ordering engine needs little of a chain, and a chain nothing of the engine: the seam is
//! [`Application`], written in our own words, so that another engine (malachite, say) could stand
//! where `simplex` stands. What the engine carries is a [`Carried`] block: bytes, a header and its
//! hash, checked to belong together and not executed yet.
//!
//! The chain's life is cut into epochs of equally many blocks. Who may vote in an epoch stands in
//! the state of the last block of the epoch before ([`Seat`]), so a chain grows from one validator
//! to many, and shrinks again, by what its own contracts say and without a migration.

mod carried;
mod evidence;
mod key;
mod member;
mod report;
mod seats;
#[cfg(feature = "cluster")]
pub mod simplex;

pub use carried::{BLOCK_BYTES_MAX, Carried, CarriedError};
pub use evidence::{Evidence, EvidenceError, VERIFIER, Vote};
pub use key::{KeyError, NodeKey};
pub use member::{Accuse, Member, MemberConfig};
pub use seats::{Peer, SEATS_MAX, Seat, SeatsError, admit, read_peers, read_seats, seats_call};

use alloy_primitives::{B256, Bytes};
use futures_util::stream::BoxStream;
use std::future::Future;

/// All that an ordering engine may ask of the chain.
///
/// Everything is keyed by hashes and heights, so that a repeated call changes nothing: an engine
/// delivers at least once.
pub trait Application: Clone + Send + Sync + 'static {
    /// Which chain this is. Validators of another one are refused.
    fn identity(&self) -> Identity;

    /// The first block, height zero.
    fn genesis(&self) -> Carried;

    /// Height and hash of the last finalised block that is safely on disk.
    fn head(&self) -> (u64, B256);

    /// The finalised block at `height`; `None` above the head and where history was pruned.
    fn block(&self, height: u64) -> Option<Carried>;

    /// The height of a finalised block.
    fn height(&self, hash: &B256) -> Option<u64>;

    /// Whether the block with this hash was executed and its outcome is at hand: the head, or an
    /// unfinalised descendant of it.
    fn knows(&self, hash: &B256) -> bool;

    /// Who votes in `epoch`, read from the state at the end of the epoch before it; for the first,
    /// from the genesis state. Never empty.
    fn committee(&self, epoch: u64) -> Result<Vec<Seat>, CommitteeError>;

    /// Builds a block on `parent`, which is known. May wait a little for the first transaction;
    /// `None` gives up the turn. Cancelling is safe.
    fn propose(&self, parent: Carried) -> impl Future<Output = Option<Carried>> + Send;

    /// Executes `block`, whose parent is known, and keeps the outcome if every rule holds. `false`
    /// is final: the block can never become valid. A block from the future is waited for.
    fn verify(&self, block: Carried) -> impl Future<Output = bool> + Send;

    /// Makes `blocks`, in order and each the child of the one before, the new end of the chain. The
    /// future ends when they are on disk. Blocks at or below the head are passed over.
    fn finalize(
        &self,
        blocks: Vec<Carried>,
    ) -> impl Future<Output = Result<(), FinalizeError>> + Send;

    /// Hashes of transactions as they enter the mempool.
    fn arrivals(&self) -> BoxStream<'static, B256>;

    /// The encoding of a transaction that still waits in the mempool.
    fn waiting(&self, hash: &B256) -> Option<Bytes>;

    /// Offers a peer's transactions to the mempool, which may refuse them. Runs on a thread that
    /// may block.
    fn receive(&self, transactions: Vec<Bytes>);

    /// A validator signed two things of which it may sign one.
    fn accuse(&self, evidence: Evidence);
}

/// What tells one chain from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Hash of the genesis header.
    pub genesis: B256,
}

impl Identity {
    /// What every signature of the consensus starts with, so that none is valid on another chain.
    pub fn namespace(&self) -> Vec<u8> {
        let mut namespace = b"EVM_CLUSTER_1_".to_vec();
        namespace.extend_from_slice(&self.chain_id.to_be_bytes());
        namespace.extend_from_slice(self.genesis.as_slice());
        namespace
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "chain {} with genesis {}", self.chain_id, self.genesis)
    }
}

/// Why nobody can say who votes in an epoch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitteeError {
    /// The block that ends the epoch before is not finalised yet.
    #[error("epoch {epoch} is drawn from block {needed}, and the chain ends at {head}")]
    Early {
        /// The last finalised height.
        head: u64,
        /// The height whose state names the seats.
        needed: u64,
        /// The epoch asked for.
        epoch: u64,
    },
    /// The state that names the seats is pruned.
    #[error(
        "the state of block {needed}, which names the seats of epoch {epoch}, is pruned (import a snapshot taken at the end of an epoch)"
    )]
    Pruned {
        /// The height whose state names the seats.
        needed: u64,
        /// The epoch asked for.
        epoch: u64,
    },
    /// The contract gave no usable list and no static committee is configured.
    #[error("no seats for epoch {epoch}: {reason}")]
    Seats {
        /// What the contract's answer lacked.
        reason: SeatsError,
        /// The epoch asked for.
        epoch: u64,
    },
}

/// Why finalised blocks did not become the end of the chain.
#[derive(Debug, thiserror::Error)]
pub enum FinalizeError {
    /// The disk refused; the same call may succeed later and is repeated.
    #[error("block {height} is not on disk: {reason}")]
    Storage {
        /// The first block that was not kept.
        height: u64,
        /// What the store said.
        reason: String,
    },
    /// The validators agreed on what this node holds to be invalid, or on another history than the
    /// one in its data directory. The node must stop.
    #[error("finalised block {height} does not fit this node's chain: {reason} ({hash})")]
    Invalid {
        /// Its height.
        height: u64,
        /// Which rule it breaks here.
        reason: String,
        /// Its hash.
        hash: B256,
    },
}
