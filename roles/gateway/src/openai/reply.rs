//! Replies as OpenAI's clients read them: whole, in chunks, and the list of models.

use assay_protocol::{Answer, ModelId, OrderHash, hex};
use serde::Serialize;

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
}

/// What every part of one reply repeats.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    id: String,
    created: u64,
    model: String,
    fingerprint: String,
    /// Whether a stream ends with a chunk of usage, which all others then announce.
    include_usage: bool,
}

impl Reply {
    /// The reply to `order`; `created` in Unix seconds.
    pub(crate) fn new(
        order: OrderHash,
        id: ModelId,
        model: String,
        created: u64,
        include_usage: bool,
    ) -> Self {
        Self {
            id: format!("chatcmpl-{}", hex::encode(order.0)),
            created,
            model,
            fingerprint: format!("fp_{}", &hex::encode(id.0)[..12]),
            include_usage,
        }
    }

    /// The whole answer at once.
    pub(crate) fn whole(
        &self,
        text: &str,
        finish: Finish,
        usage: Usage,
        answer: &Answer,
    ) -> String {
        json(&Completion {
            id: &self.id,
            object: "chat.completion",
            created: self.created,
            model: &self.model,
            system_fingerprint: &self.fingerprint,
            choices: [Choice {
                index: 0,
                message: Turn { role: "assistant", content: text, refusal: None },
                logprobs: None,
                finish_reason: finish,
            }],
            usage,
            assay: answer,
        })
    }

    /// A stream's first chunk.
    pub(crate) fn first(&self) -> String {
        let delta = Delta { role: Some("assistant"), content: Some("") };
        self.chunk(Some((delta, None)), None, None)
    }

    /// A chunk of text.
    pub(crate) fn piece(&self, text: &str) -> String {
        let delta = Delta { role: None, content: Some(text) };
        self.chunk(Some((delta, None)), None, None)
    }

    /// A stream's last chunks: the end, then the usage if it was asked for. The last one carries
    /// the receipt.
    pub(crate) fn last(&self, finish: Finish, usage: Usage, answer: &Answer) -> Vec<String> {
        let end = (Delta { role: None, content: None }, Some(finish));
        if self.include_usage {
            vec![self.chunk(Some(end), None, None), self.chunk(None, Some(usage), Some(answer))]
        } else {
            vec![self.chunk(Some(end), None, Some(answer))]
        }
    }

    fn chunk(
        &self,
        choice: Option<(Delta<'_>, Option<Finish>)>,
        usage: Option<Usage>,
        answer: Option<&Answer>,
    ) -> String {
        let choices = choice.map(|(delta, finish_reason)| ChunkChoice {
            index: 0,
            delta,
            logprobs: None,
            finish_reason,
        });
        json(&Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.model,
            system_fingerprint: &self.fingerprint,
            choices: choices.as_slice(),
            usage: self.include_usage.then_some(usage),
            assay: answer,
        })
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("replies have string keys and finite numbers")
}

#[derive(Serialize)]
struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: [Choice<'a>; 1],
    usage: Usage,
    assay: &'a Answer,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    message: Turn<'a>,
    logprobs: Option<()>,
    finish_reason: Finish,
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
    index: u32,
    delta: Delta<'a>,
    logprobs: Option<()>,
    /// `null` in every chunk but one.
    finish_reason: Option<Finish>,
}

#[derive(Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

/// The list of models.
#[derive(Serialize)]
pub(crate) struct Models {
    object: &'static str,
    data: Vec<ModelCard>,
}

impl Models {
    pub(crate) fn new(data: Vec<ModelCard>) -> Self {
        Self { object: "list", data }
    }
}

/// One model.
#[derive(Serialize)]
pub(crate) struct ModelCard {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_model_len: Option<u32>,
}

impl ModelCard {
    /// A model of which only the name is known.
    pub(crate) fn relayed(name: &str) -> Self {
        Self {
            id: name.to_owned(),
            object: "model",
            created: 0,
            owned_by: "operator",
            root: None,
            max_model_len: None,
        }
    }

    pub(crate) fn new(name: String, id: ModelId, created: u64, context: u32) -> Self {
        Self {
            id: name,
            object: "model",
            created,
            owned_by: "assay",
            root: Some(id.to_string()),
            max_model_len: Some(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use assay_protocol::B256;

    fn reply(include_usage: bool) -> Reply {
        let (order, model) = (OrderHash(B256::ZERO), ModelId(B256::repeat_byte(0xab)));
        Reply::new(order, model, "nano".into(), 7, include_usage)
    }

    fn check(chunk: &str, expected: &str) {
        let zeros = "0".repeat(64);
        let head = format!(
            r#"{{"id":"chatcmpl-{zeros}","object":"chat.completion.chunk","created":7,"model":"nano","system_fingerprint":"fp_abababababab","#
        );
        assert_eq!(chunk.strip_prefix(&head).unwrap(), expected);
    }

    #[test]
    fn chunks_are_as_clients_expect() {
        let plain = reply(false);
        check(
            &plain.first(),
            r#""choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}"#,
        );
        check(
            &plain.piece("a\n"),
            r#""choices":[{"index":0,"delta":{"content":"a\n"},"logprobs":null,"finish_reason":null}]}"#,
        );
        let usage = reply(true);
        check(
            &usage.piece("a"),
            r#""choices":[{"index":0,"delta":{"content":"a"},"logprobs":null,"finish_reason":null}],"usage":null}"#,
        );
        check(
            &usage.chunk(None, Some(Usage::new(3, 4)), None),
            r#""choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}"#,
        );
    }
}
