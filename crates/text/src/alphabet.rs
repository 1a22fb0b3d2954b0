//! The byte-level alphabet: one printable character for each of the 256 bytes.
//!
//! GPT-2 introduced it so that a vocabulary of readable strings can spell any bytes.
//! Printable Latin-1 stands for itself; the 68 other bytes take `U+0100` onwards, in order.

/// The character that spells `byte`.
pub(crate) fn letter(byte: u8) -> char {
    let shifted = match byte {
        0x00..=0x20 => 0x100 + u32::from(byte),
        0x7f..=0xa0 => 0x121 + u32::from(byte - 0x7f),
        0xad => 0x143,
        _ => u32::from(byte),
    };
    char::from_u32(shifted).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that `letter` spells, if it is in the alphabet.
pub(crate) fn byte(letter: char) -> Option<u8> {
    let code = u32::from(letter);
    let byte = match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => code,
        0x100..=0x120 => code - 0x100,
        0x121..=0x142 => code - 0x121 + 0x7f,
        0x143 => 0xad,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

/// Spells `bytes` in the alphabet.
pub(crate) fn spell(bytes: &[u8]) -> String {
    bytes.iter().copied().map(letter).collect()
}

/// The bytes that `spelling` stands for.
///
/// A spelling with any character outside the alphabet stands for itself, as it does in
/// the `tokenizers` library.
pub(crate) fn read(spelling: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = spelling.chars().map(byte).collect();
    bytes.unwrap_or_else(|| spelling.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_letter() {
        for value in 0..=255 {
            assert_eq!(byte(letter(value)), Some(value));
            assert!(!letter(value).is_whitespace() && !letter(value).is_control());
        }
        let readable = (0..=0x10ffff).filter_map(char::from_u32).filter(|&c| byte(c).is_some());
        assert_eq!(readable.count(), 256);
    }

    #[test]
    fn known_letters() {
        assert_eq!(spell(b" a\n\x7f\xa0\xad\xff"), "ĠaĊġłŃÿ");
        assert_eq!(read("Ġa"), b" a");
        assert_eq!(read("Ġ€"), "Ġ€".as_bytes());
    }
}
