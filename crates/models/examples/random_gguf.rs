//! Writes a llama with random weights as a GGUF file, or a Qwen 3 with experts, to measure speed where
//! quality is no matter.
//! Its tokenizer spells bytes, so that the model can be asked something, and answers noise; the other
//! tokens have names that nothing is tokenised to, as llama.cpp wants one for each row of the embedding.
//!
//! `cargo run --release --example random_gguf -- model.gguf --shape q05 --quant q8_0`
//!
//! With `--counts yes` the model says after each token the one whose id follows, whatever came before:
//! every matrix is as large and is multiplied all the same, but what attention and feed-forward add is
//! zero, and the output matrix is the embedding, one row on. Such a model copies any run of ids that a
//! prompt holds, and never repeats itself where a prompt does not.

#[path = "../tests/support/gguf_writer.rs"]
mod gguf_writer;

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};

use assay_kernels::Pairing;
use assay_models::load::Kind;
use assay_models::{Experts, Family, LayerRole, Role, Rope, Shape};
use gguf_writer::GgufWriter;

const USAGE: &str = "usage: random_gguf PATH [--shape q05|llama1b|moe|tiny] [--quant q8_0|q4_0|f16|f32] [--counts yes|no], default q05 q8_0 no";

fn main() -> Result<(), Box<dyn Error>> {
    let (path, shape, kind, counts) = arguments()?;
    let roles = shape.roles();
    let mut file = GgufWriter::default();
    hyperparameters(&mut file, &shape);
    for &role in &roles {
        let (rows, columns) = shape.extent(role);
        let (sizes, kind) = match (role.is_vector(), experts(&shape, role)) {
            (true, _) => (vec![columns as u64], Kind::F32),
            (false, None) => (vec![rows as u64, columns as u64], kind),
            (false, Some(count)) => {
                (vec![count as u64, (rows / count) as u64, columns as u64], kind)
            }
        };
        let (block, bytes) = kind.block();
        file.declare(&role.to_string(), &sizes, code(kind), rows * columns / block * bytes);
    }
    let mut out = BufWriter::new(File::create(path)?);
    out.write_all(&file.header())?;
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut embedding = Vec::new();
    for role in roles {
        let (rows, columns) = shape.extent(role);
        let bytes = match role.is_vector() {
            true => 1.0f32.to_le_bytes().repeat(columns),
            false if counts && role == Role::Output => std::mem::take(&mut embedding),
            false if counts && adds(role) => zeros(kind, rows, columns),
            false => noise.matrix(kind, rows, columns),
        };
        if counts && role == Role::Embedding {
            embedding.clone_from(&bytes);
            embedding.rotate_right(bytes.len() / rows);
        }
        out.write_all(&bytes)?;
        let padding = bytes.len().next_multiple_of(file.alignment) - bytes.len();
        out.write_all(&vec![0; padding])?;
    }
    Ok(out.flush()?)
}

/// Path, shape and format from the command line.
fn arguments() -> Result<(String, Shape, Kind, bool), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or(USAGE)?;
    let (mut shape, mut kind) = ("q05".to_owned(), "q8_0".to_owned());
    let mut counts = false;
    while let Some(option) = arguments.next() {
        let value = arguments.next().ok_or(USAGE)?;
        match option.as_str() {
            "--shape" => shape = value,
            "--quant" => kind = value,
            "--counts" => counts = value == "yes",
            _ => return Err(USAGE.into()),
        }
    }
    let kind = match kind.as_str() {
        "q8_0" => Kind::Q8_0,
        "q4_0" => Kind::Q4_0,
        "f16" => Kind::F16,
        "f32" => Kind::F32,
        _ => return Err(USAGE.into()),
    };
    let mut shape = shape_of(&shape).ok_or(USAGE)?;
    shape.tied = !counts;
    Ok((path, shape, kind, counts))
}

/// Whether the residual stream is what this matrix adds to.
fn adds(role: Role) -> bool {
    use LayerRole as R;
    matches!(role, Role::Layer(_, R::AttentionOutput | R::Down | R::ExpertDowns))
}

/// How many experts' matrices a tensor consists of; none of other tensors.
fn experts(shape: &Shape, role: Role) -> Option<usize> {
    use LayerRole as R;
    match role {
        Role::Layer(_, R::ExpertGates | R::ExpertUps | R::ExpertDowns) => {
            shape.experts.map(|experts| experts.count)
        }
        _ => None,
    }
}

fn zeros(kind: Kind, rows: usize, columns: usize) -> Vec<u8> {
    let (block, bytes) = kind.block();
    vec![0; rows * columns / block * bytes]
}

fn shape_of(name: &str) -> Option<Shape> {
    // Width, layers, feed-forward width, heads, key-value heads, vocabulary.
    let (width, layers, hidden, heads, kv_heads, vocab) = match name {
        // 0.494 billion parameters.
        "q05" => (896, 24, 4864, 14, 2, 151_936),
        // 1.24 billion parameters, those of Llama 3.2.
        "llama1b" => (2048, 16, 8192, 32, 8, 128_256),
        // 1.33 billion parameters, of which a token meets 0.43.
        "moe" => (1024, 24, 512, 16, 8, 49_152),
        "tiny" => (128, 2, 256, 2, 1, 512),
        _ => return None,
    };
    let (family, pairing, experts) = match name {
        "moe" => {
            let experts = Experts { count: 32, chosen: 8 };
            (Family::Qwen3Moe, Pairing::Halves, Some(experts))
        }
        _ => (Family::Llama, Pairing::Adjacent, None),
    };
    Some(Shape {
        family,
        width,
        layers,
        heads,
        kv_heads,
        head_dim: 64,
        hidden,
        experts,
        vocab,
        context: 4096,
        norm_eps: 1e-6,
        rope: Rope { pairing, base: 10_000.0, factors: Vec::new() },
        window: None,
        tied: true,
    })
}

