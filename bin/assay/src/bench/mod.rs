//! `assay bench`: how soon, how smoothly and how much servers answer that speak OpenAI's API.
//!
//! Several servers are measured in turns, round after round, so that what else the machine does falls
//! on all of them alike; a figure is the median of its rounds. Their names and meanings are those of
//! vLLM's benchmark, so that figures compare.

mod arrivals;
mod compare;
mod figures;
mod load;
mod process;
mod prompts;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use crate::data::write_whole;
use crate::failure::{Exit, Failure, Outcome};
use crate::gateway::Gateway;
use crate::terminal::{note, say, say_json};
use arrivals::Arrivals;
use compare::{Bar, Baseline};
use figures::{Figures, Goal, Summary};
use load::{Load, Measured};
use prompts::Prompts;

const SCHEMA: &str = "assay.bench/1";

/// Measure servers that speak OpenAI's API, one or several in turns
#[derive(Args, Debug)]
pub(crate) struct Bench {
    /// A server; given several times, they are measured in turns
    #[arg(long, value_name = "URL", env = "ASSAY_URL", default_value = "http://127.0.0.1:8700")]
    url: Vec<String>,
    /// API key, where the servers demand one
    #[arg(long, value_name = "KEY", env = "ASSAY_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Model that answers [default: each server's first]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Requests to each server in each round
    #[arg(long, value_name = "N", default_value = "32")]
    requests: NonZeroUsize,
    /// Rounds; figures are the medians over them
    #[arg(long, value_name = "N", default_value = "5")]
    rounds: NonZeroUsize,
    /// Most requests under way at once
    #[arg(long, value_name = "N", default_value = "8")]
    concurrency: NonZeroUsize,
    /// Requests a second, at random times, instead of one after the other; delays count from when a
    /// request was due
    #[arg(long, value_name = "R", value_parser = positive)]
    rate: Option<f64>,
    /// How evenly they arrive: 1 is a Poisson process, below 1 come bursts
    #[arg(long, value_name = "SHAPE", default_value = "1", value_parser = positive, requires = "rate")]
    burstiness: f64,
    /// Words of a prompt
    #[arg(long, value_name = "N", default_value = "128")]
    input: NonZeroUsize,
    /// How many of them all prompts begin with
    #[arg(long, value_name = "N", default_value_t = 0)]
    shared: usize,
    /// Most tokens of an answer
    #[arg(long, value_name = "N", default_value = "64")]
    output: NonZeroUsize,
    /// Ask for answers of full length, of servers that know `ignore_eos`
    #[arg(long)]
    ignore_eos: bool,
    /// Number that the prompts and the arrivals follow from
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// What a good request keeps to, in milliseconds, as in `ttft:500`; `ttft`, `tpot` or `e2e`
    #[arg(long, value_name = "NAME:MS", value_parser = Goal::parse)]
    slo: Vec<Goal>,
    /// Process of each server, in the order of --url, whose processor time is counted, children included
    #[arg(long, value_name = "PID")]
    pid: Vec<u32>,
    /// Keep what was measured in a file
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Show the change since what an earlier run kept
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Fail if the first server is past this: `ttft_ms.p95>500`, or, with --compare, `ttft_ms.p95>+10%`
    #[arg(long, value_name = "BAR", value_parser = Bar::parse)]
    fail_if: Vec<Bar>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if number.is_finite() && number > 0.0 { Ok(number) } else { Err("not above zero".into()) }
}

/// A server that is measured.
struct Target {
    gateway: Gateway,
    model: String,
    pid: Option<u32>,
    rounds: Vec<Figures>,
    /// What requests failed of, and how often.
    failures: BTreeMap<String, usize>,
}

impl Bench {
    pub(crate) async fn run(self) -> Outcome {
        self.check()?;
        let baseline = self.compare.as_deref().map(Baseline::read).transpose()?;
        let mut targets = Vec::new();
        for (index, url) in self.url.iter().enumerate() {
            targets.push(self.target(url, self.pid.get(index).copied()).await?);
        }
        let mut prompts = Prompts::new(self.seed, self.input.get(), self.shared);
        for target in &mut targets {
            // The first requests pay for connections and caches of every kind; nobody counts them.
            let warming = Load { prompts: prompts.take(self.concurrency.get()), ..self.load(0) };
            let warmed = warming.put_on(&target.gateway, &self.request(&target.model)).await;
            if let Some(failure) = warmed.into_iter().find_map(Result::err) {
                return Err(failure);
            }
        }
        for round in 0..self.rounds.get() {
            let load =
                Load { prompts: prompts.take(self.requests.get()), ..self.load(round as u64) };
            self.round(round, &load, &mut targets).await;
        }
        self.report(&targets, baseline.as_ref())
    }

