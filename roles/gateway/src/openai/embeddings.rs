//! A request for embeddings, as far as it is looked at while no model here makes any.

use serde_json::value::RawValue;

use super::Problem;
use super::fields::{Fields, items, kind};

/// Texts of one request.
const INPUTS_MAX: usize = 2048;

/// Fields that have a meaning here.
const KNOWN: &[&str] = &["model", "input", "encoding_format", "dimensions"];

/// The model that a request for embeddings names.
///
/// # Errors
/// What is missing or of the wrong type, by name: that comes before what cannot be had.
pub(crate) fn embedded(body: &[u8]) -> Result<String, Problem> {
    let fields = Fields::of_body(body, KNOWN)?;
    let model = fields.string("model")?.ok_or_else(|| Problem::missing("model"))?;
    let input = fields.get("input").ok_or_else(|| Problem::missing("input"))?;
    check_input(input)?;
    fields.integer("dimensions", 1..=i64::from(u32::MAX))?;
    match fields.string("encoding_format")?.as_deref() {
        None | Some("float" | "base64") => Ok(model),
        Some(other) => {
            let message = format!("encoding_format is {other:?}, expected float or base64");
            Err(Problem::invalid_value("encoding_format", message))
        }
    }
}

fn check_input(raw: &RawValue) -> Result<(), Problem> {
    let empty = match kind(raw) {
        "a string" => raw.get() == "\"\"",
        "an array" => items(raw, "input", INPUTS_MAX)?.is_empty(),
        found => return Err(Problem::invalid_type("input", "a string or an array", found)),
    };
    if empty { Err(Problem::invalid_value("input", "input is empty")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_request_is_told_before_what_cannot_be_had() {
        let check = |fields: &str, expected: Result<&str, &str>| {
            let found = embedded(format!(r#"{{"model":"m"{fields}}}"#).as_bytes());
            let found = found.as_deref().map_err(|problem| problem.message.as_str());
            assert_eq!(found, expected, "{fields}");
        };
        check(r#","input":"a""#, Ok("m"));
        check(r#","input":[[1,2]],"encoding_format":"base64""#, Ok("m"));
        check("", Err("input is missing"));
        check(r#","input":"""#, Err("input is empty"));
        check(r#","input":[]"#, Err("input is empty"));
        check(r#","input":1"#, Err("input must be a string or an array, not a number"));
        check(
            r#","input":"a","encoding_format":"x""#,
            Err(r#"encoding_format is "x", expected float or base64"#),
        );
    }
}
