//! Models with experts load from either layout; what their files may not say is refused.

#![allow(clippy::disallowed_methods, reason = "tests write the files that they read")]

#[path = "support/gguf_writer.rs"]
mod gguf_writer;
#[path = "support/random_family.rs"]
mod random_family;

use std::io::Cursor;
use std::path::Path;

use assay_models::load::{LoadError, Source, open, read_gguf};
use assay_models::{Experts, Family, FloatModel, LayerRole, Role};
use gguf_writer::GgufWriter;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// Experts of the small model.
const EXPERTS: usize = 6;

fn sound() -> GgufWriter {
    random_family::random_with_experts()
}

fn read(file: &GgufWriter) -> Result<Source, LoadError> {
    read_gguf(Cursor::new(file.file()))
}

/// Holds the error of the sound file with one change against `expected`.
fn check_changed(change: impl FnOnce(&mut GgufWriter), expected: &str) {
    let mut file = sound();
    change(&mut file);
    assert_eq!(read(&file).expect_err(expected).to_string(), expected);
}

fn check_u32(name: &str, value: u32, expected: &str) {
    let key = format!("qwen3moe.{name}");
    check_changed(
        |file| {
            file.without_key(&key).u32(&key, value);
        },
        expected,
    );
}

#[test]
fn the_header_is_understood() {
    let source = read(&sound()).unwrap();
    let shape = source.shape();
    assert_eq!(shape.family, Family::Qwen3Moe);
    assert_eq!(shape.experts, Some(Experts { count: EXPERTS, chosen: 2 }));
    // The width of a feed-forward that no layer has is passed over.
    assert_eq!((shape.width, shape.hidden), (64, 32));
    let downs = source.tensor(Role::Layer(1, LayerRole::ExpertDowns)).unwrap();
    assert_eq!((downs.rows, downs.columns), (EXPERTS * 64, 32));
    assert_eq!(downs.name, "blk.1.ffn_down_exps.weight");
}

#[test]
fn counts_of_experts_are_bounded() {
    let key = "qwen3moe.expert_count";
    check_u32("expert_count", 0, &format!("{key} is 0, expected a positive number"));
    check_u32("expert_count", 1025, &format!("{key} is 1025, more than the 1024 allowed"));
    check_u32(
        "expert_count",
        u32::MAX,
        &format!("{key} is 4294967295, more than the 1024 allowed"),
    );
    check_u32(
        "expert_count",
        7,
        "tensor blk.0.ffn_gate_inp.weight has sizes [6, 64], expected [7, 64]",
    );
    let key = "qwen3moe.expert_used_count";
    check_u32("expert_used_count", 0, &format!("{key} is 0, expected a positive number"));
    check_u32("expert_used_count", 7, &format!("{key} is 7, more than the 6 allowed"));
    let key = "qwen3moe.expert_feed_forward_length";
    check_u32("expert_feed_forward_length", 0, &format!("{key} is 0, expected a positive number"));
    check_u32(
        "expert_feed_forward_length",
        48,
        "feed-forward width is 48, expected a multiple of 32",
    );
    check_u32(
        "expert_feed_forward_length",
        64,
        "tensor blk.0.ffn_gate_exps.weight has sizes [6, 32, 64], expected [6, 64, 64]",
    );
    for name in ["expert_count", "expert_used_count", "expert_feed_forward_length"] {
        let key = format!("qwen3moe.{name}");
        check_changed(
            |file| {
                file.without_key(&key);
            },
            &format!("{key} is missing"),
        );
    }
}

#[test]
fn tensors_of_experts_have_the_sizes_that_are_stated() {
    let name = "blk.1.ffn_down_exps.weight";
    for sizes in
        [vec![EXPERTS as u64 * 64, 32], vec![64, 6, 32], vec![5, 64, 32], vec![1, 6, 64, 32]]
    {
        let expected = format!("tensor {name} has sizes {sizes:?}, expected [6, 64, 32]");
        let mut file = sound();
        file.change(name).sizes.clone_from(&sizes);
        assert_eq!(read(&file).unwrap_err().to_string(), expected);
    }
    check_changed(
        |file| {
            file.without_tensor(name);
        },
        &format!("tensor {name} is missing"),
    );
    check_changed(
        |file| {
            file.tensor("blk.0.ffn_gate.weight", &[32, 64], 0, vec![0; 4 * 32 * 64]);
        },
        "tensor blk.0.ffn_gate.weight has no place in a qwen3moe model",
    );
}

#[test]
fn another_way_to_choose_is_refused() {
    check_changed(
        |file| {
            file.u32("qwen3moe.expert_shared_feed_forward_length", 32);
        },
        "hyperparameter qwen3moe.expert_shared_feed_forward_length with value 32 is not supported",
    );
    check_changed(
        |file| {
            file.f32("qwen3moe.expert_weights_scale", 2.5);
        },
        "hyperparameter qwen3moe.expert_weights_scale with value 2.5 is not supported",
    );
    let mut file = sound();
    file.u32("qwen3moe.expert_shared_feed_forward_length", 0);
    read(&file).unwrap();
}

