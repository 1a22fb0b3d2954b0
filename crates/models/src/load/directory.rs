//! Reads a model directory as Hugging Face lays it out: `config.json`, safetensors in one file or
//! in shards, `tokenizer.json`, `tokenizer_config.json`.
//!
//! Such directories hold query and key matrices whose elements `i` and `i + head_dim / 2` turn
//! together, hence [`Pairing::Halves`]. Of our families, gemma 3 and gpt-2 are read from GGUF only:
//! there, gains and projections stand as they multiply.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::sync::Mutex;

use assay_kernels::{HEAD_DIM_MAX, Pairing};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::routing::{Routing, each_expert};
use super::{
    Bytes, COLUMNS_MAX, CONTEXT_MAX, Fused, HEADS_MAX, Kept, LAYERS_MAX, LoadError, Place, Source,
    SourceTokenizer, VOCAB_MAX, assign, check, open_file, safetensors, stack, stem,
};
use crate::family::Family;
use crate::rope::{Llama3Scaling, llama3_factors};
use crate::shape::{LayerRole, Role, Rope, Shape, Window};

/// The document that says what a directory holds.
const CONFIG: &str = "config.json";
/// Largest of the JSON documents; big tokenizers have some 30 MiB.
const DOCUMENT_MAX: u64 = 64 << 20;
/// Most files that a model may be split into.
const SHARDS_MAX: usize = 1 << 10;

/// The `model_type` of each family that is read from such directories.
const FAMILIES: [(&str, Family); 7] = [
    ("llama", Family::Llama),
    ("mistral", Family::Llama),
    ("qwen2", Family::Qwen2),
    ("qwen3", Family::Qwen3),
    ("qwen3_moe", Family::Qwen3Moe),
    ("phi3", Family::Phi3),
    ("bert", Family::Bert),
];

/// `config.json`, as far as it bears on our families. Defaults are those of transformers'
/// `LlamaConfig`.
#[derive(Deserialize)]
struct Config {
    model_type: String,
    hidden_size: u64,
    intermediate_size: u64,
    num_hidden_layers: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    vocab_size: u64,
    max_position_embeddings: u64,
    rms_norm_eps: Option<f64>,
    layer_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Scaling>,
    rope_parameters: Option<Scaling>,
    tie_word_embeddings: Option<bool>,
    bos_token_id: Option<u32>,
    eos_token_id: Option<Ends>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    partial_rotary_factor: Option<f64>,
    sliding_window: Option<u64>,
    use_sliding_window: Option<bool>,
    position_embedding_type: Option<String>,
    quantization_config: Option<serde_json::Value>,
}

/// `rope_scaling`, or its newer form `rope_parameters`, which holds the base as well.
#[derive(Deserialize)]
struct Scaling {
    #[serde(alias = "type")]
    rope_type: String,
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

/// One token id or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ends {
    One(u32),
    Several(Vec<u32>),
}

/// `generation_config.json`, which may name more ends than `config.json`.
#[derive(Default, Deserialize)]
struct Generation {
    eos_token_id: Option<Ends>,
}

/// `tokenizer_config.json`.
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    chat_template: Option<Templates>,
    add_bos_token: Option<bool>,
}

/// One template, or several of which one is named "default".
#[derive(Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Several(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

