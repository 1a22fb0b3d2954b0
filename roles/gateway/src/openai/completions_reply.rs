//! Replies of the older completions API: whole, or in chunks.

use std::borrow::Cow;
use std::collections::BTreeMap;

use assay_protocol::Answer;
use serde::Serialize;

use super::reply::{Finish, Head, Reply, Told, Usage, event, json, only};
use crate::rated::{Piece, Rated, Spelled};

/// A reply of the completions API.
#[derive(Debug)]
pub(crate) struct CompletionReply {
    head: Head,
    /// What stands before the text of each choice: its prompt, if that was asked for.
    echoes: Vec<String>,
    /// Characters of each choice's text that were told of by token.
    offsets: Vec<usize>,
}

impl CompletionReply {
    /// A reply with a choice for each of `echoes`, which are empty unless prompts are repeated.
    pub(crate) fn new(head: Head, echoes: Vec<String>) -> Self {
        let offsets = vec![0; echoes.len()];
        Self { head, echoes, offsets }
    }

    fn said(
        &self,
        choices: Vec<Choice<'_>>,
        usage: Option<Option<Usage>>,
        answer: Option<&Answer>,
    ) -> String {
        json(&Completion {
            id: &self.head.id,
            object: "text_completion",
            created: self.head.created,
            model: &self.head.model,
            system_fingerprint: &self.head.fingerprint,
            choices,
            usage,
            assay: answer,
        })
    }

    fn chunk(
        &self,
        choice: Option<Choice<'_>>,
        usage: Option<Usage>,
        answer: Option<&Answer>,
    ) -> String {
        let usage = self.head.include_usage.then_some(usage);
        event(&self.said(choice.into_iter().collect(), usage, answer))
    }
}

impl Reply for CompletionReply {
    fn whole(&mut self, told: &[Told]) -> String {
        let several = told.len() > 1;
        let texts: Vec<String> = self
            .echoes
            .iter()
            .zip(told)
            .map(|(echo, told)| format!("{echo}{}", told.text))
            .collect();
        let choices = texts.iter().zip(told).enumerate().map(|(index, (text, told))| Choice {
            text,
            index,
            logprobs: told.rated.as_deref().map(|rated| Logprobs::of(rated, &mut 0)),
            finish_reason: Some(told.finish),
            assay: told.answer.as_deref().filter(|_| several),
        });
        let usage = Usage::sum(told.iter().map(|told| told.usage));
        self.said(choices.collect(), Some(Some(usage)), only(told))
    }

    fn opened(&mut self) -> String {
        let echoed = self.echoes.iter().enumerate().filter(|(_, echo)| !echo.is_empty());
        echoed
            .map(|(index, echo)| self.chunk(Some(Choice::piece(index, echo)), None, None))
            .collect()
    }

    fn piece(&mut self, choice: usize, piece: &Piece) -> String {
        let offset = &mut self.offsets[choice];
        let logprobs = piece.rated.as_deref().map(|rated| Logprobs::of(rated, offset));
        self.chunk(Some(Choice { logprobs, ..Choice::piece(choice, &piece.text) }), None, None)
    }

    fn ended(&mut self, choice: usize, told: &Told) -> String {
        let answer = self.head.receipt(self.echoes.len(), told);
        let end = Choice { finish_reason: Some(told.finish), ..Choice::piece(choice, "") };
        self.chunk(Some(end), None, answer)
    }

    fn closed(&mut self, told: &[Told]) -> String {
        self.head.closed(told, |usage, answer| self.chunk(None, Some(usage), answer))
    }
}

/// A whole reply or a chunk: they have one shape.
#[derive(Serialize)]
struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: Vec<Choice<'a>>,
    /// In chunks absent unless asked for; `null` in every chunk but the last then.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    assay: Option<&'a Answer>,
}

#[derive(Serialize)]
struct Choice<'a> {
    text: &'a str,
    index: usize,
    logprobs: Option<Logprobs<'a>>,
    /// `null` in every chunk but one of each choice.
    finish_reason: Option<Finish>,
    /// Its receipt, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    assay: Option<&'a Answer>,
}

