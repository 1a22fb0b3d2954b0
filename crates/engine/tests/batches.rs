//! Nothing about the company a job keeps changes a bit of its answer.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock};

use assay_engine::import::{Options, import};
use assay_engine::{Backend, Delta, Deltas, Job, Loaded, Native, NativeConfig, Priority};
use assay_kernels::Isa;
use assay_protocol::{Address, B256, Finish, Terms};
use proptest::prelude::*;
use support::{NANO, asset, cpu, greedy, job, prompt, run, sampled};

/// The shipped model with a short context, so that a few jobs fill the smallest pool of pages.
static SHORT: LazyLock<Arc<Loaded>> = LazyLock::new(|| {
    let options = Options { context: Some(256), ..Options::default() };
    let cpu = cpu(Isa::detect(), 1);
    let package = import(&asset("nano-q8_0.gguf"), &options, &cpu, &mut |_| ()).unwrap().0;
    Arc::new(package.load().unwrap())
});

/// What prompts may begin with: nothing, less than a page, more than one, more than two.
const BEGINNINGS: [&str; 4] = ["", "Sort: ", "Reverse: abcdefgh", "Extract JSON: Maria is 34. "];
const TIMES: [usize; 4] = [0, 1, 12, 16];

/// One request of a mix.
#[derive(Clone, Debug)]
struct Request {
    beginning: usize,
    user: String,
    seed: Option<u8>,
    tokens_max: u32,
    /// Whether it goes on where the model would end.
    endless: bool,
    tenant: u8,
    priority: Priority,
    /// Leave after so many deltas.
    leaves: Option<usize>,
}

/// An answer, or what somebody saw of it who left.
type Said = (Vec<(u32, B256)>, Option<Finish>);

impl Request {
    fn terms(&self) -> Terms {
        let beginning = BEGINNINGS[self.beginning].repeat(TIMES[self.beginning]);
        let prompt = prompt(&SHORT, &(beginning + &self.user));
        self.seed.map_or(greedy(prompt.clone()), |seed| sampled(prompt, seed))
    }

    fn job(&self) -> Job {
        let mut job = job(&SHORT, &self.terms(), self.tokens_max);
        (job.tenant, job.priority) = (Address::repeat_byte(self.tenant), self.priority);
        if self.endless {
            job.ending.eos.clear();
        }
        job
    }

    /// The definition: one job at a time, one row at a time, in the plainest arithmetic.
    fn alone(&self) -> Said {
        let backend = Native::start(SHORT.clone(), Arc::new(cpu(Isa::Scalar, 1)), config(1, 1));
        let (tokens, finish) = run(&backend, self.job());
        assert_eq!(backend.figures().cached_tokens, 0);
        (tokens, Some(finish))
    }

    fn read(&self, stream: &mut Deltas) -> Said {
        let mut found = Vec::new();
        while self.leaves.is_none_or(|leaves| found.len() < leaves) {
            match stream.next_blocking() {
                Some(Delta::Token { token, hidden, .. }) => found.push((token, hidden)),
                Some(Delta::Done(finish)) => return (found, Some(finish)),
                Some(Delta::Vector(_)) => panic!("a vector of a model that writes"),
                None => panic!("a stream closed without an end"),
            }
        }
        (found, None)
    }
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let priority = prop::sample::select(vec![Priority::Low, Priority::Normal, Priority::High]);
    let of_whom = (0u8..3, priority, any::<Option<u8>>());
    let ending = (1u32..70, any::<bool>());
    let request = (0..BEGINNINGS.len(), "[a-z0-9+ ]{1,40}", any::<Option<u8>>(), ending, of_whom);
    let request = request.prop_map(|(beginning, user, seed, ending, of_whom)| Request {
        beginning,
        user,
        seed,
        tokens_max: ending.0,
        endless: ending.1,
        tenant: of_whom.0,
        priority: of_whom.1,
        leaves: of_whom.2.map(|n| usize::from(n % 16)),
    });
    prop::collection::vec(request, 1..8)
}

/// Guesses nothing, and remembers a single context.
fn config(running: usize, rows: usize) -> NativeConfig {
    NativeConfig {
        running_max: NonZeroUsize::new(running).unwrap(),
        rows_max: NonZeroUsize::new(rows).unwrap(),
        kv_bytes_max: 0,
        guess_rows_max: 0,
        ..NativeConfig::default()
    }
}

