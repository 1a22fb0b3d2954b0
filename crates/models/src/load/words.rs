//! Reads the words that GGUF files use: hyperparameters, tokenizer, tensor names.
//!
//! Hyperparameters begin with the name of the family. One that changes the arithmetic and is not
//! read here would give another model than the one published, so an unknown one is refused.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use assay_kernels::{HEAD_DIM_MAX, Pairing};

use super::gguf::{self, Metadata, Value};
use super::{
    Bytes, COLUMNS_MAX, CONTEXT_MAX, EXPERTS_MAX, Fused, HEADS_MAX, Kept, Kind, LAYERS_MAX,
    LoadError, Place, Source, SourceTokenizer, VOCAB_MAX, assign, check, read_at, stack,
};
use crate::family::{Family, Graph, Norms};
use crate::shape::{Experts, LayerRole, Role, Rope, Shape, Window};

/// Base of the rope frequencies where the file names none, as GGUF defines it.
const ROPE_BASE_DEFAULT: f32 = 10_000.0;
/// The tensor of frequency divisors, one per pair.
const ROPE_FACTORS: &str = "rope_freqs.weight";
/// Gemma 3: of so many layers, the last sees all positions.
const WINDOW_EVERY: usize = 6;
/// Gemma 3: the base of the rope frequencies of layers with a window, where the file names none.
const WINDOW_BASE: f32 = 10_000.0;
/// Layers of the one Gemma 3 whose scores are scaled in another way.
const GEMMA3_ODD_LAYERS: usize = 62;

const CONTEXT: &str = "context_length";
const WIDTH: &str = "embedding_length";
const LAYERS: &str = "block_count";
const HIDDEN: &str = "feed_forward_length";
const EXPERTS: &str = "expert_count";
const EXPERTS_CHOSEN: &str = "expert_used_count";
const EXPERT_HIDDEN: &str = "expert_feed_forward_length";
const HEADS: &str = "attention.head_count";
const KV_HEADS: &str = "attention.head_count_kv";
const KEY_LENGTH: &str = "attention.key_length";
const VALUE_LENGTH: &str = "attention.value_length";
const RMS_EPS: &str = "attention.layer_norm_rms_epsilon";
const LAYER_EPS: &str = "attention.layer_norm_epsilon";
const CAUSAL: &str = "attention.causal";
const WINDOW: &str = "attention.sliding_window";
const ROPE_DIMENSIONS: &str = "rope.dimension_count";
const ROPE_BASE: &str = "rope.freq_base";
const WINDOW_ROPE_BASE: &str = "rope.freq_base_swa";
const ROPE_SCALING: &str = "rope.scaling.type";
const ROPE_FACTOR: &str = "rope.scaling.factor";
const POOLING: &str = "pooling_type";
const VOCAB: &str = "vocab_size";

/// Every hyperparameter that is read, without the family's name.
const KNOWN: [&str; 17] = [
    CONTEXT,
    WIDTH,
    LAYERS,
    HIDDEN,
    HEADS,
    KV_HEADS,
    KEY_LENGTH,
    VALUE_LENGTH,
    RMS_EPS,
    LAYER_EPS,
    CAUSAL,
    ROPE_DIMENSIONS,
    ROPE_BASE,
    ROPE_SCALING,
    ROPE_FACTOR,
    POOLING,
    VOCAB,
];
/// Hyperparameters that are read of families with windows.
const KNOWN_WINDOW: [&str; 2] = [WINDOW, WINDOW_ROPE_BASE];
/// Hyperparameters that are read of families with experts.
const KNOWN_ROUTED: [&str; 3] = [EXPERTS, EXPERTS_CHOSEN, EXPERT_HIDDEN];
/// Hyperparameters that change nothing when they are zero or false.
const HARMLESS_OFF: [&str; 6] = [
    EXPERTS,
    EXPERTS_CHOSEN,
    "expert_shared_feed_forward_length",
    WINDOW,
    "attn_logit_softcapping",
    "final_logit_softcapping",
];
/// Hyperparameters that only say how the numbers came to be.
const HARMLESS: [&str; 2] = ["rope.scaling.original_context_length", "rope.scaling.finetuned"];

/// The hyperparameters of one family.
struct Words<'a> {
    metadata: &'a Metadata,
    family: Family,
    graph: &'static Graph,
}