/// `model.safetensors.index.json`: which file holds which tensor.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Opens the directory.
pub(super) fn open(path: &Path) -> Result<Source, LoadError> {
    let config: Config = document(path, CONFIG)?;
    let family = family(&config)?;
    refuse_unsupported(&config, family)?;
    if !family.graph().causal {
        refuse_pooling(path)?;
    }
    let routing = match family.graph().routed {
        true => Some(document::<Routing>(path, CONFIG)?),
        false => None,
    };
    let shape = shape(&config, family, routing.as_ref())?;
    check(&shape)?;
    let (files, mut tensors) = tensors(path)?;
    // What an encoder's other uses need, and what says that positions count from zero.
    tensors.retain(|name, _| family.graph().causal || !is_unused(name));
    let places = assign(&shape, tensors, |role| {
        let kept = Kept::new(&shape, role, name_of(family, role), |layer, fused| match fused {
            Fused::Attention => format!("model.layers.{layer}.self_attn.qkv_proj.weight"),
            Fused::AttentionBias => format!("model.layers.{layer}.self_attn.qkv_proj.bias"),
            Fused::Gate => format!("model.layers.{layer}.mlp.gate_up_proj.weight"),
        });
        match stack(&shape, role) {
            Some(experts) => each_expert(experts, &kept),
            None => vec![kept],
        }
    })?;
    let tokenizer: TokenizerConfig = optional(path, "tokenizer_config.json")?.unwrap_or_default();
    Ok(Source {
        vocabulary: vocabulary(path, &config, tokenizer.add_bos_token, shape.vocab)?,
        chat_template: chat_template(path, tokenizer.chat_template)?,
        name: stem(path),
        licence: None,
        path: path.to_owned(),
        shape,
        files,
        places,
    })
}

fn family(config: &Config) -> Result<Family, LoadError> {
    let found = FAMILIES.iter().find(|(name, _)| *name == config.model_type);
    found.map(|(_, family)| *family).ok_or_else(|| LoadError::Family {
        found: config.model_type.clone(),
        expected: FAMILIES.map(|(name, _)| name).join(", "),
    })
}

/// The name a tensor has in such directories.
fn name_of(family: Family, role: Role) -> String {
    use LayerRole as R;
    let part = if role.is_bias() { "bias" } else { "weight" };
    if !family.graph().causal {
        return encoder_name(role, part);
    }
    let (layer, name) = match role {
        Role::Embedding => return "model.embed_tokens.weight".to_owned(),
        Role::OutputNorm | Role::OutputNormBias => return format!("model.norm.{part}"),
        Role::Output => return "lm_head.weight".to_owned(),
        Role::Layer(layer, role) => (
            layer,
            match role {
                R::AttentionNorm | R::AttentionNormBias => "input_layernorm",
                R::Query | R::QueryBias => "self_attn.q_proj",
                R::Key | R::KeyBias => "self_attn.k_proj",
                R::Value | R::ValueBias => "self_attn.v_proj",
                R::QueryNorm => "self_attn.q_norm",
                R::KeyNorm => "self_attn.k_norm",
                R::AttentionOutput | R::AttentionOutputBias => "self_attn.o_proj",
                R::HiddenNorm | R::HiddenNormBias => "post_attention_layernorm",
                R::Gate => "mlp.gate_proj",
                R::Up | R::UpBias => "mlp.up_proj",
                R::Down | R::DownBias => "mlp.down_proj",
                R::Router => "mlp.gate",
                R::ExpertGates => "mlp.experts.{}.gate_proj",
                R::ExpertUps => "mlp.experts.{}.up_proj",
                R::ExpertDowns => "mlp.experts.{}.down_proj",
                _ => return role_name(Role::Layer(layer, role)),
            },
        ),
        _ => return role_name(role),
    };
    format!("model.layers.{layer}.{name}.{part}")
}

/// The name of a tensor that no family of these directories has: our own.
fn role_name(role: Role) -> String {
    role.to_string()
}

/// The name a tensor of an encoder has.
fn encoder_name(role: Role, part: &str) -> String {
    use LayerRole as R;
    let (layer, name) = match role {
        Role::Embedding => return "embeddings.word_embeddings.weight".to_owned(),
        Role::Positions => return "embeddings.position_embeddings.weight".to_owned(),
        Role::TokenType => return "embeddings.token_type_embeddings.weight".to_owned(),
        Role::EmbeddingNorm | Role::EmbeddingNormBias => {
            return format!("embeddings.LayerNorm.{part}");
        }
        Role::Layer(layer, role) => (
            layer,
            match role {
                R::Query | R::QueryBias => "attention.self.query",
                R::Key | R::KeyBias => "attention.self.key",
                R::Value | R::ValueBias => "attention.self.value",
                R::AttentionOutput | R::AttentionOutputBias => "attention.output.dense",
                R::PostAttentionNorm | R::PostAttentionNormBias => "attention.output.LayerNorm",
                R::Up | R::UpBias => "intermediate.dense",
                R::Down | R::DownBias => "output.dense",
                R::PostHiddenNorm | R::PostHiddenNormBias => "output.LayerNorm",
                _ => return role_name(Role::Layer(layer, role)),
            },
        ),
        _ => return role_name(role),
    };
    format!("encoder.layer.{layer}.{name}.{part}")
}

