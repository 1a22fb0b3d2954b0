//! A vocabulary as model files state it: what GGUF and `tokenizer.json` have in common.

use std::collections::HashMap;

use crate::bpe::Merge;
use crate::{PreTokenizer, TokenizerError};

/// Tokens a vocabulary may have. The largest in use stay under 2^18.
pub(crate) const TOKENS_MAX: usize = 1 << 20;

/// Merges a vocabulary may have; each makes a token from two, and some make the same one.
pub(crate) const MERGES_MAX: usize = 1 << 21;

/// Longest spelling of one token, in bytes.
pub(crate) const SPELLING_BYTES_MAX: usize = 1 << 16;

/// Everything that decides how one model cuts text, before it has been checked.
///
/// [`Tokenizer::new`](crate::Tokenizer::new) checks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    /// Spelling of each token; the index is the id. Ordinary tokens are spelled in the
    /// byte-level alphabet of GPT-2 (`Ġ` for a space), control and user tokens as themselves.
    pub tokens: Vec<String>,
    /// What each token is for; as long as `tokens`.
    pub kinds: Vec<TokenKind>,
    /// Pairs to join, `"left right"`, the earliest first.
    pub merges: Vec<String>,
    /// How text is cut into words before merging.
    pub pre: PreTokenizer,
    /// The token a text begins with, if the model has one.
    pub bos: Option<u32>,
    /// The tokens that end an answer. Their order carries no meaning.
    pub eos: Vec<u32>,
    /// Whether the model expects `bos` before a prompt that no template wrote.
    pub add_bos: bool,
}

/// What a token is for. The numbers are those of GGUF's `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TokenKind {
    /// Stands for bytes of text.
    Normal = 1,
    /// Stands for what the vocabulary cannot spell.
    Unknown = 2,
    /// Steers the model and adds nothing to the text.
    Control = 3,
    /// Added to the vocabulary after training; always cut out whole, and visible.
    User = 4,
    /// A hole in the numbering; never produced.
    Unused = 5,
    /// One byte.
    Byte = 6,
}

impl TryFrom<i32> for TokenKind {
    type Error = TokenizerError;

    /// Reads a GGUF code, 1 to 6.
    fn try_from(code: i32) -> Result<Self, Self::Error> {
        Ok(match code {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::User,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return Err(TokenizerError::UnknownKind { code }),
        })
    }
}

/// Holds the numbers of things, and the lengths of spellings, against what is read.
pub(crate) fn check_sizes(
    tokens: &[String],
    kinds: &[TokenKind],
    merges: &[String],
) -> Result<(), TokenizerError> {
    if tokens.len() > TOKENS_MAX {
        return Err(TokenizerError::TooManyTokens { found: tokens.len(), max: TOKENS_MAX });
    }
    if merges.len() > MERGES_MAX {
        return Err(TokenizerError::TooManyMerges { found: merges.len(), max: MERGES_MAX });
    }
    if kinds.len() != tokens.len() {
        return Err(TokenizerError::Kinds { found: kinds.len(), expected: tokens.len() });
    }
    for (id, spelling) in (0u32..).zip(tokens) {
        if spelling.len() > SPELLING_BYTES_MAX {
            let (found, max) = (spelling.len(), SPELLING_BYTES_MAX);
            return Err(TokenizerError::LongToken { found, max, id });
        }
    }
    Ok(())
}

/// The id of each token by its spelling.
pub(crate) fn index(tokens: &[String]) -> Result<HashMap<String, u32>, TokenizerError> {
    let mut ids = HashMap::with_capacity(tokens.len());
    for (id, spelling) in (0u32..).zip(tokens) {
        if let Some(first) = ids.insert(spelling.clone(), id) {
            let spelling = spelling.clone();
            return Err(TokenizerError::DuplicateToken { spelling, first, second: id });
        }
    }
    Ok(ids)
}

/// Merges as ids; each is of tokens that there are, and into one that text may hold.
pub(crate) fn read_merges(
    merges: &[String],
    ids: &HashMap<String, u32>,
    kinds: &[TokenKind],
) -> Result<Vec<Merge>, TokenizerError> {
    let mut list = Vec::with_capacity(merges.len());
    let mut seen = HashMap::with_capacity(merges.len());
    for (rank, merge) in merges.iter().enumerate() {
        let read = read_merge(rank, merge, ids)?;
        if kinds[read.into as usize] == TokenKind::Control {
            return Err(TokenizerError::MergeIntoControl { rank, id: read.into });
        }
        if let Some(first) = seen.insert((read.left, read.right), rank) {
            return Err(TokenizerError::DuplicateMerge { first, second: rank });
        }
        list.push(read);
    }
    Ok(list)
}

fn read_merge(
    rank: usize,
    merge: &str,
    ids: &HashMap<String, u32>,
) -> Result<Merge, TokenizerError> {
    let (left, right) = merge
        .split_once(' ')
        .filter(|(left, right)| !left.is_empty() && !right.is_empty() && !right.contains(' '))
        .ok_or_else(|| TokenizerError::MergeForm { rank, found: merge.to_owned() })?;
    let id = |spelling: &str| {
        let missing = || TokenizerError::MergeToken { rank, missing: spelling.to_owned() };
        ids.get(spelling).copied().ok_or_else(missing)
    };
    Ok(Merge { left: id(left)?, right: id(right)?, into: id(&format!("{left}{right}"))? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_comes_back() {
        for code in 1..=6 {
            assert_eq!(TokenKind::try_from(code).unwrap() as i32, code);
        }
        for code in [i32::MIN, -1, 0, 7, i32::MAX] {
            assert_eq!(TokenKind::try_from(code), Err(TokenizerError::UnknownKind { code }));
        }
    }
}
