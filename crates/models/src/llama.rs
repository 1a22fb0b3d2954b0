//! The llama family: RMSNorm, RoPE, grouped-query attention, SwiGLU.
//!
//! Between two matrices a row is fixed-point; before each matrix it is quantised. Where a number
//! is rounded is part of the arithmetic, so the order of operations here is normative.

use assay_kernels::tables::att_q30;
use assay_kernels::{
    Angles, Attention, COLUMNS_STEP, Cpu, Norm, Quantised, Query, Rope as Heads, Weights,
};

use crate::batch::{Batch, Output};
use crate::cache::Cache;
use crate::rope::RopeTables;
use crate::shape::{LayerRole, Precision, Role, Shape};
use crate::tap::{Op, OpKind, Tap, Values};

/// The tensors of a model of this family.
#[derive(Clone, Debug)]
pub struct Tensors {
    /// Token embedding: (vocab, width).
    pub embedding: Weights,
    /// Output matrix: (vocab, width); none when the embedding serves as one.
    pub output: Option<Weights>,
    /// Gain of the last norm, `Fx<12>`: (width).
    pub output_norm: Vec<i32>,
    /// The layers, first to last.
    pub layers: Vec<LayerTensors>,
    /// Angles of every position of the context.
    pub rope: RopeTables,
}

/// The tensors of one layer; matrices are (outputs, inputs).
#[derive(Clone, Debug)]
pub struct LayerTensors {
    /// Gain of the norm before attention, `Fx<12>`: (width).
    pub attention_norm: Vec<i32>,
    /// Query projection: (heads · head_dim, width).
    pub query: Weights,
    /// Key projection: (kv_heads · head_dim, width).
    pub key: Weights,
    /// Value projection: (kv_heads · head_dim, width).
    pub value: Weights,
    /// Attention output projection: (width, heads · head_dim).
    pub attention_output: Weights,
    /// Gain of the norm before the feed-forward, `Fx<12>`: (width).
    pub hidden_norm: Vec<i32>,
    /// Gate projection: (hidden, width).
    pub gate: Weights,
    /// Up projection: (hidden, width).
    pub up: Weights,
    /// Down projection: (width, hidden).
    pub down: Weights,
}

/// A model of this family. Made by [`crate::Model::new`], which checks it.
#[derive(Clone, Debug)]
pub struct Llama {
    pub(crate) shape: Shape,
    pub(crate) precision: Precision,
    pub(crate) tensors: Tensors,
    /// Epsilon of the norms, with twice the fraction bits of the residual stream.
    pub(crate) eps_q: u32,
}

/// Memory that forward passes reuse. It carries nothing from one call to the next and serves any
/// model and batch.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The residual stream: (rows, width).
    residual: Vec<i32>,
    /// Output of a norm: (rows, width).
    normed: Vec<i32>,
    /// What attention or feed-forward adds to the residual stream: (rows, width).
    delta: Vec<i32>,
    /// Queries: (rows, heads · head_dim).
    query: Vec<i32>,
    /// Keys: (rows, kv_heads · head_dim).
    key: Vec<i32>,
    /// Values: (rows, kv_heads · head_dim).
    value: Vec<i32>,
    /// Weighted means of the values: (rows, heads · head_dim).
    mean: Vec<i32>,
    /// Gate: (rows, hidden).
    gate: Vec<i32>,
    /// What the gate lets through: (rows, hidden).
    up: Vec<i32>,
    /// The gated product: (rows, hidden).
    activation: Vec<i32>,
    /// The input of the matrix at hand.
    input: Quantised,
    /// Queries, head by head: (rows · heads, head_dim).
    queries: Quantised,
    /// Keys, head by head: (rows · kv_heads, head_dim).
    keys: Quantised,
    /// Values, head by head: (rows · kv_heads, head_dim).
    values: Quantised,
    /// An output that nobody needs any more.
    spare: Output,
}

impl Llama {
    /// Computes a planned batch; see [`crate::Model::forward`].
    pub(crate) fn forward<T: Tap>(
        &self,
        cpu: &Cpu,
        batch: &Batch<'_>,
        caches: &mut [&mut Cache],
        scratch: &mut Scratch,
        tap: &mut T,
    ) -> Output {
        if batch.rows.is_empty() {
            return Output::default();
        }
        scratch.fit(&self.shape, batch.rows.len());
        let all_rows: Vec<usize> = (0..batch.rows.len()).collect();
        let mut pass = Pass { model: self, cpu, batch, rows: &all_rows, layer: None, tap };
        pass.embed(scratch);
        for layer in 0..self.shape.layers {
            pass.layer = Some(layer);
            pass.attention(layer, caches, scratch);
            pass.feed_forward(layer, scratch);
        }
        pass.layer = None;
        pass.rows = &batch.wanted;
        pass.logits(scratch)
    }
}

