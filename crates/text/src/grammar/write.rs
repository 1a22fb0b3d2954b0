//! Writes grammars for what clients ask for: JSON, a choice, a regular expression, tool calls.
//!
//! JSON is written as models are used to write it: without line breaks, with at most one blank after
//! a comma or colon. A model that is free to choose its white space may write nothing else.

use serde_json::{Map, Value, json};

use crate::calls::{CallFormat, OPEN, Tool};

use super::{GrammarError, check_grammar};

/// How JSON is laid out. A client's own wishes are overwritten, because they may ask for the opposite.
fn layout() -> Value {
    json!({
        "whitespace_flexible": false,
        "item_separator": ", ?",
        "key_separator": ": ?",
        "coerce_one_of": true,
    })
}

/// Any JSON object.
pub fn any_json_object_grammar() -> String {
    format!("start: {}", json_rule(json!({ "type": "object" })))
}

/// What a JSON schema describes; its properties in its own order.
///
/// # Errors
/// [`GrammarError::Refused`] for what is no schema.
pub fn json_schema_grammar(schema: &str) -> Result<String, GrammarError> {
    Ok(format!("start: {}", json_rule(parse_schema(schema)?)))
}

/// One of these texts.
pub fn choice_grammar(choices: &[String]) -> String {
    let choices: Vec<String> = choices.iter().map(|choice| quoted(choice)).collect();
    format!("start: {}", choices.join(" | "))
}

/// What a regular expression describes, from its first character to its last.
pub fn regex_grammar(regex: &str) -> String {
    format!("start: /{}/", llguidance::regex_to_lark(regex, ""))
}

/// What an answer may be that is not a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Otherwise<'a> {
    /// Nothing: it has to call.
    Nothing,
    /// Any words, before calls too.
    Words,
    /// A sentence of another grammar, written by one of these functions.
    Sentence(&'a str),
}

/// Calls of these tools, one or, if `parallel`, any number, as `format` writes them.
///
/// # Errors
/// [`GrammarError::Refused`] for a strict tool whose parameters are no schema that can be followed, for
/// no tool, and for another grammar of several rules.
pub fn tool_calls_grammar(
    tools: &[&Tool],
    format: CallFormat,
    parallel: bool,
    otherwise: Otherwise<'_>,
) -> Result<String, GrammarError> {
    if tools.is_empty() {
        return Err(refused("there is no tool to call"));
    }
    let (open, between, close) = format.frame();
    let literal = |text: &str| if text.is_empty() { String::new() } else { quoted(text) };
    let more = if parallel { format!("({} call)*", quoted(between)) } else { String::new() };
    let calls = |open: &str| [open, "call", &more, &literal(close)].join(" ").trim().to_owned();
    let mut rules = match otherwise {
        Otherwise::Nothing => format!("start: {}\n", calls(&literal(open))),
        Otherwise::Sentence(other) => {
            let other = other.strip_prefix("start: ").filter(|other| !other.contains('\n'));
            let other = other.ok_or_else(|| refused("calls and a grammar of several rules"))?;
            format!("start: {} | other\nother: {other}\n", calls(&literal(open)))
        }
        Otherwise::Words => match format {
            CallFormat::Tagged => {
                let calls = calls(&literal(open.trim_start_matches(OPEN)));
                let mark = OPEN;
                format!(
                    "start: WORDS | opened {calls}\nopened[lazy]: /(?s:.*){mark}/\n\
                     WORDS: /(?s:.*)/ & ~/(?s:.*){mark}(?s:.*)/\n"
                )
            }
            CallFormat::Bare | CallFormat::Listed => {
                let first = if format == CallFormat::Bare { "{" } else { "\\[" };
                let calls = calls(&literal(open));
                format!("start: WORDS | {calls}\nWORDS: /(\\s*[^\\s{first}](?s:.*))?/\n")
            }
        },
    };
    let named: Vec<String> = (0..tools.len()).map(|index| format!("call_{index}")).collect();
    rules += &format!("call: {}\n", named.join(" | "));
    for (index, tool) in tools.iter().enumerate() {
        let head = quoted(&format!(
            "{{\"name\": {}, \"{}\": ",
            Value::from(tool.name.as_str()),
            format.arguments_key()
        ));
        rules += &format!("call_{index}: {head} arguments_{index} \"}}\"\n");
        rules += &format!("arguments_{index}: {}\n", json_rule(arguments(tool)?));
    }
    Ok(rules)
}

/// The schema of a tool's arguments. Of a tool that is not strict, what cannot be followed is any object.
fn arguments(tool: &Tool) -> Result<Value, GrammarError> {
    let Some(schema) = &tool.parameters else {
        return Ok(json!({ "type": "object", "properties": {}, "additionalProperties": false }));
    };
    let followed = || {
        let mut schema = parse_schema(schema)?;
        match &mut schema {
            Value::Object(fields) => {
                fields.entry("type").or_insert_with(|| "object".into());
            }
            _ => schema = json!({ "type": "object" }),
        }
        check_grammar(&format!("start: {}", json_rule(schema.clone())))?;
        Ok(schema)
    };
    match followed() {
        Err(_) if !tool.strict => Ok(json!({ "type": "object" })),
        found => found,
    }
}

fn refused(reason: &str) -> GrammarError {
    GrammarError::Refused { reason: reason.into() }
}

fn parse_schema(schema: &str) -> Result<Value, GrammarError> {
    let refused = |reason: String| GrammarError::Refused { reason };
    let schema: Value = serde_json::from_str(schema)
        .map_err(|error| refused(format!("the schema is not JSON: {error}")))?;
    match schema {
        Value::Object(_) | Value::Bool(true) => Ok(schema),
        _ => Err(refused("a schema is an object".into())),
    }
}

fn json_rule(schema: Value) -> String {
    let mut fields = match schema {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    fields.insert("x-guidance".into(), layout());
    format!("%json {}", Value::Object(fields))
}

/// A literal, in the grammar's language.
fn quoted(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}
