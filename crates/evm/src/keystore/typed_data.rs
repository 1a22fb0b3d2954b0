//! What a wallet signs when it shows a form instead of a hash: EIP-712.
//!
//! The document names its types itself, so it is foreign through and through: what it may nest and
//! repeat is bounded, and every mistake in it is named.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::{Address, B256, I256, U256, hex, keccak256};
use serde::Deserialize;
use serde_json::Value;

/// Structures within structures, and arrays within arrays.
const DEPTH_MAX: usize = 32;

/// Values in all of a message.
const VALUES_MAX: usize = 100_000;

/// A document as `eth_signTypedData_v4` takes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TypedData {
    types: BTreeMap<String, Vec<Field>>,
    primary_type: String,
    domain: Value,
    #[serde(default)]
    message: Value,
}

#[derive(Clone, Debug, Deserialize)]
struct Field {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

/// Why a document has no hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TypedDataError {
    /// A name that is neither a type of Solidity nor defined in the document.
    #[error("type {0} is not known")]
    Type(String),
    /// A value that is not of its type.
    #[error("{path} is {found}, expected {expected}")]
    Value {
        /// Where it stands.
        path: String,
        /// Its JSON, shortened.
        found: String,
        /// Its type.
        expected: String,
    },
    /// Too deep, or too much.
    #[error("the document nests more than {DEPTH_MAX} deep or has more than {VALUES_MAX} values")]
    Large,
}

impl TypedData {
    /// The hash that is signed.
    pub fn digest(&self) -> Result<B256, TypedDataError> {
        let mut left = VALUES_MAX;
        let domain = self.hash("EIP712Domain", &self.domain, "domain", 0, &mut left)?;
        let mut text = [&[0x19, 0x01][..], domain.as_slice()].concat();
        // A document may sign its domain alone.
        if self.primary_type != "EIP712Domain" {
            let message = self.hash(&self.primary_type, &self.message, "message", 0, &mut left)?;
            text.extend(message);
        }
        Ok(keccak256(text))
    }

    /// `hashStruct`: the hash of the type's own hash and of every field's word.
    fn hash(
        &self,
        kind: &str,
        value: &Value,
        path: &str,
        depth: usize,
        left: &mut usize,
    ) -> Result<B256, TypedDataError> {
        if depth > DEPTH_MAX {
            return Err(TypedDataError::Large);
        }
        let fields = self.fields(kind)?;
        let mut text = keccak256(self.encode_type(kind)?).to_vec();
        for field in fields {
            let path = format!("{path}.{}", field.name);
            let value = value.get(&field.name).unwrap_or(&Value::Null);
            text.extend(self.word(&field.kind, value, &path, depth + 1, left)?);
        }
        Ok(keccak256(text))
    }

    fn fields(&self, kind: &str) -> Result<&[Field], TypedDataError> {
        let fields = self.types.get(kind).ok_or_else(|| TypedDataError::Type(kind.to_owned()))?;
        Ok(fields)
    }

    /// `encodeType`: the structure, then those that it uses, by name.
    fn encode_type(&self, kind: &str) -> Result<String, TypedDataError> {
        let mut used = BTreeSet::new();
        self.collect(kind, &mut used);
        used.remove(kind);
        let mut text = String::new();
        for name in std::iter::once(kind).chain(used) {
            let fields: Vec<_> = self.fields(name)?.iter().map(Field::declaration).collect();
            text.push_str(&format!("{name}({})", fields.join(",")));
        }
        Ok(text)
    }

