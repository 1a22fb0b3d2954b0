//! Shows tools, calls and results to a model whose template has no place for them.
//!
//! They become words of the conversation, in the form that is most widely taught: what may be called is
//! told by the system, or by the user where a template knows no system; calls stand where the assistant
//! wrote them, and results come from the user.

use serde_json::{Value, json};

use crate::calls::{CallFormat, Tool};
use crate::{Call, Message};

/// What stands before the tools, and after them.
const INTRODUCTION: &str = "You may call these functions:";
const MANNER: &str = "To call one, answer with <tool_call>{\"name\": …, \"arguments\": …}</tool_call> and nothing else.";

/// Who says what may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Teller {
    /// The system, at the end of its turn.
    System,
    /// The user, at the beginning of the first one.
    User,
}

/// The same conversation without tools, calls and results of its own kinds.
pub(crate) fn in_words(messages: &[Message], tools: &[Tool], teller: Teller) -> Vec<Message> {
    let mut told: Vec<Message> = Vec::with_capacity(messages.len() + 1);
    let mut of_tool = false;
    for message in messages {
        if message.role != "tool" {
            told.push(spelled(message));
            of_tool = false;
            continue;
        }
        let result = format!("<tool_response>\n{}\n</tool_response>", message.content);
        match told.last_mut().filter(|_| of_tool) {
            // Some templates refuse two turns of the user's in a row.
            Some(last) => last.content = format!("{}\n{result}", last.content),
            None => told.push(Message::new("user", result)),
        }
        of_tool = true;
    }
    if tools.is_empty() {
        return told;
    }
    let shown: Vec<&str> = tools.iter().map(|tool| tool.json.as_str()).collect();
    let shown = format!("{INTRODUCTION}\n{}\n{MANNER}", shown.join("\n"));
    match teller {
        Teller::System => match told.first_mut().filter(|first| first.role == "system") {
            Some(first) => first.content = format!("{}\n\n{shown}", first.content),
            None => told.insert(0, Message::new("system", shown)),
        },
        Teller::User => match told.iter_mut().find(|turn| turn.role == "user") {
            Some(turn) => turn.content = format!("{shown}\n\n{}", turn.content),
            None => told.insert(0, Message::new("user", shown)),
        },
    }
    told
}

/// A message whose calls stand in its text.
fn spelled(message: &Message) -> Message {
    let mut content = message.content.clone();
    if !message.calls.is_empty() {
        if !content.is_empty() {
            content.push('\n');
        }
        let (open, between, close) = CallFormat::Tagged.frame();
        let calls: Vec<String> = message.calls.iter().map(written).collect();
        content += &[open, &calls.join(between), close].concat();
    }
    Message::new(&message.role, content)
}

fn written(call: &Call) -> String {
    // What is no JSON stays the text that it is.
    let arguments: Value = serde_json::from_str(&call.arguments)
        .unwrap_or_else(|_| Value::String(call.arguments.clone()));
    format!("{{\"name\": {}, \"arguments\": {arguments}}}", json!(call.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_with_tools_becomes_one_of_words() {
        let call =
            |name: &str| Call { id: "c".into(), name: name.into(), arguments: "{\"x\": 1}".into() };
        let asked = Message {
            calls: vec![call("f"), call("g")],
            ..Message::new("assistant", "Let me see.")
        };
        let messages = [
            Message::new("system", "Be brief."),
            Message::new("user", "Go."),
            asked,
            Message { call: Some("c".into()), ..Message::new("tool", "1") },
            Message { call: Some("c".into()), ..Message::new("tool", "2") },
        ];
        let tool = Tool { name: "f".into(), parameters: None, strict: false, json: "{…}".into() };
        let told = in_words(&messages, std::slice::from_ref(&tool), Teller::System);
        let lines: Vec<String> =
            told.iter().map(|said| format!("{}: {}", said.role, said.content)).collect();
        let expected = [
            "system: Be brief.\n\nYou may call these functions:\n{…}\nTo call one, answer with <tool_call>{\"name\": …, \"arguments\": …}</tool_call> and nothing else.",
            "user: Go.",
            "assistant: Let me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\":1}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": {\"x\":1}}\n</tool_call>",
            "user: <tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response>",
        ];
        assert_eq!(lines, expected);
        assert_eq!(in_words(&messages[1..2], &[], Teller::System)[0].content, "Go.");
        let by_user = in_words(&messages[..2], &[tool], Teller::User);
        assert_eq!(by_user[0].content, "Be brief.");
        assert!(by_user[1].content.starts_with("You may call"), "{}", by_user[1].content);
        assert!(by_user[1].content.ends_with("and nothing else.\n\nGo."), "{}", by_user[1].content);
    }
}
