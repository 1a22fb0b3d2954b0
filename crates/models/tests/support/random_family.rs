//! Small random models of every family as GGUF files, in the words that such files use.

use assay_models::Family;

use crate::gguf_writer::GgufWriter;

/// Width of the residual stream.
const WIDTH: u64 = 64;
/// Elements per head.
const HEAD: u64 = 32;
/// Query heads.
const HEADS: u64 = 2;
/// Width of the feed-forward layer.
const HIDDEN: u64 = 96;
/// Experts of a layer, where there are some.
const EXPERTS: u64 = 6;
/// How many of them a position goes through.
const CHOSEN: u64 = 2;
/// Width of the feed-forward layer of one of them.
const EXPERT_HIDDEN: u64 = 32;
/// Token ids.
pub(crate) const VOCAB: u64 = 61;
/// Positions.
pub(crate) const CONTEXT: u64 = 64;
/// Positions that a layer with a window sees.
const WINDOW: u32 = 9;

/// A model of the family with weights in f32, the same ones every time.
#[allow(dead_code, reason = "each test and example uses its own part")]
pub(crate) fn random(family: Family) -> GgufWriter {
    random_with(family, |file| {
        file.text("tokenizer.ggml.model", "none");
    })
}

/// A small BERT with a vocabulary of its own: letters, as words and as their continuations.
#[allow(dead_code, reason = "each test and example uses its own part")]
pub(crate) fn random_bert() -> GgufWriter {
    let controls = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].map(String::from);
    let begins = ('a'..='z').map(|letter| format!("▁{letter}"));
    let tokens: Vec<String> =
        controls.into_iter().chain(begins).chain(('a'..='z').map(String::from)).collect();
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let kinds: Vec<i32> = (0..tokens.len()).map(|id| if id < 4 { 3 } else { 1 }).collect();
    random_with(Family::Bert, |file| {
        file.text("general.name", "tiny-bert")
            .text("tokenizer.ggml.model", "bert")
            .texts("tokenizer.ggml.tokens", &tokens)
            .i32s("tokenizer.ggml.token_type", &kinds)
            .u32("tokenizer.ggml.unknown_token_id", 1)
            .u32("tokenizer.ggml.cls_token_id", 2)
            .u32("tokenizer.ggml.seperator_token_id", 3);
    })
}

/// A small Qwen 3 with experts and a vocabulary of its own: some characters, and one token that ends.
#[allow(dead_code, reason = "each test and example uses its own part")]
pub(crate) fn random_with_experts() -> GgufWriter {
    let characters = ('a'..='z').chain('0'..='9').chain("Ġ.,:;!?+-=()".chars());
    let mut tokens: Vec<String> = characters.map(String::from).collect();
    tokens.extend((tokens.len()..VOCAB as usize - 1).map(|id| format!("<spare-{id}>")));
    tokens.push("<end>".to_owned());
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let kinds: Vec<i32> = tokens.iter().map(|it| if it.len() > 2 { 3 } else { 1 }).collect();
    random_with(Family::Qwen3Moe, |file| {
        file.text("general.name", "tiny-experts")
            .text("tokenizer.ggml.model", "gpt2")
            .text("tokenizer.ggml.pre", "qwen2")
            .texts("tokenizer.ggml.tokens", &tokens)
            .i32s("tokenizer.ggml.token_type", &kinds)
            .texts("tokenizer.ggml.merges", &[])
            .u32("tokenizer.ggml.eos_token_id", VOCAB as u32 - 1)
            .text("tokenizer.chat_template", "{% for m in messages %}{{ m.content }}{% endfor %}");
    })
}

/// A model of the family, and what else is to stand in its file.
fn random_with(family: Family, more: impl FnOnce(&mut GgufWriter)) -> GgufWriter {
    let name = family.graph().name;
    let layers = layers(family);
    let mut file = GgufWriter::default();
    hyperparameters(&mut file, family, name);
    more(&mut file);
    let mut model = Random { file, noise: Noise(u64::from(family.graph().code) + 1) };
    model.outside(family);
    for layer in 0..layers {
        model.layer(family, layer);
    }
    model.file
}

