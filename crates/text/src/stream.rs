//! Turns tokens into text while they arrive, one complete character at a time.
//!
//! A character may be spread over several tokens. What has not yet become a character is
//! held back, at most three bytes, so that no piece of text ever has to be taken back.

use std::borrow::Borrow;

use crate::Tokenizer;

/// Text from tokens, piece by piece.
///
/// The pieces joined are always what [`Tokenizer::decode`] makes of all ids together. The
/// tokenizer is borrowed (`Stream<&Tokenizer>`) or shared (`Stream<Arc<Tokenizer>>`).
#[derive(Debug)]
pub struct Stream<T> {
    tokenizer: T,
    /// Bytes that may begin a character, and do not yet make one.
    held: Vec<u8>,
}

impl<T: Borrow<Tokenizer>> Stream<T> {
    /// Begins an empty text.
    pub fn new(tokenizer: T) -> Self {
        Self { tokenizer, held: Vec::new() }
    }

    /// Adds one token, and returns the characters that are now complete.
    ///
    /// Bytes that can no longer become a character come out as U+FFFD.
    pub fn push(&mut self, id: u32) -> String {
        self.held.extend(self.tokenizer.borrow().bytes(id));
        let complete = self.held.len() - unfinished(&self.held);
        let piece = String::from_utf8_lossy(&self.held[..complete]).into_owned();
        self.held.drain(..complete);
        piece
    }

    /// Ends the text, and returns what was held back: U+FFFD if a character is unfinished.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.held).into_owned()
    }
}

/// Bytes at the end of `bytes` that begin a character and do not end it.
fn unfinished(bytes: &[u8]) -> usize {
    let Some(last) = bytes.utf8_chunks().last() else { return 0 };
    let tail = last.invalid();
    // Without an error length, more bytes could still make the tail a character.
    match std::str::from_utf8(tail) {
        Err(error) if error.error_len().is_none() => tail.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PreTokenizer, TokenKind, Vocabulary, alphabet};
    use proptest::prelude::*;
    use std::sync::Arc;

    /// One token for each of `bytes`.
    fn tokenizer(bytes: &[Vec<u8>]) -> Tokenizer {
        let mut tokens: Vec<String> = bytes.iter().map(|bytes| alphabet::spell(bytes)).collect();
        tokens.sort();
        tokens.dedup();
        let kinds = vec![TokenKind::Normal; tokens.len()];
        let (merges, pre, bos, eos) = (Vec::new(), PreTokenizer::Gpt2, None, Vec::new());
        Tokenizer::new(Vocabulary { tokens, kinds, merges, pre, bos, eos, add_bos: false }).unwrap()
    }

    /// Pushes each of `bytes` as one token, and compares the pieces.
    fn check(bytes: &[&[u8]], expected: &[&str]) {
        let bytes: Vec<Vec<u8>> = bytes.iter().map(|bytes| bytes.to_vec()).collect();
        let tokenizer = Arc::new(tokenizer(&bytes));
        let mut stream = Stream::new(tokenizer.clone());
        let ids = bytes.iter().map(|bytes| tokenizer.id_of(&alphabet::spell(bytes)).unwrap());
        let mut pieces: Vec<String> = ids.map(|id| stream.push(id)).collect();
        pieces.push(stream.finish());
        assert_eq!(pieces, expected);
    }

    #[test]
    fn a_character_waits_for_its_last_byte() {
        check(&[b"a\xf0", b"\x9f", b"\x98", b"\x80b"], &["a", "", "", "😀b", ""]);
    }

    #[test]
    fn what_cannot_become_a_character_does_not_wait() {
        check(
            &[b"\xe2\x82", b"a", b"\xff", b"\x80"],
            &["", "\u{fffd}a", "\u{fffd}", "\u{fffd}", ""],
        );
        check(&[b"\xed", b"\xa0", b"\x80"], &["", "\u{fffd}\u{fffd}", "\u{fffd}", ""]);
    }

    #[test]
    fn an_unfinished_character_ends_as_one_mark() {
        check(&[b"x\xf0\x9f\x98"], &["x", "\u{fffd}"]);
    }

    /// Bytes that meet often at the edges of UTF-8.
    fn hostile_byte() -> impl Strategy<Value = u8> {
        prop_oneof![
            any::<u8>(),
            prop::sample::select(vec![0x41, 0x80, 0x9f, 0xbf, 0xc2, 0xe0, 0xe2, 0xed, 0xf0, 0xf4]),
        ]
    }

    proptest! {
        #[test]
        fn pieces_join_to_the_whole(
            bytes in prop::collection::vec(prop::collection::vec(hostile_byte(), 0..5), 0..30),
        ) {
            let tokenizer = tokenizer(&bytes);
            let spelled = bytes.iter().map(|bytes| alphabet::spell(bytes));
            let ids: Vec<u32> = spelled.map(|token| tokenizer.id_of(&token).unwrap()).collect();
            let mut stream = Stream::new(&tokenizer);
            let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
            text += &stream.finish();
            prop_assert_eq!(&text, &tokenizer.decode(&ids));
            let whole = bytes.concat();
            prop_assert_eq!(text, String::from_utf8_lossy(&whole));
        }
    }
}
