//! What is said to each kind of server, and what it says back.
//!
//! Only tokens count, by id: a text has many spellings, and a receipt commits to one. A server is asked to
//! draw as the order says, as far as it can: it computes in floats, with random numbers of its own.

use assay_models::Sampler;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::RemoteError;
use crate::job::Job;

/// One in the Q16 numbers of a sampler.
const ONE_Q16: f64 = 65_536.0;

/// A kind of server that tells token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// llama.cpp's `llama-server`.
    LlamaCpp,
    /// vLLM, and what it calls the model.
    Vllm { model: String },
}

/// What one event, or a whole answer, tells.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Tokens, in order.
    pub(crate) tokens: Vec<u32>,
    /// Tokens so far by the server's own count, where it says.
    pub(crate) counted: Option<u64>,
    /// Whether nothing follows, and why.
    pub(crate) ended: Option<Ended>,
}

/// Why a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The model ended its answer.
    Eos,
    /// As many tokens as were asked for.
    Length,
    /// Anything else.
    Other,
}

impl Dialect {
    /// Where answers are asked for.
    pub(crate) fn path(&self) -> &'static str {
        match self {
            Self::LlamaCpp => "/completion",
            Self::Vllm { .. } => "/v1/completions",
        }
    }

    /// The request for `tokens` more tokens behind the job's prompt and `output`.
    pub(crate) fn request(&self, job: &Job, output: &[u32], tokens: u32, stream: bool) -> Value {
        let prompt: Vec<u32> = job.prompt.iter().chain(output).copied().collect();
        let prompt_len = prompt.len() as u64;
        // The same order draws the same, as far as the server is able to.
        let seed =
            (job.draws.uniform(u32::try_from(output.len()).unwrap_or(u32::MAX), 0) >> 33) as u32;
        let Sampler { top_k, rep_q16, freq_q16, pres_q16, top_p_q16, min_p_q16, .. } = job.sampler;
        let q16 = |number: f64| number / ONE_Q16;
        let mut request = json!({
            "prompt": prompt,
            "stream": stream,
            "seed": seed,
            "temperature": temperature(job.sampler.inv_t_q16),
            "top_p": q16(top_p_q16.into()),
            "min_p": q16(min_p_q16.into()),
            "frequency_penalty": q16(freq_q16.into()),
            "presence_penalty": q16(pres_q16.into()),
        });
        let bias = job.sampler.bias.iter();
        match self {
            Self::LlamaCpp => {
                let bias: Vec<Value> =
                    bias.map(|(token, bias)| json!([token, q16((*bias).into())])).collect();
                request["n_predict"] = tokens.into();
                request["return_tokens"] = true.into();
                request["cache_prompt"] = true.into();
                request["top_k"] = top_k.into();
                request["repeat_penalty"] = q16(rep_q16.into()).into();
                // All of it; some versions know no other word for that.
                request["repeat_last_n"] = (prompt_len + u64::from(tokens)).into();
                request["logit_bias"] = bias.into();
            }
            Self::Vllm { model } => {
                let bias =
                    bias.map(|(token, bias)| (token.to_string(), json!(q16((*bias).into()))));
                let bias: serde_json::Map<String, Value> = bias.collect();
                request["model"] = model.clone().into();
                request["max_tokens"] = tokens.into();
                request["return_token_ids"] = true.into();
                request["add_special_tokens"] = false.into();
                request["skip_special_tokens"] = false.into();
                request["top_k"] = if top_k == 0 { json!(-1) } else { json!(top_k) };
                request["repetition_penalty"] = q16(rep_q16.into()).into();
                request["stop_token_ids"] = json!(job.ending.eos);
                if !bias.is_empty() {
                    request["logit_bias"] = bias.into();
                }
            }
        }
        request
    }

    /// Reads one event of a stream, or a whole answer.
    pub(crate) fn read(&self, json: &[u8]) -> Result<Told, RemoteError> {
        match self {
            Self::LlamaCpp => read_llama(json),
            Self::Vllm { .. } => read_vllm(json),
        }
    }
}

/// The temperature that a sampler's `round(2^16 · log2(e) / temperature)` stands for.
fn temperature(inv_t_q16: u32) -> f64 {
    if inv_t_q16 == 0 { 0.0 } else { ONE_Q16 * std::f64::consts::LOG2_E / f64::from(inv_t_q16) }
}

