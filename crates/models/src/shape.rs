//! What a model is made of, independent of the file it came from.
//!
//! A [`Shape`] says how large everything is, a [`Role`] names one tensor, and [`Sites`] says how
//! many fraction bits each fixed-point intermediate of a layer carries. All of it ends up in the
//! manifest that a model id commits to.

use assay_kernels::{GROUP, Pairing};

use crate::family::{Family, Graph, Norms};

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
    /// Width of the feed-forward hidden layer, of one expert where a layer has several.
    pub hidden: usize,
    /// The experts of a layer, in families that have them.
    pub experts: Option<Experts>,
    /// Number of token ids.
    pub vocab: usize,
    /// Most positions a sequence may have.
    pub context: usize,
    /// Epsilon of the norms, as the source states it.
    pub norm_eps: f32,
    /// How positions turn queries and keys.
    pub rope: Rope,
    /// Which layers see recent positions only; none in most models.
    pub window: Option<Window>,
    /// Whether the output matrix is the embedding.
    pub tied: bool,
}

/// The feed-forwards of a layer that has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Experts {
    /// How many there are.
    pub count: usize,
    /// How many of them each position goes through, at most as many as there are.
    pub chosen: usize,
}

/// Layers that see recent positions only.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Positions they see, their own included.
    pub size: usize,
    /// Every so many layers, the last of them sees all positions instead.
    pub every: usize,
    /// Base of the rope frequencies of the others, which have no factors.
    pub base: f32,
}

impl Window {
    /// Whether a layer sees recent positions only.
    pub fn covers(&self, layer: usize) -> bool {
        (layer + 1) % self.every != 0
    }
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
    /// What each position adds to the embedding, where positions are learned: (context, width).
    Positions,
    /// What every token of a text adds to the embedding of an encoder: (1, width), the first row of
    /// a table that tells the halves of a pair of texts apart.
    TokenType,
    /// Gain of an encoder's norm of the embedding: (width).
    EmbeddingNorm,
    /// Bias of that norm: (width).
    EmbeddingNormBias,
    /// Gain of the last norm: (width).
    OutputNorm,
    /// Bias of the last norm: (width).
    OutputNormBias,
    /// Output matrix: (vocab, width); absent when tied.
    Output,
    /// A tensor of the given layer.
    Layer(usize, LayerRole),
}

/// One tensor of a layer. Which of them a family has, [`Graph::has`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LayerRole {
    /// Gain of the norm before attention: (width).
    AttentionNorm,
    /// Bias of that norm: (width).
    AttentionNormBias,
    /// Query projection: (heads · head_dim, width).
    Query,
    /// Bias of the queries: (heads · head_dim).
    QueryBias,
    /// Key projection: (kv_heads · head_dim, width).
    Key,
    /// Bias of the keys: (kv_heads · head_dim).
    KeyBias,
    /// Value projection: (kv_heads · head_dim, width).
    Value,
    /// Bias of the values: (kv_heads · head_dim).
    ValueBias,
    /// Gain of the norm of each query head: (head_dim).
    QueryNorm,
    /// Gain of the norm of each key head: (head_dim).
    KeyNorm,
    /// Attention output projection: (width, heads · head_dim).
    AttentionOutput,
    /// Bias of that projection: (width).
    AttentionOutputBias,
    /// Gain of the norm behind attention: (width).
    PostAttentionNorm,
    /// Bias of that norm: (width).
    PostAttentionNormBias,
    /// Gain of the norm before the feed-forward: (width).
    HiddenNorm,
    /// Bias of that norm: (width).
    HiddenNormBias,
    /// Gate projection: (hidden, width).
    Gate,
    /// Up projection: (hidden, width).
    Up,
    /// Bias of the up projection: (hidden).
    UpBias,
    /// Down projection: (width, hidden).
    Down,
    /// Bias of the down projection: (width).
    DownBias,
    /// What says how well each expert suits a position: (experts, width).
    Router,
    /// Gate projections of all experts, one below the other: (experts · hidden, width).
    ExpertGates,
    /// Up projections of all experts: (experts · hidden, width).
    ExpertUps,
    /// Down projections of all experts: (experts · width, hidden).
    ExpertDowns,
    /// Gain of the norm behind the feed-forward: (width).
    PostHiddenNorm,
    /// Bias of that norm: (width).
    PostHiddenNormBias,
}

impl LayerRole {
    /// Every tensor that a layer may have, in the order a layer uses them.
    pub const ALL: [LayerRole; 27] = [
        LayerRole::AttentionNorm,
        LayerRole::AttentionNormBias,
        LayerRole::Query,
        LayerRole::QueryBias,
        LayerRole::Key,
        LayerRole::KeyBias,
        LayerRole::Value,
        LayerRole::ValueBias,
        LayerRole::QueryNorm,
        LayerRole::KeyNorm,
        LayerRole::AttentionOutput,
        LayerRole::AttentionOutputBias,
        LayerRole::PostAttentionNorm,
        LayerRole::PostAttentionNormBias,
        LayerRole::HiddenNorm,
        LayerRole::HiddenNormBias,
        LayerRole::Gate,
        LayerRole::Up,
        LayerRole::UpBias,
        LayerRole::Down,
        LayerRole::DownBias,
        LayerRole::Router,
        LayerRole::ExpertGates,
        LayerRole::ExpertUps,
        LayerRole::ExpertDowns,
        LayerRole::PostHiddenNorm,
        LayerRole::PostHiddenNormBias,
    ];

