//! Cuts text into words before merging, as each model family did in training.
//!
//! The families state the cut as a regular expression with Unicode classes and a lookahead.
//! These scanners are the same expressions by hand: one pass, no backtracking, so no text
//! can make them slow. Each states its expression; alternatives are tried in that order.
//!
//! `\p{L}` and `\p{N}` are the Unicode general categories (not `char::is_alphabetic`, which
//! also takes some marks); `\s` is the `White_Space` property.

use crate::TokenizerError;
use crate::steps::{cut, steps};
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// How text is cut into words before merging.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PreTokenizer {
    /// GPT-2: words, numbers and punctuation, each with the space before it.
    Gpt2 = 1,
    /// SmolLM, StarCoder: every digit alone, then as GPT-2.
    Smollm = 2,
    /// Llama 3: up to three digits together; a whole word that is a token stays one.
    Llama3 = 3,
    /// Qwen 2 and 3: every digit alone, text brought to Unicode form NFC first.
    Qwen2 = 4,
    /// SentencePiece: a text is one word, with a space before it.
    SentencePiece = 5,
    /// SentencePiece without that space.
    SentencePieceBare = 6,
    /// WordPiece, with case and accents taken off: BERT.
    WordPiece = 7,
    /// WordPiece of text as it is written.
    WordPieceCased = 8,
    /// Qwen 3.5: as Qwen 2, with marks among the letters, and text as it is written.
    Qwen35 = 9,
    /// Falcon: punctuation cut out first, then as GPT-2, three digits together.
    Falcon = 10,
    /// DeepSeek Coder: lines, words, punctuation, East Asian text, every digit alone.
    DeepseekCoder = 11,
    /// DeepSeek LLM: as DeepSeek Coder, with the letters that have two cases apart.
    DeepseekLlm = 12,
    /// DeepSeek V3 and R1: up to three digits, East Asian text, then words.
    DeepseekV3 = 13,
    /// Punctuation cut out first, then as GPT-2, numbers apart: what files mean that name `default`.
    Signs = 14,
    /// Gemma 4: pieces of SentencePiece, merged in the order of a list; runs of newlines apart.
    Gemma4 = 15,
    /// Unigram: of all ways to cut a word into pieces, the one whose scores are highest. T5, XLM-RoBERTa.
    Unigram = 16,
}

impl PreTokenizer {
    /// The one with this code in a canonical tokenizer.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Gpt2,
            2 => Self::Smollm,
            3 => Self::Llama3,
            4 => Self::Qwen2,
            5 => Self::SentencePiece,
            6 => Self::SentencePieceBare,
            7 => Self::WordPiece,
            8 => Self::WordPieceCased,
            9 => Self::Qwen35,
            10 => Self::Falcon,
            11 => Self::DeepseekCoder,
            12 => Self::DeepseekLlm,
            13 => Self::DeepseekV3,
            14 => Self::Signs,
            15 => Self::Gemma4,
            16 => Self::Unigram,
            _ => return None,
        })
    }

    /// Whether tokens are spelled as SentencePiece spells them.
    pub(crate) fn is_sentence_piece(self) -> bool {
        self.is_scored() || matches!(self, Self::Gemma4 | Self::Unigram)
    }

    /// Whether merges follow from scores, so that all that make one token have one rank.
    pub(crate) fn is_scored(self) -> bool {
        matches!(self, Self::SentencePiece | Self::SentencePieceBare)
    }

    /// Whether the vocabulary is one of WordPiece.
    pub fn is_word_piece(self) -> bool {
        matches!(self, Self::WordPiece | Self::WordPieceCased)
    }

    /// Whether pieces are chosen by the sum of their scores.
    pub fn is_unigram(self) -> bool {
        self == Self::Unigram
    }
}

