//! Unigram, the tokenizer of T5 and XLM-RoBERTa: of all ways to cut a text into pieces, the likeliest.
//!
//! Each piece has a score, the logarithm of how likely it is. The best way to cut a text is found from
//! its front: the best way to each place goes on from the best way to an earlier one (Viterbi). Scores
//! are added in binary64; of equal sums the one found first stays, so equal texts have equal tokens
//! everywhere. A character that no piece covers is unknown, at a score below all others, and unknown
//! characters in a row are one token; where the vocabulary has all bytes, they are spelled in those.
//!
//! Text is first made plain: characters become what a [`Charsmap`] says, and spaces are spelled `▁` in one
//! of several ways ([`Spaces`]). Words begin at `▁` and are cut each by itself, unless a piece spans
//! two of them.

use crate::charsmap::Charsmap;
use crate::pieces::{self, SPACE};
use crate::prefixes::Prefixes;
use crate::vocabulary::TokenKind;
use crate::{TokenizerError, spelled};

/// How far the score of an unknown character lies below the lowest of a piece.
const UNKNOWN_BELOW: f64 = 10.0;

/// What a Unigram vocabulary has beyond tokens.
#[derive(Debug)]
pub struct Unigram {
    /// Score of each token; the index is the id. Those of control tokens are not used.
    pub scores: Vec<f64>,
    /// What characters become before pieces are looked for.
    pub charsmap: Charsmap,
    /// How spaces are spelled.
    pub spaces: Spaces,
}

/// How spaces become `▁`. The numbers stand in canonical tokenizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Spaces {
    /// SentencePiece: spaces in a row are one, none stands at the end, and one stands before a text.
    Joined = 1,
    /// The same without the one before a text.
    JoinedBare = 2,
    /// SentencePiece: every space stays, and one more stands before a text.
    Kept = 3,
    /// Every space stays, and none is added.
    KeptBare = 4,
    /// `tokenizers` with `WhitespaceSplit` and `Metaspace`: words stand between blanks of any kind.
    Words = 5,
    /// `tokenizers` with `Metaspace` behind a `Replace` of spaces in a row by one.
    Single = 6,
    /// The same behind a `Strip` of blanks at the end.
    Trimmed = 7,
    /// `tokenizers` with `Metaspace` alone: every space stays, and a text begins with one.
    Every = 8,
}

impl Spaces {
    /// The one with this code in a canonical tokenizer.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        let all = [
            Self::Joined,
            Self::JoinedBare,
            Self::Kept,
            Self::KeptBare,
            Self::Words,
            Self::Single,
            Self::Trimmed,
            Self::Every,
        ];
        all.into_iter().find(|spaces| *spaces as u8 == code)
    }

    /// Whether it is a way of the `tokenizers` library, which reads maps of characters by graphemes, cuts
    /// at every `▁`, and finds tokens of bytes where they are spelled out.
    fn is_of_library(self) -> bool {
        matches!(self, Self::Words | Self::Single | Self::Trimmed | Self::Every)
    }

    fn joins(self) -> bool {
        matches!(self, Self::Joined | Self::JoinedBare)
    }
}

/// A vocabulary whose pieces can be looked for.
#[derive(Debug)]
pub(crate) struct Lattice {
    parts: Unigram,
    pieces: Prefixes,
    /// Longest piece, in bytes.
    longest: usize,
    unknown: u32,
    unknown_score: f64,
    /// The token of each byte, if there are all.
    bytes: Option<Box<[u32; 256]>>,
    /// Whether words are cut each by itself.
    apart: bool,
}

/// The best way to one place of a text.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    /// The last token on it.
    id: u32,
    /// Bytes that this token covers; 0 where no way was found yet.
    length: u32,
}

impl Best {
    const NONE: Self = Self { score: 0.0, id: 0, length: 0 };

    /// Takes a way if it is better than the one there is.
    fn take(&mut self, score: f64, id: u32, length: usize) {
        if self.length == 0 || score > self.score {
            *self = Self { score, id, length: length as u32 };
        }
    }
}