#[test]
fn a_single_expert_may_stand_without_its_count() {
    let mut file = sound();
    for key in ["qwen3moe.expert_count", "qwen3moe.expert_used_count"] {
        file.without_key(key).u32(key, 1);
    }
    let one = |file: &mut GgufWriter, name: String, sizes: Vec<u64>| {
        let tensor = file.change(&name);
        let bytes = 4 * sizes.iter().product::<u64>() as usize;
        tensor.data.truncate(bytes);
        (tensor.bytes, tensor.sizes) = (bytes, sizes);
    };
    for layer in 0..2 {
        one(&mut file, format!("blk.{layer}.ffn_gate_inp.weight"), vec![1, 64]);
        one(&mut file, format!("blk.{layer}.ffn_gate_exps.weight"), vec![32, 64]);
        one(&mut file, format!("blk.{layer}.ffn_up_exps.weight"), vec![1, 32, 64]);
        one(&mut file, format!("blk.{layer}.ffn_down_exps.weight"), vec![64, 32]);
    }
    assert_eq!(read(&file).unwrap().shape().experts, Some(Experts { count: 1, chosen: 1 }));
}

/// Name, sizes and bytes.
type Tensor = (String, Vec<u64>, Vec<u8>);

/// What such directories call a tensor.
fn name(name: &str) -> String {
    let (layer, part) = match name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        Some(found) => found,
        None if name == "output_norm.weight" => return "model.norm.weight".to_owned(),
        None => return "model.embed_tokens.weight".to_owned(),
    };
    let part = match part.trim_end_matches(".weight") {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "attn_output" => "self_attn.o_proj",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate_inp" => "mlp.gate",
        "ffn_gate_exps" => "mlp.experts.{}.gate_proj",
        "ffn_up_exps" => "mlp.experts.{}.up_proj",
        "ffn_down_exps" => "mlp.experts.{}.down_proj",
        other => panic!("there is no {other}"),
    };
    format!("model.layers.{layer}.{part}.weight")
}

/// The tensors of the small model as such directories have them: each expert's apart.
fn apart() -> Vec<Tensor> {
    let mut tensors = Vec::new();
    for tensor in sound().tensors() {
        let name = name(&tensor.name);
        if !name.contains("{}") {
            tensors.push((name, tensor.sizes.clone(), tensor.data.clone()));
            continue;
        }
        let pieces = tensor.data.chunks(tensor.data.len() / EXPERTS);
        for (expert, piece) in pieces.enumerate() {
            let name = name.replace("{}", &expert.to_string());
            tensors.push((name, tensor.sizes[1..].to_vec(), piece.to_vec()));
        }
    }
    tensors
}

fn config() -> Value {
    json!({
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_act": "silu",
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32,
        "vocab_size": random_family::VOCAB, "max_position_embeddings": random_family::CONTEXT,
        "rms_norm_eps": 1e-5, "rope_theta": 1e6, "tie_word_embeddings": true,
        "attention_bias": false, "use_sliding_window": false, "sliding_window": null,
        "num_experts": EXPERTS, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "norm_topk_prob": true, "decoder_sparse_step": 1, "mlp_only_layers": [],
        "router_aux_loss_coef": 0.001, "output_router_logits": false,
    })
}

/// A safetensors file of these tensors.
fn safetensors(tensors: &[Tensor]) -> Vec<u8> {
    let (mut table, mut data) = (Map::new(), Vec::new());
    for (name, sizes, bytes) in tensors {
        let elements: u64 = sizes.iter().product();
        let dtype = if bytes.len() as u64 == 4 * elements { "F32" } else { "BF16" };
        let offsets = [data.len(), data.len() + bytes.len()];
        table
            .insert(name.clone(), json!({"dtype": dtype, "shape": sizes, "data_offsets": offsets}));
        data.extend(bytes);
    }
    let table = Value::Object(table).to_string();
    [&(table.len() as u64).to_le_bytes()[..], table.as_bytes(), &data].concat()
}

fn write(folder: &Path, name: &str, content: &[u8]) {
    std::fs::write(folder.join(name), content).expect("a file is written");
}

fn folder(config: &Value, tensors: &[Tensor]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary directory");
    write(folder.path(), "config.json", config.to_string().as_bytes());
    write(folder.path(), "model.safetensors", &safetensors(tensors));
    folder
}

