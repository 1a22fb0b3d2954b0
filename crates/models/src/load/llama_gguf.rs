//! Reads the words that GGUF files use for a llama: hyperparameters, tokenizer, tensor names.
//!
//! The query and key matrices of such files are permuted so that neighbouring elements turn
//! together, hence [`Pairing::Adjacent`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use assay_kernels::{HEAD_DIM_MAX, Pairing};

use super::gguf::{self, Metadata, Value};
use super::{
    Bytes, COLUMNS_MAX, CONTEXT_MAX, HEADS_MAX, Kind, LAYERS_MAX, LoadError, Place, Source,
    SourceTokenizer, VOCAB_MAX, assign, check, read_at,
};
use crate::shape::{Family, Role, Rope, Shape};

/// Base of the rope frequencies where the file names none, as GGUF defines it.
const ROPE_BASE_DEFAULT: f32 = 10_000.0;
/// The tensor of frequency divisors, one per pair.
const ROPE_FACTORS: &str = "rope_freqs.weight";

const CONTEXT: &str = "llama.context_length";
const WIDTH: &str = "llama.embedding_length";
const LAYERS: &str = "llama.block_count";
const HIDDEN: &str = "llama.feed_forward_length";
const HEADS: &str = "llama.attention.head_count";
const KV_HEADS: &str = "llama.attention.head_count_kv";
const KEY_LENGTH: &str = "llama.attention.key_length";
const VALUE_LENGTH: &str = "llama.attention.value_length";
const NORM_EPS: &str = "llama.attention.layer_norm_rms_epsilon";
const ROPE_DIMENSIONS: &str = "llama.rope.dimension_count";
const ROPE_BASE: &str = "llama.rope.freq_base";
const ROPE_SCALING: &str = "llama.rope.scaling.type";
const ROPE_FACTOR: &str = "llama.rope.scaling.factor";
const VOCAB: &str = "llama.vocab_size";

/// Every hyperparameter that [`shape`] reads.
const KNOWN: [&str; 14] = [
    CONTEXT,
    WIDTH,
    LAYERS,
    HIDDEN,
    HEADS,
    KV_HEADS,
    KEY_LENGTH,
    VALUE_LENGTH,
    NORM_EPS,
    ROPE_DIMENSIONS,
    ROPE_BASE,
    ROPE_SCALING,
    ROPE_FACTOR,
    VOCAB,
];
/// Hyperparameters that change nothing when they are zero or false.
const HARMLESS_OFF: [&str; 3] =
    ["llama.expert_count", "llama.expert_used_count", "llama.attention.sliding_window"];
/// Hyperparameters that only say how the numbers came to be.
const HARMLESS: [&str; 2] =
    ["llama.rope.scaling.original_context_length", "llama.rope.scaling.finetuned"];

