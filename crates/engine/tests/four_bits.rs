//! The shipped model with weights of four bits: as accurate as promised, the same everywhere,
//! replayable, and sold as no more than a judge can say of it.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::sync::{Arc, LazyLock};

use assay_engine::import::{Options, import};
use assay_engine::{Loaded, Native, NativeConfig, Package, Trace, TraceError, Trees, replay};
use assay_evidence::Verdict;
use assay_kernels::{Format, Isa};
use assay_models::{FloatModel, Role, load};
use assay_protocol::{Assurance, TensorKind};
use support::{asset, cpu, job, order, prompt, run, sampled, sign};

/// Pinned, as the id of the model with eight bits is.
const NANO_W4_ID: &str = include_str!("../../../tests/vectors/nano-w4.id");

fn options() -> Options {
    Options { weights: Format::W4, ..Options::default() }
}

static NANO_W4: LazyLock<Arc<Loaded>> = LazyLock::new(|| {
    let cpu = cpu(Isa::detect(), 1);
    let (package, _) = import(&asset("nano-q8_0.gguf"), &options(), &cpu, &mut |_| ()).unwrap();
    Arc::new(package.load().unwrap())
});

#[test]
fn it_has_one_id_on_every_path() {
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
        for threads in [1, 2] {
            let cpu = cpu(isa, threads);
            let (package, _) =
                import(&asset("nano-q8_0.gguf"), &options(), &cpu, &mut |_| ()).unwrap();
            assert_eq!(package.id().to_string(), NANO_W4_ID.trim(), "{isa}, {threads} threads");
            assert_eq!(package.name(), "assay-tiny-w4");
        }
    }
}

#[test]
fn layers_have_four_bits_and_the_table_of_tokens_eight() {
    for (tensor, role) in NANO_W4.manifest.tensors.iter().zip(NANO_W4.model.shape().roles()) {
        let expected = match role {
            role if role.is_vector() => TensorKind::Fixed,
            Role::Embedding => TensorKind::W8,
            _ => TensorKind::W4,
        };
        assert_eq!(tensor.kind, expected as u8, "{role}");
    }
}

#[test]
fn it_survives_the_disk_and_knows_when_it_did_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nano.assay");
    let cpu = cpu(Isa::detect(), 1);
    let (package, _) = import(&asset("nano-q8_0.gguf"), &options(), &cpu, &mut |_| ()).unwrap();
    package.write(&path).unwrap();
    let read = Package::read(&path).unwrap();
    read.verify(&mut |_| ()).unwrap();
    assert_eq!(read.id(), package.id());

    let bytes = std::fs::read(&path).unwrap();
    for position in (0..bytes.len()).step_by(7919) {
        let mut bytes = bytes.clone();
        bytes[position] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let verified = Package::read(&path).and_then(|package| {
            let name = package.name().to_owned();
            package.verify(&mut |_| ()).map(|()| (name, package.id()))
        });
        if let Ok((name, id)) = verified {
            let same = id == read.id() && name == read.name();
            assert!(!same, "byte {position} was changed unseen");
        }
    }
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(Package::read(&path).is_err());
}

/// Rounds groups of 32 as ggml's Q4_0 does: the largest number becomes -8, the scale has 16 bits.
fn round_q4_0(values: &mut [f32]) {
    for group in values.chunks_mut(32) {
        let largest = group.iter().fold(0.0f32, |a, b| if b.abs() > a.abs() { *b } else { a });
        let scale = largest / -8.0;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let stored = eleven_bits(scale);
        for value in group {
            let q = (*value * inverse + 8.5).floor().clamp(0.0, 15.0) - 8.0;
            *value = q * stored;
        }
    }
}

/// A number as binary16 keeps it, within the range where that has eleven bits.
fn eleven_bits(value: f32) -> f32 {
    f32::from_bits((value.to_bits() + 0x0fff + (value.to_bits() >> 13 & 1)) & !0x1fff)
}

