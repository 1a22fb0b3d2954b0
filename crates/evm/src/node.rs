//! A chain at work: its data, what waits for it, and who makes its blocks, started and ended as one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::chain::{Chain, ChainError, Options};
use crate::clock::Clock;
use crate::execute::Precompile;
use crate::genesis::Genesis;
use crate::mempool::{self, Head, Mempool};
use crate::producer::{self, Producer};

/// What a node needs to start.
#[derive(Clone, Debug, Default)]
pub struct NodeConfig {
    /// What the chain starts from.
    pub genesis: Genesis,
    /// Where its data lie; `None`: in memory, gone with the process.
    pub directory: Option<PathBuf>,
    /// The precompiles that this chain has beside Ethereum's.
    pub precompiles: Vec<Precompile>,
    /// What of the chain is kept at hand.
    pub chain: Options,
    /// How much may wait.
    pub mempool: mempool::Limits,
    /// How blocks are made.
    pub producer: producer::Config,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The chain cannot be opened.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The waiting transactions cannot be read.
    #[error("the waiting transactions in {path} cannot be read: {source}")]
    Waiting {
        /// Their file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// The name of the file of waiting transactions in a chain's directory.
const WAITING: &str = "waiting";

/// A chain and its only validator.
#[derive(Debug)]
pub struct Node {
    chain: Arc<Chain>,
    mempool: Arc<Mempool>,
    producer: Producer,
    /// Dropped with the node, which ends the task below.
    shutdown: DropGuard,
    work: JoinHandle<()>,
}

impl Node {
    /// Opens the chain and starts making blocks. Blocks the thread while data are loaded; needs a
    /// tokio runtime.
    pub fn start(config: NodeConfig, clock: Arc<dyn Clock>) -> Result<Self, NodeError> {
        let NodeConfig { genesis, directory, precompiles, chain: options, .. } = config;
        let directory = directory.as_deref();
        let chain = Chain::open(&genesis, directory, precompiles, options)?;
        let head = Head::after(&chain.head(), chain.executor(), config.producer.gas_limit);
        let mempool = open_mempool(chain.chain_id(), config.mempool, head, directory)?;
        let shutdown = CancellationToken::new();
        let (producer, work) = Producer::new(
            Arc::clone(&chain),
            Arc::clone(&mempool),
            clock,
            config.producer,
            shutdown.clone(),
        );
        let (shutdown, work) = (shutdown.drop_guard(), tokio::spawn(work));
        Ok(Self { chain, mempool, producer, shutdown, work })
    }

    /// The chain.
    pub fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }

    /// What waits for it.
    pub fn mempool(&self) -> &Arc<Mempool> {
        &self.mempool
    }

    /// Who makes its blocks.
    pub fn producer(&self) -> &Producer {
        &self.producer
    }

    /// Stops making blocks, once the one that is being made is done. What was acknowledged is on
    /// disk already, if not yet safe from a loss of power; that is waited for.
    pub async fn stop(self) {
        drop(self.shutdown);
        if let Err(error) = self.work.await {
            tracing::error!(%error, "the producer failed");
        }
        let mempool = self.mempool;
        match tokio::task::spawn_blocking(move || mempool.sync()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the last transactions may be lost"),
            Err(error) => tracing::error!(%error, "the writing of what waits failed"),
        }
    }
}

fn open_mempool(
    chain_id: u64,
    limits: mempool::Limits,
    head: Head,
    directory: Option<&Path>,
) -> Result<Arc<Mempool>, NodeError> {
    let Some(directory) = directory else { return Ok(Mempool::new(chain_id, limits, head)) };
    let path = directory.join(WAITING);
    Mempool::open(chain_id, limits, head, &path)
        .map_err(|source| NodeError::Waiting { path, source })
}
