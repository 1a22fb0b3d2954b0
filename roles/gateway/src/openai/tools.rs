//! What a client lets the model call, and whether it has to.
//!
//! Tools are shown to the model in its prompt. Calls that are required, or strict, are held to their
//! schemas by a grammar; all others are read out of what the model writes.

use assay_text::{CallFormat, Otherwise, Tool, check_grammar, tool_calls_grammar};
use serde_json::Value;
use serde_json::value::RawValue;

use super::Problem;
use super::fields::{Fields, items, kind, string};
use super::shape::refused;

/// Tools of one request.
const TOOLS_MAX: usize = 128;

/// Letters of a tool's name.
const NAME_MAX: usize = 64;

/// Fields of the chat API that [`Calling::of_chat`] reads.
pub(crate) const FIELDS: &[&str] =
    &["tools", "tool_choice", "parallel_tool_calls", "functions", "function_call"];

/// What may be called in an answer; at least one tool.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Calling {
    /// What the model is shown.
    pub(crate) shown: Vec<Tool>,
    /// What of that may be called.
    pub(crate) offered: Vec<Tool>,
    /// Whether there has to be a call.
    pub(crate) required: bool,
    /// Whether there may be several.
    pub(crate) parallel: bool,
    /// Whether it is asked for, and told, by the names that tools had first.
    pub(crate) as_function: bool,
}

/// Where an API writes a tool's name and schema.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    /// In an object `function` beside its type.
    Nested,
    /// Beside its type.
    Flat,
    /// Without a type.
    Bare,
}

/// Which of the tools may be called.
#[derive(Debug, PartialEq)]
enum Choice {
    None,
    Auto,
    Required,
    /// This one, once.
    One(String),
    /// These, of which one has to be called or not.
    Of(Vec<String>, bool),
}

impl Calling {
    /// Reads the chat API's fields.
    ///
    /// # Errors
    /// What is wrong with them or not supported, by name.
    pub(crate) fn of_chat(fields: &Fields<'_>) -> Result<Option<Self>, Problem> {
        let calling = Self::read(fields, ("tools", "tool_choice"), Style::Nested)?;
        let older = Self::read(fields, ("functions", "function_call"), Style::Bare)?;
        match (calling, older) {
            (Some(_), Some(_)) => {
                let message = "functions is the older name of tools; one of both is enough";
                Err(Problem::invalid_value("functions", message))
            }
            (None, Some(older)) => Ok(Some(Self { parallel: false, as_function: true, ..older })),
            (calling, None) => Ok(calling),
        }
    }

    /// Reads the Responses API's fields.
    ///
    /// # Errors
    /// What is wrong with them or not supported, by name.
    pub(crate) fn of_response(fields: &Fields<'_>) -> Result<Option<Self>, Problem> {
        Self::read(fields, ("tools", "tool_choice"), Style::Flat)
    }

    fn read(
        fields: &Fields<'_>,
        (list, choice): (&'static str, &'static str),
        style: Style,
    ) -> Result<Option<Self>, Problem> {
        let parallel = fields.boolean("parallel_tool_calls")?.unwrap_or(true);
        let chosen = fields.get(choice).map(|raw| self::choice(raw, choice, style)).transpose()?;
        let listed = fields.get(list).map(|raw| items(raw, list, TOOLS_MAX)).transpose()?;
        let listed = listed.unwrap_or_default();
        let chosen = chosen.unwrap_or(Choice::Auto);
        // What may not be called is not shown, and cannot change the answer.
        if chosen == Choice::None || listed.is_empty() && chosen == Choice::Auto {
            return Ok(None);
        }
        if listed.is_empty() {
            let message =
                format!("{choice} says what to call, and {list} has nothing to be called");
            return Err(Problem::invalid_value(choice, message));
        }
        let tools = listed.iter().enumerate();
        let tools = tools.map(|(place, raw)| tool(raw, format!("{list}[{place}]"), style));
        let shown: Vec<Tool> = tools.collect::<Result<_, _>>()?;
        for (place, tool) in shown.iter().enumerate() {
            if shown[..place].iter().any(|other| other.name == tool.name) {
                let message = format!("{list} has two of the name {:?}", tool.name);
                return Err(Problem::invalid_value(&format!("{list}[{place}]"), message));
            }
        }
        let parallel = parallel && !matches!(chosen, Choice::One(_));
        let (names, required) = match chosen {
            Choice::One(name) => (Some(vec![name]), true),
            Choice::Of(names, required) => (Some(names), required),
            chosen => (None, chosen == Choice::Required),
        };
        let offered = match names {
            None => shown.clone(),
            Some(names) => named(&shown, &names, (list, choice))?,
        };
        Ok(Some(Self { shown, offered, required, parallel, as_function: false }))
    }

