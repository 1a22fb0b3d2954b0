//! Two models: the one that ships, and one of noise whose every size is awkward.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use assay_evidence::op::Source;
use assay_kernels::{Pairing, Weights};
use assay_models::load;
use assay_models::{Family, Model, Precision, Role, Rope, Shape, Sites, Tensors, convert, rope};
use assay_protocol::{fixed_leaf, weight_leaf};

/// Fraction bits that differ from site to site, so that none can be mistaken for another.
const SITES: Sites =
    Sites { attention_norm: 12, query: 11, value: 13, attention: 14, hidden_norm: 11, hidden: 10 };

/// A model, and every leaf of its weights and of the first positions' angles.
pub(crate) struct Known {
    pub(crate) model: Model,
    pub(crate) leaves: Arc<HashMap<Source, Vec<u8>>>,
}

/// The model that ships.
pub(crate) static NANO: LazyLock<Known> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/nano/nano-q8_0.gguf");
    let source = load::open(Path::new(path)).unwrap();
    let shape = source.shape().clone();
    let angles = rope::tables(&shape.rope, shape.head_dim, shape.context).unwrap();
    let tensors = Tensors::gather::<convert::ConvertError>(
        &shape,
        angles,
        |role| convert::weights(&source.tensor(role).unwrap()),
        |role| convert::gain(&source.tensor(role).unwrap()),
    );
    known(shape, tensors.unwrap())
});

/// Records of two leaves with padding, neighbours that turn together, rows that end within a leaf,
/// an output matrix of its own.
pub(crate) static AWKWARD: LazyLock<Known> = LazyLock::new(|| {
    let shape = Shape {
        family: Family::Llama,
        width: 100,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 160,
        hidden: 201,
        experts: None,
        vocab: 77,
        context: 96,
        norm_eps: 1e-5,
        rope: Rope { pairing: Pairing::Adjacent, base: 10_000.0, factors: Vec::new() },
        window: None,
        tied: false,
    };
    let angles = rope::tables(&shape.rope, shape.head_dim, shape.context).unwrap();
    let (mut of_weights, mut of_gains) = (Noise(1), Noise(2));
    let tensors = Tensors::gather::<Infallible>(
        &shape,
        angles,
        |role| Ok(noise(&mut of_weights, shape.extent(role))),
        |role| Ok((0..shape.extent(role).1).map(|_| of_gains.within(-6000, 6000)).collect()),
    );
    let tensors = tensors.unwrap();
    known(shape, tensors)
});

pub(crate) fn known(shape: Shape, tensors: Tensors) -> Known {
    let precision = Precision { residual: 16, layers: vec![SITES; shape.layers], output_norm: 12 };
    let model = Model::new(shape, precision, tensors).unwrap();
    let mut leaves = HashMap::new();
    for (tensor, role) in (0..).zip(model.shape().roles()) {
        let found = match model.vector(role) {
            Some(gain) => gain.chunks(32).map(|values| fixed_leaf(values).to_vec()).collect(),
            None => matrix(&model, role),
        };
        let indexed = (0..).zip(found);
        leaves.extend(indexed.map(|(leaf, data)| (Source::Weights { tensor, leaf }, data)));
    }
    let mut leaf = 0;
    for position in 0..model.shape().context.min(128) {
        let (cos, sin) = model.rope().row(position, model.shape().head_dim);
        for values in cos.chunks(32).chain(sin.chunks(32)) {
            leaves.insert(Source::Rope { leaf }, fixed_leaf(values).to_vec());
            leaf += 1;
        }
    }
    Known { model, leaves: Arc::new(leaves) }
}

fn matrix(model: &Model, role: Role) -> Vec<Vec<u8>> {
    let weights = model.weights(role).unwrap();
    let mut leaves = Vec::new();
    for row in 0..weights.rows() {
        let mut quants = vec![0; weights.columns()];
        weights.row_q(row, &mut quants);
        for (chunk, quants) in quants.as_chunks::<128>().0.iter().enumerate() {
            let scales = std::array::from_fn(|group| weights.scale(row, 4 * chunk + group) as u16);
            leaves.push(weight_leaf(weights.exponent(row), &scales, quants).to_vec());
        }
    }
    leaves
}

/// A matrix of random numbers that about keeps the size of what it multiplies.
pub(crate) fn noise(noise: &mut Noise, (rows, columns): (usize, usize)) -> Weights {
    let q: Vec<i8> = (0..rows * columns).map(|_| noise.within(-127, 127) as i8).collect();
    let groups = rows * columns.div_ceil(32);
    let scales: Vec<u16> = (0..groups).map(|_| noise.within(1, 65_535) as u16).collect();
    let exponents: Vec<i8> = (0..rows).map(|_| noise.within(23, 26) as i8).collect();
    Weights::from_rows(rows, columns, &q, &scales, &exponents).unwrap()
}

/// Random numbers by the splitmix64 generator.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    /// A random number between two others, both included.
    pub(crate) fn within(&mut self, least: i64, most: i64) -> i32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (least + (z % (most - least + 1) as u64) as i64) as i32
    }
}
