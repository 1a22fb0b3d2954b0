//! A model that makes vectors of texts: imported, asked, and its answers computed again.

#![allow(clippy::unwrap_used, reason = "test code")]

#[path = "../../models/tests/support/gguf_writer.rs"]
mod gguf_writer;
#[path = "../../models/tests/support/random_family.rs"]
mod random_family;
mod support;

use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock};

use assay_engine::import::{Nearness, Options, import};
use assay_engine::{Backend, Delta, Loaded, Native, NativeConfig, Package, ReplayError, replay};
use assay_evidence::{Fault, Verdict};
use assay_kernels::Isa;
use assay_protocol::{Answer, AnswerError, Assurance, Finish, Order, vector_hash};
use support::{NANO, cpu, greedy, job, order, sign};

/// A small random BERT, and how near it is to its source.
static BERT: LazyLock<(Arc<Loaded>, Nearness)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bert.gguf");
    std::fs::write(&file, random_family::random_bert().file()).unwrap();
    let options = Options { accuracy: true, ..Options::default() };
    let (package, report) = import(&file, &options, &cpu(Isa::detect(), 1), &mut |_| ()).unwrap();
    assert!(package.summary().makes_vectors() && report.accuracy.is_none());
    let kept = folder.path().join("bert.assay");
    package.write(&kept).unwrap();
    let read = Package::read(&kept).unwrap();
    read.verify(&mut |_| ()).unwrap();
    (Arc::new(read.load().unwrap()), report.nearness.unwrap())
});

fn bert() -> &'static Arc<Loaded> {
    &BERT.0
}

fn tokens(text: &str) -> Vec<u32> {
    bert().tokenizer.as_ref().unwrap().enclose(text, 63).unwrap()
}

fn ordered(text: &str) -> Order {
    let order = order(bert(), &greedy(tokens(text)), 1);
    Order { assurance: Assurance::Scored, ..order }
}

/// What the engine makes of these texts, asked all at once.
fn vectors(texts: &[String], config: NativeConfig) -> Vec<Vec<i32>> {
    let backend = Native::start(bert().clone(), Arc::new(cpu(Isa::detect(), 2)), config);
    assert_eq!(backend.assurance(), Assurance::Scored);
    let ask = |text: &String| backend.run(job(bert(), &greedy(tokens(text)), 1)).unwrap();
    let streams: Vec<_> = texts.iter().map(ask).collect();
    let read = |mut stream: assay_engine::Deltas| {
        let Some(Delta::Vector(vector)) = stream.next_blocking() else { panic!("no vector") };
        let (token, hidden, logprobs) = (3, vector_hash(&vector), None);
        assert_eq!(stream.next_blocking(), Some(Delta::Token { token, hidden, logprobs }));
        assert_eq!(stream.next_blocking(), Some(Delta::Done(Finish::Eos)));
        assert_eq!(stream.next_blocking(), None);
        vector
    };
    streams.into_iter().map(read).collect()
}

fn vector(text: &str) -> Vec<i32> {
    vectors(&[text.to_owned()], NativeConfig::default()).remove(0)
}

/// The answer that an honest provider signs.
fn answer(text: &str) -> Answer {
    let vector = vector(text);
    let steps = [(3, vector_hash(&vector))];
    let answer = sign(bert(), ordered(text), greedy(tokens(text)), &steps, Finish::Eos);
    Answer { vector: Some(vector), ..answer }
}

fn verdict(answer: &Answer) -> Verdict {
    replay(bert(), &cpu(Isa::Scalar, 1), answer, &mut |_, _| ()).unwrap()
}

#[test]
fn the_vectors_are_near_their_source() {
    assert!(BERT.1.cosine_min > 0.999 && BERT.1.texts > 1, "{:?}", BERT.1);
    assert_eq!(bert().vector_width(), Some(64));
    assert_eq!(bert().assurance(), Assurance::Scored);
    assert_eq!(tokens("Ab c!"), [2, 4, 31, 6, 1, 3]);
}

