//! `assay chain run`: a chain of one validator, until told to stop.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::Address;
use assay_evm::clock::SystemClock;
use assay_evm::consensus::simplex::{Cluster, verifier};
use assay_evm::producer::{self, Production};
use assay_evm::rpc::{Development, Impersonated, Limits, Module, Pages, Rpc, Wallet, serve};
use assay_evm::{Node, NodeConfig};
use clap::Args;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::cluster::{ClusterArguments, Fees};
use super::place::{self, Place};
use crate::failure::{Exit, Failure, Outcome};
use crate::machine::raise_open_files;
use crate::network;
use crate::signals::Signals;
use crate::terminal::{note, say, say_json};

/// How far the time of a chain may run ahead of the clock when blocks come quickly.
const DRIFT_MAX: Duration = Duration::from_secs(30);

/// As above on a development chain, where a test may make any number of blocks at once.
const DRIFT_MAX_DEV: Duration = Duration::from_secs(365 * 24 * 3600);

/// Run a chain and answer Ethereum's JSON-RPC
///
/// Blocks are made as soon as a transaction waits, or at most one per interval. Wallets and
/// libraries use the printed address, over HTTP or WebSocket. Ctrl-C stops it; what was
/// acknowledged is on disk.
#[derive(Args, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    cluster: ClusterArguments,
    /// Address that answers JSON-RPC; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8545")]
    rpc: SocketAddr,
    /// Milliseconds between blocks [default: a block as soon as a transaction waits]
    #[arg(long, value_name = "MS")]
    interval: Option<u64>,
    /// Milliseconds after which a block is made although nothing waits [default: never]
    #[arg(long, value_name = "MS")]
    idle: Option<u64>,
    /// Who gets the fees
    #[arg(long, value_name = "ADDRESS", default_value_t = Address::ZERO)]
    beneficiary: Address,
    /// Gas of a block that the chain moves toward, by less than 1/1024 per block
    #[arg(long, value_name = "N", default_value_t = assay_evm::GAS_LIMIT)]
    gas_limit: u64,
    /// Print one JSON line once ready
    #[arg(long)]
    json: bool,
}

impl Run {
    pub(crate) fn run(self) -> Outcome<ExitCode> {
        raise_open_files();
        let runtime = Runtime::new()
            .map_err(|error| Failure::new(Exit::Failed, "no threads to serve with").why(error))?;
        let outcome = runtime.block_on(self.work());
        runtime.shutdown_background();
        outcome
    }

