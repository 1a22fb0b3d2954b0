//! GGUF files of every supported format load; files that lie are refused with a word about where.

#![allow(clippy::disallowed_methods, reason = "tests write the files that they read")]

#[path = "support/gguf_writer.rs"]
mod gguf_writer;

use std::error::Error;
use std::io::Cursor;

use assay_models::load::{Kind, LoadError, Source, SourceTokenizer, open, read_gguf};
use assay_models::{LayerRole, Role, convert};
use gguf_writer::{GgufWriter, array, string};
use proptest::prelude::*;

/// Formats whose blocks fit rows of 32.
const KINDS: [(u32, Kind); 10] = [
    (0, Kind::F32),
    (1, Kind::F16),
    (30, Kind::Bf16),
    (8, Kind::Q8_0),
    (2, Kind::Q4_0),
    (3, Kind::Q4_1),
    (6, Kind::Q5_0),
    (7, Kind::Q5_1),
    (20, Kind::Iq4Nl),
    (39, Kind::Mxfp4),
];

/// The smallest llama there is: one layer, everything 32 wide, four tokens.
fn tiny(code: u32, kind: Kind) -> GgufWriter {
    let mut file = GgufWriter::default();
    file.text("general.architecture", "llama")
        .text("general.name", "tiny")
        .text("general.license", "CC0-1.0")
        .u32("llama.context_length", 16)
        .u32("llama.embedding_length", 32)
        .u32("llama.block_count", 1)
        .u32("llama.feed_forward_length", 32)
        .u32("llama.attention.head_count", 1)
        .f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
        .text("tokenizer.ggml.model", "gpt2")
        .text("tokenizer.ggml.pre", "smollm")
        .texts("tokenizer.ggml.tokens", &["a", "b", "ab", "<end>"])
        .i32s("tokenizer.ggml.token_type", &[1, 1, 1, 3])
        .texts("tokenizer.ggml.merges", &["a b"])
        .u32("tokenizer.ggml.eos_token_id", 3)
        .bool("tokenizer.ggml.add_bos_token", false)
        .text("tokenizer.chat_template", "{{ messages[0].content }}");
    let matrix = |rows: u64| {
        let (block, bytes) = kind.block();
        vec![0x11; rows as usize * 32 / block * bytes]
    };
    let gain = || 1.0f32.to_le_bytes().repeat(32);
    file.tensor("token_embd.weight", &[4, 32], code, matrix(4));
    file.tensor("output_norm.weight", &[32], 0, gain());
    for name in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"] {
        file.tensor(&format!("blk.0.{name}.weight"), &[32, 32], code, matrix(32));
    }
    file.tensor("blk.0.attn_norm.weight", &[32], 0, gain());
    file.tensor("blk.0.ffn_norm.weight", &[32], 0, gain());
    file
}

fn sound() -> GgufWriter {
    tiny(8, Kind::Q8_0)
}

fn read(bytes: Vec<u8>) -> Result<Source, LoadError> {
    read_gguf(Cursor::new(bytes))
}

/// Holds the error of reading `bytes` against `expected`.
fn check(bytes: Vec<u8>, expected: &str) {
    let error = read(bytes).expect_err(expected);
    assert_eq!(error.to_string(), expected);
}

/// Holds the error of a sound file with one change against `expected`.
fn check_changed(change: impl FnOnce(&mut GgufWriter), expected: &str) {
    let mut file = sound();
    change(&mut file);
    check(file.file(), expected);
}

/// Holds the error of a sound file with one key more, or another value for one, against
/// `expected`.
fn check_u32(key: &str, value: u32, expected: &str) {
    check_changed(
        |file| {
            file.without_key(key).u32(key, value);
        },
        expected,
    );
}

/// Reads and converts every tensor.
fn convert_all(source: &Source) -> Result<(), Box<dyn Error>> {
    for role in source.shape().roles() {
        let raw = source.tensor(role)?;
        convert::floats(&raw)?;
        if role.is_vector() {
            convert::gain(&raw)?;
        } else {
            convert::weights(&raw)?;
        }
    }
    Ok(())
}

