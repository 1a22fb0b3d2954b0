//! Reads `tokenizer.json`, the file of the `tokenizers` library.
//!
//! The file describes a whole pipeline. We read the pipelines of byte-level BPE models that
//! are in use, BERT's ([`crate::json_bert`]) and those of Unigram ([`crate::json_unigram`]), and refuse
//! every other by name, because a nearly right tokenizer is worse than none: it gives other ids, and
//! nobody notices.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use crate::vocabulary::TOKENS_MAX;
use crate::{
    PreTokenizer, TokenKind, Tokenizer, TokenizerError, Vocabulary, json_bert, json_unigram,
};

/// Llama 3's words, as its file states them.
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// Qwen 2's words, as its file states them.
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// The file, with a model of some kind.
#[derive(Deserialize)]
pub(crate) struct File<M = Model> {
    #[serde(default)]
    pub(crate) added_tokens: Vec<AddedToken>,
    pub(crate) normalizer: Option<serde_json::Value>,
    pub(crate) pre_tokenizer: Option<Step>,
    pub(crate) post_processor: Option<Finish>,
    pub(crate) decoder: Option<serde_json::Value>,
    pub(crate) model: M,
}

/// What kind of model it is, which decides how the rest is read.
#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Of<M> {
    model: M,
}

#[derive(Deserialize)]
pub(crate) struct AddedToken {
    pub(crate) id: u32,
    pub(crate) content: String,
    #[serde(default)]
    pub(crate) single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    pub(crate) rstrip: bool,
    #[serde(default)]
    pub(crate) special: bool,
}

#[derive(Deserialize)]
pub(crate) struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    pub(crate) vocab: HashMap<String, u32>,
    merges: Option<Vec<Pair>>,
    pub(crate) unk_token: Option<String>,
    pub(crate) continuing_subword_prefix: Option<String>,
    pub(crate) max_input_chars_per_word: Option<usize>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
}

/// A merge, in the older and the newer spelling.
#[derive(Deserialize)]
#[serde(untagged)]
enum Pair {
    Joined(String),
    Apart(String, String),
}

/// One step of cutting text into words.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "type")]
pub(crate) enum Step {
    Sequence {
        pretokenizers: Vec<Step>,
    },
    Digits {
        individual_digits: bool,
    },
    ByteLevel {
        add_prefix_space: bool,
        #[serde(default = "yes")]
        use_regex: bool,
    },
    Split {
        pattern: Pattern,
        behavior: String,
        #[serde(default)]
        invert: bool,
    },
    BertPreTokenizer {},
    WhitespaceSplit {},
    Metaspace {
        replacement: Option<String>,
        prepend_scheme: Option<String>,
        /// How older files say that the scheme is `always`.
        add_prefix_space: Option<bool>,
        split: Option<bool>,
    },
    #[serde(other)]
    Other,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) enum Pattern {
    Regex(String),
    String(String),
}

