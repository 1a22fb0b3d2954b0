//! What this machine computes, in a few hashes, to hold beside those of other machines.
//!
//! ```text
//! cargo run --release -p assay-engine --example bits -- assets/nano/nano-q8_0.gguf
//! ```
//! Prints the id that the file has as a model, and of some answers the tokens, the last state and what a
//! replay says. `ASSAY_ISA` names a path of this machine. `cargo xtask machines` runs it on every
//! path, and on processors that this machine is not.

#![allow(clippy::print_stdout, clippy::expect_used, reason = "prints, or says why it cannot")]

use std::num::NonZeroUsize;
use std::path::PathBuf;

use assay_engine::import::{Options, import};
use assay_engine::replay;
use assay_kernels::{Cpu, Isa};
use assay_protocol::{B256, Sampler, keccak256};

mod answers;

use answers::generate;

/// Tokens of a prompt, and most of an answer.
const LENGTHS: [[usize; 2]; 3] = [[1, 24], [40, 40], [150, 24]];

fn main() {
    let path: PathBuf = std::env::args_os().nth(1).expect("usage: bits MODEL.gguf").into();
    let isa = Isa::from_env().expect("ASSAY_ISA names a path of this machine");
    let cpu = Cpu::new(isa, NonZeroUsize::MIN).expect("the path was checked");
    let (package, _) = import(&path, &Options::default(), &cpu, &mut |_| ()).expect("it imports");
    let loaded = package.load().expect("what was imported loads");
    println!("model {}", loaded.id);
    for (number, sampler) in samplers().iter().enumerate() {
        for lengths @ [prompt, _] in LENGTHS {
            let (_, answer) = generate(&loaded, &cpu, lengths, sampler);
            let verdict = replay(&loaded, &cpu, &answer, &mut |_, _| ()).expect("it replays");
            let (state, finish) = (answer.receipt.state, answer.receipt.finish);
            let tokens = answer.output.len();
            println!("sampler {number}, prompt of {prompt}: {tokens} tokens, {finish}, {state}");
            println!("  {verdict:?}");
        }
    }
}

/// Greedy; at temperature 1; with every rule at once.
fn samplers() -> [Sampler; 3] {
    let greedy = Sampler::greedy();
    let warm = Sampler { inv_t_q16: 94_548, seed: seed(1), ..greedy.clone() };
    let all = Sampler {
        top_k: 40,
        top_p_q16: 60_000,
        min_p_q16: 1_000,
        rep_q16: 70_000,
        freq_q16: 3_000,
        pres_q16: -2_000,
        seed: seed(2),
        choice: 3,
        ..warm.clone()
    };
    [greedy, warm, all]
}

fn seed(number: u8) -> B256 {
    keccak256([number])
}
