//! Model files of strangers end in a model or an error, whatever is in them.

#![allow(clippy::disallowed_methods, reason = "tests write the files that they read")]

use std::fs;
use std::io::Cursor;

use assay_models::load;

const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32,
    "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1,
    "vocab_size": 4, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 64,
    "hidden_act": "silu", "tie_word_embeddings": true, "eos_token_id": 3}"#;

#[test]
fn fuzz_gguf() {
    let words = [
        "GGUF",
        "llama",
        "general.alignment",
        "blk.0.attn_q.weight",
        "expert_count",
        "tokenizer.ggml.tokens",
        "\u{9}\0\0\0",
    ];
    assay_fuzz::hold("gguf", &words, |bytes| {
        let Ok(source) = load::read_gguf(Cursor::new(bytes.to_vec())) else { return false };
        for role in source.shape().roles() {
            let _ = source.tensor(role);
        }
        true
    });
}

#[test]
fn fuzz_safetensors() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), CONFIG).unwrap();
    let words = [
        "\"dtype\":\"F32\"",
        "\"shape\":[",
        "\"data_offsets\":[",
        "BF16",
        "18446744073709551615",
        "]}",
    ];
    assay_fuzz::hold("safetensors", &words, |bytes| {
        fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        let Ok(source) = load::open(folder.path()) else { return false };
        for role in source.shape().roles() {
            let _ = source.tensor(role);
        }
        true
    });
}
