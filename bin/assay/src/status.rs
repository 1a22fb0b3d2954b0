//! `assay status`: what a gateway sees.

use clap::Args;
use serde_json::{Value, json};

use crate::failure::Outcome;
use crate::gateway::GatewayArgument;
use crate::terminal::{say, say_json};

/// Show a gateway, its models and its providers
#[derive(Args, Debug)]
pub(crate) struct Status {
    #[command(flatten)]
    gateway: GatewayArgument,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(crate) async fn run(self) -> Outcome {
        let gateway = self.gateway.open()?;
        let version = gateway.get("/version").await?;
        let models = list(gateway.get("/v1/models").await?);
        let providers = list(gateway.get("/v1/providers").await?);
        let ready = gateway.is_ready().await;
        if self.json {
            say_json(&json!({
                "schema": "assay.status/1",
                "gateway": { "url": gateway.url(), "ready": ready, "version": version },
                "models": models,
                "providers": providers,
            }));
            return Ok(());
        }
        let state = if ready { "ready" } else { "not ready" };
        say(format_args!("gateway    {}  {state}, {}", gateway.url(), words(&version["version"])));
        for model in &models {
            let context = words(&model["max_model_len"]);
            say(format_args!("model      {}  context {context}", words(&model["id"])));
        }
        for provider in &providers {
            say(format_args!("provider   {}", provider_line(provider)));
        }
        Ok(())
    }
}

/// The entries of a list in OpenAI's shape.
fn list(mut document: Value) -> Vec<Value> {
    match document["data"].take() {
        Value::Array(entries) => entries,
        _ => Vec::new(),
    }
}

fn provider_line(provider: &Value) -> String {
    let mut line = format!(
        "{}  {}  {} of {} slots in use",
        words(&provider["url"]),
        words(&provider["address"]),
        words(&provider["running"]),
        words(&provider["running_max"]),
    );
    if let Some(reason) = provider["struck"].as_str() {
        line.push_str(&format!("  STRUCK: {reason}"));
    }
    line
}

/// A value as people read it.
fn words(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
