//! The rules in Rust and their twins on chain, held together: by golden vectors that a third,
//! independent implementation wrote, and by random and extreme openings that both are shown.

#![allow(clippy::unwrap_used, reason = "a test may stop with a panic")]
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a judge has neither clock nor threads, its test has"
)]

mod chain;
mod openings;
mod twin;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde::Deserialize;

use crate::chain::Chain;
use crate::openings::{Noise, RULES, call};
use crate::twin::{selector, twin};

/// Cases of each rule in the quick test.
const CASES: u32 = 4_000;
/// Cases of each rule in the thorough one.
const CASES_MANY: u32 = 1_000_000;

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
}

/// One call of one rule.
#[derive(Deserialize)]
struct Case {
    name: String,
    /// Of the function, as Solidity writes it.
    signature: String,
    arguments: String,
    /// Signature of the error with which the rule refuses; empty if it does not.
    error: String,
    /// The ABI encoding of what is returned, or of the error's fields.
    result: String,
}

fn bytes(hex: &str) -> Vec<u8> {
    assay_protocol::hex::decode(hex).unwrap()
}

#[test]
fn both_give_the_golden_vectors() {
    let text = include_str!("../../../../tests/vectors/ops.json");
    let mut chain = Chain::new();
    let cases = serde_json::from_str::<Vectors>(text).unwrap().cases;
    for Case { name, signature, arguments, error, result } in &cases {
        let call = [&selector(signature)[..], &bytes(arguments)].concat();
        let expected = match error.as_str() {
            "" => Ok(bytes(result)),
            error => Err([&selector(error)[..], &bytes(result)].concat()),
        };
        assert_eq!(twin(&call), expected, "{name} in Rust");
        assert_eq!(chain.call(&call).0, expected, "{name} on chain");
    }
    for rule in RULES {
        let named = |case: &&Case| case.signature.split('(').next() == Some(rule);
        assert!(cases.iter().filter(named).count() > 0, "no vector of {rule}");
    }
}

/// Shows both sides the same openings; returns how many were refused.
fn agree(chain: &mut Chain, rule: &str, cases: u32, seed: u64) -> u32 {
    let mut noise = Noise::new(seed);
    let mut refused = 0;
    for case in 0..cases {
        let call = call(rule, &mut noise);
        let expected = twin(&call);
        let (found, _) = chain.call(&call);
        assert_eq!(found, expected, "{rule}, case {case} of seed {seed}");
        refused += u32::from(expected.is_err());
    }
    refused
}

/// Shows both sides openings of every rule, on two threads.
#[allow(clippy::print_stderr, reason = "shows how far it is")]
fn all_agree(cases: u32, first_seed: u64) {
    let work: Vec<(u64, &str)> = (first_seed..).zip(RULES).collect();
    let next = AtomicUsize::new(0);
    let run = || {
        let mut chain = Chain::new();
        while let Some((seed, rule)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
            let start = Instant::now();
            let refused = agree(&mut chain, rule, cases, *seed);
            eprintln!("{rule}: {cases} agree, {refused} refused, {:?}", start.elapsed());
            // What is refused shows little: most openings are to be judged.
            assert!(refused < cases * 3 / 4, "{rule}: {refused} of {cases} openings refused");
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(run);
        run();
    });
}

#[test]
fn both_agree_on_random_openings() {
    all_agree(CASES, 1);
}

/// `cargo test --release -p assay-evidence --test judge -- --ignored --nocapture`
#[test]
#[ignore = "minutes of work, with --release"]
fn both_agree_on_a_million_random_openings_of_each_rule() {
    all_agree(CASES_MANY, 1_000);
}
