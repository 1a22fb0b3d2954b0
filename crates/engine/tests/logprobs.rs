//! Logprobs are those of the replay, bit for bit, and asking for them changes nothing.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::sync::Arc;

use assay_engine::{Backend, Delta, Job, Native, NativeConfig, logprobs_of};
use assay_kernels::Isa;
use assay_protocol::{Finish, Logprobs, Terms};
use support::{NANO, cpu, greedy, job, order, prompt, run, sampled, sign};

/// Alternatives asked for.
const TOP: u8 = 5;

/// Runs a job to its end, for its tokens and logprobs.
fn rated(backend: &dyn Backend, mut job: Job) -> (Vec<Logprobs>, Finish) {
    job.logprobs = Some(TOP);
    let mut deltas = backend.run(job).unwrap();
    let mut found = Vec::new();
    loop {
        match deltas.next_blocking().unwrap() {
            Delta::Token { token, logprobs, .. } => {
                let logprobs = *logprobs.unwrap();
                assert_eq!(logprobs.token, token);
                found.push(logprobs);
            }
            Delta::Vector(_) => panic!("a vector of a model that writes"),
            Delta::Done(finish) => return (found, finish),
        }
    }
}

/// Temperature, penalties and a bias that forces unlikely tokens.
fn bent() -> Terms {
    let mut terms = sampled(prompt(&NANO, "sort: 3 1 2"), 9);
    (terms.sampler.rep_q16, terms.sampler.freq_q16) = (80_000, 20_000);
    terms.bias = vec![(20, 900_000)];
    terms.sampler.bias = assay_protocol::bias_hash(&terms.bias);
    terms
}

#[test]
fn logprobs_are_those_of_the_replay() {
    let backend =
        Native::start(Arc::clone(&NANO), Arc::new(cpu(Isa::detect(), 1)), NativeConfig::default());
    for terms in [greedy(prompt(&NANO, "1+1=")), bent()] {
        let (plain, finish) = run(&backend, job(&NANO, &terms, 12));
        let (found, rated_finish) = rated(&backend, job(&NANO, &terms, 12));
        let tokens: Vec<u32> = plain.iter().map(|(token, _)| *token).collect();
        assert_eq!(found.iter().map(|said| said.token).collect::<Vec<_>>(), tokens);
        assert_eq!(finish, rated_finish);
        for said in &found {
            said.check(TOP, NANO.model.shape().vocab).unwrap();
        }
        let order = order(&NANO, &terms, 12);
        let mut answer = sign(&NANO, order, terms, &plain, finish);
        let again = logprobs_of(&NANO, &cpu(Isa::Scalar, 1), &answer, TOP).unwrap();
        assert_eq!(again, found);
        // What is not the model's token has no logprob of the model's.
        answer.output[1] ^= 1;
        let again = logprobs_of(&NANO, &cpu(Isa::detect(), 1), &answer, TOP).unwrap();
        assert_eq!(again, found[..1]);
    }
}

#[test]
fn penalties_and_biases_do_not_change_what_the_model_holds_likely() {
    let backend =
        Native::start(Arc::clone(&NANO), Arc::new(cpu(Isa::detect(), 1)), NativeConfig::default());
    let terms = bent();
    let plain = greedy(terms.prompt.clone());
    let (bent, _) = rated(&backend, job(&NANO, &terms, 1));
    let (plain, _) = rated(&backend, job(&NANO, &plain, 1));
    assert_eq!(bent[0].top, plain[0].top);
    assert_ne!(bent[0].token, plain[0].token);
    assert!(bent[0].logprob < plain[0].logprob);
}
