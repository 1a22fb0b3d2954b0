//! The small model that ships, through the whole pass: its answers, and its float twin's.

#![allow(clippy::unwrap_used, reason = "a test may stop with a panic")]

use std::num::NonZeroUsize;
use std::path::Path;

use assay_kernels::{Cpu, Isa, reference::argmax};
use assay_models::load::{self, Source, SourceTokenizer};
use assay_models::{
    Cache, FloatModel, Model, Precision, Row, Sampler, Scratch, Seen, Sites, Tensors, convert, rope,
};

/// Token ids that the chat format is made of.
const USER: u32 = 3;
const ASSISTANT: u32 = 4;
const END: u32 = 2;

fn source() -> Source {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/nano/nano-q8_0.gguf");
    load::open(Path::new(path)).unwrap()
}

/// The model at plain fraction bits: 16 for the residual stream, 12 everywhere else.
fn model(source: &Source) -> Model {
    let shape = source.shape().clone();
    let site = Sites {
        attention_norm: 12,
        query: 12,
        value: 12,
        attention: 12,
        hidden_norm: 12,
        hidden: 12,
    };
    let precision = Precision { residual: 16, layers: vec![site; shape.layers], output_norm: 12 };
    let angles = rope::tables(&shape.rope, shape.head_dim, shape.context).unwrap();
    let tensors = Tensors::gather::<convert::ConvertError>(
        &shape,
        angles,
        |role| convert::weights(&source.tensor(role).unwrap()),
        |role| convert::gain(&source.tensor(role).unwrap()),
    );
    Model::new(shape, precision, tensors.unwrap()).unwrap()
}

fn spellings(source: &Source) -> &[String] {
    match &source.vocabulary {
        Some(SourceTokenizer::Gguf { tokens, .. }) => tokens,
        _ => panic!("the source brings no tokens"),
    }
}

/// Text of which every character is one token.
fn spelled(source: &Source, text: &str) -> Vec<u32> {
    let tokens = spellings(source);
    let id = |c: char| tokens.iter().position(|token| *token == c.to_string()).unwrap() as u32;
    text.chars().map(id).collect()
}

/// A sum as its user asks for it.
fn prompt(source: &Source, sum: &str) -> Vec<u32> {
    [&[USER], &*spelled(source, sum), &[ASSISTANT]].concat()
}

fn answer(model: &Model, source: &Source, sum: &str) -> String {
    let cpu = Cpu::new(Isa::detect(), NonZeroUsize::MIN).unwrap();
    let (mut cache, mut scratch) = (Cache::new(model.shape()), Scratch::default());
    let prompt = prompt(source, sum);
    let (mut next, mut answer) = (prompt.clone(), String::new());
    let mut seen = Seen::new(&prompt);
    for _ in 0..8 {
        let last = next.len() - 1;
        let row = |(index, token): (usize, &u32)| Row {
            token: *token,
            sequence: 0,
            wanted: index == last,
        };
        let rows: Vec<Row> = next.iter().enumerate().map(row).collect();
        let mut output =
            model.forward(&cpu, &rows, &mut [&mut cache], &mut scratch, &mut ()).unwrap();
        let token = Sampler::greedy().choose(&mut output.logits, &seen, 0);
        if token == END {
            break;
        }
        seen.push(token);
        answer.push_str(&spellings(source)[token as usize]);
        next = vec![token];
    }
    answer
}

#[test]
fn nano_adds() {
    let source = source();
    let model = model(&source);
    assert_eq!(answer(&model, &source, "12+45="), "57");
    assert_eq!(answer(&model, &source, "90-27="), "63");
}

#[test]
fn the_float_twin_would_choose_the_same_tokens() {
    let source = source();
    let (model, float) = (model(&source), FloatModel::load(&source).unwrap());
    let cpu = Cpu::new(Isa::detect(), NonZeroUsize::MIN).unwrap();
    let (mut same, mut positions, mut divergence) = (0, 0, 0.0);
    for (a, b) in [(1, 2), (12, 45), (7, 88), (30, 31), (64, 19), (99, 99), (50, 5), (23, 42)] {
        let mut tokens = prompt(&source, &format!("{a}+{b}="));
        tokens.extend(spelled(&source, &format!("{}", a + b)));
        let rows: Vec<Row> =
            tokens.iter().map(|token| Row { token: *token, sequence: 0, wanted: true }).collect();
        let mut cache = Cache::new(model.shape());
        let output = model
            .forward(&cpu, &rows, &mut [&mut cache], &mut Scratch::default(), &mut ())
            .unwrap();
        let vocab = model.shape().vocab;
        let expected = float.logits(&tokens);
        for (logits, expected) in output.logits.chunks(vocab).zip(expected.chunks(vocab)) {
            let best = expected.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
            same += usize::from(argmax(logits) == best);
            let logits: Vec<f32> = logits.iter().map(|logit| *logit as f32 / 65_536.0).collect();
            divergence += kl(expected, &logits);
            positions += 1;
        }
    }
    let mean = divergence / positions as f64;
    assert!(same * 100 >= positions * 97, "{same} of {positions} agree");
    assert!(mean < 5e-4, "mean divergence {mean}");
}

/// Kullback–Leibler divergence of the distributions that two rows of logits stand for, in nats.
fn kl(expected: &[f32], found: &[f32]) -> f64 {
    let (p, q) = (log_softmax(expected), log_softmax(found));
    p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum()
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::MIN, f32::max);
    let below: Vec<f64> = logits.iter().map(|logit| f64::from(logit - largest)).collect();
    let sum = below.iter().map(|logit| logit.exp()).sum::<f64>().ln();
    below.into_iter().map(|logit| logit - sum).collect()
}