impl Lattice {
    /// Indexes the pieces among `tokens`.
    ///
    /// # Errors
    /// If there is not one score for each token, a score is no finite number, a piece is too long, or not
    /// exactly one token stands for what has no pieces.
    pub(crate) fn new(
        tokens: &[String],
        kinds: &[TokenKind],
        parts: Unigram,
    ) -> Result<Self, TokenizerError> {
        if parts.scores.len() != tokens.len() {
            let (found, expected) = (parts.scores.len(), tokens.len());
            return Err(TokenizerError::Scores { found, expected });
        }
        let mut unknown = (0u32..).zip(kinds).filter(|(_, kind)| **kind == TokenKind::Unknown);
        let unknown = match (unknown.next(), unknown.next()) {
            (Some((unknown, _)), None) => unknown,
            (None, _) => return Err(refuse("names no unknown token")),
            (Some(_), Some(_)) => return Err(refuse("names several unknown tokens")),
        };
        let of_library = parts.spaces.is_of_library();
        let mut pieces = Vec::new();
        let (mut longest, mut lowest) = (0, f64::INFINITY);
        for (((id, spelling), kind), &score) in (0u32..).zip(tokens).zip(kinds).zip(&parts.scores) {
            if !score.is_finite() {
                return Err(TokenizerError::Score { found: score.to_string(), id });
            }
            if *kind != TokenKind::Normal && !(of_library && *kind == TokenKind::Byte) {
                continue;
            }
            if spelling.len() > spelled::SPELLED_BYTES_MAX {
                let (found, max) = (spelling.len(), spelled::SPELLED_BYTES_MAX);
                return Err(TokenizerError::LongToken { found, max, id });
            }
            pieces.push((spelling.as_str(), id));
            longest = longest.max(spelling.len());
            lowest = lowest.min(score);
        }
        if pieces.is_empty() {
            return Err(refuse("has no pieces"));
        }
        let spans = |piece: &str| piece.char_indices().any(|(at, c)| at > 0 && c == SPACE);
        let begins = pieces.iter().any(|(piece, _)| piece.chars().eq([SPACE]));
        let apart = of_library || begins && !pieces.iter().any(|(piece, _)| spans(piece));
        Ok(Self {
            pieces: Prefixes::new(pieces),
            longest,
            unknown,
            unknown_score: lowest - UNKNOWN_BELOW,
            bytes: bytes(tokens, kinds),
            apart,
            parts,
        })
    }

    pub(crate) fn parts(&self) -> &Unigram {
        &self.parts
    }

    /// Adds the tokens of `text` to `ids`, and stops once there are more than `ids_max`. A text that is
    /// longer than so many of the longest pieces counts as one of more, even if all of it is unknown.
    pub(crate) fn encode(&self, text: &str, ids_max: usize, ids: &mut Vec<u32>) {
        let plain = self.plain(text, ids_max.saturating_mul(self.longest));
        let mut best = Vec::new();
        for word in words(&plain, self.apart) {
            if ids.len() > ids_max {
                return;
            }
            self.encode_word(word, &mut best, ids);
        }
        if plain.len() > ids_max.saturating_mul(self.longest) {
            ids.resize(ids.len().max(ids_max + 1), self.unknown);
        }
    }

    /// `best` is room to work in.
    fn encode_word(&self, word: &str, best: &mut Vec<Best>, ids: &mut Vec<u32>) {
        best.clear();
        best.resize(word.len() + 1, Best::NONE);
        for (start, letter) in word.char_indices() {
            let (so_far, letter) = (best[start].score, letter.len_utf8());
            let mut is_covered = false;
            for (length, id) in self.pieces.of(&word.as_bytes()[start..]) {
                let score = self.parts.scores[id as usize] + so_far;
                best[start + length].take(score, id, length);
                is_covered |= length == letter;
            }
            if !is_covered {
                best[start + letter].take(self.unknown_score + so_far, self.unknown, letter);
            }
        }
        let first = ids.len();
        let mut end = word.len();
        while end > 0 {
            let Best { id, length, .. } = best[end];
            let start = end - length as usize;
            match &self.bytes {
                Some(bytes) if id == self.unknown => {
                    let spelled = word.as_bytes()[start..end].iter().rev();
                    ids.extend(spelled.map(|&byte| bytes[usize::from(byte)]));
                }
                _ if id == self.unknown && ids[first..].last() == Some(&id) => {}
                _ => ids.push(id),
            }
            end = start;
        }
        ids[first..].reverse();
    }

    /// Text as pieces are looked for in it. It ends soon after `bytes_max`.
    fn plain(&self, text: &str, bytes_max: usize) -> String {
        let (charsmap, spaces) = (&self.parts.charsmap, self.parts.spaces);
        match spaces {
            Spaces::Words => between_blanks(charsmap.by_grapheme(text), bytes_max),
            Spaces::Single | Spaces::Trimmed | Spaces::Every => {
                library(charsmap.by_grapheme(text), spaces, bytes_max)
            }
            Spaces::Joined | Spaces::JoinedBare | Spaces::Kept | Spaces::KeptBare => {
                sentence_piece(charsmap.by_longest(text), spaces, bytes_max)
            }
        }
    }
}

