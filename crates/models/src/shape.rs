//! What a model is made of, independent of the file it came from.
//!
//! A [`Shape`] says how large everything is, a [`Role`] names one tensor, and [`Sites`] says how
//! many fraction bits each fixed-point intermediate of a layer carries. All of it ends up in the
//! manifest that a model id commits to.

use assay_kernels::{GROUP, Pairing};

/// The graph a model computes. Each family is one file in this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// RMSNorm, RoPE, grouped-query attention, SwiGLU; output tied to the embedding or not.
    Llama,
}

/// The sizes of a model. All counts are of elements, none is padded.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// The graph.
    pub family: Family,
    /// Width of the residual stream.
    pub width: usize,
    /// Number of transformer blocks.
    pub layers: usize,
    /// Query heads per layer.
    pub heads: usize,
    /// Key and value heads per layer; divides `heads`.
    pub kv_heads: usize,
    /// Elements per head, a multiple of [`GROUP`].
    pub head_dim: usize,
    /// Width of the feed-forward hidden layer.
    pub hidden: usize,
    /// Number of token ids.
    pub vocab: usize,
    /// Most positions a sequence may have.
    pub context: usize,
    /// Epsilon of the RMS norms, as the source states it.
    pub norm_eps: f32,
    /// How positions turn queries and keys.
    pub rope: Rope,
    /// Whether the output matrix is the embedding.
    pub tied: bool,
}

/// How positions turn queries and keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Which two elements of a head turn together.
    pub pairing: Pairing,
    /// Base of the geometric series of frequencies.
    pub base: f32,
    /// Divisor of each pair's frequency, `head_dim / 2` of them; empty means all ones.
    pub factors: Vec<f32>,
}

/// One tensor of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Token embedding: (vocab, width).
    Embedding,
    /// Gain of the last norm: (width).
    OutputNorm,
    /// Output matrix: (vocab, width); absent when tied.
    Output,
    /// A tensor of the given layer.
    Layer(usize, LayerRole),
}

/// One tensor of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LayerRole {
    /// Gain of the norm before attention: (width).
    AttentionNorm,
    /// Query projection: (heads · head_dim, width).
    Query,
    /// Key projection: (kv_heads · head_dim, width).
    Key,
    /// Value projection: (kv_heads · head_dim, width).
    Value,
    /// Attention output projection: (width, heads · head_dim).
    AttentionOutput,
    /// Gain of the norm before the feed-forward: (width).
    HiddenNorm,
    /// Gate projection: (hidden, width).
    Gate,
    /// Up projection: (hidden, width).
    Up,
    /// Down projection: (width, hidden).
    Down,
}

impl LayerRole {
    /// Every tensor of a layer, in the order the layer uses them.
    pub const ALL: [LayerRole; 9] = [
        LayerRole::AttentionNorm,
        LayerRole::Query,
        LayerRole::Key,
        LayerRole::Value,
        LayerRole::AttentionOutput,
        LayerRole::HiddenNorm,
        LayerRole::Gate,
        LayerRole::Up,
        LayerRole::Down,
    ];
}

impl Shape {
    /// Every tensor of the model, in canonical order: embedding, layers, last norm, output.
    pub fn roles(&self) -> Vec<Role> {
        let mut roles = vec![Role::Embedding];
        for layer in 0..self.layers {
            roles.extend(LayerRole::ALL.map(|role| Role::Layer(layer, role)));
        }
        roles.push(Role::OutputNorm);
        if !self.tied {
            roles.push(Role::Output);
        }
        roles
    }

    /// Rows and columns of a tensor; a gain is one row.
    pub fn extent(&self, role: Role) -> (usize, usize) {
        let queries = self.heads * self.head_dim;
        let keys = self.kv_heads * self.head_dim;
        match role {
            Role::Embedding | Role::Output => (self.vocab, self.width),
            Role::OutputNorm => (1, self.width),
            Role::Layer(_, role) => match role {
                LayerRole::AttentionNorm | LayerRole::HiddenNorm => (1, self.width),
                LayerRole::Query => (queries, self.width),
                LayerRole::Key | LayerRole::Value => (keys, self.width),
                LayerRole::AttentionOutput => (self.width, queries),
                LayerRole::Gate | LayerRole::Up => (self.hidden, self.width),
                LayerRole::Down => (self.width, self.hidden),
            },
        }
    }

