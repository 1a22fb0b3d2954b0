//! WordPiece, the tokenizer of BERT: words, each cut into the longest pieces that the vocabulary has.
//!
//! Text is first made plain: control characters go, every blank becomes a space, Chinese characters
//! stand alone, and where the model folds case, accents are taken off and letters made small. Words end
//! at spaces, and each punctuation mark is a word of its own. A piece that continues a word is spelled
//! with `##` in front. A word of which any part has no piece is the unknown token as a whole, and so is
//! one of more than a hundred characters.

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory as _};

use crate::TokenizerError;
use crate::pieces::SPACE;
use crate::spelled::{SPELLED_BYTES_MAX, Spelled};
use crate::vocabulary::TokenKind;

/// What is put before the spelling of a piece that continues a word.
pub(crate) const CONTINUES: &str = "##";

/// Longest word that is looked up, in characters.
pub(crate) const WORD_CHARS_MAX: usize = 100;

/// Where Chinese characters are, each a word of its own.
const CHINESE: [(char, char); 8] = [
    ('\u{4e00}', '\u{9fff}'),
    ('\u{3400}', '\u{4dbf}'),
    ('\u{20000}', '\u{2a6df}'),
    ('\u{2a700}', '\u{2b73f}'),
    ('\u{2b740}', '\u{2b81f}'),
    ('\u{2b920}', '\u{2ceaf}'),
    ('\u{f900}', '\u{faff}'),
    ('\u{2f800}', '\u{2fa1f}'),
];

/// The pieces of a vocabulary.
#[derive(Debug)]
pub(crate) struct WordPiece {
    /// Pieces that begin a word.
    begins: Spelled,
    /// Pieces that continue one.
    continues: Spelled,
    unknown: u32,
    /// Whether case and accents are taken off.
    folds: bool,
}

impl WordPiece {
    /// Indexes the pieces among `tokens`.
    ///
    /// # Errors
    /// If a piece is too long, or not exactly one token stands for what has no pieces.
    pub(crate) fn new(
        tokens: &[String],
        kinds: &[TokenKind],
        folds: bool,
    ) -> Result<Self, TokenizerError> {
        let of = |wanted| (0u32..).zip(kinds).filter(move |(_, kind)| **kind == wanted);
        let mut unknown = of(TokenKind::Unknown).map(|(id, _)| id);
        let unknown = match (unknown.next(), unknown.next()) {
            (Some(unknown), None) => unknown,
            (None, _) => return Err(refuse("names no unknown token")),
            (Some(_), Some(_)) => return Err(refuse("names several unknown tokens")),
        };
        let (mut begins, mut continues) = (Vec::new(), Vec::new());
        for (id, _) in of(TokenKind::Normal) {
            let spelling = tokens[id as usize].as_str();
            if spelling.len() > SPELLED_BYTES_MAX {
                let (found, max) = (spelling.len(), SPELLED_BYTES_MAX);
                return Err(TokenizerError::LongToken { found, max, id });
            }
            match spelling.strip_prefix(CONTINUES).filter(|rest| !rest.is_empty()) {
                Some(rest) => continues.push((rest, id)),
                None => begins.push((spelling, id)),
            }
        }
        let [begins, continues] =
            [begins, continues].map(|pieces| Spelled::new(pieces.into_iter()));
        Ok(Self { begins, continues, unknown, folds })
    }

    /// Adds the pieces of `text` to `ids`, and stops once there are more than `ids_max`.
    pub(crate) fn encode(&self, text: &str, ids_max: usize, ids: &mut Vec<u32>) {
        let plain = plain(text, self.folds);
        for word in words(&plain) {
            if ids.len() > ids_max {
                return;
            }
            self.encode_word(word, ids);
        }
    }

    fn encode_word(&self, word: &str, ids: &mut Vec<u32>) {
        let known = ids.len();
        let mut rest = word.as_bytes();
        let is_short = word.chars().nth(WORD_CHARS_MAX).is_none();
        while is_short && !rest.is_empty() {
            let pieces = if ids.len() == known { &self.begins } else { &self.continues };
            let Some((length, id)) = pieces.longest(rest) else { break };
            ids.push(id);
            rest = &rest[length..];
        }
        if !rest.is_empty() {
            ids.truncate(known);
            ids.push(self.unknown);
        }
    }
}

