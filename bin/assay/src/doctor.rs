//! `assay doctor`: whether this machine can take part, and what to do where it cannot.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;

use assay_engine::Package;
use assay_kernels::Isa;
use clap::Args;
use serde_json::{Value, json};

use crate::data::{Data, DataArgument};
use crate::failure::{Exit, Outcome};
use crate::gateway::Gateway;
use crate::keys;
use crate::library::{self, Library};
use crate::machine::{disk_free, memory_available, processors, raise_open_files};
use crate::self_test;
use crate::terminal::{Colour, bytes, coloured, say, say_json, stdout_has_colour};

/// Memory below which even the shipped model is cramped, and below which work is.
const MEMORY: Bounds = Bounds { fail: 256 << 20, warn: 1 << 30 };
/// Disk space below which answers cannot be kept for long.
const DISK: Bounds = Bounds { fail: 64 << 20, warn: 1 << 30 };
/// Open files below which clients are turned away.
const FILES: Bounds = Bounds { fail: 128, warn: 4096 };

/// Check whether this machine can run a network
#[derive(Args, Debug)]
pub(crate) struct Doctor {
    /// Port that the gateway would use
    #[arg(long, env = "ASSAY_PORT", default_value_t = 8700)]
    port: u16,
    #[command(flatten)]
    data: DataArgument,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Pass,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug)]
struct Check {
    name: &'static str,
    state: State,
    found: String,
    fix: Option<String>,
}

/// Where a quantity is too little, or barely enough.
struct Bounds {
    fail: u64,
    warn: u64,
}

impl Doctor {
    pub(crate) async fn run(self) -> Outcome<ExitCode> {
        let data = self.data.resolve()?;
        let mut checks = vec![processor()];
        checks.extend(self_test::run().into_iter().map(|tested| kernels(&tested)));
        checks.push(memory());
        checks.push(disk(&data));
        checks.push(open_files());
        checks.push(writable(&data));
        checks.extend(key_files(&data));
        checks.extend(models(&data));
        checks.push(port(self.port).await);
        let ok = checks.iter().all(|check| check.state != State::Fail);
        if self.json {
            let checks: Vec<Value> = checks.iter().map(Check::document).collect();
            say_json(&json!({ "schema": "assay.doctor/1", "ok": ok, "checks": checks }));
        } else {
            checks.iter().for_each(Check::tell);
        }
        Ok(if ok { ExitCode::SUCCESS } else { ExitCode::from(Exit::Failed as u8) })
    }
}

impl Check {
    fn pass(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Pass, found: found.into(), fix: None }
    }

    fn warn(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, state: State::Warn, found: found.into(), fix: Some(fix.into()) }
    }

    fn fail(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, state: State::Fail, found: found.into(), fix: Some(fix.into()) }
    }

    /// Judges a quantity of which more is better.
    fn amount(name: &'static str, found: String, amount: u64, bounds: &Bounds, fix: &str) -> Self {
        match amount {
            amount if amount < bounds.fail => Self::fail(name, found, fix),
            amount if amount < bounds.warn => Self::warn(name, found, fix),
            _ => Self::pass(name, found),
        }
    }

    fn tell(&self) {
        let (word, colour) = match self.state {
            State::Pass => ("PASS", Colour::Green),
            State::Warn => ("WARN", Colour::Yellow),
            State::Fail => ("FAIL", Colour::Red),
        };
        let word = coloured(word, colour, stdout_has_colour());
        say(format_args!("{word}  {:<10} {}", self.name, self.found));
        if let Some(fix) = &self.fix {
            say(format_args!("                 fix: {fix}"));
        }
    }

    fn document(&self) -> Value {
        let state = match self.state {
            State::Pass => "pass",
            State::Warn => "warn",
            State::Fail => "fail",
        };
        json!({ "name": self.name, "state": state, "found": self.found, "fix": self.fix })
    }
}

fn processor() -> Check {
    let count = processors();
    match Isa::from_env() {
        Ok(Isa::Scalar) => Check::warn(
            "processor",
            format!("{count} threads, plain instructions"),
            "answers are right but slow; a processor with AVX2 or AVX-512 is much faster",
        ),
        Ok(isa) => Check::pass("processor", format!("{count} threads, {isa}")),
        Err(error) => Check::fail("processor", error.to_string(), "unset ASSAY_ISA"),
    }
}

