//! The GGUF container, versions 2 and 3: metadata by key, tensors by name, nothing about any family.
//!
//! Layout, little endian: magic, version, number of tensors, number of keys, the keys with their
//! values, the tensors' names, sizes, types and offsets, padding to the alignment, data. Lengths
//! are stated before what they measure, so each is held against what is left of the file before
//! any memory is taken for it.

use std::collections::btree_map::{BTreeMap, Entry};
use std::io::{BufReader, Read};
use std::ops::RangeInclusive;

use super::{Bytes, Kind, LoadError, Place, length};

const MAGIC: [u8; 4] = *b"GGUF";
/// In little endian they are the same.
const VERSIONS: RangeInclusive<u32> = 2..=3;
/// Largest header: everything before the tensor data.
const HEADER_MAX: u64 = 256 << 20;
/// Most keys; published models have some forty.
const KEYS_MAX: u64 = 1 << 12;
/// Most tensors; the largest published models have a few thousand.
const TENSORS_MAX: u64 = 1 << 16;
/// Longest name of a key or a tensor in bytes, the format's own bound for keys.
const NAME_MAX: u64 = (1 << 16) - 1;
/// Most array elements in all values together; a vocabulary of 2^20 with merges fits.
const ELEMENTS_MAX: u64 = 1 << 22;
/// Most dimensions of a tensor, the format's own bound.
const DIMENSIONS_MAX: u32 = 4;
/// Largest alignment.
const ALIGNMENT_MAX: u64 = 1 << 20;
const ALIGNMENT_DEFAULT: u64 = 32;

/// A GGUF file's header, checked against the file's length.
pub(super) struct Header {
    pub(super) metadata: Metadata,
    /// Every place lies within the file, aligned, and over no other.
    pub(super) tensors: BTreeMap<String, Place>,
}

/// The values of a GGUF file by key.
pub(super) struct Metadata(BTreeMap<String, Value>);

/// A value, in as many forms as its readers tell apart.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Any of the integer types.
    Integer(i128),
    /// A binary32.
    Float(f32),
    Bool(bool),
    Text(String),
    /// An array of strings.
    Texts(Vec<String>),
    /// An array of signed or unsigned integers of at most 32 bits.
    Integers(Vec<i64>),
    /// An array of binary32, by their bits.
    Floats(Vec<u32>),
    /// An array of integers of eight bits, signed or not.
    Bytes(Vec<u8>),
    /// A type that no reader asks for: its name, the value skipped.
    Other(&'static str),
}

/// Whether the bytes begin as a GGUF file does; leaves the cursor at the start.
pub(super) fn is_gguf(file: &mut dyn Bytes) -> Result<bool, LoadError> {
    let failed = |source| LoadError::Io { what: "the first bytes".to_owned(), source };
    let mut start = Vec::new();
    Read::take(&mut *file, 4).read_to_end(&mut start).map_err(failed)?;
    file.rewind().map_err(failed)?;
    Ok(start == MAGIC)
}

/// Reads the header.
pub(super) fn read(file: &mut dyn Bytes) -> Result<Header, LoadError> {
    let size = length(file)?;
    let mut cursor = Cursor { input: BufReader::new(file), at: 0, size, elements: 0 };
    let magic = cursor.array::<4>("the magic number")?;
    if magic != MAGIC {
        return Err(LoadError::Value {
            what: "the magic number".to_owned(),
            found: format!("{magic:02x?}"),
            expected: format!("{MAGIC:02x?}"),
        });
    }
    let version = cursor.u32("the version")?;
    if !VERSIONS.contains(&version) {
        return Err(LoadError::Version { found: version, expected: VERSIONS });
    }
    let tensors = cursor.count("the number of tensors", TENSORS_MAX)?;
    let keys = cursor.count("the number of keys", KEYS_MAX)?;
    let metadata = read_metadata(&mut cursor, keys)?;
    let alignment = alignment(&metadata)?;
    let tensors = read_tensors(&mut cursor, tensors)?;
    // At most 2^28 + 2^20: no overflow.
    let data = cursor.at.next_multiple_of(alignment);
    let tensors = settle(tensors, data, alignment, size)?;
    Ok(Header { metadata, tensors })
}

