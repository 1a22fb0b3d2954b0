//! Runs an EVM chain inside a process, or among validators.

pub mod mempool;
pub mod state;
