//! Replies of the chat API: whole, or in chunks.

use assay_protocol::Answer;
use serde::Serialize;

use super::reply::{Finish, Head, Reply, Told, Usage, event, json, only};
use crate::rated::{Piece, Rated, Spelled};

/// A reply of the chat API.
#[derive(Debug)]
pub(crate) struct ChatReply {
    head: Head,
    choices: usize,
}

/// What is told of one choice: what is new, how likely its tokens were, and its end.
type Part<'a> = (usize, Delta<'a>, Option<&'a [Rated]>, Option<Finish>);

impl ChatReply {
    /// A reply of so many choices.
    pub(crate) fn new(head: Head, choices: usize) -> Self {
        Self { head, choices }
    }

    fn chunk(
        &self,
        choice: Option<Part<'_>>,
        usage: Option<Usage>,
        answer: Option<&Answer>,
    ) -> String {
        let choices = choice.map(|(index, delta, rated, finish_reason)| ChunkChoice {
            index,
            delta,
            logprobs: rated.map(Logprobs::of),
            finish_reason,
        });
        event(&json(&Chunk {
            id: &self.head.id,
            object: "chat.completion.chunk",
            created: self.head.created,
            model: &self.head.model,
            system_fingerprint: &self.head.fingerprint,
            choices: choices.as_slice(),
            usage: self.head.include_usage.then_some(usage),
            assay: answer,
        }))
    }
}

impl Reply for ChatReply {
    fn whole(&mut self, told: &[Told]) -> String {
        let several = told.len() > 1;
        let choices = told.iter().enumerate().map(|(index, told)| Choice {
            index,
            message: Turn { role: "assistant", content: &told.text, refusal: None },
            logprobs: told.rated.as_deref().map(Logprobs::of),
            finish_reason: told.finish,
            assay: told.answer.as_deref().filter(|_| several),
        });
        json(&Completion {
            id: &self.head.id,
            object: "chat.completion",
            created: self.head.created,
            model: &self.head.model,
            system_fingerprint: &self.head.fingerprint,
            choices: choices.collect(),
            usage: Usage::sum(told.iter().map(|told| told.usage)),
            assay: only(told),
        })
    }

    fn opened(&mut self) -> String {
        let role = |index| {
            let delta = Delta { role: Some("assistant"), content: Some("") };
            self.chunk(Some((index, delta, None, None)), None, None)
        };
        (0..self.choices).map(role).collect()
    }

    fn piece(&mut self, choice: usize, piece: &Piece) -> String {
        let delta = Delta { role: None, content: Some(&piece.text) };
        self.chunk(Some((choice, delta, piece.rated.as_deref(), None)), None, None)
    }

    /// Of several choices, each carries its receipt where it ends; of one, the stream's last chunk does.
    fn ended(&mut self, choice: usize, told: &Told) -> String {
        let last = self.choices > 1 || !self.head.include_usage;
        let answer = told.answer.as_deref().filter(|_| last);
        let delta = Delta { role: None, content: None };
        self.chunk(Some((choice, delta, None, Some(told.finish))), None, answer)
    }

    fn closed(&mut self, told: &[Told]) -> String {
        let usage = match self.head.include_usage {
            true => {
                let usage = Usage::sum(told.iter().map(|told| told.usage));
                self.chunk(None, Some(usage), only(told))
            }
            false => String::new(),
        };
        usage + &event("[DONE]")
    }
}

#[derive(Serialize)]
struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: Vec<Choice<'a>>,
    usage: Usage,
    #[serde(skip_serializing_if = "Option::is_none")]
    assay: Option<&'a Answer>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: usize,
    message: Turn<'a>,
    logprobs: Option<Logprobs<'a>>,
    finish_reason: Finish,
    /// Its receipt, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    assay: Option<&'a Answer>,
}

#[derive(Serialize)]
struct Turn<'a> {
    role: &'static str,
    content: &'a str,
    refusal: Option<&'a str>,
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: &'a [ChunkChoice<'a>],
    /// Absent unless asked for; `null` in every chunk but the last then.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    assay: Option<&'a Answer>,
}