/// How GGUF files spell a piece, brought to how everybody else does: there, a piece that begins a word
/// has `▁` in front, and one that continues a word has nothing. Control tokens and what stands in
/// brackets is spelled as it is.
pub fn word_pieces_of_gguf(tokens: &[String], kinds: &[TokenKind]) -> Vec<String> {
    let is_control =
        |place: usize| matches!(kinds.get(place), Some(TokenKind::Control | TokenKind::Unknown));
    let respell = |(place, token): (usize, &String)| match token.strip_prefix(SPACE) {
        Some(word) => word.to_owned(),
        None if is_control(place) || token.starts_with('[') && token.ends_with(']') => {
            token.clone()
        }
        None => format!("{CONTINUES}{token}"),
    };
    tokens.iter().enumerate().map(respell).collect()
}

/// What a piece adds to text: a word its own and the space before it.
pub(crate) fn meaning(spelling: &str, kind: TokenKind) -> Vec<u8> {
    match (kind, spelling.strip_prefix(CONTINUES)) {
        (TokenKind::Control | TokenKind::Unknown, _) => Vec::new(),
        (_, Some(rest)) if !rest.is_empty() => rest.into(),
        _ => format!(" {spelling}").into_bytes(),
    }
}

/// Why a vocabulary is not one of WordPiece.
pub(crate) fn refuse(problem: &'static str) -> TokenizerError {
    TokenizerError::WordPiece { problem }
}

/// Text as its words are looked for.
fn plain(text: &str, folds: bool) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars().filter(|letter| !is_dropped(*letter)) {
        if is_blank(letter) {
            plain.push(' ');
        } else if CHINESE.iter().any(|(first, last)| (*first..=*last).contains(&letter)) {
            plain.extend([' ', letter, ' ']);
        } else {
            plain.push(letter);
        }
    }
    if !folds || plain.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        return plain;
    }
    let bare = plain.nfd().filter(|letter| {
        letter.is_ascii() || letter.general_category() != GeneralCategory::NonspacingMark
    });
    bare.flat_map(char::to_lowercase).collect()
}

fn is_blank(letter: char) -> bool {
    matches!(letter, '\t' | '\n' | '\r') || letter.is_whitespace()
}

/// Characters that say nothing: control and format, for private use, and what stands for none.
fn is_dropped(letter: char) -> bool {
    if matches!(letter, '\0' | '\u{fffd}') {
        return true;
    }
    let category = letter.general_category();
    !matches!(letter, '\t' | '\n' | '\r')
        && matches!(
            category,
            GeneralCategory::Control | GeneralCategory::Format | GeneralCategory::PrivateUse
        )
}

fn is_mark(letter: char) -> bool {
    letter.is_ascii_punctuation()
        || letter.general_category_group() == GeneralCategoryGroup::Punctuation
}

