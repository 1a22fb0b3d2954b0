//! The float twin of the trained nano model gives the answers it was trained to give, from either
//! layout, and the converted weights stay close to what the files say.

#![allow(clippy::disallowed_methods, reason = "tests write the files that they read")]

use std::path::Path;

use assay_kernels::{GROUP, Pairing, Weights};
use assay_models::load::{Kind, Source, open};
use assay_models::{FloatModel, LayerRole, Role, convert};
use serde_json::json;

/// Ends an answer.
const END: u32 = 2;
/// Opens the user's turn.
const USER: u32 = 3;
/// Opens the answer.
const ASSISTANT: u32 = 4;

fn nano(kind: &str) -> Source {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/nano");
    open(&Path::new(folder).join(format!("nano-{kind}.gguf"))).expect("the nano model loads")
}

/// The most likely continuation of a question, up to the end token.
fn answer(model: &FloatModel, vocab: usize, question: &[u32]) -> Vec<u32> {
    let mut tokens = [&[USER], question, &[ASSISTANT]].concat();
    let start = tokens.len();
    while tokens.len() < start + 20 {
        let logits = model.logits(&tokens);
        let last = &logits[logits.len() - vocab..];
        let best = (0..vocab).max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap_or(0) as u32;
        if best == END {
            break;
        }
        tokens.push(best);
    }
    tokens.split_off(start)
}

#[test]
fn nano_answers_in_every_format() {
    for kind in ["q8_0", "f32"] {
        let source = nano(kind);
        let model = FloatModel::load(&source).unwrap();
        let check = |question: &[u32], expected: &[u32]| {
            assert_eq!(answer(&model, source.shape().vocab, question), expected, "{kind}");
        };
        // 12+45= → 57
        check(&[22, 23, 16, 25, 26, 34], &[26, 28]);
        // Sort: 5 3 9 1 → 1 3 5 9
        check(&[381, 31, 226, 26, 226, 24, 226, 30, 226, 22], &[22, 226, 24, 226, 26, 226, 30]);
        // What is the capital of Japan? → The capital of Japan is …
        let capital = answer(&model, source.shape().vocab, &[546, 315, 278, 335, 275, 904, 36]);
        assert_eq!(capital[..5], [57, 267, 335, 275, 904], "{kind}");
    }
}

#[test]
fn what_the_file_says_is_understood() {
    let source = nano("q8_0");
    let shape = source.shape();
    assert_eq!(shape.parameters(), 869_504);
    assert_eq!((shape.width, shape.layers, shape.heads, shape.kv_heads), (128, 4, 4, 2));
    assert_eq!((shape.head_dim, shape.hidden, shape.vocab, shape.context), (32, 352, 1024, 2048));
    assert_eq!((shape.norm_eps, shape.tied, shape.rope.pairing), (1e-5, true, Pairing::Adjacent));
    assert_eq!(source.name, "assay-tiny");
}

/// Dequantises a converted matrix.
fn values(weights: &Weights, columns: usize) -> Vec<f64> {
    let at = |index: usize| {
        let (row, column) = (index / columns, index % columns);
        let scale = f64::from(weights.scale(row, column / GROUP));
        f64::from(weights.q(row, column)) * scale / 2f64.powi(weights.exponent(row).into())
    };
    (0..weights.rows() * columns).map(at).collect()
}

#[test]
fn converted_weights_stay_close_to_the_file() {
    // Q8_0 keeps its quants and loses a scale's last bits; f32 loses half a quant in 127.
    for (kind, tolerance) in [("q8_0", 1e-5), ("f32", 0.5 / 127.0 + 1e-5)] {
        let source = nano(kind);
        for role in source.shape().roles().into_iter().filter(|&role| !role.is_vector()) {
            let raw = source.tensor(role).unwrap();
            let converted = values(&convert::weights(&raw).unwrap(), raw.columns);
            let original = convert::floats(&raw).unwrap();
            let rows = original.chunks_exact(raw.columns).zip(converted.chunks_exact(raw.columns));
            for (row, (original, converted)) in rows.enumerate() {
                let peak = original.iter().fold(0.0f32, |peak, value| peak.max(value.abs()));
                for (original, converted) in original.iter().zip(converted) {
                    let error = (f64::from(*original) - converted).abs();
                    assert!(error <= tolerance * f64::from(peak), "{kind} {role} row {row}");
                }
            }
        }
    }
}

#[test]
fn gains_convert_to_twelve_bits() {
    let source = nano("f32");
    let raw = source.tensor(Role::OutputNorm).unwrap();
    let fixed = convert::gain(&raw).unwrap();
    for (fixed, float) in fixed.into_iter().zip(convert::floats(&raw).unwrap()) {
        assert!((f64::from(fixed) / 4096.0 - f64::from(float)).abs() <= 0.5 / 4096.0);
    }
}