/// Reads a model from GGUF.
pub(super) fn read(mut file: Box<dyn Bytes>) -> Result<Source, LoadError> {
    let gguf::Header { metadata, mut tensors } = gguf::read(file.as_mut())?;
    let name = metadata.text("general.architecture")?.unwrap_or_default();
    let family = Family::from_name(name).ok_or_else(|| LoadError::Family {
        found: name.to_owned(),
        expected: Family::ALL.map(|family| family.graph().name).join(", "),
    })?;
    let words = Words { metadata: &metadata, family, graph: family.graph() };
    words.refuse_unknown()?;
    let factors = match tensors.remove(ROPE_FACTORS) {
        Some(place) => read_factors(file.as_mut(), &place)?,
        None => Vec::new(),
    };
    let shape = words.shape(&tensors, factors)?;
    check(&shape)?;
    let places = assign(&shape, tensors, |role| {
        let kept = Kept::new(&shape, role, name_of(family, role), |layer, fused| {
            let name = match fused {
                Fused::Attention => "attn_qkv.weight",
                Fused::AttentionBias => "attn_qkv.bias",
                Fused::Gate => "ffn_up.weight",
            };
            format!("blk.{layer}.{name}")
        });
        vec![Kept { stack: stack(&shape, role), ..kept }]
    })?;
    Ok(Source {
        vocabulary: vocabulary(&metadata, shape.vocab)?,
        chat_template: owned(metadata.text("tokenizer.chat_template")?),
        name: owned(metadata.text("general.name")?).unwrap_or_default(),
        licence: owned(metadata.text("general.license")?),
        path: PathBuf::new(),
        shape,
        files: vec![Mutex::new(file)],
        places,
    })
}

/// Reads the tokenizer of a GGUF file, whatever model it holds, if it holds one at all.
pub(super) fn read_vocabulary(
    mut file: Box<dyn Bytes>,
) -> Result<Option<SourceTokenizer>, LoadError> {
    vocabulary(&gguf::read(file.as_mut())?.metadata, VOCAB_MAX as usize)
}

/// The name a tensor has in such files.
fn name_of(family: Family, role: Role) -> String {
    use LayerRole as R;
    let (layer, name) = match role {
        Role::Layer(layer, R::PostAttentionNorm | R::PostAttentionNormBias) => {
            (layer, "attn_output_norm")
        }
        Role::Layer(layer, R::PostHiddenNorm | R::PostHiddenNormBias) => {
            (layer, "layer_output_norm")
        }
        _ => return role.to_string(),
    };
    if family.graph().norms != Norms::After {
        return role.to_string();
    }
    let part = if role.is_bias() { "bias" } else { "weight" };
    format!("blk.{layer}.{name}.{part}")
}

