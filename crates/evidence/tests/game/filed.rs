//! A model as it is filed: its manifest, and the trees that the manifest's roots commit to.

use std::sync::LazyLock;

use assay_evidence::dispute::ModelTrees;
use assay_evidence::op::{Nodes, Source};
use assay_kernels::tables;
use assay_models::{FRAC_GAIN, FRAC_GATE, FRAC_LOGITS, Shape, program};
use assay_protocol::{
    Arithmetic, B256, Manifest, Parts, StepLeaf, Tensor, TensorKind, fixed_leaf, leaf_hash,
};

use crate::known::{AWKWARD, Known, NANO};
use crate::tiny::TINY;
use crate::world::step_leaf;

/// A model, and everything that its manifest stands for.
pub(crate) struct Filed {
    pub(crate) known: &'static Known,
    pub(crate) manifest: Manifest,
    steps: Vec<StepLeaf>,
    weights: Nodes,
    rope: Nodes,
}

pub(crate) static FILED_NANO: LazyLock<Filed> = LazyLock::new(|| Filed::new(&NANO));
pub(crate) static FILED_AWKWARD: LazyLock<Filed> = LazyLock::new(|| Filed::new(&AWKWARD));
pub(crate) static FILED_TINY: LazyLock<Filed> = LazyLock::new(|| Filed::new(&TINY));

impl Filed {
    fn new(known: &'static Known) -> Filed {
        let (model, shape) = (&known.model, known.model.shape());
        let steps: Vec<StepLeaf> = program(shape, model.precision())
            .iter()
            .map(|step| StepLeaf::read(&step_leaf(shape, step).try_into().unwrap()))
            .collect();
        let (tensors, weights) = table(known);
        let rope = angles(known);
        let steps_tree = Nodes::new(steps.iter().map(|step| leaf_hash(&step.data())).collect());
        let parts = Parts {
            weights: weights.root(),
            program: steps_tree.root(),
            rope: rope.root(),
            tokenizer: B256::ZERO,
            template: B256::ZERO,
            licence: B256::ZERO,
            source: B256::ZERO,
            calibration: B256::ZERO,
        };
        let manifest = Manifest {
            version: Manifest::VERSION,
            family: 0,
            shape: sizes(shape),
            arithmetic: arithmetic(known),
            eos: vec![1],
            tensors,
            parts,
        };
        Filed { known, manifest, steps, weights, rope }
    }
}

impl ModelTrees for Filed {
    fn steps(&self) -> &[StepLeaf] {
        &self.steps
    }

    fn tensors(&self) -> &[Tensor] {
        &self.manifest.tensors
    }

    fn weights(&self, first: u64, count: u64) -> Vec<B256> {
        self.weights.range_proof(first, count)
    }

    fn rope(&self, first: u64, count: u64) -> Vec<B256> {
        self.rope.range_proof(first, count)
    }
}

/// The tensor table, and the tree over all leaves.
fn table(known: &Known) -> (Vec<Tensor>, Nodes) {
    let shape = known.model.shape();
    let (mut tensors, mut hashes) = (Vec::new(), Vec::new());
    for (tensor, role) in (0..).zip(shape.roles()) {
        let (rows, columns) = shape.extent(role);
        let gain = role.is_vector();
        let kind = if gain { TensorKind::Fixed } else { TensorKind::W8 } as u8;
        let (rows, columns) = (rows as u32, columns as u32);
        let first = hashes.len() as u64;
        tensors.push(Tensor { kind, rows, columns, leaf: first });
        let each = if gain { 32 } else { 128 };
        for leaf in 0..u64::from(rows) * u64::from(columns.div_ceil(each)) {
            hashes.push(leaf_hash(&known.leaves[&Source::Weights { tensor, leaf }]));
        }
    }
    (tensors, Nodes::new(hashes))
}

/// The tree over the angles of all positions.
fn angles(known: &Known) -> Nodes {
    let shape = known.model.shape();
    let mut hashes = Vec::new();
    for position in 0..shape.context {
        let (cos, sin) = known.model.rope().row(position, shape.head_dim);
        let leaves = cos.chunks(32).chain(sin.chunks(32));
        hashes.extend(leaves.map(|values| leaf_hash(&fixed_leaf(values))));
    }
    Nodes::new(hashes)
}

fn sizes(shape: &Shape) -> assay_protocol::Shape {
    let Shape { width, layers, heads, kv_heads, head_dim, hidden, vocab, context, .. } = *shape;
    let [width, layers, heads, kv_heads] = [width, layers, heads, kv_heads].map(|s| s as u32);
    let [head_dim, hidden, vocab, context] = [head_dim, hidden, vocab, context].map(|s| s as u32);
    assay_protocol::Shape {
        width,
        layers,
        heads,
        kvHeads: kv_heads,
        headDim: head_dim,
        hidden,
        vocab,
        context,
    }
}

fn arithmetic(known: &Known) -> Arithmetic {
    let (shape, precision) = (known.model.shape(), known.model.precision());
    let halves = shape.rope.pairing == assay_kernels::Pairing::Halves;
    Arithmetic {
        group: 32,
        kvGroup: 32,
        activation: 0,
        ropePairing: u8::from(!halves),
        attentionQ30: tables::att_q30(shape.head_dim).unsigned_abs(),
        normEps: known.model.eps_q(),
        residual: precision.residual,
        outputNorm: precision.output_norm,
        gate: FRAC_GATE,
        logits: FRAC_LOGITS,
        gain: FRAC_GAIN,
        sites: Vec::new().into(),
    }
}