/// Reads a llama model from GGUF.
pub(super) fn read(mut file: Box<dyn Bytes>) -> Result<Source, LoadError> {
    let gguf::Header { metadata, mut tensors } = gguf::read(file.as_mut())?;
    let family = metadata.text("general.architecture")?;
    if family != Some("llama") {
        let found = family.unwrap_or_default().to_owned();
        return Err(LoadError::Family { found, expected: "llama" });
    }
    refuse_unknown(&metadata)?;
    let factors = match tensors.remove(ROPE_FACTORS) {
        Some(place) => read_factors(file.as_mut(), &place)?,
        None => Vec::new(),
    };
    let shape = shape(&metadata, &tensors, factors)?;
    check(&shape)?;
    let places = assign(&shape, tensors, |role| role.to_string())?;
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

fn owned(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

/// Refuses hyperparameters that the graph does not know: one that changes the arithmetic, left
/// unread, would give another model than the one published.
fn refuse_unknown(metadata: &Metadata) -> Result<(), LoadError> {
    for (key, value) in metadata.under("llama.") {
        let off = matches!(value, Value::Integer(0) | Value::Bool(false));
        let known = KNOWN.contains(&key)
            || HARMLESS.contains(&key)
            || (HARMLESS_OFF.contains(&key) && off)
            || (key == "llama.attention.causal" && *value == Value::Bool(true));
        if !known {
            return Err(LoadError::UnknownKey { key: key.to_owned(), found: value.to_string() });
        }
    }
    Ok(())
}

fn shape(
    metadata: &Metadata,
    tensors: &BTreeMap<String, Place>,
    factors: Vec<f32>,
) -> Result<Shape, LoadError> {
    let need = |key: &str, max: u64| {
        let missing = || LoadError::Missing { what: key.to_owned() };
        metadata.count(key, max)?.ok_or_else(missing)
    };
    let width = need(WIDTH, COLUMNS_MAX)?;
    let heads = need(HEADS, HEADS_MAX)?;
    let head_dim = match metadata.count(KEY_LENGTH, HEAD_DIM_MAX as u64)? {
        Some(length) => length,
        None if width % heads == 0 => width / heads,
        None => return Err(differs(HEADS, heads, format!("a divisor of the width {width}"))),
    };
    // Values as long as keys, every element of a head turned: anything else is another graph.
    for key in [VALUE_LENGTH, ROPE_DIMENSIONS] {
        match metadata.count(key, COLUMNS_MAX)? {
            Some(found) if found != head_dim => {
                return Err(differs(key, found, format!("{head_dim}, the elements of a head")));
            }
            _ => {}
        }
    }
    let eps = metadata.float(NORM_EPS)?;
    Ok(Shape {
        family: Family::Llama,
        width,
        layers: need(LAYERS, LAYERS_MAX)?,
        heads,
        kv_heads: metadata.count(KV_HEADS, HEADS_MAX)?.unwrap_or(heads),
        head_dim,
        hidden: need(HIDDEN, COLUMNS_MAX)?,
        vocab: vocab(metadata, tensors)?,
        context: need(CONTEXT, CONTEXT_MAX)?,
        norm_eps: eps.ok_or_else(|| LoadError::Missing { what: NORM_EPS.to_owned() })?,
        rope: rope(metadata, head_dim, factors)?,
        tied: !tensors.contains_key(&Role::Output.to_string()),
    })
}

fn differs(what: &str, found: impl ToString, expected: String) -> LoadError {
    LoadError::Value { what: what.to_owned(), found: found.to_string(), expected }
}

/// The number of token ids: the rows of the embedding, which a key may repeat.
fn vocab(metadata: &Metadata, tensors: &BTreeMap<String, Place>) -> Result<usize, LoadError> {
    let name = Role::Embedding.to_string();
    let missing = || LoadError::Missing { what: format!("tensor {name}") };
    let rows = tensors.get(&name).and_then(|place| place.sizes.first()).ok_or_else(missing)?;
    if *rows > VOCAB_MAX {
        let what = format!("the number of rows of tensor {name}");
        return Err(LoadError::TooMuch { what, found: *rows, max: VOCAB_MAX });
    }
    let rows = *rows as usize;
    match metadata.count(VOCAB, VOCAB_MAX)? {
        Some(found) if found != rows => {
            Err(differs(VOCAB, found, format!("{rows}, the rows of {name}")))
        }
        _ => Ok(rows),
    }
}

fn rope(metadata: &Metadata, head_dim: usize, factors: Vec<f32>) -> Result<Rope, LoadError> {
    let base = metadata.float(ROPE_BASE)?.unwrap_or(ROPE_BASE_DEFAULT);
    let linear = metadata.float(ROPE_FACTOR)?;
    let factors = match (metadata.text(ROPE_SCALING)?, linear) {
        (None | Some("none"), None) => factors,
        (Some("linear"), Some(factor)) if factors.is_empty() => vec![factor; head_dim / 2],
        (Some("linear"), Some(_)) => {
            return Err(LoadError::UnknownTensor {
                name: ROPE_FACTORS.to_owned(),
                family: "linearly scaled llama",
            });
        }
        (Some("linear"), None) => {
            return Err(LoadError::Missing { what: ROPE_FACTOR.to_owned() });
        }
        (None | Some("none"), Some(factor)) => {
            return Err(differs(ROPE_FACTOR, factor, "no factor without linear scaling".into()));
        }
        (Some(other), _) => {
            return Err(differs(
                ROPE_SCALING,
                format!("{other:?}"),
                "\"none\" or \"linear\"".into(),
            ));
        }
    };
    Ok(Rope { pairing: Pairing::Adjacent, base, factors })
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
    let mut eos = Vec::new();
    for name in ["eos", "eot", "eom"] {
        let token = metadata.token(&format!("tokenizer.ggml.{name}_token_id"), tokens.len())?;
        eos.extend(token.filter(|token| !eos.contains(token)));
    }
    Ok(Some(SourceTokenizer::Gguf {
        model,
        pre: owned(metadata.text("tokenizer.ggml.pre")?),
        kinds: kinds(metadata, tokens.len())?,
        merges: metadata.texts("tokenizer.ggml.merges")?.unwrap_or_default().to_vec(),
        bos: metadata.token("tokenizer.ggml.bos_token_id", tokens.len())?,
        eos,
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
