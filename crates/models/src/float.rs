//! The float twin: the same model in floating point, to say how far the integers are from it.
//!
//! A plain reading of a family's graph over dequantised weights. Its results depend on the machine
//! and are compared with tolerance only; nothing is ever committed to from here.

use std::collections::BTreeMap;

use assay_kernels::{Activation, Pairing};

use crate::convert::{ConvertError, floats};
use crate::family::{Graph, Norms};
use crate::load::{LoadError, Source};
use crate::shape::{Experts, LayerRole, Role, Rope, Shape};

/// Why there is no float twin of a source.
#[derive(Debug, thiserror::Error)]
pub enum FloatError {
    /// A tensor cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A tensor holds an infinity or a NaN.
    #[error(transparent)]
    Convert(#[from] ConvertError),
}

/// A model in f32, with its weights in memory: four bytes per parameter.
pub struct FloatModel {
    shape: Shape,
    graph: &'static Graph,
    /// Matrices are (rows, columns), row by row; see [`Role`] for their sizes.
    tensors: BTreeMap<Role, Vec<f32>>,
}

impl FloatModel {
    /// Reads and dequantises every tensor of the source.
    ///
    /// # Errors
    /// Fails when a tensor cannot be read or is not finite.
    pub fn load(source: &Source) -> Result<Self, FloatError> {
        let shape = source.shape().clone();
        let read = |role| -> Result<_, FloatError> { Ok((role, floats(&source.tensor(role)?)?)) };
        let tensors = shape.roles().into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self { graph: shape.graph(), shape, tensors })
    }

    /// Changes the numbers of every tensor in place, to say what that costs.
    pub fn change(&mut self, mut change: impl FnMut(Role, &mut [f32])) {
        self.tensors.iter_mut().for_each(|(role, values)| change(*role, values));
    }

    /// Logits after each token of a text that begins at position 0: (tokens, vocab).
    ///
    /// # Panics
    /// If a token is not below the vocabulary's size, or the model is an encoder.
    pub fn logits(&self, tokens: &[u32]) -> Vec<f32> {
        assert!(self.graph.causal, "an encoder has no logits");
        let x = self.norm(Role::OutputNorm, &self.states(tokens));
        let role = if self.shape.tied { Role::Embedding } else { Role::Output };
        multiply(&self.tensors[&role], &x, self.shape.width)
    }

    /// The vector of a text, of length one: (width).
    ///
    /// # Panics
    /// If there are no tokens, or one is not below the vocabulary's size.
    pub fn embedding(&self, tokens: &[u32]) -> Vec<f32> {
        assert!(!tokens.is_empty(), "a text of no tokens has no vector");
        let width = self.shape.width;
        let mut sum = vec![0.0; width];
        self.states(tokens).chunks_exact(width).for_each(|row| add(&mut sum, row));
        let length = dot(&sum, &sum).sqrt();
        sum.iter().map(|value| value / length).collect()
    }

    /// The residual stream behind the last layer: (tokens, width).
    fn states(&self, tokens: &[u32]) -> Vec<f32> {
        let mut x = self.embed(tokens);
        let (context, window) = (tokens.len(), self.shape.window);
        let head_dim = self.shape.head_dim;
        let angles = Angles::new(&self.shape.rope, head_dim, context);
        let near = window.map(|window| {
            let pairing = self.shape.rope.pairing;
            let rope = Rope { pairing, base: window.base, factors: Vec::new() };
            Angles::new(&rope, head_dim, context)
        });
        for layer in 0..self.shape.layers {
            let covering = window.filter(|window| window.covers(layer));
            let sight = covering.map_or(usize::MAX, |window| window.size);
            let angles = near.as_ref().filter(|_| covering.is_some()).unwrap_or(&angles);
            let of = |role| Role::Layer(layer, role);
            let found =
                self.attend(layer, &self.before(of(LayerRole::AttentionNorm), &x), angles, sight);
            x = self.after(of(LayerRole::PostAttentionNorm), x, found);
            let input = self.before(of(LayerRole::HiddenNorm), &x);
            let found = match self.shape.experts {
                Some(experts) => self.experts(layer, experts, &input),
                None => self.hidden(layer, &input),
            };
            x = self.after(of(LayerRole::PostHiddenNorm), x, found);
        }
        x
    }

    /// What the first layer sees: (tokens, width).
    fn embed(&self, tokens: &[u32]) -> Vec<f32> {
        let width = self.shape.width;
        let row = |role: Role, at: usize| &self.tensors[&role][at * width..][..width];
        let tokens = tokens.iter().map(|&token| token as usize);
        let mut x: Vec<f32> = tokens.flat_map(|at| row(Role::Embedding, at)).copied().collect();
        if self.graph.scaled_embedding {
            let factor = (width as f32).sqrt();
            x.iter_mut().for_each(|x| *x *= factor);
        }
        for (position, x) in x.chunks_exact_mut(width).enumerate() {
            if self.graph.pairing.is_none() {
                add(x, row(Role::Positions, position));
            }
            if !self.graph.causal {
                add(x, row(Role::TokenType, 0));
            }
        }
        if self.graph.causal { x } else { self.norm(Role::EmbeddingNorm, &x) }
    }

