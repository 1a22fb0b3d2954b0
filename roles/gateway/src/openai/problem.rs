//! Errors as OpenAI's clients read them.

use assay_protocol::Amount;
use assay_protocol::wire::Refusal;
use assay_text::ChatError;
use axum::http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::Value;

/// Longest message, in bytes. Some repeat what the client sent, which may be millions.
const MESSAGE_BYTES_MAX: usize = 1000;

/// Why a client gets no answer, or not all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    /// Word a client program chooses by.
    pub(crate) code: &'static str,
    /// The request's field at fault.
    pub(crate) param: Option<String>,
    /// What happened, for a human.
    pub(crate) message: String,
    /// Seconds after which the same request may succeed.
    pub(crate) retry_after_s: Option<u32>,
    /// What was found and expected, for a client program. OpenAI's clients have no place for it.
    pub(crate) facts: Option<Box<Value>>,
}

/// Body of an error: `{"error": …}`.
#[derive(Serialize)]
struct Body<'a> {
    error: Inner<'a>,
}

#[derive(Serialize)]
struct Inner<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'a str>,
    code: &'static str,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let message = shortened(message.into());
        Self { status, code, param: None, message, retry_after_s: None, facts: None }
    }

    fn bad(code: &'static str, param: &str, message: impl Into<String>) -> Self {
        Self { param: Some(param.to_owned()), ..Self::new(StatusCode::BAD_REQUEST, code, message) }
    }

    fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }

    pub(crate) fn invalid_type(param: &str, expected: &str, found: &str) -> Self {
        Self::bad("invalid_type", param, format!("{param} must be {expected}, not {found}"))
    }

    pub(crate) fn invalid_value(param: &str, message: impl Into<String>) -> Self {
        Self::bad("invalid_value", param, message)
    }

    pub(crate) fn missing(param: &str) -> Self {
        Self::bad("missing_required_parameter", param, format!("{param} is missing"))
    }

    pub(crate) fn unsupported(param: &str, message: impl Into<String>) -> Self {
        Self::bad("unsupported_parameter", param, message)
    }

    pub(crate) fn too_long(param: &str, message: impl Into<String>) -> Self {
        Self::bad("string_above_max_length", param, message)
    }

    pub(crate) fn invalid_schema(param: &str, message: impl Into<String>) -> Self {
        Self::bad("invalid_json_schema", param, message)
    }

    pub(crate) fn context(param: &str, message: impl Into<String>) -> Self {
        Self::bad("context_length_exceeded", param, message)
    }

    pub(crate) fn json(reason: impl std::fmt::Display) -> Self {
        let message = format!("the body is not a JSON object: {reason}");
        Self::new(StatusCode::BAD_REQUEST, "invalid_json", message)
    }

    pub(crate) fn model(name: &str) -> Self {
        let message =
            format!("the model {name:?} does not exist; GET /v1/models lists those that do");
        let problem = Self::new(StatusCode::NOT_FOUND, "model_not_found", message);
        Self { param: Some("model".into()), ..problem }
    }

    pub(crate) fn no_such(what: &str, id: &str) -> Self {
        let message = format!("there is no {what} {id:?} here");
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(crate) fn no_receipt(name: &str) -> Self {
        let message = format!(
            "the model {name:?} is answered by the gateway operator's own server, without a receipt; ask \
             for a conversation with it at /v1/chat/completions"
        );
        Self::bad("no_receipt", "model", message)
    }

    pub(crate) fn no_embeddings(name: &str) -> Self {
        let message =
            format!("the model {name:?} makes no embeddings; GET /v1/models lists what there is");
        Self::bad("model_not_supported", "model", message)
    }

    pub(crate) fn no_classes(name: &str) -> Self {
        let message =
            format!("the model {name:?} tells no texts apart; GET /v1/models lists what there is");
        Self::bad("model_not_supported", "model", message)
    }

    pub(crate) fn only_embeddings(name: &str) -> Self {
        let message = format!(
            "the model {name:?} makes vectors, not text; ask for them at /v1/embeddings or /classify"
        );
        Self::bad("model_not_supported", "model", message)
    }

    pub(crate) fn no_template(name: &str) -> Self {
        let message = format!(
            "the model {name:?} has no chat template; ask it to go on with a prompt at /v1/completions"
        );
        Self::bad("model_not_supported", "model", message)
    }

    pub(crate) fn not_made(name: &str, what: &str) -> Self {
        let message = format!(
            "the model {name:?} makes no {what}; a model of the operator's own server may \
             (assay gateway --relay)"
        );
        Self::bad("model_not_supported", "model", message)
    }

    pub(crate) fn overloaded() -> Self {
        let message = "the gateway is working on as many requests as it takes at once";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", message).retry_after(1)
    }

    pub(crate) fn all_busy() -> Self {
        let message = "every provider of this model is busy";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", message).retry_after(1)
    }

    pub(crate) fn no_provider() -> Self {
        let message = "no provider offers this model now; GET /v1/providers tells why";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "no_provider", message).retry_after(2)
    }

    pub(crate) fn price(max: Amount) -> Self {
        let message = format!(
            "every offer for this model may come to more than the {max} base units that one answer \
             may cost here; ask for fewer tokens"
        );
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "price_too_high", message).retry_after(2)
    }

    pub(crate) fn no_taker() -> Self {
        let message = "no provider of this model takes orders under grants of this deployment";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "no_provider", message).retry_after(2)
    }

    pub(crate) fn origin(origin: &HeaderValue) -> Self {
        let message = format!(
            "pages of {origin:?} may not have orders signed here; the gateway's operator can allow \
             them (assay up --cors-origin)"
        );
        Self::new(StatusCode::FORBIDDEN, "origin_not_allowed", message)
    }

    pub(crate) fn closing() -> Self {
        let message = "the gateway is shutting down";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "closing", message).retry_after(5)
    }

    pub(crate) fn upstream(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "upstream_error", message)
    }

    pub(crate) fn timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message)
    }

    pub(crate) fn receipt(reason: impl std::fmt::Display) -> Self {
        let message = format!("the provider's receipt does not speak for its answer: {reason}");
        Self::new(StatusCode::BAD_GATEWAY, "receipt_mismatch", message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }

    pub(crate) fn storage(reason: impl std::fmt::Display) -> Self {
        let message = format!("the gateway could not keep the answer and its receipt: {reason}");
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "storage_error", message)
    }

    /// The error's body.
    pub(crate) fn body(&self) -> String {
        let error = Inner {
            message: &self.message,
            kind: self.kind(),
            param: self.param.as_deref(),
            code: self.code,
        };
        serde_json::to_string(&Body { error }).unwrap_or_default()
    }

    /// Whether the same request would fail the same way again, so that clients need not try.
    pub(crate) fn is_final(&self) -> bool {
        let passing = self.status == StatusCode::REQUEST_TIMEOUT || self.retry_after_s.is_some();
        // Each try would buy an answer, and none could be kept.
        let full = self.status == StatusCode::INSUFFICIENT_STORAGE;
        full || self.status.is_client_error() && !passing
    }

    fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            400..500 => "invalid_request_error",
            502 => "upstream_error",
            503 => "overloaded_error",
            504 => "timeout_error",
            _ => "server_error",
        }
    }
}

