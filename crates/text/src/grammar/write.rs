//! Writes grammars for what clients ask for: JSON, a choice, a regular expression, tool calls.
//!
//! JSON is written as models are used to write it: without line breaks, with at most one blank after
//! a comma or colon. A model that is free to choose its white space may write nothing else.

use serde_json::{Map, Value, json};

use crate::calls::{CallFormat, Tool};

use super::GrammarError;

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

/// Calls of these tools, at least one and, if `parallel`, any number, as `format` writes them.
///
/// # Errors
/// [`GrammarError::Refused`] for a tool whose parameters are no schema, and for no tool.
pub fn tool_calls_grammar(
    tools: &[&Tool],
    format: CallFormat,
    parallel: bool,
) -> Result<String, GrammarError> {
    if tools.is_empty() {
        return Err(GrammarError::Refused { reason: "there is no tool to call".into() });
    }
    let mut rules = String::new();
    for (index, tool) in tools.iter().enumerate() {
        let arguments = match &tool.parameters {
            Some(schema) => parse_schema(schema)?,
            None => json!({ "type": "object", "properties": {}, "additionalProperties": false }),
        };
        let head = quoted(&format!(
            "{{\"name\": {}, \"{}\": ",
            Value::from(tool.name.as_str()),
            format.arguments_key()
        ));
        rules += &format!("call_{index}: {head} arguments_{index} \"}}\"\n");
        rules += &format!("arguments_{index}: {}\n", json_rule(arguments));
    }
    let calls: Vec<String> = (0..tools.len()).map(|index| format!("call_{index}")).collect();
    let (open, between, close) = format.frame();
    let literal = |text: &str| if text.is_empty() { String::new() } else { quoted(text) };
    let more = if parallel { format!("({} call)*", quoted(between)) } else { String::new() };
    let start = [literal(open), "call".to_owned(), more, literal(close)].join(" ");
    Ok(format!("start: {}\ncall: {}\n{rules}", start.trim(), calls.join(" | ")))
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