#[derive(Serialize)]
struct ChunkChoice<'a> {
    index: usize,
    delta: Delta<'a>,
    logprobs: Option<Logprobs<'a>>,
    /// `null` in every chunk but one of each choice.
    finish_reason: Option<Finish>,
}

/// How likely the tokens of a text were.
#[derive(Serialize)]
struct Logprobs<'a> {
    content: Vec<TokenLogprob<'a>>,
    refusal: Option<()>,
}

#[derive(Serialize)]
struct TokenLogprob<'a> {
    #[serde(flatten)]
    token: Logprob<'a>,
    top_logprobs: Vec<Logprob<'a>>,
}

#[derive(Serialize)]
struct Logprob<'a> {
    token: &'a str,
    logprob: f64,
    bytes: &'a [u8],
}

impl<'a> Logprobs<'a> {
    fn of(rated: &'a [Rated]) -> Self {
        let logprob = |token: &'a Spelled| Logprob {
            token: &token.text,
            logprob: token.logprob,
            bytes: &token.bytes,
        };
        let content = rated.iter().map(|rated| TokenLogprob {
            token: logprob(&rated.token),
            top_logprobs: rated.top.iter().map(logprob).collect(),
        });
        Self { content: content.collect(), refusal: None }
    }
}

#[derive(Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::reply::tests::{head, told};

    fn reply(include_usage: bool) -> ChatReply {
        ChatReply::new(head("chatcmpl-", include_usage), 1)
    }

    fn check(events: &str, expected: &str) {
        let zeros = "0".repeat(64);
        let head = format!(
            r#"data: {{"id":"chatcmpl-{zeros}","object":"chat.completion.chunk","created":7,"model":"nano","system_fingerprint":"fp_abababababab","#
        );
        assert_eq!(events.replace(&head, ""), expected);
    }

    #[test]
    fn chunks_are_as_clients_expect() {
        let mut plain = reply(false);
        check(
            &plain.opened(),
            "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n",
        );
        check(
            &plain.piece(0, &"a\n".to_owned().into()),
            "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\\n\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n",
        );
        let mut usage = reply(true);
        check(
            &usage.piece(0, &"a".to_owned().into()),
            "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n",
        );
        check(
            &usage.closed(&[told("a")]),
            "\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\"total_tokens\":7,\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":0,\"audio_tokens\":0,\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}}}\n\ndata: [DONE]\n\n",
        );
    }

    #[test]
    fn logprobs_stand_beside_their_text() {
        let spelled = |text: &str, logprob| Spelled {
            text: text.into(),
            bytes: text.as_bytes().to_vec(),
            logprob,
        };
        let rated = Rated { token: spelled("a", -0.5), top: vec![spelled("b", -0.25)] };
        let piece = Piece { text: "a".into(), rated: Some(vec![rated]) };
        check(
            &reply(false).piece(0, &piece),
            "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"logprobs\":{\"content\":[{\"token\":\"a\",\"logprob\":-0.5,\"bytes\":[97],\"top_logprobs\":[{\"token\":\"b\",\"logprob\":-0.25,\"bytes\":[98]}]}],\"refusal\":null},\"finish_reason\":null}]}\n\n",
        );
    }

    #[test]
    fn each_of_several_choices_begins_and_ends_once() {
        let mut reply = ChatReply::new(head("chatcmpl-", false), 2);
        let stream = reply.opened() + &reply.ended(1, &told("b")) + &reply.ended(0, &told("a"));
        assert_eq!(stream.matches(r#""role":"assistant""#).count(), 2);
        assert_eq!(stream.matches(r#""finish_reason":"stop""#).count(), 2);
        let whole: serde_json::Value =
            serde_json::from_str(&reply.whole(&[told("a"), told("b")])).unwrap();
        assert_eq!(whole["choices"][1]["message"]["content"], "b");
        assert_eq!(whole["choices"][1]["index"], 1);
        assert_eq!(whole["usage"]["total_tokens"], 14);
    }
}