/// `message` with its middle left out if it is too long.
fn shortened(message: String) -> String {
    if message.len() <= MESSAGE_BYTES_MAX {
        return message;
    }
    let head = message.floor_char_boundary(MESSAGE_BYTES_MAX / 2);
    let tail = message.ceil_char_boundary(message.len() - MESSAGE_BYTES_MAX / 2);
    format!("{} … {}", &message[..head], &message[tail..])
}

/// Whether the client or the model's template is at fault.
impl From<ChatError> for Problem {
    fn from(error: ChatError) -> Self {
        match error {
            ChatError::Refused { .. } => Self::invalid_value("messages", error.to_string()),
            // Conversations that fit a context stay far below these limits.
            ChatError::Steps { .. } | ChatError::TextLength { .. } => {
                let message = format!("the messages are too long for this model: {error}");
                Self::context("messages", message)
            }
            error => Self::internal(error.to_string()),
        }
    }
}

/// What a client is told of a provider's refusal, other than that of a client's own grants. It is not
/// the client's fault: the gateway checked the order.
impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Busy { .. } => Self::all_busy(),
            refusal => Self::upstream(format!("the provider refused: {refusal}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_openais() {
        assert_eq!(
            Problem::invalid_type("temperature", "a number", "a string").body(),
            r#"{"error":{"message":"temperature must be a number, not a string","type":"invalid_request_error","param":"temperature","code":"invalid_type"}}"#
        );
    }

    #[test]
    fn a_long_name_is_not_sent_back_whole() {
        let message = Problem::model(&"ü".repeat(1 << 20)).message;
        assert!(message.len() < MESSAGE_BYTES_MAX + 8, "{}", message.len());
        assert!(message.starts_with("the model \"ü"), "{message}");
        assert!(message.ends_with("lists those that do"), "{message}");
    }

    #[test]
    fn only_what_cannot_change_is_final() {
        assert!(Problem::missing("model").is_final());
        assert!(Problem::model("x").is_final());
        assert!(Problem::storage("x").is_final());
        assert!(!Problem::all_busy().is_final());
        assert!(!Problem::no_provider().is_final());
        assert!(!Problem::receipt("x").is_final());
    }
}
