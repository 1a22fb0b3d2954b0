//! Conversations as the Responses API writes them: items, of which messages are one kind.
//!
//! What the assistant says and calls stands in items side by side; templates know it as one turn.

use assay_text::Message;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Problem;
use super::fields::{Fields, items, kind, string};
use super::messages::{MESSAGES_MAX, call, message, text};

/// What was said: a text, or a list of items.
pub(crate) fn input(raw: Option<&RawValue>) -> Result<Vec<Message>, Problem> {
    let Some(raw) = raw else { return Ok(Vec::new()) };
    match kind(raw) {
        "a string" => Ok(vec![Message::new("user", string(raw, "input")?)]),
        "an array" => {
            let mut said = Vec::new();
            for (place, raw) in items(raw, "input", MESSAGES_MAX)?.into_iter().enumerate() {
                item(raw, format!("input[{place}]"), &mut said)?;
            }
            Ok(said)
        }
        found => Err(Problem::invalid_type("input", "a string or an array", found)),
    }
}

/// Reads the item that is called `at`.
fn item(raw: &RawValue, at: String, said: &mut Vec<Message>) -> Result<(), Problem> {
    let known = &["type", "call_id", "name", "arguments", "output"];
    let fields = Fields::of(raw, at.clone(), known)?;
    let call_id = || {
        let name = fields.name("call_id");
        fields.string("call_id")?.ok_or_else(|| Problem::missing(&name))
    };
    match fields.string("type")?.as_deref() {
        None | Some("message") => said.push(message(raw, at)?),
        Some("function_call") => {
            let call = call(call_id()?, &fields)?;
            match said.last_mut().filter(|last| last.role == "assistant") {
                Some(last) => last.calls.push(call),
                None => {
                    said.push(Message { calls: vec![call], ..Message::new("assistant", "") });
                }
            }
        }
        Some("function_call_output") => {
            let name = fields.name("output");
            let output = fields.get("output").ok_or_else(|| Problem::missing(&name))?;
            let output = text(output, &name)?;
            said.push(Message { call: Some(call_id()?), ..Message::new("tool", output) });
        }
        // What a model thought before is not shown to it again.
        Some("reasoning") => {}
        Some(other) => {
            let message = format!(
                "an item of type {other:?} is not supported, only messages, function calls and their \
                 outputs"
            );
            return Err(Problem::unsupported(&fields.name("type"), message));
        }
    }
    Ok(())
}

/// The items of what was said to the response `id`.
pub(crate) fn input_items(said: &[Message], id: &str) -> Vec<Value> {
    let mut items = Vec::new();
    let named =
        |kind: &str, place: usize| json!(format!("{}-{place}", id.replacen("resp_", kind, 1)));
    for message in said {
        if message.role == "tool" {
            items.push(json!({
                "id": named("fco_", items.len()),
                "type": "function_call_output",
                "call_id": message.call,
                "output": message.content,
                "status": "completed",
            }));
            continue;
        }
        if !message.content.is_empty() || message.calls.is_empty() {
            let mut item = words(message);
            item["id"] = named("msg_", items.len());
            items.push(item);
        }
        for call in &message.calls {
            items.push(json!({
                "id": named("fc_", items.len()),
                "type": "function_call",
                "call_id": call.id,
                "name": call.name,
                "arguments": call.arguments,
                "status": "completed",
            }));
        }
    }
    items
}

/// A message's words as an item.
fn words(message: &Message) -> Value {
    let (kind, mut part) = match message.role == "assistant" {
        true => ("output_text", json!({ "annotations": [] })),
        false => ("input_text", json!({})),
    };
    part["type"] = json!(kind);
    part["text"] = json!(message.content);
    json!({ "type": "message", "role": message.role, "status": "completed", "content": [part] })
}

/// The turn that a response's output was; none if there is none.
pub(crate) fn remembered(output: &Value) -> Option<Message> {
    let mut turn = Message::new("assistant", "");
    let output = output.as_array().filter(|output| !output.is_empty())?;
    for item in output {
        let said = |field: &str| item[field].as_str().unwrap_or_default().to_owned();
        match item["type"].as_str() {
            Some("function_call") => turn.calls.push(assay_text::Call {
                id: said("call_id"),
                name: said("name"),
                arguments: said("arguments"),
            }),
            _ => turn.content += item["content"][0]["text"].as_str().unwrap_or_default(),
        }
    }
    Some(turn)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Vec<Message> {
        input(Some(&RawValue::from_string(json.into()).unwrap())).unwrap()
    }

    #[test]
    fn calls_and_their_outputs_are_turns() {
        let said = read(
            r#"[{"role":"user","content":"go"},
            {"type":"message","role":"assistant","content":[{"type":"output_text","text":"Hm."}]},
            {"type":"reasoning","summary":[]},
            {"type":"function_call","call_id":"a","name":"f","arguments":"{}"},
            {"type":"function_call","call_id":"b","name":"g","arguments":"{}"},
            {"type":"function_call_output","call_id":"a","output":"7"},
            {"type":"function_call_output","call_id":"b","output":[{"type":"input_text","text":"8"}]}]"#,
        );
        let told: Vec<_> =
            said.iter().map(|m| (m.role.as_str(), m.content.as_str(), m.calls.len())).collect();
        let expected =
            [("user", "go", 0), ("assistant", "Hm.", 2), ("tool", "7", 0), ("tool", "8", 0)];
        assert_eq!(told, expected);
        let items = input_items(&said, "resp_x");
        let kinds: Vec<&str> = items.iter().filter_map(|item| item["type"].as_str()).collect();
        let output = "function_call_output";
        assert_eq!(kinds, ["message", "message", "function_call", "function_call", output, output]);
        assert_eq!(remembered(&json!(items[1..4])), Some(said[1].clone()));
        assert_eq!(remembered(&json!([])), None);
    }
}