/// One forward pass: everything its steps share.
struct Pass<'a, T> {
    model: &'a Llama,
    cpu: &'a Cpu,
    batch: &'a Batch<'a>,
    /// The rows of the batch that are being computed.
    rows: &'a [usize],
    /// The layer that is being computed.
    layer: Option<usize>,
    tap: &'a mut T,
}

impl<T: Tap> Pass<'_, T> {
    /// Looks the tokens up: x = E[token].
    fn embed(&mut self, s: &mut Scratch) {
        let Llama { shape, precision, tensors, .. } = self.model;
        for (row, x) in self.batch.rows.iter().zip(s.residual.chunks_exact_mut(shape.width)) {
            tensors.embedding.embed(row.token as usize, precision.residual, x);
        }
        self.saw(OpKind::Embed, &s.residual);
    }

    /// x += Wo · attend(rope(Wq · n), rope(Wk · n), Wv · n) with n = norm(x).
    fn attention(&mut self, layer: usize, caches: &mut [&mut Cache], s: &mut Scratch) {
        let Llama { shape, .. } = self.model;
        let Shape { heads, kv_heads, head_dim, .. } = *shape;
        let of = |role| Role::Layer(layer, role);

        self.norm(of(LayerRole::AttentionNorm), &s.residual, &mut s.normed);
        self.saw(OpKind::Norm1, &s.normed);
        self.quantise(&s.normed, shape.width, &mut s.input);
        self.saw_quantised(OpKind::Quantise1, &s.input);

        self.multiply(of(LayerRole::Query), &s.input, &mut s.query);
        self.saw(OpKind::Query, &s.query);
        self.multiply(of(LayerRole::Key), &s.input, &mut s.key);
        self.saw(OpKind::Key, &s.key);
        self.multiply(of(LayerRole::Value), &s.input, &mut s.value);
        self.saw(OpKind::Value, &s.value);

        self.turn(heads, &mut s.query);
        self.saw(OpKind::RopeQuery, &s.query);
        self.cpu.quantise(&s.query, head_dim, head_dim, &mut s.queries);
        self.saw_quantised(OpKind::QuantiseQuery, &s.queries);
        self.turn(kv_heads, &mut s.key);
        self.saw(OpKind::RopeKey, &s.key);
        self.cpu.quantise(&s.key, head_dim, head_dim, &mut s.keys);
        self.saw_quantised(OpKind::QuantiseKey, &s.keys);
        self.cpu.quantise(&s.value, head_dim, head_dim, &mut s.values);
        self.saw_quantised(OpKind::QuantiseValue, &s.values);

        self.remember(layer, caches, &s.keys, &s.values);
        self.attend(layer, caches, &s.queries, &mut s.mean);
        self.saw(OpKind::Attend, &s.mean);
        self.quantise(&s.mean, heads * head_dim, &mut s.input);
        self.saw_quantised(OpKind::QuantiseAttention, &s.input);
        self.multiply(of(LayerRole::AttentionOutput), &s.input, &mut s.delta);
        self.saw(OpKind::AttentionOutput, &s.delta);
        self.cpu.add(&mut s.residual, &s.delta);
        self.saw(OpKind::Residual1, &s.residual);
    }

    /// x += Wdown · (silu(Wgate · n) ⊙ Wup · n) with n = norm(x).
    fn feed_forward(&mut self, layer: usize, s: &mut Scratch) {
        let Llama { shape, precision, .. } = self.model;
        let of = |role| Role::Layer(layer, role);

        self.norm(of(LayerRole::HiddenNorm), &s.residual, &mut s.normed);
        self.saw(OpKind::Norm2, &s.normed);
        self.quantise(&s.normed, shape.width, &mut s.input);
        self.saw_quantised(OpKind::Quantise2, &s.input);

        self.multiply(of(LayerRole::Gate), &s.input, &mut s.gate);
        self.saw(OpKind::Gate, &s.gate);
        self.multiply(of(LayerRole::Up), &s.input, &mut s.up);
        self.saw(OpKind::Up, &s.up);
        self.cpu.swiglu(&s.gate, &s.up, precision.layers[layer].hidden, &mut s.activation);
        self.saw(OpKind::Activation, &s.activation);
        self.quantise(&s.activation, shape.hidden, &mut s.input);
        self.saw_quantised(OpKind::QuantiseHidden, &s.input);

        self.multiply(of(LayerRole::Down), &s.input, &mut s.delta);
        self.saw(OpKind::Down, &s.delta);
        self.cpu.add(&mut s.residual, &s.delta);
        self.saw(OpKind::Residual2, &s.residual);
    }

    /// logits = Wout · norm(x), for the wanted rows only.
    fn logits(&mut self, s: &mut Scratch) -> Output {
        let Shape { width, vocab, .. } = self.model.shape;
        if self.rows.is_empty() {
            return Output::default();
        }
        let mut output = std::mem::take(&mut s.spare);
        // Wanted rows move to the front; a row never moves past one that is still to come.
        for (to, &from) in self.rows.iter().enumerate() {
            s.residual.copy_within(from * width..(from + 1) * width, to * width);
        }
        let wanted = self.rows.len() * width;
        self.norm(Role::OutputNorm, &s.residual[..wanted], &mut s.normed[..wanted]);
        self.saw(OpKind::NormFinal, &s.normed[..wanted]);
        self.quantise(&s.normed[..wanted], width, &mut output.hidden);
        self.saw_quantised(OpKind::QuantiseFinal, &output.hidden);
        let count = self.rows.len() * vocab;
        if output.logits.capacity() < count {
            // Fresh memory is zero already; its pages are first touched by the threads that share
            // the product.
            output.logits = vec![0; count];
        }
        output.logits.resize(count, 0);
        let role = if self.model.shape.tied { Role::Embedding } else { Role::Output };
        self.multiply(role, &output.hidden, &mut output.logits);
        self.saw(OpKind::Logits, &output.logits);
        output
    }

    /// Root-mean-square norm of every row.
    fn norm(&self, role: Role, x: &[i32], y: &mut [i32]) {
        let Llama { tensors, precision, eps_q, .. } = self.model;
        let gain = tensors.gain(role).expect("a norm has a gain");
        let (frac_residual, frac_out) = precision.fractions(role);
        self.cpu.rmsnorm(x, gain, &Norm { frac_residual, frac_out, eps_q: *eps_q }, y);
    }

    /// Quantises every row, padded to what matrices of so many columns take.
    fn quantise(&self, x: &[i32], columns: usize, out: &mut Quantised) {
        self.cpu.quantise(x, columns, columns.next_multiple_of(COLUMNS_STEP), out);
    }

    /// Multiplies every row with a matrix.
    fn multiply(&self, role: Role, x: &Quantised, y: &mut [i32]) {
        let Llama { tensors, precision, .. } = self.model;
        let weights = tensors.weights(role).expect("a product has a matrix");
        let (frac_in, frac_out) = precision.fractions(role);
        self.cpu.matmul(weights, x, frac_in, frac_out, y);
    }

    /// Turns the heads of every row by its position.
    fn turn(&self, heads: usize, x: &mut [i32]) {
        let Llama { shape, tensors, .. } = self.model;
        let head_dim = shape.head_dim;
        let angles = |position: &usize| {
            let (cos, sin) = tensors.rope.row(*position, head_dim);
            Angles { cos, sin }
        };
        let angles: Vec<Angles<'_>> = self.batch.positions.iter().map(angles).collect();
        let pairing = shape.rope.pairing;
        let heads = Heads { row_stride: heads * head_dim, heads, head_dim, pairing };
        self.cpu.rope(x, &heads, &angles);
    }

    /// Adds the keys and values of every row to the cache of its sequence.
    fn remember(&self, layer: usize, caches: &mut [&mut Cache], k: &Quantised, v: &Quantised) {
        let kv_heads = self.model.shape.kv_heads;
        for (index, row) in self.batch.rows.iter().enumerate() {
            let first = index * kv_heads;
            caches[row.sequence].layers[layer].push(k, first, v, first);
        }
    }

    /// Every row looks at the positions of its sequence up to its own.
    fn attend(&self, layer: usize, caches: &[&mut Cache], q: &Quantised, y: &mut [i32]) {
        let Llama { shape, precision, .. } = self.model;
        let Shape { heads, kv_heads, head_dim, .. } = *shape;
        let sites = &precision.layers[layer];
        let queries: Vec<Query<'_>> = (self.batch.rows.iter().zip(&self.batch.positions))
            .map(|(row, position)| Query {
                cache: &caches[row.sequence].layers[layer],
                positions: position + 1,
            })
            .collect();
        let attention = Attention {
            heads,
            kv_heads,
            head_dim,
            att_q30: att_q30(head_dim),
            frac_q: sites.query,
            frac_v: sites.value,
            frac_out: sites.attention,
        };
        self.cpu.attend(q, &queries, &attention, y);
    }

    /// Shows fixed-point rows.
    fn saw(&mut self, kind: OpKind, x: &[i32]) {
        if !self.tap.looks() {
            return;
        }
        let op = self.op(kind);
        let columns = x.len() / self.rows.len();
        for (row, x) in self.rows.iter().zip(x.chunks_exact(columns)) {
            self.tap.saw(op, *row, Values::Fixed(x));
        }
    }

    /// Shows quantised rows; several of them, such as heads, may make up one row of the batch.
    fn saw_quantised(&mut self, kind: OpKind, x: &Quantised) {
        if !self.tap.looks() {
            return;
        }
        let op = self.op(kind);
        let parts = x.rows() / self.rows.len();
        let (mut q, mut scales) = (Vec::new(), Vec::new());
        for (index, row) in self.rows.iter().enumerate() {
            q.clear();
            scales.clear();
            for part in index * parts..(index + 1) * parts {
                q.extend_from_slice(x.row(part).0);
                scales.extend_from_slice(x.row(part).1);
            }
            self.tap.saw(op, *row, Values::Quant { q: &q, scales: &scales });
        }
    }

    fn op(&self, kind: OpKind) -> Op {
        Op { layer: self.layer.map(|layer| layer as u16), kind }
    }
}

