//! What all replies have in common, in whichever API they are told.

use assay_protocol::{Answer, ModelId, OrderHash, hex};
use serde::Serialize;

use super::Problem;
use crate::rated::{Piece, Rated};

/// Why an answer ended, in OpenAI's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Finish {
    /// The model, or a stop string, ended it.
    Stop,
    /// The limit on tokens ended it.
    Length,
}

/// What an answer took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct PromptDetails {
    cached_tokens: u32,
    audio_tokens: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct CompletionDetails {
    reasoning_tokens: u32,
    audio_tokens: u32,
    accepted_prediction_tokens: u32,
    rejected_prediction_tokens: u32,
}

impl Usage {
    pub(crate) fn new(prompt_tokens: u32, completion_tokens: u32) -> Self {
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens.saturating_add(completion_tokens),
            prompt_tokens_details: PromptDetails::default(),
            completion_tokens_details: CompletionDetails::default(),
        }
    }

    /// Tokens of prompt and answer.
    pub(crate) fn tokens(self) -> (u32, u32) {
        (self.prompt_tokens, self.completion_tokens)
    }

    /// The same, of which so many tokens of the prompt did not have to be computed.
    pub(crate) fn with_cached(mut self, tokens: u32) -> Self {
        self.prompt_tokens_details.cached_tokens = tokens.min(self.prompt_tokens);
        self
    }

    /// What several answers took together. Each read its prompt, and was paid for that.
    pub(crate) fn sum(answers: impl IntoIterator<Item = Self>) -> Self {
        let (mut prompt, mut completion, mut cached) = (0u32, 0u32, 0u32);
        for usage in answers {
            prompt = prompt.saturating_add(usage.prompt_tokens);
            completion = completion.saturating_add(usage.completion_tokens);
            cached = cached.saturating_add(usage.prompt_tokens_details.cached_tokens);
        }
        Self::new(prompt, completion).with_cached(cached)
    }
}

/// One of a request's answers, complete.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) text: String,
    /// The tokens of the text, if they were asked for.
    pub(crate) rated: Option<Vec<Rated>>,
    pub(crate) finish: Finish,
    pub(crate) usage: Usage,
    /// The answer with its receipt; none where no token was asked for, and nothing bought.
    pub(crate) answer: Option<Box<Answer>>,
}

/// Tells a request's answers in the words of one API.
///
/// A stream is opened, gets pieces of its answers in any order, the end of each, and is closed; or it
/// breaks. What is returned are whole server-sent events.
pub(crate) trait Reply: Send {
    /// All answers at once, in the order of their choices.
    fn whole(&mut self, told: &[Told]) -> String;

    /// What a stream begins with.
    fn opened(&mut self) -> String;

    /// More text of one choice.
    fn piece(&mut self, choice: usize, piece: &Piece) -> String;

    /// The end of one choice; `told` has all of its text.
    fn ended(&mut self, choice: usize, told: &Told) -> String;

    /// What a stream ends with, once all choices are.
    fn closed(&mut self, told: &[Told]) -> String;

    /// What a stream ends with instead, if an answer fails.
    fn broken(&mut self, problem: &Problem) -> String {
        event(&problem.body())
    }
}

/// What every part of one reply repeats.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// What clients know the reply by.
    pub(crate) id: String,
    /// Unix seconds.
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) fingerprint: String,
    /// Whether a stream ends with a chunk of usage, which all others then announce.
    pub(crate) include_usage: bool,
}

impl Head {
    /// Of the reply to `order`, its first; its receipt is found by the reply's id.
    pub(crate) fn new(
        prefix: &str,
        order: OrderHash,
        (id, model): (ModelId, String),
        created: u64,
        include_usage: bool,
    ) -> Self {
        let id_hex = hex::encode(id.0);
        Self {
            id: format!("{prefix}{}", hex::encode(order.0)),
            created,
            model,
            fingerprint: format!("fp_{}", id_hex.get(..12).unwrap_or(&id_hex)),
            include_usage,
        }
    }

    /// The receipt that stands where one of `choices` choices ends in a stream: each has its own. That of
    /// an only choice stands in the chunk of usage, if there is one.
    pub(crate) fn receipt<'a>(&self, choices: usize, told: &'a Told) -> Option<&'a Answer> {
        told.answer.as_deref().filter(|_| choices > 1 || !self.include_usage)
    }

    /// What a stream ends with: what `chunk` tells of usage and receipt, if that was asked for, and the
    /// mark of the end.
    pub(crate) fn closed(
        &self,
        told: &[Told],
        chunk: impl FnOnce(Usage, Option<&Answer>) -> String,
    ) -> String {
        let usage = || Usage::sum(told.iter().map(|told| told.usage));
        let last = if self.include_usage { chunk(usage(), only(told)) } else { String::new() };
        last + &event("[DONE]")
    }
}

/// The receipt of a reply with one answer.
pub(crate) fn only(told: &[Told]) -> Option<&Answer> {
    match told {
        [told] => told.answer.as_deref(),
        _ => None,
    }
}

/// One server-sent event.
pub(crate) fn event(data: &str) -> String {
    format!("data: {data}\n\n")
}

pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("replies have string keys and finite numbers")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use assay_protocol::B256;

    pub(crate) fn head(prefix: &str, include_usage: bool) -> Head {
        let model = (ModelId(B256::repeat_byte(0xab)), "nano".into());
        Head::new(prefix, OrderHash(B256::ZERO), model, 7, include_usage)
    }

    /// An answer of three prompt tokens and four of its own, without a receipt.
    pub(crate) fn told(text: &str) -> Told {
        let (finish, usage) = (Finish::Stop, Usage::new(3, 4));
        Told { text: text.into(), rated: None, finish, usage, answer: None }
    }
}
