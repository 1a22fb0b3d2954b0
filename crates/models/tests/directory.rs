//! Directories in Hugging Face's layout load, in one file or in shards; unsound ones are refused.

#![allow(clippy::disallowed_methods, reason = "tests write the files that they read")]

use std::path::Path;

use assay_kernels::Pairing;
use assay_models::load::{Kind, LoadError, SourceTokenizer, open};
use assay_models::{LayerRole, Role};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The smallest llama there is: one layer, everything 32 wide, four tokens.
fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": 4,
        "max_position_embeddings": 16, "rms_norm_eps": 1e-5, "rope_theta": 500_000.0,
        "tie_word_embeddings": true, "bos_token_id": 0, "eos_token_id": [3, 2],
        "torch_dtype": "bfloat16", "attention_bias": false, "rope_scaling": null,
    })
}

/// Names and sizes of its tensors.
fn tensors() -> Vec<(String, Vec<u64>)> {
    let layer = |name: &str| format!("model.layers.0.{name}.weight");
    vec![
        ("model.embed_tokens.weight".into(), vec![4, 32]),
        (layer("input_layernorm"), vec![32]),
        (layer("self_attn.q_proj"), vec![32, 32]),
        (layer("self_attn.k_proj"), vec![32, 32]),
        (layer("self_attn.v_proj"), vec![32, 32]),
        (layer("self_attn.o_proj"), vec![32, 32]),
        (layer("post_attention_layernorm"), vec![32]),
        (layer("mlp.gate_proj"), vec![64, 32]),
        (layer("mlp.up_proj"), vec![64, 32]),
        (layer("mlp.down_proj"), vec![32, 64]),
        ("model.norm.weight".into(), vec![32]),
    ]
}

/// A safetensors file whose every byte of data is 0x3c.
fn safetensors(tensors: &[(String, Vec<u64>)]) -> Vec<u8> {
    let mut table = serde_json::Map::new();
    table.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut end = 0;
    for (name, sizes) in tensors {
        let start = end;
        end += 2 * sizes.iter().product::<u64>();
        let entry = json!({"dtype": "BF16", "shape": sizes, "data_offsets": [start, end]});
        table.insert(name.clone(), entry);
    }
    with_table(&Value::Object(table).to_string(), end as usize)
}

fn with_table(table: &str, data: usize) -> Vec<u8> {
    let length = (table.len() as u64).to_le_bytes();
    [&length[..], table.as_bytes(), &vec![0x3c; data]].concat()
}

/// A directory with these two files.
fn folder(config: &Value, weights: &[u8]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary directory");
    write(folder.path(), "config.json", config.to_string().as_bytes());
    write(folder.path(), "model.safetensors", weights);
    folder
}

fn write(folder: &Path, name: &str, content: &[u8]) {
    std::fs::write(folder.join(name), content).expect("a file is written");
}

fn check(folder: &TempDir, expected: &str) {
    let error = open(folder.path()).expect_err(expected);
    assert_eq!(error.to_string(), expected);
}

/// Holds the error under another configuration against `expected`.
fn check_config(key: &str, value: Value, expected: &str) {
    let mut config = config();
    config[key] = value;
    check(&folder(&config, &safetensors(&tensors())), expected);
}

/// Holds the error under another table of tensors against `expected`.
fn check_table(table: &str, data: usize, expected: &str) {
    check(&folder(&config(), &with_table(table, data)), expected);
}

