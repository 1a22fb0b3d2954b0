//! What guessing ahead gains where an answer copies its prompt, and costs where it does not.
//!
//! ```text
//! cargo run --release -p assay-models --example random_gguf -- counts.gguf --counts yes
//! cargo run --release -p assay-engine --example guesses -- counts.gguf
//! ```
//! The model says after each token the next higher id. One prompt is a run of ids and then the id
//! before it, so the answer is a copy of the prompt; the other's answer is new throughout. Each
//! setting of `guess_rows_max` answers the same orders in turns with the others; answers are compared,
//! and figures are medians of five. Time counts from the first token on, so prefill is left out.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints")]

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use assay_engine::import::{Options, import};
use assay_engine::{Backend, Delta, Deltas, Figures, Job, Loaded, Native, NativeConfig};
use assay_kernels::{Cpu, Isa};
use assay_protocol::{LOCAL_CHAIN, Sampler, Terms};

mod answers;

const RUNS: usize = 5;
/// Tokens of a prompt, and of an answer.
const TOKENS: u32 = 96;
/// Ids below are bytes and the end.
const FIRST: u32 = 1_000;
const ROWS_MAX: [usize; 4] = [0, 4, 8, 16];

fn main() {
    let path: PathBuf = std::env::args().nth(1).expect("usage: guesses MODEL.gguf").into();
    let isa = Isa::from_env().expect("ASSAY_ISA names a path of this machine");
    let cpu = Cpu::new(isa, NonZeroUsize::new(2).expect("two")).expect("the path was checked");
    let (package, _) =
        import(&path, &Options::default(), &cpu, &mut |_| ()).expect("the model imports");
    let (loaded, cpu) = (Arc::new(package.load().expect("the package loads")), Arc::new(cpu));
    let backends = ROWS_MAX.map(|guess_rows_max| {
        let config = NativeConfig { guess_rows_max, ..NativeConfig::default() };
        Native::start(Arc::clone(&loaded), Arc::clone(&cpu), config)
    });
    println!("task   streams  guess rows  tokens/s  gain   right  wrong");
    for (task, copies) in [("copy", true), ("new", false)] {
        for streams in [1, 4] {
            compare(&loaded, &backends, task, &prompts(copies, streams));
        }
    }
}

/// Runs of ids that are far from each other.
fn prompts(copies: bool, streams: u32) -> Vec<Vec<u32>> {
    let run = |stream: u32| {
        let first = FIRST + 10 * TOKENS * stream;
        (first..first + TOKENS - 1).chain([if copies { first - 1 } else { first + 5 * TOKENS }])
    };
    (0..streams).map(|stream| run(stream).collect()).collect()
}

fn compare(loaded: &Loaded, backends: &[Native], task: &str, prompts: &[Vec<u32>]) {
    let mut times = vec![Vec::new(); backends.len()];
    let before: Vec<Figures> = backends.iter().map(Native::figures).collect();
    for _ in 0..RUNS {
        let mut expected = None;
        for (backend, times) in backends.iter().zip(&mut times) {
            let (seconds, answers) = answer(loaded, backend, prompts);
            times.push(seconds);
            assert_eq!(*expected.get_or_insert(answers.clone()), answers, "guesses change nothing");
        }
    }
    let tokens = prompts.len() as f64 * f64::from(TOKENS - 1);
    let speeds = times.iter_mut().map(|times| {
        times.sort_by(f64::total_cmp);
        tokens / times[RUNS / 2]
    });
    let speeds: Vec<f64> = speeds.collect();
    for (index, (backend, speed)) in backends.iter().zip(&speeds).enumerate() {
        let (rows, streams, gain) = (ROWS_MAX[index], prompts.len(), speed / speeds[0]);
        let figures = backend.figures();
        let guessed = (figures.guessed_tokens - before[index].guessed_tokens) / RUNS as u64;
        let right = (figures.guessed_right - before[index].guessed_right) / RUNS as u64;
        let wrong = guessed - right;
        println!("{task:5} {streams:8} {rows:11} {speed:9.1} {gain:5.2} {right:7} {wrong:6}");
    }
}

/// Seconds from the first token of all to the last, and the answers.
fn answer(loaded: &Loaded, backend: &Native, prompts: &[Vec<u32>]) -> (f64, Vec<Vec<u32>>) {
    let start = |prompt: &Vec<u32>| backend.run(job(loaded, prompt)).expect("the queue is long");
    let mut streams: Vec<Deltas> = prompts.iter().map(start).collect();
    let mut answers: Vec<Vec<u32>> = streams.iter_mut().map(|stream| take(stream, 1)).collect();
    let began = Instant::now();
    for (stream, answer) in streams.iter_mut().zip(&mut answers) {
        answer.extend(take(stream, TOKENS as usize));
    }
    (began.elapsed().as_secs_f64(), answers)
}

fn job(loaded: &Loaded, prompt: &[u32]) -> Job {
    let sampler = Sampler::greedy();
    let terms = Terms {
        prompt: prompt.to_vec(),
        sampler,
        stops: Vec::new(),
        bias: Vec::new(),
        grammar: None,
    };
    let order = answers::order(loaded, &terms, TOKENS);
    Job::new(order.hash(LOCAL_CHAIN), &order, &terms, &[], loaded.context())
}

/// The next tokens, at most so many.
fn take(stream: &mut Deltas, tokens_max: usize) -> Vec<u32> {
    let mut tokens = Vec::new();
    while tokens.len() < tokens_max
        && let Some(Delta::Token { token, .. }) = stream.next_blocking()
    {
        tokens.push(token);
    }
    tokens
}