/// Mean divergence of what follows each token, in nats.
fn divergence(expected: &[f32], found: &[f32], vocab: usize) -> f64 {
    let log_softmax = |logits: &[f32]| -> Vec<f64> {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
        logits.iter().map(|logit| f64::from(logit - max) - sum.ln()).collect()
    };
    let rows = expected.chunks(vocab).zip(found.chunks(vocab)).map(|(expected, found)| {
        let (p, q) = (log_softmax(expected), log_softmax(found));
        p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>()
    });
    rows.sum::<f64>() / (expected.len() / vocab) as f64
}

/// The measure is what llama.cpp makes of the same file: Q4_0 in the layers, eight bits in the table
/// of tokens, and no loss but that of rounding.
#[test]
fn it_loses_no_more_than_q4_0_does() {
    let options = Options { accuracy: true, ..options() };
    let path = asset("nano-f32.gguf");
    let (package, report) = import(&path, &options, &cpu(Isa::detect(), 1), &mut |_| ()).unwrap();
    let ours = report.accuracy.unwrap();

    let source = load::open(&path).unwrap();
    let (float, mut rounded) =
        (FloatModel::load(&source).unwrap(), FloatModel::load(&source).unwrap());
    rounded.change(|role, values| {
        if matches!(role, Role::Layer(..)) && !role.is_vector() {
            round_q4_0(values);
        }
    });
    let loaded = package.load().unwrap();
    let text = include_str!("../src/import/sample.txt");
    let mut tokens = loaded.tokenizer.as_ref().unwrap().encode_plain(text);
    tokens.truncate(ours.positions);
    let theirs = divergence(&float.logits(&tokens), &rounded.logits(&tokens), source.shape().vocab);
    assert!((0.02..0.03).contains(&theirs), "{theirs}");
    assert!(ours.kl <= 0.9 * theirs, "{} beside {theirs}", ours.kl);
    assert!(ours.greedy_agreement > 0.88, "{ours:?}");
}

/// What nobody could prove wrong is not sold as if one could, but whoever has the model can check it.
#[test]
fn answers_are_scored_and_can_be_replayed_but_not_disputed() {
    assert_eq!(NANO_W4.assurance(), Assurance::Scored);
    let terms = sampled(prompt(&NANO_W4, "Sort: 5 2 9 1"), 7);
    let mut answers = Vec::new();
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
        let backend =
            Native::start(NANO_W4.clone(), Arc::new(cpu(isa, 2)), NativeConfig::default());
        answers.push(run(&backend, job(&NANO_W4, &terms, 24)));
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    let (mut tokens, finish) = answers.remove(0);
    let order =
        assay_protocol::Order { assurance: Assurance::Scored, ..order(&NANO_W4, &terms, 24) };
    let answer = sign(&NANO_W4, order.clone(), terms.clone(), &tokens, finish);
    let verdict = replay(&NANO_W4, &cpu(Isa::Scalar, 1), &answer, &mut |_, _| ());
    assert!(matches!(verdict, Ok(Verdict::True)), "{verdict:?}");

    let trace =
        Trace::compute(NANO_W4.clone(), Arc::new(cpu(Isa::detect(), 1)), &answer, &mut |_, _| ());
    let refused = TraceError::UnjudgedWeights { offered: Assurance::Scored };
    assert_eq!(trace.err().map(|error| error.to_string()), Some(refused.to_string()));

    tokens[1].1 = tokens[0].1;
    let lie = sign(&NANO_W4, order, terms, &tokens, finish);
    let verdict = replay(&NANO_W4, &cpu(Isa::detect(), 1), &lie, &mut |_, _| ());
    assert!(!matches!(verdict, Ok(Verdict::True)), "{verdict:?}");
}

#[test]
fn its_leaves_lead_to_its_root() {
    let trees = Trees::new(NANO_W4.clone());
    trees.build(&mut |_, _| ()).unwrap();
    let query = &NANO_W4.manifest.tensors[2];
    let leaf = trees.weight(query.leaf).unwrap();
    assert_eq!((leaf.data[0], leaf.data.len()), (TensorKind::W4 as u8, 2 + 8 + 64));
    assert!(trees.weight(trees.weight_leaves()).is_none());
}
