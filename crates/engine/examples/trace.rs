//! How fast the trace of an answer is computed again, beside the answer itself and its replay.
//!
//! ```text
//! cargo run --release -p assay-engine --example trace -- MODEL.gguf NAME [--json]
//! ```
//! Two threads, wall time; replay and trace are medians of three. NAME stands in the rows' names.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints")]

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use assay_engine::import::{Options, import};
use assay_engine::{Trace, Trees, replay};
use assay_evidence::Verdict;
use assay_evidence::dispute::Trace as _;
use assay_evidence::op::{Claim, LeafKind};
use assay_kernels::{Cpu, Isa};
use assay_protocol::{Answer, B256, Sampler};

mod answers;

use answers::generate;

const RUNS: usize = 3;
const PROMPT: usize = 128;
const OUTPUT: usize = 128;
const THREADS: usize = 2;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let json = arguments.iter().any(|argument| argument == "--json");
    let [path, name, ..] = &arguments[..] else { panic!("usage: trace MODEL.gguf NAME [--json]") };
    let isa = Isa::from_env().expect("ASSAY_ISA names a path of this machine");
    let threads = NonZeroUsize::new(THREADS).expect("two");
    let cpu = Arc::new(Cpu::new(isa, threads).expect("the path was checked"));
    rayon::ThreadPoolBuilder::new().num_threads(THREADS).build_global().expect("threads");

    eprintln!("importing {path} …");
    let (package, _) =
        import(Path::new(path), &Options::default(), &cpu, &mut |_| ()).expect("the model imports");
    let mut loaded = package.load().expect("the package loads");
    // No end token, and no text: an answer is as long as it is meant to be.
    loaded.manifest.eos.clear();
    loaded.id = loaded.manifest.id();
    loaded.tokenizer = None;
    let loaded = Arc::new(loaded);

    let (generated, answer) = generate(&loaded, &cpu, [PROMPT, OUTPUT], &Sampler::greedy());
    let replayed = median(|| {
        let verdict = replay(&loaded, &cpu, &answer, &mut |_, _| ());
        assert!(matches!(verdict, Ok(Verdict::True)), "{verdict:?}");
    });
    let compute = || {
        Trace::compute(Arc::clone(&loaded), Arc::clone(&cpu), &answer, &mut |_, _| ())
            .expect("an answer has a trace")
    };
    let traced = median(|| drop(compute()));
    let trace = compute();
    assert_eq!(trace.states().last(), Some(&answer.receipt.state), "the trace is the answer's");
    let again = again(&trace, &answer);
    let began = Instant::now();
    Trees::new(Arc::clone(&loaded)).build(&mut |_, _| ()).expect("the weights are the manifest's");
    let built = began.elapsed().as_secs_f64();

    let positions = f64::from(trace.claim().positions());
    for (row, value, unit) in [
        ("generate", generated, "s"),
        ("replay", replayed, "s"),
        ("compute", traced, "s"),
        ("share_of_replay", traced / replayed, "of replay time"),
        ("share_of_generation", traced / generated, "of generation time"),
        ("positions_s", positions / traced, "positions/s"),
        ("hashed_mb_s", bytes(&trace.claim()) / traced / 1e6, "MB/s"),
        ("position_again", again, "s"),
        ("weight_tree", built, "s"),
    ] {
        if json {
            println!(
                "{{\"name\":\"trace.{name}.{row}\",\"value\":{value:.5},\"unit\":\"{unit}\"}}"
            );
        } else {
            println!("{:36} {value:>12.5} {unit}", format!("trace.{name}.{row}"));
        }
    }
}

fn median(mut run: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let began = Instant::now();
            run();
            began.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}

/// Seconds until the last position, which answers and attends to all others, can be opened.
fn again(trace: &Trace, answer: &Answer) -> f64 {
    let last = (answer.terms.prompt.len() + answer.output.len() - 2) as u32;
    let began = Instant::now();
    let nodes = trace.leaves(last, 0);
    let took = began.elapsed().as_secs_f64();
    assert_ne!(nodes.root(), B256::ZERO, "the last position has leaves");
    took
}

/// Bytes of all leaves of a trace.
fn bytes(claim: &Claim<'_>) -> f64 {
    let mut bytes = 0;
    for position in 0..claim.positions() {
        for op in 0..claim.ops() {
            for section in claim.layout(position, op).sections() {
                bytes += section.leaves()
                    * match section.kind {
                        LeafKind::Quantised => 136,
                        LeafKind::Fixed => 128,
                        LeafKind::Wide => 256,
                        LeafKind::State => 32,
                    };
            }
        }
    }
    bytes as f64
}
