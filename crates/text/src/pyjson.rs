//! `tojson` as chat templates mean it: Python's `json.dumps`, which models were trained on.
//!
//! It differs from the template engine's own filter in its spaces (`{"a": 1, "b": 2}`) and in
//! that `<`, `>`, `&` and `'` stay as they are.

use std::io::{self, Write};

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// Deepest indentation that is written, in spaces per level.
const INDENT_MAX: usize = 16;

/// The filter: `value|tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
///
/// Keys keep their order, unless they are to be sorted. Fails on options Python's filter has and this one lacks.
pub(crate) fn tojson(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    let sorted: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let value = &if sorted == Some(true) { with_sorted_keys(value)? } else { value.clone() };

    let comma = if indent.is_some() { "," } else { ", " };
    let separators = separators.unwrap_or_else(|| vec![comma.to_owned(), ": ".to_owned()]);
    let [item, key] = <[String; 2]>::try_from(separators).map_err(|_| {
        Error::new(ErrorKind::InvalidOperation, "separators are two: between items, after keys")
    })?;
    let python = Python {
        indent: indent.map(|indent| indent.min(INDENT_MAX)),
        item,
        key,
        ascii: ascii.unwrap_or(false),
        depth: 0,
        empty: true,
    };
    let mut json = Vec::new();
    value
        .serialize(&mut Serializer::with_formatter(&mut json, python))
        .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    let json = String::from_utf8(json)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    Ok(Value::from(json))
}

/// The same value, each map in the order of its keys.
fn with_sorted_keys(value: &Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            keys.sort();
            let pairs = keys.into_iter().map(|key| {
                let item = with_sorted_keys(&value.get_item(&key)?)?;
                Ok((key, item))
            });
            Ok(Value::from_pairs(pairs.collect::<Result<Vec<_>, Error>>()?))
        }
        ValueKind::Seq => {
            let items = value.try_iter()?.map(|item| with_sorted_keys(&item));
            Ok(Value::from(items.collect::<Result<Vec<_>, Error>>()?))
        }
        _ => Ok(value.clone()),
    }
}

/// Writes JSON with Python's spaces.
struct Python {
    /// Spaces per level, or everything on one line.
    indent: Option<usize>,
    /// Between items.
    item: String,
    /// Between key and value.
    key: String,
    /// Whether characters beyond ASCII are written as `\u` escapes.
    ascii: bool,
    depth: usize,
    /// Whether the list or object at hand has no item yet.
    empty: bool,
}

impl Python {
    fn begin<W: ?Sized + Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.empty = true;
        writer.write_all(bracket)
    }

    fn end<W: ?Sized + Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if !self.empty {
            self.line(writer)?;
        }
        self.empty = false;
        writer.write_all(bracket)
    }

    fn next<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(self.item.as_bytes())?;
        }
        self.empty = false;
        self.line(writer)
    }

    fn line<W: ?Sized + Write>(&self, writer: &mut W) -> io::Result<()> {
        let Some(indent) = self.indent else { return Ok(()) };
        writer.write_all(b"\n")?;
        (0..indent * self.depth).try_for_each(|_| writer.write_all(b" "))
    }
}

impl Formatter for Python {
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.begin(writer, b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.end(writer, b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.next(writer, first)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.begin(writer, b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.end(writer, b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.next(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.key.as_bytes())
    }

    /// As Python's `repr`: with an exponent of two digits and a sign from 1e16 on, and below 0.0001.
    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        if value == 0.0 || (1e-4..1e16).contains(&value.abs()) {
            return write!(writer, "{value:?}");
        }
        let shortest = format!("{value:e}");
        let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        write!(writer, "{digits}e{sign}{exponent:0>2}")
    }

    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if !self.ascii {
            return writer.write_all(fragment.as_bytes());
        }
        let mut units = [0; 2];
        for letter in fragment.chars() {
            if letter.is_ascii() && letter != '\x7f' {
                write!(writer, "{letter}")?;
                continue;
            }
            for unit in letter.encode_utf16(&mut units) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use minijinja::Environment;

    /// Renders `{{ expression }}` with the filter. The expectations are Python's.
    fn check(expression: &str, expected: &str) {
        let mut environment = Environment::new();
        environment.add_filter("tojson", super::tojson);
        let source = format!("{{{{ {expression} }}}}");
        assert_eq!(environment.render_str(&source, ()).unwrap(), expected, "{expression}");
    }

    #[test]
    fn spaces_are_pythons() {
        check("{'b': 1, 'a': [true, none, 1.5]}|tojson", r#"{"b": 1, "a": [true, null, 1.5]}"#);
        check("[[], {}, '']|tojson", r#"[[], {}, ""]"#);
        check("{'a': 1, 'b': 2}|tojson(separators=(',', ':'))", r#"{"a":1,"b":2}"#);
    }

    #[test]
    fn keys_are_sorted_where_asked() {
        check(
            "{'b': [{'d': 1, 'c': 2}], 'a': {}}|tojson(sort_keys=true)",
            r#"{"a": {}, "b": [{"c": 2, "d": 1}]}"#,
        );
        check("{'b': 1, 'a': 2}|tojson(sort_keys=false)", r#"{"b": 1, "a": 2}"#);
    }

    #[test]
    fn numbers_are_pythons() {
        check("[0.1, 100.0, -0.0, 0.0001]|tojson", "[0.1, 100.0, -0.0, 0.0001]");
        check("[1e16, 1.5e300, -1e15]|tojson", "[1e+16, 1.5e+300, -1000000000000000.0]");
        check("[0.00001, -1.25e-7, 1e-300]|tojson", "[1e-05, -1.25e-07, 1e-300]");
    }

    #[test]
    fn indentation_is_pythons() {
        check(
            "{'a': [1, {}], 'b': []}|tojson(indent=2)",
            "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}",
        );
    }

    #[test]
    fn characters_stay_unless_asked() {
        check("'<é>&\\'\\n😀'|tojson", r#""<é>&'\n😀""#);
        check("'é😀'|tojson(ensure_ascii=true)", r#""\u00e9\ud83d\ude00""#);
    }
}