    /// What an answer is held to: calls that are required, or strict ones where it calls at all.
    /// `other` is what else it is to be a sentence of; a required call leaves no room for that.
    ///
    /// # Errors
    /// If a strict tool's schema, or both together, cannot be followed.
    pub(crate) fn grammar(
        &self,
        format: CallFormat,
        other: Option<&str>,
    ) -> Result<Option<String>, Problem> {
        let otherwise = match other {
            _ if self.required => Otherwise::Nothing,
            Some(other) => Otherwise::Sentence(other),
            None if self.offered.iter().any(|tool| tool.strict) => Otherwise::Words,
            None => return Ok(None),
        };
        let tools: Vec<&Tool> = self.offered.iter().collect();
        let grammar = tool_calls_grammar(&tools, format, self.parallel, otherwise);
        let grammar = grammar.and_then(|grammar| check_grammar(&grammar).map(|()| grammar));
        grammar.map(Some).map_err(|error| refused("tools", &error))
    }
}

/// Those tools that a choice names.
fn named(
    shown: &[Tool],
    names: &[String],
    (list, choice): (&str, &str),
) -> Result<Vec<Tool>, Problem> {
    let find = |name: &String| {
        let found = shown.iter().find(|tool| tool.name == *name).cloned();
        found.ok_or_else(|| {
            let message = format!("{choice} names {name:?}, which is none of {list}");
            Problem::invalid_value(choice, message)
        })
    };
    let found: Vec<Tool> = names.iter().map(find).collect::<Result<_, _>>()?;
    if found.is_empty() {
        return Err(Problem::invalid_value(choice, format!("{choice} allows no tool")));
    }
    Ok(found)
}

