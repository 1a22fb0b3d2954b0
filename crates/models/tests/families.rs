//! Every family on a small random model: the integers are near the float twin, and the same bits
//! come out whatever the batch, the threads and the instruction set.
//!
//! The float twin itself was held against another implementation on the files of the example
//! `random_family`; see there.

#![allow(clippy::unwrap_used, reason = "a test may stop with a panic")]

#[path = "support/gguf_writer.rs"]
mod gguf_writer;
#[path = "support/random_family.rs"]
mod random_family;

use std::io::Cursor;
use std::num::NonZeroUsize;

use assay_kernels::{Cpu, Isa};
use assay_models::load::{Source, read_gguf};
use assay_models::{
    Cache, Family, FloatModel, ForwardError, Model, Norms, Precision, Role, Row, Scratch, Sites,
    Tensors, convert, program, rope,
};

/// Tokens of the text: more than any window, and than a block of attention.
const TOKENS: usize = 64;

fn source(family: Family) -> Source {
    read_gguf(Cursor::new(random_family::random(family).file())).unwrap()
}

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
    // Where no norm stands before a matrix, the residual stream is what is quantised.
    let residual = if shape.graph().norms == Norms::After { 12 } else { 16 };
    let precision = Precision { residual, layers: vec![site; shape.layers], output_norm: 12 };
    let tensors = Tensors::gather::<convert::ConvertError>(
        &shape,
        rope::tables_of(&shape).unwrap(),
        |role| convert::weights(&source.tensor(role).unwrap()),
        |role| convert::vector(&source.tensor(role).unwrap(), role),
    );
    Model::new(shape, precision, tensors.unwrap()).unwrap()
}

fn tokens() -> Vec<u32> {
    (0..TOKENS as u32).map(|at| (at * at * 7 + at * 3 + 5) % random_family::VOCAB as u32).collect()
}

fn cpu(isa: Isa, threads: usize) -> Option<Cpu> {
    isa.is_supported().then(|| Cpu::new(isa, NonZeroUsize::new(threads).unwrap()).unwrap())
}

/// What the model says after each token of the text, taken in pieces of so many tokens; of an
/// encoder, the text's vector.
fn answer(model: &Model, cpu: &Cpu, piece: usize) -> Vec<i32> {
    let mut scratch = Scratch::default();
    if !model.shape().graph().causal {
        return model.embed(cpu, &tokens(), &mut scratch, &mut ()).unwrap();
    }
    let mut cache = Cache::new(model.shape());
    let mut logits = Vec::new();
    for piece in tokens().chunks(piece) {
        let row = |&token: &u32| Row { token, sequence: 0, wanted: true };
        let rows: Vec<Row> = piece.iter().map(row).collect();
        let output = model.forward(cpu, &rows, &mut [&mut cache], &mut scratch, &mut ()).unwrap();
        logits.extend(output.logits);
    }
    logits
}

/// Root mean square of the differences over that of the expected numbers.
fn distance(found: &[i32], unit: f64, expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |x: f64| x * x;
    let differences = found.iter().zip(expected);
    let off: f64 = differences.map(|(a, b)| square(f64::from(*a) / unit - f64::from(*b))).sum();
    (off / expected.iter().map(|b| square(f64::from(*b))).sum::<f64>()).sqrt()
}

#[test]
fn the_integers_are_near_the_float_twin() {
    for family in Family::ALL {
        let source = source(family);
        assert_eq!(source.shape().family, family);
        let (model, float) = (model(&source), FloatModel::load(&source).unwrap());
        let found = answer(&model, &cpu(Isa::detect(), 1).unwrap(), TOKENS);
        let (unit, expected) = match family.graph().causal {
            true => (65536.0, float.logits(&tokens())),
            false => (f64::from(1 << 30), float.embedding(&tokens())),
        };
        let distance = distance(&found, unit, &expected);
        // Eight bits in six layers, where others have two.
        let allowed = if family == Family::Gemma3 { 0.05 } else { 0.03 };
        assert!(distance < allowed, "{family} is {distance} away");
    }
}

#[test]
fn pieces_threads_and_instruction_sets_change_nothing() {
    for family in Family::ALL {
        let model = model(&source(family));
        let expected = answer(&model, &cpu(Isa::Scalar, 1).unwrap(), TOKENS);
        for (isa, threads, piece) in [
            (Isa::Scalar, 2, 7),
            (Isa::Avx2, 1, 1),
            (Isa::Avx2, 2, TOKENS),
            (Isa::Avx512, 2, 1),
            (Isa::Avx512, 1, 13),
        ] {
            let Some(cpu) = cpu(isa, threads) else { continue };
            assert!(answer(&model, &cpu, piece) == expected, "{family}: {isa}, {threads}, {piece}");
        }
    }
}

#[test]
fn every_tensor_is_read_by_the_program() {
    for family in Family::ALL {
        let source = source(family);
        let model = model(&source);
        let steps = program(model.shape(), model.precision());
        for (index, step) in steps.iter().enumerate() {
            assert!(step.inputs.iter().all(|input| *input < index), "{family}: {}", step.op);
        }
        for role in model.shape().roles() {
            let read = steps.iter().filter(|step| step.tensor == Some(role)).count();
            // A tied embedding is looked up and multiplied.
            let tied = role == Role::Embedding && model.shape().tied && family != Family::Bert;
            assert_eq!(read, if tied { 2 } else { 1 }, "{family}: {role}");
        }
    }
}

#[test]
fn the_company_of_other_texts_changes_no_vector() {
    let model = model(&source(Family::Bert));
    let (cpu, mut scratch) = (cpu(Isa::detect(), 2).unwrap(), Scratch::default());
    let all = tokens();
    let texts = [&all[..9], &all[3..4], &all[..], &all[9..30], &all[..9]];
    let together = model.embed_all(&cpu, &texts, &mut scratch, &mut ()).unwrap();
    for (text, vector) in texts.iter().zip(&together) {
        assert_eq!(*vector, model.embed(&cpu, text, &mut scratch, &mut ()).unwrap());
    }
    assert_eq!(model.embed_all(&cpu, &[], &mut scratch, &mut ()).unwrap(), Vec::<Vec<i32>>::new());
}

#[test]
fn a_text_of_no_tokens_has_no_vector() {
    let model = model(&source(Family::Bert));
    let cpu = cpu(Isa::detect(), 1).unwrap();
    let empty = model.embed(&cpu, &[], &mut Scratch::default(), &mut ());
    assert_eq!(empty, Err(ForwardError::Empty));
    let long = vec![1; random_family::CONTEXT as usize + 1];
    assert!(model.embed(&cpu, &long, &mut Scratch::default(), &mut ()).is_err());
}

#[test]
fn a_shorter_context_takes_the_first_learned_positions() {
    let whole = source(Family::Gpt2);
    let mut short = source(Family::Gpt2);
    short.shorten(16);
    let cpu = cpu(Isa::detect(), 1).unwrap();
    let of = |source: &Source| {
        let model = model(source);
        let rows: Vec<Row> =
            tokens()[..16].iter().map(|&token| Row { token, sequence: 0, wanted: true }).collect();
        let mut cache = Cache::new(model.shape());
        model.forward(&cpu, &rows, &mut [&mut cache], &mut Scratch::default(), &mut ()).unwrap()
    };
    assert_eq!(of(&short).logits, of(&whole).logits);
}
