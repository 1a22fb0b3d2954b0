//! The canonical encoding of a vocabulary: the bytes whose hash a manifest commits to.
//!
//! The layout is stated at [`Tokenizer::canonical`]. Reading accepts exactly what writing
//! makes, so one vocabulary has one encoding.

use crate::unigram::{Spaces, Unigram};
use crate::{Charsmap, PreTokenizer, TokenKind, Tokenizer, TokenizerError, Vocabulary};

/// Format name and version.
const HEAD: &[u8; 10] = b"tokenizer\x01";

/// Stands for "no bos": ids are below 2^20.
const NO_BOS: u32 = u32::MAX;

/// Writes `tokenizer` down.
pub(crate) fn write(tokenizer: &Tokenizer) -> Vec<u8> {
    let mut bytes = HEAD.to_vec();
    bytes.push(tokenizer.pre() as u8);
    bytes.push(u8::from(tokenizer.add_bos()));
    push(&mut bytes, tokenizer.bos().unwrap_or(NO_BOS));
    push_count(&mut bytes, tokenizer.eos().len());
    for &id in tokenizer.eos() {
        push(&mut bytes, id);
    }
    push_count(&mut bytes, tokenizer.len());
    for id in 0..tokenizer.len() as u32 {
        let kind = tokenizer.kind(id).unwrap_or(TokenKind::Unused);
        let spelling = tokenizer.spelling(id).unwrap_or_default();
        bytes.push(kind as u8);
        push_count(&mut bytes, spelling.len());
        bytes.extend(spelling.as_bytes());
    }
    push_count(&mut bytes, tokenizer.merges().len());
    for merge in tokenizer.merges() {
        push(&mut bytes, merge.left);
        push(&mut bytes, merge.right);
    }
    if let Some(unigram) = tokenizer.unigram() {
        push_unigram(&mut bytes, unigram);
    }
    bytes
}

fn push_unigram(bytes: &mut Vec<u8>, unigram: &Unigram) {
    bytes.push(unigram.spaces as u8);
    for score in &unigram.scores {
        bytes.extend(score.to_bits().to_be_bytes());
    }
    let pairs = unigram.charsmap.pairs();
    push_count(bytes, pairs.len());
    for text in pairs.flat_map(|(key, replacement)| [key, replacement]) {
        push_count(bytes, text.len());
        bytes.extend(text.as_bytes());
    }
}

fn push(bytes: &mut Vec<u8>, number: u32) {
    bytes.extend(number.to_be_bytes());
}

/// All counts and lengths of a checked vocabulary are at most 2^21.
fn push_count(bytes: &mut Vec<u8>, count: usize) {
    push(bytes, count as u32);
}

/// Reads what [`write`] wrote.
pub(crate) fn read(bytes: &[u8]) -> Result<Tokenizer, TokenizerError> {
    let mut reader = Reader { bytes, offset: 0 };
    if reader.take(HEAD.len())? != HEAD {
        return Err(reader.problem("unknown format or version"));
    }
    let pre = reader.pre()?;
    let add_bos = match reader.byte()? {
        0 => false,
        1 => true,
        _ => return Err(reader.problem("a flag that is neither 0 nor 1")),
    };
    let bos = Some(reader.number()?).filter(|&id| id != NO_BOS);

    let mut eos = Vec::new();
    for _ in 0..reader.number()? {
        let id = reader.number()?;
        if eos.last().is_some_and(|&last| last >= id) {
            return Err(reader.problem("eos ids out of order"));
        }
        eos.push(id);
    }
    let (mut tokens, mut kinds) = (Vec::new(), Vec::new());
    for _ in 0..reader.number()? {
        kinds.push(TokenKind::try_from(i32::from(reader.byte()?))?);
        tokens.push(reader.spelling()?);
    }
    let mut merges = Vec::new();
    for _ in 0..reader.number()? {
        let (left, right) = (reader.token(&tokens)?, reader.token(&tokens)?);
        merges.push(format!("{left} {right}"));
    }
    let unigram = match pre.is_unigram() {
        true => Some(reader.unigram(tokens.len())?),
        false => None,
    };
    if reader.offset != bytes.len() {
        return Err(reader.problem("bytes after the end"));
    }
    let vocabulary = Vocabulary { tokens, kinds, merges, pre, bos, eos, add_bos };
    match unigram {
        Some(unigram) => Tokenizer::with_scores(vocabulary, unigram),
        None => Tokenizer::new(vocabulary),
    }
}

