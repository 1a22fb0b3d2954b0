//! How fast the native engine is on a model file: decode, prefill, and what receipts and
//! verification cost.
//!
//! ```text
//! cargo run --release -p assay-models --example random_gguf -- q05.gguf --shape q05 --quant q8_0
//! cargo run --release -p assay-engine --example speed -- q05.gguf [--json] [--w4]
//! cargo run --release -p assay-engine --example speed -- q05.gguf --ask
//! ```
//! Wall time, medians of five; every figure is of the whole pass, attention and sampling included.
//! With `--w4` the weights get four bits.
//!
//! With `--ask` it runs what the lines of its input name, `decode 2 64` for 64 tokens on two threads, and
//! answers each with the wall and processor time that it took.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints")]

use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use assay_engine::import::{Options, import};
use assay_engine::{Loaded, replay};
use assay_evidence::Verdict;
use assay_kernels::{Cpu, Format, Isa};
use assay_protocol::{B256, Sampler, State, hidden_hash};

mod answers;

use answers::{Sequence, generate, tokens};

const RUNS: usize = 5;
const PREFILL: usize = 512;
const DECODE: usize = 64;
const PROMPT: usize = 64;
const OUTPUT: usize = 256;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let json = arguments.iter().any(|argument| argument == "--json");
    let path: PathBuf = arguments
        .iter()
        .find(|argument| !argument.starts_with("--"))
        .expect("usage: speed MODEL.gguf [--json] [--w4]")
        .into();
    let isa = Isa::from_env().expect("ASSAY_ISA names a path of this machine");
    let one = Cpu::new(isa, NonZeroUsize::MIN).expect("the path was checked");
    let two = Cpu::new(isa, NonZeroUsize::new(2).expect("two")).expect("the path was checked");

    eprintln!("importing {} …", path.display());
    let began = Instant::now();
    let four = arguments.iter().any(|argument| argument == "--w4");
    let weights = if four { Format::W4 } else { Format::W8 };
    let options = Options { weights, ..Options::default() };
    let (package, report) = import(&path, &options, &two, &mut |_| ()).expect("the model imports");
    eprintln!("{} parameters in {:.1} s, {isa}", report.parameters, began.elapsed().as_secs_f64());
    let loaded = package.load().expect("the package loads");
    if arguments.iter().any(|argument| argument == "--ask") {
        return answer_all(&loaded, [&one, &two]).expect("whoever asks names tasks");
    }

    let mut rows = Vec::new();
    for (cpu, threads) in [(&one, "1t"), (&two, "2t")] {
        let step = median(|| decode(&loaded, cpu, DECODE)) / DECODE as f64;
        rows.push((format!("engine.decode.tok_s.{threads}"), 1.0 / step, "tokens/s"));
        let prefill = median(|| prefill(&loaded, cpu, PREFILL)) / PREFILL as f64;
        rows.push((format!("engine.prefill.tok_s.{threads}"), 1.0 / prefill, "tokens/s"));
        if threads == "2t" {
            let commit = median(|| commitments(&loaded)) / DECODE as f64;
            rows.push(("receipt.commit.share".into(), commit / step, "of decode time"));
        }
    }
    let (generated, answer) = generate(&loaded, &two, [PROMPT, OUTPUT], &Sampler::greedy());
    let verified = median(|| {
        let began = Instant::now();
        let verdict = replay(&loaded, &two, &answer, &mut |_, _| ());
        assert!(matches!(verdict, Ok(Verdict::True)), "{verdict:?}");
        began.elapsed().as_secs_f64()
    });
    rows.push(("verify.share.0_5b".into(), verified / generated, "of generation time"));

    for (name, value, unit) in rows {
        if json {
            println!("{{\"name\":\"{name}\",\"value\":{value:.4},\"unit\":\"{unit}\"}}");
        } else {
            println!("{name:28} {value:>10.4} {unit}");
        }
    }
}

/// Runs what the input asks for, line by line.
fn answer_all(loaded: &Loaded, cpus: [&Cpu; 2]) -> Result<(), Box<dyn Error>> {
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let mut words = line.split_whitespace();
        let task = match words.next() {
            Some("decode") => decode,
            Some("prefill") => prefill,
            _ => return Err(format!("no task in {line:?}").into()),
        };
        let mut number = || words.next().and_then(|word| word.parse::<usize>().ok());
        let threads = number().ok_or("no threads")?;
        let cpu = cpus.get(threads.wrapping_sub(1)).ok_or("neither one thread nor two")?;
        let count = number().ok_or("no tokens")?;
        let cpu_before = cpu_seconds()?;
        let seconds = task(loaded, cpu, count);
        let cpu_seconds = cpu_seconds()? - cpu_before;
        println!("{{\"seconds\":{seconds},\"cpu_seconds\":{cpu_seconds}}}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// Processor time of this process so far, as Linux counts it, in hundredths.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // What follows the program's name, which may hold anything.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| -> Result<f64, Box<dyn Error>> {
        Ok(fields.get(at).ok_or("a process has its times")?.parse()?)
    };
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

fn median(mut run: impl FnMut() -> f64) -> f64 {
    let mut times: Vec<f64> = (0..RUNS).map(|_| run()).collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}

fn decode(loaded: &Loaded, cpu: &Cpu, count: usize) -> f64 {
    let mut sequence = Sequence::new(loaded, cpu);
    let (mut token, _) = sequence.feed(&tokens(loaded, 16));
    let began = Instant::now();
    for _ in 0..count {
        (token, _) = sequence.feed(&[token]);
    }
    began.elapsed().as_secs_f64()
}

/// Prompts run in the scheduler's chunks.
fn prefill(loaded: &Loaded, cpu: &Cpu, count: usize) -> f64 {
    let prompt = tokens(loaded, count);
    let mut sequence = Sequence::new(loaded, cpu);
    let began = Instant::now();
    for chunk in prompt.chunks(256) {
        black_box(sequence.feed(chunk));
    }
    began.elapsed().as_secs_f64()
}

/// What a receipt adds per token: the hash of the hidden state and the chained state.
fn commitments(loaded: &Loaded) -> f64 {
    let columns = (loaded.manifest.shape.width as usize).next_multiple_of(128);
    let (quants, scales) = (vec![3i8; columns], vec![7u16; columns / 32]);
    let mut state = State(B256::ZERO);
    let began = Instant::now();
    for token in 0..DECODE as u32 {
        state = state.next(token, hidden_hash(black_box(&quants), black_box(&scales)));
    }
    black_box(state);
    began.elapsed().as_secs_f64()
}