/// Asks for all at once, and compares what comes with what each is alone.
fn check(backend: &Native, requests: &[Request], expected: &[Said]) {
    let jobs: Vec<Job> = requests.iter().map(Request::job).collect();
    let streams: Vec<Deltas> = jobs.into_iter().map(|job| backend.run(job).unwrap()).collect();
    for ((request, mut stream), expected) in requests.iter().zip(streams).zip(expected) {
        let (found, end) = request.read(&mut stream);
        assert_eq!(found[..], expected.0[..found.len()]);
        if end.is_some() {
            assert_eq!((found, end), *expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Threads, batches, chunks, what is remembered, guesses, who leaves and who has to make room:
    /// one answer per order. Each mix is asked twice of the same backend, which remembers the first.
    #[test]
    fn a_mix_answers_as_if_each_were_alone(
        requests in requests(),
        running in 1usize..9,
        rows in 1usize..70,
        threads in 1usize..4,
        guess_rows_max in prop::sample::select(vec![0usize, 3, 16]),
        roomy in any::<bool>(),
    ) {
        let cpu = Arc::new(cpu(Isa::detect(), threads));
        let kv_bytes_max = if roomy { 1 << 26 } else { 0 };
        let config = NativeConfig { guess_rows_max, kv_bytes_max, ..config(running, rows) };
        let backend = Native::start(SHORT.clone(), cpu, config);
        let expected: Vec<Said> = requests.iter().map(Request::alone).collect();
        for _ in 0..2 {
            check(&backend, &requests, &expected);
        }
    }
}

/// What the property relies on happens: pages are found again, guesses hit and miss, jobs make room.
#[test]
fn a_crowd_in_a_small_room_is_answered_as_if_each_were_alone() {
    let request = |n: usize| Request {
        beginning: n % 4,
        user: format!("abc{}", n % 5),
        seed: n.is_multiple_of(3).then_some(n as u8),
        tokens_max: 40 + 10 * (n as u32 % 6),
        endless: n.is_multiple_of(2),
        tenant: n as u8 % 2,
        priority: Priority::Normal,
        leaves: (n % 7 == 6).then_some(n % 11),
    };
    let requests: Vec<Request> = (0..32).map(request).collect();
    let config = NativeConfig { guess_rows_max: 16, ..config(8, 48) };
    let backend = Native::start(SHORT.clone(), Arc::new(cpu(Isa::detect(), 2)), config);
    let expected: Vec<Said> = requests.iter().map(Request::alone).collect();
    check(&backend, &requests, &expected);
    // Alone, a job has rows to spare for guesses.
    for n in 0..8 {
        check(&backend, &requests[n..=n], &expected[n..=n]);
    }
    let figures = backend.figures();
    let wrong = figures.guessed_tokens - figures.guessed_right;
    let happened = [figures.cached_tokens, figures.preempted, figures.guessed_right, wrong];
    assert!(happened.iter().all(|&times| times > 0), "{figures:?}");
}

#[test]
fn what_a_tenant_asked_is_found_again_by_no_other() {
    let backend =
        Native::start(NANO.clone(), Arc::new(cpu(Isa::detect(), 1)), NativeConfig::default());
    let tokens = prompt(&NANO, &"Sort: 5 2 9 1 ".repeat(30));
    let ask = |tenant: u8| {
        let mut job = job(&NANO, &greedy(tokens.clone()), 4);
        job.tenant = Address::repeat_byte(tenant);
        let mut stream = backend.run(job).unwrap();
        assert!(stream.next_blocking().is_some());
        stream.cached_tokens()
    };
    let whole_pages = (tokens.len() - 1) as u32 / 64 * 64;
    assert!(whole_pages >= 128);
    assert_eq!([ask(1), ask(1), ask(2), ask(2)], [0, whole_pages, 0, whole_pages].map(Some));
    let (figures, shape) = (backend.figures(), NANO.model.shape());
    let kept = 2 * whole_pages as usize * shape.kv_bytes_per_position();
    assert!(figures.kv_bytes >= kept as u64, "both tenants' pages stay: {figures:?}");
    assert!(figures.kv_used_bytes <= figures.kv_bytes && figures.kv_bytes < figures.kv_bytes_max);
    assert_eq!(figures.waiting, 0);
}

#[test]
fn one_tenants_crowd_does_not_hold_up_another() {
    let config = config(1, 64);
    let backend = Native::start(SHORT.clone(), Arc::new(cpu(Isa::detect(), 1)), config);
    let ask = |tenant: u8, n: usize| {
        let terms = sampled(prompt(&SHORT, &format!("Sort: {n} 3 1")), tenant);
        let mut job = job(&SHORT, &terms, 200);
        job.tenant = Address::repeat_byte(tenant);
        job.ending.eos.clear();
        job
    };
    let (crowd, other) = ((0..12).map(|n| ask(1, n)).collect::<Vec<_>>(), ask(2, 0));
    let mut crowd: Vec<Deltas> = crowd.into_iter().map(|job| backend.run(job).unwrap()).collect();
    let mut other = backend.run(other).unwrap();
    while other.next_blocking().is_some() {}
    let started = crowd.iter().filter(|stream| stream.cached_tokens().is_some()).count();
    assert!(started <= 4, "{started} of the crowd came first");
    crowd.iter_mut().for_each(|stream| while stream.next_blocking().is_some() {});
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
