//! Reads the operator's world and starts a role, or all of them (`up`).
//!
//! One file per command; what they share: [`failure`] (how a command says no), [`terminal`] (where
//! words go), [`data`], [`keys`] and [`library`] (what lies on disk), [`machine`] (what the machine
//! gives), [`gateway`] (how a gateway is asked), [`hub`] (where models come from), [`ledger`] (how the chain is), [`network`] (the roles, put together) and [`payment`] (how they pay each other), [`relay`] (which servers stand behind a gateway), [`signals`] (how it is told to
//! stop).

mod failure;
mod terminal;

mod data;
mod embedded;
mod fit;
mod gateway;
mod keys;
mod ledger;
mod library;
mod machine;
mod network;
mod onnx;
mod payment;
mod relay;
mod self_test;
mod signals;

mod api_key;
mod auditors;
mod backend;
mod bench;
mod canaries;
mod chain;
mod channel;
mod chat;
mod cheat;
mod contracts;
mod dispute;
mod doctor;
mod earnings;
mod front;
mod grant;
mod hub;
mod model;
mod pay;
mod probe;
mod registry;
mod run;
mod sold;
mod source;
mod status;
mod up;
mod validate;
mod verify;
mod wallet;
mod x402;

use std::future::Future;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use tracing_subscriber::EnvFilter;

use failure::{EXIT_CODES, Exit, Failure, Outcome};
use terminal::{Colour, coloured, note, stderr_has_colour};

/// An open network where AI work is bought, sold and proven
#[derive(Debug, Parser)]
#[command(name = "assay", version, after_help = EXIT_CODES, subcommand_required = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Up),
    #[command(name = "gateway")]
    Front(front::Front),
    Run(run::Run),
    Chat(chat::Chat),
    Contracts(contracts::Contracts),
    Verify(verify::Verify),
    Dispute(dispute::Disputes),
    Validate(validate::Validate),
    Model(model::Model),
    Status(status::Status),
    Doctor(doctor::Doctor),
    Bench(bench::Bench),
    Wallet(wallet::Wallet),
    Channel(channel::Channels),
    Earnings(earnings::Earnings),
    Pay(pay::Pay),
    Grant(grant::Grants),
    ApiKey(api_key::ApiKeys),
    Chain(chain::Chain),
    Completion(Completion),
}

/// Print a shell's completion script
#[derive(Args, Debug)]
struct Completion {
    shell: Shell,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    log();
    let outcome = match cli.command {
        Command::Up(up) => up.run(),
        Command::Front(front) => front.run(),
        Command::Run(run) => wait(run.run()).map(|()| ExitCode::SUCCESS),
        Command::Chat(chat) => wait(chat.run()).map(|()| ExitCode::SUCCESS),
        Command::Contracts(contracts) => wait(contracts.run()).map(|()| ExitCode::SUCCESS),
        Command::Verify(verify) => verify.run(),
        Command::Dispute(dispute) => dispute.run(),
        Command::Validate(validate) => validate.run(),
        Command::Model(model) => model.run().map(|()| ExitCode::SUCCESS),
        Command::Status(status) => wait(status.run()).map(|()| ExitCode::SUCCESS),
        Command::Doctor(doctor) => wait(doctor.run()),
        Command::Bench(bench) => wait(bench.run()).map(|()| ExitCode::SUCCESS),
        Command::Wallet(wallet) => wait(wallet.run()).map(|()| ExitCode::SUCCESS),
        Command::Channel(channel) => wait(channel.run()).map(|()| ExitCode::SUCCESS),
        Command::Earnings(earnings) => wait(earnings.run()).map(|()| ExitCode::SUCCESS),
        Command::Pay(pay) => wait(pay.run()).map(|()| ExitCode::SUCCESS),
        Command::Grant(grant) => wait(grant.run()).map(|()| ExitCode::SUCCESS),
        Command::ApiKey(keys) => wait(keys.run()).map(|()| ExitCode::SUCCESS),
        Command::Chain(chain) => chain.run(),
        Command::Completion(completion) => completion.run(),
    };
    outcome.unwrap_or_else(|failure| {
        note(format_args!("{}: {failure}", coloured("error", Colour::Red, stderr_has_colour())));
        failure.exit()
    })
}

impl Completion {
    fn run(self) -> Outcome<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "assay", &mut script);
        terminal::write(&String::from_utf8_lossy(&script));
        Ok(ExitCode::SUCCESS)
    }
}

/// Runs a command that asks others and does nothing else meanwhile.
fn wait<T>(command: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime
        .map_err(|error| Failure::new(Exit::Failed, "the system gives no event loop").why(error))?;
    runtime.block_on(command)
}

/// What is logged unless `ASSAY_LOG` says otherwise: one line per request, that of the gateway.
const LOG: &str = "info,assay_provider::serve=warn";

/// Sends logs to standard error; `ASSAY_LOG` says which, as in `info,assay_provider=debug`.
fn log() {
    let asked = std::env::var("ASSAY_LOG").unwrap_or_else(|_| LOG.into());
    let filter = EnvFilter::try_new(&asked).unwrap_or_else(|error| {
        note(format_args!("ASSAY_LOG is not followed: {error}"));
        EnvFilter::new(LOG)
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(stderr_has_colour())
        .with_target(false)
        .init();
}