/// As `SentencePiece` spells spaces.
fn sentence_piece<'t>(
    parts: impl Iterator<Item = &'t str>,
    spaces: Spaces,
    bytes_max: usize,
) -> String {
    let mut parts = parts.peekable();
    let mut plain = String::new();
    if spaces.joins() {
        while parts.next_if_eq(&" ").is_some() {}
    }
    if parts.peek().is_some() && matches!(spaces, Spaces::Joined | Spaces::Kept) {
        plain.push(SPACE);
    }
    let mut after_space = spaces.joins();
    for letter in parts.flat_map(str::chars) {
        if plain.len() > bytes_max {
            break;
        }
        if letter != ' ' {
            plain.push(letter);
        } else if !after_space {
            plain.push(SPACE);
        }
        after_space = spaces.joins() && letter == ' ';
    }
    if spaces.joins() {
        plain.truncate(plain.trim_end_matches(SPACE).len());
    }
    plain
}

/// As the `tokenizers` library spells words between blanks.
fn between_blanks<'t>(parts: impl Iterator<Item = &'t str>, bytes_max: usize) -> String {
    let mut plain = String::new();
    let mut after_blank = true;
    for letter in parts.flat_map(str::chars) {
        if plain.len() > bytes_max {
            break;
        }
        if letter.is_whitespace() {
            after_blank = true;
            continue;
        }
        if after_blank && letter != SPACE {
            plain.push(SPACE);
        }
        plain.push(letter);
        after_blank = false;
    }
    plain
}

/// As the `tokenizers` library spells the spaces of a whole text.
fn library<'t>(parts: impl Iterator<Item = &'t str>, spaces: Spaces, bytes_max: usize) -> String {
    let (trimmed, every) = (spaces == Spaces::Trimmed, spaces == Spaces::Every);
    let mut plain = String::new();
    // Bytes up to the last letter that is no blank.
    let (mut kept, mut after_space) = (0, false);
    for letter in parts.flat_map(str::chars) {
        // Blanks that may yet go are written too, but never more than one of those that are many.
        if kept > bytes_max {
            break;
        }
        let is_space = letter == ' ';
        if plain.is_empty() && !is_space && letter != SPACE {
            plain.push(SPACE);
        }
        if !is_space || !after_space || every {
            plain.push(if is_space { SPACE } else { letter });
        }
        after_space = is_space;
        if !letter.is_whitespace() || !trimmed {
            kept = plain.len();
        }
    }
    plain.truncate(kept);
    plain
}

/// The words of a plain text; joined they are it again.
fn words(plain: &str, apart: bool) -> impl Iterator<Item = &str> {
    let mut rest = plain;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?.len_utf8();
        let length = match rest[first..].find(SPACE) {
            Some(next) if apart => first + next,
            _ => rest.len(),
        };
        let (word, after) = rest.split_at(length);
        rest = after;
        Some(word)
    })
}

/// The token of each byte, if there are all.
fn bytes(tokens: &[String], kinds: &[TokenKind]) -> Option<Box<[u32; 256]>> {
    let mut found = [None; 256];
    for ((id, spelling), _) in
        (0u32..).zip(tokens).zip(kinds).filter(|(_, kind)| **kind == TokenKind::Byte)
    {
        found[usize::from(pieces::byte(spelling)?)] = Some(id);
    }
    let all: Vec<u32> = found.into_iter().collect::<Option<_>>()?;
    all.into_boxed_slice().try_into().ok()
}