/// Whether a tensor of an encoder's file has no say in the mean of its last layer.
fn is_unused(name: &str) -> bool {
    name.starts_with("pooler.") || name == "embeddings.position_ids"
}

/// Refuses settings under which the graph would be another.
fn refuse_unsupported(config: &Config, family: Family) -> Result<(), LoadError> {
    let act = if family.graph().causal { "silu" } else { "gelu" };
    if let Some(other) = config.hidden_act.as_deref().filter(|&found| found != act) {
        return Err(differs("hidden_act", format!("{other:?}"), &format!("{act:?}")));
    }
    for (key, found) in [("attention_bias", config.attention_bias), ("mlp_bias", config.mlp_bias)] {
        if found == Some(true) {
            return Err(differs(key, true, "false"));
        }
    }
    if let Some(other) = config.position_embedding_type.as_deref().filter(|&it| it != "absolute") {
        return Err(differs("position_embedding_type", format!("{other:?}"), "\"absolute\""));
    }
    let of_rope = config.rope_parameters.as_ref().and_then(|rope| rope.partial_rotary_factor);
    if let Some(part) = config.partial_rotary_factor.or(of_rope).filter(|&part| part != 1.0) {
        return Err(differs("partial_rotary_factor", part, "1"));
    }
    // A window that holds the whole context is none.
    let window = config.sliding_window.filter(|_| config.use_sliding_window != Some(false));
    let window = window.filter(|window| *window < config.max_position_embeddings);
    if let Some(window) = window.filter(|_| family != Family::Phi3) {
        return Err(differs("sliding_window", window, "null"));
    }
    match &config.quantization_config {
        Some(found) => Err(differs("quantization_config", found, "null")),
        None => Ok(()),
    }
}

/// Refuses an encoder that makes one vector of a text in another way than by the mean.
fn refuse_pooling(path: &Path) -> Result<(), LoadError> {
    #[derive(Deserialize)]
    struct Pooling {
        pooling_mode_mean_tokens: bool,
    }
    let what = "1_Pooling/config.json";
    match optional::<Pooling>(path, what)? {
        Some(Pooling { pooling_mode_mean_tokens: false }) => {
            Err(differs("pooling_mode_mean_tokens", false, "true"))
        }
        _ => Ok(()),
    }
}

pub(super) fn differs(what: &str, found: impl ToString, expected: &str) -> LoadError {
    let expected = expected.to_owned();
    LoadError::Value { what: what.to_owned(), found: found.to_string(), expected }
}

