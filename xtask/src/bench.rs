//! Measures the kernels and the engine on this machine, and writes what was measured into
//! `docs/benchmarks.json` and the table of `docs/benchmarks.md`.
//!
//! The model has the shape of a 0.494B llama with random weights in Q8_0: speed does not depend
//! on what weights say. Rows of other benchmarks are left as they are.

pub(crate) mod chain;
pub(crate) mod dispute;
pub(crate) mod engine;
pub(crate) mod gateway;
mod running;
pub(crate) mod serving;
pub(crate) mod settle;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{cargo, line, root, step};

const COMMAND: &str = "cargo xtask bench";
/// The table in the page stands between these lines.
const BEGIN: &str = "<!-- rows: written by `cargo xtask bench` -->";
const END: &str = "<!-- end of rows -->";

pub(crate) fn run() -> Result<()> {
    let packages = ["assay-kernels", "assay-models", "assay-engine"];
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--examples"]);
    packages.iter().for_each(|package| {
        build.args(["--package", package]);
    });
    step("benchmarks", &mut build)?;

    let examples = root().join("target/release/examples");
    let model = random_model("q05", "q8_0")?;
    let load = load();
    let mut rows = measure(Command::new(examples.join("gmacs")).arg("--json"))?;
    rows.extend(measure(Command::new(examples.join("speed")).arg(&model).arg("--json"))?);
    let nano = root().join("assets/nano/nano-q8_0.gguf");
    for (model, name) in [(&nano, "nano"), (&model, "q05")] {
        let mut trace = Command::new(examples.join("trace"));
        rows.extend(measure(trace.arg(model).args([name, "--json"]))?);
    }
    let rows = rows.into_iter().map(|value| Row { value }).collect();
    keep_measured(rows, &load, COMMAND)
}

/// A file with a model of random parameters, in the shape and format so named, written once.
fn random_model(shape: &str, quant: &str) -> Result<PathBuf> {
    let model = root().join(format!("target/bench/random-{shape}-{quant}.gguf"));
    if !model.exists() {
        fs::create_dir_all(model.parent().context("the model has a folder")?)?;
        let mut write = cargo();
        write.args(["run", "--release", "--locked", "--package", "assay-models"]);
        write.args(["--example", "random_gguf", "--"]).arg(&model);
        step("random model", write.args(["--shape", shape, "--quant", quant]))?;
    }
    Ok(model)
}

/// One figure, as it stands in `docs/benchmarks.json`.
pub(crate) struct Row {
    value: Value,
}

impl Row {
    pub(crate) fn new(name: &str, value: &Value, unit: &str) -> Self {
        Self { value: json!({ "name": name, "value": value, "unit": unit }) }
    }

    /// The same figure of somebody else, measured in the same run.
    pub(crate) fn beside(mut self, peer: &str, value: &Value) -> Self {
        self.value["peer"] = json!(peer);
        self.value["peer_value"] = value.clone();
        self
    }
}

/// Keeps rows, with the machine, the load at the start, the day and the command they come from.
pub(crate) fn keep_measured(rows: Vec<Row>, load: &str, command: &str) -> Result<()> {
    let (machine, date) = (machine(), today()?);
    let rows = rows.into_iter().map(|Row { value: mut row }| {
        for field in ["peer", "peer_value"] {
            row[field] = row[field].take();
        }
        row["machine"] = json!(format!("{machine}, load {load} at the start"));
        row["date"] = json!(date);
        row["command"] = json!(command);
        row
    });
    keep(rows.collect())
}

/// Runs a benchmark that prints one JSON row a line.
fn measure(command: &mut Command) -> Result<Vec<Value>> {
    eprintln!("==> {}", line(command));
    let output = command.output().with_context(|| format!("{} cannot run", line(command)))?;
    if !output.status.success() {
        bail!("{}: {}", line(command), String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8(output.stdout)?;
    text.lines().map(|line| serde_json::from_str(line).context("a row is JSON")).collect()
}

/// Replaces rows of the same name, appends new ones, and rewrites the page's table.
fn keep(rows: Vec<Value>) -> Result<()> {
    let file = root().join("docs/benchmarks.json");
    let mut kept: Vec<Value> = match fs::read_to_string(&file) {
        Ok(text) => serde_json::from_str(&text).context("docs/benchmarks.json")?,
        Err(_) => Vec::new(),
    };
    for row in rows {
        match kept.iter_mut().find(|old| old["name"] == row["name"]) {
            Some(old) => *old = row,
            None => kept.push(row),
        }
    }
    fs::write(&file, serde_json::to_string_pretty(&kept)? + "\n")?;
    write_table(&root().join("docs/benchmarks.md"), &kept)
}

fn write_table(page: &Path, rows: &[Value]) -> Result<()> {
    let text = fs::read_to_string(page).context("docs/benchmarks.md")?;
    let (Some((before, _)), Some((_, after))) = (text.split_once(BEGIN), text.split_once(END))
    else {
        bail!("docs/benchmarks.md has no place for rows");
    };
    let mut table = String::from(
        "| Figure | Value | Peer | Machine | Date | Command |\n|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
        let value = row["value"].as_f64().map(rounded).unwrap_or_default();
        let peer = match row["peer_value"].as_f64() {
            Some(value) => format!("{}: {}", text("peer"), rounded(value)),
            None => String::new(),
        };
        table += &format!(
            "| `{}` | {value} {} | {peer} | {} | {} | `{}` |\n",
            text("name"),
            text("unit"),
            text("machine"),
            text("date"),
            text("command"),
        );
    }
    fs::write(page, format!("{before}{BEGIN}\n{table}{END}{after}"))?;
    Ok(())
}

/// Three significant digits.
fn rounded(value: f64) -> String {
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    if value < 0.1 { format!("{value:.5}") } else { format!("{value:.digits$}") }
}

/// The one in the middle, of at least one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Processor and number of cores, as Linux tells them.
fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let name = field("model name").unwrap_or_else(|| "unknown processor".into());
    let family = field("cpu family").unwrap_or_default();
    let model = field("model\t").unwrap_or_default();
    format!("{name} (family {family} model {model}), {cores} cores")
}

/// Processes that wanted a core in the last minute.
pub(crate) fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().filter(|load| !load.is_empty()).unwrap_or("unknown").to_owned()
}

fn today() -> Result<String> {
    let output = Command::new("date").args(["-u", "+%F"]).output().context("date")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