fn read_metadata<R: Read>(cursor: &mut Cursor<R>, keys: u64) -> Result<Metadata, LoadError> {
    let mut values = BTreeMap::new();
    for index in 0..keys {
        let key = cursor.text(&format!("key {index}"), NAME_MAX)?;
        let value = cursor.value(&key)?;
        match values.entry(key) {
            Entry::Vacant(entry) => entry.insert(value),
            Entry::Occupied(entry) => {
                return Err(LoadError::Twice { what: format!("key {}", entry.key()) });
            }
        };
    }
    Ok(Metadata(values))
}

fn alignment(metadata: &Metadata) -> Result<u64, LoadError> {
    let key = "general.alignment";
    let alignment = metadata.count(key, ALIGNMENT_MAX)?.unwrap_or(ALIGNMENT_DEFAULT as usize);
    if !alignment.is_power_of_two() {
        return Err(LoadError::Value {
            what: key.to_owned(),
            found: alignment.to_string(),
            expected: "a power of two".to_owned(),
        });
    }
    Ok(alignment as u64)
}

/// Reads what the header says of each tensor; offsets are still relative and unchecked.
fn read_tensors<R: Read>(
    cursor: &mut Cursor<R>,
    tensors: u64,
) -> Result<BTreeMap<String, Place>, LoadError> {
    let mut places = BTreeMap::new();
    for index in 0..tensors {
        let name = cursor.text(&format!("the name of tensor {index}"), NAME_MAX)?;
        let place = read_tensor(cursor, &name)?;
        if places.insert(name.clone(), place).is_some() {
            return Err(LoadError::Twice { what: format!("tensor {name}") });
        }
    }
    Ok(places)
}

fn read_tensor<R: Read>(cursor: &mut Cursor<R>, name: &str) -> Result<Place, LoadError> {
    let what = format!("the number of dimensions of tensor {name}");
    let dimensions = cursor.u32(&what)?;
    if dimensions > DIMENSIONS_MAX {
        let (found, max) = (dimensions.into(), DIMENSIONS_MAX.into());
        return Err(LoadError::TooMuch { what, found, max });
    }
    let mut sizes = Vec::new();
    for _ in 0..dimensions {
        sizes.push(cursor.u64(&format!("a size of tensor {name}"))?);
    }
    // The file states the innermost first.
    sizes.reverse();
    let kind = kind(name, cursor.u32(&format!("the type of tensor {name}"))?)?;
    let offset = cursor.u64(&format!("the offset of tensor {name}"))?;
    let bytes = bytes(name, kind, &sizes)?;
    Ok(Place { file: 0, offset, bytes, kind, sizes })
}

fn kind(name: &str, code: u32) -> Result<Kind, LoadError> {
    let unknown = || LoadError::Kind { name: name.to_owned(), found: format!("ggml {code}") };
    Kind::from_ggml(code).ok_or_else(unknown)
}

/// Bytes of a tensor of these sizes, outermost first.
pub(super) fn bytes(name: &str, kind: Kind, sizes: &[u64]) -> Result<u64, LoadError> {
    let columns = sizes.last().copied().unwrap_or(0);
    let block = kind.block().0 as u64;
    if columns == 0 || columns % block != 0 {
        return Err(LoadError::Block { name: name.to_owned(), found: columns, block });
    }
    sizes
        .iter()
        .try_fold(1u64, |product, &size| product.checked_mul(size).filter(|&p| p > 0))
        .and_then(|elements| kind.bytes(elements))
        .ok_or_else(|| LoadError::TooMuch {
            what: format!("the size of tensor {name}"),
            found: u64::MAX,
            max: i64::MAX as u64,
        })
}

