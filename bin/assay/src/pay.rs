//! `assay pay`: one answer and its bill, or the bill alone.

use clap::Args;
use serde_json::{Value, json};

use crate::failure::Outcome;
use crate::ledger::units;
use crate::run::Asked;
use crate::terminal::{say, say_json};

/// Buy one answer and show what it cost
#[derive(Args, Debug)]
pub(crate) struct Pay {
    /// The question
    prompt: String,
    #[command(flatten)]
    asked: Asked,
    /// Show what it would cost at most; buy nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Pay {
    pub(crate) async fn run(self) -> Outcome {
        let gateway = self.asked.gateway.open()?;
        let model = self.asked.model(&gateway).await?;
        let messages = json!([{ "role": "user", "content": self.prompt }]);
        let request = self.asked.request(&model, &messages);
        if self.dry_run {
            let quote = gateway.call("assay_quote", json!([request])).await?;
            if self.json {
                say_json(&json!({ "schema": "assay.pay.quote/1", "quote": quote }));
                return Ok(());
            }
            say(format_args!("model      {model}"));
            say(format_args!("provider   {}", text(&quote["provider"])));
            let (prompt, most) = (&quote["promptTokens"], &quote["maxTokens"]);
            say(format_args!("tokens     {prompt} in, at most {most} out"));
            let (least, most) = (asy(&quote["minPrice"]), asy(&quote["maxPrice"]));
            say(format_args!("price      from {least} to {most} ASY"));
            return Ok(());
        }
        let bought = gateway.call("assay_infer", json!([request])).await?;
        let receipt = &bought["receipt"]["receipt"];
        if self.json {
            say_json(&json!({
                "schema": "assay.pay/1",
                "order": bought["order"],
                "text": bought["text"],
                "usage": bought["usage"],
                "receipt": receipt,
            }));
            return Ok(());
        }
        say(text(&bought["text"]));
        say("");
        let usage = &bought["usage"];
        let (prompt, output) = (&usage["prompt_tokens"], &usage["completion_tokens"]);
        say(format_args!("order      {}", text(&bought["order"])));
        say(format_args!("provider   {}", text(&receipt["provider"])));
        say(format_args!("tokens     {prompt} in, {output} out"));
        say(format_args!("price      {} ASY", asy(&receipt["price"])));
        let (before, after) = (asy(&receipt["channelBefore"]), asy(&receipt["channelAfter"]));
        say(format_args!("channel    {}  {before} to {after} ASY", text(&receipt["channel"])));
        Ok(())
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn asy(amount: &Value) -> String {
    text(amount).parse().map_or_else(|_| "-".into(), units)
}
