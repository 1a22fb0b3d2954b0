//! Byte-level BPE: the tokenizer of GPT-2, Llama 3, Qwen and most open models since. Vocabularies of
//! SentencePiece are brought to the same form: see [`crate::merges_of_scores`]. Those of BERT have no
//! merges, those of T5 scores: see [`PreTokenizer::WordPiece`], [`PreTokenizer::Unigram`].
//!
//! Text is cut into words ([`PreTokenizer`]), each word into one token per byte, and those
//! are merged in the order the vocabulary states. Any text has an encoding, and the tokens
//! of a text joined give back its bytes (after Unicode form NFC where the model asks for it).

use std::borrow::Cow;
use std::collections::HashMap;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use crate::bpe::{Merge, Merges};
use crate::pretokenize::PreTokenizer;
use crate::spelled::{Part, SPELLED_BYTES_MAX, Spelled};
use crate::unigram::{self, Lattice, Unigram};
use crate::vocabulary::{
    SPELLING_BYTES_MAX, TokenKind, Vocabulary, check_sizes, index, read_merges,
};
use crate::wordpiece::{self, WordPiece};
use crate::{TokenizerError, alphabet, canonical, json, pieces};

/// Cuts text into token ids and joins ids to text, for one model.
#[derive(Debug)]
pub struct Tokenizer {
    tokens: Vec<String>,
    kinds: Vec<TokenKind>,
    merges: Merges,
    pre: PreTokenizer,
    /// Pieces of words, where the vocabulary is of WordPiece.
    word_piece: Option<WordPiece>,
    /// Pieces with scores, where the vocabulary is of Unigram.
    lattice: Option<Lattice>,
    bos: Option<u32>,
    /// Ascending, each once.
    eos: Vec<u32>,
    add_bos: bool,

    ids: HashMap<String, u32>,
    /// What all tokens add to text, one after the other; token `id` ends at `ends[id]`.
    text: Vec<u8>,
    ends: Vec<usize>,
    /// The token of each byte; `None` where the vocabulary has none.
    letters: [Option<u32>; 256],
    /// Control and user tokens, and user tokens alone.
    spelled: Spelled,
    visible: Spelled,
}

impl Tokenizer {
    /// Checks a vocabulary and indexes it.
    ///
    /// # Errors
    /// Every [`TokenizerError`] but those of the formats: sizes out of bounds, a token twice,
    /// a merge of or into tokens that do not exist, ids outside the vocabulary.
    pub fn new(vocabulary: Vocabulary) -> Result<Self, TokenizerError> {
        Self::build(vocabulary, None)
    }

    /// The same of a vocabulary of [`PreTokenizer::Unigram`], which has no merges.
    ///
    /// # Errors
    /// Those of [`Self::new`], [`TokenizerError::Scores`] and [`TokenizerError::Score`] for scores that are
    /// too few or no numbers, [`TokenizerError::Unigram`] for anything else that has no place here.
    pub fn with_scores(vocabulary: Vocabulary, unigram: Unigram) -> Result<Self, TokenizerError> {
        Self::build(vocabulary, Some(unigram))
    }