#[test]
fn every_format_loads() {
    for (code, kind) in KINDS {
        let source = read(tiny(code, kind).file()).unwrap();
        let raw = source.tensor(Role::Layer(0, LayerRole::Query)).unwrap();
        assert_eq!((raw.kind, raw.rows, raw.columns), (kind, 32, 32));
        assert_eq!(raw.name, "blk.0.attn_q.weight");
        assert!(raw.bytes.iter().all(|&byte| byte == 0x11));
        convert_all(&source).unwrap();
    }
}

#[test]
fn the_header_is_understood() {
    let source = read(sound().file()).unwrap();
    let shape = source.shape();
    assert_eq!((shape.width, shape.layers, shape.hidden, shape.vocab), (32, 1, 32, 4));
    assert_eq!((shape.heads, shape.kv_heads, shape.head_dim, shape.context), (1, 1, 32, 16));
    assert_eq!((shape.norm_eps, shape.rope.base, shape.tied), (1e-5, 10_000.0, true));
    assert_eq!((source.name.as_str(), source.licence.as_deref()), ("tiny", Some("CC0-1.0")));
    assert_eq!(source.chat_template.as_deref(), Some("{{ messages[0].content }}"));
    let expected = SourceTokenizer::Gguf {
        model: "gpt2".into(),
        pre: Some("smollm".into()),
        tokens: ["a", "b", "ab", "<end>"].map(String::from).into(),
        kinds: vec![1, 1, 1, 3],
        merges: vec!["a b".into()],
        score_bits: Vec::new(),
        space_first: None,
        spaces_joined: None,
        charsmap: Vec::new(),
        bos: None,
        eos: vec![3],
        unknown: None,
        add_bos: Some(false),
    };
    assert_eq!(source.vocabulary, Some(expected));
    let missing = source.tensor(Role::Output).unwrap_err();
    assert_eq!(missing.to_string(), "tensor output.weight is missing");
}