    fn collect<'a>(&'a self, kind: &'a str, used: &mut BTreeSet<&'a str>) {
        let mut open = vec![element(kind)];
        while let Some(kind) = open.pop() {
            if let Some(fields) = self.types.get(kind)
                && used.insert(kind)
            {
                open.extend(fields.iter().map(|field| element(&field.kind)));
            }
        }
    }

    /// `encodeData` of one value: 32 bytes.
    fn word(
        &self,
        kind: &str,
        value: &Value,
        path: &str,
        depth: usize,
        left: &mut usize,
    ) -> Result<B256, TypedDataError> {
        *left = left.checked_sub(1).ok_or(TypedDataError::Large)?;
        if depth > DEPTH_MAX {
            return Err(TypedDataError::Large);
        }
        if let Some((inner, length)) = array(kind) {
            let items = value.as_array().filter(|items| length.is_none_or(|n| n == items.len()));
            let items = items.ok_or_else(|| wrong(kind, value, path))?;
            let mut text = Vec::new();
            for (at, item) in items.iter().enumerate() {
                text.extend(self.word(inner, item, &format!("{path}[{at}]"), depth + 1, left)?);
            }
            return Ok(keccak256(text));
        }
        if self.types.contains_key(kind) {
            // The reference implementation gives an absent structure the hash zero.
            return match value {
                Value::Null => Ok(B256::ZERO),
                _ => self.hash(kind, value, path, depth, left),
            };
        }
        match atom(kind, value) {
            Some(word) => Ok(word),
            None if is_atomic(kind) => Err(wrong(kind, value, path)),
            None => Err(TypedDataError::Type(kind.to_owned())),
        }
    }
}

impl Field {
    fn declaration(&self) -> String {
        format!("{} {}", self.kind, self.name)
    }
}

fn wrong(kind: &str, value: &Value, path: &str) -> TypedDataError {
    let found: String = value.to_string().chars().take(64).collect();
    TypedDataError::Value { path: path.to_owned(), found, expected: kind.to_owned() }
}

/// The type of an array's elements, and how many it has if that is part of the type.
fn array(kind: &str) -> Option<(&str, Option<usize>)> {
    let (inner, length) = kind.strip_suffix(']')?.rsplit_once('[')?;
    match length {
        "" => Some((inner, None)),
        number => Some((inner, Some(number.parse().ok()?))),
    }
}

/// The type without any arrays around it.
fn element(mut kind: &str) -> &str {
    while let Some((inner, _)) = array(kind) {
        kind = inner;
    }
    kind
}

/// The size in a name such as `uint256`: of the right multiple, and in range.
fn suffix(kind: &str, name: &str, step: usize, most: usize) -> Option<usize> {
    let size = kind.strip_prefix(name)?.parse().ok()?;
    (size > 0 && size <= most && size % step == 0).then_some(size)
}

fn is_atomic(kind: &str) -> bool {
    matches!(kind, "address" | "bool" | "string" | "bytes" | "uint" | "int")
        || suffix(kind, "uint", 8, 256).is_some()
        || suffix(kind, "int", 8, 256).is_some()
        || suffix(kind, "bytes", 1, 32).is_some()
}

fn atom(kind: &str, value: &Value) -> Option<B256> {
    match kind {
        "address" => Some(value.as_str()?.parse::<Address>().ok()?.into_word()),
        "bool" => Some(U256::from(u8::from(value.as_bool()?)).into()),
        "string" => Some(keccak256(value.as_str()?)),
        "bytes" => Some(keccak256(bytes(value)?)),
        "uint" => unsigned(value, 256),
        "int" => signed(value, 256),
        _ => {
            if let Some(bits) = suffix(kind, "uint", 8, 256) {
                return unsigned(value, bits);
            }
            if let Some(bits) = suffix(kind, "int", 8, 256) {
                return signed(value, bits);
            }
            let size = suffix(kind, "bytes", 1, 32)?;
            let bytes = bytes(value).filter(|bytes| bytes.len() == size)?;
            Some(B256::right_padding_from(&bytes))
        }
    }
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    hex::decode(value.as_str()?.strip_prefix("0x")?).ok()
}

/// A number as JSON, in decimal or in hexadecimal.
fn digits(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}

