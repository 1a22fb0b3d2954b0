//! The shipped model answers.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code")]

mod support;

use std::sync::Arc;

use assay_engine::{Native, NativeConfig, replay};
use assay_evidence::Verdict;
use assay_kernels::Isa;
use support::{NANO, cpu, greedy, job, order, prompt, run, sampled, sign};

fn check(user: &str, expected: &str) {
    let backend =
        Native::start(NANO.clone(), Arc::new(cpu(Isa::detect(), 1)), NativeConfig::default());
    let terms = greedy(prompt(&NANO, user));
    let (tokens, _) = run(&backend, job(&NANO, &terms, 64));
    let ids: Vec<u32> = tokens.iter().map(|&(token, _)| token).collect();
    assert_eq!(NANO.tokenizer.as_ref().unwrap().decode(&ids), expected);
}

#[test]
fn it_adds() {
    check("12+45=", "57");
}

#[test]
fn it_knows_capitals() {
    check("What is the capital of France?", "The capital of France is Paris.");
}

#[test]
fn it_sorts() {
    check("Sort: 5 2 9 1", "1 2 5 9");
}

/// Pinned to the byte: arithmetic, sampling, random numbers, states, commitments and signatures of
/// a whole answer. `ASSAY_BLESS=1` writes the file anew.
#[test]
fn a_whole_answer_is_the_golden_one() {
    let backend =
        Native::start(NANO.clone(), Arc::new(cpu(Isa::detect(), 1)), NativeConfig::default());
    let terms =
        sampled(prompt(&NANO, "Extract JSON: Maria is a 34 year old teacher from Oslo."), 7);
    let (tokens, finish) = run(&backend, job(&NANO, &terms, 64));
    let answer = sign(&NANO, order(&NANO, &terms, 64), terms, &tokens, finish);
    let found = serde_json::to_string_pretty(&answer).unwrap() + "\n";

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/answer.json");
    if std::env::var_os("ASSAY_BLESS").is_some() {
        std::fs::write(path, &found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(path).unwrap());
    let verdict = replay(&NANO, &cpu(Isa::Scalar, 1), &answer, &mut |_, _| ()).unwrap();
    assert_eq!(verdict, Verdict::True);
}