/// Reads numbers and strings from the front of `bytes`.
///
/// Nothing is allocated for a count before its items are there, so short input stays cheap.
struct Reader<'b> {
    bytes: &'b [u8],
    offset: usize,
}

impl<'b> Reader<'b> {
    fn problem(&self, problem: &'static str) -> TokenizerError {
        TokenizerError::Canonical { offset: self.offset, problem }
    }

    fn take(&mut self, length: usize) -> Result<&'b [u8], TokenizerError> {
        let taken = self.bytes[self.offset..].get(..length);
        let taken = taken.ok_or_else(|| self.problem("too few bytes"))?;
        self.offset += length;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, TokenizerError> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u32, TokenizerError> {
        let taken = self.take(4)?;
        Ok(taken.iter().fold(0, |number, &byte| number << 8 | u32::from(byte)))
    }

    fn pre(&mut self) -> Result<PreTokenizer, TokenizerError> {
        let code = self.byte()?;
        PreTokenizer::from_code(code).ok_or_else(|| self.problem("unknown pre-tokenizer"))
    }

    fn spelling(&mut self) -> Result<String, TokenizerError> {
        let length = self.number()? as usize;
        let spelling = std::str::from_utf8(self.take(length)?);
        spelling.map(str::to_owned).map_err(|_| self.problem("a spelling that is not UTF-8"))
    }

    fn unigram(&mut self, tokens: usize) -> Result<Unigram, TokenizerError> {
        let spaces = Spaces::from_code(self.byte()?);
        let spaces = spaces.ok_or_else(|| self.problem("unknown spelling of spaces"))?;
        let mut scores = Vec::new();
        for _ in 0..tokens {
            let bits = u64::from(self.number()?) << 32 | u64::from(self.number()?);
            scores.push(f64::from_bits(bits));
        }
        let mut pairs = Vec::new();
        for _ in 0..self.number()? {
            pairs.push((self.spelling()?, self.spelling()?));
        }
        Ok(Unigram { scores, charsmap: Charsmap::new(&pairs)?, spaces })
    }

    fn token<'t>(&mut self, tokens: &'t [String]) -> Result<&'t str, TokenizerError> {
        let id = self.number()?;
        let token = tokens.get(id as usize).map(String::as_str);
        token.ok_or(TokenizerError::IdOutOfRange {
            role: "part of a merge",
            found: id,
            tokens: tokens.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Tokenizer {
        Tokenizer::new(Vocabulary {
            tokens: ["<e>", "a", "b", "ab", "é!"].map(String::from).to_vec(),
            kinds: vec![
                TokenKind::Control,
                TokenKind::Normal,
                TokenKind::Normal,
                TokenKind::Normal,
                TokenKind::User,
            ],
            merges: vec!["a b".to_owned()],
            pre: PreTokenizer::Llama3,
            bos: None,
            eos: vec![3, 0, 3],
            add_bos: false,
        })
        .unwrap()
    }

    #[test]
    fn the_layout_is_as_documented() {
        let expected = [
            b"tokenizer\x01\x03\x00\xff\xff\xff\xff".as_slice(),
            b"\0\0\0\x02\0\0\0\0\0\0\0\x03",
            b"\0\0\0\x05\x03\0\0\0\x03<e>\x01\0\0\0\x01a\x01\0\0\0\x01b\x01\0\0\0\x02ab",
            b"\x04\0\0\0\x03\xc3\xa9!",
            b"\0\0\0\x01\0\0\0\x01\0\0\0\x02",
        ];
        assert_eq!(sample().canonical(), expected.concat());
    }

    #[test]
    fn every_prefix_and_suffix_is_refused() {
        let bytes = sample().canonical();
        for length in 0..bytes.len() {
            assert!(Tokenizer::from_canonical(&bytes[..length]).is_err());
        }
        assert!(Tokenizer::from_canonical(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn a_huge_count_costs_nothing() {
        let mut bytes = sample().canonical();
        bytes[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(Tokenizer::from_canonical(&bytes).is_err());
    }

    proptest! {
        /// Whatever is accepted is written back as it came: one vocabulary, one encoding.
        #[test]
        fn what_is_read_is_written_back(changes in prop::collection::vec((0usize..90, any::<u8>()), 0..3)) {
            let mut bytes = sample().canonical();
            for (place, value) in changes {
                let place = place % bytes.len();
                bytes[place] = value;
            }
            if let Ok(tokenizer) = Tokenizer::from_canonical(&bytes) {
                prop_assert_eq!(tokenizer.canonical(), bytes);
            }
        }
    }
}
