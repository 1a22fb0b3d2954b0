//! The safetensors container: a length, a JSON table of tensors, then their bytes without gaps.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::{Bytes, Kind, LoadError, Place, gguf, length};

/// Largest table, the format's own bound.
const HEADER_MAX: u64 = 100_000_000;

/// The table's entries in the order of the document, so that a name given twice can be seen.
struct Table(Vec<(String, Item)>);

/// What the table says of one tensor.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    dtype: String,
    /// Outermost first.
    shape: Vec<u64>,
    /// First byte and the one behind the last, from the end of the table.
    data_offsets: [u64; 2],
}

/// Reads the table of the file that the source will know as `index`.
pub(super) fn read(
    file: &mut dyn Bytes,
    name: &str,
    index: usize,
) -> Result<BTreeMap<String, Place>, LoadError> {
    let size = length(file)?;
    let failed = |source| LoadError::Io { what: name.to_owned(), source };
    if size < 8 {
        let what = format!("the length of the header of {name}");
        return Err(LoadError::Truncated { what, needed: 8, left: size });
    }
    let mut prefix = [0; 8];
    file.read_exact(&mut prefix).map_err(failed)?;
    let header = u64::from_le_bytes(prefix);
    let what = format!("the header of {name}");
    if header > HEADER_MAX {
        return Err(LoadError::TooMuch { what, found: header, max: HEADER_MAX });
    }
    let data = 8 + header;
    if data > size {
        return Err(LoadError::Truncated { what, needed: header, left: size - 8 });
    }
    let mut json = vec![0; header as usize];
    file.read_exact(&mut json).map_err(failed)?;
    let table: Table =
        serde_json::from_slice(&json).map_err(|source| LoadError::Json { what, source })?;
    settle(table, name, index, data, size)
}

/// Turns the table into places in the file that follow one another from `data` to `size`.
fn settle(
    table: Table,
    file_name: &str,
    file: usize,
    data: u64,
    size: u64,
) -> Result<BTreeMap<String, Place>, LoadError> {
    let Table(mut items) = table;
    items.sort_by_key(|(_, item)| item.data_offsets);
    let mut free = data;
    let mut places = BTreeMap::new();
    for (name, item) in items {
        // Which positions there are is known; no tensor of ours holds whole numbers.
        if item.dtype == "I64" && name.ends_with("position_ids") {
            free = passed(&name, &item, free, data, size)?;
            continue;
        }
        let place = place(&name, item, file, free, data)?;
        let left = size - free;
        if place.bytes > left {
            let what = format!("tensor {name}");
            return Err(LoadError::Truncated { what, needed: place.bytes, left });
        }
        free += place.bytes;
        if places.insert(name.clone(), place).is_some() {
            return Err(LoadError::Twice { what: format!("tensor {name}") });
        }
    }
    if free != size {
        return Err(LoadError::Value {
            what: format!("the length of {file_name}"),
            found: size.to_string(),
            expected: format!("{free}, where its last tensor ends"),
        });
    }
    Ok(places)
}

/// Where a tensor of eight-byte numbers ends that nobody reads.
fn passed(name: &str, item: &Item, free: u64, data: u64, size: u64) -> Result<u64, LoadError> {
    let count = item.shape.iter().try_fold(8u64, |bytes, size| bytes.checked_mul(*size));
    let [start, end] = item.data_offsets;
    if start != free - data || count.is_none() || end.checked_sub(start) != count {
        let expected = format!("{}, behind the tensor before, in its sizes", free - data);
        return Err(LoadError::Place { name: name.to_owned(), found: start, expected });
    }
    match data.checked_add(end) {
        Some(end) if end <= size => Ok(end),
        _ => {
            let (needed, left) = (end - start, size - free);
            Err(LoadError::Truncated { what: format!("tensor {name}"), needed, left })
        }
    }
}

/// The place of one tensor, which must begin at `free` and be as long as its sizes say.
fn place(name: &str, item: Item, file: usize, free: u64, data: u64) -> Result<Place, LoadError> {
    let kind = match item.dtype.as_str() {
        "F32" => Kind::F32,
        "F16" => Kind::F16,
        "BF16" => Kind::Bf16,
        _ => return Err(LoadError::Kind { name: name.to_owned(), found: item.dtype }),
    };
    let bytes = gguf::bytes(name, kind, &item.shape)?;
    let [start, end] = item.data_offsets;
    let misplaced = |found, expected| LoadError::Place { name: name.to_owned(), found, expected };
    if start != free - data {
        return Err(misplaced(start, format!("{}, behind the tensor before", free - data)));
    }
    if end.checked_sub(start) != Some(bytes) {
        return Err(misplaced(start, format!("an extent of {bytes} bytes, not up to {end}")));
    }
    Ok(Place { file, offset: free, bytes, kind, sizes: item.shape })
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Table;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a table of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table, A::Error> {
                let mut items = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    // Free text about the file, which has no bearing on the tensors.
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        items.push((name, map.next_value()?));
                    }
                }
                Ok(Table(items))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
