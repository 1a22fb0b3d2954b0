//! The graphs that models compute, as data: one file for each family.
//!
//! The forward pass, the program, the bounds, the loaders and the float twin read these facts, so a
//! family is written once, as its difference from another. A family whose arithmetic no judge knows
//! yet is not [`Graph::judged`]: its answers can be repeated to the bit all the same, but nobody
//! can be made to pay for a wrong one.

mod bert;
mod gemma3;
mod gpt2;
mod llama;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3moe;

use assay_kernels::{Activation, Pairing};

use crate::shape::LayerRole;

/// The graph a model computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// RMSNorm, RoPE, grouped-query attention, SwiGLU; Mistral's models too.
    Llama,
    /// Llama with biases on queries, keys and values.
    Qwen2,
    /// Llama with a norm on every query and key head.
    Qwen3,
    /// Norms on both sides of each half layer, GELU, local layers between global ones.
    Gemma3,
    /// Llama with its projections side by side in one matrix.
    Phi3,
    /// LayerNorm, learned positions, GELU, biases everywhere.
    Gpt2,
    /// An encoder: attention in both directions, norms after each half layer; embeds texts.
    Bert,
    /// Qwen 3 whose layers have many feed-forwards, of which a position goes through a few.
    Qwen3Moe,
}

/// What distinguishes one family's graph from another's.
#[derive(Debug)]
pub struct Graph {
    /// What GGUF files call the family.
    pub name: &'static str,
    /// Its code in manifests.
    pub code: u8,
    /// Whether the judge's rules cover it.
    pub judged: bool,
    /// Whether norms subtract the mean and add a bias (LayerNorm), or neither (RMSNorm).
    pub centred: bool,
    /// Where the norms of a layer stand.
    pub norms: Norms,
    /// Which projections add a bias.
    pub biases: Biases,
    /// Whether every query and key head has a norm of its own.
    pub head_norms: bool,
    /// How positions come in: `None` if learned rows are added to the embedding, else which
    /// elements of a head turn together in GGUF files.
    pub pairing: Option<Pairing>,
    /// Whether the activation of one matrix multiplies the output of another.
    pub gated: bool,
    /// Whether a layer has experts: many feed-forwards, of which each position chooses a few.
    pub routed: bool,
    /// The activation.
    pub activation: Activation,
    /// Whether the embedding is multiplied with the square root of its width.
    pub scaled_embedding: bool,
    /// Whether a position sees earlier positions only, and tokens can be generated.
    pub causal: bool,
    /// Whether files hold queries, keys and values as one matrix.
    pub fused_attention: bool,
    /// Whether files hold gate and up as one matrix.
    pub fused_gate: bool,
}

/// Where the norms of a layer stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norms {
    /// Before attention and before the feed-forward.
    Before,
    /// Before each of them, and again on what each adds to the residual stream.
    Around,
    /// On the residual stream after each of them.
    After,
}

/// Which projections add a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Biases {
    /// None.
    None,
    /// Queries, keys and values.
    Attention,
    /// All.
    All,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 8] = [
        Family::Llama,
        Family::Qwen2,
        Family::Qwen3,
        Family::Gemma3,
        Family::Phi3,
        Family::Gpt2,
        Family::Bert,
        Family::Qwen3Moe,
    ];

    /// Its graph.
    pub fn graph(self) -> &'static Graph {
        match self {
            Family::Llama => &llama::GRAPH,
            Family::Qwen2 => &qwen2::GRAPH,
            Family::Qwen3 => &qwen3::GRAPH,
            Family::Gemma3 => &gemma3::GRAPH,
            Family::Phi3 => &phi3::GRAPH,
            Family::Gpt2 => &gpt2::GRAPH,
            Family::Bert => &bert::GRAPH,
            Family::Qwen3Moe => &qwen3moe::GRAPH,
        }
    }

    /// The family with this code in a manifest.
    pub fn from_code(code: u8) -> Option<Family> {
        Family::ALL.into_iter().find(|family| family.graph().code == code)
    }

    /// The family that GGUF files call so.
    pub fn from_name(name: &str) -> Option<Family> {
        Family::ALL.into_iter().find(|family| family.graph().name == name)
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.graph().name)
    }
}

impl Graph {
    /// Whether a layer of this graph has such a tensor.
    pub fn has(&self, role: LayerRole) -> bool {
        use LayerRole as R;
        match role {
            R::Query | R::Key | R::Value | R::AttentionOutput => true,
            R::Up | R::Down => !self.routed,
            R::AttentionNorm | R::HiddenNorm => self.norms != Norms::After,
            R::AttentionNormBias | R::HiddenNormBias => self.norms != Norms::After && self.centred,
            R::PostAttentionNorm | R::PostHiddenNorm => self.norms != Norms::Before,
            R::PostAttentionNormBias | R::PostHiddenNormBias => {
                self.norms != Norms::Before && self.centred
            }
            R::QueryBias | R::KeyBias | R::ValueBias => self.biases != Biases::None,
            R::AttentionOutputBias | R::UpBias | R::DownBias => self.biases == Biases::All,
            R::QueryNorm | R::KeyNorm => self.head_norms,
            R::Gate => self.gated && !self.routed,
            R::Router | R::ExpertGates | R::ExpertUps | R::ExpertDowns => self.routed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_are_distinct() {
        for family in Family::ALL {
            assert_eq!(Family::from_code(family.graph().code), Some(family));
            assert_eq!(Family::from_name(family.graph().name), Some(family));
        }
        assert_eq!(Family::from_code(8), None);
        assert_eq!(Family::from_name("rwkv"), None);
    }

    #[test]
    fn only_what_a_judge_knows_is_judged() {
        let judged = Family::ALL.into_iter().filter(|family| family.graph().judged);
        assert_eq!(judged.collect::<Vec<_>>(), [Family::Llama]);
    }
}