#[test]
fn a_directory_loads() {
    let folder = folder(&config(), &safetensors(&tensors()));
    write(folder.path(), "tokenizer.json", b"{}");
    let template = json!({"chat_template": "plain", "add_bos_token": true}).to_string();
    write(folder.path(), "tokenizer_config.json", template.as_bytes());
    write(folder.path(), "generation_config.json", br#"{"eos_token_id": 1}"#);
    let source = open(folder.path()).unwrap();
    let shape = source.shape();
    assert_eq!((shape.width, shape.hidden, shape.layers, shape.vocab), (32, 64, 1, 4));
    assert_eq!((shape.norm_eps, shape.tied, shape.context), (1e-5, true, 16));
    assert_eq!((shape.rope.base, shape.rope.pairing), (500_000.0, Pairing::Halves));
    assert_eq!(source.chat_template.as_deref(), Some("plain"));
    assert_eq!(source.path, folder.path());
    let json = b"{}".to_vec();
    let (bos, eos, add_bos) = (Some(0), vec![3, 2, 1], Some(true));
    let expected = SourceTokenizer::HuggingFace { json, bos, eos, add_bos };
    assert_eq!(source.vocabulary, Some(expected));
    let raw = source.tensor(Role::Layer(0, LayerRole::Down)).unwrap();
    assert_eq!((raw.kind, raw.rows, raw.columns), (Kind::Bf16, 32, 64));
    assert!(raw.bytes.iter().all(|&byte| byte == 0x3c));
}

#[test]
fn templates_come_in_three_forms() {
    let folder = folder(&config(), &safetensors(&tensors()));
    assert_eq!(open(folder.path()).unwrap().chat_template, None);
    let named = |name, template| json!({"name": name, "template": template});
    let several = json!({"chat_template": [named("tools", "t"), named("default", "d")]});
    write(folder.path(), "tokenizer_config.json", several.to_string().as_bytes());
    assert_eq!(open(folder.path()).unwrap().chat_template.as_deref(), Some("d"));
    write(folder.path(), "chat_template.jinja", b"own file");
    assert_eq!(open(folder.path()).unwrap().chat_template.as_deref(), Some("own file"));
    write(folder.path(), "chat_template.jinja", b"\xff");
    check(&folder, "chat_template.jinja is not utf-8");
}

#[test]
fn shards_load_by_their_index() {
    let all = tensors();
    let (first, second) = all.split_at(4);
    let folder = folder(&config(), b"");
    let file = |index| format!("model-{index}.safetensors");
    write(folder.path(), &file(1), &safetensors(first));
    write(folder.path(), &file(2), &safetensors(second));
    let index = |files: [&str; 2]| {
        let entry = |at: usize| (all[at].0.clone(), json!(files[usize::from(at >= 4)]));
        let map: serde_json::Map<_, _> = (0..all.len()).map(entry).collect();
        let document = json!({"metadata": {}, "weight_map": map}).to_string();
        write(folder.path(), "model.safetensors.index.json", document.as_bytes());
    };
    index([&file(1), &file(2)]);
    let source = open(folder.path()).unwrap();
    for role in source.shape().roles() {
        assert!(source.tensor(role).unwrap().bytes.iter().all(|&byte| byte == 0x3c), "{role}");
    }
    index([&file(2), &file(1)]);
    let error = open(folder.path()).unwrap_err().to_string();
    assert!(error.starts_with("the index's file for tensor model."), "{error}");
    index([&file(1), "../elsewhere"]);
    check(&folder, "a file of the index is \"../elsewhere\", expected a plain file name");
    index([&file(1), &file(3)]);
    assert!(matches!(open(folder.path()), Err(LoadError::Io { .. })));
}

#[test]
fn rope_scalings_are_honoured_or_refused() {
    let scaled = |key: &str, scaling: Value| {
        let mut config = config();
        config[key] = scaling;
        open(folder(&config, &safetensors(&tensors())).path()).map(|s| s.shape().rope.clone())
    };
    let old = "rope_scaling";
    let linear = scaled(old, json!({"type": "linear", "factor": 2.0})).unwrap();
    assert_eq!(linear.factors, vec![2.0; 16]);
    let llama3 = json!({
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    let factors = scaled(old, llama3).unwrap().factors;
    assert_eq!((factors[0], factors[15]), (1.0, 32.0));
    let plain = scaled("rope_parameters", json!({"rope_type": "default", "rope_theta": 1e6}));
    assert_eq!(plain.map(|rope| (rope.base, rope.factors)).unwrap(), (1e6, Vec::new()));

    let yarn = scaled(old, json!({"rope_type": "yarn", "factor": 2.0})).unwrap_err();
    let expected = "rope scaling type is \"yarn\", expected \"default\", \"linear\" or \"llama3\"";
    assert_eq!(yarn.to_string(), expected);
    let short = scaled(old, json!({"rope_type": "llama3", "factor": 2.0})).unwrap_err();
    assert_eq!(short.to_string(), "rope scaling low_freq_factor is missing");
    let zero = scaled(old, json!({"rope_type": "linear", "factor": 0.0})).unwrap_err();
    assert_eq!(zero.to_string(), "rope parameters are not usable");
}

#[test]
fn what_the_graph_does_not_know_is_refused() {
    check_config(
        "model_type",
        json!("rwkv"),
        "model family \"rwkv\" is not supported, expected one of llama, mistral, qwen2, qwen3, qwen3_moe, phi3, bert",
    );
    check_config("hidden_act", json!("gelu"), "hidden_act is \"gelu\", expected \"silu\"");
    check_config("attention_bias", json!(true), "attention_bias is true, expected false");
    check_config("mlp_bias", json!(true), "mlp_bias is true, expected false");
    check_config("sliding_window", json!(8), "sliding_window is 8, expected null");
    check_config("partial_rotary_factor", json!(0.5), "partial_rotary_factor is 0.5, expected 1");
    check_config(
        "quantization_config",
        json!({"bits": 4}),
        "quantization_config is {\"bits\":4}, expected null",
    );
    check_config("tie_word_embeddings", json!(false), "tensor lm_head.weight is missing");
    let mut more = tensors();
    more.push(("model.layers.0.self_attn.q_proj.bias".into(), vec![32]));
    check(
        &folder(&config(), &safetensors(&more)),
        "tensor model.layers.0.self_attn.q_proj.bias has no place in a llama model",
    );
}

#[test]
fn hyperparameters_are_bounded() {
    check_config("hidden_size", json!(0), "hidden_size is 0, expected a positive number");
    check_config(
        "num_hidden_layers",
        json!(1u64 << 40),
        "num_hidden_layers is 1099511627776, more than the 1024 allowed",
    );
    check_config("hidden_size", json!(-1), "config.json is not the json expected");
    check_config("head_dim", json!(512), "head_dim is 512, more than the 256 allowed");
    check_config(
        "num_attention_heads",
        json!(3),
        "num_attention_heads is 3, expected a divisor of hidden_size",
    );
    check_config(
        "vocab_size",
        json!(5),
        "tensor model.embed_tokens.weight has sizes [4, 32], expected [5, 32]",
    );
}

#[test]
fn special_tokens_are_in_the_vocabulary() {
    let mut config = config();
    config["eos_token_id"] = json!(4);
    let folder = folder(&config, &safetensors(&tensors()));
    write(folder.path(), "tokenizer.json", b"{}");
    check(&folder, "a special token is 4, expected a token id below vocab_size");
}

#[test]
fn a_table_that_lies_is_refused() {
    let entry = |dtype: &str, sizes: &str, start: u64, end: u64| {
        format!(r#"{{"dtype":"{dtype}","shape":{sizes},"data_offsets":[{start},{end}]}}"#)
    };
    let one = |entry: String| format!(r#"{{"t":{entry}}}"#);
    check_table("[]", 0, "the header of model.safetensors is not the json expected");
    check_table(
        &one(entry("I64", "[2]", 0, 16)),
        16,
        "tensor t has type I64, expected f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, q2_k to q6_k, iq4_nl or mxfp4",
    );
    check_table(
        &one(entry("F32", "[2]", 0, 9)),
        9,
        "tensor t lies at 0, expected an extent of 8 bytes, not up to 9",
    );
    check_table(
        &one(entry("F32", "[2]", 8, 0)),
        8,
        "tensor t lies at 8, expected 0, behind the tensor before",
    );
    check_table(&one(entry("F32", "[4]", 0, 16)), 8, "tensor t needs 16 bytes, 8 are left");
    check_table(
        &one(entry("F32", "[4611686018427387904,4]", 0, 0)),
        0,
        "the size of tensor t is 18446744073709551615, more than the 9223372036854775807 allowed",
    );
    check_table(
        &one(entry("F32", "[]", 0, 4)),
        4,
        "tensor t has rows of 0 elements, not a multiple of 1",
    );
    let twice = entry("F32", "[1]", 0, 4);
    let behind = entry("F32", "[1]", 4, 8);
    check_table(&format!(r#"{{"t":{twice},"t":{behind}}}"#), 8, "tensor t occurs twice");
    check_table(
        &format!(r#"{{"t":{twice},"u":{twice}}}"#),
        8,
        "tensor u lies at 0, expected 4, behind the tensor before",
    );
    let gap = one(twice);
    let (size, expected) = (8 + gap.len() + 5, 8 + gap.len() + 4);
    check_table(
        &gap,
        5,
        &format!(
            "the length of model.safetensors is {size}, expected {expected}, where its last tensor ends"
        ),
    );
}

#[test]
fn a_header_longer_than_the_file_or_the_bound_is_refused() {
    let mut bytes = safetensors(&tensors());
    bytes[..8].copy_from_slice(&99_999_999u64.to_le_bytes());
    let left = bytes.len() - 8;
    check(
        &folder(&config(), &bytes),
        &format!("the header of model.safetensors needs 99999999 bytes, {left} are left"),
    );
    bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    check(
        &folder(&config(), &bytes),
        "the header of model.safetensors is 18446744073709551615, more than the 100000000 allowed",
    );
    check(
        &folder(&config(), b"1234567"),
        "the length of the header of model.safetensors needs 8 bytes, 7 are left",
    );
}

#[test]
fn a_file_cut_short_anywhere_is_refused() {
    let whole = safetensors(&tensors());
    let folder = folder(&config(), &whole);
    let table = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for length in (0..table + 40).chain([whole.len() - 1]) {
        write(folder.path(), "model.safetensors", &whole[..length]);
        assert!(open(folder.path()).is_err(), "cut to {length} bytes");
    }
}

proptest! {
    /// Any damaged byte gives a model or an error, never a panic.
    #[test]
    fn damage_never_panics(at in 0usize..1400, byte: u8, and in 0usize..600, too: u8) {
        let mut weights = safetensors(&tensors());
        weights[at] = byte;
        let mut config = config().to_string().into_bytes();
        let place = and % config.len();
        config[place] = too;
        let folder = folder(&json!({}), &weights);
        write(folder.path(), "config.json", &config);
        if let Ok(source) = open(folder.path()) {
            for role in source.shape().roles() {
                let _: Result<_, _> = source.tensor(role);
            }
        }
    }
}