fn shape(config: &Config, family: Family, routing: Option<&Routing>) -> Result<Shape, LoadError> {
    let graph = family.graph();
    let width = count("hidden_size", config.hidden_size, COLUMNS_MAX)?;
    let heads = count("num_attention_heads", config.num_attention_heads, HEADS_MAX)?;
    let kv_heads = config.num_key_value_heads.unwrap_or(config.num_attention_heads);
    let head_dim = match config.head_dim {
        Some(size) => count("head_dim", size, HEAD_DIM_MAX as u64)?,
        None if width % heads == 0 => width / heads,
        None => return Err(differs("num_attention_heads", heads, "a divisor of hidden_size")),
    };
    let context = config.max_position_embeddings;
    let rope = rope(config, head_dim)?;
    let (experts, hidden) = match routing {
        Some(routing) => routing.sizes().map(|(experts, hidden)| (Some(experts), hidden))?,
        None => (None, count("intermediate_size", config.intermediate_size, COLUMNS_MAX)?),
    };
    Ok(Shape {
        family,
        width,
        layers: count("num_hidden_layers", config.num_hidden_layers, LAYERS_MAX)?,
        heads,
        kv_heads: count("num_key_value_heads", kv_heads, HEADS_MAX)?,
        head_dim,
        hidden,
        experts,
        vocab: count("vocab_size", config.vocab_size, VOCAB_MAX)?,
        context: count("max_position_embeddings", context, CONTEXT_MAX)?,
        norm_eps: match graph.centred {
            true => config.layer_norm_eps.unwrap_or(1e-12),
            false => config.rms_norm_eps.unwrap_or(1e-6),
        } as f32,
        window: window(config, family, rope.base)?,
        rope,
        tied: config.tie_word_embeddings.unwrap_or(!graph.causal),
    })
}

/// The window of Phi 3, which every layer has.
fn window(config: &Config, family: Family, base: f32) -> Result<Option<Window>, LoadError> {
    let size = config.sliding_window.filter(|size| *size < config.max_position_embeddings);
    match size.filter(|_| family == Family::Phi3) {
        Some(size) => {
            let size = count("sliding_window", size, CONTEXT_MAX)?;
            Ok(Some(Window { size, every: CONTEXT_MAX as usize, base }))
        }
        None => Ok(None),
    }
}

/// A number from 1 to `max`.
pub(super) fn count(what: &str, found: u64, max: u64) -> Result<usize, LoadError> {
    match found {
        0 => Err(differs(what, 0, "a positive number")),
        1.. if found <= max => Ok(found as usize),
        _ => Err(LoadError::TooMuch { what: what.to_owned(), found, max }),
    }
}

fn rope(config: &Config, head_dim: usize) -> Result<Rope, LoadError> {
    let scaling = config.rope_parameters.as_ref().or(config.rope_scaling.as_ref());
    let theta = scaling.and_then(|s| s.rope_theta).or(config.rope_theta).unwrap_or(10_000.0);
    let base = theta as f32;
    let factors = match scaling {
        Some(scaling) => factors(scaling, base, head_dim)?,
        None => Vec::new(),
    };
    Ok(Rope { pairing: Pairing::Halves, base, factors })
}

fn factors(scaling: &Scaling, base: f32, head_dim: usize) -> Result<Vec<f32>, LoadError> {
    let need = |name: &str, value: Option<f64>| {
        value.ok_or_else(|| LoadError::Missing { what: format!("rope scaling {name}") })
    };
    match scaling.rope_type.as_str() {
        "default" | "none" => Ok(Vec::new()),
        "linear" => Ok(vec![need("factor", scaling.factor)? as f32; head_dim / 2]),
        "llama3" => {
            let context = scaling.original_max_position_embeddings;
            let llama3 = Llama3Scaling {
                factor: need("factor", scaling.factor)?,
                low: need("low_freq_factor", scaling.low_freq_factor)?,
                high: need("high_freq_factor", scaling.high_freq_factor)?,
                context: need("original_max_position_embeddings", context)?,
            };
            Ok(llama3_factors(base, head_dim, &llama3)?)
        }
        other => {
            let expected = "\"default\", \"linear\" or \"llama3\"";
            Err(differs("rope scaling type", format!("{other:?}"), expected))
        }
    }
}

/// Opened files, and every tensor in them by name.
type Files = (Vec<Mutex<Box<dyn Bytes>>>, BTreeMap<String, Place>);

