//! Our engine, with a model loaded, waiting to be asked for a run.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Speed, Task, number};
use crate::{line, root};

/// The example that measures, which takes a task a line and answers with an object a line.
pub(super) struct Ours {
    child: Child,
    asked: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Ours {
    /// Loads a model, with weights of four bits or eight; `isa` is the path to force, if any.
    pub(super) fn start(model: &Path, isa: Option<&str>, four_bits: bool) -> Result<Ours> {
        let mut command = Command::new(root().join("target/release/examples/speed"));
        command.arg(model).arg("--ask").stdin(Stdio::piped()).stdout(Stdio::piped());
        command.args(four_bits.then_some("--w4"));
        command.envs(isa.map(|isa| ("ASSAY_ISA", isa)));
        let mut child =
            command.spawn().with_context(|| format!("{} cannot run", line(&command)))?;
        let asked = child.stdin.take().context("the input is piped")?;
        let answers = child.stdout.take().context("the output is piped")?;
        Ok(Ours { child, asked, answers: BufReader::new(answers) })
    }

    pub(super) fn run(&mut self, task: Task, threads: usize) -> Result<Speed> {
        writeln!(self.asked, "{} {threads} {}", task.name(), task.tokens())?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        let answer: Value = serde_json::from_str(&answer).context("our engine ended early")?;
        let tokens = task.tokens() as f64;
        Ok(Speed {
            tokens_s: tokens / number(&answer, "seconds")?,
            cpu_ms: 1000.0 * number(&answer, "cpu_seconds")? / tokens,
        })
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        // It ends by itself when its input does; either way it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