/// Names that GGUF files give in `tokenizer.ggml.pre`.
const NAMES: [(&str, PreTokenizer); 37] = [
    ("gpt-2", PreTokenizer::Gpt2),
    ("phi-2", PreTokenizer::Gpt2),
    ("mpt", PreTokenizer::Gpt2),
    ("olmo", PreTokenizer::Gpt2),
    ("jais", PreTokenizer::Gpt2),
    ("smollm", PreTokenizer::Smollm),
    ("starcoder", PreTokenizer::Smollm),
    ("refact", PreTokenizer::Smollm),
    ("codeshell", PreTokenizer::Smollm),
    ("command-r", PreTokenizer::Smollm),
    ("exaone", PreTokenizer::Smollm),
    ("llama-bpe", PreTokenizer::Llama3),
    ("llama3", PreTokenizer::Llama3),
    ("llama-v3", PreTokenizer::Llama3),
    ("dbrx", PreTokenizer::Llama3),
    ("smaug-bpe", PreTokenizer::Llama3),
    ("qwen2", PreTokenizer::Qwen2),
    ("deepseek-r1-qwen", PreTokenizer::Qwen2),
    ("megrez", PreTokenizer::Qwen2),
    ("qwen35", PreTokenizer::Qwen35),
    ("falcon", PreTokenizer::Falcon),
    ("deepseek-coder", PreTokenizer::DeepseekCoder),
    ("deepseek-llm", PreTokenizer::DeepseekLlm),
    ("deepseek-v3", PreTokenizer::DeepseekV3),
    ("default", PreTokenizer::Signs),
    ("gemma4", PreTokenizer::Gemma4),
    ("falcon3", PreTokenizer::Llama3),
    ("falcon-h1", PreTokenizer::Llama3),
    ("pixtral", PreTokenizer::Llama3),
    ("lfm2", PreTokenizer::Llama3),
    ("gigachat", PreTokenizer::Gpt2),
    ("a.x-4.0", PreTokenizer::Gpt2),
    ("mellum", PreTokenizer::Gpt2),
    ("trillion", PreTokenizer::Gpt2),
    ("granite-docling", PreTokenizer::Gpt2),
    ("minerva-7b", PreTokenizer::Smollm),
    ("mellum2", PreTokenizer::Smollm),
];

impl TryFrom<&str> for PreTokenizer {
    type Error = TokenizerError;

    /// Reads a GGUF `tokenizer.ggml.pre` name.
    fn try_from(name: &str) -> Result<Self, Self::Error> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, pre)| *pre).ok_or_else(|| TokenizerError::UnknownPreTokenizer {
            found: name.to_owned(),
            known: NAMES.map(|(known, _)| known).join(", "),
        })
    }
}

impl PreTokenizer {
    /// Cuts `text` into words; joined they are `text` again, and none is empty.
    pub(crate) fn words(self, text: &str) -> impl Iterator<Item = &str> {
        let steps = steps(self);
        let pieces = steps.map(|steps| cut(steps, text));
        // What was cut in steps is cut no more.
        let mut rest = if pieces.is_some() { "" } else { text };
        pieces.into_iter().flatten().chain(std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (word, after) = rest.split_at(self.word_length(rest));
            rest = after;
            Some(word)
        }))
    }

    /// Bytes in the first word of `text`, which is not empty.
    fn word_length(self, text: &str) -> usize {
        match self {
            Self::Gpt2 => gpt2(text, Digits::Together),
            Self::Smollm => gpt2(text, Digits::Alone),
            Self::Llama3 => llama3(text, 3, Marks::Other),
            Self::Qwen2 => llama3(text, 1, Marks::Other),
            Self::Qwen35 => llama3(text, 1, Marks::Letters),
            Self::Gemma4 => lines(text),
            // These cut text in their own ways.
            Self::SentencePiece
            | Self::SentencePieceBare
            | Self::WordPiece
            | Self::WordPieceCased
            | Self::Unigram
            | Self::Falcon
            | Self::DeepseekCoder
            | Self::DeepseekLlm
            | Self::DeepseekV3
            | Self::Signs => text.len(),
        }
    }
}

/// `[^\n]+|[\n]+`
fn lines(text: &str) -> usize {
    let is_newline = text.starts_with('\n');
    text.find(|letter| (letter == '\n') != is_newline).unwrap_or(text.len())
}

/// GPT-2's expression where it sees numbers.
pub(crate) fn gpt2_whole(text: &str) -> usize {
    gpt2(text, Digits::Together)
}

/// Whether GPT-2's expression sees numbers, or they were cut out one by one before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Digits {
    Together,
    Alone,
}