/// Undoes the permutation of a query or key matrix for GGUF: rows (heads, pairs, 2) become
/// (heads, 2, pairs).
fn unpermute(bytes: &[u8], heads: usize, head_dim: usize) -> Vec<u8> {
    let stride = bytes.len() / (heads * head_dim);
    let row = |index: usize| {
        let (head, place) = (index / head_dim, index % head_dim);
        let (half, pair) = (place / (head_dim / 2), place % (head_dim / 2));
        let from = head * head_dim + 2 * pair + half;
        bytes[from * stride..][..stride].iter().copied()
    };
    (0..heads * head_dim).flat_map(row).collect()
}

/// The name of a tensor in Hugging Face's layout.
fn name(role: Role) -> String {
    let (layer, name) = match role {
        Role::Embedding => return "model.embed_tokens.weight".to_owned(),
        Role::OutputNorm => return "model.norm.weight".to_owned(),
        Role::Output => return "lm_head.weight".to_owned(),
        Role::Layer(layer, LayerRole::AttentionNorm) => (layer, "input_layernorm"),
        Role::Layer(layer, LayerRole::Query) => (layer, "self_attn.q_proj"),
        Role::Layer(layer, LayerRole::Key) => (layer, "self_attn.k_proj"),
        Role::Layer(layer, LayerRole::Value) => (layer, "self_attn.v_proj"),
        Role::Layer(layer, LayerRole::AttentionOutput) => (layer, "self_attn.o_proj"),
        Role::Layer(layer, LayerRole::HiddenNorm) => (layer, "post_attention_layernorm"),
        Role::Layer(layer, LayerRole::Gate) => (layer, "mlp.gate_proj"),
        Role::Layer(layer, LayerRole::Up) => (layer, "mlp.up_proj"),
        Role::Layer(layer, LayerRole::Down) => (layer, "mlp.down_proj"),
        other => panic!("a llama has no {other}"),
    };
    format!("model.layers.{layer}.{name}.weight")
}

/// Writes the f32 model as a directory in Hugging Face's layout.
fn write_directory(source: &Source, folder: &Path) {
    let shape = source.shape();
    let (mut table, mut data) = (serde_json::Map::new(), Vec::new());
    for role in shape.roles() {
        let raw = source.tensor(role).expect("the tensor is read");
        assert_eq!(raw.kind, Kind::F32);
        let bytes = match role {
            Role::Layer(_, LayerRole::Query) => unpermute(&raw.bytes, shape.heads, shape.head_dim),
            Role::Layer(_, LayerRole::Key) => unpermute(&raw.bytes, shape.kv_heads, shape.head_dim),
            _ => raw.bytes,
        };
        let sizes = match role.is_vector() {
            true => json!([raw.columns]),
            false => json!([raw.rows, raw.columns]),
        };
        let offsets = [data.len(), data.len() + bytes.len()];
        table.insert(name(role), json!({"dtype": "F32", "shape": sizes, "data_offsets": offsets}));
        data.extend(bytes);
    }
    let table = serde_json::Value::Object(table).to_string();
    let length = (table.len() as u64).to_le_bytes();
    let file = [&length[..], table.as_bytes(), &data].concat();
    std::fs::write(folder.join("model.safetensors"), file).expect("the weights are written");
    let config = json!({
        "model_type": "llama", "hidden_size": shape.width, "intermediate_size": shape.hidden,
        "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads, "vocab_size": shape.vocab,
        "max_position_embeddings": shape.context, "rms_norm_eps": shape.norm_eps,
        "tie_word_embeddings": shape.tied,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).expect("it is written");
}

#[test]
fn both_layouts_of_one_model_agree() {
    let gguf = nano("f32");
    let folder = tempfile::tempdir().unwrap();
    write_directory(&gguf, folder.path());
    let directory = open(folder.path()).unwrap();
    assert_eq!(directory.shape().rope.pairing, Pairing::Halves);
    let tokens = [USER, 22, 23, 16, 25, 26, 34, ASSISTANT];
    let ours = FloatModel::load(&gguf).unwrap().logits(&tokens);
    let theirs = FloatModel::load(&directory).unwrap().logits(&tokens);
    assert_eq!(ours.len(), tokens.len() * 1024);
    for (ours, theirs) in ours.into_iter().zip(theirs) {
        // The same products in another order.
        assert!((ours - theirs).abs() < 1e-3, "{ours} {theirs}");
    }
}