/// The same model with its letters as pieces with scores: those that begin a word first.
#[test]
fn texts_that_scores_cut_get_vectors_too() {
    let mut file = random_family::random_bert();
    let scores: Vec<u8> = (0..4 + 52i16).flat_map(|id| f32::from(-id).to_le_bytes()).collect();
    let scores = [&gguf_writer::array(6, 4 + 52)[..], &scores].concat();
    file.without_key("tokenizer.ggml.model").text("tokenizer.ggml.model", "t5");
    file.key("tokenizer.ggml.scores", 9, &scores)
        .u32("tokenizer.ggml.bos_token_id", 2)
        .u32("tokenizer.ggml.eos_token_id", 3)
        .bool("tokenizer.ggml.add_bos_token", true)
        .bool("tokenizer.ggml.add_space_prefix", true)
        .bool("tokenizer.ggml.remove_extra_whitespaces", true);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scored.gguf");
    std::fs::write(&path, file.file()).unwrap();
    let made = import(&path, &Options::default(), &cpu(Isa::detect(), 1), &mut |_| ()).unwrap();
    let kept = folder.path().join("scored.assay");
    made.0.write(&kept).unwrap();
    let loaded = Arc::new(Package::read(&kept).unwrap().load().unwrap());
    let ids = loaded.tokenizer.as_ref().unwrap().enclose("  ab  c ", 63).unwrap();
    assert_eq!(ids, tokens("ab c"));
    let (cpu, config) = (Arc::new(cpu(Isa::detect(), 1)), NativeConfig::default());
    let backend = Native::start(loaded.clone(), cpu, config);
    let mut deltas = backend.run(job(&loaded, &greedy(ids), 1)).unwrap();
    let Some(Delta::Vector(found)) = deltas.next_blocking() else { panic!("no vector") };
    let near = |a: i32, b: &i32| (i64::from(a) - i64::from(*b)).abs() < 1 << 22;
    // The two are calibrated over other tokens, so they are near, and not equal.
    assert!(found.into_iter().zip(&vector("ab c")).all(|(a, b)| near(a, b)));
}

#[test]
fn the_batch_changes_no_vector() {
    let letter = |n: u32| char::from_digit(10 + n % 26, 36).unwrap();
    let text = |n: u32| (0..=n).map(|m| letter(m * 7 + n)).collect();
    let texts: Vec<String> = (0..40).map(text).collect();
    let some = |n| NonZeroUsize::new(n).unwrap();
    let small = NativeConfig { rows_max: some(1), ..NativeConfig::default() };
    let alone = vectors(&texts, small);
    let wide =
        NativeConfig { rows_max: some(500), running_max: some(7), ..NativeConfig::default() };
    assert_eq!(vectors(&texts, wide), alone);
    assert!(alone.iter().all(|vector| vector.len() == 64));
    assert_ne!(alone[0], alone[1]);
}

#[test]
fn an_honest_vector_is_found_true() {
    let answer = answer("the weather is lovely");
    assert_eq!(answer.text, "");
    assert_eq!(verdict(&answer), Verdict::True);
    let json = serde_json::to_string(&answer).unwrap();
    assert_eq!(serde_json::from_str::<Answer>(&json).unwrap(), answer);
}

#[test]
fn a_changed_number_blames_who_changed_it() {
    let honest = answer("abc");
    let mut altered = honest.clone();
    altered.vector.as_mut().unwrap()[63] ^= 1;
    assert_eq!(verdict(&altered), Verdict::False(Fault::Contradiction(AnswerError::Vector)));

    // Its provider signed another vector: one low bit in one number.
    let mut vector = honest.vector.clone().unwrap();
    vector[10] ^= 1;
    let steps = [(3, vector_hash(&vector))];
    let mut signed = sign(bert(), ordered("abc"), greedy(tokens("abc")), &steps, Finish::Eos);
    signed.vector = Some(vector);
    assert_eq!(verdict(&signed), Verdict::False(Fault::State { index: 0 }));
    signed.states.clear();
    assert_eq!(verdict(&signed), Verdict::False(Fault::FinalState));
}

#[test]
fn more_than_a_vector_is_not_to_be_had() {
    let terms = greedy(tokens("abc"));
    let mut order = ordered("abc");
    order.max_tokens = 2;
    let steps = [(3, vector_hash(&vector("abc")))];
    let answer = sign(bert(), order, terms, &steps, Finish::Eos);
    let Verdict::False(Fault::Unanswerable { reason }) = verdict(&answer) else { panic!() };
    assert_eq!(reason, "2 tokens are asked for of a model that gives one vector");
}

#[test]
fn another_model_does_not_judge_it() {
    let judged = replay(&NANO, &cpu(Isa::detect(), 1), &answer("abc"), &mut |_, _| ());
    assert!(matches!(judged, Err(ReplayError::WrongModel { .. })));
}

#[test]
fn who_leaves_is_not_waited_for() {
    let backend =
        Native::start(bert().clone(), Arc::new(cpu(Isa::detect(), 1)), NativeConfig::default());
    let ask = || backend.run(job(bert(), &greedy(tokens("abc")), 1)).unwrap();
    (0..50).for_each(|_| drop(ask()));
    let mut stream = ask();
    assert!(matches!(stream.next_blocking(), Some(Delta::Vector(_))));
    assert_eq!(stream.cached_tokens(), Some(0));
}
