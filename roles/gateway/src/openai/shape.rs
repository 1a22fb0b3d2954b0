//! What shape a client wants its answer in: JSON, one of some texts, an expression. All become a
//! grammar.

use assay_text::{
    GrammarError, any_json_object_grammar, check_grammar, choice_grammar, json_schema_grammar,
    regex_grammar,
};
use serde_json::value::RawValue;

use super::Problem;
use super::fields::{Fields, items, kind, string};

/// Texts that an answer may be one of.
const CHOICES_MAX: usize = 1024;

/// Makes a grammar of a field with this name.
type Read = fn(&RawValue, &str) -> Result<String, Problem>;

/// The fields that ask for a shape beside `response_format`, as other servers call them, with what each holds.
const SHAPES: &[(&str, Read)] = &[
    ("guided_json", schema),
    ("guided_regex", regex),
    ("guided_choice", choice),
    ("guided_grammar", lark),
    ("json_schema", schema),
];

/// Fields that [`grammar`] reads.
pub(crate) const FIELDS: &[&str] = &[
    "response_format",
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "json_schema",
];

/// The grammar that a request holds its answer to, if it does.
///
/// # Errors
/// If it asks for two, or for one that cannot be followed.
pub(crate) fn grammar(fields: &Fields<'_>) -> Result<Option<String>, Problem> {
    let mut found: Vec<(String, String)> = Vec::new();
    if let Some(raw) = fields.get("response_format")
        && let Some((name, text)) = response_format(raw)?
    {
        found.push((name, text));
    }
    if let Some(raw) = fields.get("structured_outputs") {
        found.push(structured(raw)?);
    }
    for (name, read) in SHAPES {
        if let Some(raw) = fields.get(name) {
            found.push(((*name).to_owned(), read(raw, name)?));
        }
    }
    match found.as_slice() {
        [] => Ok(None),
        [(name, text)] => {
            check_grammar(text).map_err(|error| refused(name, &error))?;
            Ok(found.pop().map(|(_, text)| text))
        }
        [(first, _), (second, _), ..] => {
            let message = format!("{first} and {second} both say what the answer is to be");
            Err(Problem::invalid_value(second, message))
        }
    }
}

/// The grammar of the Responses API's `text.format`, which is called `at`.
///
/// # Errors
/// As [`grammar`].
pub(crate) fn text_format(raw: &RawValue, at: &str) -> Result<Option<String>, Problem> {
    let Some((name, text)) = format(raw, at, Ok)? else { return Ok(None) };
    check_grammar(&text).map_err(|error| refused(&name, &error))?;
    Ok(Some(text))
}

/// The chat API's field: its schema's name and grammar.
fn response_format(raw: &RawValue) -> Result<Option<(String, String)>, Problem> {
    format(raw, "response_format", |fields| {
        let name = fields.name("json_schema");
        let raw = fields.get("json_schema").ok_or_else(|| Problem::missing(&name))?;
        Fields::of(raw, name, SCHEMA)
    })
}

/// Fields of a named schema; in one API they stand beside its type, in the other within it.
const SCHEMA: &[&str] = &["type", "name", "schema", "strict", "description", "json_schema"];

/// A format's name and grammar; `within` finds the fields of its schema.
fn format<'a>(
    raw: &'a RawValue,
    at: &str,
    within: impl FnOnce(Fields<'a>) -> Result<Fields<'a>, Problem>,
) -> Result<Option<(String, String)>, Problem> {
    let fields = Fields::of(raw, at.into(), SCHEMA)?;
    let name = fields.name("type");
    match fields.string("type")?.ok_or_else(|| Problem::missing(&name))?.as_str() {
        "text" => Ok(None),
        "json_object" => Ok(Some((at.into(), any_json_object_grammar()))),
        "json_schema" => {
            let fields = within(fields)?;
            fields.string("name")?.ok_or_else(|| Problem::missing(&fields.name("name")))?;
            // A schema that is not strict is one that may be kept to all the same.
            fields.boolean("strict")?;
            let name = fields.name("schema");
            let text = match fields.get("schema") {
                Some(raw) => schema(raw, &name)?,
                None => any_json_object_grammar(),
            };
            Ok(Some((name, text)))
        }
        other => {
            let message = format!("{name} is {other:?}, expected text, json_object or json_schema");
            Err(Problem::invalid_value(&name, message))
        }
    }
}

