//! Runs an EVM chain inside a process, or among validators.
//!
//! In reading order: what is known ([`state`]), by which rules ([`Spec`]), from what start
//! ([`Genesis`]), what is agreed on ([`Block`]), how it is run ([`Executor`]) and kept
//! ([`Chain`]), what waits to be ([`mempool`]), and who makes blocks of it ([`producer`]); a [`Node`]
//! is all of them at work, [`rpc`] is how clients ask it, and by [`consensus`] several validators
//! agree on one order. [`keystore`] keeps keys, [`clock`] tells the time.

pub mod clock;
pub mod consensus;
pub mod keystore;
pub mod mempool;
pub mod producer;
pub mod rpc;
pub mod state;

mod block;
mod chain;
mod execute;
mod genesis;
mod import;
mod node;
mod overlay;
mod predeploys;
mod rules;
mod spec;
mod statetest;
mod view;

pub use block::{Block, DecodeError, Receipt, Transaction};
pub use chain::{At, Chain, ChainError, Options};
pub use execute::{
    Attributes, BuildError, Built, Evm, Executed, Executor, Parent, Precompile, Refusal,
};
pub use genesis::{Call, GAS_LIMIT, Genesis, GenesisError, Outcome};
pub use import::ImportError;
pub use node::{Node, NodeConfig, NodeError};
pub use overlay::Overlay;
pub use predeploys::{CREATE2_DEPLOYER, MULTICALL3};
pub use rules::{BlockError, Commitment};
pub use spec::Spec;
pub use statetest::{Difference, Failure, FixtureError, Report, left_out, run_state_tests};
pub use view::{Hashes, View};
