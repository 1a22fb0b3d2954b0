//! Reads a `tokenizer.json` of BERT and what was made of it: WordPiece.
//!
//! What such a file says of cutting texts short and of padding them is not read: a text that is too long
//! is refused where it is asked about, and texts of one batch need not be of one length.

use serde::Deserialize;

use crate::json::{File, Finish, Piece, Step, read_tokens, unsupported};
use crate::wordpiece::{CONTINUES, WORD_CHARS_MAX};
use crate::{PreTokenizer, TokenKind, Tokenizer, TokenizerError, Vocabulary};

/// `BertNormalizer`, as the file has it.
#[derive(Deserialize)]
struct Normalizer {
    #[serde(rename = "type")]
    kind: String,
    clean_text: bool,
    handle_chinese_chars: bool,
    /// As `lowercase` where it is not said.
    strip_accents: Option<bool>,
    lowercase: bool,
}

/// Makes a tokenizer of a file whose model is WordPiece.
pub(crate) fn read(file: File) -> Result<Tokenizer, TokenizerError> {
    let pre = read_normalizer(file.normalizer.as_ref())?;
    match file.pre_tokenizer {
        Some(Step::BertPreTokenizer {}) => {}
        other => return Err(unsupported("pre_tokenizer", format!("{other:?}"))),
    }
    if let Some(decoder) = file.decoder.filter(|decoder| decoder["type"] != "WordPiece") {
        return Err(unsupported("decoder", decoder));
    }
    let (bos, eos) = read_ends(file.post_processor.as_ref())?;
    let model = file.model;
    let prefix = model.continuing_subword_prefix.unwrap_or_default();
    if prefix != CONTINUES {
        return Err(unsupported("continuing_subword_prefix", prefix));
    }
    if let Some(max) = model.max_input_chars_per_word.filter(|max| *max != WORD_CHARS_MAX) {
        return Err(unsupported("max_input_chars_per_word", max));
    }
    // They are looked for in text before it is made plain, or after: files differ.
    if let Some(token) = file.added_tokens.iter().find(|token| !token.special) {
        return Err(unsupported("added token", &token.content));
    }
    let unknown = model.unk_token;
    let (tokens, mut kinds) = read_tokens(model.vocab, file.added_tokens)?;
    let place = tokens.iter().position(|token| Some(token) == unknown.as_ref());
    if let Some(place) = place {
        kinds[place] = TokenKind::Unknown;
    }
    let (merges, eos, add_bos) = (Vec::new(), vec![eos], true);
    Tokenizer::new(Vocabulary { tokens, kinds, merges, pre, bos: Some(bos), eos, add_bos })
}

fn read_normalizer(value: Option<&serde_json::Value>) -> Result<PreTokenizer, TokenizerError> {
    let refuse = || {
        let found = value.map_or("none".to_owned(), serde_json::Value::to_string);
        unsupported("normalizer", found)
    };
    let normalizer = Normalizer::deserialize(value.ok_or_else(refuse)?).map_err(|_| refuse())?;
    let Normalizer { kind, clean_text, handle_chinese_chars, strip_accents, lowercase } =
        normalizer;
    let accents = strip_accents.unwrap_or(lowercase);
    if kind != "BertNormalizer" || !clean_text || !handle_chinese_chars || accents != lowercase {
        return Err(refuse());
    }
    Ok(if lowercase { PreTokenizer::WordPiece } else { PreTokenizer::WordPieceCased })
}

/// The tokens that stand around a text: one before, one behind.
fn read_ends(finish: Option<&Finish>) -> Result<(u32, u32), TokenizerError> {
    let refuse = || unsupported("post_processor", format!("{finish:?}"));
    match finish {
        Some(Finish::BertProcessing { cls: (_, cls), sep: (_, sep) }) => Ok((*cls, *sep)),
        Some(Finish::TemplateProcessing { single, special_tokens }) => {
            let id = |name| match special_tokens.get(name).map(|token| token.ids.as_slice()) {
                Some(&[id]) => Ok(id),
                _ => Err(refuse()),
            };
            match single.as_slice() {
                [
                    Piece::SpecialToken { id: cls },
                    Piece::Sequence {},
                    Piece::SpecialToken { id: sep },
                ] => Ok((id(cls)?, id(sep)?)),
                _ => Err(refuse()),
            }
        }
        _ => Err(refuse()),
    }
}
