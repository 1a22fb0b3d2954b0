//! What a dispute costs: gas of one number and of whole games, and the time from doubt to verdict.
//!
//! The time is that of `assay dispute open` on a network of this machine whose cheapest provider leaves out
//! the last layer: replay, trace, game on the chain, punishment, refund and bond. The provider computes its
//! trace on the same processors meanwhile.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::running::{Running, binary, said};
use super::settle::{figures, gas_of, measure};
use super::{Row, keep_measured, load, random_model};
use crate::{cargo, line, root, step};

const COMMAND: &str = "cargo xtask bench dispute";

/// Disputes of which the median counts.
const ROUNDS: usize = 5;
/// Tokens of a prompt, where one is a byte, and most of an answer.
const PROMPT: usize = 64;
const OUTPUT: usize = 64;

pub(crate) fn run() -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--package", "assay"]);
    step("assay", &mut build)?;
    let model = random_model("q05", "q8_0")?;
    let busy = load();
    measure()?;
    let (rules, disputes) = (figures("Rules")?, figures("Disputes")?);
    let judged = |what: &str| gas_of(&rules, &format!("matrix element, K = 4096, {what}"));
    let played = |what: &str| gas_of(&disputes, what);
    let mut rows = vec![
        Row::new("dispute.judge.exec_gas.k4096", &judged("execution")?, "gas"),
        Row::new("dispute.judge.tx_gas.k4096", &judged("charged")?, "gas"),
        Row::new("dispute.interactive.gas", &played("whole dispute, 28 levels jumped")?, "gas"),
        Row::new(
            "dispute.interactive.gas.no_server",
            &played("whole dispute, 28 levels revealed")?,
            "gas",
        ),
        Row::new("dispute.oneshot.gas", &played("one shot: name, prove, punish, close")?, "gas"),
        Row::new("dispute.equivocate.gas", &played("equivocate")?, "gas"),
    ];
    rows.extend(timed("nano", None, "12+45=")?);
    rows.extend(timed("0_5b", Some(&model), &"a question ".repeat(PROMPT)[..PROMPT])?);
    keep_measured(rows, &busy, COMMAND)
}

/// Buys lies of a network's cheater, and disputes them one after the other.
fn timed(name: &str, model: Option<&Path>, prompt: &str) -> Result<Vec<Row>> {
    let folder = root().join(format!("target/bench/dispute/{name}"));
    let network = Network::start(&folder, model)?;
    let mut found = Vec::new();
    for round in 0..ROUNDS {
        let receipt = folder.join(format!("{round}.json"));
        let mut run = assay();
        run.args(["run", prompt, "--json", "--url", &network.gateway]);
        run.args(["--max-tokens", &OUTPUT.to_string(), "--receipt"]).arg(&receipt);
        said(&mut run)?;
        let mut open = assay();
        open.args(["dispute", "open", "--json", "--rpc", &network.rpc, "--data-dir"]);
        let ended = said(open.arg(folder.join("data")).arg(&receipt))?;
        if ended["ending"] != "convicted" || ended["reason"] != "number" {
            bail!("dispute {round} about {name} ended otherwise: {ended}");
        }
        found.push(ended);
    }
    let median = |field: &str| -> Result<Value> {
        let figures = found.iter().map(|one| one[field].as_f64().context("a figure"));
        Ok(json!(super::median(figures.collect::<Result<_>>()?)))
    };
    Ok(vec![
        Row::new(&format!("dispute.{name}.seconds"), &median("seconds")?, "s"),
        Row::new(&format!("dispute.{name}.challenger_gas"), &median("gas")?, "gas"),
    ])
}

/// A network with a cheater.
struct Network {
    gateway: String,
    rpc: String,
    _running: Running,
}

impl Network {
    /// Starts one in an empty folder.
    fn start(folder: &Path, model: Option<&Path>) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
        let mut up = assay();
        up.args(["up", "--json", "--port", "0", "--rpc-port", "0", "--providers", "1"]);
        up.args(["--with-cheater", "layer", "--data-dir"]).arg(folder.join("data"));
        up.args(model.into_iter().flat_map(|model| [Path::new("--model"), model]));
        eprintln!("==> {}", line(&up));
        let mut child = up.stdout(Stdio::piped()).spawn().context("assay cannot run")?;
        let stdout = child.stdout.take().context("it has an output")?;
        let running = Running(child);
        let mut ready = String::new();
        BufReader::new(stdout).read_line(&mut ready)?;
        let ready: Value = serde_json::from_str(&ready).context("assay up did not start")?;
        let text = |value: &Value| value.as_str().map(str::to_owned).context("an address");
        Ok(Self {
            gateway: text(&ready["gateway"])?,
            rpc: text(&ready["chain"]["rpc"])?,
            _running: running,
        })
    }
}

fn assay() -> Command {
    let mut command = Command::new(binary());
    command.env("ASSAY_LOG", "error");
    command
}