fn tool(raw: &RawValue, at: String, style: Style) -> Result<Tool, Problem> {
    const KNOWN: &[&str] = &["type", "function", "name", "description", "parameters", "strict"];
    let mut fields = Fields::of(raw, at, KNOWN)?;
    if style != Style::Bare {
        is_function(&fields)?;
    }
    if style == Style::Nested {
        let name = fields.name("function");
        let raw = fields.get("function").ok_or_else(|| Problem::missing(&name))?;
        fields = Fields::of(raw, name, KNOWN)?;
    }
    let at = fields.name("name");
    let name = fields.string("name")?.ok_or_else(|| Problem::missing(&at))?;
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(letters) {
        let message = format!(
            "{at} is {name:?}, expected 1 to {NAME_MAX} letters, digits, underscores, dashes or dots"
        );
        return Err(Problem::invalid_value(&at, message));
    }
    let description = fields.string("description")?;
    let parameters = fields.get("parameters");
    if let Some(raw) = parameters.filter(|raw| kind(raw) != "an object") {
        return Err(Problem::invalid_type(&fields.name("parameters"), "an object", kind(raw)));
    }
    // Parsed and written again, so that it is one line.
    let schema = |raw: &RawValue| serde_json::from_str::<Value>(raw.get());
    let parameters = parameters.map(schema).transpose().map_err(|error| {
        let name = fields.name("parameters");
        Problem::invalid_value(&name, format!("{name}: {error}"))
    })?;
    let strict = fields.boolean("strict")?.unwrap_or(false);
    let mut function = format!(r#""name":{}"#, serde_json::json!(name));
    if let Some(description) = description {
        function += &format!(r#","description":{}"#, serde_json::json!(description));
    }
    if let Some(parameters) = &parameters {
        function += &format!(r#","parameters":{parameters}"#);
    }
    let json = format!(r#"{{"type":"function","function":{{{function}}}}}"#);
    let parameters = parameters.map(|schema| closed(schema).to_string());
    Ok(Tool { name, parameters, strict, json })
}

/// A schema that names its properties, without room for others. Where it does not say, others may be by
/// the letter; but who calls has no reason to make some up.
fn closed(mut schema: Value) -> Value {
    const OPEN: [&str; 7] =
        ["additionalProperties", "patternProperties", "allOf", "anyOf", "oneOf", "$ref", "if"];
    if let Value::Object(fields) = &mut schema
        && fields.contains_key("properties")
        && !OPEN.iter().any(|open| fields.contains_key(*open))
    {
        fields.insert("additionalProperties".into(), Value::Bool(false));
    }
    schema
}

/// Refuses what is of another type than a function.
fn is_function(fields: &Fields<'_>) -> Result<(), Problem> {
    let name = fields.name("type");
    match fields.string("type")?.ok_or_else(|| Problem::missing(&name))?.as_str() {
        "function" => Ok(()),
        other => {
            let message = format!("{name} {other:?} is not supported, only function");
            Err(Problem::unsupported(&name, message))
        }
    }
}

fn choice(raw: &RawValue, at: &str, style: Style) -> Result<Choice, Problem> {
    if kind(raw) == "a string" {
        return match string(raw, at)?.as_str() {
            "none" => Ok(Choice::None),
            "auto" => Ok(Choice::Auto),
            "required" if style != Style::Bare => Ok(Choice::Required),
            other => {
                let message = format!("{at} is {other:?}, expected none, auto, required or a tool");
                Err(Problem::invalid_value(at, message))
            }
        };
    }
    let known = &["type", "function", "name", "allowed_tools", "mode", "tools"];
    let fields = Fields::of(raw, at.into(), known)?;
    if style != Style::Bare && fields.string("type")?.as_deref() == Some("allowed_tools") {
        return allowed(fields, style);
    }
    if style != Style::Bare {
        is_function(&fields)?;
    }
    Ok(Choice::One(chosen(&fields, style)?))
}

/// A choice among some of the tools.
fn allowed(fields: Fields<'_>, style: Style) -> Result<Choice, Problem> {
    let fields = match style {
        Style::Nested => {
            let name = fields.name("allowed_tools");
            let raw = fields.get("allowed_tools").ok_or_else(|| Problem::missing(&name))?;
            Fields::of(raw, name, &["mode", "tools"])?
        }
        Style::Flat | Style::Bare => fields,
    };
    let at = fields.name("mode");
    let required = match fields.string("mode")?.ok_or_else(|| Problem::missing(&at))?.as_str() {
        "auto" => false,
        "required" => true,
        other => {
            let message = format!("{at} is {other:?}, expected auto or required");
            return Err(Problem::invalid_value(&at, message));
        }
    };
    let at = fields.name("tools");
    let listed = fields.get("tools").ok_or_else(|| Problem::missing(&at))?;
    let listed = items(listed, &at, TOOLS_MAX)?.into_iter().enumerate();
    let names = listed.map(|(place, raw)| {
        let fields = Fields::of(raw, format!("{at}[{place}]"), &["type", "function", "name"])?;
        is_function(&fields)?;
        chosen(&fields, style)
    });
    Ok(Choice::Of(names.collect::<Result<_, _>>()?, required))
}

/// The name of a tool that is chosen.
fn chosen(fields: &Fields<'_>, style: Style) -> Result<String, Problem> {
    let name_of = |fields: &Fields<'_>| {
        let name = fields.name("name");
        fields.string("name")?.ok_or_else(|| Problem::missing(&name))
    };
    if style != Style::Nested {
        return name_of(fields);
    }
    let name = fields.name("function");
    let raw = fields.get("function").ok_or_else(|| Problem::missing(&name))?;
    name_of(&Fields::of(raw, name, &["name"])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is offered, with `!` if a call is required and `1` if only one may be.
    fn said(calling: Result<Option<Calling>, Problem>) -> String {
        match calling {
            Ok(None) => "nothing".into(),
            Ok(Some(calling)) => {
                let names: Vec<&str> = calling.offered.iter().map(|t| t.name.as_str()).collect();
                let marks = [(calling.required, "!"), (!calling.parallel, "1")];
                let marks: String = marks.iter().filter(|m| m.0).map(|m| m.1).collect();
                format!("{}{marks}", names.join(" "))
            }
            Err(problem) => format!("{}: {}", problem.code, problem.message),
        }
    }

    fn chat(fields: &str, expected: &str) {
        let body = fields.replace(
            "$TOOLS",
            r#""tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}},
                {"type":"function","function":{"name":"g"}}]"#,
        );
        let body = format!("{{{body}}}");
        let found = Fields::of_body(body.as_bytes(), &[FIELDS]);
        assert_eq!(said(found.and_then(|fields| Calling::of_chat(&fields))), expected, "{body}");
    }

    #[test]
    fn every_choice_of_the_chat_api_is_read() {
        chat("", "nothing");
        chat(r#""tools":[],"tool_choice":"auto","parallel_tool_calls":false"#, "nothing");
        chat("$TOOLS", "f g");
        chat(r#"$TOOLS,"tool_choice":"none""#, "nothing");
        chat(r#"$TOOLS,"tool_choice":"required","parallel_tool_calls":false"#, "f g!1");
        chat(r#"$TOOLS,"tool_choice":{"type":"function","function":{"name":"g"}}"#, "g!1");
        let of = |mode: &str| {
            format!(
                r#"$TOOLS,"tool_choice":{{"type":"allowed_tools","allowed_tools":{{"mode":"{mode}","tools":[{{"type":"function","function":{{"name":"g"}}}}]}}}}"#
            )
        };
        chat(&of("auto"), "g");
        chat(&of("required"), "g!");
        chat(r#""functions":[{"name":"f"}]"#, "f1");
        chat(r#""functions":[{"name":"f"},{"name":"g"}],"function_call":{"name":"g"}"#, "g!1");
    }

    #[test]
    fn what_cannot_be_called_is_refused_by_name() {
        chat(
            r#""tools":[{"type":"custom","custom":{"name":"x"}}]"#,
            r#"unsupported_parameter: tools[0].type "custom" is not supported, only function"#,
        );
        chat(
            r#""tools":[{"type":"function"}]"#,
            "missing_required_parameter: tools[0].function is missing",
        );
        chat(
            r#""tools":[{"type":"function","function":{"name":"a b"}}]"#,
            r#"invalid_value: tools[0].function.name is "a b", expected 1 to 64 letters, digits, underscores, dashes or dots"#,
        );
        chat(
            r#""tool_choice":"required""#,
            "invalid_value: tool_choice says what to call, and tools has nothing to be called",
        );
        chat(
            r#"$TOOLS,"tool_choice":{"type":"function","function":{"name":"h"}}"#,
            r#"invalid_value: tool_choice names "h", which is none of tools"#,
        );
        chat(
            r#"$TOOLS,"tool_choice":"any""#,
            r#"invalid_value: tool_choice is "any", expected none, auto, required or a tool"#,
        );
        chat(
            r#""functions":[{"name":"f"},{"name":"f"}]"#,
            r#"invalid_value: functions has two of the name "f""#,
        );
        chat(
            r#"$TOOLS,"functions":[{"name":"f"}]"#,
            "invalid_value: functions is the older name of tools; one of both is enough",
        );
        chat(r#""tools":{}"#, "invalid_type: tools must be an array, not an object");
    }

    #[test]
    fn the_responses_api_writes_tools_flat() {
        let check = |choice: &str, expected: &str| {
            let body = format!(
                r#"{{"tools":[{{"type":"function","name":"f"}},{{"type":"function","name":"g"}}]{choice}}}"#
            );
            let found = Fields::of_body(body.as_bytes(), &[FIELDS]);
            let found = found.and_then(|fields| Calling::of_response(&fields));
            assert_eq!(said(found), expected, "{choice}");
        };
        check("", "f g");
        check(r#","tool_choice":{"type":"function","name":"g"}"#, "g!1");
        check(
            r#","tool_choice":{"type":"allowed_tools","mode":"required","tools":[{"type":"function","name":"f"}]}"#,
            "f!",
        );
        check(
            r#","tool_choice":{"type":"file_search"}"#,
            r#"unsupported_parameter: tool_choice.type "file_search" is not supported, only function"#,
        );
    }

    #[test]
    fn a_tool_is_shown_as_it_was_written() {
        let properties = r#""zebra":{"type":"string","description":"long enough to be longer than any short word"}"#;
        let body = format!(
            r#"{{"tools":[{{"type":"function","name":"f","description":"d","parameters":{{ "type":"object", "properties":{{{properties},"a":{{}}}}}}}}]}}"#
        );
        let found = Fields::of_body(body.as_bytes(), &[FIELDS]).unwrap();
        let calling = Calling::of_response(&found).unwrap().unwrap();
        let schema = format!(r#"{{"type":"object","properties":{{{properties},"a":{{}}}}}}"#);
        let held = calling.shown[0].parameters.as_ref().unwrap();
        assert!(held.ends_with(r#","additionalProperties":false}"#), "{held}");
        assert_eq!(
            calling.shown[0].json,
            format!(
                r#"{{"type":"function","function":{{"name":"f","description":"d","parameters":{schema}}}}}"#
            )
        );
    }

    #[test]
    fn a_grammar_holds_what_is_required_or_strict() {
        let calling = |fields: &str| {
            let body = format!(r#"{{"tools":[{{"type":"function","name":"f"{fields}}}]}}"#);
            let found = Fields::of_body(body.as_bytes(), &[FIELDS]).unwrap();
            Calling::of_response(&found).unwrap().unwrap()
        };
        let format = CallFormat::Tagged;
        let plain = calling("");
        assert_eq!(plain.grammar(format, None), Ok(None));
        assert!(plain.grammar(format, Some("start: \"x\"")).unwrap().unwrap().contains("| other"));
        assert!(calling(r#","strict":true"#).grammar(format, None).unwrap().is_some());
        let required = Calling { required: true, ..plain };
        let grammar = required.grammar(format, Some("start: \"x\"")).unwrap().unwrap();
        assert!(!grammar.contains("other"), "{grammar}");
        let owl = calling(r#","strict":true,"parameters":{"type":"owl"}"#);
        assert_eq!(owl.grammar(format, None).unwrap_err().code, "invalid_json_schema");
    }
}
