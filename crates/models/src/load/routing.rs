//! Reads what the `config.json` of a Hugging Face directory says of experts, and where they lie in it.

use serde::Deserialize;

use super::directory::{count, differs};
use super::{COLUMNS_MAX, EXPERTS_MAX, Kept, LoadError};
use crate::shape::Experts;

/// The part of `config.json` that says how positions choose experts. Defaults are those of
/// transformers' `Qwen3MoeConfig`, but for counts, which must be there.
#[derive(Deserialize)]
pub(super) struct Routing {
    num_experts: Option<u64>,
    num_experts_per_tok: Option<u64>,
    moe_intermediate_size: Option<u64>,
    shared_expert_intermediate_size: Option<u64>,
    norm_topk_prob: Option<bool>,
    decoder_sparse_step: Option<u64>,
    mlp_only_layers: Option<Vec<u64>>,
}

impl Routing {
    /// The experts of every layer, and the width of their hidden layers.
    ///
    /// # Errors
    /// Where the graph would be another, or a number is missing or out of bounds.
    pub(super) fn sizes(&self) -> Result<(Experts, usize), LoadError> {
        self.refuse_unsupported()?;
        let need = |what: &str, found: Option<u64>, max| match found {
            Some(found) => count(what, found, max),
            None => Err(LoadError::Missing { what: what.to_owned() }),
        };
        let there = need("num_experts", self.num_experts, EXPERTS_MAX)?;
        let chosen = need("num_experts_per_tok", self.num_experts_per_tok, there as u64)?;
        let hidden = need("moe_intermediate_size", self.moe_intermediate_size, COLUMNS_MAX)?;
        Ok((Experts { count: there, chosen }, hidden))
    }

    /// Refuses layers without experts, experts that all positions share, and shares that are not those
    /// of the chosen alone.
    fn refuse_unsupported(&self) -> Result<(), LoadError> {
        if let Some(step) = self.decoder_sparse_step.filter(|&step| step != 1) {
            return Err(differs("decoder_sparse_step", step, "1"));
        }
        if let Some(layers) = self.mlp_only_layers.as_ref().filter(|layers| !layers.is_empty()) {
            return Err(differs("mlp_only_layers", format!("{layers:?}"), "[]"));
        }
        if let Some(size) = self.shared_expert_intermediate_size.filter(|&size| size != 0) {
            return Err(differs("shared_expert_intermediate_size", size, "0"));
        }
        match self.norm_topk_prob {
            Some(true) => Ok(()),
            found => Err(differs("norm_topk_prob", found.unwrap_or(false), "true")),
        }
    }
}

/// Where the matrices of all experts lie that `whole` is made of. Each has a tensor of its own, in whose
/// name its number stands for `{}`.
pub(super) fn each_expert(experts: usize, whole: &Kept) -> Vec<Kept> {
    let rows = whole.rows / experts;
    let kept = |expert: usize| Kept {
        name: whole.name.replace("{}", &expert.to_string()),
        first: 0,
        rows,
        units: rows,
        stack: None,
    };
    (0..experts).map(kept).collect()
}