/// What stands between spaces, each punctuation mark apart.
fn words(plain: &str) -> impl Iterator<Item = &str> {
    plain.split(char::is_whitespace).flat_map(|word| {
        let mut rest = word;
        std::iter::from_fn(move || {
            let first = rest.chars().next()?;
            let length = match is_mark(first) {
                true => first.len_utf8(),
                false => rest.find(is_mark).unwrap_or(rest.len()),
            };
            let (word, after) = rest.split_at(length);
            rest = after;
            Some(word)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PreTokenizer, Tokenizer, Vocabulary};
    use proptest::prelude::*;
    use serde_json::Value;
    use std::sync::LazyLock;

    /// `tests/vectors/wordpiece.json`: a small vocabulary, and what the `tokenizers` library makes of
    /// texts with it.
    static VECTORS: LazyLock<Value> = LazyLock::new(|| {
        serde_json::from_str(include_str!("../../../tests/vectors/wordpiece.json")).unwrap()
    });

    /// The tokenizer of the vectors, its file changed.
    fn read_changed(change: impl FnOnce(&mut Value)) -> Result<Tokenizer, TokenizerError> {
        let mut file = VECTORS["tokenizer"].clone();
        change(&mut file);
        Tokenizer::from_json(file.to_string().as_bytes())
    }

    #[test]
    fn ids_match_the_vectors() {
        let tokenizer = |folds: bool| {
            let read = read_changed(|file| file["normalizer"]["lowercase"] = folds.into()).unwrap();
            // Both ways to read give one vocabulary.
            let bytes = read.canonical();
            let again = Tokenizer::from_canonical(&bytes).unwrap();
            assert_eq!(again.canonical(), bytes);
            again
        };
        let (folding, cased) = (tokenizer(true), tokenizer(false));
        let cases = VECTORS["cases"].as_array().unwrap();
        assert!(cases.len() > 100);
        for case in cases {
            let text = case["text"].as_str().unwrap();
            let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            let tokenizer = if case["folds"].as_bool().unwrap() { &folding } else { &cased };
            assert_eq!(tokenizer.encode_plain(text), ids, "{text:?}");
        }
    }

    #[test]
    fn a_text_stands_between_its_ends() {
        let tokenizer = read_changed(|_| {}).unwrap();
        let spelled = |text: &str, tokens_max| {
            let ids = tokenizer.enclose(text, tokens_max)?;
            let spelled = ids.into_iter().filter_map(|id| tokenizer.spelling(id));
            Some(spelled.collect::<Vec<_>>().join(" "))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(spelled("Unaffable!", 6), some("[CLS] un ##aff ##able ! [SEP]"));
        assert_eq!(spelled("Unaffable!", 5), None);
        assert_eq!(spelled("", 2), some("[CLS] [SEP]"));
        assert_eq!(spelled("a [SEP]", 9), some("[CLS] a [ [UNK] ] [SEP]"));
        assert_eq!(tokenizer.decode(&tokenizer.encode_plain("Unaffable! a")), " unaffable ! a");
        assert!(tokenizer.encode("[SEP]") == [3] && tokenizer.spells_control("[SEP]"));
    }

    #[test]
    fn other_files_are_refused() {
        let refused =
            |change: fn(&mut Value), expected: &str| match read_changed(change).unwrap_err() {
                TokenizerError::Unsupported { part, .. } => assert_eq!(part, expected),
                other => assert_eq!(other.to_string(), expected),
            };
        refused(|file| file["normalizer"] = Value::Null, "normalizer");
        refused(|file| file["normalizer"]["clean_text"] = false.into(), "normalizer");
        refused(|file| file["normalizer"]["strip_accents"] = false.into(), "normalizer");
        refused(|file| file["normalizer"]["type"] = "NFC".into(), "normalizer");
        refused(|file| file["pre_tokenizer"]["type"] = "Whitespace".into(), "pre_tokenizer");
        refused(|file| file["decoder"]["type"] = "BPE".into(), "decoder");
        refused(|file| file["post_processor"] = Value::Null, "post_processor");
        refused(
            |file| file["model"]["continuing_subword_prefix"] = "@@".into(),
            "continuing_subword_prefix",
        );
        refused(
            |file| file["model"]["max_input_chars_per_word"] = 200.into(),
            "max_input_chars_per_word",
        );
        refused(|file| file["added_tokens"][4]["special"] = false.into(), "added token");
        refused(
            |file| file["model"]["unk_token"] = Value::Null,
            "a WordPiece vocabulary names no unknown token",
        );
    }

    #[test]
    fn gguf_spells_pieces_in_its_own_way() {
        let tokens = ["[PAD]", "▁a", "able", "[unused3]", "▁[", "▁", "["].map(String::from);
        let mut kinds = [TokenKind::Normal; 7];
        kinds[0] = TokenKind::Control;
        let found = word_pieces_of_gguf(&tokens, &kinds);
        assert_eq!(found, ["[PAD]", "a", "##able", "[unused3]", "[", "", "##["]);
    }

    #[test]
    fn merges_have_no_place_here() {
        let vocabulary = Vocabulary {
            tokens: ["?", "a", "b", "ab"].map(String::from).to_vec(),
            kinds: [2, 1, 1, 1].map(|kind| TokenKind::try_from(kind).unwrap()).to_vec(),
            merges: vec!["a b".into()],
            pre: PreTokenizer::WordPiece,
            bos: None,
            eos: Vec::new(),
            add_bos: false,
        };
        let error = Tokenizer::new(vocabulary).unwrap_err();
        assert_eq!(error.to_string(), "a WordPiece vocabulary has merges");
    }

    proptest! {
        /// Whatever a text holds, it makes no control token, and no more work than it has bytes.
        #[test]
        fn any_text_has_tokens(text in "\\PC*|(\\[?(SEP|MASK|UNK)\\]?|a| |é|中|\u{301})*") {
            let tokenizer = read_changed(|_| {}).unwrap();
            let ids = tokenizer.encode_plain(&text);
            prop_assert!(ids.len() <= text.len());
            prop_assert!(ids.iter().all(|&id| tokenizer.kind(id) != Some(TokenKind::Control)));
            let all = tokenizer.enclose(&text, usize::MAX - 2).unwrap();
            prop_assert_eq!(&all[1..all.len() - 1], &ids[..]);
        }
    }
}