/// vLLM's field.
fn structured(raw: &RawValue) -> Result<(String, String), Problem> {
    let known = &["json", "regex", "choice", "grammar", "json_object"];
    let fields = Fields::of(raw, "structured_outputs".into(), known)?;
    let kinds: [(&str, Read); 4] =
        [("json", schema), ("regex", regex), ("choice", choice), ("grammar", lark)];
    let mut found = Vec::new();
    for (kind, read) in kinds {
        if let Some(raw) = fields.get(kind) {
            let name = fields.name(kind);
            found.push((name.clone(), read(raw, &name)?));
        }
    }
    if fields.boolean("json_object")? == Some(true) {
        found.push((fields.name("json_object"), any_json_object_grammar()));
    }
    match (found.pop(), found.is_empty()) {
        (Some(only), true) => Ok(only),
        _ => {
            let message =
                "structured_outputs says one of json, regex, choice, grammar, json_object";
            Err(Problem::invalid_value("structured_outputs", message))
        }
    }
}

fn schema(raw: &RawValue, name: &str) -> Result<String, Problem> {
    let text = match kind(raw) {
        "an object" => raw.get().to_owned(),
        // Some clients send the schema as a string of JSON.
        "a string" => string(raw, name)?,
        found => return Err(Problem::invalid_type(name, "an object", found)),
    };
    json_schema_grammar(&text).map_err(|error| refused(name, &error))
}

fn regex(raw: &RawValue, name: &str) -> Result<String, Problem> {
    match string(raw, name)?.as_str() {
        "" => Err(Problem::invalid_value(name, format!("{name} is empty"))),
        regex => Ok(regex_grammar(regex)),
    }
}

fn choice(raw: &RawValue, name: &str) -> Result<String, Problem> {
    let listed = items(raw, name, CHOICES_MAX)?.into_iter().enumerate();
    let choices: Vec<String> = listed
        .map(|(index, raw)| string(raw, &format!("{name}[{index}]")))
        .collect::<Result<_, _>>()?;
    if choices.is_empty() || choices.iter().any(String::is_empty) {
        return Err(Problem::invalid_value(name, format!("{name} needs texts that are not empty")));
    }
    Ok(choice_grammar(&choices))
}

fn lark(raw: &RawValue, name: &str) -> Result<String, Problem> {
    string(raw, name)
}

pub(crate) fn refused(name: &str, error: &GrammarError) -> Problem {
    Problem::invalid_schema(name, format!("{name}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: &str) {
        let said = match Fields::of_body(body.as_bytes(), &[FIELDS]).and_then(|f| grammar(&f)) {
            Ok(Some(text)) => text,
            Ok(None) => "none".into(),
            Err(problem) => format!("{}: {}", problem.code, problem.message),
        };
        assert!(said.starts_with(expected), "{body}: {said}");
    }

    #[test]
    fn every_shape_has_a_known_field() {
        assert!(SHAPES.iter().all(|(name, _)| FIELDS.contains(name)));
    }

    #[test]
    fn every_way_to_ask_becomes_a_grammar() {
        check("{}", "none");
        check(r#"{"response_format":{"type":"text"}}"#, "none");
        check(r#"{"response_format":{"type":"json_object"}}"#, r#"start: %json {"type":"object""#);
        check(
            r#"{"response_format":{"type":"json_schema","json_schema":{"name":"n","strict":true,"schema":{"type":"null"}}}}"#,
            r#"start: %json {"type":"null","x-guidance""#,
        );
        check(r#"{"structured_outputs":{"choice":["a","b"]}}"#, r#"start: "a" | "b""#);
        check(r#"{"guided_regex":"[a/]"}"#, r"start: /[a\/]/");
        check(r#"{"structured_outputs":{"grammar":"start: \"x\""}}"#, r#"start: "x""#);
    }

    #[test]
    fn what_cannot_be_followed_is_refused_by_name() {
        check(r#"{"response_format":{"type":"xml"}}"#, "invalid_value: response_format.type is");
        check(r#"{"response_format":{}}"#, "missing_required_parameter: response_format.type");
        check(
            r#"{"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"owl"}}}}"#,
            "invalid_json_schema: response_format.json_schema.schema: the grammar cannot be followed: Invalid type: owl",
        );
        check(r#"{"guided_regex":"(["}"#, "invalid_json_schema: guided_regex: ");
        check(r#"{"guided_regex":""}"#, "invalid_value: guided_regex is empty");
        check(r#"{"guided_choice":[]}"#, "invalid_value: guided_choice needs");
        check(r#"{"structured_outputs":{}}"#, "invalid_value: structured_outputs says one of");
        check(
            r#"{"guided_regex":"a","guided_choice":["b"]}"#,
            "invalid_value: guided_regex and guided_choice both say",
        );
    }
}