    /// The input of a half layer.
    fn before(&self, role: Role, x: &[f32]) -> Vec<f32> {
        match self.graph.norms {
            Norms::Before | Norms::Around => self.norm(role, x),
            Norms::After => x.to_vec(),
        }
    }

    /// The residual stream with what a half layer has found.
    fn after(&self, role: Role, mut x: Vec<f32>, found: Vec<f32>) -> Vec<f32> {
        match self.graph.norms {
            Norms::Before => add(&mut x, &found),
            Norms::Around => add(&mut x, &self.norm(role, &found)),
            Norms::After => {
                add(&mut x, &found);
                x = self.norm(role, &x);
            }
        }
        x
    }

    /// The norm of each row of `x`, or of each head.
    fn norm(&self, role: Role, x: &[f32]) -> Vec<f32> {
        let gain = &self.tensors[&role];
        let bias = role.bias().and_then(|bias| self.tensors.get(&bias));
        let mut y = Vec::with_capacity(x.len());
        for row in x.chunks_exact(gain.len()) {
            let count = row.len() as f32;
            let centre = if self.graph.centred { row.iter().sum::<f32>() / count } else { 0.0 };
            let row: Vec<f32> = row.iter().map(|value| value - centre).collect();
            let scale = 1.0 / (dot(&row, &row) / count + self.shape.norm_eps).sqrt();
            y.extend(row.iter().zip(gain).map(|(value, gain)| value * scale * gain));
        }
        add_to_rows(&mut y, bias);
        y
    }

    /// A projection of each row of `x`, with its bias.
    fn project(&self, layer: usize, role: LayerRole, x: &[f32]) -> Vec<f32> {
        let role = Role::Layer(layer, role);
        let mut y = multiply(&self.tensors[&role], x, self.shape.extent(role).1);
        add_to_rows(&mut y, role.bias().and_then(|bias| self.tensors.get(&bias)));
        y
    }

    /// Grouped-query attention with its projections; `x` and result: (tokens, width). A position
    /// sees as many up to its own as `sight` says, or all in an encoder.
    fn attend(&self, layer: usize, x: &[f32], angles: &Angles, sight: usize) -> Vec<f32> {
        let Shape { width, heads, kv_heads, head_dim, .. } = self.shape;
        let mut queries = self.project(layer, LayerRole::Query, x);
        let mut keys = self.project(layer, LayerRole::Key, x);
        let values = self.project(layer, LayerRole::Value, x);
        if self.graph.head_norms {
            queries = self.norm(Role::Layer(layer, LayerRole::QueryNorm), &queries);
            keys = self.norm(Role::Layer(layer, LayerRole::KeyNorm), &keys);
        }
        if self.graph.pairing.is_some() {
            angles.turn(&mut queries, heads);
            angles.turn(&mut keys, kv_heads);
        }

        let tokens = x.len() / width;
        let at = |position: usize, kv_head: usize| (position * kv_heads + kv_head) * head_dim;
        let mut mixed = vec![0.0; tokens * heads * head_dim];
        for (index, out) in mixed.chunks_exact_mut(head_dim).enumerate() {
            let (token, head) = (index / heads, index % heads);
            let kv_head = head / (heads / kv_heads);
            let query = &queries[index * head_dim..][..head_dim];
            let end = if self.graph.causal { token + 1 } else { tokens };
            let seen = end.saturating_sub(sight)..end;
            let mut weights: Vec<f32> = (seen.clone())
                .map(|past| dot(query, &keys[at(past, kv_head)..][..head_dim]))
                .map(|score| score / (head_dim as f32).sqrt())
                .collect();
            softmax(&mut weights);
            for (past, weight) in seen.zip(weights) {
                let value = &values[at(past, kv_head)..][..head_dim];
                out.iter_mut().zip(value).for_each(|(out, value)| *out += weight * value);
            }
        }
        self.project(layer, LayerRole::AttentionOutput, &mixed)
    }

    /// The feed-forward with its projections; `x` and result: (tokens, width).
    fn hidden(&self, layer: usize, x: &[f32]) -> Vec<f32> {
        let activated = |mut x: Vec<f32>| {
            x.iter_mut().for_each(|x| *x = activate(self.graph.activation, *x));
            x
        };
        let mut product = self.project(layer, LayerRole::Up, x);
        if self.graph.gated {
            let gate = activated(self.project(layer, LayerRole::Gate, x));
            product.iter_mut().zip(gate).for_each(|(up, gate)| *up *= gate);
        } else {
            product = activated(product);
        }
        self.project(layer, LayerRole::Down, &product)
    }

