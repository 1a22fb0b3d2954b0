//! Commitments to a model: the roots that its manifest holds.

use assay_kernels::{Activation, Format, GROUP, Pairing, Weights, tables};
use assay_models::{FRAC_GAIN, FRAC_GATE, FRAC_LOGITS, Model, Role, Shape, Step, program};
use assay_protocol::{
    Arithmetic, B256, LEAF_COLUMNS, LEAF_VALUES, Manifest, Parts, StepLeaf, Tensor, TensorKind,
    Tree, fixed_leaf, leaf_hash, part_hash, root, weight_leaf, weight_leaf_w4,
};
use rayon::prelude::*;

use crate::hashing;

/// What a manifest says beside the model itself.
pub(crate) struct Particulars<'a> {
    pub(crate) eos: &'a [u32],
    pub(crate) tokenizer: Option<&'a [u8]>,
    pub(crate) template: Option<&'a str>,
    pub(crate) licence: Option<&'a str>,
    pub(crate) source: B256,
    pub(crate) calibration: B256,
}

/// The manifest of a model. `progress` is told the rows committed so far.
pub(crate) fn manifest(
    model: &Model,
    particulars: &Particulars<'_>,
    progress: &mut dyn FnMut(u64),
) -> Manifest {
    let mut eos = particulars.eos.to_vec();
    eos.sort_unstable();
    eos.dedup();
    Manifest {
        version: Manifest::VERSION,
        family: model.shape().graph().code,
        shape: shape_words(model.shape()),
        arithmetic: arithmetic(model),
        eos,
        tensors: table(model),
        parts: Parts {
            weights: weights_root(model, progress),
            program: program_root(model),
            rope: rope_root(model),
            tokenizer: part_hash(particulars.tokenizer),
            template: part_hash(particulars.template.map(str::as_bytes)),
            licence: part_hash(particulars.licence.map(str::as_bytes)),
            source: particulars.source,
            calibration: particulars.calibration,
        },
    }
}

/// The sizes of a model, as its manifest has them.
pub(crate) fn shape_words(shape: &Shape) -> assay_protocol::Shape {
    assay_protocol::Shape {
        width: word(shape.width),
        layers: word(shape.layers),
        heads: word(shape.heads),
        kvHeads: word(shape.kv_heads),
        headDim: word(shape.head_dim),
        hidden: word(shape.hidden),
        vocab: word(shape.vocab),
        context: word(shape.context),
    }
}

/// Sizes were checked against far lower bounds when the model was made.
fn word(size: usize) -> u32 {
    u32::try_from(size).expect("a model's sizes fit 32 bits")
}

/// The arithmetic that a model was made for.
pub(crate) fn arithmetic(model: &Model) -> Arithmetic {
    let shape = model.shape();
    let precision = model.precision();
    let sites = precision
        .layers
        .iter()
        .flat_map(|s| [s.attention_norm, s.query, s.value, s.attention, s.hidden_norm, s.hidden]);
    Arithmetic {
        group: GROUP as u8,
        kvGroup: GROUP as u8,
        activation: activation_code(shape.graph().activation),
        ropePairing: match shape.rope.pairing {
            Pairing::Halves => 0,
            Pairing::Adjacent => 1,
        },
        attentionQ30: tables::att_q30(shape.head_dim).unsigned_abs(),
        normEps: model.eps_q(),
        residual: precision.residual,
        outputNorm: precision.output_norm,
        gate: FRAC_GATE,
        logits: FRAC_LOGITS,
        gain: FRAC_GAIN,
        sites: sites.collect::<Vec<u8>>().into(),
    }
}

/// The code of an activation in a manifest.
pub(crate) fn activation_code(activation: Activation) -> u8 {
    match activation {
        Activation::Silu => 0,
        Activation::GeluTanh => 1,
        Activation::GeluErf => 2,
    }
}

/// One tensor of a model as it is stored.
pub(crate) enum Stored<'a> {
    /// Quantised groups.
    Matrix(&'a Weights),
    /// Fixed point: the gain of a norm, or a bias.
    Vector(&'a [i32]),
}

/// The tensor of a role that the model's shape lists.
pub(crate) fn stored(model: &Model, role: Role) -> Stored<'_> {
    let matrix = model.weights(role).map(Stored::Matrix);
    let stored = matrix.or_else(|| model.vector(role).map(Stored::Vector));
    stored.expect("a model has every tensor that its shape lists")
}

