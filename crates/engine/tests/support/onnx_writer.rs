//! Writes ONNX files: a small encoder of noise, and what tests change about it.

#![allow(dead_code, clippy::unwrap_used, reason = "test code, of which each binary uses a part")]

use std::path::Path;

/// A message of Protocol Buffers on its way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proto(Vec<u8>);

impl Proto {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn varint(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    pub(crate) fn number(self, field: u64, value: u64) -> Self {
        self.varint(field << 3).varint(value)
    }

    pub(crate) fn bytes(self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2).varint(bytes.len() as u64).raw(bytes)
    }

    pub(crate) fn text(self, field: u64, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Types of elements.
pub(crate) const FLOAT: u64 = 1;
pub(crate) const INT64: u64 = 7;

/// An operator; `attributes` are messages.
pub(crate) fn node(op: &str, inputs: &[&str], output: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    let inputs = inputs.iter().fold(Proto::new(), |node, input| node.text(1, input));
    let node = inputs.text(2, output).text(3, output).text(4, op);
    attributes.iter().fold(node, |node, attribute| node.bytes(5, attribute)).done()
}

pub(crate) fn int(name: &str, value: i64) -> Vec<u8> {
    Proto::new().text(1, name).number(3, value as u64).number(20, 2).done()
}

pub(crate) fn ints(name: &str, values: &[i64]) -> Vec<u8> {
    let named = Proto::new().text(1, name);
    values.iter().fold(named, |list, &value| list.number(8, value as u64)).number(20, 7).done()
}

pub(crate) fn tensor(name: &str, kind: u64, sizes: &[usize], bytes: &[u8]) -> Vec<u8> {
    let sized = sizes.iter().fold(Proto::new(), |tensor, &size| tensor.number(1, size as u64));
    sized.number(2, kind).text(8, name).bytes(9, bytes).done()
}

pub(crate) fn floats(name: &str, sizes: &[usize], values: &[f32]) -> Vec<u8> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor(name, FLOAT, sizes, &bytes)
}

/// Something that goes in or comes out, whose sizes are named.
fn value(name: &str, kind: u64, sizes: &[&str]) -> Vec<u8> {
    let shape = sizes
        .iter()
        .fold(Proto::new(), |shape, size| shape.bytes(1, &Proto::new().text(2, size).done()));
    let tensor = Proto::new().number(1, kind).bytes(2, &shape.done());
    Proto::new().text(1, name).bytes(2, &Proto::new().bytes(1, &tensor.done()).done()).done()
}

/// Numbers between minus a half and a half that look like noise.
pub(crate) fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..count).map(next).collect()
}

/// Words that the small encoder's tokenizer knows.
const WORDS: [&str; 12] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "weather", "is", "lovely", "today", "sun", "##ny",
    "a",
];
/// Numbers of its vectors.
pub(crate) const WIDTH: usize = 64;

/// The parts of a graph.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) nodes: Vec<Vec<u8>>,
    pub(crate) tensors: Vec<Vec<u8>>,
    pub(crate) inputs: Vec<&'static str>,
    /// Its name, and the names of its sizes.
    pub(crate) output: (&'static str, Vec<&'static str>),
}

impl Parts {
    /// One layer of attention with a norm behind it.
    pub(crate) fn encoder() -> Self {
        let last = int("axis", -1);
        Self {
            nodes: vec![
                node("Gather", &["words", "input_ids"], "rows", &[]),
                node("MatMul", &["rows", "weights"], "queries", &[]),
                node("Transpose", &["rows"], "keys", &[ints("perm", &[0, 2, 1])]),
                node("MatMul", &["queries", "keys"], "scores", &[]),
                node("Softmax", &["scores"], "shares", std::slice::from_ref(&last)),
                node("MatMul", &["shares", "rows"], "mixed", &[]),
                node("Add", &["mixed", "rows"], "sum", &[]),
                node("LayerNormalization", &["sum", "gain", "bias"], "normed", &[last]),
                node("Cast", &["attention_mask"], "counts", &[int("to", FLOAT as i64)]),
                node("Unsqueeze", &["counts", "axes"], "counted", &[]),
                node("Mul", &["normed", "counted"], "last_hidden_state", &[]),
            ],
            tensors: vec![
                floats("words", &[WORDS.len(), WIDTH], &noise(WORDS.len() * WIDTH, 1)),
                floats("weights", &[WIDTH, WIDTH], &noise(WIDTH * WIDTH, 2)),
                floats("gain", &[WIDTH], &[1.0; WIDTH]),
                floats("bias", &[WIDTH], &noise(WIDTH, 3)),
                tensor("axes", INT64, &[1], &2i64.to_le_bytes()),
            ],
            inputs: vec!["input_ids", "attention_mask"],
            output: ("last_hidden_state", vec!["batch", "tokens", "width"]),
        }
    }