    /// What a norm or a projection adds in the end.
    pub(crate) fn bias(self) -> Option<LayerRole> {
        use LayerRole as R;
        Some(match self {
            R::AttentionNorm => R::AttentionNormBias,
            R::Query => R::QueryBias,
            R::Key => R::KeyBias,
            R::Value => R::ValueBias,
            R::AttentionOutput => R::AttentionOutputBias,
            R::PostAttentionNorm => R::PostAttentionNormBias,
            R::HiddenNorm => R::HiddenNormBias,
            R::Up => R::UpBias,
            R::Down => R::DownBias,
            R::PostHiddenNorm => R::PostHiddenNormBias,
            _ => return None,
        })
    }

    fn is_bias(self) -> bool {
        LayerRole::ALL.iter().any(|role| role.bias() == Some(self))
    }

    fn is_norm(self) -> bool {
        use LayerRole as R;
        matches!(
            self,
            R::AttentionNorm
                | R::HiddenNorm
                | R::PostAttentionNorm
                | R::PostHiddenNorm
                | R::QueryNorm
                | R::KeyNorm
        )
    }
}

impl Role {
    /// What a norm or a projection adds in the end.
    pub(crate) fn bias(self) -> Option<Role> {
        match self {
            Role::EmbeddingNorm => Some(Role::EmbeddingNormBias),
            Role::OutputNorm => Some(Role::OutputNormBias),
            Role::Layer(layer, role) => role.bias().map(|bias| Role::Layer(layer, bias)),
            _ => None,
        }
    }

    /// Whether a tensor is a bias, which is kept in `Fx<16>`.
    pub fn is_bias(self) -> bool {
        match self {
            Role::EmbeddingNormBias | Role::OutputNormBias => true,
            Role::Layer(_, role) => role.is_bias(),
            _ => false,
        }
    }

    /// Whether a tensor is a vector in fixed point, the gain of a norm or a bias, rather than a
    /// matrix of int8 groups.
    pub fn is_vector(self) -> bool {
        match self {
            Role::EmbeddingNorm | Role::OutputNorm => true,
            Role::Layer(_, role) if role.is_norm() => true,
            _ => self.is_bias(),
        }
    }
}

