//! The binary as its users meet it: started as a process, judged by what it prints and returns.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

mod chain;
mod commands;
mod dispute;
mod front;
mod library;
mod money;
mod network;
mod registry;
mod x402;
