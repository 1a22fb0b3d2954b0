//! Seeing what a model computes, without the model knowing why.

/// One step of the computation at one position.
///
/// Its display is the name a trace uses, such as `NORM1.3` for the first norm of layer 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Op {
    /// The layer, for the steps that each layer has.
    pub layer: Option<u16>,
    /// What is computed.
    pub kind: OpKind,
}

/// What a step computes. Up to [`OpKind::Token`] the order is llama's order of execution; what only
/// other families do follows, because a program names steps by their place here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OpKind {
    /// The token's row of the embedding, as residual stream.
    Embed,
    /// Largest magnitude, sum of squares and reciprocal root of the norm before attention.
    NormStat1,
    /// The norm before attention.
    Norm1,
    /// Its quantised form.
    Quantise1,
    /// Queries of all heads.
    Query,
    /// Keys of all key/value heads.
    Key,
    /// Values of all key/value heads.
    Value,
    /// Queries, turned by their position.
    RopeQuery,
    /// Their quantised form, head by head.
    QuantiseQuery,
    /// Keys, turned by their position.
    RopeKey,
    /// Their quantised form, head by head: what the cache keeps.
    QuantiseKey,
    /// Values in quantised form, head by head: what the cache keeps.
    QuantiseValue,
    /// Per head, the score of every position up to this one.
    Score,
    /// Per head, the largest score and the sum of the weights.
    ScoreMax,
    /// Per head, block of positions and group of dimensions, the shift of the scaled weights.
    BlockShift,
    /// Weighted means of the values, all heads.
    Attend,
    /// Their quantised form.
    QuantiseAttention,
    /// The projection of attention.
    AttentionOutput,
    /// The residual stream after attention.
    Residual1,
    /// Largest magnitude, sum of squares and reciprocal root of the norm before the feed-forward.
    NormStat2,
    /// The norm before the feed-forward.
    Norm2,
    /// Its quantised form.
    Quantise2,
    /// The gate.
    Gate,
    /// What the gate lets through.
    Up,
    /// The gated product.
    Activation,
    /// Its quantised form.
    QuantiseHidden,
    /// The projection of the gated product.
    Down,
    /// The residual stream after the feed-forward.
    Residual2,
    /// Largest magnitude, sum of squares and reciprocal root of the last norm.
    NormStatFinal,
    /// The last norm.
    NormFinal,
    /// Its quantised form: the hidden state a receipt binds.
    QuantiseFinal,
    /// One logit per token id.
    Logits,
    /// Largest heat, count and sum of weights of the sampler.
    Sample,
    /// The token that was chosen.
    Token,
    /// The residual stream with the row of its position.
    AddPosition,
    /// The residual stream with the row of a text's type.
    AddTokenType,
    /// Statistics of an encoder's norm of the embedding.
    EmbedNormStat,
    /// That norm, as residual stream.
    EmbedNorm,
    /// Queries with their bias.
    QueryBias,
    /// Keys with their bias.
    KeyBias,
    /// Values with their bias.
    ValueBias,
    /// Statistics of the norm of every query head.
    QueryNormStat,
    /// Queries, each head normed.
    QueryNorm,
    /// Statistics of the norm of every key head.
    KeyNormStat,
    /// Keys, each head normed.
    KeyNorm,
    /// The projection of attention with its bias.
    AttentionOutputBias,
    /// Statistics of the norm behind attention.
    PostNormStat1,
    /// The norm behind attention.
    PostNorm1,
    /// The up projection with its bias.
    UpBias,
    /// The down projection with its bias.
    DownBias,
    /// Statistics of the norm behind the feed-forward.
    PostNormStat2,
    /// The norm behind the feed-forward.
    PostNorm2,
    /// One logit per expert.
    Route,
    /// Per chosen expert, largest logit first, its index and its share in Q15.
    Choose,
    /// What the chosen experts found, by their shares.
    Mix,
}

impl OpKind {
    /// The step that adds the bias of a product; of others, the step itself.
    pub(crate) fn biased(self) -> OpKind {
        match self {
            OpKind::Query => OpKind::QueryBias,
            OpKind::Key => OpKind::KeyBias,
            OpKind::Value => OpKind::ValueBias,
            OpKind::AttentionOutput => OpKind::AttentionOutputBias,
            OpKind::Up => OpKind::UpBias,
            OpKind::Down => OpKind::DownBias,
            other => other,
        }
    }
}