fn hyperparameters(file: &mut GgufWriter, shape: &Shape) {
    let name = shape.graph().name;
    let key = |suffix: &str| format!("{name}.{suffix}");
    file.text("general.architecture", name)
        .text("general.name", "random")
        .u32(&key("context_length"), shape.context as u32)
        .u32(&key("embedding_length"), shape.width as u32)
        .u32(&key("block_count"), shape.layers as u32)
        .u32(&key("feed_forward_length"), shape.hidden as u32)
        .u32(&key("attention.head_count"), shape.heads as u32)
        .u32(&key("attention.head_count_kv"), shape.kv_heads as u32)
        .u32(&key("attention.key_length"), shape.head_dim as u32)
        .f32(&key("attention.layer_norm_rms_epsilon"), shape.norm_eps)
        .u32(&key("rope.dimension_count"), shape.head_dim as u32)
        .f32(&key("rope.freq_base"), shape.rope.base)
        .u32(&key("vocab_size"), shape.vocab as u32);
    if let Some(experts) = shape.experts {
        file.u32(&key("attention.value_length"), shape.head_dim as u32)
            .u32(&key("expert_count"), experts.count as u32)
            .u32(&key("expert_used_count"), experts.chosen as u32)
            .u32(&key("expert_feed_forward_length"), shape.hidden as u32);
    }
    let letters = (0..=255).map(|byte| letter(byte).to_string());
    let spares = (END as usize + 1..shape.vocab).map(|token| format!("spare-{token}"));
    let tokens: Vec<String> = letters.chain(["<end>".to_owned()]).chain(spares).collect();
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let mut kinds = vec![NORMAL; tokens.len()];
    kinds[END as usize] = CONTROL;
    file.text("tokenizer.ggml.model", "gpt2")
        .text("tokenizer.ggml.pre", "gpt-2")
        .texts("tokenizer.ggml.tokens", &tokens)
        .i32s("tokenizer.ggml.token_type", &kinds)
        .texts("tokenizer.ggml.merges", &[])
        .u32("tokenizer.ggml.eos_token_id", END)
        .text("tokenizer.chat_template", "{% for m in messages %}{{ m.content }}{% endfor %}");
}

/// The token that ends an answer; the ones below it are the bytes.
const END: u32 = 256;
/// Kinds of tokens.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;

/// The character that spells a byte, as GPT-2 does it.
fn letter(byte: u8) -> char {
    let code = match byte {
        0x00..=0x20 => 0x100 + u32::from(byte),
        0x7f..=0xa0 => 0x121 + u32::from(byte - 0x7f),
        0xad => 0x143,
        _ => u32::from(byte),
    };
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The format's number for an element type.
fn code(kind: Kind) -> u32 {
    match kind {
        Kind::F32 => 0,
        Kind::F16 => 1,
        Kind::Q4_0 => 2,
        Kind::Q8_0 => 8,
        _ => 30,
    }
}

/// Marsaglia's xorshift: fast, and the same numbers every time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A matrix with rows of about unit length, so that activations keep their size.
    fn matrix(&mut self, kind: Kind, rows: usize, columns: usize) -> Vec<u8> {
        let elements = rows * columns;
        let deviation = 1.0 / (columns as f32).sqrt();
        // Uniform numbers deviate by their range / √12.
        let range = deviation * 12f32.sqrt();
        match kind {
            Kind::Q8_0 => self.blocks(elements / 32, 32, range / 254.0),
            Kind::Q4_0 => self.blocks(elements / 32, 16, range / 15.0),
            Kind::F32 => self.floats(elements, range).flat_map(f32::to_le_bytes).collect(),
            Kind::F16 => self.floats(elements, range).flat_map(|x| half(x).to_le_bytes()).collect(),
            _ => Vec::new(),
        }
    }

    /// Blocks of one scale and that many bytes of quants, none of which is −128.
    fn blocks(&mut self, blocks: usize, quants: usize, scale: f32) -> Vec<u8> {
        let scale = half(scale).to_le_bytes();
        let mut bytes = Vec::with_capacity(blocks * (2 + quants));
        for _ in 0..blocks {
            bytes.extend(scale);
            for _ in 0..quants / 8 {
                let word = self.next().to_le_bytes();
                bytes.extend(word.map(|byte| if byte == 0x80 { 0x81 } else { byte }));
            }
        }
        bytes
    }

    fn floats(&mut self, count: usize, range: f32) -> impl Iterator<Item = f32> {
        (0..count).map(move |_| ((self.next() >> 40) as f32 / 16_777_216.0 - 0.5) * range)
    }
}

/// The number as a binary16, cut off; too small ones become zero. For magnitudes below 2.
fn half(number: f32) -> u16 {
    let bits = number.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + 15;
    if exponent <= 0 { sign } else { sign | (exponent as u16) << 10 | (bits >> 13 & 0x3ff) as u16 }
}
