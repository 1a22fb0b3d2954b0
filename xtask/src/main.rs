//! The repository's chores.
//!
//! `cargo xtask test` runs everything that must hold before a change is good: the contracts' checks,
//! format, lints, the workspace's tests, and foreign clients against the binary. `--no-sdk` leaves
//! out what needs npm or Python: contracts, other machines and clients. `cargo xtask contracts`, `cargo
//! xtask machines` and `cargo xtask sdk` run only those. `cargo xtask text` compares tokenizers and chat
//! templates with other people's, which are fetched for it. `cargo xtask fuzz` throws changed
//! bytes at every reader of foreign bytes, for a minute each or as long as it is told.
//! `cargo xtask clients` runs more foreign clients: LangChain's tests, the AI SDK and servebench, which take
//! long to install.
//!
//! `cargo xtask bench` measures this machine, `bench chain` the chain on it; with the folder `GeneralStateTests` of ethereum/tests it counts those cases too. `bench settle` keeps what an
//! answer costs on the chain, `bench dispute` what judging one of its numbers costs, `bench gateway`
//! what a request costs in a gateway beside other people's, `bench openai` how many of OpenAI's own
//! tests of its API pass, `bench engine` how fast a model is computed
//! beside llama.cpp, `bench serving` how fast and how soon many are answered beside its server.
#![expect(clippy::print_stderr, reason = "a chore tells its user what it does")]

mod bench;
mod clients;
mod contracts;
mod embeddings;
mod fuzz;
mod machines;
mod sdk;
mod suite;
mod text;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};

const USAGE: &str = "usage: cargo xtask test [--no-sdk] | contracts | machines | sdk | clients | text | fuzz [TARGET] [--seconds N] | bench [dispute | engine | gateway | openai | serving | settle | chain [GeneralStateTests]]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["test"] => contracts::run()
            .and_then(|()| workspace())
            .and_then(|()| machines::compare())
            .and_then(|()| sdk::clients()),
        ["test", "--no-sdk"] => workspace(),
        ["contracts"] => contracts::run(),
        ["machines"] => machines::run(),
        ["sdk"] => sdk::run(),
        ["text"] => text::run(),
        ["fuzz", ref rest @ ..] => fuzz::run(rest),
        ["clients"] => sdk::build().and_then(|()| clients::run()),
        ["bench"] => bench::run(),
        ["bench", "chain"] => bench::chain::run(None),
        ["bench", "dispute"] => bench::dispute::run(),
        ["bench", "engine"] => bench::engine::run(),
        ["bench", "gateway"] => bench::gateway::run(),
        ["bench", "openai"] => sdk::build().and_then(|()| suite::bench()),
        ["bench", "serving"] => bench::serving::run(),
        ["bench", "settle"] => bench::settle::run(),
        ["bench", "chain", tests] => bench::chain::run(Some(tests)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => {
            eprintln!("==> all good");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("==> failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What Rust alone can check.
fn workspace() -> Result<()> {
    step("format", cargo().args(["fmt", "--all", "--check"]))?;
    let lints = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    step("lints", cargo().args(lints))?;
    step("tests of the workspace", cargo().args(["test", "--workspace", "--locked", "--quiet"]))
}

fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// The repository's folder.
fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().map_or_else(|| xtask.to_path_buf(), Path::to_path_buf)
}

/// Runs one command to its end, its output passed through; fails if it fails.
fn step(what: &str, command: &mut Command) -> Result<()> {
    eprintln!("==> {what}: {}", line(command));
    let start = Instant::now();
    let status =
        command.status().with_context(|| format!("{what}: {} cannot run", line(command)))?;
    if !status.success() {
        bail!("{what} ({status})");
    }
    eprintln!("    {what} took {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
