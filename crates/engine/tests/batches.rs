//! Nothing about the company a job keeps changes a bit of its answer.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::num::NonZeroUsize;
use std::sync::Arc;

use assay_engine::{Backend, Delta, Native, NativeConfig};
use assay_kernels::Isa;
use assay_protocol::{B256, Finish, Terms};
use proptest::prelude::*;
use support::{NANO, cpu, greedy, job, prompt, run, sampled};

/// One request of a mix.
#[derive(Clone, Debug)]
struct Request {
    user: String,
    seed: Option<u8>,
    tokens_max: u32,
    /// Leave after so many deltas.
    leaves: Option<usize>,
}

impl Request {
    fn terms(&self) -> Terms {
        let prompt = prompt(&NANO, &self.user);
        self.seed.map_or(greedy(prompt.clone()), |seed| sampled(prompt, seed))
    }
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let request = ("[a-z0-9+ ]{1,80}", any::<Option<u8>>(), 1u32..40, any::<Option<u8>>());
    let request = request.prop_map(|(user, seed, tokens_max, leaves)| Request {
        user,
        seed,
        tokens_max,
        leaves: leaves.map(|n| usize::from(n % 16)),
    });
    prop::collection::vec(request, 1..10)
}

fn config(running: usize, rows: usize) -> NativeConfig {
    NativeConfig {
        running_max: NonZeroUsize::new(running).unwrap(),
        rows_max: NonZeroUsize::new(rows).unwrap(),
        ..NativeConfig::default()
    }
}

/// The definition: one job at a time, one row at a time, in the plainest arithmetic.
fn alone(request: &Request) -> (Vec<(u32, B256)>, Finish) {
    let backend = Native::start(NANO.clone(), Arc::new(cpu(Isa::Scalar, 1)), config(1, 1));
    run(&backend, job(&NANO, &request.terms(), request.tokens_max))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_mix_answers_as_if_each_were_alone(
        requests in requests(),
        running in 1usize..9,
        rows in 1usize..70,
        threads in 1usize..4,
    ) {
        let cpu = Arc::new(cpu(Isa::detect(), threads));
        let backend = Native::start(NANO.clone(), cpu, config(running, rows));
        let streams: Vec<_> = requests
            .iter()
            .map(|request| backend.run(job(&NANO, &request.terms(), request.tokens_max)).unwrap())
            .collect();
        for (request, mut stream) in requests.iter().zip(streams) {
            let (expected, finish) = alone(request);
            let mut found = Vec::new();
            let mut end = None;
            while request.leaves.is_none_or(|leaves| found.len() < leaves) {
                match stream.next_blocking() {
                    Some(Delta::Token { token, hidden, .. }) => found.push((token, hidden)),
                    Some(Delta::Done(finish)) => {
                        end = Some(finish);
                        break;
                    }
                    None => panic!("a stream closed without an end"),
                }
            }
            prop_assert_eq!(&found[..], &expected[..found.len()]);
            if let Some(end) = end {
                prop_assert_eq!((found, end), (expected, finish));
            }
        }
    }
}

#[test]
fn a_full_queue_refuses() {
    let config = NativeConfig {
        running_max: NonZeroUsize::MIN,
        queue_max: NonZeroUsize::new(2).unwrap(),
        ..NativeConfig::default()
    };
    let backend = Native::start(NANO.clone(), Arc::new(cpu(Isa::Scalar, 1)), config);
    let terms = greedy(prompt(&NANO, "Reverse: abc"));
    let outcomes: Vec<_> = (0..8).map(|_| backend.run(job(&NANO, &terms, 64))).collect();
    let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    assert!((4..=6).contains(&refused), "{refused} of 8 refused with one running and two waiting");
}

#[test]
fn dropping_the_backend_closes_its_streams() {
    let backend = Native::start(NANO.clone(), Arc::new(cpu(Isa::Scalar, 1)), config(4, 4));
    let terms = sampled(prompt(&NANO, "Reverse: abc"), 1);
    let mut streams: Vec<_> =
        (0..6).map(|_| backend.run(job(&NANO, &terms, 1000)).unwrap()).collect();
    drop(backend);
    for stream in &mut streams {
        while stream.next_blocking().is_some() {}
    }
}
