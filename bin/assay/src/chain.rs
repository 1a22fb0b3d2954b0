//! `assay chain`: an EVM chain by itself, and the tools around it.

mod account;
mod blocks;
pub(crate) mod cluster;
mod faucet;
pub(crate) mod place;
mod run;
mod snapshot;
mod statetest;
mod status;

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
    Run(run::Run),
    Status(status::Status),
    Faucet(faucet::Faucet),
    Account(account::Account),
    Key(cluster::Key),
    Export(blocks::Export),
    Import(blocks::Import),
    Snapshot(snapshot::Snapshot),
    Prune(snapshot::Prune),
    Statetest(statetest::Statetest),
}

impl Chain {
    pub(crate) fn run(self) -> Outcome<ExitCode> {
        let done = |outcome: Outcome| outcome.map(|()| ExitCode::SUCCESS);
        match self.command {
            Command::Run(run) => run.run(),
            Command::Status(status) => done(crate::wait(status.run())),
            Command::Faucet(faucet) => done(crate::wait(faucet.run())),
            Command::Account(account) => done(account.run()),
            Command::Key(key) => done(key.run()),
            Command::Export(export) => done(export.run()),
            Command::Import(import) => done(import.run()),
            Command::Snapshot(snapshot) => done(snapshot.run()),
            Command::Prune(prune) => done(prune.run()),
            Command::Statetest(statetest) => statetest.run(),
        }
    }
}