    fn build(vocabulary: Vocabulary, unigram: Option<Unigram>) -> Result<Self, TokenizerError> {
        let Vocabulary { tokens, kinds, merges, pre, bos, eos, add_bos } = vocabulary;
        check_sizes(&tokens, &kinds, &merges)?;
        let ids = index(&tokens)?;
        let pieced = pre.is_sentence_piece();
        let word_piece = word_piece(pre, &tokens, &kinds, &merges)?;
        let lattice = match (pre.is_unigram(), unigram) {
            (true, Some(_)) if !merges.is_empty() => return Err(unigram::refuse("has merges")),
            (true, Some(unigram)) => Some(Lattice::new(&tokens, &kinds, unigram)?),
            (false, None) => None,
            (true, None) => return Err(unigram::refuse("has no scores")),
            (false, Some(_)) => return Err(unigram::refuse("has another pre-tokenizer")),
        };
        let merges = Merges::new(read_merges(&merges, &ids, &kinds)?, pre.is_scored());

        let mut text = Vec::new();
        let mut ends = Vec::with_capacity(tokens.len());
        for (spelling, &kind) in tokens.iter().zip(&kinds) {
            text.extend(match pre {
                _ if pieced => piece_meaning(spelling, kind),
                _ if pre.is_word_piece() => wordpiece::meaning(spelling, kind),
                _ => meaning(spelling, kind),
            });
            ends.push(text.len());
        }
        let letters = std::array::from_fn(|byte| {
            let byte = byte as u8;
            let letter =
                if pieced { pieces::spell_byte(byte) } else { alphabet::letter(byte).to_string() };
            let id = *ids.get(letter.as_str())?;
            is_word(kinds[id as usize]).then_some(id)
        });
        let spelled = spelled_tokens(&tokens, &kinds, |kind| {
            matches!(kind, TokenKind::Control | TokenKind::User | TokenKind::Unknown)
        })?;
        let visible = spelled_tokens(&tokens, &kinds, |kind| kind == TokenKind::User)?;

        let tokenizer = Self {
            tokens,
            kinds,
            merges,
            pre,
            word_piece,
            lattice,
            bos: None,
            eos: Vec::new(),
            add_bos: false,
            ids,
            text,
            ends,
            letters,
            spelled,
            visible,
        };
        tokenizer.with_bos(bos, add_bos)?.with_eos(eos)
    }

