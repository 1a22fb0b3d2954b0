//! Reads a `tokenizer.json` of T5, XLM-RoBERTa and their like: Unigram.
//!
//! The library's converter wrote the steps before the model in several ways over the years; each is
//! known by exactly what it says ([`Spaces`]). Control tokens that take the blanks around them, as
//! `<mask>` does, are read without that: only [`Tokenizer::encode`] finds them, and no text of others
//! is read by it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::{AddedToken, File, Finish, Piece, Step, unsupported};
use crate::pieces::{self, SPACE};
use crate::unigram::{Spaces, Unigram};
use crate::{Charsmap, PreTokenizer, TokenKind, Tokenizer, TokenizerError, Vocabulary};

/// `Unigram`, as the file has it.
#[derive(Deserialize)]
pub(crate) struct Model {
    unk_id: Option<u32>,
    /// Spelling and score of each token. The number is kept as it is written: it is read exactly.
    vocab: Vec<(String, Box<RawValue>)>,
    #[serde(default)]
    byte_fallback: bool,
}

/// A step of making text plain.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "type")]
enum Normalizer {
    Sequence {
        normalizers: Vec<Normalizer>,
    },
    Precompiled {
        precompiled_charsmap: Option<String>,
    },
    Replace {
        pattern: crate::json::Pattern,
        content: String,
    },
    Strip {
        strip_left: bool,
        strip_right: bool,
    },
    #[serde(other)]
    Other,
}

/// Makes a tokenizer of a file whose model is Unigram.
pub(crate) fn read(file: File<Model>) -> Result<Tokenizer, TokenizerError> {
    let File { added_tokens, normalizer, pre_tokenizer, post_processor, decoder, model } = file;
    let (charsmap, steps) = read_normalizer(normalizer.as_ref())?;
    let spaces = read_spaces(&steps, pre_tokenizer.as_ref())?;
    if let Some(decoder) = decoder.filter(|decoder| decoder["type"] != "Metaspace") {
        return Err(unsupported("decoder", decoder));
    }
    let (bos, eos) = read_ends(post_processor.as_ref())?;
    let Tokens { tokens, kinds, scores } = read_tokens(model, added_tokens)?;
    let (merges, pre, add_bos) = (Vec::new(), PreTokenizer::Unigram, bos.is_some());
    let eos = eos.into_iter().collect();
    let vocabulary = Vocabulary { tokens, kinds, merges, pre, bos, eos, add_bos };
    Tokenizer::with_scores(vocabulary, Unigram { scores, charsmap, spaces })
}

/// The map of characters, and the steps behind it.
fn read_normalizer(
    value: Option<&serde_json::Value>,
) -> Result<(Charsmap, Vec<Normalizer>), TokenizerError> {
    let refuse = |found: &dyn std::fmt::Display| unsupported("normalizer", found);
    let mut steps = match value {
        None => Vec::new(),
        Some(value) => match Normalizer::deserialize(value).map_err(|_| refuse(value))? {
            Normalizer::Sequence { normalizers } => normalizers,
            step => vec![step],
        },
    };
    let Some(Normalizer::Precompiled { precompiled_charsmap }) = steps.first() else {
        return Ok((Charsmap::default(), steps));
    };
    let text = precompiled_charsmap.as_deref().unwrap_or_default();
    let bytes = STANDARD.decode(text).map_err(|error| refuse(&error))?;
    let charsmap = Charsmap::read(&bytes)?;
    steps.remove(0);
    Ok((charsmap, steps))
}

/// How spaces are spelled, as the steps before the model say together.
fn read_spaces(steps: &[Normalizer], pre: Option<&Step>) -> Result<Spaces, TokenizerError> {
    let found = match pre {
        Some(Step::Sequence { pretokenizers }) => pretokenizers.as_slice(),
        Some(step) => std::slice::from_ref(step),
        None => &[],
    };
    let words = match found {
        [Step::WhitespaceSplit {}, spell] if is_metaspace(spell) => true,
        [spell] if is_metaspace(spell) => false,
        _ => return Err(unsupported("pre_tokenizer", format!("{found:?}"))),
    };
    let joined = |by: &str| Normalizer::Replace {
        pattern: crate::json::Pattern::Regex(" {2,}".to_owned()),
        content: by.to_owned(),
    };
    let strip = Normalizer::Strip { strip_left: false, strip_right: true };
    match steps {
        [] if words => Ok(Spaces::Words),
        [] => Ok(Spaces::Every),
        [join] if *join == joined(" ") => Ok(if words { Spaces::Words } else { Spaces::Single }),
        [first, join] if *first == strip && *join == joined("▁") && !words => Ok(Spaces::Trimmed),
        _ => Err(unsupported("normalizer", format!("{steps:?}"))),
    }
}