#[test]
fn a_vocabulary_of_scores_is_read_with_its_map() {
    let mut file = sound();
    file.without_key("tokenizer.ggml.model");
    file.text("tokenizer.ggml.model", "t5").bool("tokenizer.ggml.add_eos_token", false);
    let bytes = [&array(0, 3)[..], &[1, 0, 255]].concat();
    file.key("tokenizer.ggml.precompiled_charsmap", 9, &bytes);
    match read(file.file()).unwrap().vocabulary {
        Some(SourceTokenizer::Gguf { charsmap, eos, .. }) => {
            assert_eq!((charsmap, eos), (vec![1, 0, 255], Vec::new()));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_without_a_tokenizer_loads() {
    let mut file = sound();
    file.without_key("tokenizer.ggml.model");
    assert_eq!(read(file.file()).unwrap().vocabulary, None);
    file.text("tokenizer.ggml.model", "none");
    assert_eq!(read(file.file()).unwrap().vocabulary, None);
}

#[test]
fn an_output_of_its_own_is_found() {
    let mut file = sound();
    file.tensor("output.weight", &[4, 32], 0, vec![0; 512]);
    let source = read(file.file()).unwrap();
    assert!(!source.shape().tied);
    assert_eq!(source.tensor(Role::Output).unwrap().kind, Kind::F32);
}

#[test]
fn another_alignment_is_honoured() {
    let mut file = sound();
    file.u32("general.alignment", 64);
    check(file.file(), "tensor output_norm.weight lies at 160, expected a multiple of 64");
    file.alignment = 64;
    let source = read(file.file()).unwrap();
    assert!(source.tensor(Role::Embedding).unwrap().bytes.iter().all(|&byte| byte == 0x11));
    assert_eq!(source.tensor(Role::OutputNorm).unwrap().bytes, 1.0f32.to_le_bytes().repeat(32));
}

#[test]
fn rope_factors_are_honoured() {
    let factors: Vec<f32> = (1..=16).map(|n| n as f32).collect();
    let bytes: Vec<u8> = factors.iter().flat_map(|factor| factor.to_le_bytes()).collect();
    let mut file = sound();
    file.tensor("rope_freqs.weight", &[16], 0, bytes.clone());
    assert_eq!(read(file.file()).unwrap().shape().rope.factors, factors);

    file.change("rope_freqs.weight").sizes = vec![15];
    check(file.file(), "rope parameters are not usable");
    file.change("rope_freqs.weight").sizes = vec![4, 4];
    check(file.file(), "tensor rope_freqs.weight has sizes [4, 4], expected [128]");
    file.change("rope_freqs.weight").sizes = vec![16];
    file.change("rope_freqs.weight").code = 1;
    check(
        file.file(),
        "tensor rope_freqs.weight has type F16, expected f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, q2_k to q6_k, iq4_nl or mxfp4",
    );
    file.change("rope_freqs.weight").code = 0;
    file.change("rope_freqs.weight").data = vec![0xff; 64];
    check(file.file(), "rope parameters are not usable");
}

#[test]
fn linear_scaling_is_honoured_and_others_refused() {
    let kind = "llama.rope.scaling.type";
    let factor = "llama.rope.scaling.factor";
    let mut file = sound();
    file.text(kind, "linear").f32(factor, 4.0);
    assert_eq!(read(file.file()).unwrap().shape().rope.factors, vec![4.0; 16]);

    check_changed(
        |f| {
            f.text(kind, "linear");
        },
        "llama.rope.scaling.factor is missing",
    );
    check_changed(
        |f| {
            f.f32(factor, 4.0);
        },
        "llama.rope.scaling.factor is 4, expected no factor without linear scaling",
    );
    check_changed(
        |f| {
            f.text(kind, "yarn").f32(factor, 4.0);
        },
        "llama.rope.scaling.type is \"yarn\", expected \"none\" or \"linear\"",
    );
    file.tensor("rope_freqs.weight", &[16], 0, 1.0f32.to_le_bytes().repeat(16));
    check(file.file(), "tensor rope_freqs.weight has no place in a linearly scaled model");
}

#[test]
fn a_file_cut_short_anywhere_is_refused() {
    let file = sound();
    let whole = file.file();
    for length in 0..whole.len() {
        assert!(read(whole[..length].to_vec()).is_err(), "cut to {length} bytes");
    }
    check(Vec::new(), "the magic number needs 4 bytes, 0 are left");
    check(
        whole[..whole.len() - 1].to_vec(),
        "tensor blk.0.ffn_norm.weight needs 128 bytes, 127 are left",
    );
}

#[test]
fn a_file_that_shrinks_after_opening_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let whole = sound().file();
    std::fs::write(&path, &whole).unwrap();
    let source = open(&path).unwrap();
    assert_eq!(source.path, path);
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let error = source.tensor(Role::Layer(0, LayerRole::HiddenNorm)).unwrap_err();
    assert_eq!(error.to_string(), "tensor blk.0.ffn_norm.weight needs 128 bytes, 127 are left");
}

#[test]
fn other_files_are_no_models() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    for content in ["", "GG", "hello world"] {
        std::fs::write(&path, content).unwrap();
        assert!(matches!(open(&path), Err(LoadError::NotAModel { .. })), "{content:?}");
    }
    assert!(matches!(open(folder.path()), Err(LoadError::NotAModel { .. })));
    assert!(matches!(open(&folder.path().join("none")), Err(LoadError::NotAModel { .. })));
}

#[test]
fn another_version_is_refused() {
    let mut bytes = sound().file();
    let same = read(bytes.clone()).unwrap().vocabulary;
    bytes[4] = 2;
    assert_eq!(read(bytes.clone()).unwrap().vocabulary, same);
    for other in [1, 4] {
        bytes[4] = other;
        check(bytes.clone(), &format!("gguf version {other}, expected 2 or 3"));
    }
    bytes[4..8].copy_from_slice(&3u32.to_be_bytes());
    check(bytes.clone(), "gguf version 50331648, expected 2 or 3");
    bytes[0] = b'X';
    check(bytes, "the magic number is [58, 47, 55, 46], expected [47, 47, 55, 46]");
}

#[test]
fn counts_and_lengths_are_bounded() {
    for count in [1 << 17, u64::MAX] {
        let mut bytes = sound().file();
        bytes[8..16].copy_from_slice(&count.to_le_bytes());
        check(bytes, &format!("the number of tensors is {count}, more than the 65536 allowed"));
        let mut bytes = sound().file();
        bytes[16..24].copy_from_slice(&count.to_le_bytes());
        check(bytes, &format!("the number of keys is {count}, more than the 4096 allowed"));
        let mut bytes = sound().file();
        bytes[24..32].copy_from_slice(&count.to_le_bytes());
        check(bytes, &format!("the length of key 0 is {count}, more than the 65535 allowed"));
    }
    let mut file = GgufWriter::default();
    file.key("k", 8, &1000u64.to_le_bytes());
    check(file.file()[..49].to_vec(), "k needs 1000 bytes, 4 are left");
    check_changed(
        |f| {
            f.key("k", 8, &u64::MAX.to_le_bytes());
        },
        "the length of k is 18446744073709551615, more than the 268435456 allowed",
    );
    check_changed(
        |f| {
            f.key("k", 9, &array(8, u64::MAX));
        },
        "the number of array elements up to k is 18446744073709551615, more than the 4194304 allowed",
    );
    // The sound file has nine elements in front.
    check_changed(
        |f| {
            f.key("k", 9, &array(0, (1 << 22) - 8));
        },
        "the number of array elements up to k is 4194305, more than the 4194304 allowed",
    );
}

#[test]
fn an_array_longer_than_the_file_is_refused_before_it_is_read() {
    let mut file = GgufWriter::default();
    file.key("k", 9, &array(8, 1 << 20));
    let bytes = file.file();
    let left = bytes.len() - 49;
    check(bytes, &format!("k needs 8388608 bytes, {left} are left"));
}

#[test]
fn values_of_no_known_type_are_refused() {
    check_changed(
        |f| {
            f.key("k", 13, &[0; 8]);
        },
        "k has type 13, which does not exist, expected 0 to 12",
    );
    check_changed(
        |f| {
            f.key("k", 9, &array(13, 1));
        },
        "k has type 13, which does not exist, expected 0 to 12",
    );
    check_changed(
        |f| {
            f.key("k", 9, &array(9, 1));
        },
        "k has type array of arrays, expected array",
    );
    check_changed(
        |f| {
            f.key("k", 7, &[2]);
        },
        "k is 2, expected 0 or 1",
    );
    check_changed(
        |f| {
            f.key("k", 9, &[&array(7, 2)[..], &[1, 7]].concat());
        },
        "k is 7, expected 0 or 1",
    );
    check_changed(
        |f| {
            f.key("k", 8, &[&1u64.to_le_bytes()[..], &[0xff]].concat());
        },
        "k is not utf-8",
    );
}

#[test]
fn values_that_no_one_reads_are_passed_over() {
    let mut file = sound();
    for (code, size) in [(0, 1), (1, 1), (2, 2), (3, 2), (5, 4), (7, 1), (10, 8), (11, 8), (12, 8)]
    {
        file.key(&format!("general.single{code}"), code, &vec![1; size]);
        let many = [&array(code, 3)[..], &vec![1; 3 * size]].concat();
        file.key(&format!("general.many{code}"), 9, &many);
    }
    convert_all(&read(file.file()).unwrap()).unwrap();
}

#[test]
fn a_value_of_another_type_than_its_key_promises_is_refused() {
    let wrong = |key: &'static str, expected: &str| {
        check_changed(
            |f| {
                f.without_key(key).bool(key, true);
            },
            expected,
        );
    };
    wrong("llama.block_count", "llama.block_count has type bool, expected integer");
    wrong("general.name", "general.name has type bool, expected string");
    wrong("llama.rope.freq_base", "llama.rope.freq_base has type bool, expected f32");
    wrong(
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.tokens has type bool, expected array of strings",
    );
    wrong(
        "tokenizer.ggml.token_type",
        "tokenizer.ggml.token_type has type bool, expected array of integers",
    );
    check_u32(
        "tokenizer.ggml.add_bos_token",
        1,
        "tokenizer.ggml.add_bos_token has type integer, expected bool",
    );
}

