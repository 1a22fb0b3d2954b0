//! Runs an EVM chain inside a process, or among validators.
//!
//! In reading order: what is known ([`state`]), by which rules ([`Spec`]), what is agreed on
//! ([`Block`]), how it is run ([`Executor`]), and what waits to be ([`mempool`]).

pub mod mempool;
pub mod state;

mod block;
mod execute;
mod overlay;
mod rules;
mod spec;
mod view;

pub use block::{Block, DecodeError, Receipt, Transaction};
pub use execute::{
    Attributes, BuildError, Built, Evm, Executed, Executor, Parent, Precompile, Refusal,
};
pub use overlay::Overlay;
pub use rules::{BlockError, Commitment};
pub use spec::Spec;
pub use view::{Hashes, View};