/// The code of a format in the tensor table.
pub(crate) fn kind(format: Format) -> TensorKind {
    match format {
        Format::W8 => TensorKind::W8,
        Format::W4 => TensorKind::W4,
    }
}

/// Leaves of a tensor.
pub(crate) fn leaves(role: Role, rows: usize, columns: usize) -> u64 {
    let per_row = columns.div_ceil(if role.is_vector() { LEAF_VALUES } else { LEAF_COLUMNS });
    rows as u64 * per_row as u64
}

/// The tensor table of a model.
pub(crate) fn table(model: &Model) -> Vec<Tensor> {
    // Of a vector the format is never asked.
    tensors(model.shape(), |role| model.weights(role).map_or(Format::W8, Weights::format))
}

/// The tensor table: every tensor in canonical order, and where its leaves begin. A leaf holds as
/// many columns in every format.
pub(crate) fn tensors(shape: &Shape, format: impl Fn(Role) -> Format) -> Vec<Tensor> {
    let mut leaf = 0;
    let mut table = Vec::new();
    for role in shape.roles() {
        let (rows, columns) = shape.extent(role);
        let kind = if role.is_vector() { TensorKind::Fixed } else { kind(format(role)) };
        table.push(Tensor { kind: kind as u8, rows: word(rows), columns: word(columns), leaf });
        leaf += leaves(role, rows, columns);
    }
    table
}

/// Rows hashed at a time: enough to keep every thread busy, little enough to keep in cache.
const ROWS_AT_ONCE: usize = 1024;
/// Bytes of a leaf of a matrix before its numbers: kind, exponent, scales.
const LEAF_HEAD: usize = 2 + 2 * (LEAF_COLUMNS / GROUP);

fn weights_root(model: &Model, progress: &mut dyn FnMut(u64)) -> B256 {
    let mut tree = Tree::default();
    let mut rows_done = 0;
    for role in model.shape().roles() {
        let weights = match stored(model, role) {
            Stored::Matrix(weights) => weights,
            Stored::Vector(gain) => {
                push_fixed(&mut tree, gain);
                continue;
            }
        };
        let rows = weights.rows();
        for first in (0..rows).step_by(ROWS_AT_ONCE) {
            let rows = first..rows.min(first + ROWS_AT_ONCE);
            rows_done += rows.len() as u64;
            let hashes: Vec<Vec<[u8; 32]>> =
                rows.into_par_iter().map(|row| row_leaves(weights, row)).collect();
            hashes.into_iter().flatten().for_each(|leaf| tree.push(B256::new(leaf)));
            progress(rows_done);
        }
    }
    tree.root()
}

/// Leaf hashes of one row of a matrix.
fn row_leaves(weights: &Weights, row: usize) -> Vec<[u8; 32]> {
    let mut leaves = Vec::new();
    for chunk in 0..weights.columns() / LEAF_COLUMNS {
        write_matrix_leaf(weights, row, chunk, &mut leaves);
    }
    hashing::leaf_hashes(&leaves, LEAF_HEAD + weights.format().bytes(LEAF_COLUMNS))
}

/// Appends the data of the leaf that holds 128 columns of a row of a matrix.
fn write_matrix_leaf(weights: &Weights, row: usize, chunk: usize, leaf: &mut Vec<u8>) {
    let (groups, exponent) = (LEAF_COLUMNS / GROUP, weights.exponent(row));
    let quants = std::array::from_fn(|column| weights.q(row, chunk * LEAF_COLUMNS + column));
    // A scale fits the sixteen bits that its format keeps it in.
    let scale = |group: usize| weights.scale(row, chunk * groups + group);
    match weights.format() {
        Format::W8 => {
            let scales = std::array::from_fn(|group| scale(group) as u16);
            leaf.extend(weight_leaf(exponent, &scales, &quants));
        }
        Format::W4 => {
            let scales = std::array::from_fn(|group| scale(group) as i16);
            leaf.extend(weight_leaf_w4(exponent, &scales, &quants));
        }
    }
}