/// What is put around the tokens of a text.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type")]
pub(crate) enum Finish {
    Sequence {
        processors: Vec<Finish>,
    },
    ByteLevel {},
    TemplateProcessing {
        single: Vec<Piece>,
        special_tokens: BTreeMap<String, SpecialToken>,
    },
    BertProcessing {
        cls: (String, u32),
        sep: (String, u32),
    },
    #[serde(other)]
    Other,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) enum Piece {
    SpecialToken { id: String },
    Sequence {},
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct SpecialToken {
    pub(crate) ids: Vec<u32>,
}

/// Reads a whole file.
pub(crate) fn read(bytes: &[u8]) -> Result<Tokenizer, TokenizerError> {
    let kind: Of<Kind> = parse(bytes)?;
    if kind.model.kind.as_deref() == Some("Unigram") {
        return json_unigram::read(parse(bytes)?);
    }
    let file: File = parse(bytes)?;
    if file.model.kind.as_deref() == Some("WordPiece") {
        return json_bert::read(file);
    }
    let pre = read_pre(file.pre_tokenizer.as_ref())?;
    check_normalizer(file.normalizer.as_ref(), pre)?;
    check_decoder(file.decoder.as_ref())?;
    check_model(&file.model, pre)?;
    let bos = file.post_processor.as_ref().map_or(Ok(None), read_bos)?;

    let unknown = file.model.unk_token;
    let (tokens, kinds) = read_tokens(file.model.vocab, file.added_tokens)?;
    let merges = file
        .model
        .merges
        .ok_or_else(|| TokenizerError::Json { reason: "missing field `merges`".to_owned() })?;
    let merges = merges.into_iter().map(|pair| match pair {
        Pair::Joined(pair) => pair,
        Pair::Apart(left, right) => format!("{left} {right}"),
    });
    let merges = merges.collect();
    let (eos, add_bos) = (Vec::new(), bos.is_some());
    let tokenizer = Tokenizer::new(Vocabulary { tokens, kinds, merges, pre, bos, eos, add_bos })?;

    // With every byte spelled, the unknown token cannot occur and need not be understood.
    match (unknown, tokenizer.missing_byte()) {
        (Some(unknown), Some(_)) => Err(unsupported("unk_token", unknown)),
        _ => Ok(tokenizer),
    }
}

fn parse<'b, T: Deserialize<'b>>(bytes: &'b [u8]) -> Result<T, TokenizerError> {
    let failed = |error: serde_json::Error| TokenizerError::Json { reason: error.to_string() };
    serde_json::from_slice(bytes).map_err(failed)
}

pub(crate) fn unsupported(part: &'static str, found: impl ToString) -> TokenizerError {
    TokenizerError::Unsupported { part, found: found.to_string() }
}

fn read_pre(step: Option<&Step>) -> Result<PreTokenizer, TokenizerError> {
    let split = |regex: &str| Step::Split {
        pattern: Pattern::Regex(regex.to_owned()),
        behavior: "Isolated".to_owned(),
        invert: false,
    };
    let byte_level = |use_regex| Step::ByteLevel { add_prefix_space: false, use_regex };
    let known = [
        (PreTokenizer::Gpt2, vec![byte_level(true)]),
        (PreTokenizer::Smollm, vec![Step::Digits { individual_digits: true }, byte_level(true)]),
        (PreTokenizer::Llama3, vec![split(LLAMA3), byte_level(false)]),
        (PreTokenizer::Qwen2, vec![split(QWEN2), byte_level(false)]),
    ];
    let steps = match step {
        Some(Step::Sequence { pretokenizers }) => pretokenizers.clone(),
        Some(step) => vec![step.clone()],
        None => Vec::new(),
    };
    let found = known.into_iter().find(|(_, known)| *known == steps);
    found.map(|(pre, _)| pre).ok_or_else(|| unsupported("pre_tokenizer", format!("{steps:?}")))
}

/// Qwen's text is composed first, all other families' is taken as it is.
fn check_normalizer(
    normalizer: Option<&serde_json::Value>,
    pre: PreTokenizer,
) -> Result<(), TokenizerError> {
    let expected = (pre == PreTokenizer::Qwen2).then(|| serde_json::json!({"type": "NFC"}));
    if normalizer != expected.as_ref() {
        let found = normalizer.map_or("none".to_owned(), serde_json::Value::to_string);
        return Err(unsupported("normalizer", found));
    }
    Ok(())
}

fn check_decoder(decoder: Option<&serde_json::Value>) -> Result<(), TokenizerError> {
    match decoder {
        Some(decoder) if decoder["type"] != "ByteLevel" => Err(unsupported("decoder", decoder)),
        _ => Ok(()),
    }
}

fn check_model(model: &Model, pre: PreTokenizer) -> Result<(), TokenizerError> {
    if let Some(kind) = model.kind.as_ref().filter(|kind| *kind != "BPE") {
        return Err(unsupported("model", kind));
    }
    let affixes = [
        ("continuing_subword_prefix", &model.continuing_subword_prefix),
        ("end_of_word_suffix", &model.end_of_word_suffix),
    ];
    for (part, affix) in affixes {
        if let Some(affix) = affix.as_ref().filter(|affix| !affix.is_empty()) {
            return Err(unsupported(part, affix));
        }
    }
    if model.byte_fallback {
        return Err(unsupported("byte_fallback", true));
    }
    if model.ignore_merges != (pre == PreTokenizer::Llama3) {
        return Err(unsupported("ignore_merges", model.ignore_merges));
    }
    Ok(())
}

/// The token that goes before a text, where the file puts one there and nothing else.
fn read_bos(finish: &Finish) -> Result<Option<u32>, TokenizerError> {
    let refuse = || unsupported("post_processor", format!("{finish:?}"));
    match finish {
        Finish::ByteLevel {} => Ok(None),
        Finish::Sequence { processors } => {
            processors.iter().try_fold(None, |bos, finish| match (bos, read_bos(finish)?) {
                (Some(_), Some(_)) => Err(refuse()),
                (bos, more) => Ok(bos.or(more)),
            })
        }
        Finish::TemplateProcessing { single, special_tokens } => match single.as_slice() {
            [Piece::Sequence {}] => Ok(None),
            [Piece::SpecialToken { id }, Piece::Sequence {}] => {
                match special_tokens.get(id).map(|token| token.ids.as_slice()) {
                    Some(&[id]) => Ok(Some(id)),
                    _ => Err(refuse()),
                }
            }
            _ => Err(refuse()),
        },
        Finish::BertProcessing { .. } | Finish::Other => Err(refuse()),
    }
}

/// All tokens in the order of their ids, which must be without holes.
pub(crate) fn read_tokens(
    vocab: HashMap<String, u32>,
    added: Vec<AddedToken>,
) -> Result<(Vec<String>, Vec<TokenKind>), TokenizerError> {
    let mut by_id = BTreeMap::new();
    for (spelling, id) in vocab {
        insert(&mut by_id, id, spelling, TokenKind::Normal)?;
    }
    for token in added {
        if token.single_word || token.lstrip || token.rstrip {
            return Err(unsupported("added token that strips its surroundings", token.content));
        }
        let kind = if token.special { TokenKind::Control } else { TokenKind::User };
        insert(&mut by_id, token.id, token.content, kind)?;
    }
    if by_id.len() > TOKENS_MAX {
        return Err(TokenizerError::TooManyTokens { found: by_id.len(), max: TOKENS_MAX });
    }
    let hole = (0u32..).zip(by_id.keys()).find(|(expected, id)| expected != *id);
    if let Some((id, _)) = hole {
        return Err(TokenizerError::MissingId { id });
    }
    Ok(by_id.into_values().unzip())
}

/// Adds a token. An added token may name again what the vocabulary holds; two spellings for
/// one id are refused.
fn insert(
    by_id: &mut BTreeMap<u32, (String, TokenKind)>,
    id: u32,
    spelling: String,
    kind: TokenKind,
) -> Result<(), TokenizerError> {
    match by_id.insert(id, (spelling, kind)) {
        Some((before, _)) if before != by_id[&id].0 => {
            Err(unsupported("second spelling of a token", format!("{id}, {before:?}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A file that says little, with all bytes, `ab`, and `<e>` at the end.
    fn sample() -> Value {
        let letters =
            (0..=255).map(|byte| (crate::alphabet::letter(byte).to_string(), byte.into()));
        let mut vocab: serde_json::Map<String, Value> = letters.collect();
        vocab.insert("ab".to_owned(), 256.into());
        json!({
            "added_tokens": [{"id": 257, "content": "<e>", "special": true}],
            "normalizer": null,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
            "post_processor": null,
            "decoder": {"type": "ByteLevel"},
            "model": {"type": "BPE", "vocab": vocab, "merges": [["a", "b"]]},
        })
    }

    fn read_changed(change: impl FnOnce(&mut Value)) -> Result<Tokenizer, TokenizerError> {
        let mut file = sample();
        change(&mut file);
        read(file.to_string().as_bytes())
    }

    /// Changes the sample, and reads which part is said to be unsupported.
    fn refused(change: impl FnOnce(&mut Value), expected: &str) {
        match read_changed(change).unwrap_err() {
            TokenizerError::Unsupported { part, .. } => assert_eq!(part, expected),
            other => panic!("{other}"),
        }
    }

    fn split(regex: &str) -> Value {
        json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
        ]})
    }

    #[test]
    fn a_plain_file_is_read() {
        let tokenizer = read_changed(|_| {}).unwrap();
        assert_eq!(tokenizer.pre(), PreTokenizer::Gpt2);
        assert_eq!(tokenizer.encode("ab<e>"), [256, 257]);
        assert_eq!(tokenizer.kind(257), Some(TokenKind::Control));
        assert_eq!((tokenizer.bos(), tokenizer.eos()), (None, &[][..]));
    }

    #[test]
    fn both_spellings_of_merges_are_read() {
        let joined = read_changed(|file| file["model"]["merges"] = json!(["a b"])).unwrap();
        assert_eq!(joined.canonical(), read_changed(|_| {}).unwrap().canonical());
    }

    #[test]
    fn llama3_is_recognised_with_its_bos() {
        let tokenizer = read_changed(|file| {
            file["pre_tokenizer"] = split(LLAMA3);
            file["model"]["ignore_merges"] = true.into();
            file["post_processor"] = json!({"type": "Sequence", "processors": [
                {"type": "ByteLevel", "trim_offsets": false},
                {"type": "TemplateProcessing", "pair": [],
                 "single": [{"SpecialToken": {"id": "<e>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                 "special_tokens": {"<e>": {"id": "<e>", "ids": [257], "tokens": ["<e>"]}}},
            ]});
        });
        let tokenizer = tokenizer.unwrap();
        assert_eq!(tokenizer.pre(), PreTokenizer::Llama3);
        assert_eq!((tokenizer.bos(), tokenizer.add_bos()), (Some(257), true));
    }

    #[test]
    fn qwen2_is_recognised_with_its_normalizer() {
        let qwen2 = |file: &mut Value| file["pre_tokenizer"] = split(QWEN2);
        refused(qwen2, "normalizer");
        let tokenizer = read_changed(|file| {
            qwen2(file);
            file["normalizer"] = json!({"type": "NFC"});
        });
        assert_eq!(tokenizer.unwrap().pre(), PreTokenizer::Qwen2);
    }

    #[test]
    fn other_pipelines_are_refused() {
        refused(|file| file["pre_tokenizer"] = Value::Null, "pre_tokenizer");
        refused(|file| file["pre_tokenizer"]["add_prefix_space"] = true.into(), "pre_tokenizer");
        refused(|file| file["pre_tokenizer"] = json!({"type": "Metaspace"}), "pre_tokenizer");
        refused(|file| file["pre_tokenizer"] = split("\\s+"), "pre_tokenizer");
        refused(|file| file["normalizer"] = json!({"type": "Lowercase"}), "normalizer");
        refused(|file| file["decoder"] = json!({"type": "Metaspace"}), "decoder");
        refused(|file| file["model"]["type"] = "WordLevel".into(), "model");
        refused(|file| file["model"]["byte_fallback"] = true.into(), "byte_fallback");
        refused(|file| file["model"]["ignore_merges"] = true.into(), "ignore_merges");
        refused(|file| file["model"]["end_of_word_suffix"] = "</w>".into(), "end_of_word_suffix");
        refused(|file| file["post_processor"] = json!({"type": "Bert"}), "post_processor");
        refused(
            |file| file["added_tokens"][0]["lstrip"] = true.into(),
            "added token that strips its surroundings",
        );
        refused(|file| file["added_tokens"][0]["id"] = 256.into(), "second spelling of a token");
    }

    #[test]
    fn an_unknown_token_is_read_where_it_cannot_occur() {
        assert!(read_changed(|file| file["model"]["unk_token"] = "<e>".into()).is_ok());
        let incomplete = |file: &mut Value| {
            file["model"]["unk_token"] = "<e>".into();
            let vocab = file["model"]["vocab"].as_object_mut().unwrap();
            vocab.remove("Ġ");
            vocab.insert("Ġ?".to_owned(), 32.into());
        };
        refused(incomplete, "unk_token");
    }

    #[test]
    fn holes_are_refused() {
        let error = read_changed(|file| file["added_tokens"][0]["id"] = u32::MAX.into());
        assert_eq!(error.unwrap_err(), TokenizerError::MissingId { id: 257 });
    }

    #[test]
    fn other_files_are_refused() {
        for bytes in [&b""[..], b"{}", b"[1]", b"\xff", b"{\"model\":{\"vocab\":[]}}"] {
            assert!(matches!(read(bytes), Err(TokenizerError::Json { .. })));
        }
        let deep = "[".repeat(100_000);
        assert!(matches!(read(deep.as_bytes()), Err(TokenizerError::Json { .. })));
    }
}