/// Turns relative offsets into places in the file, each aligned, inside, and over no other.
fn settle(
    mut tensors: BTreeMap<String, Place>,
    data: u64,
    alignment: u64,
    size: u64,
) -> Result<BTreeMap<String, Place>, LoadError> {
    let mut order: Vec<(&String, &mut Place)> = tensors.iter_mut().collect();
    order.sort_by_key(|(_, place)| place.offset);
    let mut free = data;
    for (name, place) in order {
        let misplaced = |found, expected| LoadError::Place { name: name.clone(), found, expected };
        if place.offset % alignment != 0 {
            return Err(misplaced(place.offset, format!("a multiple of {alignment}")));
        }
        let offset = data.saturating_add(place.offset);
        let left = size.saturating_sub(offset);
        if place.bytes > left {
            let what = format!("tensor {name}");
            return Err(LoadError::Truncated { what, needed: place.bytes, left });
        }
        if offset < free {
            return Err(misplaced(offset, format!("{free} or later, behind another tensor")));
        }
        place.offset = offset;
        free = offset + place.bytes;
    }
    Ok(tensors)
}

impl Metadata {
    /// The keys that begin with `prefix`, with their values.
    pub(super) fn under<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Value)> + 'a {
        let values = self.0.iter().map(|(key, value)| (key.as_str(), value));
        values.filter(move |(key, _)| key.starts_with(prefix))
    }

    /// A whole number from 1 to `max`.
    pub(super) fn count(&self, key: &str, max: u64) -> Result<Option<usize>, LoadError> {
        let Some(number) = self.integer(key)? else { return Ok(None) };
        if number > i128::from(max) {
            let found = u64::try_from(number).unwrap_or(u64::MAX);
            return Err(LoadError::TooMuch { what: key.to_owned(), found, max });
        }
        match usize::try_from(number) {
            Ok(count) if count > 0 => Ok(Some(count)),
            _ => Err(LoadError::Value {
                what: key.to_owned(),
                found: number.to_string(),
                expected: "a positive number".to_owned(),
            }),
        }
    }

    /// A token id, which must be below `vocab`.
    pub(super) fn token(&self, key: &str, vocab: usize) -> Result<Option<u32>, LoadError> {
        let Some(number) = self.integer(key)? else { return Ok(None) };
        match u32::try_from(number) {
            Ok(token) if (token as usize) < vocab => Ok(Some(token)),
            _ => Err(LoadError::Value {
                what: key.to_owned(),
                found: number.to_string(),
                expected: format!("a token id below {vocab}"),
            }),
        }
    }

    fn integer(&self, key: &str) -> Result<Option<i128>, LoadError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Integer(number)) => Ok(Some(*number)),
            Some(other) => Err(other.is_not(key, "integer")),
        }
    }

    /// A binary32.
    pub(super) fn float(&self, key: &str) -> Result<Option<f32>, LoadError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Float(number)) => Ok(Some(*number)),
            Some(other) => Err(other.is_not(key, "f32")),
        }
    }

    /// A truth value.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, LoadError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(other.is_not(key, "bool")),
        }
    }

    /// A string.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, LoadError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other) => Err(other.is_not(key, "string")),
        }
    }

    /// An array of strings.
    pub(super) fn texts(&self, key: &str) -> Result<Option<&[String]>, LoadError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Texts(texts)) => Ok(Some(texts)),
            Some(other) => Err(other.is_not(key, "array of strings")),
        }
    }

    /// An array of binary32, by their bits.
    pub(super) fn floats(&self, key: &str) -> Result<Option<&[u32]>, LoadError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Floats(bits)) => Ok(Some(bits)),
            Some(other) => Err(other.is_not(key, "array of f32")),
        }
    }

    /// An array of bytes.
    pub(super) fn bytes(&self, key: &str) -> Result<Option<&[u8]>, LoadError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Bytes(bytes)) => Ok(Some(bytes)),
            Some(other) => Err(other.is_not(key, "array of bytes")),
        }
    }

    /// An array of integers.
    pub(super) fn integers(&self, key: &str) -> Result<Option<&[i64]>, LoadError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Integers(integers)) => Ok(Some(integers)),
            Some(other) => Err(other.is_not(key, "array of integers")),
        }
    }
}