/// Gemma has one layer in six that sees everything.
fn layers(family: Family) -> u64 {
    if family == Family::Gemma3 { 6 } else { 2 }
}

/// Key and value heads.
fn kv_heads(family: Family) -> u64 {
    if matches!(family, Family::Gpt2 | Family::Bert) { HEADS } else { 1 }
}

fn hyperparameters(file: &mut GgufWriter, family: Family, name: &str) {
    let key = |suffix: &str| format!("{name}.{suffix}");
    file.text("general.architecture", name)
        .u32(&key("context_length"), CONTEXT as u32)
        .u32(&key("embedding_length"), WIDTH as u32)
        .u32(&key("block_count"), layers(family) as u32)
        .u32(&key("feed_forward_length"), HIDDEN as u32)
        .u32(&key("attention.head_count"), HEADS as u32)
        .u32(&key("attention.head_count_kv"), kv_heads(family) as u32)
        .u32(&key("vocab_size"), VOCAB as u32);
    match family {
        Family::Gpt2 | Family::Bert => {
            file.f32(&key("attention.layer_norm_epsilon"), 1e-5);
        }
        _ => {
            file.f32(&key("attention.layer_norm_rms_epsilon"), 1e-5)
                .f32(&key("rope.freq_base"), 1e6)
                .u32(&key("rope.dimension_count"), HEAD as u32)
                .u32(&key("attention.key_length"), HEAD as u32)
                .u32(&key("attention.value_length"), HEAD as u32);
        }
    }
    if family == Family::Bert {
        file.bool(&key("attention.causal"), false)
            .u32(&key("pooling_type"), 1)
            .u32("tokenizer.ggml.token_type_count", 2);
    }
    if family == Family::Qwen3Moe {
        file.u32(&key("expert_count"), EXPERTS as u32)
            .u32(&key("expert_used_count"), CHOSEN as u32)
            .u32(&key("expert_feed_forward_length"), EXPERT_HIDDEN as u32);
    }
    if family == Family::Gemma3 {
        file.u32(&key("attention.sliding_window"), WINDOW)
            .text(&key("rope.scaling.type"), "linear")
            .f32(&key("rope.scaling.factor"), 8.0);
    }
}

/// A file being filled with numbers.
struct Random {
    file: GgufWriter,
    noise: Noise,
}

impl Random {
    /// Everything that is not in a layer.
    fn outside(&mut self, family: Family) {
        self.matrix(
            "token_embd.weight",
            VOCAB,
            WIDTH,
            if family == Family::Gemma3 { 0.2 } else { 1.0 },
        );
        match family {
            Family::Gpt2 => self.matrix("position_embd.weight", CONTEXT, WIDTH, 0.5),
            Family::Bert => {
                self.matrix("position_embd.weight", CONTEXT, WIDTH, 0.5);
                self.matrix("token_types.weight", 2, WIDTH, 0.5);
                return self.norm("token_embd_norm", WIDTH, true);
            }
            // One family with an output matrix of its own.
            Family::Qwen2 => self.matrix("output.weight", VOCAB, WIDTH, 0.2),
            _ => {}
        }
        self.norm("output_norm", WIDTH, family == Family::Gpt2);
    }