    /// Whether a tensor is a gain of a norm (fixed point) rather than a matrix (int8 groups).
    pub fn is_gain(role: Role) -> bool {
        matches!(
            role,
            Role::OutputNorm | Role::Layer(_, LayerRole::AttentionNorm | LayerRole::HiddenNorm)
        )
    }

    /// Number of parameters, gains included.
    pub fn parameters(&self) -> u64 {
        self.roles()
            .into_iter()
            .map(|role| self.extent(role))
            .map(|(rows, columns)| rows as u64 * columns as u64)
            .sum()
    }

    /// Bytes that one position of one sequence occupies in the KV cache: int8 values and their
    /// 16-bit scales, keys and values, all layers.
    pub fn kv_bytes_per_position(&self) -> usize {
        let record = self.kv_heads * (self.head_dim + 2 * self.head_dim / GROUP);
        2 * self.layers * record
    }
}

impl std::fmt::Display for Role {
    /// The name the tensor has in GGUF files, which is how people know it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (layer, name) = match self {
            Role::Embedding => return f.write_str("token_embd.weight"),
            Role::OutputNorm => return f.write_str("output_norm.weight"),
            Role::Output => return f.write_str("output.weight"),
            Role::Layer(layer, role) => (
                layer,
                match role {
                    LayerRole::AttentionNorm => "attn_norm",
                    LayerRole::Query => "attn_q",
                    LayerRole::Key => "attn_k",
                    LayerRole::Value => "attn_v",
                    LayerRole::AttentionOutput => "attn_output",
                    LayerRole::HiddenNorm => "ffn_norm",
                    LayerRole::Gate => "ffn_gate",
                    LayerRole::Up => "ffn_up",
                    LayerRole::Down => "ffn_down",
                },
            ),
        };
        write!(f, "blk.{layer}.{name}.weight")
    }
}

/// Fraction bits of the fixed-point intermediates of one layer (`Fx<f>`: an i32 holding
/// value · 2^f). Chosen once, by calibration at import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sites {
    /// Output of the norm before attention.
    pub attention_norm: u8,
    /// Queries and keys, before and after RoPE.
    pub query: u8,
    /// Values.
    pub value: u8,
    /// Output of attention, input of its projection.
    pub attention: u8,
    /// Output of the norm before the feed-forward.
    pub hidden_norm: u8,
    /// SwiGLU's product, input of the down projection.
    pub hidden: u8,
}

/// Fraction bits of the whole model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Precision {
    /// The residual stream.
    pub residual: u8,
    /// Per layer.
    pub layers: Vec<Sites>,
    /// Output of the last norm.
    pub output_norm: u8,
}

impl Precision {
    /// Fraction bits of what a tensor takes in and of what it gives out.
    ///
    /// The embedding is meant as the output matrix that it is when tied; as a table it gives the
    /// residual stream.
    ///
    /// # Panics
    /// If the role is of a layer that does not exist.
    pub fn fractions(&self, role: Role) -> (u8, u8) {
        let (layer, role) = match role {
            Role::Embedding | Role::Output => return (self.output_norm, FRAC_LOGITS),
            Role::OutputNorm => return (self.residual, self.output_norm),
            Role::Layer(layer, role) => (&self.layers[layer], role),
        };
        match role {
            LayerRole::AttentionNorm => (self.residual, layer.attention_norm),
            LayerRole::Query | LayerRole::Key => (layer.attention_norm, layer.query),
            LayerRole::Value => (layer.attention_norm, layer.value),
            LayerRole::AttentionOutput => (layer.attention, self.residual),
            LayerRole::HiddenNorm => (self.residual, layer.hidden_norm),
            LayerRole::Gate | LayerRole::Up => (layer.hidden_norm, FRAC_GATE),
            LayerRole::Down => (layer.hidden, self.residual),
        }
    }
}

/// Fraction bits of gate and up, fixed because the sigmoid reads `Fx<16>`.
pub const FRAC_GATE: u8 = 16;
/// Fraction bits of the logits.
pub const FRAC_LOGITS: u8 = 16;
/// Fraction bits of the gains of norms.
pub const FRAC_GAIN: u8 = 12;
