//! The messages of a conversation, as chat requests carry them.

use assay_text::{Call, Message};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Problem;
use super::fields::{Fields, items, kind, string};

/// Messages of one conversation.
pub(crate) const MESSAGES_MAX: usize = 8192;

/// Text parts of one message.
const PARTS_MAX: usize = 1024;

/// Calls of one message.
const CALLS_MAX: usize = 1024;

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
    let known =
        &["role", "content", "tool_calls", "function_call", "audio", "tool_call_id", "name"];
    let fields = Fields::of(raw, at, known)?;
    let name = fields.name("role");
    let role = match fields.string("role")?.ok_or_else(|| Problem::missing(&name))?.as_str() {
        // The newer word for the same thing; templates know the older one.
        "developer" | "system" => "system",
        "user" => "user",
        "assistant" => "assistant",
        "tool" | "function" => return result(&fields),
        other => {
            let expected = "expected system, developer, user, assistant or tool";
            return Err(Problem::invalid_value(&name, format!("{name} is {other:?}, {expected}")));
        }
    };
    if fields.get("audio").is_some() {
        let name = fields.name("audio");
        return Err(Problem::unsupported(&name, format!("{name} is not supported")));
    }
    let calls = calls(&fields)?;
    if role != "assistant" && !calls.is_empty() {
        let name = fields.name("tool_calls");
        let message = format!("{name} is for the assistant's messages");
        return Err(Problem::invalid_value(&name, message));
    }
    let name = fields.name("content");
    let content = match fields.get("content") {
        Some(content) => text(content, &name)?,
        // Who only calls says nothing.
        None if !calls.is_empty() => String::new(),
        None => return Err(Problem::missing(&name)),
    };
    Ok(Message { calls, ..Message::new(role, content) })
}

/// What a tool answered, by the call's id, or by the older names by the function's name.
fn result(fields: &Fields<'_>) -> Result<Message, Problem> {
    let at = fields.name("content");
    let content = fields.get("content").ok_or_else(|| Problem::missing(&at))?;
    let (call, name) = (fields.string("tool_call_id")?, fields.string("name")?);
    if call.is_none() && name.is_none() {
        return Err(Problem::missing(&fields.name("tool_call_id")));
    }
    Ok(Message { call, name, ..Message::new("tool", text(content, &at)?) })
}

/// The calls that a message asks for, by the newer name or the older one.
fn calls(fields: &Fields<'_>) -> Result<Vec<Call>, Problem> {
    if let Some(raw) = fields.get("function_call") {
        let older = Fields::of(raw, fields.name("function_call"), &["name", "arguments"])?;
        return Ok(vec![call(String::new(), &older)?]);
    }
    let Some(raw) = fields.get("tool_calls") else { return Ok(Vec::new()) };
    let at = fields.name("tool_calls");
    let listed = items(raw, &at, CALLS_MAX)?.into_iter().enumerate();
    let read = listed.map(|(place, raw)| {
        let fields = Fields::of(raw, format!("{at}[{place}]"), &["id", "type", "function"])?;
        let id = fields.string("id")?.ok_or_else(|| Problem::missing(&fields.name("id")))?;
        let name = fields.name("function");
        let raw = fields.get("function").ok_or_else(|| Problem::missing(&name))?;
        call(id, &Fields::of(raw, name, &["name", "arguments"])?)
    });
    read.collect()
}

/// The call that stands in these fields.
pub(crate) fn call(id: String, fields: &Fields<'_>) -> Result<Call, Problem> {
    let string = |field: &str| {
        let said = fields.string(field)?;
        said.ok_or_else(|| Problem::missing(&fields.name(field)))
    };
    Ok(Call { id, name: string("name")?, arguments: string("arguments")? })
}

/// A message as the chat API tells it.
pub(crate) fn shown(message: &Message) -> Value {
    let mut shown = json!({ "role": message.role, "content": message.content });
    if !message.calls.is_empty() {
        let calls = message.calls.iter();
        shown["tool_calls"] = calls.map(shown_call).collect();
    }
    for (field, said) in [("tool_call_id", &message.call), ("name", &message.name)] {
        if let Some(said) = said {
            shown[field] = json!(said);
        }
    }
    shown
}

fn shown_call(call: &Call) -> Value {
    let function = json!({ "name": call.name, "arguments": call.arguments });
    json!({ "id": call.id, "type": "function", "function": function })
}

/// A message that [`shown`] told.
pub(crate) fn kept(shown: &Value) -> Message {
    let said = |value: &Value| value.as_str().map(ToOwned::to_owned);
    let calls = shown["tool_calls"].as_array().into_iter().flatten().map(|call| Call {
        id: said(&call["id"]).unwrap_or_default(),
        name: said(&call["function"]["name"]).unwrap_or_default(),
        arguments: said(&call["function"]["arguments"]).unwrap_or_default(),
    });
    Message {
        role: said(&shown["role"]).unwrap_or_default(),
        content: said(&shown["content"]).unwrap_or_default(),
        calls: calls.collect(),
        call: said(&shown["tool_call_id"]),
        name: said(&shown["name"]),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_was_shown_is_read_again() {
        let call = Call { id: "c".into(), name: "f".into(), arguments: "{}".into() };
        let messages = [
            Message::new("user", "hi"),
            Message { calls: vec![call], ..Message::new("assistant", "") },
            Message { call: Some("c".into()), ..Message::new("tool", "7") },
            Message { name: Some("f".into()), ..Message::new("tool", "8") },
        ];
        for message in messages {
            assert_eq!(kept(&shown(&message)), message);
            let raw = serde_json::value::to_raw_value(&shown(&message)).unwrap();
            assert_eq!(super::message(&raw, "m".into()), Ok(message));
        }
    }
}
