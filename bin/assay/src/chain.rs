//! `assay chain`: an EVM chain by itself, and the tools around it.

mod statetest;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::failure::Outcome;

/// Run and examine an EVM chain
#[derive(Args, Debug)]
pub(crate) struct Chain {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Statetest(statetest::Statetest),
}

impl Chain {
    pub(crate) fn run(self) -> Outcome<ExitCode> {
        match self.command {
            Command::Statetest(statetest) => statetest.run(),
        }
    }
}