    /// Reads a `tokenizer.json` of the `tokenizers` library.
    ///
    /// That file does not say which token ends an answer: see [`Self::with_eos`]. A token
    /// that its post-processor puts first becomes `bos`; of BERT, the one it puts last becomes `eos`.
    ///
    /// # Errors
    /// [`TokenizerError::Json`] if it is not such a file, [`TokenizerError::Unsupported`] if
    /// it asks for anything but byte-level BPE with a known [`PreTokenizer`] or BERT's WordPiece, and those of
    /// [`Self::new`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, TokenizerError> {
        json::read(bytes)
    }

    /// This tokenizer with other tokens that end an answer.
    ///
    /// # Errors
    /// [`TokenizerError::IdOutOfRange`] for an id outside the vocabulary.
    pub fn with_eos(mut self, mut eos: Vec<u32>) -> Result<Self, TokenizerError> {
        eos.sort_unstable();
        eos.dedup();
        for &id in &eos {
            self.check_id("eos", id)?;
        }
        self.eos = eos;
        Ok(self)
    }

    /// This tokenizer with another token that begins a text, and whether prompts need it.
    ///
    /// # Errors
    /// [`TokenizerError::IdOutOfRange`] for an id outside the vocabulary,
    /// [`TokenizerError::NoBos`] if prompts are to begin with a token that there is not.
    pub fn with_bos(mut self, bos: Option<u32>, add_bos: bool) -> Result<Self, TokenizerError> {
        match bos {
            Some(id) => self.check_id("bos", id)?,
            None if add_bos => return Err(TokenizerError::NoBos),
            None => {}
        }
        self.bos = bos;
        self.add_bos = add_bos;
        Ok(self)
    }

    fn check_id(&self, role: &'static str, id: u32) -> Result<(), TokenizerError> {
        if id as usize >= self.len() {
            return Err(TokenizerError::IdOutOfRange { role, found: id, tokens: self.len() });
        }
        Ok(())
    }

    /// The one byte string that stands for this vocabulary.
    ///
    /// Equal vocabularies give equal bytes, however they were read, so a hash of them can
    /// stand in a manifest. All integers are big-endian:
    ///
    /// ```text
    /// "tokenizer", 1                      ten bytes: format and version
    /// pre: u8                             1 gpt2, 2 smollm, 3 llama3, 4 qwen2,
    ///                                     5 sentencepiece, 6 without the first space,
    ///                                     7 wordpiece, 8 with case kept, 9 qwen35,
    ///                                     10 falcon, 11 deepseek coder, 12 llm, 13 v3,
    ///                                     14 default of GGUF, 15 gemma 4, 16 unigram
    /// add_bos: u8                         0 or 1
    /// bos: u32                            2^32 - 1 for none
    /// count: u32, then eos: u32 each      ascending, each once
    /// count: u32, then tokens, in the order of their ids:
    ///     kind: u8                        1 normal … 6 byte, as in GGUF
    ///     length: u32, spelling           UTF-8
    /// count: u32, then merges, the earliest first:
    ///     left: u32, right: u32           ids
    /// of unigram alone:
    ///     spaces: u8                      see `Spaces`
    ///     one score for each token: u64   bits of binary64
    ///     count: u32, then the map of characters, ascending by key:
    ///         length: u32, key; length: u32, replacement
    /// ```
    pub fn canonical(&self) -> Vec<u8> {
        canonical::write(self)
    }

    /// Reads what [`Self::canonical`] wrote.
    ///
    /// # Errors
    /// [`TokenizerError::Canonical`] if `bytes` are anything but such an encoding, and those
    /// of [`Self::new`].
    pub fn from_canonical(bytes: &[u8]) -> Result<Self, TokenizerError> {
        canonical::read(bytes)
    }

    /// The tokens of a rendered template: control tokens spelled in `text` become their ids.
    ///
    /// Of spelled tokens that begin at one place, the longest wins. No token is added: a
    /// template writes its own `bos`. A byte without a token in the vocabulary is left out, as
    /// other implementations do; vocabularies in use have all that text can contain.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.encode_parts(&self.spelled, text)
    }

    /// The tokens of text from outside, in which a spelled control token is only text.
    ///
    /// The result never holds a control token. User tokens are words of the language and are
    /// found here too.
    pub fn encode_plain(&self, text: &str) -> Vec<u32> {
        self.encode_parts(&self.visible, text)
    }

    /// A whole text as an encoder takes it: its tokens as [`Self::encode_plain`] gives them, between the
    /// one that begins a text and the one that ends it. `None` if those are more than `tokens_max`.
    ///
    /// With WordPiece and Unigram, words behind the first `tokens_max` tokens cost nothing but their
    /// reading. With Unigram, a text longer than so many of the longest tokens counts as more of them.
    pub fn enclose(&self, text: &str, tokens_max: usize) -> Option<Vec<u32>> {
        let mut ids: Vec<u32> = self.bos.filter(|_| self.add_bos).into_iter().collect();
        match (&self.word_piece, &self.lattice) {
            (Some(word_piece), _) => word_piece.encode(text, tokens_max, &mut ids),
            (_, Some(lattice)) => lattice.encode(text, tokens_max, &mut ids),
            _ => ids.extend(self.encode_plain(text)),
        }
        ids.extend(self.eos.first());
        (ids.len() <= tokens_max).then_some(ids)
    }

    /// Whether `text` spells a token that [`Self::encode`] finds in it and [`Self::encode_plain`]
    /// does not: put into a template as it is, such text would say more than it should.
    pub fn spells_control(&self, text: &str) -> bool {
        self.spelled.parts(text).any(|part| match part {
            Part::Token(id) => self.kind(id) != Some(TokenKind::User),
            Part::Text(_) => false,
        })
    }

    fn encode_parts(&self, spelled: &Spelled, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        for part in spelled.parts(text) {
            match part {
                Part::Token(id) => ids.push(id),
                Part::Text(text) => self.encode_text(text, &mut ids),
            }
        }
        ids
    }

    fn encode_text(&self, text: &str, ids: &mut Vec<u32>) {
        if let Some(word_piece) = &self.word_piece {
            return word_piece.encode(text, usize::MAX, ids);
        }
        if let Some(lattice) = &self.lattice {
            return lattice.encode(text, usize::MAX, ids);
        }
        if self.pre.is_sentence_piece() {
            return self.pre.words(text).for_each(|word| self.encode_pieces(word, ids));
        }
        let text = match self.pre {
            PreTokenizer::Qwen2 => compose(text),
            _ => text.into(),
        };
        let mut bytes = Vec::new();
        for word in self.pre.words(&text) {
            if let Some(id) = self.whole_word(word) {
                ids.push(id);
                continue;
            }
            bytes.clear();
            bytes.extend(word.bytes().filter_map(|byte| self.letters[usize::from(byte)]));
            self.merges.apply(&bytes, ids);
        }
    }

    /// One token per character, or its bytes where it has none, merged all together.
    fn encode_pieces(&self, text: &str, ids: &mut Vec<u32>) {
        if self.pre == PreTokenizer::Gemma4
            && text.starts_with('\n')
            && let Some(id) = self.id_of(text)
        {
            return ids.push(id);
        }
        let first = (self.pre == PreTokenizer::SentencePiece).then_some(pieces::SPACE);
        let mut characters = Vec::with_capacity(text.len());
        let mut buffer = [0; 4];
        let spelled = text.chars().map(|letter| if letter == ' ' { pieces::SPACE } else { letter });
        for letter in first.into_iter().chain(spelled) {
            let letter: &str = letter.encode_utf8(&mut buffer);
            match self.id_of(letter).filter(|&id| is_word(self.kinds[id as usize])) {
                Some(id) => characters.push(id),
                None => characters
                    .extend(letter.bytes().filter_map(|byte| self.letters[usize::from(byte)])),
            }
        }
        self.merges.apply(&characters, ids);
    }

    /// The token of a whole word, for models that look there before merging.
    fn whole_word(&self, word: &str) -> Option<u32> {
        if self.pre != PreTokenizer::Llama3 || word.len() > SPELLING_BYTES_MAX {
            return None;
        }
        let id = self.id_of(&alphabet::spell(word.as_bytes()))?;
        is_word(self.kinds[id as usize]).then_some(id)
    }

    /// What a token adds to text; empty for control tokens and for ids there are not.
    ///
    /// A character of several bytes may be spread over tokens: see [`Stream`](crate::Stream).
    pub fn bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else { return &[] };
        let start = id.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..end]
    }

    /// The text of `ids`: their bytes joined, and read as UTF-8.
    ///
    /// What is not UTF-8 becomes U+FFFD, one for each longest piece that could have begun a
    /// character, as in [`String::from_utf8_lossy`].
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.bytes(id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Tokens in the vocabulary; ids are below this.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether the vocabulary is empty.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The token a text begins with, if the model has one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The tokens that end an answer, ascending.
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// Whether the model expects [`Self::bos`] before a prompt that no template wrote.
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// How text is cut into words.
    pub fn pre(&self) -> PreTokenizer {
        self.pre
    }

    /// A token as the vocabulary spells it.
    pub fn spelling(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize).map(String::as_str)
    }

    /// What a token is for.
    pub fn kind(&self, id: u32) -> Option<TokenKind> {
        self.kinds.get(id as usize).copied()
    }

    /// The token that the vocabulary spells so.
    pub fn id_of(&self, spelling: &str) -> Option<u32> {
        self.ids.get(spelling).copied()
    }

    /// The merge list, earliest first.
    pub(crate) fn merges(&self) -> &[Merge] {
        self.merges.list()
    }

    /// What a vocabulary of Unigram has beyond tokens.
    pub(crate) fn unigram(&self) -> Option<&Unigram> {
        self.lattice.as_ref().map(Lattice::parts)
    }

    /// The first byte that can occur in UTF-8 and has no token.
    pub(crate) fn missing_byte(&self) -> Option<u8> {
        // UTF-8 never holds C0, C1, or F5 and above.
        (0..0xc0).chain(0xc2..0xf5).find(|&byte| self.letters[usize::from(byte)].is_none())
    }
}