impl Value {
    fn is_not(&self, key: &str, expected: &'static str) -> LoadError {
        let found = match self {
            Value::Integer(_) => "integer",
            Value::Float(_) => "f32",
            Value::Bool(_) => "bool",
            Value::Text(_) => "string",
            Value::Texts(_) => "array of strings",
            Value::Integers(_) => "array of integers",
            Value::Floats(_) => "array of f32",
            Value::Bytes(_) => "array of bytes",
            Value::Other(name) => name,
        };
        LoadError::Type { what: key.to_owned(), found: found.to_owned(), expected }
    }
}

impl std::fmt::Display for Value {
    /// The value where it is short, else its type.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Integer(number) => write!(f, "{number}"),
            Value::Float(number) => write!(f, "{number}"),
            Value::Bool(flag) => write!(f, "{flag}"),
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Texts(_) | Value::Integers(_) | Value::Floats(_) | Value::Bytes(_) => {
                f.write_str("an array")
            }
            Value::Other(name) => f.write_str(name),
        }
    }
}

/// Reads the header front to back, never past the file and never past [`HEADER_MAX`].
struct Cursor<R> {
    input: BufReader<R>,
    /// Bytes read so far.
    at: u64,
    /// Bytes in the file.
    size: u64,
    /// Array elements read so far.
    elements: u64,
}