    fn check(&self) -> Outcome {
        if self.shared > self.input.get() {
            let (shared, input) = (self.shared, self.input);
            let what = format!("--shared {shared} is more than --input {input}");
            return Err(Failure::new(Exit::Usage, what));
        }
        if !self.pid.is_empty() && self.pid.len() != self.url.len() {
            let (pids, urls) = (self.pid.len(), self.url.len());
            let what = format!("{pids} processes for {urls} servers");
            return Err(Failure::new(Exit::Usage, what).fix("pass one --pid for each --url"));
        }
        if self.compare.is_none() && self.fail_if.iter().any(Bar::is_relative) {
            let what = "there is nothing that a change could be measured from";
            return Err(Failure::new(Exit::Usage, what).fix("pass --compare FILE"));
        }
        Ok(())
    }

    async fn target(&self, url: &str, pid: Option<u32>) -> Outcome<Target> {
        let gateway = Gateway::with(url, self.api_key.as_deref())?;
        let model = match &self.model {
            Some(model) => model.clone(),
            None => gateway.first_model().await?,
        };
        Ok(Target { gateway, model, pid, rounds: Vec::new(), failures: BTreeMap::new() })
    }

    /// What every request has in common.
    fn request(&self, model: &str) -> Value {
        let mut request = json!({
            "model": model,
            "max_tokens": self.output,
            "temperature": 0,
            "stream": true,
            "stream_options": { "include_usage": true },
        });
        if self.ignore_eos {
            request["ignore_eos"] = json!(true);
        }
        request
    }

    /// A load without prompts.
    fn load(&self, round: u64) -> Load {
        let seed = self.seed.wrapping_add(round);
        let arrivals = self.rate.map(|rate| Arrivals { rate, burstiness: self.burstiness, seed });
        Load { prompts: Vec::new(), concurrency: self.concurrency, arrivals }
    }

    /// Puts one load on every server, the last one first in every second round.
    async fn round(&self, round: usize, load: &Load, targets: &mut [Target]) {
        let mut order: Vec<usize> = (0..targets.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let target = &mut targets[index];
            let request = self.request(&target.model);
            let measured = Measured::of(load, &target.gateway, &request, target.pid).await;
            let figures = measured.figures(&self.slo);
            let (rounds, url) = (self.rounds, target.gateway.url());
            let speed = figures.get("output_tokens_s").copied().unwrap_or_default();
            let (answers, requests) = (measured.replies.len(), load.prompts.len());
            note(format_args!(
                "round {} of {rounds}: {url}: {answers} of {requests} answered, {speed:.1} tokens/s",
                round + 1
            ));
            for failure in measured.failures {
                *target.failures.entry(failure).or_default() += 1;
            }
            target.rounds.push(figures);
        }
    }

    fn report(&self, targets: &[Target], baseline: Option<&Baseline>) -> Outcome {
        let summaries: Vec<Summary> =
            targets.iter().map(|target| Summary::of(&target.rounds)).collect();
        let document = self.document(targets, &summaries);
        if let Some(file) = &self.save {
            write_whole(file, format!("{document:#}\n").as_bytes())?;
        }
        if self.json {
            say_json(&document);
        } else {
            let urls: Vec<&str> = targets.iter().map(|target| target.gateway.url()).collect();
            say(figures::table(&urls, &summaries, baseline));
        }
        for target in targets {
            for (failure, times) in &target.failures {
                note(format_args!("{}: {times} times: {failure}", target.gateway.url()));
            }
        }
        if targets.iter().any(|target| target.rounds.iter().all(|round| round["answered"] == 0.0)) {
            return Err(Failure::new(Exit::Unreachable, "a server answered nothing"));
        }
        let past: Vec<String> =
            self.fail_if.iter().filter_map(|bar| bar.past(&summaries[0], baseline)).collect();
        match past.is_empty() {
            true => Ok(()),
            false => Err(Failure::new(Exit::Failed, past.join("; "))),
        }
    }

    fn document(&self, targets: &[Target], summaries: &[Summary]) -> Value {
        let servers = targets.iter().zip(summaries).map(|(target, summary)| {
            json!({
                "url": target.gateway.url(),
                "model": target.model,
                "figures": summary.document(),
                "failures": target.failures,
            })
        });
        json!({
            "schema": SCHEMA,
            "asked": {
                "requests": self.requests,
                "rounds": self.rounds,
                "concurrency": self.concurrency,
                "rate": self.rate,
                "burstiness": self.burstiness,
                "input": self.input,
                "shared": self.shared,
                "output": self.output,
                "ignore_eos": self.ignore_eos,
                "seed": self.seed,
            },
            "servers": servers.collect::<Vec<_>>(),
        })
    }
}