fn unsigned(value: &Value, bits: usize) -> Option<B256> {
    let number: U256 = digits(value)?.parse().ok()?;
    (number.bit_len() <= bits).then(|| number.into())
}

fn signed(value: &Value, bits: usize) -> Option<B256> {
    let number: I256 = digits(value)?.parse().ok()?;
    (number.bits() as usize <= bits).then(|| number.into_raw().into())
}

#[cfg(test)]
mod tests {
    use alloy_primitives::b256;
    use serde_json::json;

    use super::*;

    fn read(document: Value) -> TypedData {
        serde_json::from_value(document).unwrap()
    }

    fn mail() -> Value {
        json!({
            "types": {
                "EIP712Domain": [
                    { "name": "name", "type": "string" },
                    { "name": "version", "type": "string" },
                    { "name": "chainId", "type": "uint256" },
                    { "name": "verifyingContract", "type": "address" },
                ],
                "Person": [
                    { "name": "name", "type": "string" },
                    { "name": "wallet", "type": "address" },
                ],
                "Mail": [
                    { "name": "from", "type": "Person" },
                    { "name": "to", "type": "Person" },
                    { "name": "contents", "type": "string" },
                ],
            },
            "primaryType": "Mail",
            "domain": {
                "name": "Ether Mail",
                "version": "1",
                "chainId": 1,
                "verifyingContract": "0xCcCCccccCCCCcCCCCCCcCcCccCcCCCcCcccccccC",
            },
            "message": {
                "from": { "name": "Cow", "wallet": "0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826" },
                "to": { "name": "Bob", "wallet": "0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB" },
                "contents": "Hello, Bob!",
            },
        })
    }

    #[test]
    fn the_example_of_the_eip_has_its_hash() {
        let expected = b256!("0xbe609aee343fb3c4b28e1df9e632fca64fcfaede20f02e86244efddf30957bd2");
        assert_eq!(read(mail()).digest(), Ok(expected));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let changed = |pointer: &str, to: Value| {
            let mut document = mail();
            *document.pointer_mut(pointer).unwrap() = to;
            read(document).digest().unwrap_err().to_string()
        };
        let said = changed("/message/to/wallet", json!("0x12"));
        assert_eq!(said, "message.to.wallet is \"0x12\", expected address");
        let said = changed("/types/Mail/2/type", json!("strin"));
        assert_eq!(said, "type strin is not known");
        let said = changed("/domain/chainId", json!(-1));
        assert_eq!(said, "domain.chainId is -1, expected uint256");
    }

    #[test]
    fn a_type_that_contains_itself_ends() {
        let mut message = json!({});
        for _ in 0..DEPTH_MAX + 5 {
            message = json!({ "next": message });
        }
        let document = json!({
            "types": {
                "EIP712Domain": [],
                "Node": [{ "name": "next", "type": "Node" }],
            },
            "primaryType": "Node",
            "domain": {},
            "message": message,
        });
        assert_eq!(read(document).digest(), Err(TypedDataError::Large));
    }

    #[test]
    fn small_numbers_fit_and_large_ones_do_not() {
        let word = |kind: &str, value: Value| atom(kind, &value);
        assert_eq!(word("uint8", json!(255)), Some(U256::from(255).into()));
        assert_eq!(word("uint8", json!(256)), None);
        assert_eq!(word("int8", json!(-128)), Some((U256::MAX - U256::from(127)).into()));
        assert_eq!(word("int8", json!(-129)), None);
        assert_eq!(word("int8", json!("128")), None);
        assert_eq!(word("uint256", json!("0x10")), Some(U256::from(16).into()));
        assert_eq!(
            word("bytes2", json!("0x0102")).map(|word| word[..3].to_vec()),
            Some(vec![1, 2, 0])
        );
        assert_eq!(word("bytes2", json!("0x01")), None);
        assert_eq!(word("uint7", json!(1)), None);
    }
}