fn read_llama(json: &[u8]) -> Result<Told, RemoteError> {
    #[derive(Deserialize)]
    struct Event {
        tokens: Option<Vec<u32>>,
        #[serde(default)]
        stop: bool,
        stop_type: Option<String>,
        tokens_predicted: Option<u64>,
        error: Option<Value>,
    }
    let event: Event = parse(json)?;
    fail(event.error)?;
    let tokens = event
        .tokens
        .ok_or_else(|| garbage("it has no tokens, so its llama-server is too old".into()))?;
    let ended = event.stop.then_some(match event.stop_type.as_deref() {
        Some("eos") => Ended::Eos,
        Some("limit") => Ended::Length,
        _ => Ended::Other,
    });
    Ok(Told { tokens, counted: event.tokens_predicted, ended })
}

fn read_vllm(json: &[u8]) -> Result<Told, RemoteError> {
    #[derive(Deserialize)]
    struct Event {
        #[serde(default)]
        choices: Vec<Choice>,
        error: Option<Value>,
    }
    #[derive(Deserialize)]
    struct Choice {
        token_ids: Option<Vec<u32>>,
        finish_reason: Option<String>,
    }
    let event: Event = parse(json)?;
    fail(event.error)?;
    let Some(choice) = event.choices.into_iter().next() else { return Ok(Told::default()) };
    let ended = choice.finish_reason.map(|reason| match reason.as_str() {
        "stop" => Ended::Eos,
        "length" => Ended::Length,
        _ => Ended::Other,
    });
    match choice.token_ids {
        Some(tokens) => Ok(Told { tokens, counted: None, ended }),
        // The last event may have nothing but its reason.
        None if ended.is_some() => Ok(Told { ended, ..Told::default() }),
        None => Err(garbage("it has no token_ids, so its vLLM is too old".into())),
    }
}

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, RemoteError> {
    serde_json::from_slice(json).map_err(|error| garbage(error.to_string()))
}

fn fail(error: Option<Value>) -> Result<(), RemoteError> {
    let Some(error) = error.filter(|error| !error.is_null()) else { return Ok(()) };
    let message = error["message"].as_str().unwrap_or("an error");
    Err(garbage(message.chars().filter(|c| !c.is_control()).take(200).collect()))
}

fn garbage(reason: String) -> RemoteError {
    RemoteError::Garbage { what: "answer", reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_by_id() {
        let llama = |text: &str| Dialect::LlamaCpp.read(text.as_bytes());
        let told = llama(r#"{"content":"é","tokens":[7],"stop":false,"tokens_predicted":3}"#);
        assert_eq!(told, Ok(Told { tokens: vec![7], counted: Some(3), ended: None }));
        let told = llama(r#"{"tokens":[],"stop":true,"stop_type":"eos","tokens_predicted":3}"#);
        assert_eq!(told.unwrap().ended, Some(Ended::Eos));
        let vllm = Dialect::Vllm { model: "m".into() };
        let told =
            vllm.read(br#"{"choices":[{"text":"a","token_ids":[1,2],"finish_reason":"length"}]}"#);
        assert_eq!(
            told,
            Ok(Told { tokens: vec![1, 2], counted: None, ended: Some(Ended::Length) })
        );
        assert_eq!(vllm.read(br#"{"choices":[],"usage":{}}"#), Ok(Told::default()));
    }

    #[test]
    fn what_tells_no_ids_is_no_answer() {
        for (dialect, text) in [
            (Dialect::LlamaCpp, r#"{"content":"a"}"#),
            (Dialect::LlamaCpp, r#"{"tokens":[-1]}"#),
            (Dialect::LlamaCpp, r#"{"tokens":[4294967296]}"#),
            (Dialect::LlamaCpp, r#"{"error":{"message":"no slot"}}"#),
            (Dialect::LlamaCpp, "[1]"),
            (Dialect::LlamaCpp, ""),
            (Dialect::Vllm { model: "m".into() }, r#"{"choices":[{"text":"a"}]}"#),
            (Dialect::Vllm { model: "m".into() }, r#"{"choices":[{"token_ids":"a"}]}"#),
        ] {
            assert!(
                matches!(dialect.read(text.as_bytes()), Err(RemoteError::Garbage { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn a_temperature_survives_its_signed_form() {
        for wanted in [0.1, 0.7, 1.0, 2.0_f64] {
            let signed = (ONE_Q16 * std::f64::consts::LOG2_E / wanted).round() as u32;
            assert!((temperature(signed) - wanted).abs() < 1e-4, "{wanted}");
        }
        assert!(temperature(0) == 0.0);
    }
}