/// The pieces of a vocabulary of WordPiece, if it is one.
fn word_piece(
    pre: PreTokenizer,
    tokens: &[String],
    kinds: &[TokenKind],
    merges: &[String],
) -> Result<Option<WordPiece>, TokenizerError> {
    if !pre.is_word_piece() {
        return Ok(None);
    }
    if !merges.is_empty() {
        return Err(wordpiece::refuse("has merges"));
    }
    WordPiece::new(tokens, kinds, pre == PreTokenizer::WordPiece).map(Some)
}

/// Whether words are made of tokens of this kind.
fn is_word(kind: TokenKind) -> bool {
    matches!(kind, TokenKind::Normal | TokenKind::Byte)
}

/// What a token adds to text.
fn meaning(spelling: &str, kind: TokenKind) -> Vec<u8> {
    match kind {
        TokenKind::Normal | TokenKind::Byte | TokenKind::Unused => alphabet::read(spelling),
        TokenKind::User => spelling.as_bytes().to_vec(),
        TokenKind::Control | TokenKind::Unknown => Vec::new(),
    }
}

/// What a token of SentencePiece adds to text.
fn piece_meaning(spelling: &str, kind: TokenKind) -> Vec<u8> {
    match (kind, pieces::byte(spelling)) {
        (TokenKind::Byte, Some(byte)) => vec![byte],
        (TokenKind::Control | TokenKind::Unknown, _) => Vec::new(),
        _ => spelling.replace(pieces::SPACE, " ").into_bytes(),
    }
}

