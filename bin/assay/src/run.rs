//! `assay run`: one question, one answer, and its receipt if asked for.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::data::write_whole;
use crate::failure::{Exit, Failure, Outcome};
use crate::gateway::{Completion, Gateway, GatewayArgument};
use crate::terminal::{note, say, say_json, write};

/// Longest prompt read from standard input; the gateway takes no longer request.
const PROMPT_MAX: u64 = 16 << 20;

/// Ask one question and print the answer
#[derive(Args, Debug)]
pub(crate) struct Run {
    /// The question; `-`, or nothing where input is piped, reads standard input
    prompt: Option<String>,
    #[command(flatten)]
    asked: Asked,
    /// Save the answer with its receipt to a file that `assay verify` reads
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
    /// Print one JSON document instead of the text
    #[arg(long)]
    json: bool,
}

/// Which model answers, and how it draws its words.
#[derive(Args, Clone, Debug)]
pub(crate) struct Asked {
    #[command(flatten)]
    pub(crate) gateway: GatewayArgument,
    /// Model that answers [default: the gateway's first]
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// How freely words are drawn, from 0 (the likeliest) to 2
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = finite)]
    temperature: f64,
    /// Longest answer, in tokens [default: what the context leaves]
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
    /// Number that makes a drawn answer repeatable
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    seed: Option<i64>,
}

/// A number that JSON can carry.
fn finite(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if number.is_finite() { Ok(number) } else { Err("not a finite number".into()) }
}

impl Asked {
    /// The request for an answer to `messages`.
    pub(crate) fn request(&self, model: &str, messages: &Value) -> Value {
        let mut request =
            json!({ "model": model, "messages": messages, "temperature": self.temperature });
        if let Some(tokens) = self.max_tokens {
            request["max_tokens"] = tokens.into();
        }
        if let Some(seed) = self.seed {
            request["seed"] = seed.into();
        }
        request
    }

    /// The model to ask.
    pub(crate) async fn model(&self, gateway: &Gateway) -> Outcome<String> {
        match &self.model {
            Some(model) => Ok(model.clone()),
            None => gateway.first_model().await,
        }
    }
}

impl Run {
    pub(crate) async fn run(self) -> Outcome {
        let prompt = prompt(self.prompt.as_deref())?;
        let gateway = self.asked.gateway.open()?;
        let model = self.asked.model(&gateway).await?;
        let request = self.asked.request(&model, &json!([{ "role": "user", "content": prompt }]));
        let answer = gateway
            .answer(request, |text| {
                if !self.json {
                    write(text);
                }
            })
            .await?;
        if !self.json {
            say("");
            warn_if_cut(&answer);
        }
        if let Some(file) = &self.receipt {
            save_receipt(&gateway, &answer, file).await?;
        }
        if self.json {
            say_json(&json!({
                "schema": "assay.run/1",
                "id": answer.id,
                "model": model,
                "text": answer.text,
                "finish": answer.finish,
                "usage": answer.usage,
                "receipt": self.receipt,
            }));
        }
        Ok(())
    }
}

/// The question from the command line, or from standard input.
fn prompt(argument: Option<&str>) -> Outcome<String> {
    match argument {
        Some(text) if text != "-" => return Ok(text.to_owned()),
        None if std::io::stdin().is_terminal() => {
            return Err(Failure::new(Exit::Usage, "there is no question")
                .fix("assay run \"12+45=\", or pipe the question in"));
        }
        _ => {}
    }
    let mut text = String::new();
    std::io::stdin().lock().take(PROMPT_MAX).read_to_string(&mut text).map_err(|error| {
        Failure::new(Exit::Usage, "the question on standard input cannot be read").why(error)
    })?;
    // A shell ends what it pipes with a line break that nobody typed.
    Ok(text.strip_suffix('\n').map(str::to_owned).unwrap_or(text))
}

/// Says so when an answer ended because there was no more room.
pub(crate) fn warn_if_cut(answer: &Completion) {
    if answer.finish == "length" {
        let tokens = answer.usage["completion_tokens"].as_u64().unwrap_or_default();
        note(format_args!("(cut after {tokens} tokens: the limit, or the context, was reached)"));
    }
}

/// Fetches an answer with everything that proves it, and writes it to a file.
pub(crate) async fn save_receipt(gateway: &Gateway, answer: &Completion, file: &Path) -> Outcome {
    let receipt = gateway.get(&format!("/v1/receipts/{}", answer.id)).await?;
    write_whole(file, format!("{receipt:#}\n").as_bytes())?;
    note(format_args!("receipt saved; check it with: assay verify {}", file.display()));
    Ok(())
}
