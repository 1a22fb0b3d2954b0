//! Writes a small random model of any family as a GGUF file, and prints what the float twin makes
//! of a text: logits after the last token, of an encoder the text's vector. So another
//! implementation can be held against it.
//!
//! `cargo run --release --example random_family -- qwen3 model.gguf`

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "printing and writing are what it is for"
)]

#[path = "../tests/support/gguf_writer.rs"]
mod gguf_writer;
#[path = "../tests/support/random_family.rs"]
mod random_family;

use std::error::Error;
use std::path::Path;

use assay_models::{Family, FloatModel, load};

/// Tokens of the text; a window is shorter.
const TOKENS: u64 = 40;

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: random_family FAMILY PATH";
    let mut arguments = std::env::args().skip(1);
    let (name, path) = (arguments.next().ok_or(usage)?, arguments.next().ok_or(usage)?);
    let family = Family::from_name(&name).ok_or("no such family")?;
    let file = match family {
        Family::Qwen3Moe => random_family::random_with_experts(),
        _ => random_family::random(family),
    };
    std::fs::write(&path, file.file())?;
    let model = FloatModel::load(&load::open(Path::new(&path))?)?;
    let room = random_family::CONTEXT.min(TOKENS);
    let tokens: Vec<u32> =
        (0..room).map(|at| ((at * at * 7 + at * 3 + 5) % random_family::VOCAB) as u32).collect();
    let numbers = match family.graph().causal {
        true => model.logits(&tokens).split_off((tokens.len() - 1) * random_family::VOCAB as usize),
        false => model.embedding(&tokens),
    };
    let line = |numbers: Vec<String>| println!("{}", numbers.join(" "));
    line(tokens.iter().map(u32::to_string).collect());
    line(numbers.iter().map(f32::to_string).collect());
    Ok(())
}
