//! A small model of random numbers, the same on every machine.

use std::convert::Infallible;
use std::num::NonZeroUsize;

use assay_kernels::{Cpu, GROUP, Isa, Pairing, Weights};

use crate::family::Family;
use crate::model::Model;
use crate::rope;
use crate::shape::{Experts, LayerRole, Precision, Role, Rope, Shape, Sites};
use crate::tensors::Tensors;

/// Sizes that leave padding in every matrix.
pub(crate) fn shape() -> Shape {
    Shape {
        family: Family::Llama,
        width: 64,
        layers: 2,
        heads: 2,
        kv_heads: 1,
        head_dim: 32,
        hidden: 96,
        experts: None,
        vocab: 50,
        context: 96,
        norm_eps: 1e-5,
        rope: Rope { pairing: Pairing::Halves, base: 10_000.0, factors: Vec::new() },
        window: None,
        tied: true,
    }
}

/// The same with five experts in a layer, of which each position chooses two.
pub(crate) fn shape_with_experts() -> Shape {
    let experts = Some(Experts { count: 5, chosen: 2 });
    Shape { family: Family::Qwen3Moe, hidden: 32, experts, ..shape() }
}

/// Fraction bits that suit the numbers of [`tensors`].
pub(crate) fn precision() -> Precision {
    let sites = Sites {
        attention_norm: 12,
        query: 12,
        value: 12,
        attention: 12,
        hidden_norm: 12,
        hidden: 12,
    };
    Precision { residual: 16, layers: vec![sites; 2], output_norm: 12 }
}

/// Random tensors of this shape.
pub(crate) fn tensors(shape: &Shape, seed: u64) -> Tensors {
    let rope = rope::tables(&shape.rope, shape.head_dim, shape.context).unwrap();
    let (mut of_weights, mut of_gains) = (Noise(seed), Noise(!seed));
    let gathered = Tensors::gather::<Infallible>(
        shape,
        rope,
        |role| Ok(matrix(&mut of_weights, shape.extent(role), role)),
        |role| Ok((0..shape.extent(role).1).map(|_| of_gains.within(-6000, 6000)).collect()),
    );
    gathered.unwrap()
}

/// The random model of [`shape`] and [`precision`].
pub(crate) fn model(seed: u64) -> Model {
    Model::new(shape(), precision(), tensors(&shape(), seed)).unwrap()
}

/// The random model of [`shape_with_experts`] and [`precision`].
pub(crate) fn model_with_experts(seed: u64) -> Model {
    let shape = shape_with_experts();
    Model::new(shape.clone(), precision(), tensors(&shape, seed)).unwrap()
}

/// A processor with this instruction set, if the machine has it.
pub(crate) fn cpu(isa: Isa, threads: usize) -> Option<Cpu> {
    isa.is_supported().then(|| Cpu::new(isa, NonZeroUsize::new(threads).unwrap()).unwrap())
}

/// The fastest processor with one thread.
pub(crate) fn any_cpu() -> Cpu {
    cpu(Isa::detect(), 1).unwrap()
}

/// Embeddings are about one, other matrices keep the size of what they multiply.
fn matrix(noise: &mut Noise, (rows, columns): (usize, usize), role: Role) -> Weights {
    let exponent = match role {
        Role::Embedding => 21,
        Role::Layer(_, LayerRole::Query | LayerRole::Key) => 23,
        _ => 24,
    };
    let q: Vec<i8> = (0..rows * columns).map(|_| noise.within(-127, 127) as i8).collect();
    let scales = rows * columns.div_ceil(GROUP);
    let scales: Vec<u16> = (0..scales).map(|_| noise.within(1, 65_535) as u16).collect();
    let exponents: Vec<i8> = (0..rows).map(|_| exponent + noise.within(0, 2) as i8).collect();
    Weights::from_rows(rows, columns, &q, &scales, &exponents).unwrap()
}

/// Random numbers by the splitmix64 generator.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    /// The next random number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A random number between two others, both included.
    pub(crate) fn within(&mut self, least: i32, most: i32) -> i32 {
        let span = (i64::from(most) - i64::from(least) + 1) as u64;
        (i64::from(least) + (self.next() % span) as i64) as i32
    }
}
