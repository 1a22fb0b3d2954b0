//! Base64 as x402's headers carry it: the standard alphabet (RFC 4648 §4), padded.
//!
//! Thirty lines that a header needs are no reason for a dependency. Decoding is strict, so that one
//! text has one spelling: what two parties compare by bytes cannot differ by padding or stray bits.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Why text is no base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Base64Error {
    /// Base64 comes in groups of four.
    #[error("{found} characters are not a multiple of four")]
    Length {
        /// How many there are.
        found: usize,
    },
    /// A character that the alphabet lacks, or padding where none belongs.
    #[error("character {at} is {found:?}, which does not belong there")]
    Character {
        /// The byte.
        found: char,
        /// Where, from zero.
        at: usize,
    },
    /// Bits after the last byte that are not zero.
    #[error("the last character says more than the bytes it ends")]
    Trailing,
}

/// Writes `bytes` as base64.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - group.len()));
        for place in 0..4 {
            let index = (word >> (18 - 6 * place)) & 63;
            let letter = ALPHABET[index as usize] as char;
            text.push(if place <= group.len() { letter } else { '=' });
        }
    }
    text
}

/// Reads base64.
pub(crate) fn decode(text: &[u8]) -> Result<Vec<u8>, Base64Error> {
    if !text.len().is_multiple_of(4) {
        return Err(Base64Error::Length { found: text.len() });
    }
    let padding = text.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
    let letters = &text[..text.len() - padding];
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for (group, letters) in letters.chunks(4).enumerate() {
        let mut word = 0u32;
        for (place, letter) in letters.iter().enumerate() {
            let at = group * 4 + place;
            let value =
                value(*letter).ok_or(Base64Error::Character { found: char::from(*letter), at })?;
            word |= value << (18 - 6 * place);
        }
        let count = letters.len() * 6 / 8;
        let [_, all @ ..] = word.to_be_bytes();
        if all[count..].iter().any(|byte| *byte != 0) {
            return Err(Base64Error::Trailing);
        }
        bytes.extend_from_slice(&all[..count]);
    }
    Ok(bytes)
}

fn value(letter: u8) -> Option<u32> {
    let value = match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The examples of RFC 4648 §10.
    #[test]
    fn the_standards_examples_hold() {
        let check = |bytes: &str, text: &str| {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text.as_bytes()), Ok(bytes.as_bytes().to_vec()));
        };
        check("", "");
        check("f", "Zg==");
        check("fo", "Zm8=");
        check("foo", "Zm9v");
        check("foob", "Zm9vYg==");
        check("fooba", "Zm9vYmE=");
        check("foobar", "Zm9vYmFy");
    }

    #[test]
    fn other_spellings_are_refused() {
        assert_eq!(decode(b"Zg="), Err(Base64Error::Length { found: 3 }));
        assert_eq!(decode(b"Zh=="), Err(Base64Error::Trailing));
        assert_eq!(decode(b"Zm9-"), Err(Base64Error::Character { found: '-', at: 3 }));
        assert_eq!(decode(b"Z==="), Err(Base64Error::Character { found: '=', at: 1 }));
        assert_eq!(decode(b"Zg==Zg=="), Err(Base64Error::Character { found: '=', at: 2 }));
    }

    proptest! {
        #[test]
        fn bytes_survive(bytes: Vec<u8>) {
            prop_assert_eq!(decode(encode(&bytes).as_bytes()), Ok(bytes));
        }

        #[test]
        fn text_has_one_spelling(text: Vec<u8>) {
            if let Ok(bytes) = decode(&text) {
                prop_assert_eq!(encode(&bytes).into_bytes(), text);
            }
        }
    }
}