/// Whether a step spells spaces `▁`, puts one before each text and cuts there.
fn is_metaspace(step: &Step) -> bool {
    let Step::Metaspace { replacement, prepend_scheme, add_prefix_space, split } = step else {
        return false;
    };
    replacement.as_ref().is_some_and(|by| by.chars().eq([SPACE]))
        && prepend_scheme.as_ref().is_none_or(|scheme| scheme == "always")
        && add_prefix_space.is_none_or(|first| first)
        && split.is_none_or(|cuts| cuts)
}

/// The tokens that stand around a text: one before, one behind, or either alone.
fn read_ends(finish: Option<&Finish>) -> Result<(Option<u32>, Option<u32>), TokenizerError> {
    let refuse = || unsupported("post_processor", format!("{finish:?}"));
    let (single, special_tokens) = match finish {
        None => return Ok((None, None)),
        Some(Finish::TemplateProcessing { single, special_tokens }) => (single, special_tokens),
        Some(_) => return Err(refuse()),
    };
    let id = |name| match special_tokens.get(name).map(|token| token.ids.as_slice()) {
        Some(&[id]) => Ok(Some(id)),
        _ => Err(refuse()),
    };
    match single.as_slice() {
        [Piece::Sequence {}] => Ok((None, None)),
        [Piece::Sequence {}, Piece::SpecialToken { id: last }] => Ok((None, id(last)?)),
        [Piece::SpecialToken { id: first }, Piece::Sequence {}] => Ok((id(first)?, None)),
        [
            Piece::SpecialToken { id: first },
            Piece::Sequence {},
            Piece::SpecialToken { id: last },
        ] => Ok((id(first)?, id(last)?)),
        _ => Err(refuse()),
    }
}

/// All tokens in the order of their ids.
struct Tokens {
    tokens: Vec<String>,
    kinds: Vec<TokenKind>,
    scores: Vec<f64>,
}

fn read_tokens(model: Model, added: Vec<AddedToken>) -> Result<Tokens, TokenizerError> {
    let (mut tokens, mut kinds, mut scores) = (Vec::new(), Vec::new(), Vec::new());
    for (spelling, score) in model.vocab {
        let is_byte = model.byte_fallback && pieces::byte(&spelling).is_some();
        kinds.push(if is_byte { TokenKind::Byte } else { TokenKind::Normal });
        tokens.push(spelling);
        scores.push(number(score.get())?);
    }
    let bytes = kinds.iter().filter(|kind| **kind == TokenKind::Byte).count();
    if model.byte_fallback && bytes != 256 {
        return Err(unsupported("byte_fallback", format!("{bytes} of 256 bytes")));
    }
    add(&mut tokens, &mut kinds, added)?;
    let of_vocab = scores.iter().copied().fold(f64::INFINITY, f64::min);
    scores.resize(tokens.len(), 0.0);
    if let Some(kind) = model.unk_id.and_then(|id| kinds.get_mut(id as usize)) {
        *kind = TokenKind::Unknown;
    }
    // The library counts control tokens too when it looks for the lowest score.
    let is_piece = |kind: &TokenKind| matches!(kind, TokenKind::Normal | TokenKind::Byte);
    let of_pieces = kinds.iter().zip(&scores).filter(|(kind, _)| is_piece(kind));
    if of_pieces.map(|(_, score)| *score).fold(f64::INFINITY, f64::min) != of_vocab {
        return Err(unsupported("score of a control token", of_vocab));
    }
    Ok(Tokens { tokens, kinds, scores })
}

/// A score as it is written, rounded once. Zero has no sign, so that it has one encoding.
fn number(written: &str) -> Result<f64, TokenizerError> {
    let read: Result<f64, _> = written.parse();
    let failed = |_| TokenizerError::Json { reason: format!("the score {written:?} is no number") };
    Ok(read.map_err(failed)? + 0.0)
}

/// Tokens added to those of the model, or named again.
fn add(
    tokens: &mut Vec<String>,
    kinds: &mut Vec<TokenKind>,
    mut added: Vec<AddedToken>,
) -> Result<(), TokenizerError> {
    added.sort_by_key(|token| token.id);
    for AddedToken { id, content, special, single_word, rstrip, .. } in added {
        // They are looked for in text before it is made plain, or after: files differ.
        if !special || single_word || rstrip {
            return Err(unsupported("added token", content));
        }
        let place = id as usize;
        if place > tokens.len() {
            return Err(TokenizerError::MissingId { id: tokens.len() as u32 });
        }
        if place == tokens.len() {
            tokens.push(content);
            kinds.push(TokenKind::Control);
            continue;
        }
        if tokens[place] != content {
            let found = format!("{id}, {:?}", tokens[place]);
            return Err(unsupported("second spelling of a token", found));
        }
        kinds[place] = TokenKind::Control;
    }
    Ok(())
}