impl Shape {
    /// The graph.
    pub fn graph(&self) -> &'static Graph {
        self.family.graph()
    }

    /// Every tensor of the model, in canonical order: embedding, layers, last norm, output.
    pub fn roles(&self) -> Vec<Role> {
        let graph = self.graph();
        let mut roles = vec![Role::Embedding];
        if graph.pairing.is_none() {
            roles.push(Role::Positions);
        }
        if !graph.causal {
            roles.extend([Role::TokenType, Role::EmbeddingNorm, Role::EmbeddingNormBias]);
        }
        for layer in 0..self.layers {
            let has = LayerRole::ALL.into_iter().filter(|role| graph.has(*role));
            roles.extend(has.map(|role| Role::Layer(layer, role)));
        }
        if graph.causal {
            roles.push(Role::OutputNorm);
            roles.extend(graph.centred.then_some(Role::OutputNormBias));
            roles.extend((!self.tied).then_some(Role::Output));
        }
        roles
    }

    /// Rows and columns of a tensor; a vector is one row.
    pub fn extent(&self, role: Role) -> (usize, usize) {
        use LayerRole as R;
        let queries = self.heads * self.head_dim;
        let keys = self.kv_heads * self.head_dim;
        let experts = self.experts.map_or(0, |experts| experts.count);
        match role {
            Role::Embedding | Role::Output => (self.vocab, self.width),
            Role::Positions => (self.context, self.width),
            Role::Layer(_, R::Query) => (queries, self.width),
            Role::Layer(_, R::QueryBias) => (1, queries),
            Role::Layer(_, R::Key | R::Value) => (keys, self.width),
            Role::Layer(_, R::KeyBias | R::ValueBias) => (1, keys),
            Role::Layer(_, R::QueryNorm | R::KeyNorm) => (1, self.head_dim),
            Role::Layer(_, R::AttentionOutput) => (self.width, queries),
            Role::Layer(_, R::Gate | R::Up) => (self.hidden, self.width),
            Role::Layer(_, R::UpBias) => (1, self.hidden),
            Role::Layer(_, R::Down) => (self.width, self.hidden),
            Role::Layer(_, R::Router) => (experts, self.width),
            Role::Layer(_, R::ExpertGates | R::ExpertUps) => (experts * self.hidden, self.width),
            Role::Layer(_, R::ExpertDowns) => (experts * self.width, self.hidden),
            _ => (1, self.width),
        }
    }

    /// Fraction bits of what a tensor takes in and of what it gives out; a bias gives out what it
    /// takes in.
    ///
    /// The embedding is meant as the output matrix that it is when tied; as a table it gives the
    /// residual stream.
    ///
    /// # Panics
    /// If the role is of a layer that does not exist.
    pub fn fractions(&self, precision: &Precision, role: Role) -> (u8, u8) {
        use LayerRole as R;
        let graph = self.graph();
        let residual = precision.residual;
        let (layer, role) = match role {
            Role::Embedding | Role::Output => return (precision.output_norm, FRAC_LOGITS),
            Role::OutputNorm => return (residual, precision.output_norm),
            Role::OutputNormBias => return (precision.output_norm, precision.output_norm),
            Role::Positions | Role::TokenType | Role::EmbeddingNorm | Role::EmbeddingNormBias => {
                return (residual, residual);
            }
            Role::Layer(layer, role) => (&precision.layers[layer], role),
        };
        let before = |norm: u8| if graph.norms == Norms::After { residual } else { norm };
        let (attention_in, hidden_in) = (before(layer.attention_norm), before(layer.hidden_norm));
        let heads = if graph.head_norms { FRAC_HEAD } else { layer.query };
        match role {
            R::AttentionNorm => (residual, layer.attention_norm),
            R::AttentionNormBias => (layer.attention_norm, layer.attention_norm),
            R::Query | R::Key => (attention_in, heads),
            R::QueryBias | R::KeyBias => (heads, heads),
            R::Value => (attention_in, layer.value),
            R::ValueBias => (layer.value, layer.value),
            R::QueryNorm | R::KeyNorm => (heads, layer.query),
            R::AttentionOutput => (layer.attention, residual),
            R::HiddenNorm => (residual, layer.hidden_norm),
            R::HiddenNormBias => (layer.hidden_norm, layer.hidden_norm),
            R::Gate | R::Up | R::ExpertGates | R::ExpertUps => (hidden_in, FRAC_GATE),
            R::UpBias => (FRAC_GATE, FRAC_GATE),
            R::Down | R::ExpertDowns => (layer.hidden, residual),
            R::Router => (hidden_in, FRAC_ROUTER),
            R::AttentionOutputBias
            | R::DownBias
            | R::PostAttentionNorm
            | R::PostAttentionNormBias
            | R::PostHiddenNorm
            | R::PostHiddenNormBias => (residual, residual),
        }
    }

    /// Number of parameters, vectors included, and those of experts that a position does not choose.
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
        use LayerRole as R;
        let (layer, name) = match self {
            Role::Embedding => return f.write_str("token_embd.weight"),
            Role::Positions => return f.write_str("position_embd.weight"),
            Role::TokenType => return f.write_str("token_types.weight"),
            Role::EmbeddingNorm => return f.write_str("token_embd_norm.weight"),
            Role::EmbeddingNormBias => return f.write_str("token_embd_norm.bias"),
            Role::OutputNorm => return f.write_str("output_norm.weight"),
            Role::OutputNormBias => return f.write_str("output_norm.bias"),
            Role::Output => return f.write_str("output.weight"),
            Role::Layer(layer, role) => (
                layer,
                match role {
                    R::AttentionNorm | R::AttentionNormBias => "attn_norm",
                    R::Query | R::QueryBias => "attn_q",
                    R::Key | R::KeyBias => "attn_k",
                    R::Value | R::ValueBias => "attn_v",
                    R::QueryNorm => "attn_q_norm",
                    R::KeyNorm => "attn_k_norm",
                    R::AttentionOutput | R::AttentionOutputBias => "attn_output",
                    R::PostAttentionNorm | R::PostAttentionNormBias => "post_attention_norm",
                    R::HiddenNorm | R::HiddenNormBias => "ffn_norm",
                    R::Gate => "ffn_gate",
                    R::Up | R::UpBias => "ffn_up",
                    R::Down | R::DownBias => "ffn_down",
                    R::Router => "ffn_gate_inp",
                    R::ExpertGates => "ffn_gate_exps",
                    R::ExpertUps => "ffn_up_exps",
                    R::ExpertDowns => "ffn_down_exps",
                    R::PostHiddenNorm | R::PostHiddenNormBias => "post_ffw_norm",
                },
            ),
        };
        let part = if self.is_bias() { "bias" } else { "weight" };
        write!(f, "blk.{layer}.{name}.{part}")
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

/// Fraction bits of gate and up, fixed because the sigmoid reads `Fx<16>`.
pub const FRAC_GATE: u8 = 16;
/// Fraction bits of what a router says of experts, fixed because their softmax reads `Fx<16>`.
pub const FRAC_ROUTER: u8 = 16;
/// Fraction bits of the logits.
pub const FRAC_LOGITS: u8 = 16;
/// Fraction bits of the gains of norms.
pub const FRAC_GAIN: u8 = 12;
/// Fraction bits of biases, of norms and of projections.
pub const FRAC_BIAS: u8 = 16;
/// Fraction bits of queries and keys that a norm of their own follows.
pub const FRAC_HEAD: u8 = 12;
