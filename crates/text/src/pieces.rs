//! SentencePiece: a vocabulary of scored pieces, as the merges that it means.
//!
//! Such a tokenizer joins neighbouring pieces as long as the whole is a token, the highest score
//! first. That is merging by rank, where all ways to make one token share its rank. Spaces are
//! spelled `▁`, one is put before a text, and what has no token is spelled in bytes.

use std::collections::HashMap;

use crate::{TokenKind, TokenizerError};

/// How a space is spelled.
pub(crate) const SPACE: char = '▁';
/// Longest token that is cut in two, in bytes; the longest in use have fewer than a hundred.
const PIECE_BYTES_MAX: usize = 128;

/// The merges of a vocabulary, the highest score first, ties to the lower id.
///
/// # Errors
/// If there is not one score for each token.
pub fn merges_of_scores(
    tokens: &[String],
    kinds: &[TokenKind],
    scores: &[f32],
) -> Result<Vec<String>, TokenizerError> {
    if scores.len() != tokens.len() || kinds.len() != tokens.len() {
        let found = scores.len().min(kinds.len());
        return Err(TokenizerError::Scores { found, expected: tokens.len() });
    }
    let normal = |id: usize| kinds[id] == TokenKind::Normal;
    let known: HashMap<&str, usize> =
        tokens.iter().map(String::as_str).zip(0..).filter(|(_, id)| normal(*id)).collect();
    let mut order: Vec<usize> = (0..tokens.len()).filter(|id| normal(*id)).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    let mut merges = Vec::new();
    for id in order {
        let token = tokens[id].as_str();
        if token.len() > PIECE_BYTES_MAX || token.contains(' ') {
            continue;
        }
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if known.contains_key(left) && known.contains_key(right) {
                merges.push(format!("{left} {right}"));
            }
        }
    }
    Ok(merges)
}

/// The byte that a token such as `<0x0A>` stands for.
pub(crate) fn byte(spelling: &str) -> Option<u8> {
    let digits = spelling.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// How a byte is spelled.
pub(crate) fn spell_byte(byte: u8) -> String {
    format!("<0x{byte:02X}>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PreTokenizer, Tokenizer, Vocabulary};

    /// Bytes, some letters, and pieces with these scores.
    fn tokenizer(pre: PreTokenizer, pieces: &[(&str, f32)]) -> Tokenizer {
        let bytes = (0..=255).map(|byte| (spell_byte(byte), TokenKind::Byte, 0.0));
        let pieces =
            pieces.iter().map(|(piece, score)| ((*piece).to_owned(), TokenKind::Normal, *score));
        let all: Vec<_> = bytes.chain(pieces).collect();
        let tokens: Vec<String> = all.iter().map(|(token, ..)| token.clone()).collect();
        let kinds: Vec<TokenKind> = all.iter().map(|(_, kind, _)| *kind).collect();
        let scores: Vec<f32> = all.iter().map(|(.., score)| *score).collect();
        let merges = merges_of_scores(&tokens, &kinds, &scores).unwrap();
        let (bos, eos, add_bos) = (None, Vec::new(), false);
        Tokenizer::new(Vocabulary { tokens, kinds, merges, pre, bos, eos, add_bos }).unwrap()
    }

    fn spelled(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
        let ids = tokenizer.encode_plain(text);
        ids.into_iter().map(|id| tokenizer.spelling(id).unwrap().to_owned()).collect()
    }

    const PIECES: [(&str, f32); 8] = [
        ("▁", -9.0),
        ("a", -10.0),
        ("b", -11.0),
        ("ab", -1.0),
        ("▁a", -2.0),
        ("aba", -0.5),
        ("▁ab", -3.0),
        ("ba", -4.0),
    ];

    #[test]
    fn the_highest_score_is_joined_first() {
        let tokenizer = tokenizer(PreTokenizer::SentencePiece, &PIECES);
        assert_eq!(spelled(&tokenizer, "ab"), ["▁ab"]);
        // "ab" first, then "aba" of it and the next letter: the whole is better than "▁ab".
        assert_eq!(spelled(&tokenizer, "aba"), ["▁", "aba"]);
        assert_eq!(spelled(&tokenizer, "b a"), ["▁", "b", "▁a"]);
        assert_eq!(spelled(&tokenizer, ""), Vec::<String>::new());
        let bare = self::tokenizer(PreTokenizer::SentencePieceBare, &PIECES);
        assert_eq!(spelled(&bare, "ab"), ["ab"]);
    }

    #[test]
    fn what_has_no_token_is_spelled_in_bytes() {
        let tokenizer = tokenizer(PreTokenizer::SentencePiece, &PIECES);
        assert_eq!(spelled(&tokenizer, "é"), ["▁", "<0xC3>", "<0xA9>"]);
        assert_eq!(tokenizer.decode(&tokenizer.encode_plain("a é\n")), " a é\n");
        let bytes = tokenizer.canonical();
        assert_eq!(Tokenizer::from_canonical(&bytes).unwrap().canonical(), bytes);
    }

    #[test]
    fn scores_are_one_for_each_token() {
        let error = merges_of_scores(&["a".into()], &[TokenKind::Normal], &[]).unwrap_err();
        assert_eq!(error.to_string(), "vocabulary has 0 scores for 1 tokens");
    }
}
