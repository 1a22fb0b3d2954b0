//! The engine beside llama.cpp: the same file, the same threads, in turns.
//!
//! A round asks every contestant for every figure once, so whatever else the machine does meets
//! all of them alike. Figures are medians over the rounds; a ratio of two of them says more than
//! either where the machine is not idle. Processor time is that of the whole process: for ours of
//! the run alone, for llama.cpp of the run and its warm-up, over the tokens of both.

mod ours;
pub(crate) mod peer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Row, keep_measured, load, median, random_model};
use crate::{cargo, step};
use ours::Ours;
use peer::{Build, NAME, Peer};

const COMMAND: &str = "cargo xtask bench engine";
const ROUNDS: usize = 5;
/// Tokens of the prompt, and of what is generated.
const PREFILL: usize = 512;
const DECODE: usize = 64;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Task {
    /// One stream, token by token.
    Decode,
    /// A prompt.
    Prefill,
}

impl Task {
    const ALL: [Task; 2] = [Task::Decode, Task::Prefill];

    fn name(self) -> &'static str {
        match self {
            Task::Decode => "decode",
            Task::Prefill => "prefill",
        }
    }

    fn tokens(self) -> usize {
        match self {
            Task::Decode => DECODE,
            Task::Prefill => PREFILL,
        }
    }
}

/// One run: tokens a second of wall time, and milliseconds of processor time a token.
#[derive(Clone, Copy, Debug)]
struct Speed {
    tokens_s: f64,
    cpu_ms: f64,
}

/// A shape, the formats that it is measured in, and what its rows end with.
struct Model {
    shape: &'static str,
    quant: &'static str,
    /// The format in a row's name.
    format: &'static str,
    suffix: &'static str,
}

const MODELS: [Model; 3] = [
    // Every matrix of the file has four bits, and in ours has so too.
    Model { shape: "q05", quant: "q4_0", format: "q4", suffix: "" },
    Model { shape: "q05", quant: "q8_0", format: "q8", suffix: "" },
    Model { shape: "llama1b", quant: "q8_0", format: "q8", suffix: ".1b" },
];

pub(crate) fn run() -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--package", "assay-engine"]);
    step("our engine", build.args(["--example", "speed"]))?;
    let built = |build| Peer::built(build, "llama-bench");
    let peers = [built(Build::Native)?, built(Build::Avx2)?];
    let found = |model: Model| Ok((random_model(model.shape, model.quant)?, model));
    let models: Vec<(PathBuf, Model)> = MODELS.into_iter().map(found).collect::<Result<_>>()?;

    let load = load();
    for (path, model) in &models {
        for peer in &peers {
            keep_measured(beside(model, path, peer)?, &load, COMMAND)?;
        }
    }
    Ok(())
}

/// All rounds of one model with one instruction set.
fn beside(model: &Model, path: &Path, peer: &Peer) -> Result<Vec<Row>> {
    let mut ours = Ours::start(path, peer.build().isa(), model.format == "q4")?;
    let mut found: BTreeMap<(Task, usize), [Vec<Speed>; 2]> = BTreeMap::new();
    for round in 1..=ROUNDS {
        for task in Task::ALL {
            for threads in [1, 2] {
                let [a, b] = [ours.run(task, threads)?, peer.run(path, task, threads)?];
                eprintln!(
                    "    {} {} {} {} {threads}t, round {round}: {:.1} beside {:.1} tokens/s",
                    model.shape,
                    model.format,
                    peer.build().name(),
                    task.name(),
                    a.tokens_s,
                    b.tokens_s
                );
                let speeds = found.entry((task, threads)).or_default();
                speeds[0].push(a);
                speeds[1].push(b);
            }
        }
    }
    let ended = format!("{}{}", peer.build().suffix(), model.suffix);
    let rows = found.into_iter().flat_map(|((task, threads), speeds)| {
        let name =
            |what: &str| format!("engine.{}.{}.{threads}t{what}{ended}", task.name(), model.format);
        let row = |what: &str, unit: &str, of: fn(&Speed) -> f64| {
            let [ours, theirs] =
                speeds.each_ref().map(|speeds| json!(median(speeds.iter().map(of).collect())));
            Row::new(&name(what), &ours, unit).beside(NAME, &theirs)
        };
        [row("", "tokens/s", |speed| speed.tokens_s), row(".cpu", "ms/token", |speed| speed.cpu_ms)]
    });
    Ok(rows.collect())
}

/// A number of a JSON object.
fn number(value: &Value, field: &str) -> Result<f64> {
    value[field].as_f64().with_context(|| format!("no {field} in {value}"))
}