/// The output of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values<'a> {
    /// Quantised numbers, and one scale per group of 32 of them; padding columns included.
    Quant {
        /// The numbers, -127..=127.
        q: &'a [i8],
        /// The scales, 1..=32767.
        scales: &'a [u16],
    },
    /// Fixed-point numbers.
    Fixed(&'a [i32]),
    /// Integers that need more than 32 bits, such as sums.
    Wide(&'a [i64]),
}

/// Sees what a model computes, as it computes it. `()` looks away, at no cost.
///
/// Each intermediate that exists in memory is shown, row by row. The insides of norms and of
/// attention (statistics, scores, weights) and of the sampler are never materialised; whoever
/// needs them derives them from what is shown.
pub trait Tap {
    /// Whether anything should be shown at all.
    fn looks(&self) -> bool {
        true
    }

    /// Shows the output of a step for one row of the batch. The steps of a row come in the order
    /// of the model's program.
    fn saw(&mut self, op: Op, row: usize, output: Values<'_>);
}

impl Tap for () {
    fn looks(&self) -> bool {
        false
    }

    fn saw(&mut self, _op: Op, _row: usize, _output: Values<'_>) {}
}

impl<T: Tap> Tap for &mut T {
    fn looks(&self) -> bool {
        (**self).looks()
    }

    fn saw(&mut self, op: Op, row: usize, output: Values<'_>) {
        (**self).saw(op, row, output);
    }
}

impl std::fmt::Display for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.layer {
            Some(layer) => write!(f, "{}.{layer}", self.kind),
            None => write!(f, "{}", self.kind),
        }
    }
}

impl std::fmt::Display for OpKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            OpKind::Embed => "EMBED",
            OpKind::NormStat1 => "NSTAT1",
            OpKind::Norm1 => "NORM1",
            OpKind::Quantise1 => "AQ1",
            OpKind::Query => "Q",
            OpKind::Key => "K",
            OpKind::Value => "V",
            OpKind::RopeQuery => "ROPEQ",
            OpKind::QuantiseQuery => "AQq",
            OpKind::RopeKey => "ROPEK",
            OpKind::QuantiseKey => "AQk",
            OpKind::QuantiseValue => "AQv",
            OpKind::Score => "SCORE",
            OpKind::ScoreMax => "SMAX",
            OpKind::BlockShift => "PSB",
            OpKind::Attend => "PVOUT",
            OpKind::QuantiseAttention => "AQo",
            OpKind::AttentionOutput => "WO",
            OpKind::Residual1 => "RES1",
            OpKind::NormStat2 => "NSTAT2",
            OpKind::Norm2 => "NORM2",
            OpKind::Quantise2 => "AQ2",
            OpKind::Gate => "GATE",
            OpKind::Up => "UP",
            OpKind::Activation => "ACT",
            OpKind::QuantiseHidden => "AQy",
            OpKind::Down => "DOWN",
            OpKind::Residual2 => "RES2",
            OpKind::NormStatFinal => "NSTATF",
            OpKind::NormFinal => "NORMF",
            OpKind::QuantiseFinal => "AQf",
            OpKind::Logits => "LOGITS",
            OpKind::Sample => "SMPL",
            OpKind::Token => "TOKEN",
            OpKind::AddPosition => "POS",
            OpKind::AddTokenType => "TYPE",
            OpKind::EmbedNormStat => "NSTATE",
            OpKind::EmbedNorm => "NORME",
            OpKind::QueryBias => "QB",
            OpKind::KeyBias => "KB",
            OpKind::ValueBias => "VB",
            OpKind::QueryNormStat => "NSTATQ",
            OpKind::QueryNorm => "NORMQ",
            OpKind::KeyNormStat => "NSTATK",
            OpKind::KeyNorm => "NORMK",
            OpKind::AttentionOutputBias => "WOB",
            OpKind::PostNormStat1 => "NSTATP1",
            OpKind::PostNorm1 => "NORMP1",
            OpKind::UpBias => "UPB",
            OpKind::DownBias => "DOWNB",
            OpKind::PostNormStat2 => "NSTATP2",
            OpKind::PostNorm2 => "NORMP2",
            OpKind::Route => "ROUTE",
            OpKind::Choose => "CHOOSE",
            OpKind::Mix => "MIX",
        })
    }
}
