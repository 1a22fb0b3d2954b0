//! The shipped model answers.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::sync::Arc;

use assay_engine::{Native, NativeConfig};
use assay_kernels::Isa;
use support::{NANO, cpu, greedy, job, prompt, run};

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