    /// The same, with a last operator that makes of its output something called `sentence_embedding`.
    pub(crate) fn ending(op: &str, attributes: &[Vec<u8>], sizes: &[&'static str]) -> Self {
        let mut parts = Self::encoder();
        parts.nodes.push(node(op, &["last_hidden_state"], "sentence_embedding", attributes));
        parts.output = ("sentence_embedding", sizes.to_vec());
        parts
    }

    /// One that tells three kinds of texts apart, by its first token.
    pub(crate) fn classifier() -> Self {
        let mut parts = Self::encoder();
        let hidden = ["last_hidden_state", "first"];
        parts.nodes.push(node("Gather", &hidden, "pooled", &[int("axis", 1)]));
        parts.nodes.push(node("MatMul", &["pooled", "head"], "logits", &[]));
        parts.tensors.push(tensor("first", INT64, &[], &0i64.to_le_bytes()));
        parts.tensors.push(floats("head", &[WIDTH, 3], &noise(WIDTH * 3, 4)));
        parts.output = ("logits", vec!["batch", "classes"]);
        parts
    }

    pub(crate) fn file(&self) -> Vec<u8> {
        let graph = self.nodes.iter().fold(Proto::new(), |graph, node| graph.bytes(1, node));
        let graph = self.tensors.iter().fold(graph.text(2, "tiny"), |graph, it| graph.bytes(5, it));
        let named =
            |graph: Proto, name: &&str| graph.bytes(11, &value(name, INT64, &["batch", "tokens"]));
        let graph = self.inputs.iter().fold(graph, named);
        let graph = graph.bytes(12, &value(self.output.0, FLOAT, &self.output.1)).done();
        let operators = Proto::new().number(2, 20).done();
        Proto::new().number(1, 9).bytes(7, &graph).bytes(8, &operators).done()
    }
}

/// The file of the small encoder.
pub(crate) fn tiny() -> Vec<u8> {
    Parts::encoder().file()
}

/// A tokenizer.json of its words.
fn tokenizer() -> String {
    let vocabulary = WORDS.iter().enumerate().map(|(id, word)| format!("\"{word}\":{id}"));
    let vocabulary = vocabulary.collect::<Vec<_>>().join(",");
    let special = |id: usize| {
        let word = WORDS[id];
        format!(
            r#"{{"id":{id},"content":"{word}","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}}"#
        )
    };
    let specials = (0..4).map(special).collect::<Vec<_>>().join(",");
    format!(
        r###"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{specials}],
"normalizer":{{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true}},
"pre_tokenizer":{{"type":"BertPreTokenizer"}},
"post_processor":{{"type":"TemplateProcessing",
"single":[{{"SpecialToken":{{"id":"[CLS]","type_id":0}}}},{{"Sequence":{{"id":"A","type_id":0}}}},{{"SpecialToken":{{"id":"[SEP]","type_id":0}}}}],
"pair":[],
"special_tokens":{{"[CLS]":{{"id":"[CLS]","ids":[2],"tokens":["[CLS]"]}},"[SEP]":{{"id":"[SEP]","ids":[3],"tokens":["[SEP]"]}}}}}},
"decoder":{{"type":"WordPiece","prefix":"##","cleanup":true}},
"model":{{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,"vocab":{{{vocabulary}}}}}}}"###
    )
}

/// Writes a folder as hubs have it, with this graph.
pub(crate) fn write(folder: &Path, graph: &[u8]) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("model.onnx"), graph).unwrap();
    std::fs::write(folder.join("tokenizer.json"), tokenizer()).unwrap();
    std::fs::write(folder.join("config.json"), r#"{"max_position_embeddings":64}"#).unwrap();
}

/// The same of a classifier, whose settings name these classes.
pub(crate) fn write_classifier(folder: &Path, graph: &[u8], labels: &[&str], more: &str) {
    write(folder, graph);
    let labels = labels.iter().enumerate().map(|(id, label)| format!("\"{id}\":\"{label}\""));
    let labels = labels.collect::<Vec<_>>().join(",");
    let config = format!(
        r#"{{"max_position_embeddings":64,"architectures":["BertForSequenceClassification"],"id2label":{{{labels}}}{more}}}"#
    );
    std::fs::write(folder.join("config.json"), config).unwrap();
}