impl Tensors {
    /// Gathers the tensors of a model of this shape, one by one in the order of
    /// [`Shape::roles`], from two sources: matrices and gains.
    ///
    /// # Errors
    /// Whatever the sources fail with first.
    pub fn gather<E>(
        shape: &Shape,
        rope: RopeTables,
        mut weights: impl FnMut(Role) -> Result<Weights, E>,
        mut gain: impl FnMut(Role) -> Result<Vec<i32>, E>,
    ) -> Result<Tensors, E> {
        let embedding = weights(Role::Embedding)?;
        let mut layer = |index| {
            let mut weights = |role| weights(Role::Layer(index, role));
            let mut gain = |role| gain(Role::Layer(index, role));
            Ok(LayerTensors {
                attention_norm: gain(LayerRole::AttentionNorm)?,
                query: weights(LayerRole::Query)?,
                key: weights(LayerRole::Key)?,
                value: weights(LayerRole::Value)?,
                attention_output: weights(LayerRole::AttentionOutput)?,
                hidden_norm: gain(LayerRole::HiddenNorm)?,
                gate: weights(LayerRole::Gate)?,
                up: weights(LayerRole::Up)?,
                down: weights(LayerRole::Down)?,
            })
        };
        let layers = (0..shape.layers).map(&mut layer).collect::<Result<_, E>>()?;
        let output_norm = gain(Role::OutputNorm)?;
        let output = if shape.tied { None } else { Some(weights(Role::Output)?) };
        Ok(Tensors { embedding, output, output_norm, layers, rope })
    }

