//! The forward pass of every family: what its graph says, in the order it is drawn.
//!
//! Between two matrices a row is fixed-point; before each matrix it is quantised. Where a number
//! is rounded is part of the arithmetic, so the order of operations here is normative.

mod experts;

use assay_kernels::reference::SCALED_BITS;
use assay_kernels::tables::att_q30;
use assay_kernels::{
    Angles, Attention, COLUMNS_STEP, Cpu, Norm, Product, Quantised, Query, Rope as Heads,
};

use crate::batch::{Batch, Output};
use crate::cache::Cache;
use crate::family::Norms;
use crate::model::Model;
use crate::shape::{LayerRole, Role, Shape, Window};
use crate::tap::{Op, OpKind, Tap, Values};

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
    /// Gate: (rows, hidden); with experts, a row for each that a row chose.
    gate: Vec<i32>,
    /// What the gate lets through, likewise.
    up: Vec<i32>,
    /// The gated product, likewise.
    activation: Vec<i32>,
    /// The input of the matrix at hand.
    input: Quantised,
    /// Queries, head by head: (rows · heads, head_dim).
    queries: Quantised,
    /// Keys, head by head: (rows · kv_heads, head_dim).
    keys: Quantised,
    /// Values, head by head: (rows · kv_heads, head_dim).
    values: Quantised,
    /// What a layer with experts works in.
    experts: experts::Room,
    /// Queries or keys before the norm of their heads.
    spare_heads: Vec<i32>,
    /// An output that nobody needs any more.
    spare: Output,
}

impl Model {
    /// Computes a planned batch; see [`Model::forward`].
    pub(crate) fn pass<T: Tap>(
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
        let shape = self.shape();
        scratch.fit(shape, batch.rows.len());
        let all_rows: Vec<usize> = (0..batch.rows.len()).collect();
        let mut pass = Pass { model: self, cpu, batch, rows: &all_rows, layer: None, tap };
        pass.embed(scratch);
        for layer in 0..shape.layers {
            pass.layer = Some(layer);
            pass.attention(layer, caches, scratch);
            pass.feed_forward(layer, scratch);
        }
        pass.layer = None;
        if !shape.graph().causal {
            return Output::default();
        }
        pass.rows = &batch.wanted;
        pass.logits(scratch)
    }
}

/// One forward pass: everything its steps share.
struct Pass<'a, T> {
    model: &'a Model,
    cpu: &'a Cpu,
    batch: &'a Batch<'a>,
    /// The rows of the batch that are being computed.
    rows: &'a [usize],
    /// The layer that is being computed.
    layer: Option<usize>,
    tap: &'a mut T,
}

