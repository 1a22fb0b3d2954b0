//! Renders chat templates that are not ours: `cargo xtask text` compares what it says with Python.
//!
//! Reads one JSON object per line, `{"template", "messages", "tools", "bos_token", "eos_token",
//! "unix_seconds"}`, messages and tools as in OpenAI's API, and writes one line for each:
//! `{"text"}`, or `{"error", "refused"}`.
#![expect(clippy::print_stdout, reason = "an example tells what it did")]

use std::io::{BufRead, stdin};

use anyhow::{Context, Result};
use assay_text::{Call, Chat, ChatError, Conversation, Message, Tool};
use serde_json::{Value, json};

fn main() -> Result<()> {
    for line in stdin().lock().lines() {
        let case: Value = serde_json::from_str(&line?)?;
        let answer = match render(&case)? {
            Ok(text) => json!({ "text": text }),
            Err(error) => {
                let refused = matches!(error, ChatError::Refused { .. });
                json!({ "error": error.to_string(), "refused": refused })
            }
        };
        println!("{answer}");
    }
    Ok(())
}

fn render(case: &Value) -> Result<Result<String, ChatError>> {
    let messages: Vec<Message> = items(&case["messages"]).map(message).collect::<Result<_>>()?;
    let tools: Vec<Tool> = items(&case["tools"]).map(tool).collect::<Result<_>>()?;
    let chat = match Chat::new(text(case, "template")?) {
        Ok(chat) => chat,
        Err(error) => return Ok(Err(error)),
    };
    Ok(chat.render(&Conversation {
        messages: &messages,
        tools: &tools,
        add_generation_prompt: true,
        bos: text(case, "bos_token")?,
        eos: text(case, "eos_token")?,
        unix_seconds: case["unix_seconds"].as_u64(),
    }))
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("{key} is missing"))
}

fn message(value: &Value) -> Result<Message> {
    let word = |key: &str| value[key].as_str().map(str::to_owned);
    let call = |call: &Value| {
        let function = &call["function"];
        Ok(Call {
            id: text(call, "id")?.to_owned(),
            name: text(function, "name")?.to_owned(),
            arguments: text(function, "arguments")?.to_owned(),
        })
    };
    Ok(Message {
        role: text(value, "role")?.to_owned(),
        content: text(value, "content")?.to_owned(),
        calls: items(&value["tool_calls"]).map(call).collect::<Result<_>>()?,
        call: word("tool_call_id"),
        name: word("name"),
    })
}

fn tool(value: &Value) -> Result<Tool> {
    let name = text(&value["function"], "name")?.to_owned();
    Ok(Tool { name, parameters: None, strict: false, json: value.to_string() })
}
