//! Finds out what a server is, and whether it has the model it is taken for.
//!
//! Nothing proves which weights it computes with. What can be told is told: that it answers, that its
//! context is long enough, and that it cuts texts into the model's tokens.

use assay_text::Tokenizer;
use serde_json::{Value, json};

use super::dialect::Dialect;
use super::error::RemoteError;
use super::wire::Wire;

/// Texts that tokenizers cut in different ways: words, numbers, code, spaces, several scripts.
const TEXTS: [&str; 6] = [
    "Hello, world! It's 12345.67 degrees.",
    " leading and  double  spaces",
    "def f(x):\n    return x**2\n\n",
    "na\u{ef}ve caf\u{e9} \u{2014} \u{6f22}\u{5b57} \u{1f642}",
    "<|im_end|> </s> [INST]",
    "12+45=",
];

/// What a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) dialect: Dialect,
    /// Most positions of one answer, prompt included.
    pub(crate) context: u64,
}

/// Asks a server what it is, and makes sure that it fits.
pub(crate) async fn probe(
    wire: &Wire,
    tokenizer: &Tokenizer,
    context: u32,
) -> Result<Found, RemoteError> {
    let found = recognise(wire).await?;
    if found.context < u64::from(context) {
        return Err(RemoteError::Context { found: found.context, expected: context });
    }
    for text in TEXTS {
        let tokens = cut(wire, &found.dialect, text).await?;
        let expected = tokenizer.encode_plain(text);
        if tokens != expected {
            return Err(RemoteError::Tokenizer { text, found: tokens, expected });
        }
    }
    Ok(found)
}

async fn recognise(wire: &Wire) -> Result<Found, RemoteError> {
    let (status, health) = wire.get("/health", "health").await?;
    // llama-server says so while it loads a model; others know nothing of health.
    if status == 503 || health["error"]["code"] == 503 {
        return Err(RemoteError::Status { what: "health", status: 503 });
    }
    let (_, props) = wire.get("/props", "properties").await?;
    if let Some(context) = props["default_generation_settings"]["n_ctx"].as_u64() {
        return Ok(Found { dialect: Dialect::LlamaCpp, context });
    }
    let (_, models) = wire.get("/v1/models", "models").await?;
    let model = &models["data"][0];
    let name = model["id"].as_str().unwrap_or_default();
    match (model["owned_by"].as_str(), model["max_model_len"].as_u64()) {
        (Some("vllm"), Some(context)) => {
            return Ok(Found { dialect: Dialect::Vllm { model: name.to_owned() }, context });
        }
        (Some("sglang"), _) => return Err(RemoteError::NoIds { server: "SGLang's OpenAI API" }),
        _ => {}
    }
    match wire.get("/api/version", "version").await? {
        (200, version) if version["version"].is_string() => {
            Err(RemoteError::NoIds { server: "Ollama" })
        }
        _ => Err(RemoteError::Unknown { url: wire.url().to_owned() }),
    }
}

/// The server's tokens of a text, as plain text: no control token is meant, whatever it spells.
async fn cut(wire: &Wire, dialect: &Dialect, text: &str) -> Result<Vec<u32>, RemoteError> {
    let request = match dialect {
        Dialect::LlamaCpp => {
            json!({ "content": text, "add_special": false, "parse_special": false })
        }
        Dialect::Vllm { model } => {
            json!({ "model": model, "prompt": text, "add_special_tokens": false })
        }
    };
    let answer = wire.post("/tokenize", &request, "tokens").await?;
    let token = |token: &Value| u32::try_from(token.as_u64()?).ok();
    let tokens = answer["tokens"].as_array();
    tokens.and_then(|tokens| tokens.iter().map(token).collect()).ok_or_else(|| {
        RemoteError::Garbage { what: "tokens", reason: "they are no list of ids".into() }
    })
}