fn kernels(tested: &self_test::Tested) -> Check {
    if tested.agrees {
        return Check::pass("kernels", format!("{}: every bit as agreed", tested.isa));
    }
    let slower = "force another path with ASSAY_ISA, and report the processor's model";
    Check::fail("kernels", format!("{}: computes other numbers", tested.isa), slower)
}

fn memory() -> Check {
    match memory_available() {
        Some(free) => {
            let fix =
                "close other programs; answers need memory for the model and for each request";
            Check::amount("memory", format!("{} available", bytes(free)), free, &MEMORY, fix)
        }
        None => Check::pass("memory", "the system does not say"),
    }
}

fn disk(data: &Data) -> Check {
    match disk_free(data.folder()) {
        Some(free) => {
            let fix = "free some space, or pass a --data-dir on another disk";
            Check::amount("disk", format!("{} free", bytes(free)), free, &DISK, fix)
        }
        None => Check::pass("disk", "the system does not say"),
    }
}

fn open_files() -> Check {
    let files = raise_open_files();
    let fix = "raise the hard limit, e.g. in /etc/security/limits.conf: * hard nofile 65536";
    Check::amount("files", format!("{files} may be open at once"), files, &FILES, fix)
}

fn writable(data: &Data) -> Check {
    let folder = data.folder();
    let existed = folder.exists();
    let written = crate::data::create_private(folder).and_then(|()| {
        crate::data::write_whole(&folder.join("doctor"), b"written to see if it can be\n")
    });
    // Both are best left as they were found.
    let _ = fs::remove_file(folder.join("doctor"));
    if !existed {
        let _ = fs::remove_dir(folder);
    }
    match written {
        Ok(()) => Check::pass("data", format!("{} can be written", folder.display())),
        Err(failure) => {
            Check::fail("data", failure.what(), "pass a --data-dir that you may write to")
        }
    }
}

fn key_files(data: &Data) -> Vec<Check> {
    let providers = fs::read_dir(data.folder().join("providers")).into_iter().flatten();
    let mut folders: Vec<PathBuf> =
        providers.filter_map(Result::ok).map(|entry| entry.path()).collect();
    folders.push(data.gateway());
    folders.sort();
    let files = folders.into_iter().map(|folder| folder.join("key")).filter(|path| path.exists());
    files.map(|path| key_file(&path)).collect()
}

fn key_file(path: &std::path::Path) -> Check {
    match keys::check(path) {
        Ok(key) => Check::pass("key", format!("{} in {}", key.address(), path.display())),
        Err(failure) => Check::fail("key", failure.what(), failure.advice()),
    }
}

fn models(data: &Data) -> Vec<Check> {
    let files = Library::of(data).files();
    if files.is_empty() {
        return vec![Check::pass("model", "none yet; `assay up` brings one")];
    }
    let again = "delete it and import the model again from its source";
    let check = |path: PathBuf| match Package::read(&path) {
        Err(error) => Check::fail("model", format!("{}: {error}", path.display()), again),
        Ok(package) => match library::verify(&package) {
            Ok(()) => Check::pass("model", format!("{} is {}", package.name(), package.id())),
            Err(failure) => Check::fail("model", failure.what(), again),
        },
    };
    files.into_iter().map(check).collect()
}

async fn port(port: u16) -> Check {
    let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) else {
        return Check::pass("port", format!("{port} is free"));
    };
    let url = format!("http://127.0.0.1:{port}");
    let answers = match Gateway::new(&url) {
        Ok(gateway) => gateway.get("/version").await.is_ok(),
        Err(_) => false,
    };
    if answers {
        return Check::pass("port", format!("a gateway answers at {url}"));
    }
    Check::warn(
        "port",
        format!("{port} cannot be used: {error}"),
        "pass another --port to `assay up`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_judged_by_their_bounds() {
        let state = |amount| {
            let bounds = Bounds { fail: 10, warn: 20 };
            Check::amount("memory", String::new(), amount, &bounds, "more").state
        };
        assert_eq!(
            [9, 10, 19, 20].map(state),
            [State::Fail, State::Warn, State::Warn, State::Pass]
        );
    }
}