    async fn work(self) -> Outcome<ExitCode> {
        let mut signals = Signals::listen()?;
        let listener = network::claim(self.rpc, "--rpc")?;
        let production = self.production();
        let folder = self.place.directory()?;
        let genesis = self.place.genesis()?;
        let config = NodeConfig {
            // Every node of the chain must have it, a single validator too: it may not stay one.
            precompiles: vec![verifier(&genesis)],
            genesis: genesis.clone(),
            directory: folder.clone(),
            producer: producer::Config {
                production,
                idle: self.idle.map(Duration::from_millis),
                beneficiary: self.beneficiary,
                gas_limit: self.gas_limit,
                drift_max: if self.place.dev { DRIFT_MAX_DEV } else { DRIFT_MAX },
                ..producer::Config::default()
            },
            ..NodeConfig::default()
        };
        // Loading a large chain takes a while, and a signal ends it.
        let handle = tokio::runtime::Handle::current();
        let starting = tokio::task::spawn_blocking(move || {
            let _inside = handle.enter();
            Node::start(config, Arc::new(SystemClock))
        });
        let node = tokio::select! {
            node = starting => node
                .map_err(|panic| Failure::new(Exit::Failed, "the start broke").why(panic))?
                .map_err(|error| place::unstarted(folder.as_deref(), &error))?,
            signal = signals.next() => return Ok(ExitCode::from(signal.code())),
        };
        let fees = Fees { beneficiary: self.beneficiary, gas_limit: self.gas_limit };
        let cluster = match &folder {
            Some(folder) => self.cluster.start(&node, &genesis, folder, fees)?,
            None => None,
        };
        self.announce(&node, &listener)?;
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(
            listener,
            self.answers(&node, production),
            Pages::All,
            shutdown.clone(),
        ));
        let first = tokio::select! {
            first = signals.next() => first,
            () = ended(cluster.as_ref()) => {
                let why = cluster.map(Cluster::stop).and_then(Result::err);
                let failure = Failure::new(Exit::Failed, "this node no longer takes part");
                return Err(why.into_iter().fold(failure, Failure::why));
            }
        };
        note(format_args!("{first}: finishing what runs; again to quit at once"));
        shutdown.cancel();
        let ending = async {
            // That it failed has been logged.
            let _ = serving.await;
            if let Some(Err(error)) =
                tokio::task::spawn_blocking(move || cluster.map(Cluster::stop)).await.ok().flatten()
            {
                note(format_args!("{error}"));
            }
            node.stop().await;
        };
        tokio::select! {
            () = ending => Ok(ExitCode::SUCCESS),
            signal = signals.next() => Ok(ExitCode::from(signal.code())),
        }
    }

    fn production(&self) -> Production {
        match self.interval {
            // The validators agree on when.
            _ if self.cluster.joins() => Production::OnCall,
            Some(interval) if interval > 0 => Production::Every(Duration::from_millis(interval)),
            _ => Production::OnDemand,
        }
    }

    /// Who answers: for everybody what any chain answers, for developers what they need.
    fn answers(&self, node: &Node, production: Production) -> Rpc {
        let (chain, mempool) = (node.chain(), node.mempool());
        let rpc = |modules| {
            Rpc::new(
                Arc::clone(chain),
                Arc::clone(mempool),
                Arc::new(SystemClock),
                Limits::default(),
                modules,
            )
        };
        if !self.place.dev {
            return rpc(Vec::new());
        }
        let impersonated = Impersonated::default();
        let wallet = Wallet::new(rpc(Vec::new()), self.place.signers(), impersonated.clone());
        let development = Development::new(
            Arc::clone(chain),
            Arc::clone(mempool),
            node.producer().clone(),
            production,
            impersonated,
        );
        let modules: Vec<Arc<dyn Module>> = vec![Arc::new(wallet), Arc::new(development)];
        rpc(modules)
    }

    fn announce(&self, node: &Node, listener: &TcpListener) -> Outcome {
        let address = listener
            .local_addr()
            .map_err(|error| Failure::new(Exit::Failed, "the port is not known").why(error))?;
        let (chain, url) = (node.chain(), format!("http://{address}"));
        let head = chain.head();
        let accounts: Vec<_> = self.place.signers().iter().map(|signer| signer.address()).collect();
        if self.json {
            say_json(&json!({
                "schema": "assay.chain.run/1",
                "rpc": url,
                "chain_id": chain.chain_id(),
                "genesis": chain.genesis_hash(),
                "head": { "number": head.header.number, "hash": head.header.hash() },
                "accounts": accounts,
                "data": self.place.directory()?,
                "pid": std::process::id(),
            }));
            return Ok(());
        }
        say("The chain is up.\n");
        say(format_args!("  rpc       {url}"));
        say(format_args!("  chain id  {}", chain.chain_id()));
        say(format_args!("  genesis   {}", chain.genesis_hash()));
        say(format_args!("  head      {}  {}", head.header.number, head.header.hash()));
        if let Some(folder) = self.place.directory()? {
            say(format_args!("  data      {}", folder.display()));
        }
        for account in accounts {
            say(format_args!("  account   {account}"));
        }
        say("\nCtrl-C stops it.");
        Ok(())
    }
}

/// Ends when the cluster does by itself; never without one.
async fn ended(cluster: Option<&Cluster>) {
    let Some(cluster) = cluster else { return std::future::pending().await };
    let mut position = cluster.position();
    while position.changed().await.is_ok() {}
}
