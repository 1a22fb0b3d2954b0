//! What a client asks, in our words, whichever API it spoke.

use assay_text::Message;
use serde::Serialize;
use serde_json::{Map, Value};

use super::responses::Wish;
use super::{Problem, Sampling, chat, completions, responses};

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
    Messages(Vec<Message>),
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
}

#[derive(Serialize)]
struct Turn<'a> {
    content: &'a str,
    role: &'a str,
}

/// The canonical body of a prompt as it is.
#[derive(Serialize)]
struct Raw<T> {
    prompt: T,
}

impl Prompt {
    /// The canonical request body: JSON without white space, keys sorted.
    pub(crate) fn canonical(&self) -> String {
        let body = match self {
            Self::Messages(messages) => {
                let turns = messages
                    .iter()
                    .map(|message| Turn { content: &message.content, role: &message.role });
                serde_json::to_string(&Chat { messages: turns.collect() })
            }
            Self::Text(prompt) => serde_json::to_string(&Raw { prompt }),
            Self::Tokens(prompt) => serde_json::to_string(&Raw { prompt }),
        };
        body.expect("strings and numbers are always JSON")
    }

    /// What a problem with it is said to be about.
    pub(crate) fn param(&self) -> &'static str {
        match self {
            Self::Messages(_) => "messages",
            Self::Text(_) | Self::Tokens(_) => "prompt",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_has_one_canonical_body() {
        let message = Message { role: "user".into(), content: "a\"b".into() };
        let check = |prompt: Prompt, expected: &str| assert_eq!(prompt.canonical(), expected);
        check(
            Prompt::Messages(vec![message]),
            r#"{"messages":[{"content":"a\"b","role":"user"}]}"#,
        );
        check(Prompt::Text("a\nb".into()), r#"{"prompt":"a\nb"}"#);
        check(Prompt::Tokens(vec![1, 22]), r#"{"prompt":[1,22]}"#);
    }
}