fn owned(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

impl Words<'_> {
    /// The key of a hyperparameter.
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.graph.name)
    }

    /// A whole number from 1 to `max`.
    fn count(&self, name: &str, max: u64) -> Result<Option<usize>, LoadError> {
        self.metadata.count(&self.key(name), max)
    }

    fn need(&self, name: &str, max: u64) -> Result<usize, LoadError> {
        let missing = || LoadError::Missing { what: self.key(name) };
        self.count(name, max)?.ok_or_else(missing)
    }

    /// Whether the family has layers that see recent positions only.
    fn has_windows(&self) -> bool {
        matches!(self.family, Family::Gemma3 | Family::Phi3)
    }

    fn refuse_unknown(&self) -> Result<(), LoadError> {
        let prefix = self.key("");
        for (key, value) in self.metadata.under(&prefix) {
            let name = &key[prefix.len()..];
            let off = matches!(value, Value::Integer(0) | Value::Bool(false))
                || *value == Value::Float(0.0);
            let known = KNOWN.contains(&name)
                || HARMLESS.contains(&name)
                || (HARMLESS_OFF.contains(&name) && off)
                || (KNOWN_WINDOW.contains(&name) && self.has_windows())
                || (KNOWN_ROUTED.contains(&name) && self.graph.routed);
            if !known {
                return Err(LoadError::UnknownKey {
                    key: key.to_owned(),
                    found: value.to_string(),
                });
            }
        }
        let causal = self.metadata.flag(&self.key(CAUSAL))?.unwrap_or(true);
        if causal != self.graph.causal {
            return Err(differs(&self.key(CAUSAL), causal, self.graph.causal.to_string()));
        }
        // 1 stands for the mean.
        match self.count(POOLING, u64::MAX)? {
            Some(found) if self.graph.causal || found != 1 => {
                Err(differs(&self.key(POOLING), found, "1 in an encoder, else none".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn shape(
        &self,
        tensors: &BTreeMap<String, Place>,
        factors: Vec<f32>,
    ) -> Result<Shape, LoadError> {
        let width = self.need(WIDTH, COLUMNS_MAX)?;
        let heads = self.need(HEADS, HEADS_MAX)?;
        let head_dim = match self.count(KEY_LENGTH, HEAD_DIM_MAX as u64)? {
            Some(length) => length,
            None if width % heads == 0 => width / heads,
            None => {
                let expected = format!("a divisor of the width {width}");
                return Err(differs(&self.key(HEADS), heads, expected));
            }
        };
        // Values as long as keys, every element of a head turned: anything else is another graph.
        for name in [VALUE_LENGTH, ROPE_DIMENSIONS] {
            match self.count(name, COLUMNS_MAX)? {
                Some(found) if found != head_dim => {
                    let expected = format!("{head_dim}, the elements of a head");
                    return Err(differs(&self.key(name), found, expected));
                }
                _ => {}
            }
        }
        let layers = self.need(LAYERS, LAYERS_MAX)?;
        if self.family == Family::Gemma3 && layers == GEMMA3_ODD_LAYERS {
            let expected = format!("other than {GEMMA3_ODD_LAYERS}, whose scores are scaled apart");
            return Err(differs(&self.key(LAYERS), layers, expected));
        }
        let eps = if self.graph.centred { LAYER_EPS } else { RMS_EPS };
        let missing = || LoadError::Missing { what: self.key(eps) };
        let rope = self.rope(head_dim, factors)?;
        let tied = !tensors.contains_key(&Role::Output.to_string());
        Ok(Shape {
            family: self.family,
            width,
            layers,
            heads,
            kv_heads: self.count(KV_HEADS, HEADS_MAX)?.unwrap_or(heads),
            head_dim,
            hidden: self
                .need(if self.graph.routed { EXPERT_HIDDEN } else { HIDDEN }, COLUMNS_MAX)?,
            experts: self.experts()?,
            vocab: self.vocab(tensors)?,
            context: self.need(CONTEXT, CONTEXT_MAX)?,
            norm_eps: self.metadata.float(&self.key(eps))?.ok_or_else(missing)?,
            window: self.window(&rope)?,
            rope,
            tied,
        })
    }

    /// The number of token ids: the rows of the embedding, which a key may repeat.
    fn vocab(&self, tensors: &BTreeMap<String, Place>) -> Result<usize, LoadError> {
        let name = Role::Embedding.to_string();
        let missing = || LoadError::Missing { what: format!("tensor {name}") };
        let rows = tensors.get(&name).and_then(|place| place.sizes.first()).ok_or_else(missing)?;
        if *rows > VOCAB_MAX {
            let what = format!("the number of rows of tensor {name}");
            return Err(LoadError::TooMuch { what, found: *rows, max: VOCAB_MAX });
        }
        let rows = *rows as usize;
        match self.count(VOCAB, VOCAB_MAX)? {
            Some(found) if found != rows => {
                Err(differs(&self.key(VOCAB), found, format!("{rows}, the rows of {name}")))
            }
            _ => Ok(rows),
        }
    }

    fn experts(&self) -> Result<Option<Experts>, LoadError> {
        if !self.graph.routed {
            return Ok(None);
        }
        let count = self.need(EXPERTS, EXPERTS_MAX)?;
        Ok(Some(Experts { count, chosen: self.need(EXPERTS_CHOSEN, count as u64)? }))
    }

    fn window(&self, rope: &Rope) -> Result<Option<Window>, LoadError> {
        if !self.has_windows() {
            return Ok(None);
        }
        let Some(size) = self.count(WINDOW, CONTEXT_MAX)? else { return Ok(None) };
        if self.family == Family::Phi3 {
            // Every layer has the window, and angles are the same everywhere.
            return Ok(Some(Window { size, every: CONTEXT_MAX as usize, base: rope.base }));
        }
        let base = self.metadata.float(&self.key(WINDOW_ROPE_BASE))?.unwrap_or(WINDOW_BASE);
        Ok(Some(Window { size, every: WINDOW_EVERY, base }))
    }

    fn rope(&self, head_dim: usize, factors: Vec<f32>) -> Result<Rope, LoadError> {
        let base = self.metadata.float(&self.key(ROPE_BASE))?.unwrap_or(ROPE_BASE_DEFAULT);
        let linear = self.metadata.float(&self.key(ROPE_FACTOR))?;
        let factors = match (self.metadata.text(&self.key(ROPE_SCALING))?, linear) {
            (None | Some("none"), None) => factors,
            (Some("linear"), Some(factor)) if factors.is_empty() => vec![factor; head_dim / 2],
            (Some("linear"), Some(_)) => {
                let name = ROPE_FACTORS.to_owned();
                return Err(LoadError::UnknownTensor { name, family: "linearly scaled" });
            }
            (Some("linear"), None) => {
                return Err(LoadError::Missing { what: self.key(ROPE_FACTOR) });
            }
            (None | Some("none"), Some(factor)) => {
                let expected = "no factor without linear scaling".to_owned();
                return Err(differs(&self.key(ROPE_FACTOR), factor, expected));
            }
            (Some(other), _) => {
                let expected = "\"none\" or \"linear\"".to_owned();
                return Err(differs(&self.key(ROPE_SCALING), format!("{other:?}"), expected));
            }
        };
        // Where positions are learned, nothing turns.
        let pairing = self.graph.pairing.unwrap_or(Pairing::Halves);
        Ok(Rope { pairing, base, factors })
    }
}

fn differs(what: &str, found: impl ToString, expected: String) -> LoadError {
    LoadError::Value { what: what.to_owned(), found: found.to_string(), expected }
}

/// Reads the frequency divisors. How many there must be is checked with the rest of the rope.
fn read_factors(file: &mut dyn Bytes, place: &Place) -> Result<Vec<f32>, LoadError> {
    let name = ROPE_FACTORS.to_owned();
    if place.kind != Kind::F32 {
        return Err(LoadError::Kind { name, found: format!("{:?}", place.kind) });
    }
    if place.sizes.len() != 1 || place.sizes[0] > HEAD_DIM_MAX as u64 {
        let expected = vec![HEAD_DIM_MAX as u64 / 2];
        return Err(LoadError::Extent { name, found: place.sizes.clone(), expected });
    }
    let bytes = read_at(file, ROPE_FACTORS, place)?;
    let floats = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    Ok(floats.collect())
}

/// The tokenizer, or `None` where the file says "none" or nothing.
fn vocabulary(metadata: &Metadata, vocab: usize) -> Result<Option<SourceTokenizer>, LoadError> {
    let model = match metadata.text("tokenizer.ggml.model")? {
        None | Some("none" | "no_vocab") => return Ok(None),
        Some(model) => model.to_owned(),
    };
    let key = "tokenizer.ggml.tokens";
    let missing = || LoadError::Missing { what: key.to_owned() };
    let tokens = metadata.texts(key)?.ok_or_else(missing)?.to_vec();
    // The embedding may be padded beyond the vocabulary, never the other way round.
    if tokens.len() > vocab {
        let what = format!("the length of {key}");
        return Err(LoadError::TooMuch { what, found: tokens.len() as u64, max: vocab as u64 });
    }
    let token =
        |name: &str| metadata.token(&format!("tokenizer.ggml.{name}_token_id"), tokens.len());
    // What stands around a text for BERT. The misspelling is the format's.
    let (begins, ends): (&[&str], &[&str]) = match model.as_str() {
        "bert" => (&["cls", "bos"], &["seperator", "eos"]),
        "t5" => (&["bos"], &["eos"]),
        _ => (&["bos"], &["eos", "eot", "eom"]),
    };
    let named = |names: &[&str]| -> Result<Vec<u32>, LoadError> {
        let ids = names.iter().filter_map(|name| token(name).transpose());
        ids.collect()
    };
    let bos = named(begins)?.first().copied();
    let mut eos = Vec::new();
    for id in named(ends)? {
        if !eos.contains(&id) {
            eos.push(id);
        }
    }
    if model == "bert" {
        // Of a text, one token is the end.
        eos.truncate(1);
    }
    if model == "t5" && metadata.flag("tokenizer.ggml.add_eos_token")? == Some(false) {
        eos.clear();
    }
    Ok(Some(SourceTokenizer::Gguf {
        model,
        pre: owned(metadata.text("tokenizer.ggml.pre")?),
        kinds: kinds(metadata, tokens.len())?,
        merges: metadata.texts("tokenizer.ggml.merges")?.unwrap_or_default().to_vec(),
        score_bits: metadata.floats("tokenizer.ggml.scores")?.unwrap_or_default().to_vec(),
        space_first: metadata.flag("tokenizer.ggml.add_space_prefix")?,
        spaces_joined: metadata.flag("tokenizer.ggml.remove_extra_whitespaces")?,
        charsmap: metadata
            .bytes("tokenizer.ggml.precompiled_charsmap")?
            .unwrap_or_default()
            .to_vec(),
        bos,
        eos,
        unknown: token("unknown")?,
        add_bos: metadata.flag("tokenizer.ggml.add_bos_token")?,
        tokens,
    }))
}

/// The kind of each token; all normal where the file names none.
fn kinds(metadata: &Metadata, tokens: usize) -> Result<Vec<i32>, LoadError> {
    let key = "tokenizer.ggml.token_type";
    let Some(kinds) = metadata.integers(key)? else { return Ok(vec![1; tokens]) };
    if kinds.len() != tokens {
        let what = format!("the length of {key}");
        return Err(differs(&what, kinds.len(), format!("{tokens}, the number of tokens")));
    }
    let outside = |kind: i64| differs(key, kind, "kinds 1 to 6".to_owned());
    kinds
        .iter()
        .map(|&kind| i32::try_from(kind).ok().filter(|k| (1..=6).contains(k)).ok_or(outside(kind)))
        .collect()
}
