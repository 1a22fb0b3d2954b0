//! Reads a JSON object's known fields, and says well what is wrong with them.
//!
//! Only known fields are kept, as slices of the body, and lists are bounded. So what a body
//! takes in memory never exceeds a small multiple of its length.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;

use super::Problem;

/// The known fields of one object.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    /// What the object is called, such as `messages[3]`; empty for the body.
    at: String,
    values: BTreeMap<&'static str, &'a RawValue>,
}

impl<'a> Fields<'a> {
    /// The fields of the whole body that are in one of the lists `known`.
    pub(crate) fn of_body(
        body: &'a [u8],
        known: &[&'static [&'static str]],
    ) -> Result<Self, Problem> {
        let mut json = serde_json::Deserializer::from_slice(body);
        let values = Known(known).deserialize(&mut json).map_err(Problem::json)?;
        json.end().map_err(Problem::json)?;
        Ok(Self { at: String::new(), values })
    }

    /// The fields of the object `raw`, which is called `at`.
    pub(crate) fn of(
        raw: &'a RawValue,
        at: String,
        known: &'static [&'static str],
    ) -> Result<Self, Problem> {
        if !raw.get().starts_with('{') {
            return Err(Problem::invalid_type(&at, "an object", kind(raw)));
        }
        let mut json = serde_json::Deserializer::from_str(raw.get());
        let values = Known(&[known])
            .deserialize(&mut json)
            .map_err(|error| Problem::invalid_value(&at, format!("{at}: {error}")))?;
        Ok(Self { at, values })
    }

    /// A field's full name.
    pub(crate) fn name(&self, field: &str) -> String {
        if self.at.is_empty() { field.to_owned() } else { format!("{}.{field}", self.at) }
    }

    /// A field; `null` is as good as none.
    pub(crate) fn get(&self, field: &str) -> Option<&'a RawValue> {
        self.values.get(field).copied().filter(|raw| raw.get() != "null")
    }

    pub(crate) fn string(&self, field: &str) -> Result<Option<String>, Problem> {
        self.get(field).map(|raw| string(raw, &self.name(field))).transpose()
    }

    pub(crate) fn boolean(&self, field: &str) -> Result<Option<bool>, Problem> {
        let read = |raw: &RawValue| match raw.get() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(Problem::invalid_type(&self.name(field), "a boolean", kind(raw))),
        };
        self.get(field).map(read).transpose()
    }

    /// A number within `range`.
    pub(crate) fn number(
        &self,
        field: &str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f64>, Problem> {
        self.get(field).map(|raw| number(raw, &self.name(field), &range)).transpose()
    }

    /// An integer within `range`.
    pub(crate) fn integer(
        &self,
        field: &str,
        range: RangeInclusive<i64>,
    ) -> Result<Option<i64>, Problem> {
        let Some(raw) = self.get(field) else { return Ok(None) };
        let name = self.name(field);
        if kind(raw) != "a number" {
            return Err(Problem::invalid_type(&name, "an integer", kind(raw)));
        }
        let text = raw.get();
        let Ok(value) = text.parse::<i64>() else {
            if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
                return Err(outside(&name, text, range.start(), range.end()));
            }
            return Err(Problem::invalid_type(&name, "an integer", "a fraction"));
        };
        if !range.contains(&value) {
            return Err(outside(&name, text, range.start(), range.end()));
        }
        Ok(Some(value))
    }
}

fn outside(name: &str, found: &str, low: impl fmt::Display, high: impl fmt::Display) -> Problem {
    Problem::invalid_value(name, format!("{name} is {found}, expected {low} to {high}"))
}

/// The number `raw`, called `name`, if it is one within `range`.
pub(crate) fn number(
    raw: &RawValue,
    name: &str,
    range: &RangeInclusive<f64>,
) -> Result<f64, Problem> {
    if kind(raw) != "a number" {
        return Err(Problem::invalid_type(name, "a number", kind(raw)));
    }
    match raw.get().parse::<f64>() {
        Ok(value) if range.contains(&value) => Ok(value),
        _ => Err(outside(name, raw.get(), range.start(), range.end())),
    }
}

/// The string `raw`, called `name`.
pub(crate) fn string(raw: &RawValue, name: &str) -> Result<String, Problem> {
    if kind(raw) != "a string" {
        return Err(Problem::invalid_type(name, "a string", kind(raw)));
    }
    serde_json::from_str(raw.get())
        .map_err(|error| Problem::invalid_value(name, format!("{name}: {error}")))
}

/// The items of the list `raw`, called `name`, if there are at most `max`.
pub(crate) fn items<'a>(
    raw: &'a RawValue,
    name: &str,
    max: usize,
) -> Result<Vec<&'a RawValue>, Problem> {
    if kind(raw) != "an array" {
        return Err(Problem::invalid_type(name, "an array", kind(raw)));
    }
    let mut json = serde_json::Deserializer::from_str(raw.get());
    json.deserialize_seq(Items(max))
        .map_err(|_| Problem::invalid_value(name, format!("{name} has more than {max} items")))
}

/// The entries of the object `raw`, called `name`, if there are at most `max`.
pub(crate) fn entries<'a>(
    raw: &'a RawValue,
    name: &str,
    max: usize,
) -> Result<Vec<(String, &'a RawValue)>, Problem> {
    if kind(raw) != "an object" {
        return Err(Problem::invalid_type(name, "an object", kind(raw)));
    }
    let mut json = serde_json::Deserializer::from_str(raw.get());
    json.deserialize_map(Entries(max))
        .map_err(|_| Problem::invalid_value(name, format!("{name} has more than {max} entries")))
}

/// What a JSON value is, in a sentence.
pub(crate) fn kind(raw: &RawValue) -> &'static str {
    match raw.get().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

struct Known<'k>(&'k [&'static [&'static str]]);

impl<'de> DeserializeSeed<'de> for Known<'_> {
    type Value = BTreeMap<&'static str, &'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Known<'_> {
    type Value = BTreeMap<&'static str, &'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut values = BTreeMap::new();
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            match self.0.iter().copied().flatten().find(|known| **known == key) {
                Some(known) => {
                    values.insert(*known, map.next_value()?);
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(values)
    }
}

struct Items(usize);

impl<'de> Visitor<'de> for Items {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Self::Value, S::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            if items.len() == self.0 {
                return Err(S::Error::custom("too many"));
            }
            items.push(item);
        }
        Ok(items)
    }
}

struct Entries(usize);

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            if entries.len() == self.0 {
                return Err(M::Error::custom("too many"));
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}
