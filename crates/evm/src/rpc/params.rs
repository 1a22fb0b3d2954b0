//! A call's parameters, read one by one by the method that knows their types.
//!
//! Hashes, addresses and quantities must begin with `0x`: a library that forgets it sent something
//! else than it meant.

use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::{Address, B256, Bytes, U256};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::message::{Error, first_of};

/// Most parameters of any call; what follows is not read.
const COUNT_MAX: usize = 8;

/// The parameters of one call, in their order.
#[derive(Debug, Default)]
pub struct Params<'a> {
    items: Vec<&'a RawValue>,
}

impl<'a> Params<'a> {
    /// Splits `params`, an array or nothing.
    pub(crate) fn read(params: Option<&'a RawValue>) -> Result<Self, Error> {
        let Some(params) = params else { return Ok(Self::default()) };
        if !params.get().starts_with('[') {
            return Err(Error::Arguments("parameters are given in an array".into()));
        }
        let (items, _) = first_of(params.get(), COUNT_MAX)
            .map_err(|error| Error::Arguments(error.to_string()))?;
        Ok(Self { items })
    }

    fn item(&self, index: usize) -> Option<&'a str> {
        self.items.get(index).map(|item| item.get()).filter(|text| *text != "null")
    }

    /// The parameter at `index`, if it is there and is not null.
    pub fn optional<T: Deserialize<'a>>(&self, index: usize) -> Result<Option<T>, Error> {
        let Some(text) = self.item(index) else { return Ok(None) };
        serde_json::from_str(text).map(Some).map_err(|error| argument(index, error))
    }

    /// The parameter at `index`, which must be there.
    pub fn required<T: Deserialize<'a>>(&self, index: usize) -> Result<T, Error> {
        self.optional(index)?.ok_or_else(|| missing(index))
    }

    fn text(&self, index: usize) -> Result<std::borrow::Cow<'a, str>, Error> {
        let text = self.item(index).ok_or_else(|| missing(index))?;
        // Hexadecimal needs no escapes, so the text is most often used where it lies.
        let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        match inner {
            Some(inner) if !inner.contains('\\') => Ok(inner.into()),
            _ => {
                let text: String =
                    serde_json::from_str(text).map_err(|error| argument(index, error))?;
                Ok(text.into())
            }
        }
    }

    /// Bytes of any length.
    pub fn bytes(&self, index: usize) -> Result<Bytes, Error> {
        let text = self.text(index)?;
        let digits = prefixed(index, &text)?;
        alloy_primitives::hex::decode(digits)
            .map(Bytes::from)
            .map_err(|error| argument(index, error))
    }

    fn fixed<const N: usize>(&self, index: usize) -> Result<[u8; N], Error> {
        let text = self.text(index)?;
        let digits = prefixed(index, &text)?;
        if digits.len() != 2 * N {
            let given = digits.len();
            return Err(argument(index, format!("{given} digits, expected {}", 2 * N)));
        }
        let mut bytes = [0; N];
        alloy_primitives::hex::decode_to_slice(digits, &mut bytes)
            .map_err(|error| argument(index, error))?;
        Ok(bytes)
    }

    /// A hash of 32 bytes.
    pub fn hash(&self, index: usize) -> Result<B256, Error> {
        self.fixed(index).map(B256::from)
    }

    /// An address; its upper and lower case letters are not judged.
    pub fn address(&self, index: usize) -> Result<Address, Error> {
        self.fixed(index).map(Address::from)
    }

    /// A storage key: at most 32 bytes, which may be written short. The flag says that all 32 were
    /// written.
    pub fn slot(&self, index: usize) -> Result<(U256, bool), Error> {
        slot(index, &self.text(index)?)
    }

    /// An unsigned number of at most 64 bits.
    pub fn quantity(&self, index: usize) -> Result<u64, Error> {
        let text = self.text(index)?;
        let digits = prefixed(index, &text)?;
        u64::from_str_radix(digits, 16).map_err(|error| argument(index, error))
    }

    /// A block by number, tag or hash; the newest when nothing is given.
    pub fn block(&self, index: usize) -> Result<BlockId, Error> {
        Ok(self.optional(index)?.unwrap_or(BlockId::latest()))
    }

    /// A block by number or tag.
    pub fn height(&self, index: usize) -> Result<BlockNumberOrTag, Error> {
        self.required(index)
    }
}

/// Reads a storage key: at most 32 bytes in hexadecimal. The flag says that all were written.
pub(crate) fn slot(index: usize, text: &str) -> Result<(U256, bool), Error> {
    let digits = prefixed(index, text)?;
    if digits.len() > 64 {
        return Err(argument(index, "a storage key has at most 32 bytes"));
    }
    let key = if digits.is_empty() {
        U256::ZERO
    } else {
        U256::from_str_radix(digits, 16).map_err(|error| argument(index, error))?
    };
    Ok((key, digits.len() == 64))
}

fn prefixed(index: usize, text: &str) -> Result<&str, Error> {
    text.strip_prefix("0x").ok_or_else(|| argument(index, "hexadecimal begins with 0x"))
}

/// The error of the parameter at `index`.
pub(crate) fn argument(index: usize, reason: impl ToString) -> Error {
    Error::Argument { index, reason: reason.to_string() }
}

fn missing(index: usize) -> Error {
    argument(index, "missing")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(params: &str, read: impl FnOnce(Params<'_>) -> Result<T, Error>) -> Result<T, i32> {
        let raw: Box<RawValue> = serde_json::from_str(params).unwrap();
        Params::read(Some(&raw)).and_then(read).map_err(|error| error.code())
    }

    #[test]
    fn hexadecimal_is_exact() {
        let hash = format!("[\"0x{}\"]", "ab".repeat(32));
        assert_eq!(with(&hash, |params| params.hash(0)), Ok(B256::repeat_byte(0xab)));
        for wrong in [
            "[]",
            "[null]",
            "[1]",
            "[\"0x\"]",
            "[\"0xab\"]",
            "[\"0xzz\"]",
            "{}",
            "7",
            &format!("[\"{}\"]", "ab".repeat(32)),
            &format!("[\"0x{}\"]", "ab".repeat(33)),
        ] {
            assert_eq!(with(wrong, |params| params.hash(0)), Err(-32602), "{wrong}");
        }
    }

    #[test]
    fn an_escaped_text_is_the_same_text() {
        let bytes = with(r#"["\u0030x0102"]"#, |params| params.bytes(0));
        assert_eq!(bytes, Ok(Bytes::from_static(&[1, 2])));
        assert_eq!(with(r#"["0x1"]"#, |params| params.bytes(0)), Err(-32602));
    }

    #[test]
    fn a_block_is_the_newest_when_none_is_named() {
        assert_eq!(with("[]", |params| params.block(0)), Ok(BlockId::latest()));
        assert_eq!(with(r#"["0x10"]"#, |params| params.block(0)), Ok(BlockId::number(16)));
        assert_eq!(with(r#"["10"]"#, |params| params.block(0)), Err(-32602));
        assert_eq!(with(r#"[[]]"#, |params| params.block(0)), Err(-32602));
    }

    #[test]
    fn a_slot_may_be_short_but_not_long() {
        assert_eq!(with(r#"["0x0"]"#, |params| params.slot(0)), Ok((U256::ZERO, false)));
        let full = format!("[\"0x{}1\"]", "0".repeat(63));
        assert_eq!(with(&full, |params| params.slot(0)), Ok((U256::ONE, true)));
        let long = format!("[\"0x{}1\"]", "0".repeat(64));
        assert_eq!(with(&long, |params| params.slot(0)), Err(-32602));
    }
}