/// Opens the safetensors files: those of the index, or else the single one.
fn tensors(path: &Path) -> Result<Files, LoadError> {
    let single = "model.safetensors";
    let index: Option<Index> = optional(path, "model.safetensors.index.json")?;
    let names: BTreeSet<String> = match &index {
        Some(index) => index.weight_map.values().cloned().collect(),
        None => BTreeSet::from([single.to_owned()]),
    };
    if names.len() > SHARDS_MAX {
        let what = "the number of safetensors files".to_owned();
        let (found, max) = (names.len() as u64, SHARDS_MAX as u64);
        return Err(LoadError::TooMuch { what, found, max });
    }
    let mut files = Vec::new();
    let mut tensors = BTreeMap::new();
    for (number, name) in names.iter().enumerate() {
        // A name from an index must not lead out of the directory.
        if Path::new(name).file_name() != Some(name.as_ref()) {
            return Err(differs("a file of the index", format!("{name:?}"), "a plain file name"));
        }
        let mut file: Box<dyn Bytes> = Box::new(open_file(&path.join(name))?);
        for (tensor, place) in safetensors::read(file.as_mut(), name, number)? {
            let listed = index.as_ref().is_none_or(|it| it.weight_map.get(&tensor) == Some(name));
            if !listed {
                let what = format!("the index's file for tensor {tensor}");
                let found = index.as_ref().and_then(|it| it.weight_map.get(&tensor));
                return Err(differs(&what, format!("{found:?}"), name));
            }
            tensors.insert(tensor, place);
        }
        files.push(Mutex::new(file));
    }
    Ok((files, tensors))
}

fn vocabulary(
    path: &Path,
    config: &Config,
    add_bos: Option<bool>,
    vocab: usize,
) -> Result<Option<SourceTokenizer>, LoadError> {
    let Some(json) = bytes(path, "tokenizer.json")? else { return Ok(None) };
    let generation: Generation = optional(path, "generation_config.json")?.unwrap_or_default();
    let mut eos = Vec::new();
    for ends in [&config.eos_token_id, &generation.eos_token_id].into_iter().flatten() {
        let ends = match ends {
            Ends::One(id) => std::slice::from_ref(id),
            Ends::Several(ids) => ids,
        };
        for &id in ends {
            if !eos.contains(&id) {
                eos.push(id);
            }
        }
    }
    if let Some(id) = eos.iter().chain(&config.bos_token_id).find(|&&id| id as usize >= vocab) {
        return Err(differs("a special token", id, "a token id below vocab_size"));
    }
    let bos = config.bos_token_id;
    Ok(Some(SourceTokenizer::HuggingFace { json, bos, eos, add_bos }))
}

/// The template: of its own file where there is one, as newer directories have it.
fn chat_template(path: &Path, listed: Option<Templates>) -> Result<Option<String>, LoadError> {
    let name = "chat_template.jinja";
    if let Some(bytes) = bytes(path, name)? {
        let text = String::from_utf8(bytes);
        return text.map(Some).map_err(|_| LoadError::NotText { what: name.to_owned() });
    }
    Ok(match listed {
        None => None,
        Some(Templates::One(template)) => Some(template),
        Some(Templates::Several(templates)) => templates
            .into_iter()
            .find(|template| template.name == "default")
            .map(|template| template.template),
    })
}

fn document<T: DeserializeOwned>(path: &Path, name: &str) -> Result<T, LoadError> {
    optional(path, name)?.ok_or_else(|| LoadError::Missing { what: name.to_owned() })
}

fn optional<T: DeserializeOwned>(path: &Path, name: &str) -> Result<Option<T>, LoadError> {
    let Some(bytes) = bytes(path, name)? else { return Ok(None) };
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|source| LoadError::Json { what: name.to_owned(), source })
}

/// Content of a file of the directory, `None` where there is no such file.
fn bytes(path: &Path, name: &str) -> Result<Option<Vec<u8>>, LoadError> {
    let path = path.join(name);
    if !path.is_file() {
        return Ok(None);
    }
    let failed = |source| LoadError::Io { what: name.to_owned(), source };
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large.
    open_file(&path)?.take(DOCUMENT_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > DOCUMENT_MAX {
        let found = bytes.len() as u64;
        return Err(LoadError::TooMuch { what: name.to_owned(), found, max: DOCUMENT_MAX });
    }
    Ok(Some(bytes))
}
