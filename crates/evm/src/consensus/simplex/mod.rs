//! The ordering engine: simplex, with marshal for what is final.
//!
//! All of commonware stays in this folder, and runs on threads of its own, so that neither the RPC
//! nor the executor shares a runtime with it. A node is always the same machine: it hears of
//! finalised blocks, executes them and puts them on disk; in an epoch in which its key is seated it
//! also votes. A single validator is a committee of one.
//!
//! ```text
//! simplex (votes) ──┐                        ┌── ledger: propose, verify ──┐
//!                   ├── marshal (in order) ──┤                             ├── the chain
//! heads, peers ─────┘                        └── ledger: deliver ──────────┘
//! ```

mod archive;
mod committees;
#[cfg(any(test, feature = "byzantine"))]
mod equivocate;
mod gossip;
mod heads;
mod judge;
mod ledger;
mod network;
mod node;
mod wire;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;

pub use judge::{VERIFIER_GAS, judge, verifier, verify};
pub use network::PEERS_MAX;

use super::{Application, CommitteeError, FinalizeError, NodeKey, Peer};
use alloy_primitives::B256;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// Randomness for the checking of many signatures at once.
type Rng = commonware_runtime::tokio::Context;

/// How a node takes part.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the journals of votes live. Losing it while validating can make a validator vote twice.
    pub directory: PathBuf,
    /// What it votes and speaks with.
    pub key: NodeKey,
    /// Where it listens for peers.
    pub listen: SocketAddr,
    /// Nodes beside the seated ones: those of [`PEERS_MAX`] that are not seated may connect to us,
    /// and of those that are, our word about their address goes before the contract's.
    pub peers: Vec<Peer>,
    /// Blocks per epoch; part of the chain's rules, and the same on every node.
    pub epoch_length: NonZeroU64,
    /// When to lose patience.
    pub patience: Patience,
    /// Threads of the engine.
    pub threads: usize,
}

/// How long validators wait for each other. Longer is needed where messages take longer; a dead
/// leader's turn costs `leader` until it is known to be dead.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a leader's block.
    pub leader: Duration,
    /// For the votes on it, counted from the start of the view.
    pub votes: Duration,
    /// Before a vote to skip is repeated.
    pub repeat: Duration,
    /// Silence after which a leader's turn is skipped at once.
    pub silence: Duration,
    /// For an answer about missing blocks or votes.
    pub fetch: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            leader: Duration::from_millis(700),
            votes: Duration::from_millis(1_000),
            repeat: Duration::from_millis(1_500),
            silence: Duration::from_millis(2_000),
            fetch: Duration::from_millis(1_000),
        }
    }
}

/// Where the chain stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Height of the last finalised block on disk.
    pub height: u64,
    /// The running epoch.
    pub epoch: u64,
    /// How many vote in it.
    pub seats: usize,
    /// Whether we do.
    pub seated: bool,
}

/// A running node. Dropping it stops the node and waits for that.
#[derive(Debug)]
pub struct Cluster {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<Result<(), ClusterError>>>,
    position: watch::Receiver<Position>,
    present: watch::Receiver<usize>,
}

/// Why a node does not run, or runs no more.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Nobody can say who votes.
    #[error(transparent)]
    Committee(#[from] CommitteeError),
    /// The validators and this node disagree.
    #[error(transparent)]
    Finalize(#[from] FinalizeError),
    /// The secret is not one of ed25519.
    #[error("the validator key is not a secret of ed25519")]
    Key,
    /// The journals cannot be read or written.
    #[error("the journals in {}: {reason}", directory.display())]
    Journal {
        /// What the store said.
        reason: String,
        /// Where they live.
        directory: PathBuf,
    },
    /// The address cannot be listened at.
    #[error("cannot listen for peers at {listen}: {source}")]
    Listen {
        /// What the system said.
        source: std::io::Error,
        /// The address.
        listen: SocketAddr,
    },
    /// The engine gave up; its last message says why. Most often its disk is full or broken.
    #[error("the consensus engine ended by itself")]
    Ended,
}

/// Starts a node for the chain behind `application`.
///
/// Returns once the node's thread runs; errors that come later end the node and are in
/// [`Cluster::stop`]'s answer.
pub fn start<A: Application>(application: A, settings: Settings) -> Result<Cluster, ClusterError> {
    launch(application, settings, false)
}

/// As [`start`], but the node votes twice, to show what becomes of those who do.
#[cfg(any(test, feature = "byzantine"))]
pub fn start_equivocating<A: Application>(
    application: A,
    settings: Settings,
) -> Result<Cluster, ClusterError> {
    launch(application, settings, true)
}

fn launch<A: Application>(
    application: A,
    settings: Settings,
    twice: bool,
) -> Result<Cluster, ClusterError> {
    let signer = committees::signer(settings.key.secret()).ok_or(ClusterError::Key)?;
    let listen = settings.listen;
    // The network would only panic later; ask now.
    drop(
        std::net::TcpListener::bind(listen)
            .map_err(|source| ClusterError::Listen { source, listen })?,
    );
    let (stop, stopped) = oneshot::channel();
    let (position, positions) = watch::channel(Position::default());
    let (present, presents) = watch::channel(0);
    let node = node::Node { application, settings, signer, position, present, twice };
    let thread = std::thread::Builder::new()
        .name("consensus".into())
        .spawn(move || node.run(stopped))
        .map_err(|source| ClusterError::Listen { source, listen })?;
    Ok(Cluster { stop: Some(stop), thread: Some(thread), position: positions, present: presents })
}

/// The public half of a validator's key, as it stands in a seat.
pub fn public_key(key: &NodeKey) -> Option<B256> {
    let signer = committees::signer(key.secret())?;
    Some(committees::key_bytes(&committees::public(&signer)))
}

impl Cluster {
    /// Where the chain stands, now and from now on. Closed when the node ended.
    pub fn position(&self) -> watch::Receiver<Position> {
        self.position.clone()
    }

    /// How many peers were heard lately.
    pub fn peers(&self) -> usize {
        *self.present.borrow()
    }

    /// Whether the node still runs.
    pub fn running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Stops the node and waits until its journals are closed. An error is why it had ended before.
    pub fn stop(mut self) -> Result<(), ClusterError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), ClusterError> {
        drop(self.stop.take());
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or(Err(ClusterError::Ended))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "the node had ended");
        }
    }
}