/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
///
/// With [`Digits::Alone`], `\p{N}` is cut out first, and the expression runs on what lies
/// between: there a number ends the text.
fn gpt2(text: &str, digits: Digits) -> usize {
    if let Some(length) = contraction(text, Case::Lower) {
        return length;
    }
    let body = text.strip_prefix(' ').unwrap_or(text);
    let space = text.len() - body.len();
    match first_class(body) {
        Some(Class::Number) if digits == Digits::Alone => {
            if space > 0 {
                space
            } else {
                first_length(text)
            }
        }
        Some(class) if class != Class::Space => space + run(body, class, usize::MAX),
        _ => blank(text, digits),
    }
}

/// What marks are, which Unicode sets beside letters: accents and vowel signs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Marks {
    Letters,
    Other,
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|`
/// ` ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`, with `digits` for the 3.
///
/// With [`Marks::Letters`], `[\p{L}\p{M}]+` for `\p{L}+` and `[^\s\p{L}\p{M}\p{N}]+` for
/// `[^\s\p{L}\p{N}]+`.
fn llama3(text: &str, digits: usize, marks: Marks) -> usize {
    if let Some(length) = contraction(text, Case::Any) {
        return length;
    }
    let class = |letter: char| match class(letter) {
        Class::Other if marks == Marks::Letters && is_mark(letter) => Class::Letter,
        class => class,
    };
    let first_class = |text: &str| text.chars().next().map(class);
    let run = |text: &str, wanted: Class, max: usize| -> usize {
        let run = text.chars().take(max).take_while(|&letter| class(letter) == wanted);
        run.map(char::len_utf8).sum()
    };
    let first = first_length(text);
    match first_class(text) {
        Some(Class::Letter) => return run(text, Class::Letter, usize::MAX),
        Some(Class::Number) => return run(text, Class::Number, digits),
        _ => {}
    }
    if !text.starts_with(is_newline) && first_class(&text[first..]) == Some(Class::Letter) {
        return first + run(&text[first..], Class::Letter, usize::MAX);
    }
    let body = text.strip_prefix(' ').unwrap_or(text);
    if first_class(body) == Some(Class::Other) {
        let end = text.len() - body.len() + run(body, Class::Other, usize::MAX);
        let newlines = text[end..].trim_start_matches(is_newline);
        return text.len() - newlines.len();
    }
    let spaces = run(text, Class::Space, usize::MAX);
    match text[..spaces].rfind(is_newline) {
        Some(newline) => newline + 1,
        None => blank(text, Digits::Together),
    }
}

/// `\s+(?!\S)|\s+`: white space, leaving its last character to the word that follows.
fn blank(text: &str, digits: Digits) -> usize {
    let length = run(text, Class::Space, usize::MAX);
    match first_class(&text[length..]) {
        None => length,
        Some(Class::Number) if digits == Digits::Alone => length,
        Some(_) => {
            let last = text[..length].chars().next_back().map_or(0, char::len_utf8);
            if length > last { length - last } else { length }
        }
    }
}

/// Which spellings of the contractions count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Lower,
    Any,
}

/// `'s|'t|'re|'ve|'m|'ll|'d`
fn contraction(text: &str, case: Case) -> Option<usize> {
    let body = text.strip_prefix('\'')?;
    let fold = |letter: char| match (case, letter) {
        // Unicode folds the long s to s.
        (Case::Any, 'ſ') => 's',
        (Case::Any, _) => letter.to_ascii_lowercase(),
        (Case::Lower, _) => letter,
    };
    let mut letters = body.chars();
    let (first, second) = (letters.next()?, letters.next());
    let length = match (fold(first), second.map(fold)) {
        ('s' | 't' | 'm' | 'd', _) => first.len_utf8(),
        ('r' | 'v', Some('e')) | ('l', Some('l')) => 2,
        _ => return None,
    };
    Some(1 + length)
}

/// What the expressions distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Letter,
    Number,
    Space,
    Other,
}

fn class(letter: char) -> Class {
    if letter.is_ascii() {
        return match letter {
            'a'..='z' | 'A'..='Z' => Class::Letter,
            '0'..='9' => Class::Number,
            '\t'..='\r' | ' ' => Class::Space,
            _ => Class::Other,
        };
    }
    match letter.general_category_group() {
        GeneralCategoryGroup::Letter => Class::Letter,
        GeneralCategoryGroup::Number => Class::Number,
        _ if letter.is_whitespace() => Class::Space,
        _ => Class::Other,
    }
}

