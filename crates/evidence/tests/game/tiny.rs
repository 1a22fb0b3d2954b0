//! A model small enough that every number of a trace can be disputed.

use std::convert::Infallible;
use std::sync::LazyLock;

use assay_kernels::Pairing;
use assay_models::{Family, Rope, Shape, Tensors, rope};

use crate::known::{Known, Noise, known, noise};

/// One layer, one head, one leaf of everything.
pub(crate) static TINY: LazyLock<Known> = LazyLock::new(|| {
    let shape = Shape {
        family: Family::Llama,
        width: 32,
        layers: 1,
        heads: 1,
        kv_heads: 1,
        head_dim: 32,
        hidden: 32,
        experts: None,
        vocab: 32,
        context: 8,
        norm_eps: 1e-5,
        rope: Rope { pairing: Pairing::Halves, base: 10_000.0, factors: Vec::new() },
        window: None,
        tied: true,
    };
    let angles = rope::tables(&shape.rope, shape.head_dim, shape.context).unwrap();
    let (mut of_weights, mut of_gains) = (Noise(3), Noise(4));
    let tensors = Tensors::gather::<Infallible>(
        &shape,
        angles,
        |role| Ok(noise(&mut of_weights, shape.extent(role))),
        |role| Ok((0..shape.extent(role).1).map(|_| of_gains.within(-6000, 6000)).collect()),
    );
    known(shape, tensors.unwrap())
});