impl<R: Read> Cursor<R> {
    /// Makes sure that `needed` bytes can be read.
    fn reserve(&self, what: &str, needed: u64) -> Result<(), LoadError> {
        let left = self.size.saturating_sub(self.at);
        if needed > left {
            return Err(LoadError::Truncated { what: what.to_owned(), needed, left });
        }
        let found = self.at.saturating_add(needed);
        if found > HEADER_MAX {
            let what = format!("the header up to {what}");
            return Err(LoadError::TooMuch { what, found, max: HEADER_MAX });
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], LoadError> {
        self.reserve(what, N as u64)?;
        let mut bytes = [0; N];
        let failed = |source| LoadError::Io { what: what.to_owned(), source };
        self.input.read_exact(&mut bytes).map_err(failed)?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn u32(&mut self, what: &str) -> Result<u32, LoadError> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, LoadError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count of at most `max`; the format's signed counts are read as unsigned, so a negative
    /// one is too large.
    fn count(&mut self, what: &str, max: u64) -> Result<u64, LoadError> {
        match self.u64(what)? {
            found if found > max => Err(LoadError::TooMuch { what: what.to_owned(), found, max }),
            count => Ok(count),
        }
    }

    fn bytes(&mut self, what: &str, max: u64) -> Result<Vec<u8>, LoadError> {
        let length = self.u64(what)?;
        if length > max {
            let what = format!("the length of {what}");
            return Err(LoadError::TooMuch { what, found: length, max });
        }
        self.reserve(what, length)?;
        let mut bytes = vec![0; length as usize];
        let failed = |source| LoadError::Io { what: what.to_owned(), source };
        self.input.read_exact(&mut bytes).map_err(failed)?;
        self.at += length;
        Ok(bytes)
    }

    fn text(&mut self, what: &str, max: u64) -> Result<String, LoadError> {
        let bytes = self.bytes(what, max)?;
        String::from_utf8(bytes).map_err(|_| LoadError::NotText { what: what.to_owned() })
    }

    fn flag(&mut self, what: &str) -> Result<bool, LoadError> {
        match self.array::<1>(what)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [byte] => Err(LoadError::Value {
                what: what.to_owned(),
                found: byte.to_string(),
                expected: "0 or 1".to_owned(),
            }),
        }
    }

    fn value(&mut self, key: &str) -> Result<Value, LoadError> {
        let code = self.u32(&format!("the type of {key}"))?;
        Ok(match code {
            4 => Value::Integer(self.u32(key)?.into()),
            5 => Value::Integer(i32::from_le_bytes(self.array(key)?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array(key)?)),
            7 => Value::Bool(self.flag(key)?),
            8 => Value::Text(self.text(key, HEADER_MAX)?),
            9 => self.values(key)?,
            10 => Value::Integer(self.u64(key)?.into()),
            11 => Value::Integer(i64::from_le_bytes(self.array(key)?).into()),
            12 => self.skip(key, 8, "f64")?,
            0 => Value::Integer(u8::from_le_bytes(self.array(key)?).into()),
            1 => Value::Integer(i8::from_le_bytes(self.array(key)?).into()),
            2 => Value::Integer(u16::from_le_bytes(self.array(key)?).into()),
            3 => Value::Integer(i16::from_le_bytes(self.array(key)?).into()),
            _ => return Err(unknown_type(key, code)),
        })
    }

    fn values(&mut self, key: &str) -> Result<Value, LoadError> {
        let code = self.u32(&format!("the element type of {key}"))?;
        let count = self.elements(key)?;
        // Smallest size an element can have; a string's is its length alone.
        let least = match code {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => {
                let found = "array of arrays".to_owned();
                return Err(LoadError::Type { what: key.to_owned(), found, expected: "array" });
            }
            _ => return Err(unknown_type(key, code)),
        };
        // At most 2^22 · 8: no overflow.
        self.reserve(key, count * least)?;
        match code {
            0 | 1 => self.collect(count, |it| it.array(key).map(|[byte]| byte)).map(Value::Bytes),
            4 => self.collect(count, |it| it.u32(key).map(i64::from)).map(Value::Integers),
            5 => self
                .collect(count, |it| it.array(key).map(|b| i32::from_le_bytes(b).into()))
                .map(Value::Integers),
            6 => self.collect(count, |it| it.u32(key)).map(Value::Floats),
            7 => {
                self.collect(count, |it| it.flag(key))?;
                Ok(Value::Other("array of bools"))
            }
            8 => self.collect(count, |it| it.text(key, HEADER_MAX)).map(Value::Texts),
            _ => self.skip(key, count * least, "array of other numbers"),
        }
    }

    /// The number of elements of the next array, counted towards [`ELEMENTS_MAX`].
    fn elements(&mut self, key: &str) -> Result<u64, LoadError> {
        let count = self.u64(&format!("the length of {key}"))?;
        self.elements = self.elements.saturating_add(count);
        if self.elements > ELEMENTS_MAX {
            let what = format!("the number of array elements up to {key}");
            return Err(LoadError::TooMuch { what, found: self.elements, max: ELEMENTS_MAX });
        }
        Ok(count)
    }

    fn collect<T>(
        &mut self,
        count: u64,
        mut next: impl FnMut(&mut Self) -> Result<T, LoadError>,
    ) -> Result<Vec<T>, LoadError> {
        (0..count).map(|_| next(self)).collect()
    }

    /// Passes over a value that no reader asks for.
    fn skip(&mut self, key: &str, bytes: u64, name: &'static str) -> Result<Value, LoadError> {
        self.reserve(key, bytes)?;
        let mut ignored = Read::take(&mut self.input, bytes);
        let failed = |source| LoadError::Io { what: key.to_owned(), source };
        std::io::copy(&mut ignored, &mut std::io::sink()).map_err(failed)?;
        self.at += bytes;
        Ok(Value::Other(name))
    }
}

fn unknown_type(key: &str, code: u32) -> LoadError {
    let found = format!("{code}, which does not exist");
    LoadError::Type { what: key.to_owned(), found, expected: "0 to 12" }
}
