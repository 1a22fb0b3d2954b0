//! The messages of a conversation, as chat requests carry them.

use assay_text::Message;
use serde_json::value::RawValue;

use super::Problem;
use super::fields::{Fields, items, kind, string};

/// Messages of one conversation.
pub(crate) const MESSAGES_MAX: usize = 8192;

/// Text parts of one message.
const PARTS_MAX: usize = 1024;

/// Reads a list of messages; at least one.
///
/// # Errors
/// What is wrong with them, by its place in the list.
pub(crate) fn conversation(raw: &RawValue) -> Result<Vec<Message>, Problem> {
    let turns = items(raw, "messages", MESSAGES_MAX)?;
    if turns.is_empty() {
        return Err(Problem::invalid_value("messages", "messages is empty"));
    }
    let turns = turns.into_iter().enumerate();
    turns.map(|(index, turn)| message(turn, format!("messages[{index}]"))).collect()
}

/// Reads one message, which is called `at`.
pub(crate) fn message(raw: &RawValue, at: String) -> Result<Message, Problem> {
    let known = &["role", "content", "tool_calls", "function_call", "audio"];
    let fields = Fields::of(raw, at, known)?;
    let name = fields.name("role");
    let role = match fields.string("role")?.ok_or_else(|| Problem::missing(&name))?.as_str() {
        // The newer word for the same thing; templates know the older one.
        "developer" | "system" => "system",
        "user" => "user",
        "assistant" => "assistant",
        "tool" | "function" => {
            return Err(Problem::unsupported(&name, "tools are not supported"));
        }
        other => {
            let expected = "expected system, developer, user or assistant";
            return Err(Problem::invalid_value(&name, format!("{name} is {other:?}, {expected}")));
        }
    };
    for field in ["tool_calls", "function_call", "audio"] {
        if fields.get(field).is_some_and(|raw| raw.get() != "[]") {
            let name = fields.name(field);
            return Err(Problem::unsupported(&name, format!("{name} is not supported")));
        }
    }
    let name = fields.name("content");
    let content = fields.get("content").ok_or_else(|| Problem::missing(&name))?;
    Ok(Message { role: role.into(), content: text(content, &name)? })
}

/// A message's text: a string, or text parts, which become lines.
pub(crate) fn text(raw: &RawValue, name: &str) -> Result<String, Problem> {
    match kind(raw) {
        "a string" => string(raw, name),
        "an array" => {
            let parts = items(raw, name, PARTS_MAX)?;
            let texts = parts.into_iter().enumerate().map(|(index, part)| {
                let fields = Fields::of(part, format!("{name}[{index}]"), &["type", "text"])?;
                let kind = fields.name("type");
                match fields.string("type")?.ok_or_else(|| Problem::missing(&kind))?.as_str() {
                    // The second is what the Responses API calls it, the third what it calls our own.
                    "text" | "input_text" | "output_text" => {
                        let name = fields.name("text");
                        fields.string("text")?.ok_or_else(|| Problem::missing(&name))
                    }
                    other => {
                        let message =
                            format!("content of type {other:?} is not supported, only text");
                        Err(Problem::unsupported(&kind, message))
                    }
                }
            });
            Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
        }
        found => Err(Problem::invalid_type(name, "a string or an array of parts", found)),
    }
}