    /// The matrix of this role, if there is one.
    pub fn weights(&self, role: Role) -> Option<&Weights> {
        let (layer, role) = match role {
            Role::Embedding => return Some(&self.embedding),
            Role::Output => return self.output.as_ref(),
            Role::OutputNorm => return None,
            Role::Layer(layer, role) => (self.layers.get(layer)?, role),
        };
        match role {
            LayerRole::AttentionNorm | LayerRole::HiddenNorm => None,
            LayerRole::Query => Some(&layer.query),
            LayerRole::Key => Some(&layer.key),
            LayerRole::Value => Some(&layer.value),
            LayerRole::AttentionOutput => Some(&layer.attention_output),
            LayerRole::Gate => Some(&layer.gate),
            LayerRole::Up => Some(&layer.up),
            LayerRole::Down => Some(&layer.down),
        }
    }

    /// The gain of this role, `Fx<12>`, if there is one.
    pub fn gain(&self, role: Role) -> Option<&[i32]> {
        match role {
            Role::OutputNorm => Some(&self.output_norm),
            Role::Layer(layer, LayerRole::AttentionNorm) => {
                self.layers.get(layer).map(|layer| &*layer.attention_norm)
            }
            Role::Layer(layer, LayerRole::HiddenNorm) => {
                self.layers.get(layer).map(|layer| &*layer.hidden_norm)
            }
            _ => None,
        }
    }
}

impl Scratch {
    /// Takes back an output, so that the next pass need not ask the system for as much memory.
    pub fn recycle(&mut self, output: Output) {
        self.spare = output;
    }

    /// Makes room for a batch of so many rows.
    fn fit(&mut self, shape: &Shape, rows: usize) {
        let queries = shape.heads * shape.head_dim;
        let keys = shape.kv_heads * shape.head_dim;
        for (buffer, columns) in [
            (&mut self.residual, shape.width),
            (&mut self.normed, shape.width),
            (&mut self.delta, shape.width),
            (&mut self.query, queries),
            (&mut self.key, keys),
            (&mut self.value, keys),
            (&mut self.mean, queries),
            (&mut self.gate, shape.hidden),
            (&mut self.up, shape.hidden),
            (&mut self.activation, shape.hidden),
        ] {
            buffer.resize(rows * columns, 0);
        }
    }
}

#[cfg(test)]
mod tests;