impl<T: Tap> Pass<'_, T> {
    /// Looks the tokens up: x = E[token], and what the family does with that.
    fn embed(&mut self, s: &mut Scratch) {
        let (shape, graph) = (self.model.shape(), self.model.shape().graph());
        let residual = self.model.precision().residual;
        let more = if graph.scaled_embedding { SCALED_BITS } else { 0 };
        let tokens = self.batch.rows.iter().map(|row| row.token as usize);
        self.look_up(Role::Embedding, tokens, residual + more, &mut s.residual);
        if graph.scaled_embedding {
            self.cpu.scale(&mut s.residual, self.model.embedding_scale());
        }
        self.saw(OpKind::Embed, &s.residual);
        if graph.pairing.is_none() {
            let positions = self.batch.positions.iter().copied();
            self.look_up(Role::Positions, positions, residual, &mut s.delta);
            self.cpu.add(&mut s.residual, &s.delta);
            self.saw(OpKind::AddPosition, &s.residual);
        }
        if !graph.causal {
            let first = self.batch.rows.iter().map(|_| 0);
            self.look_up(Role::TokenType, first, residual, &mut s.delta);
            self.cpu.add(&mut s.residual, &s.delta);
            self.saw(OpKind::AddTokenType, &s.residual);
            self.norm_in_place(Role::EmbeddingNorm, shape.width, s);
            self.saw(OpKind::EmbedNorm, &s.residual);
        }
    }

    /// Rows of a table, in fixed point.
    fn look_up(&self, role: Role, rows: impl Iterator<Item = usize>, frac: u8, y: &mut [i32]) {
        let table = self.model.weights(role).expect("a table is a matrix");
        for (row, y) in rows.zip(y.chunks_exact_mut(self.model.shape().width)) {
            table.embed(row, frac, y);
        }
    }

    /// x += Wo · attend(turn(Wq · n), turn(Wk · n), Wv · n) with n = norm(x).
    fn attention(&mut self, layer: usize, caches: &mut [&mut Cache], s: &mut Scratch) {
        let (shape, graph) = (self.model.shape(), self.model.shape().graph());
        let Shape { heads, kv_heads, head_dim, .. } = *shape;
        let of = |role| Role::Layer(layer, role);

        self.input(of(LayerRole::AttentionNorm), OpKind::Norm1, OpKind::Quantise1, s);
        self.multiply_all(
            &s.input,
            [
                (of(LayerRole::Query), OpKind::Query, &mut s.query),
                (of(LayerRole::Key), OpKind::Key, &mut s.key),
                (of(LayerRole::Value), OpKind::Value, &mut s.value),
            ],
        );
        if graph.head_norms {
            for (role, kind, x) in [
                (LayerRole::QueryNorm, OpKind::QueryNorm, &mut s.query),
                (LayerRole::KeyNorm, OpKind::KeyNorm, &mut s.key),
            ] {
                s.spare_heads.resize(x.len(), 0);
                self.norm(of(role), x, &mut s.spare_heads);
                std::mem::swap(x, &mut s.spare_heads);
                self.saw(kind, x);
            }
        }

        if graph.pairing.is_some() {
            self.turn(heads, &mut s.query);
            self.saw(OpKind::RopeQuery, &s.query);
        }
        self.cpu.quantise(&s.query, head_dim, head_dim, &mut s.queries);
        self.saw_quantised(OpKind::QuantiseQuery, &s.queries);
        if graph.pairing.is_some() {
            self.turn(kv_heads, &mut s.key);
            self.saw(OpKind::RopeKey, &s.key);
        }
        self.cpu.quantise(&s.key, head_dim, head_dim, &mut s.keys);
        self.saw_quantised(OpKind::QuantiseKey, &s.keys);
        self.cpu.quantise(&s.value, head_dim, head_dim, &mut s.values);
        self.saw_quantised(OpKind::QuantiseValue, &s.values);

        self.remember(layer, caches, &s.keys, &s.values);
        self.attend(layer, caches, &s.queries, &mut s.mean);
        self.saw(OpKind::Attend, &s.mean);
        self.quantise(&s.mean, heads * head_dim, &mut s.input);
        self.saw_quantised(OpKind::QuantiseAttention, &s.input);
        self.multiply(
            of(LayerRole::AttentionOutput),
            OpKind::AttentionOutput,
            &s.input,
            &mut s.delta,
        );
        self.add(of(LayerRole::PostAttentionNorm), OpKind::PostNorm1, OpKind::Residual1, s);
    }

    /// x += Wdown · (activation(Wgate · n) ⊙ Wup · n) with n = norm(x), or what experts make of n.
    fn feed_forward(&mut self, layer: usize, s: &mut Scratch) {
        let of = |role| Role::Layer(layer, role);
        self.input(of(LayerRole::HiddenNorm), OpKind::Norm2, OpKind::Quantise2, s);
        match self.model.shape().experts {
            Some(experts) => self.ask_experts(layer, experts, s),
            None => self.hidden(layer, s),
        }
        self.add(of(LayerRole::PostHiddenNorm), OpKind::PostNorm2, OpKind::Residual2, s);
    }

    /// What the one feed-forward of a layer makes of its input.
    fn hidden(&mut self, layer: usize, s: &mut Scratch) {
        let (shape, graph) = (self.model.shape(), self.model.shape().graph());
        let of = |role| Role::Layer(layer, role);
        let gate = graph.gated.then_some((of(LayerRole::Gate), OpKind::Gate, &mut s.gate));
        let up = (of(LayerRole::Up), OpKind::Up, &mut s.up);
        self.multiply_all(&s.input, gate.into_iter().chain([up]));
        let (gate, up) = if graph.gated { (&s.gate, Some(&*s.up)) } else { (&s.up, None) };
        let frac = self.model.precision().layers[layer].hidden;
        self.cpu.activate(graph.activation, gate, up, frac, &mut s.activation);
        self.saw(OpKind::Activation, &s.activation);
        self.quantise(&s.activation, shape.hidden, &mut s.input);
        self.saw_quantised(OpKind::QuantiseHidden, &s.input);

        self.multiply(of(LayerRole::Down), OpKind::Down, &s.input, &mut s.delta);
    }

    /// The input of a half layer's matrices: the residual stream, normed where a norm stands
    /// before, and quantised.
    fn input(&mut self, role: Role, normed: OpKind, quantised: OpKind, s: &mut Scratch) {
        let width = self.model.shape().width;
        if self.model.shape().graph().norms == Norms::After {
            self.quantise(&s.residual, width, &mut s.input);
        } else {
            self.norm(role, &s.residual, &mut s.normed);
            self.saw(normed, &s.normed);
            self.quantise(&s.normed, width, &mut s.input);
        }
        self.saw_quantised(quantised, &s.input);
    }

    /// Adds what a half layer has found to the residual stream, with the norm that stands behind.
    fn add(&mut self, role: Role, normed: OpKind, residual: OpKind, s: &mut Scratch) {
        let norms = self.model.shape().graph().norms;
        if norms == Norms::Around {
            self.norm(role, &s.delta, &mut s.normed);
            self.saw(normed, &s.normed);
            std::mem::swap(&mut s.delta, &mut s.normed);
        }
        self.cpu.add(&mut s.residual, &s.delta);
        self.saw(residual, &s.residual);
        if norms == Norms::After {
            self.norm_in_place(role, self.model.shape().width, s);
            self.saw(normed, &s.residual);
        }
    }

    /// logits = Wout · norm(x), for the wanted rows only.
    fn logits(&mut self, s: &mut Scratch) -> Output {
        let Shape { width, vocab, .. } = *self.model.shape();
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
        let role = if self.model.shape().tied { Role::Embedding } else { Role::Output };
        self.multiply(role, OpKind::Logits, &output.hidden, &mut output.logits);
        output
    }

    /// The norm of every row, or of every head.
    fn norm(&self, role: Role, x: &[i32], y: &mut [i32]) {
        let gain = self.model.vector(role).expect("a norm has a gain");
        let (frac_in, frac_out) = self.model.fractions(role);
        let norm = Norm { frac_residual: frac_in, frac_out, eps_q: self.model.eps_of(role) };
        if !self.model.shape().graph().centred {
            return self.cpu.rmsnorm(x, gain, &norm, y);
        }
        let mut centred = x.to_vec();
        self.cpu.centre(&mut centred, gain.len());
        self.cpu.rmsnorm(&centred, gain, &norm, y);
        self.add_bias(role, y);
    }

    /// The norm of the residual stream, which goes on from there.
    fn norm_in_place(&self, role: Role, width: usize, s: &mut Scratch) {
        s.normed.resize(s.residual.len() / width * width, 0);
        self.norm(role, &s.residual, &mut s.normed);
        std::mem::swap(&mut s.residual, &mut s.normed);
    }

    /// Adds the bias of a norm or a projection to every row, if the family has one.
    fn add_bias(&self, role: Role, y: &mut [i32]) {
        if let Some(bias) = role.bias().and_then(|bias| self.model.vector(bias)) {
            self.cpu.add_bias(y, bias, self.model.fractions(role).1);
        }
    }

    /// Quantises every row, padded to what matrices of so many columns take.
    fn quantise(&self, x: &[i32], columns: usize, out: &mut Quantised) {
        self.cpu.quantise(x, columns, columns.next_multiple_of(COLUMNS_STEP), out);
    }

    /// Multiplies every row with a matrix, and adds its bias.
    fn multiply(&mut self, role: Role, kind: OpKind, x: &Quantised, y: &mut Vec<i32>) {
        self.multiply_all(x, [(role, kind, y)]);
    }

    /// Multiplies every row with several matrices of the same input, and adds their biases.
    fn multiply_all<'y>(
        &mut self,
        x: &Quantised,
        products: impl IntoIterator<Item = (Role, OpKind, &'y mut Vec<i32>)>,
    ) {
        let mut products: Vec<_> = products.into_iter().collect();
        let frac_in = products.first().map_or(0, |(role, ..)| self.model.fractions(*role).0);
        let each = products.iter_mut().map(|(role, _, y)| {
            let (input, frac_out) = self.model.fractions(*role);
            assert_eq!(input, frac_in, "one input has one fraction");
            let weights = self.model.weights(*role).expect("a product has a matrix");
            Product { weights, frac_out, y }
        });
        self.cpu.matmul_all(x, frac_in, each);
        for (role, kind, y) in products {
            self.saw(kind, y);
            if role.bias().is_some_and(|bias| self.model.vector(bias).is_some()) {
                self.add_bias(role, y);
                self.saw(kind.biased(), y);
            }
        }
    }

    /// Turns the heads of every row by its position.
    fn turn(&self, heads: usize, x: &mut [i32]) {
        let Shape { head_dim, ref rope, .. } = *self.model.shape();
        let tables = self.model.rope_of(self.layer.unwrap_or_default());
        let angles = |position: &usize| {
            let (cos, sin) = tables.row(*position, head_dim);
            Angles { cos, sin }
        };
        let angles: Vec<Angles<'_>> = self.batch.positions.iter().map(angles).collect();
        let pairing = rope.pairing;
        let heads = Heads { row_stride: heads * head_dim, heads, head_dim, pairing };
        self.cpu.rope(x, &heads, &angles);
    }

    /// Adds the keys and values of every row to the cache of its sequence.
    fn remember(&self, layer: usize, caches: &mut [&mut Cache], k: &Quantised, v: &Quantised) {
        let kv_heads = self.model.shape().kv_heads;
        for (index, row) in self.batch.rows.iter().enumerate() {
            let first = index * kv_heads;
            caches[row.sequence].layers[layer].push(k, first, v, first);
        }
    }

    /// Every row looks at the positions of its sequence up to its own; in an encoder at all.
    fn attend(&self, layer: usize, caches: &[&mut Cache], q: &Quantised, y: &mut [i32]) {
        let Shape { heads, kv_heads, head_dim, window, .. } = *self.model.shape();
        let causal = self.model.shape().graph().causal;
        let sites = &self.model.precision().layers[layer];
        let window = window.filter(|window: &Window| window.covers(layer));
        let queries: Vec<Query<'_>> = (self.batch.rows.iter().zip(&self.batch.positions))
            .map(|(row, position)| {
                let cache = &caches[row.sequence].layers[layer];
                let positions = if causal { position + 1 } else { cache.len() };
                let first = window.map_or(0, |window| positions.saturating_sub(window.size));
                Query { cache, first, positions }
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

impl Scratch {
    /// The residual stream as the last pass left it: (rows, width) and more.
    pub(crate) fn states(&self) -> &[i32] {
        &self.residual
    }

    /// Takes back an output, so that the next pass need not ask the system for as much memory.
    pub fn recycle(&mut self, output: Output) {
        self.spare = output;
    }

    /// Makes room for a batch of so many rows.
    fn fit(&mut self, shape: &Shape, rows: usize) {
        let queries = shape.heads * shape.head_dim;
        let keys = shape.kv_heads * shape.head_dim;
        let hidden = shape.hidden * shape.experts.map_or(1, |experts| experts.chosen);
        for (buffer, columns) in [
            (&mut self.residual, shape.width),
            (&mut self.normed, shape.width),
            (&mut self.delta, shape.width),
            (&mut self.query, queries),
            (&mut self.key, keys),
            (&mut self.value, keys),
            (&mut self.mean, queries),
            (&mut self.gate, hidden),
            (&mut self.up, hidden),
            (&mut self.activation, hidden),
        ] {
            buffer.resize(rows * columns, 0);
        }
    }
}

#[cfg(test)]
mod tests;