fn spelled_tokens(
    tokens: &[String],
    kinds: &[TokenKind],
    wanted: impl Fn(TokenKind) -> bool,
) -> Result<Spelled, TokenizerError> {
    let tokens = (0u32..).zip(tokens).zip(kinds);
    let chosen: Vec<_> =
        tokens.filter(|(_, kind)| wanted(**kind)).map(|(token, _)| token).collect();
    for &(id, spelling) in &chosen {
        if spelling.len() > SPELLED_BYTES_MAX {
            let (found, max) = (spelling.len(), SPELLED_BYTES_MAX);
            return Err(TokenizerError::LongToken { found, max, id });
        }
    }
    Ok(Spelled::new(chosen.into_iter().map(|(id, spelling)| (spelling.as_str(), id))))
}

/// Brings text to Unicode form NFC.
fn compose(text: &str) -> Cow<'_, str> {
    match is_nfc_quick(text.chars()) {
        IsNormalized::Yes => text.into(),
        IsNormalized::No | IsNormalized::Maybe => text.nfc().collect::<String>().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    /// The tokenizer of the small model that ships.
    static NANO: LazyLock<Tokenizer> = LazyLock::new(|| {
        let file = include_bytes!("../../../assets/nano/tokenizer.json");
        Tokenizer::from_json(file).unwrap().with_eos(vec![2]).unwrap()
    });

    /// A vocabulary of all bytes and, after them, of `more`; without merges.
    fn bytes_and(pre: PreTokenizer, more: &[(&str, TokenKind)]) -> Vocabulary {
        let letters = (0..=255).map(|byte| (alphabet::letter(byte).to_string(), TokenKind::Normal));
        let more = more.iter().map(|&(spelling, kind)| (spelling.to_owned(), kind));
        let (tokens, kinds) = letters.chain(more).unzip();
        let (merges, bos, eos) = (Vec::new(), None, Vec::new());
        Vocabulary { tokens, kinds, merges, pre, bos, eos, add_bos: false }
    }

    /// `tests/vectors/tokenizer.json`: `{"text", "ids"}`, made by the `tokenizers` library.
    #[test]
    fn ids_match_the_vectors() {
        #[derive(serde::Deserialize)]
        struct Case {
            text: String,
            ids: Vec<u32>,
        }
        let cases: Vec<Case> =
            serde_json::from_str(include_str!("../../../tests/vectors/tokenizer.json")).unwrap();
        assert!(cases.len() > 100);
        for case in cases {
            assert_eq!(NANO.encode(&case.text), case.ids, "{:?}", case.text);
        }
    }

    #[test]
    fn control_tokens_are_made_by_encode_alone() {
        assert_eq!(NANO.encode("<|user|>a<eos>").len(), 3);
        assert_eq!(NANO.encode("<|user|>a<eos>")[0], NANO.id_of("<|user|>").unwrap());
        let plain = NANO.encode_plain("<|user|>a<eos>");
        assert!(plain.iter().all(|&id| NANO.kind(id) == Some(TokenKind::Normal)));
        assert_eq!(NANO.decode(&plain), "<|user|>a<eos>");
        assert_eq!(NANO.decode(&NANO.encode("<|user|>a<eos>")), "a");
    }

    #[test]
    fn user_tokens_are_found_everywhere_and_visible() {
        let more = [("<tool>", TokenKind::User), ("<unk>", TokenKind::Unknown)];
        let tokenizer = Tokenizer::new(bytes_and(PreTokenizer::Gpt2, &more)).unwrap();
        assert_eq!(tokenizer.encode("<tool><unk>"), [256, 257]);
        assert_eq!(tokenizer.encode_plain("<tool>"), [256]);
        assert_eq!(tokenizer.decode(&[256, 257]), "<tool>");
    }

    #[test]
    fn ids_there_are_not_have_no_bytes() {
        assert_eq!(NANO.bytes(u32::MAX), b"");
        assert_eq!(NANO.bytes(NANO.len() as u32), b"");
        assert_eq!(NANO.bytes(0), b"");
        assert_eq!(NANO.spelling(u32::MAX), None);
    }

    #[test]
    fn a_llama3_word_that_is_a_token_needs_no_merges() {
        let more = [("Ġhello", TokenKind::Normal), ("world", TokenKind::Control)];
        let llama3 = Tokenizer::new(bytes_and(PreTokenizer::Llama3, &more)).unwrap();
        assert_eq!(llama3.encode_plain(" hello"), [256]);
        assert_eq!(llama3.encode_plain("world").len(), 5);
        let qwen2 = Tokenizer::new(bytes_and(PreTokenizer::Qwen2, &more)).unwrap();
        assert_eq!(qwen2.encode_plain(" hello").len(), 6);
    }

    #[test]
    fn qwen2_composes_text() {
        let tokenizer = Tokenizer::new(bytes_and(PreTokenizer::Qwen2, &[])).unwrap();
        assert_eq!(tokenizer.decode(&tokenizer.encode("e\u{301}")), "é");
    }

    #[test]
    fn gemma4_merges_pieces_in_order_and_keeps_newlines_whole() {
        let bytes = (0..=255).map(|byte| (pieces::spell_byte(byte), TokenKind::Byte));
        let words = ["▁", "a", "b", "ab", "▁a", "\n", "\n\n"];
        let words = words.map(|word| (word.to_owned(), TokenKind::Normal));
        let (tokens, kinds) = bytes.chain(words).unzip();
        let merges = vec!["▁ a".to_owned(), "a b".to_owned()];
        let (pre, bos, eos, add_bos) = (PreTokenizer::Gemma4, None, Vec::new(), false);
        let vocabulary = Vocabulary { tokens, kinds, merges, pre, bos, eos, add_bos };
        let tokenizer = Tokenizer::new(vocabulary).unwrap();
        let spelled = |text: &str| -> Vec<String> {
            let ids = tokenizer.encode_plain(text);
            ids.into_iter().map(|id| tokenizer.spelling(id).unwrap().to_owned()).collect()
        };
        assert_eq!(spelled(" ab\n\nab"), ["▁a", "b", "\n\n", "ab"]);
        assert_eq!(spelled("\n\n\né"), ["\n", "\n", "\n", "<0xC3>", "<0xA9>"]);
        assert_eq!(tokenizer.decode(&tokenizer.encode_plain(" a\né")), " a\né");
        let canonical = tokenizer.canonical();
        assert_eq!(Tokenizer::from_canonical(&canonical).unwrap().canonical(), canonical);
    }

    #[test]
    fn both_ways_to_read_give_one_vocabulary() {
        let tokenizer = NANO.canonical();
        assert_eq!(Tokenizer::from_canonical(&tokenizer).unwrap().canonical(), tokenizer);
    }

    /// Every level of merging touches the whole word: `a a`, then `aa aa`, and so on.
    #[test]
    fn a_long_word_takes_no_longer_than_long_text() {
        let levels: Vec<String> = (0..12).map(|level| "a".repeat(1 << level)).collect();
        let mut vocabulary = bytes_and(PreTokenizer::Gpt2, &[]);
        vocabulary.tokens.extend(levels.iter().skip(1).cloned());
        vocabulary.kinds.resize(vocabulary.tokens.len(), TokenKind::Normal);
        vocabulary.merges = levels.iter().take(11).map(|half| format!("{half} {half}")).collect();
        let tokenizer = Tokenizer::new(vocabulary).unwrap();
        let longest = tokenizer.id_of(&levels[11]).unwrap();
        assert_eq!(tokenizer.encode(&"a".repeat(100 << 11)), [longest; 100]);
    }

    /// Changes a sound vocabulary, and reads what is said about it.
    fn refused(change: impl FnOnce(&mut Vocabulary), expected: &str) {
        let more = [("ab", TokenKind::Normal), ("<e>", TokenKind::Control)];
        let mut vocabulary = bytes_and(PreTokenizer::Gpt2, &more);
        vocabulary.merges.push("a b".to_owned());
        change(&mut vocabulary);
        assert_eq!(Tokenizer::new(vocabulary).unwrap_err().to_string(), expected);
    }

    #[test]
    fn unsound_vocabularies_are_refused() {
        refused(|v| v.kinds.truncate(3), "vocabulary has 3 token kinds for 258 tokens");
        refused(|v| v.tokens[257] = "ab".into(), "tokens 256 and 257 are both spelled \"ab\"");
        refused(
            |v| v.merges.push("a z!".into()),
            "merge 1 needs a token that the vocabulary lacks: \"z!\"",
        );
        refused(
            |v| v.merges.push("b a".into()),
            "merge 1 needs a token that the vocabulary lacks: \"ba\"",
        );
        refused(|v| v.merges.push("ab".into()), "merge 1 is not a pair: \"ab\"");
        refused(|v| v.merges.push("a b a".into()), "merge 1 is not a pair: \"a b a\"");
        refused(|v| v.merges.push("a b".into()), "merges 0 and 1 join the same pair");
        refused(|v| v.kinds[256] = TokenKind::Control, "merge 0 makes a control token: 256");
        refused(|v| v.bos = Some(258), "bos is token 258, but there are 258 tokens");
        refused(|v| v.eos = vec![0, u32::MAX], "eos is token 4294967295, but there are 258 tokens");
        refused(
            |v| v.add_bos = true,
            "prompts are to begin with bos, but the vocabulary names none",
        );
        refused(
            |v| v.tokens[257] = "<".repeat(257),
            "token is spelled with 257 bytes, at most 256 are read: token 257",
        );
        refused(
            |v| {
                v.tokens.resize(crate::vocabulary::TOKENS_MAX + 1, String::new());
            },
            "vocabulary has 1048577 tokens, at most 1048576 are read",
        );
    }

    proptest! {
        #[test]
        fn text_comes_back(text in any::<String>()) {
            prop_assert_eq!(NANO.decode(&NANO.encode_plain(&text)), text);
        }

        #[test]
        fn text_without_control_tokens_is_plain(text in "(<\\|?(user|eos|pad)?\\|?>|a| )*") {
            let plain = NANO.encode(&text) == NANO.encode_plain(&text);
            prop_assert_eq!(NANO.spells_control(&text), !plain);
        }

        #[test]
        fn plain_text_makes_no_control_token(text in "(<\\|?(user|eos|pad)?\\|?>|a| )*") {
            let ids = NANO.encode_plain(&text);
            prop_assert!(ids.iter().all(|&id| NANO.kind(id) == Some(TokenKind::Normal)));
        }
    }
}