/// How likely the tokens of a text were, in lists beside each other.
#[derive(Serialize)]
struct Logprobs<'a> {
    tokens: Vec<Cow<'a, str>>,
    token_logprobs: Vec<f64>,
    top_logprobs: Vec<BTreeMap<Cow<'a, str>, f64>>,
    /// Where each token begins, in characters.
    text_offset: Vec<usize>,
}

impl<'a> Logprobs<'a> {
    /// Of tokens that begin at `offset`, which then is where they end.
    fn of(rated: &'a [Rated], offset: &mut usize) -> Self {
        let begin = |rated: &Rated| {
            let end = *offset + rated.token.text.chars().count();
            std::mem::replace(offset, end)
        };
        let named = |token: &'a Spelled| (name(token), token.logprob);
        Self {
            text_offset: rated.iter().map(begin).collect(),
            tokens: rated.iter().map(|rated| name(&rated.token)).collect(),
            token_logprobs: rated.iter().map(|rated| rated.token.logprob).collect(),
            top_logprobs: rated.iter().map(|r| r.top.iter().map(named).collect()).collect(),
        }
    }
}

/// A token's text, or its bytes where they are a part of a character: keys must differ.
fn name(token: &Spelled) -> Cow<'_, str> {
    if token.text.as_bytes() == token.bytes || token.bytes.is_empty() {
        return token.text.as_str().into();
    }
    let bytes: String = token.bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    format!("bytes:{bytes}").into()
}

impl<'a> Choice<'a> {
    /// A piece of a stream.
    fn piece(index: usize, text: &'a str) -> Self {
        Self { text, index, logprobs: None, finish_reason: None, assay: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::reply::tests::{head, told};

    #[test]
    fn logprobs_are_lists_beside_each_other() {
        let spelled = |bytes: &[u8], logprob| Spelled {
            text: String::from_utf8_lossy(bytes).into_owned(),
            bytes: bytes.to_vec(),
            logprob,
        };
        let rated =
            |bytes: &[u8]| Rated { token: spelled(bytes, -0.5), top: vec![spelled(bytes, -0.5)] };
        let piece = |bytes: &[u8]| Piece { text: "x".into(), rated: Some(vec![rated(bytes)]) };
        let mut reply = CompletionReply::new(head("cmpl-", false), vec![String::new()]);
        let first = reply.piece(0, &piece("h\u{e4}".as_bytes()));
        let expected = r#""logprobs":{"tokens":["hä"],"token_logprobs":[-0.5],"top_logprobs":[{"hä":-0.5}],"text_offset":[0]}"#;
        assert!(first.contains(expected), "{first}");
        let second = reply.piece(0, &piece(b"\xe2\x82"));
        let expected = r#"{"tokens":["bytes:\\xe2\\x82"],"token_logprobs":[-0.5],"top_logprobs":[{"bytes:\\xe2\\x82":-0.5}],"text_offset":[2]}"#;
        assert!(second.contains(expected), "{second}");
    }

    #[test]
    fn an_echo_comes_before_the_answer_whole_and_in_pieces() {
        let echoes = vec!["1+1=".to_owned(), String::new()];
        let mut reply = CompletionReply::new(head("cmpl-", true), echoes);
        let whole: serde_json::Value =
            serde_json::from_str(&reply.whole(&[told("2"), told("b")])).unwrap();
        assert_eq!(
            (&whole["choices"][0]["text"], &whole["choices"][1]["text"]),
            (&"1+1=2".into(), &"b".into())
        );
        assert_eq!(
            (&whole["object"], &whole["usage"]["prompt_tokens"]),
            (&"text_completion".into(), &6.into())
        );
        let opened = reply.opened();
        assert_eq!(opened.matches(r#""text":"1+1=","index":0"#).count(), 1);
        assert_eq!(opened.matches("data: ").count(), 1);
        let end = reply.ended(1, &told("b"));
        assert!(
            end.contains(r#""text":"","index":1,"logprobs":null,"finish_reason":"stop""#),
            "{end}"
        );
        assert!(reply.closed(&[told("2"), told("b")]).ends_with("data: [DONE]\n\n"));
    }
}
