//! The float twin: the same model in floating point, to say how far the integers are from it.
//!
//! A plain reading of the llama graph over dequantised weights. Its results depend on the machine
//! and are compared with tolerance only; nothing is ever committed to from here.

use assay_kernels::Pairing;

use crate::convert::{ConvertError, floats};
use crate::load::{LoadError, Source};
use crate::shape::{LayerRole, Role, Rope, Shape};

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

/// A llama in f32, with its weights in memory: four bytes per parameter.
pub struct FloatModel {
    shape: Shape,
    embedding: Vec<f32>,
    layers: Vec<Layer>,
    output_norm: Vec<f32>,
    /// `None` when the output is the embedding.
    output: Option<Vec<f32>>,
}

/// Matrices are (rows, columns), row by row; see [`LayerRole`] for their sizes.
struct Layer {
    attention_norm: Vec<f32>,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    attention_output: Vec<f32>,
    hidden_norm: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    down: Vec<f32>,
}

impl FloatModel {
    /// Reads and dequantises every tensor of the source.
    ///
    /// # Errors
    /// Fails when a tensor cannot be read or is not finite.
    pub fn load(source: &Source) -> Result<Self, FloatError> {
        let shape = source.shape().clone();
        let read = |role| -> Result<Vec<f32>, FloatError> { Ok(floats(&source.tensor(role)?)?) };
        let layer = |index| -> Result<Layer, FloatError> {
            let read = |role| read(Role::Layer(index, role));
            Ok(Layer {
                attention_norm: read(LayerRole::AttentionNorm)?,
                query: read(LayerRole::Query)?,
                key: read(LayerRole::Key)?,
                value: read(LayerRole::Value)?,
                attention_output: read(LayerRole::AttentionOutput)?,
                hidden_norm: read(LayerRole::HiddenNorm)?,
                gate: read(LayerRole::Gate)?,
                up: read(LayerRole::Up)?,
                down: read(LayerRole::Down)?,
            })
        };
        Ok(Self {
            embedding: read(Role::Embedding)?,
            layers: (0..shape.layers).map(layer).collect::<Result<_, _>>()?,
            output_norm: read(Role::OutputNorm)?,
            output: if shape.tied { None } else { Some(read(Role::Output)?) },
            shape,
        })
    }

    /// Logits after each token of a text that begins at position 0: (tokens, vocab).
    ///
    /// # Panics
    /// If a token is not below the vocabulary's size.
    pub fn logits(&self, tokens: &[u32]) -> Vec<f32> {
        let width = self.shape.width;
        let embed = |&token: &u32| &self.embedding[token as usize * width..][..width];
        // (tokens, width)
        let mut x: Vec<f32> = tokens.iter().flat_map(embed).copied().collect();
        let angles = Angles::new(&self.shape.rope, self.shape.head_dim, tokens.len());
        for layer in &self.layers {
            let normed = self.norm(&x, &layer.attention_norm);
            add(&mut x, &self.attend(layer, &normed, &angles));
            let normed = self.norm(&x, &layer.hidden_norm);
            add(&mut x, &self.hidden(layer, &normed));
        }
        let normed = self.norm(&x, &self.output_norm);
        multiply(self.output.as_ref().unwrap_or(&self.embedding), &normed, width)
    }

    /// RMSNorm of each row of `x`: (tokens, width).
    fn norm(&self, x: &[f32], gain: &[f32]) -> Vec<f32> {
        let mut y = Vec::with_capacity(x.len());
        for row in x.chunks_exact(gain.len()) {
            let mean = dot(row, row) / row.len() as f32;
            let scale = 1.0 / (mean + self.shape.norm_eps).sqrt();
            y.extend(row.iter().zip(gain).map(|(value, gain)| value * scale * gain));
        }
        y
    }

    /// Causal grouped-query attention with its projections; `x` and result: (tokens, width).
    fn attend(&self, layer: &Layer, x: &[f32], angles: &Angles) -> Vec<f32> {
        let Shape { width, heads, kv_heads, head_dim, .. } = self.shape;
        let mut queries = multiply(&layer.query, x, width);
        let mut keys = multiply(&layer.key, x, width);
        let values = multiply(&layer.value, x, width);
        angles.turn(&mut queries, heads);
        angles.turn(&mut keys, kv_heads);

        let tokens = x.len() / width;
        let at = |position: usize, kv_head: usize| (position * kv_heads + kv_head) * head_dim;
        let mut mixed = vec![0.0; tokens * heads * head_dim];
        for (index, out) in mixed.chunks_exact_mut(head_dim).enumerate() {
            let (token, head) = (index / heads, index % heads);
            let kv_head = head / (heads / kv_heads);
            let query = &queries[index * head_dim..][..head_dim];
            let mut weights: Vec<f32> = (0..=token)
                .map(|past| dot(query, &keys[at(past, kv_head)..][..head_dim]))
                .map(|score| score / (head_dim as f32).sqrt())
                .collect();
            softmax(&mut weights);
            for (past, weight) in weights.into_iter().enumerate() {
                let value = &values[at(past, kv_head)..][..head_dim];
                out.iter_mut().zip(value).for_each(|(out, value)| *out += weight * value);
            }
        }
        multiply(&layer.attention_output, &mixed, heads * head_dim)
    }

    /// SwiGLU with its projections; `x` and result: (tokens, width).
    fn hidden(&self, layer: &Layer, x: &[f32]) -> Vec<f32> {
        let gate = multiply(&layer.gate, x, self.shape.width);
        let up = multiply(&layer.up, x, self.shape.width);
        let silu = |value: f32| value / (1.0 + (-value).exp());
        let product: Vec<f32> = gate.iter().zip(&up).map(|(g, u)| silu(*g) * u).collect();
        multiply(&layer.down, &product, self.shape.hidden)
    }
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

fn softmax(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    scores.iter_mut().for_each(|score| *score = (*score - max).exp());
    let sum: f32 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
}
