//! `assay dispute`: hold a provider to its receipt.
//!
//! A dispute needs no human and no trusted party: whoever has a receipt and the model plays it from here,
//! and anybody can watch it on the chain.

mod ls;
mod open;
mod story;
mod watch;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::failure::Outcome;
use crate::wait;

/// Hold a provider to its receipt: dispute an answer, or watch a dispute
#[derive(Args, Debug)]
pub(crate) struct Disputes {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Open(open::Open),
    Watch(watch::Watch),
    Ls(ls::Ls),
}

impl Disputes {
    pub(crate) fn run(self) -> Outcome<ExitCode> {
        match self.what {
            What::Open(open) => open.run(),
            What::Watch(watch) => watch.run(),
            What::Ls(ls) => wait(ls.run()).map(|()| ExitCode::SUCCESS),
        }
    }
}