/// Why a vocabulary is not one of Unigram.
pub(crate) fn refuse(problem: &'static str) -> TokenizerError {
    TokenizerError::Unigram { problem }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PreTokenizer, Tokenizer, Vocabulary};
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::sync::LazyLock;

    /// `tests/vectors/unigram.json`: a small vocabulary, and what SentencePiece and the `tokenizers`
    /// library make of texts with it.
    static VECTORS: LazyLock<Value> = LazyLock::new(|| {
        serde_json::from_str(include_str!("../../../tests/vectors/unigram.json")).unwrap()
    });

    /// The tokenizer of the vectors, its file changed.
    fn read_changed(change: impl FnOnce(&mut Value)) -> Result<Tokenizer, TokenizerError> {
        let mut file = VECTORS["tokenizer"].clone();
        change(&mut file);
        Tokenizer::from_json(file.to_string().as_bytes())
    }

    /// Has the file's vocabulary spell unknown characters in bytes.
    fn spell_bytes(file: &mut Value) {
        let tokens = file["model"]["vocab"].as_array_mut().unwrap();
        tokens.extend((0..=255).map(|byte| json!([pieces::spell_byte(byte), 0.0])));
        file["model"]["byte_fallback"] = true.into();
    }

    /// Has the file spell spaces as the library calls it.
    fn spell_spaces(file: &mut Value, way: &str) {
        let map = file["normalizer"].clone();
        let metaspace = file["pre_tokenizer"]["pretokenizers"][1].clone();
        let replace =
            |by: &str| json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": by});
        let strip = json!({"type": "Strip", "strip_left": false, "strip_right": true});
        let steps = match way {
            "single" => vec![map, replace(" ")],
            "trimmed" => vec![map, strip, replace("▁")],
            _ => vec![map],
        };
        file["normalizer"] = json!({"type": "Sequence", "normalizers": steps});
        if way != "words" {
            file["pre_tokenizer"] = metaspace;
        }
    }

    /// The same vocabulary as `SentencePiece` reads it.
    fn of_sentence_piece(read: &Tokenizer, spaces: Spaces) -> Tokenizer {
        let ids = 0..read.len() as u32;
        let of_file = read.unigram().unwrap();
        let pairs = of_file.charsmap.pairs().map(|(key, by)| (key.to_owned(), by.to_owned()));
        let pairs: Vec<_> = pairs.collect();
        let unigram = Unigram {
            scores: of_file.scores.clone(),
            charsmap: Charsmap::new(&pairs).unwrap(),
            spaces,
        };
        let vocabulary = Vocabulary {
            tokens: ids.clone().map(|id| read.spelling(id).unwrap().to_owned()).collect(),
            kinds: ids.map(|id| read.kind(id).unwrap()).collect(),
            merges: Vec::new(),
            pre: PreTokenizer::Unigram,
            bos: None,
            eos: Vec::new(),
            add_bos: false,
        };
        Tokenizer::with_scores(vocabulary, unigram).unwrap()
    }

    fn tokenizer(way: &str, in_bytes: bool) -> Tokenizer {
        let read = |way: &str| {
            read_changed(|file| {
                spell_spaces(file, way);
                if in_bytes {
                    spell_bytes(file);
                }
            })
            .unwrap()
        };
        let tokenizer = match way {
            "joined" => of_sentence_piece(&read("words"), Spaces::Joined),
            "joined_bare" => of_sentence_piece(&read("words"), Spaces::JoinedBare),
            "kept" => of_sentence_piece(&read("words"), Spaces::Kept),
            "kept_bare" => of_sentence_piece(&read("words"), Spaces::KeptBare),
            way => read(way),
        };
        // Both ways to read give one vocabulary.
        let bytes = tokenizer.canonical();
        let again = Tokenizer::from_canonical(&bytes).unwrap();
        assert_eq!(again.canonical(), bytes);
        again
    }

    #[test]
    fn ids_match_the_vectors() {
        let ways =
            ["joined", "joined_bare", "kept", "kept_bare", "words", "single", "trimmed", "every"];
        let all = ways.into_iter().flat_map(|way| [(way, false), (way, true)]);
        let mut compared = 0;
        for (way, in_bytes) in all {
            let tokenizer = tokenizer(way, in_bytes);
            let is_one = |case: &&Value| case["spaces"] == way && case["bytes"] == in_bytes;
            for case in VECTORS["cases"].as_array().unwrap().iter().filter(is_one) {
                let text = case["text"].as_str().unwrap();
                let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
                assert_eq!(tokenizer.encode_plain(text), ids, "{way} {in_bytes} {text:?}");
                compared += 1;
            }
        }
        assert!(compared > 500 && compared == VECTORS["cases"].as_array().unwrap().len());
    }

    /// Pieces with scores, `?` for the unknown; encodes, and spells the tokens.
    fn cut(pieces: &[(&str, f64)], spaces: Spaces, text: &str) -> String {
        let known = pieces.iter().map(|(piece, score)| (*piece, TokenKind::Normal, *score));
        let all = [("?", TokenKind::Unknown, 0.0)].into_iter().chain(known);
        let (mut tokens, mut kinds, mut scores) = (Vec::new(), Vec::new(), Vec::new());
        for (piece, kind, score) in all {
            tokens.push(piece.to_owned());
            kinds.push(kind);
            scores.push(score);
        }
        let unigram = Unigram { scores, charsmap: Charsmap::default(), spaces };
        let lattice = Lattice::new(&tokens, &kinds, unigram).unwrap();
        let mut ids = Vec::new();
        lattice.encode(text, usize::MAX, &mut ids);
        let spelled: Vec<&str> = ids.iter().map(|&id| tokens[id as usize].as_str()).collect();
        spelled.join(" ")
    }

    #[test]
    fn the_likeliest_way_is_found() {
        let pieces =
            [("▁", -3.0), ("a", -2.0), ("b", -2.0), ("ab", -3.5), ("▁a", -4.5), ("bb", -4.0)];
        let check = |text: &str, expected: &str| {
            assert_eq!(cut(&pieces, Spaces::Joined, text), expected, "{text}");
        };
        check("ab", "▁ ab");
        check("a b", "▁a ▁ b");
        // Of two equal ways the one found first stays: that of the earlier beginning.
        check("bb", "▁ bb");
        check("xyaéb", "▁ ? a ? b");
        check("", "");
    }

    #[test]
    fn a_piece_may_span_words_where_spaces_are_sentence_pieces() {
        let pieces = [("▁", -3.0), ("a", -2.0), ("▁▁", -3.5), ("a▁a", -1.0)];
        assert_eq!(cut(&pieces, Spaces::KeptBare, "a a  a"), "a▁a ▁▁ a");
        assert_eq!(cut(&pieces, Spaces::Every, "a a  a"), "▁ a ▁ a ▁ ▁ a");
    }

    #[test]
    fn a_text_stands_between_its_ends() {
        let tokenizer = read_changed(|file| {
            file["post_processor"] = json!({"type": "TemplateProcessing", "pair": [],
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                           {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]},
                                   "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}});
        });
        let tokenizer = tokenizer.unwrap();
        let whole = tokenizer.enclose("the dog", 99).unwrap();
        assert_eq!((whole[0], whole.last()), (1, Some(&2)));
        assert_eq!(tokenizer.decode(&whole), " the dog");
        assert_eq!(tokenizer.enclose("the dog", whole.len()), Some(whole.clone()));
        assert_eq!(tokenizer.enclose("the dog", whole.len() - 1), None);
        assert_eq!(tokenizer.enclose(&"the dog ".repeat(1 << 16), 99), None);
        // However long: blanks are nothing, and all that is unknown would be one token.
        assert_eq!(tokenizer.enclose(&" ".repeat(1 << 20), 2), Some(vec![1, 2]));
        assert_eq!(tokenizer.enclose(&"\u{4dff}".repeat(1 << 20), 99), None);
        // Spelled control tokens are text.
        assert!(tokenizer.encode_plain("</s>").iter().all(|id| *id != 2));
        assert!(tokenizer.spells_control("</s>") && tokenizer.encode("</s>") == [2]);
    }

    #[test]
    fn other_files_are_refused() {
        let refused = |change: fn(&mut Value), expected: &str| {
            let error = match read_changed(change).unwrap_err() {
                TokenizerError::Unsupported { part, .. } => part.to_owned(),
                other => other.to_string(),
            };
            assert_eq!(error, expected);
        };
        refused(|file| file["normalizer"] = json!({"type": "NFKC"}), "normalizer");
        refused(|file| file["normalizer"]["precompiled_charsmap"] = "AA=".into(), "normalizer");
        refused(
            |file| file["normalizer"]["precompiled_charsmap"] = "AAA=".into(),
            "the map of characters is cut short",
        );
        refused(|file| file["pre_tokenizer"] = Value::Null, "pre_tokenizer");
        refused(
            |file| file["pre_tokenizer"]["pretokenizers"][1]["prepend_scheme"] = "first".into(),
            "pre_tokenizer",
        );
        refused(
            |file| file["pre_tokenizer"]["pretokenizers"][1]["split"] = false.into(),
            "pre_tokenizer",
        );
        refused(|file| file["decoder"] = json!({"type": "ByteLevel"}), "decoder");
        refused(|file| file["post_processor"] = json!({"type": "ByteLevel"}), "post_processor");
        refused(|file| file["added_tokens"][0]["special"] = false.into(), "added token");
        refused(
            |file| file["added_tokens"][0]["content"] = "<z>".into(),
            "second spelling of a token",
        );
        refused(|file| file["added_tokens"][0]["id"] = 9999.into(), "no token has the id 124");
        refused(|file| file["model"]["byte_fallback"] = true.into(), "byte_fallback");
        refused(
            |file| file["model"]["unk_id"] = Value::Null,
            "a Unigram vocabulary names no unknown token",
        );
        refused(|file| file["model"]["vocab"][1][1] = json!(-1e9), "score of a control token");
        refused(
            |file| file["model"]["vocab"][9][1] = "x".into(),
            "not a tokenizer.json: the score \"\\\"x\\\"\" is no number",
        );
    }

    #[test]
    fn unsound_vocabularies_are_refused() {
        let (tokens, kinds) = (vec!["?".to_owned(), "a".to_owned()], [2, 1]);
        let kinds = kinds.map(|kind| TokenKind::try_from(kind).unwrap()).to_vec();
        let make = |scores: Vec<f64>, merges: Vec<String>, pre| {
            let (tokens, kinds, eos) = (tokens.clone(), kinds.clone(), Vec::new());
            let vocabulary =
                Vocabulary { tokens, kinds, merges, pre, bos: None, eos, add_bos: false };
            let unigram = Unigram { scores, charsmap: Charsmap::default(), spaces: Spaces::Joined };
            Tokenizer::with_scores(vocabulary, unigram).map(drop).map_err(|error| error.to_string())
        };
        let unigram = PreTokenizer::Unigram;
        assert_eq!(make(vec![0.0, -1.0], vec![], unigram), Ok(()));
        let refused = |found: Result<(), String>, expected: &str| {
            assert_eq!(found.unwrap_err(), expected);
        };
        refused(make(vec![0.0], vec![], unigram), "vocabulary has 1 scores for 2 tokens");
        refused(
            make(vec![0.0, f64::NAN], vec![], unigram),
            "the score NaN is no finite number: token 1",
        );
        let merges = vec!["a a".to_owned()];
        refused(make(vec![0.0; 2], merges, unigram), "a Unigram vocabulary has merges");
        refused(
            make(vec![0.0; 2], vec![], PreTokenizer::Gpt2),
            "a Unigram vocabulary has another pre-tokenizer",
        );
        let eos = Vec::new();
        let (merges, pre, bos, add_bos) = (Vec::new(), unigram, None, false);
        let alone = Vocabulary { tokens, kinds, merges, pre, bos, eos, add_bos };
        let error = Tokenizer::new(alone).unwrap_err().to_string();
        assert_eq!(error, "a Unigram vocabulary has no scores");
    }

    /// The best sum over all ways to cut a word, by trying them all.
    fn plainly(pieces: &[(&str, f64)], word: &str) -> f64 {
        let mut best = if word.is_empty() { 0.0 } else { f64::NEG_INFINITY };
        for (piece, score) in pieces {
            if let Some(rest) = word.strip_prefix(piece) {
                best = best.max(score + plainly(pieces, rest));
            }
        }
        best
    }

    static SOME: LazyLock<[Tokenizer; 4]> =
        LazyLock::new(|| ["joined", "words", "trimmed", "every"].map(|way| tokenizer(way, false)));

    proptest! {
        #[test]
        fn no_way_is_likelier(
            scores in prop::collection::vec(-9i32..0, 6),
            word in "[abc]{0,9}",
        ) {
            let pieces = ["a", "b", "c", "ab", "bc", "abc"];
            let pieces: Vec<(&str, f64)> =
                pieces.into_iter().zip(scores.into_iter().map(f64::from)).collect();
            let found = cut(&pieces, Spaces::KeptBare, &word);
            let score = |piece: &str| pieces.iter().find(|(known, _)| *known == piece).unwrap().1;
            let sum: f64 = found.split_whitespace().map(score).sum();
            prop_assert_eq!(found.replace(' ', ""), word.clone());
            prop_assert_eq!(sum, plainly(&pieces, &word));
        }

        /// Whatever a text holds, it makes no control token.
        #[test]
        fn any_text_has_tokens(text in "\\PC*|(</?s>|the| |é|中|▁|\u{301}|\t)*", way in 0usize..4) {
            let tokenizer = &SOME[way];
            let ids = tokenizer.encode_plain(&text);
            prop_assert!(ids.iter().all(|&id| tokenizer.kind(id) != Some(TokenKind::Control)));
            prop_assert_eq!(tokenizer.enclose(&text, usize::MAX), Some(ids));
        }
    }
}
