//! Texts as vectors: the cosine of every pair of texts, by the integers and by the float twin.
//! Texts are given as token ids, since encoders' tokenizers are not this crate's.
//!
//! `cargo run --release --example embed -- MODEL 101,1996,102 101,2002,102`

#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::Path;

use assay_kernels::{Cpu, Isa};
use assay_models::{FloatModel, Model, Precision, Scratch, Sites, Tensors, convert, load, rope};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: embed MODEL IDS...")?;
    let texts: Vec<Vec<u32>> = arguments
        .map(|text| text.split(',').map(str::parse).collect())
        .collect::<Result<_, _>>()?;
    let source = load::open(Path::new(&path))?;
    let float = FloatModel::load(&source)?;
    let shape = source.shape().clone();
    let site = Sites {
        attention_norm: 12,
        query: 12,
        value: 12,
        attention: 12,
        hidden_norm: 12,
        hidden: 12,
    };
    let precision = Precision { residual: 12, layers: vec![site; shape.layers], output_norm: 12 };
    let tensors = Tensors::gather::<Box<dyn Error>>(
        &shape,
        rope::tables_of(&shape)?,
        |role| Ok(convert::weights(&source.tensor(role)?)?),
        |role| Ok(convert::vector(&source.tensor(role)?, role)?),
    )?;
    let model = Model::new(shape, precision, tensors)?;
    let cpu = Cpu::new(Isa::detect(), NonZeroUsize::MIN)?;
    let mut vectors = Vec::new();
    for text in &texts {
        let exact = model.embed(&cpu, text, &mut Scratch::default(), &mut ())?;
        let exact: Vec<f64> =
            exact.iter().map(|number| f64::from(*number) / f64::from(1 << 30)).collect();
        let float: Vec<f64> = float.embedding(text).into_iter().map(f64::from).collect();
        println!("{:?}", &exact[..4.min(exact.len())]);
        vectors.push((exact, float));
    }
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for (at, a) in vectors.iter().enumerate() {
        println!("{at} to its float twin: {:.5}", dot(&a.0, &a.1));
        for (other, b) in vectors.iter().enumerate().skip(at + 1) {
            println!("{at} {other}: {:.4}, float {:.4}", dot(&a.0, &b.0), dot(&a.1, &b.1));
        }
    }
    Ok(())
}