fn first_class(text: &str) -> Option<Class> {
    text.chars().next().map(class)
}

/// Bytes in the first character of `text`.
fn first_length(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

/// Bytes in the run of `wanted` that `text` begins with, at most `max` characters.
fn run(text: &str, wanted: Class, max: usize) -> usize {
    text.chars().take(max).take_while(|&letter| class(letter) == wanted).map(char::len_utf8).sum()
}

fn is_mark(letter: char) -> bool {
    letter.general_category_group() == GeneralCategoryGroup::Mark
}

fn is_newline(letter: char) -> bool {
    matches!(letter, '\r' | '\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Words of `text`, with `|` between them.
    fn check(pre: PreTokenizer, text: &str, expected: &str) {
        assert_eq!(pre.words(text).collect::<Vec<_>>().join("|"), expected, "{pre:?}");
    }

    #[test]
    fn gpt2_words() {
        check(PreTokenizer::Gpt2, "it's 2024, y'ALL", "it|'s| 2024|,| y|'|ALL");
        check(PreTokenizer::Gpt2, "a  b \n c  ", "a| | b| \n| c|  ");
    }

    #[test]
    fn smollm_words() {
        check(PreTokenizer::Smollm, "a 12  3", "a| |1|2|  |3");
        check(PreTokenizer::Smollm, "9+3=½", "9|+|3|=|½");
    }

    #[test]
    fn llama3_words() {
        check(PreTokenizer::Llama3, "IT'S 12345 ok.\n\nx", "IT|'S| |123|45| ok|.\n\n|x");
        check(PreTokenizer::Llama3, " \n \n  a\tb", " \n \n| | a|\tb");
    }

    #[test]
    fn qwen2_words() {
        check(PreTokenizer::Qwen2, "x 123 «y»", "x| |1|2|3| «|y|»");
    }

    #[test]
    fn words_in_several_steps() {
        check(PreTokenizer::Falcon, "a+b 12345 it's", "a|+|b| |123|45| it|'|s");
        check(PreTokenizer::DeepseekCoder, "x\r\n 12(y) 한국", "x|\r|\n| |1|2|(|y|)| |한국");
        check(PreTokenizer::DeepseekV3, "/usr 価格1234 {a", "/usr| |価格|123|4| {|a");
        check(PreTokenizer::DeepseekLlm, "hé ЖƐ  ", "h|é| ЖƐ|  ");
        check(PreTokenizer::Signs, "a=12345", "a|=|123|45");
        check(PreTokenizer::Gemma4, "a b\n\nc", "a b|\n\n|c");
    }

    #[test]
    fn an_unknown_name_is_refused_with_those_known() {
        assert_eq!(PreTokenizer::try_from("llama-bpe"), Ok(PreTokenizer::Llama3));
        let error = PreTokenizer::try_from("tekken").unwrap_err().to_string();
        assert!(error.contains("tekken") && error.contains("smollm, starcoder"), "{error}");
    }

    /// `tests/vectors/pretokenize.json`: `{"pre", "text", "words"}`, made by running the
    /// families' expressions through an independent engine.
    #[test]
    fn words_match_the_expressions() {
        #[derive(serde::Deserialize)]
        struct Case {
            pre: String,
            text: String,
            words: Vec<String>,
        }
        let cases: Vec<Case> =
            serde_json::from_str(include_str!("../../../tests/vectors/pretokenize.json")).unwrap();
        assert!(cases.len() > 1000);
        for case in cases {
            let pre = PreTokenizer::try_from(case.pre.as_str()).unwrap();
            let words: Vec<&str> = pre.words(&case.text).collect();
            assert_eq!(words, case.words, "{pre:?} {:?}", case.text);
        }
    }

    proptest! {
        #[test]
        fn words_join_to_the_text(text in "\\PC*|[ \\n\\r\\ta1'sß½\u{3000}]*") {
            for (_, pre) in NAMES {
                prop_assert!(pre.words(&text).all(|word| !word.is_empty()));
                prop_assert_eq!(pre.words(&text).collect::<String>(), text.as_str());
            }
        }
    }
}
