//! A request of the Responses API as it arrives, in our words.
//!
//! It is a conversation under other names. What goes on from an earlier response begins with that
//! one's conversation, which the gateway has kept.

use assay_text::Message;
use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::items::input;
use super::sampling::{self, Sampling, metadata, tokens};
use super::tools::Calling;
use super::{Form, Problem, Prompt, Question, shape};

/// Fields that have a meaning here, beside those of the sampling.
const KNOWN: &[&str] = &[
    "model",
    "input",
    "instructions",
    "max_output_tokens",
    "store",
    "metadata",
    "background",
    "previous_response_id",
    "conversation",
    "prompt",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "max_tool_calls",
    "text",
    "top_logprobs",
    "include",
    "truncation",
    "context_management",
    "user",
];

/// Fields that would change the answer and cannot, with the values that ask for nothing.
const UNSUPPORTED: &[(&str, &[&str])] = &[
    ("conversation", &[]),
    ("prompt", &[]),
    ("top_logprobs", &["0"]),
    ("include", &["[]"]),
    ("context_management", &["[]"]),
];

/// What a response repeats of its request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wish {
    /// What was said, without the conversation before it: role and text of each message.
    pub(crate) input: Vec<Message>,
    pub(crate) instructions: Option<String>,
    /// The response to be gone on from.
    pub(crate) previous: Option<String>,
    /// Whether nobody waits for it.
    pub(crate) background: bool,
    /// Fields that stand in the response as they were sent.
    pub(crate) shown: Map<String, Value>,
}

/// Reads a request's body; `history` is the conversation of the response it goes on from.
///
/// # Errors
/// What is not JSON, with its place; what is of the wrong type, out of range, or not supported, by
/// name.
pub(crate) fn parse(body: &[u8], history: &[Message]) -> Result<Question, Problem> {
    let fields = Fields::of_body(body, &[KNOWN, sampling::FIELDS])?;
    sampling::refuse(&fields, UNSUPPORTED)?;
    let calling = Calling::of_response(&fields)?;
    let max_tokens = tokens(&fields, "max_output_tokens")?;
    let (stream, _) = sampling::stream(&fields)?;
    let wish = Wish {
        input: input(fields.get("input"))?,
        instructions: fields.string("instructions")?,
        previous: fields.string("previous_response_id")?,
        background: fields.boolean("background")?.unwrap_or(false),
        shown: shown(&fields)?,
    };
    let store = fields.boolean("store")?.unwrap_or(true);
    if wish.background && !store {
        let message = "a response in the background is fetched later, so store cannot be false";
        return Err(Problem::invalid_value("background", message));
    }
    let told = wish.instructions.iter();
    let told = told.map(|said| Message::new("system", said.clone()));
    let messages = told.chain(history.iter().cloned()).chain(wish.input.iter().cloned()).collect();
    Ok(Question {
        // Where none is named, the gateway may have a model for that.
        model: fields.string("model")?.unwrap_or_default(),
        prompts: vec![Prompt::conversation(messages, calling.as_ref())],
        calling,
        n: 1,
        sampling: Sampling { grammar: grammar(&fields)?, ..Sampling::read(&fields, max_tokens)? },
        stream,
        include_usage: true,
        store,
        metadata: metadata(&fields)?,
        form: Form::Response(Box::new(wish)),
    })
}

/// The response that a body goes on from, if it names one.
pub(crate) fn previous(body: &[u8]) -> Result<Option<String>, Problem> {
    Fields::of_body(body, &[KNOWN])?.string("previous_response_id")
}

/// What the answer has to be a sentence of.
fn grammar(fields: &Fields<'_>) -> Result<Option<String>, Problem> {
    let Some(text) = fields.get("text") else { return Ok(None) };
    let text = Fields::of(text, "text".into(), &["format"])?;
    text.get("format").map_or(Ok(None), |format| shape::text_format(format, "text.format"))
}

/// What a response says of its request; what was not sent, as it is then.
fn shown(fields: &Fields<'_>) -> Result<Map<String, Value>, Problem> {
    let mut shown = Map::new();
    let defaults = [
        ("temperature", json!(1.0)),
        ("top_p", json!(1.0)),
        ("tools", json!([])),
        ("tool_choice", json!("auto")),
        ("parallel_tool_calls", json!(true)),
        ("max_output_tokens", Value::Null),
        ("max_tool_calls", Value::Null),
        ("truncation", json!("disabled")),
        ("text", json!({"format": {"type": "text"}})),
        ("user", Value::Null),
    ];
    for (name, default) in defaults {
        let sent = fields.get(name).map(|raw| serde_json::from_str(raw.get()));
        let sent = sent
            .transpose()
            .map_err(|error| Problem::invalid_value(name, format!("{name}: {error}")))?;
        shown.insert(name.to_owned(), sent.unwrap_or(default));
    }
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fields: &str, expected: &str) {
        let history = [Message::new("user", "before")];
        let said = match parse(format!("{{{fields}}}").as_bytes(), &history) {
            Ok(question) => question.prompts[0].canonical(),
            Err(problem) => format!("{}: {}", problem.code, problem.message),
        };
        assert_eq!(said, expected, "{fields}");
    }

    #[test]
    fn a_conversation_goes_on_under_its_instructions() {
        check("", r#"{"messages":[{"content":"before","role":"user"}]}"#);
        check(
            r#""input":"hi","instructions":"be brief""#,
            r#"{"messages":[{"content":"be brief","role":"system"},{"content":"before","role":"user"},{"content":"hi","role":"user"}]}"#,
        );
        check(
            r#""input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"a"}]},
                {"role":"assistant","content":[{"type":"output_text","text":"b"}]}]"#,
            r#"{"messages":[{"content":"before","role":"user"},{"content":"a","role":"user"},{"content":"b","role":"assistant"}]}"#,
        );
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        check(
            r#""input":[{"type":"item_reference"}]"#,
            r#"unsupported_parameter: an item of type "item_reference" is not supported, only messages, function calls and their outputs"#,
        );
        check(
            r#""tools":[{"type":"web_search"}]"#,
            r#"unsupported_parameter: tools[0].type "web_search" is not supported, only function"#,
        );
        check(
            r#""text":{"format":{"type":"xml"}}"#,
            r#"invalid_value: text.format.type is "xml", expected text, json_object or json_schema"#,
        );
        check(r#""conversation":"c""#, "unsupported_parameter: conversation is not supported");
        check(
            r#""input":[{"role":"owl","content":"x"}]"#,
            r#"invalid_value: input[0].role is "owl", expected system, developer, user, assistant or tool"#,
        );
        check(
            r#""background":true,"store":false"#,
            "invalid_value: a response in the background is fetched later, so store cannot be false",
        );
    }

    #[test]
    fn what_was_asked_stands_in_the_response() {
        let body = br#"{"temperature":0,"metadata":{"a":"b"},"store":false,"max_output_tokens":7}"#;
        let question = parse(body, &[]).unwrap();
        let Form::Response(wish) = &question.form else { panic!("a response") };
        assert_eq!((&wish.shown["temperature"], &wish.shown["top_p"]), (&json!(0), &json!(1.0)));
        assert_eq!((question.store, &question.metadata["a"]), (false, &json!("b")));
        assert_eq!(question.sampling.max_tokens, Some(7));
    }
}
