//! `assay chain run` among other validators, and `assay chain key`.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alloy_primitives::{Address, B256};
use assay_evm::clock::SystemClock;
use assay_evm::consensus::simplex::{self, Patience, Settings, public_key};
use assay_evm::consensus::{KeyError, Member, MemberConfig, NodeKey, Peer, Seat, read_peers};
use assay_evm::keystore::Signer;
use assay_evm::{Genesis, Node};
use clap::Args;
use serde_json::json;

use crate::failure::{Exit, Failure, Outcome};
use crate::keys;
use crate::terminal::{say, say_json};

/// Threads of the consensus engine: one for the network, one for the votes.
const THREADS: usize = 2;

/// Make a validator's key, and show its public half
///
/// The public half is what stands in a seat and in other validators' lists. A file that exists is
/// only read.
#[derive(Args, Debug)]
pub(crate) struct Key {
    /// File of the key; others must not be able to read it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print one JSON line
    #[arg(long)]
    json: bool,
}

impl Key {
    pub(crate) fn run(&self) -> Outcome {
        let public = load_or_create(&self.file)?;
        if self.json {
            say_json(&json!({ "schema": "assay.chain.key/1", "public": public }));
        } else {
            say(format_args!("{public:x}"));
        }
        Ok(())
    }
}

/// The public half of the validator's key in `file`, which is made if it is not there.
pub(crate) fn load_or_create(file: &Path) -> Outcome<B256> {
    if file.exists() {
        return public(&load(file)?);
    }
    let key = NodeKey::generate();
    key.save(file).map_err(|error| unusable(&error))?;
    public(&key)
}

/// Which part a node takes among validators.
#[derive(Args, Clone, Debug)]
pub(crate) struct ClusterArguments {
    /// Take part in a chain of several validators, with the key in this file: vote where it is
    /// seated, follow where it is not
    #[arg(long, value_name = "FILE", conflicts_with = "dev")]
    validator_key: Option<PathBuf>,
    /// Address at which other validators reach this one
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "0.0.0.0:9400",
        requires = "validator_key"
    )]
    listen: SocketAddr,
    /// Nodes to connect to beside those seated, or where seated ones really listen
    #[arg(long, value_name = "KEY@HOST:PORT", value_delimiter = ',', requires = "validator_key")]
    peers: Vec<String>,
    /// Validators that sit while no contract names any, one KEY@HOST:PORT per line; the same on
    /// every node [default: this node alone]
    #[arg(long, value_name = "FILE", requires = "validator_key")]
    committee: Option<PathBuf>,
    /// Contract that names the seats of every epoch; the same on every node
    #[arg(long, value_name = "ADDRESS", requires = "validator_key")]
    seats: Option<Address>,
    /// Blocks per epoch; the same on every node
    #[arg(long, value_name = "N", default_value = "1000", requires = "validator_key")]
    epoch_length: NonZeroU64,
    /// File with the key that pays for reporting validators that vote twice to that contract, which
    /// rewards it: 64 hex digits, readable by its owner alone [default: others report]
    #[arg(long, value_name = "FILE", requires = "seats")]
    report_key: Option<PathBuf>,
}

impl ClusterArguments {
    /// Whether blocks are the validators' to make.
    pub(crate) fn joins(&self) -> bool {
        self.validator_key.is_some()
    }

    /// Joins the other validators with this node's chain, whose own producer must be idle. The
    /// journals of votes lie beside the chain in `folder`.
    pub(crate) fn start(
        &self,
        node: &Node,
        genesis: &Genesis,
        folder: &Path,
        fees: Fees,
    ) -> Outcome<Option<simplex::Cluster>> {
        let Some(path) = &self.validator_key else { return Ok(None) };
        let key = load(path)?;
        let config = MemberConfig {
            contract: self.seats,
            epoch_length: self.epoch_length,
            beneficiary: fees.beneficiary,
            gas_limit: fees.gas_limit,
            reporter: self.reporter()?,
            ..MemberConfig::of(self.fixed(public(&key)?)?)
        };
        let (chain, mempool) = (Arc::clone(node.chain()), Arc::clone(node.mempool()));
        let member = Member::new(chain, mempool, Arc::new(SystemClock), genesis, config).map_err(
            |error| {
                Failure::new(Exit::Malformed, "the genesis block cannot be passed on").why(error)
            },
        )?;
        let settings = Settings {
            directory: folder.join("consensus"),
            key,
            listen: self.listen,
            peers: self.peers()?,
            epoch_length: self.epoch_length,
            patience: Patience::default(),
            threads: THREADS,
        };
        simplex::start(member, settings).map(Some).map_err(|error| match error {
            simplex::ClusterError::Listen { .. } => {
                Failure::new(Exit::Conflict, "validators cannot reach this node").why(error)
            }
            other => Failure::new(Exit::Failed, "this node cannot take part").why(other),
        })
    }

    fn reporter(&self) -> Outcome<Option<Signer>> {
        let key = self.report_key.as_deref().map(keys::check).transpose()?;
        // What is a key to one library is one to the other.
        Ok(key.and_then(|key| Signer::from_bytes(key.to_bytes())))
    }

    /// Who sits while no contract names anybody.
    fn fixed(&self, ours: B256) -> Outcome<Vec<Seat>> {
        let Some(path) = &self.committee else {
            let alone = Peer { key: ours, socket: self.listen.to_string() };
            return Ok(vec![alone.into()]);
        };
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::file(format_args!("{} cannot be read", path.display()), &error)
        })?;
        let peers = read_peers(&text).map_err(|error| {
            Failure::new(Exit::Malformed, format_args!("{} cannot be used", path.display()))
                .why(error)
        })?;
        Ok(peers.into_iter().map(Seat::from).collect())
    }

    fn peers(&self) -> Outcome<Vec<Peer>> {
        read_peers(&self.peers.join("\n"))
            .map_err(|error| Failure::new(Exit::Usage, "--peers cannot be used").why(error))
    }
}

/// What a validator's blocks look for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fees {
    /// Who gets the fees.
    pub(crate) beneficiary: Address,
    /// Gas of a block.
    pub(crate) gas_limit: u64,
}

fn load(path: &Path) -> Outcome<NodeKey> {
    NodeKey::load(path).map_err(|error| unusable(&error))
}

fn public(key: &NodeKey) -> Outcome<B256> {
    public_key(key).ok_or_else(|| Failure::new(Exit::Malformed, "the key is none of ed25519"))
}

fn unusable(error: &KeyError) -> Failure {
    match error {
        KeyError::File { source, path } => {
            Failure::file(format_args!("{} cannot be used", path.display()), source)
        }
        KeyError::Readable { path, .. } => {
            Failure::new(Exit::Permission, "the validator's key lies open")
                .why(error)
                .fix(format_args!("run `chmod 600 {}`", path.display()))
        }
        KeyError::Format { .. } => {
            Failure::new(Exit::Malformed, "the validator's key cannot be used").why(error)
        }
    }
}