    fn layer(&mut self, family: Family, layer: u64) {
        let of = |name: &str| format!("blk.{layer}.{name}");
        let (queries, keys) = (HEADS * HEAD, kv_heads(family) * HEAD);
        let biased = matches!(family, Family::Gpt2 | Family::Bert);
        match family {
            Family::Phi3 | Family::Gpt2 => {
                self.linear(&of("attn_qkv"), queries + 2 * keys, WIDTH, biased);
            }
            _ => {
                let biased = biased || family == Family::Qwen2;
                self.linear(&of("attn_q"), queries, WIDTH, biased);
                self.linear(&of("attn_k"), keys, WIDTH, biased);
                self.linear(&of("attn_v"), keys, WIDTH, biased);
            }
        }
        self.linear(&of("attn_output"), WIDTH, queries, biased);
        match family {
            Family::Phi3 => self.linear(&of("ffn_up"), 2 * HIDDEN, WIDTH, false),
            Family::Gpt2 | Family::Bert => self.linear(&of("ffn_up"), HIDDEN, WIDTH, true),
            Family::Qwen3Moe => {
                self.linear(&of("ffn_gate_inp"), EXPERTS, WIDTH, false);
                self.stack(&of("ffn_gate_exps"), EXPERT_HIDDEN, WIDTH);
                self.stack(&of("ffn_up_exps"), EXPERT_HIDDEN, WIDTH);
                self.stack(&of("ffn_down_exps"), WIDTH, EXPERT_HIDDEN);
            }
            _ => {
                self.linear(&of("ffn_gate"), HIDDEN, WIDTH, false);
                self.linear(&of("ffn_up"), HIDDEN, WIDTH, false);
            }
        }
        if family != Family::Qwen3Moe {
            self.linear(&of("ffn_down"), WIDTH, HIDDEN, biased);
        }
        if family == Family::Bert {
            self.norm(&of("attn_output_norm"), WIDTH, true);
            return self.norm(&of("layer_output_norm"), WIDTH, true);
        }
        self.norm(&of("attn_norm"), WIDTH, biased);
        self.norm(&of("ffn_norm"), WIDTH, biased);
        if matches!(family, Family::Qwen3 | Family::Gemma3 | Family::Qwen3Moe) {
            self.norm(&of("attn_q_norm"), HEAD, false);
            self.norm(&of("attn_k_norm"), HEAD, false);
        }
        if family == Family::Gemma3 {
            self.norm(&of("post_attention_norm"), WIDTH, false);
            self.norm(&of("post_ffw_norm"), WIDTH, false);
        }
    }

    /// A norm with gains about one, and perhaps a bias.
    fn norm(&mut self, name: &str, width: u64, biased: bool) {
        let gains = (0..width).map(|_| 1.0 + 0.3 * self.noise.next()).collect();
        self.vector(&format!("{name}.weight"), gains);
        if biased {
            self.bias(name, width);
        }
    }

    /// A matrix that keeps the size of what it multiplies, and perhaps a bias.
    fn linear(&mut self, name: &str, rows: u64, columns: u64, biased: bool) {
        self.matrix(&format!("{name}.weight"), rows, columns, 1.7 / (columns as f32).sqrt());
        if biased {
            self.bias(name, rows);
        }
    }

    fn bias(&mut self, name: &str, width: u64) {
        let numbers = (0..width).map(|_| 0.3 * self.noise.next()).collect();
        self.vector(&format!("{name}.bias"), numbers);
    }

    fn vector(&mut self, name: &str, numbers: Vec<f32>) {
        let sizes = [numbers.len() as u64];
        let bytes = numbers.into_iter().flat_map(f32::to_le_bytes).collect();
        self.file.tensor(name, &sizes, 0, bytes);
    }

    fn matrix(&mut self, name: &str, rows: u64, columns: u64, size: f32) {
        self.numbers(name, &[rows, columns], size);
    }

    /// The matrices of all experts as one tensor.
    fn stack(&mut self, name: &str, rows: u64, columns: u64) {
        let size = 1.7 / (columns as f32).sqrt();
        self.numbers(&format!("{name}.weight"), &[EXPERTS, rows, columns], size);
    }

    fn numbers(&mut self, name: &str, sizes: &[u64], size: f32) {
        let numbers = (0..sizes.iter().product()).map(|_| size * self.noise.next());
        let bytes = numbers.flat_map(f32::to_le_bytes).collect();
        self.file.tensor(name, sizes, 0, bytes);
    }
}

/// Marsaglia's xorshift: the same numbers every time.
struct Noise(u64);

impl Noise {
    /// A number from -1 to 1.
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31) ^ 0xD1B5;
        (self.0 >> 40) as f32 / 8_388_608.0 - 1.0
    }
}
