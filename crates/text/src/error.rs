//! Why a vocabulary is refused.
//!
//! Vocabularies come from model files, so every way they can be wrong has a name: whoever
//! imports a model is told which token or merge to look at.

/// Why a vocabulary cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenizerError {
    /// More tokens than any model needs.
    #[error("vocabulary has {found} tokens, at most {max} are read")]
    TooManyTokens {
        /// Tokens in the vocabulary.
        found: usize,
        /// Tokens that are read.
        max: usize,
    },
    /// More merges than any model needs.
    #[error("vocabulary has {found} merges, at most {max} are read")]
    TooManyMerges {
        /// Merges in the vocabulary.
        found: usize,
        /// Merges that are read.
        max: usize,
    },
    /// Not one kind for each token.
    #[error("vocabulary has {found} token kinds for {expected} tokens")]
    Kinds {
        /// Kinds given.
        found: usize,
        /// Tokens given.
        expected: usize,
    },
    /// Not one score for each token.
    #[error("vocabulary has {found} scores for {expected} tokens")]
    Scores {
        /// Scores given.
        found: usize,
        /// Tokens given.
        expected: usize,
    },
    /// A spelling too long to be one.
    #[error("token is spelled with {found} bytes, at most {max} are read: token {id}")]
    LongToken {
        /// Bytes in the spelling.
        found: usize,
        /// Bytes that a token of this kind may have.
        max: usize,
        /// The token.
        id: u32,
    },
    /// Two tokens with one spelling, so that text has two encodings.
    #[error("tokens {first} and {second} are both spelled {spelling:?}")]
    DuplicateToken {
        /// The spelling.
        spelling: String,
        /// The lower id.
        first: u32,
        /// The higher id.
        second: u32,
    },
    /// A merge that is not two spellings with one space between.
    #[error("merge {rank} is not a pair: {found:?}")]
    MergeForm {
        /// Place in the merge list, from 0.
        rank: usize,
        /// The merge.
        found: String,
    },
    /// A merge of or into a token that does not exist.
    #[error("merge {rank} needs a token that the vocabulary lacks: {missing:?}")]
    MergeToken {
        /// Place in the merge list, from 0.
        rank: usize,
        /// The token's spelling.
        missing: String,
    },
    /// A merge that would let plain text make a control token.
    #[error("merge {rank} makes a control token: {id}")]
    MergeIntoControl {
        /// Place in the merge list, from 0.
        rank: usize,
        /// The control token.
        id: u32,
    },
    /// One pair twice in the list.
    #[error("merges {first} and {second} join the same pair")]
    DuplicateMerge {
        /// The earlier place in the merge list, from 0.
        first: usize,
        /// The later place.
        second: usize,
    },
    /// An id that is not in the vocabulary.
    #[error("{role} is token {found}, but there are {tokens} tokens")]
    IdOutOfRange {
        /// What the id is for.
        role: &'static str,
        /// The id.
        found: u32,
        /// Tokens in the vocabulary.
        tokens: usize,
    },
    /// Prompts are to begin with a token that the model does not name.
    #[error("prompts are to begin with bos, but the vocabulary names none")]
    NoBos,
    /// A vocabulary that WordPiece cannot use.
    #[error("a WordPiece vocabulary {problem}")]
    WordPiece {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A vocabulary that Unigram cannot use.
    #[error("a Unigram vocabulary {problem}")]
    Unigram {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A score that cannot be added to others.
    #[error("the score {found} is no finite number: token {id}")]
    Score {
        /// The score.
        found: String,
        /// The token.
        id: u32,
    },
    /// A damaged map of characters, or one that is too large.
    #[error("the map of characters {problem}")]
    Charsmap {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A way to cut words that this crate does not know.
    #[error("unknown pre-tokenizer {found:?}, known are {known}")]
    UnknownPreTokenizer {
        /// The name in the file.
        found: String,
        /// The names this crate knows.
        known: String,
    },
    /// A number that names no kind of token.
    #[error("unknown token kind {code}, known are 1 to 6")]
    UnknownKind {
        /// The number in the file.
        code: i32,
    },
    /// Not a `tokenizer.json`.
    #[error("not a tokenizer.json: {reason}")]
    Json {
        /// What the JSON reader says, with line and column.
        reason: String,
    },
    /// A `tokenizer.json` that asks for something this crate does not do.
    #[error("tokenizer.json has an unsupported {part}: {found}")]
    Unsupported {
        /// The part of the file.
        part: &'static str,
        /// What it says there.
        found: String,
    },
    /// A number between 0 and the highest id that no token has.
    #[error("no token has the id {id}")]
    MissingId {
        /// The number.
        id: u32,
    },
    /// Not the canonical encoding of a vocabulary.
    #[error("not a canonical tokenizer: {problem} at byte {offset}")]
    Canonical {
        /// Where reading stopped, in bytes.
        offset: usize,
        /// What is wrong there.
        problem: &'static str,
    },
}