/// Data of a leaf of a tensor that the model's shape lists; nothing beyond its last one.
pub(crate) fn tensor_leaf(model: &Model, role: Role, leaf: u64) -> Option<Vec<u8>> {
    let leaf = usize::try_from(leaf).ok()?;
    match stored(model, role) {
        Stored::Matrix(weights) => {
            let chunks = weights.columns() / LEAF_COLUMNS;
            let (row, chunk) = (leaf / chunks, leaf % chunks);
            let mut leaf = Vec::new();
            (row < weights.rows()).then(|| write_matrix_leaf(weights, row, chunk, &mut leaf))?;
            Some(leaf)
        }
        Stored::Vector(gain) => {
            gain.chunks(LEAF_VALUES).nth(leaf).map(|values| fixed_leaf(values).to_vec())
        }
    }
}

fn push_fixed(tree: &mut Tree, values: &[i32]) {
    values.chunks(LEAF_VALUES).for_each(|values| tree.push(leaf_hash(&fixed_leaf(values))));
}

/// Per position its cosines, then its sines, each in leaves of 32 values; after them those of
/// layers with a window, if there are any. Nothing where positions are learned.
fn rope_root(model: &Model) -> B256 {
    let shape = model.shape();
    let mut tree = Tree::default();
    let turned = shape.graph().pairing.map(|_| model.rope());
    for tables in turned.into_iter().chain(model.window_rope()) {
        for position in 0..shape.context {
            let (cos, sin) = tables.row(position, shape.head_dim);
            push_fixed(&mut tree, cos);
            push_fixed(&mut tree, sin);
        }
    }
    tree.root()
}

/// Leaves of the cosines of a position, and of its sines.
fn angle_leaves(shape: &Shape) -> usize {
    (shape.head_dim / 2).div_ceil(LEAF_VALUES)
}

/// Leaves of the RoPE table.
pub(crate) fn rope_leaves(shape: &Shape) -> u64 {
    shape.context as u64 * 2 * angle_leaves(shape) as u64
}

/// Data of a leaf of the RoPE table; nothing beyond its last one.
pub(crate) fn rope_leaf(model: &Model, leaf: u64) -> Option<Vec<u8>> {
    let shape = model.shape();
    if leaf >= rope_leaves(shape) {
        return None;
    }
    // Below the number of leaves, which fits memory many times over.
    let (leaf, half) = (leaf as usize, angle_leaves(shape));
    let (cos, sin) = model.rope().row(leaf / (2 * half), shape.head_dim);
    let mut values = cos.chunks(LEAF_VALUES).chain(sin.chunks(LEAF_VALUES));
    values.nth(leaf % (2 * half)).map(|values| fixed_leaf(values).to_vec())
}

/// Nothing, where a step could name a layer, an input or a tensor.
const NONE: u32 = u32::MAX;

/// One step of the program: kind, layer, four inputs, tensor, outputs, terms (32-bit big-endian
/// words), then fraction bits in and out (bytes).
fn step_leaf(step: &Step, roles: &[Role]) -> StepLeaf {
    assert!(step.inputs.len() <= 4, "{} has {} inputs", step.op, step.inputs.len());
    let input = |index: usize| step.inputs.get(index).map_or(NONE, |&input| word(input));
    let tensor = step.tensor.and_then(|role| roles.iter().position(|&other| other == role));
    let words = [
        step.op.kind as u32,
        step.op.layer.map_or(NONE, u32::from),
        input(0),
        input(1),
        input(2),
        input(3),
        tensor.map_or(NONE, word),
        word(step.outputs),
        word(step.terms),
    ];
    let mut leaf = [0; StepLeaf::BYTES];
    let (bytes, fractions) = leaf.split_at_mut(4 * words.len());
    for (bytes, word) in bytes.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    fractions.copy_from_slice(&[step.frac_in, step.frac_out]);
    StepLeaf::read(&leaf)
}

/// The program of a model, step by step.
pub(crate) fn steps(model: &Model) -> Vec<StepLeaf> {
    let roles = model.shape().roles();
    program(model.shape(), model.precision()).iter().map(|step| step_leaf(step, &roles)).collect()
}

/// The root of a model's program.
pub(crate) fn program_root(model: &Model) -> B256 {
    root(steps(model).iter().map(|step| leaf_hash(&step.data())))
}