    /// The feed-forward with experts; `x` and result: (tokens, width).
    fn experts(&self, layer: usize, experts: Experts, x: &[f32]) -> Vec<f32> {
        let scores = self.project(layer, LayerRole::Router, x);
        let mut mixed = vec![0.0; x.len()];
        let tokens = x.chunks_exact(self.shape.width).zip(scores.chunks_exact(experts.count));
        for ((x, scores), mixed) in tokens.zip(mixed.chunks_exact_mut(self.shape.width)) {
            let mut order: Vec<usize> = (0..experts.count).collect();
            order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
            order.truncate(experts.chosen);
            let mut shares: Vec<f32> = order.iter().map(|expert| scores[*expert]).collect();
            softmax(&mut shares);
            for (expert, share) in order.into_iter().zip(shares) {
                let found = self.expert(layer, expert, x);
                mixed.iter_mut().zip(found).for_each(|(sum, found)| *sum += share * found);
            }
        }
        mixed
    }

    /// What one expert makes of one token: (width) from (width).
    fn expert(&self, layer: usize, expert: usize, x: &[f32]) -> Vec<f32> {
        let Shape { width, hidden, .. } = self.shape;
        let product = |role, x: &[f32]| {
            let matrix = &self.tensors[&Role::Layer(layer, role)];
            multiply(&matrix[expert * hidden * width..][..hidden * width], x, x.len())
        };
        let mut inner = product(LayerRole::ExpertUps, x);
        for (up, gate) in inner.iter_mut().zip(product(LayerRole::ExpertGates, x)) {
            *up *= activate(self.graph.activation, gate);
        }
        product(LayerRole::ExpertDowns, &inner)
    }
}

fn activate(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f32::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::GeluErf => 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)),
    }
}

/// The error function: approximation 7.1.26 of Abramowitz and Stegun, within 1.5e-7.
fn erf(x: f32) -> f32 {
    let size = f64::from(x.abs());
    let t = 1.0 / (1.0 + 0.327_591_1 * size);
    let factors = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    let series = factors.into_iter().fold(0.0, |sum, factor| (sum + factor) * t);
    ((1.0 - series * (-size * size).exp()) as f32).copysign(x)
}

/// Cosine and sine of every angle, (positions, head_dim / 2).
struct Angles {
    pairing: Pairing,
    pairs: usize,
    cos_sin: Vec<(f32, f32)>,
}

impl Angles {
    fn new(rope: &Rope, head_dim: usize, positions: usize) -> Self {
        let pairs = head_dim / 2;
        let angle = |position: usize, pair: usize| {
            let exponent = -2.0 * pair as f64 / head_dim as f64;
            let factor = rope.factors.get(pair).copied().unwrap_or(1.0);
            position as f64 * f64::from(rope.base).powf(exponent) / f64::from(factor)
        };
        let cos_sin = (0..positions * pairs)
            .map(|index| angle(index / pairs, index % pairs).sin_cos())
            .map(|(sin, cos)| (cos as f32, sin as f32))
            .collect();
        Self { pairing: rope.pairing, pairs, cos_sin }
    }

    /// Turns the heads of each row of `x`: (positions, heads, head_dim).
    fn turn(&self, x: &mut [f32], heads: usize) {
        for (index, head) in x.chunks_exact_mut(2 * self.pairs).enumerate() {
            let position = index / heads;
            for pair in 0..self.pairs {
                let (cos, sin) = self.cos_sin[position * self.pairs + pair];
                let (first, second) = match self.pairing {
                    Pairing::Halves => (pair, pair + self.pairs),
                    Pairing::Adjacent => (2 * pair, 2 * pair + 1),
                };
                let (a, b) = (head[first], head[second]);
                head[first] = a * cos - b * sin;
                head[second] = b * cos + a * sin;
            }
        }
    }
}

/// `matrix`: (rows, columns), `x`: (tokens, columns); returns (tokens, rows).
fn multiply(matrix: &[f32], x: &[f32], columns: usize) -> Vec<f32> {
    let product = |x| matrix.chunks_exact(columns).map(move |row| dot(row, x));
    x.chunks_exact(columns).flat_map(product).collect()
}

/// A sum of products in eight lanes, a form that compilers turn into vector instructions.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        for lane in 0..8 {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    let rest = a.len() / 8 * 8;
    let tail: f32 = a[rest..].iter().zip(&b[rest..]).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + tail
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

fn add_to_rows(x: &mut [f32], bias: Option<&Vec<f32>>) {
    if let Some(bias) = bias {
        x.chunks_exact_mut(bias.len()).for_each(|row| add(row, bias));
    }
}

fn softmax(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    scores.iter_mut().for_each(|score| *score = (*score - max).exp());
    let sum: f32 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
}
