//! Where a chain lies and what it starts from, and how its failures are told.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use assay_evm::consensus::simplex::verifier;
use assay_evm::keystore::{Signer, mnemonic};
use assay_evm::state::{FILE, StoreError};
use assay_evm::{Chain, ChainError, Genesis, NodeError, Options};
use clap::Args;

use crate::data::DataArgument;
use crate::failure::{Exit, Failure, Outcome};

/// The chain id of development tools, for chains that nobody gave another.
const CHAIN_ID: u64 = 31_337;

/// How many accounts a development chain begins with.
const ACCOUNTS: u32 = 10;

/// What each of them has, in ether.
const ETHER: u64 = 10_000;

/// Which chain.
#[derive(Args, Clone, Debug)]
pub(crate) struct Place {
    /// Directory of the chain [default: `chain` in the data directory; with --dev: none]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    data_dir: DataArgument,
    /// What the chain starts from, in the form of geth's genesis.json
    #[arg(long, value_name = "FILE", conflicts_with = "dev")]
    genesis: Option<PathBuf>,
    /// A chain to develop on: accounts with money whose keys everybody has, a faucet, and methods
    /// that change time and state. Without --data, in memory
    #[arg(long)]
    pub(crate) dev: bool,
    /// Chain id of a chain made by --dev
    #[arg(long, value_name = "N", default_value_t = CHAIN_ID, requires = "dev")]
    chain_id: u64,
}

impl Place {
    /// The accounts whose keys everybody has.
    pub(crate) fn signers(&self) -> Vec<Signer> {
        match self.dev {
            true => mnemonic::accounts(mnemonic::DEVELOPMENT, ACCOUNTS),
            false => Vec::new(),
        }
    }

    /// What the chain starts from.
    pub(crate) fn genesis(&self) -> Outcome<Genesis> {
        if self.dev {
            let wei = alloy_primitives::U256::from(ETHER)
                * alloy_primitives::U256::from(1_000_000_000_000_000_000_u64);
            let funded: Vec<_> =
                self.signers().iter().map(|signer| (signer.address(), wei)).collect();
            let mut genesis = Genesis::development(self.chain_id, &funded);
            // A header does not name its chain; this keeps one directory from serving two.
            genesis.0.extra_data = self.chain_id.to_be_bytes().into();
            return Ok(genesis);
        }
        let path = self.genesis.as_ref().ok_or_else(|| {
            Failure::new(Exit::Usage, "it is not said what the chain starts from")
                .fix("pass --genesis FILE, or --dev for a chain to develop on")
        })?;
        let text = fs::read(path).map_err(|error| {
            Failure::file(format_args!("{} cannot be read", path.display()), &error)
        })?;
        Genesis::from_json(&text).map_err(|error| {
            Failure::new(Exit::Malformed, format_args!("{} cannot be used", path.display()))
                .why(error)
        })
    }

    /// The chain's directory; `None`: it lives in memory.
    pub(crate) fn directory(&self) -> Outcome<Option<PathBuf>> {
        match (&self.data, self.dev) {
            (Some(folder), _) => Ok(Some(folder.clone())),
            (None, true) => Ok(None),
            (None, false) => Ok(Some(self.data_dir.resolve()?.folder().join("chain"))),
        }
    }

    /// The chain's directory, for commands that make no sense without one.
    pub(crate) fn lasting(&self) -> Outcome<PathBuf> {
        self.directory()?.ok_or_else(|| {
            Failure::new(Exit::Usage, "a chain in memory ends with its process")
                .fix("pass --data DIR")
        })
    }

    /// The directory of a chain that is there, for commands that begin none.
    pub(crate) fn existing(&self) -> Outcome<PathBuf> {
        let folder = self.lasting()?;
        if folder.join(FILE).exists() {
            return Ok(folder);
        }
        let what = format!("there is no chain in {}", folder.display());
        Err(Failure::new(Exit::NotFound, what).fix("pass the --data that the chain was run with"))
    }

    /// Opens the chain that lies there.
    pub(crate) fn open(&self) -> Outcome<Arc<Chain>> {
        let folder = self.lasting()?;
        let genesis = self.genesis()?;
        let verifier = [verifier(&genesis)];
        let chain = Chain::open(&genesis, Some(&folder), verifier, Options::default());
        chain.map_err(|error| refused(&folder, &error))
    }
}

/// A chain that cannot be opened or changed.
pub(crate) fn refused(folder: &Path, error: &ChainError) -> Failure {
    let what = format!("the chain in {} cannot be used", folder.display());
    match error {
        ChainError::Genesis { .. } => Failure::new(Exit::Usage, what)
            .why(error)
            .fix("pass the genesis that this directory was made with, or another --data"),
        ChainError::Store(error) => broken(&what, error),
        other => Failure::new(Exit::Failed, what).why(other),
    }
}

/// A store that cannot be opened or changed.
pub(crate) fn broken(what: &str, error: &StoreError) -> Failure {
    match error {
        StoreError::InUse { .. } => Failure::new(Exit::Conflict, what).why(error),
        StoreError::Corrupt { .. } | StoreError::Format { .. } | StoreError::Root { .. } => {
            Failure::new(Exit::Malformed, what).why(error)
        }
        StoreError::Empty => Failure::new(Exit::NotFound, what).why(error),
        StoreError::Exists { .. } => Failure::new(Exit::Conflict, what).why(error),
        StoreError::Full => {
            Failure::new(Exit::Failed, what).why(error).fix("free some space on that disk")
        }
        other => Failure::new(Exit::Failed, what).why(other),
    }
}

/// A node that does not start.
pub(crate) fn unstarted(folder: Option<&Path>, error: &NodeError) -> Failure {
    match error {
        NodeError::Chain(error) => refused(folder.unwrap_or(Path::new("memory")), error),
        other => Failure::new(Exit::Failed, "the chain does not start").why(other),
    }
}