#[test]
fn experts_apart_are_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "config.json", config().to_string().as_bytes());
    // In two shards, between which the experts of a layer are divided.
    let mut shards = [Vec::new(), Vec::new()];
    let mut map = Map::new();
    for (at, tensor) in apart().into_iter().enumerate() {
        let file = format!("model-{}.safetensors", at % 2);
        map.insert(tensor.0.clone(), json!(file));
        shards[at % 2].push(tensor);
    }
    let index = json!({"weight_map": map}).to_string();
    write(folder.path(), "model.safetensors.index.json", index.as_bytes());
    for (at, shard) in shards.iter().enumerate() {
        write(folder.path(), &format!("model-{at}.safetensors"), &safetensors(shard));
    }
    let (apart, stacked) = (open(folder.path()).unwrap(), read(&sound()).unwrap());
    assert_eq!(apart.shape(), stacked.shape());
    for role in stacked.shape().roles() {
        assert_eq!(apart.tensor(role).unwrap(), stacked.tensor(role).unwrap(), "{role}");
    }
    let logits = |source: &Source| FloatModel::load(source).unwrap().logits(&[3, 1, 4, 1, 5]);
    assert_eq!(logits(&apart), logits(&stacked));
}

#[test]
fn a_configuration_of_another_graph_is_refused() {
    let check = |key: &str, value: Value, expected: &str| {
        let mut config = config();
        config[key] = value;
        let error = open(folder(&config, &apart()).path()).expect_err(expected);
        assert_eq!(error.to_string(), expected);
    };
    check("decoder_sparse_step", json!(2), "decoder_sparse_step is 2, expected 1");
    check("decoder_sparse_step", json!(0), "decoder_sparse_step is 0, expected 1");
    check("mlp_only_layers", json!([0, 1]), "mlp_only_layers is [0, 1], expected []");
    check("norm_topk_prob", json!(false), "norm_topk_prob is false, expected true");
    // The default.
    check("norm_topk_prob", json!(null), "norm_topk_prob is false, expected true");
    let shared = "shared_expert_intermediate_size";
    check(shared, json!(32), "shared_expert_intermediate_size is 32, expected 0");
    check("num_experts", json!(0), "num_experts is 0, expected a positive number");
    check("num_experts", json!(null), "num_experts is missing");
    check(
        "num_experts",
        json!(u64::MAX),
        "num_experts is 18446744073709551615, more than the 1024 allowed",
    );
    check("num_experts", json!(-1), "config.json is not the json expected");
    check(
        "num_experts",
        json!(7),
        "tensor model.layers.0.mlp.gate.weight has sizes [6, 64], expected [7, 64]",
    );
    check("num_experts_per_tok", json!(0), "num_experts_per_tok is 0, expected a positive number");
    check("num_experts_per_tok", json!(7), "num_experts_per_tok is 7, more than the 6 allowed");
    check(
        "moe_intermediate_size",
        json!(64),
        "tensor model.layers.0.mlp.experts.0.gate_proj.weight has sizes [32, 64], expected [64, 64]",
    );
    check("moe_intermediate_size", json!(null), "moe_intermediate_size is missing");
}

#[test]
fn experts_that_are_missing_or_differ_are_named() {
    let name = "model.layers.1.mlp.experts.4.up_proj.weight";
    let check = |change: &dyn Fn(&mut Vec<Tensor>), expected: &str| {
        let mut tensors = apart();
        change(&mut tensors);
        let error = open(folder(&config(), &tensors).path()).expect_err(expected);
        assert_eq!(error.to_string(), expected);
    };
    check(&|all| all.retain(|it| it.0 != name), &format!("tensor {name} is missing"));
    check(
        &|all| {
            let expert = all.iter_mut().find(|it| it.0 == name).unwrap();
            expert.2.truncate(expert.2.len() / 2);
        },
        &format!("the type of tensor {name} is Bf16, expected F32, that of the first expert"),
    );
    check(
        &|all| {
            let expert = all.iter_mut().find(|it| it.0 == name).unwrap();
            expert.1 = vec![64, 32];
        },
        &format!("tensor {name} has sizes [64, 32], expected [32, 64]"),
    );
    let seventh = "model.layers.0.mlp.experts.6.up_proj.weight";
    check(
        &|all| all.push((seventh.to_owned(), vec![32, 64], vec![0; 4 * 32 * 64])),
        &format!("tensor {seventh} has no place in a qwen3moe model"),
    );
}

proptest! {
    /// Changed bytes of a header give a model or an error, never a panic.
    #[test]
    fn damage_never_panics(damage in prop::collection::vec((0usize..4200, any::<u8>()), 1..5)) {
        let mut bytes = sound().file();
        damage.into_iter().for_each(|(at, byte)| bytes[at] = byte);
        if let Ok(source) = read_gguf(Cursor::new(bytes)) {
            for role in source.shape().roles() {
                let _: Result<_, _> = source.tensor(role);
            }
        }
    }
}
