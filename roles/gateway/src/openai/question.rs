//! What a client asks, in our words, whichever API it spoke.

use assay_text::{Call, CallFormat, Message, Tool};
use serde::Serialize;
use serde_json::{Map, Value};

use super::responses::Wish;
use super::tools::Calling;
use super::{CallRules, Problem, Sampling, chat, completions, responses};

/// The APIs in which answers can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    /// `POST /v1/chat/completions`.
    Chat,
    /// `POST /v1/completions`.
    Completions,
    /// `POST /v1/responses`.
    Responses,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Question {
    pub(crate) model: String,
    /// At least one; each is answered `n` times.
    pub(crate) prompts: Vec<Prompt>,
    /// Answers to each prompt, at least one.
    pub(crate) n: u32,
    /// What may be called in the answers, if anything.
    pub(crate) calling: Option<Calling>,
    pub(crate) sampling: Sampling,
    pub(crate) stream: bool,
    /// Whether a stream ends with a chunk of usage.
    pub(crate) include_usage: bool,
    /// Whether the reply is kept, to be fetched again.
    pub(crate) store: bool,
    /// What the client notes on it.
    pub(crate) metadata: Map<String, Value>,
    pub(crate) form: Form,
}

/// What is to be gone on from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Prompt {
    /// A conversation, which the model's template makes a prompt of.
    Messages {
        messages: Vec<Message>,
        /// What the assistant may call.
        tools: Vec<Tool>,
    },
    /// The prompt itself, control tokens included where it spells them.
    Text(String),
    /// The prompt's tokens.
    Tokens(Vec<u32>),
}

/// In which form the answer is told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Form {
    Chat,
    Completion {
        /// Whether the prompt comes before its answer.
        echo: bool,
    },
    Response(Box<Wish>),
}

impl Api {
    /// The API at a path.
    pub(crate) fn at(path: &str) -> Option<Self> {
        [Self::Chat, Self::Completions, Self::Responses].into_iter().find(|api| api.path() == path)
    }

    /// Where it is spoken.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Responses => "/v1/responses",
        }
    }

    /// Reads a request's body. Of the conversation that it goes on from, if it does, `history` is what
    /// was said.
    ///
    /// # Errors
    /// What is wrong with it, by name.
    pub(crate) fn parse(self, body: &[u8], history: &[Message]) -> Result<Question, Problem> {
        match self {
            Self::Chat => chat::parse(body),
            Self::Completions => completions::parse(body),
            Self::Responses => responses::parse(body, history),
        }
    }
}

impl Question {
    /// Holds the answers to the calls that are required or strict, as a model that writes calls in this
    /// format would write them.
    ///
    /// # Errors
    /// If they cannot be held to that.
    pub(crate) fn hold(&mut self, format: CallFormat) -> Result<(), Problem> {
        let Some(calling) = &self.calling else { return Ok(()) };
        // Of no tokens, nothing can be held to anything.
        if self.sampling.max_tokens != Some(0) {
            self.sampling.grammar = calling.grammar(format, self.sampling.grammar.as_deref())?;
        }
        Ok(())
    }

    /// How calls are read out of the answers, if anything may be called.
    pub(crate) fn rules(&self, format: CallFormat) -> Option<CallRules> {
        self.calling.as_ref().map(|calling| CallRules::new(calling, format))
    }

    /// How many answers are wanted in all.
    pub(crate) fn choices(&self) -> usize {
        self.prompts.len().saturating_mul(self.n as usize)
    }

    /// The only prompt, if one answer is wanted.
    pub(crate) fn only(&self) -> Option<&Prompt> {
        match &self.prompts[..] {
            [prompt] if self.n == 1 => Some(prompt),
            _ => None,
        }
    }
}

/// The canonical body of a conversation; fields stand in the order of their names.
#[derive(Serialize)]
struct Chat<'a> {
    messages: Vec<Turn<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Value>,
}

#[derive(Serialize)]
struct Turn<'a> {
    content: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    role: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Called<'a>>,
}

#[derive(Serialize)]
struct Called<'a> {
    function: Function<'a>,
    id: &'a str,
    r#type: &'static str,
}

#[derive(Serialize)]
struct Function<'a> {
    arguments: &'a str,
    name: &'a str,
}

impl<'a> Turn<'a> {
    fn of(message: &'a Message) -> Self {
        let called = |call: &'a Call| Called {
            function: Function { arguments: &call.arguments, name: &call.name },
            id: &call.id,
            r#type: "function",
        };
        Self {
            content: &message.content,
            name: message.name.as_deref(),
            role: &message.role,
            tool_call_id: message.call.as_deref(),
            tool_calls: message.calls.iter().map(called).collect(),
        }
    }
}

/// A tool whose keys are sorted.
fn sorted(tool: &Tool) -> Value {
    let mut json: Value = serde_json::from_str(&tool.json).unwrap_or_default();
    json.sort_all_objects();
    json
}

/// The canonical body of a prompt as it is.
#[derive(Serialize)]
struct Raw<T> {
    prompt: T,
}

impl Prompt {
    /// A conversation in which this may be called.
    pub(crate) fn conversation(messages: Vec<Message>, calling: Option<&Calling>) -> Self {
        let tools = calling.map(|calling| calling.shown.clone()).unwrap_or_default();
        Self::Messages { messages, tools }
    }

    /// The canonical request body: JSON without white space, keys sorted.
    pub(crate) fn canonical(&self) -> String {
        let body = match self {
            Self::Messages { messages, tools } => {
                let messages = messages.iter().map(Turn::of).collect();
                serde_json::to_string(&Chat { messages, tools: tools.iter().map(sorted).collect() })
            }
            Self::Text(prompt) => serde_json::to_string(&Raw { prompt }),
            Self::Tokens(prompt) => serde_json::to_string(&Raw { prompt }),
        };
        body.expect("strings and numbers are always JSON")
    }

    /// What a problem with it is said to be about.
    pub(crate) fn param(&self) -> &'static str {
        match self {
            Self::Messages { .. } => "messages",
            Self::Text(_) | Self::Tokens(_) => "prompt",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_has_one_canonical_body() {
        let message = Message::new("user", "a\"b");
        let check = |prompt: Prompt, expected: &str| assert_eq!(prompt.canonical(), expected);
        check(
            Prompt::conversation(vec![message], None),
            r#"{"messages":[{"content":"a\"b","role":"user"}]}"#,
        );
        let call = Call { id: "c".into(), name: "f".into(), arguments: "{ }".into() };
        let asked = Message { calls: vec![call], ..Message::new("assistant", "") };
        let told = Message { call: Some("c".into()), ..Message::new("tool", "7") };
        let json = r#"{"type":"function","function":{"name":"f"}}"#.into();
        let tool = Tool { name: "f".into(), parameters: None, strict: false, json };
        check(
            Prompt::Messages { messages: vec![asked, told], tools: vec![tool] },
            r#"{"messages":[{"content":"","role":"assistant","tool_calls":[{"function":{"arguments":"{ }","name":"f"},"id":"c","type":"function"}]},{"content":"7","role":"tool","tool_call_id":"c"}],"tools":[{"function":{"name":"f"},"type":"function"}]}"#,
        );
        check(Prompt::Text("a\nb".into()), r#"{"prompt":"a\nb"}"#);
        check(Prompt::Tokens(vec![1, 22]), r#"{"prompt":[1,22]}"#);
    }
}