#[test]
fn names_are_unique() {
    check_changed(
        |f| {
            f.u32("llama.block_count", 1);
        },
        "key llama.block_count occurs twice",
    );
    check_changed(
        |f| {
            f.tensor("output_norm.weight", &[32], 0, vec![0; 128]);
        },
        "tensor output_norm.weight occurs twice",
    );
}

#[test]
fn an_alignment_is_a_power_of_two() {
    let key = "general.alignment";
    check_u32(key, 0, "general.alignment is 0, expected a positive number");
    check_u32(key, 24, "general.alignment is 24, expected a power of two");
    check_u32(key, 1 << 21, "general.alignment is 2097152, more than the 1048576 allowed");
}

#[test]
fn tensors_have_sizes_that_can_be() {
    let name = "blk.0.attn_q.weight";
    let resized = |sizes: &[u64], expected: &str| {
        check_changed(|f| f.change(name).sizes = sizes.to_vec(), expected);
    };
    resized(
        &[1, 1, 1, 32, 32],
        "the number of dimensions of tensor blk.0.attn_q.weight is 5, more than the 4 allowed",
    );
    resized(&[], "tensor blk.0.attn_q.weight has rows of 0 elements, not a multiple of 32");
    resized(&[32, 31], "tensor blk.0.attn_q.weight has rows of 31 elements, not a multiple of 32");
    resized(&[31, 32], "tensor blk.0.attn_q.weight has sizes [31, 32], expected [32, 32]");
    resized(&[1024], "tensor blk.0.attn_q.weight has sizes [1024], expected [32, 32]");
    for sizes in [[0, 32], [1 << 60, 32], [u64::MAX, 32], [1, 1 << 63]] {
        let error = read({
            let mut file = sound();
            file.change(name).sizes = sizes.to_vec();
            file.file()
        });
        let error = error.unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn tensors_lie_inside_the_file_and_apart() {
    let name = "blk.0.attn_k.weight";
    let moved = |offset: u64, expected: &str| {
        check_changed(|f| f.change(name).offset = Some(offset), expected);
    };
    moved(1377, "tensor blk.0.attn_k.weight lies at 1377, expected a multiple of 32");
    let far = u64::MAX - 31;
    moved(far, "tensor blk.0.attn_k.weight needs 1088 bytes, 0 are left");
    let mut file = sound();
    file.change(name).offset = Some(1344);
    let error = read(file.file()).unwrap_err().to_string();
    assert!(error.ends_with("or later, behind another tensor"), "{error}");
    assert!(error.starts_with("tensor blk.0.attn_k.weight lies at"), "{error}");
}

#[test]
fn a_format_that_is_not_read_is_refused() {
    check_changed(
        |f| f.change("blk.0.ffn_up.weight").code = 41,
        "tensor blk.0.ffn_up.weight has type ggml 41, expected f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, q2_k to q6_k, iq4_nl or mxfp4",
    );
}

#[test]
fn another_family_is_refused() {
    let key = "general.architecture";
    check_changed(
        |f| {
            f.without_key(key).text(key, "rwkv");
        },
        "model family \"rwkv\" is not supported, expected one of llama, qwen2, qwen3, gemma3, phi3, gpt2, bert, qwen3moe",
    );
}

#[test]
fn nothing_is_ignored() {
    let bias = |f: &mut GgufWriter| {
        f.tensor("blk.0.attn_q.bias", &[32], 0, vec![0; 128]);
    };
    check_changed(bias, "tensor blk.0.attn_q.bias has no place in a llama model");
    check_changed(
        |f| {
            f.without_tensor("blk.0.attn_q.weight");
        },
        "tensor blk.0.attn_q.weight is missing",
    );
    check_changed(
        |f| {
            f.f32("llama.logit_scale", 2.0);
        },
        "hyperparameter llama.logit_scale with value 2 is not supported",
    );
    check_u32(
        "llama.expert_count",
        8,
        "hyperparameter llama.expert_count with value 8 is not supported",
    );
    let mut file = sound();
    file.u32("llama.expert_count", 0).bool("llama.attention.causal", true);
    read(file.file()).unwrap();
}

#[test]
fn hyperparameters_fit_together() {
    check_u32("llama.block_count", 1025, "llama.block_count is 1025, more than the 1024 allowed");
    check_u32("llama.block_count", 2, "tensor blk.1.attn_norm.weight is missing");
    check_u32(
        "llama.vocab_size",
        5,
        "llama.vocab_size is 5, expected 4, the rows of token_embd.weight",
    );
    check_u32(
        "llama.context_length",
        131_073,
        "llama.context_length is 131073, more than the 131072 allowed",
    );
    check_u32("llama.embedding_length", 33, "width is 33, expected a multiple of 32");
    check_u32(
        "llama.feed_forward_length",
        48,
        "feed-forward width is 48, expected a multiple of 32",
    );
    check_u32("llama.attention.head_count", 2, "head size is 16, expected a multiple of 32");
    check_u32(
        "llama.attention.head_count",
        3,
        "llama.attention.head_count is 3, expected a divisor of the width 32",
    );
    check_u32(
        "llama.attention.head_count_kv",
        2,
        "number of key-value heads is 2, expected a divisor of the 1 query heads",
    );
    check_u32(
        "llama.attention.key_length",
        288,
        "llama.attention.key_length is 288, more than the 256 allowed",
    );
    check_u32(
        "llama.rope.dimension_count",
        16,
        "llama.rope.dimension_count is 16, expected 32, the elements of a head",
    );
    for eps in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let key = "llama.attention.layer_norm_rms_epsilon";
        check_changed(
            |f| {
                f.without_key(key).f32(key, eps);
            },
            &format!("epsilon of the norms is {eps}, expected a positive number"),
        );
    }
    check_changed(
        |f| {
            f.f32("llama.rope.freq_base", 0.0);
        },
        "rope parameters are not usable",
    );
}

#[test]
fn a_tokenizer_fits_the_embedding() {
    let tokens = "tokenizer.ggml.tokens";
    check_changed(
        |f| {
            f.without_key(tokens).texts(tokens, &["a", "b", "c", "d", "e"]);
        },
        "the length of tokenizer.ggml.tokens is 5, more than the 4 allowed",
    );
    check_changed(
        |f| {
            f.without_key(tokens);
        },
        "tokenizer.ggml.tokens is missing",
    );
    check_u32(
        "tokenizer.ggml.eos_token_id",
        4,
        "tokenizer.ggml.eos_token_id is 4, expected a token id below 4",
    );
    let kinds = "tokenizer.ggml.token_type";
    check_changed(
        |f| {
            f.without_key(kinds).i32s(kinds, &[1, 1, 1, 7]);
        },
        "tokenizer.ggml.token_type is 7, expected kinds 1 to 6",
    );
    check_changed(
        |f| {
            f.without_key(kinds).i32s(kinds, &[1]);
        },
        "the length of tokenizer.ggml.token_type is 1, expected 4, the number of tokens",
    );
}

#[test]
fn scales_and_quants_that_cannot_be_are_refused_by_name() {
    let name = "blk.0.attn_q.weight";
    let converted = |at: usize, bytes: &[u8]| {
        let mut file = sound();
        file.change(name).data[at..][..bytes.len()].copy_from_slice(bytes);
        let source = read(file.file()).unwrap();
        convert_all(&source).unwrap_err().to_string()
    };
    // Row 2 begins at byte 68 with its scale.
    for nan in [0x7c00u16, 0xfc00, 0x7e00] {
        assert_eq!(
            converted(68, &nan.to_le_bytes()),
            "tensor blk.0.attn_q.weight has an infinity or a nan at row 2, column 0"
        );
    }
    assert_eq!(
        converted(68 + 2 + 5, &[0x80]),
        "tensor blk.0.attn_q.weight has the quant -128 at row 2, column 5, expected -127 to 127"
    );
}

#[test]
fn a_string_writer_and_reader_agree() {
    assert_eq!(string("ab"), [2, 0, 0, 0, 0, 0, 0, 0, b'a', b'b']);
}

proptest! {
    /// Any flipped bytes give a model or an error, never a panic.
    #[test]
    fn damage_never_panics(
        damage in prop::collection::vec((0usize..6000, any::<u8>()), 1..6),
        which in 0usize..KINDS.len(),
    ) {
        let (code, kind) = KINDS[which];
        let mut bytes = tiny(code, kind).file();
        for (at, byte) in damage {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Ok(source) = read(bytes) {
            // Damage to the data alone may or may not leave numbers that convert.
            let _: Result<(), _> = convert_all(&source);
        }
    }

    /// The same for the header alone, where it hurts.
    #[test]
    fn damage_to_the_header_never_panics(at in 0usize..1400, byte: u8, and in 0usize..1400, too: u8) {
        let mut bytes = sound().file();
        bytes[at] = byte;
        bytes[and] ^= too;
        if let Ok(source) = read(bytes) {
            let _: Result<(), _> = convert_all(&source);
        }
    }

    #[test]
    fn noise_is_no_model(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let whole = [&b"GGUF\x03\0\0\0"[..], &bytes].concat();
        prop_assert!(read(whole).is_err());
        prop_assert!(read(bytes).is_err());
    }
}
