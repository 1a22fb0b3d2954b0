//! Replies that are paid for: what became of the payment in a header, and a copy to be repeated.
//!
//! A reply may be lost on its way, and its payer asks again. Whoever names the same payment identifier,
//! or brings the same payment, for the same request gets the copy. So the body is read to its end by a
//! task of ours even if the client is gone, and kept once it is whole.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use assay_protocol::{Address, Amount, B256, keccak256};
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::journal::Reply;
use super::wire::{PAYMENT_RESPONSE, PaymentPayload};

/// Longest reply that is kept, in bytes. Longer ones are sent and not kept.
const REPLY_BYTES_MAX: usize = 1 << 20;

/// Pieces of a body on their way to the client.
const PIECES_MAX: usize = 16;

/// x402's extension by which a client names a payment.
pub(crate) const IDENTIFIER: &str = "payment-identifier";

/// What an answer has cost, told by whoever bought it: before the body for a whole one, with its end
/// for a stream. The door finds it among the response's extensions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cost(Arc<OnceLock<Amount>>);

impl Cost {
    /// A cost that is known.
    pub(crate) fn known(amount: Amount) -> Self {
        let cost = Self::default();
        cost.is(amount);
        cost
    }

    /// Says it, once; what is said later counts for nothing.
    pub(crate) fn is(&self, amount: Amount) {
        let _ = self.0.set(amount);
    }

    pub(crate) fn get(&self) -> Option<Amount> {
        self.0.get().copied()
    }
}

/// What a payment and its request are known by, for repeating a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// The payment: the identifier that its client chose, or the payment itself.
    pub(crate) payment: B256,
    /// Whether its client chose it.
    pub(crate) chosen: bool,
    /// What was asked: path and body.
    pub(crate) request: B256,
}

/// Why an identifier is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a payment identifier has 16 to 128 letters, digits, hyphens and underscores")]
pub(crate) struct NotIdentifier;

impl Names {
    /// Names a payment by the identifier in its extensions, or by the header that brought it.
    pub(crate) fn of(
        payment: &PaymentPayload,
        header: &HeaderValue,
        path: &str,
        body: B256,
    ) -> Result<Self, NotIdentifier> {
        let request = keccak256([keccak256(path).as_slice(), body.as_slice()].concat());
        Ok(match identifier(payment)? {
            Some(id) => Self { payment: keccak256(format!("id:{id}")), chosen: true, request },
            None => {
                let payment = keccak256([b"header:", header.as_bytes()].concat());
                Self { payment, chosen: false, request }
            }
        })
    }
}

fn identifier(payment: &PaymentPayload) -> Result<Option<&str>, NotIdentifier> {
    let Some(extension) = payment.extensions.as_ref().and_then(|all| all.get(IDENTIFIER)) else {
        return Ok(None);
    };
    match extension.get("info").and_then(|info| info.get("id")) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) if is_identifier(id) => Ok(Some(id)),
        Some(_) => Err(NotIdentifier),
    }
}

fn is_identifier(id: &str) -> bool {
    (16..=128).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// What a 402 says of identifiers: they are understood, and not demanded.
pub(crate) fn extensions() -> Map<String, Value> {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "required": { "type": "boolean" },
            "id": {
                "type": "string", "minLength": 16, "maxLength": 128,
                "pattern": "^[a-zA-Z0-9_-]+$",
            },
        },
        "required": ["required"],
    });
    let mut extensions = Map::new();
    let declared = json!({ "info": { "required": false }, "schema": schema });
    extensions.insert(IDENTIFIER.to_owned(), declared);
    extensions
}

impl Reply {
    /// The reply once more.
    pub(crate) fn repeat(self) -> Response {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [(header::CONTENT_TYPE, self.content_type), (PAYMENT_RESPONSE, self.settlement)]
        {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
        (StatusCode::OK, headers, self.body).into_response()
    }
}

/// A copy of a reply in the making.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) request: B256,
    pub(crate) payer: Address,
    pub(crate) until: u64,
}

/// Splits a response into one that is sent and a task's work: reading the body to its end, whether or not
/// the client does. The work gives the reply to be kept, if the body ended well and is not too long.
pub(crate) fn copied(
    response: Response,
    copy: Copy,
) -> (Response, impl Future<Output = Option<Reply>>) {
    let (parts, body) = response.into_parts();
    let text = |name| parts.headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    let mut reply = Reply {
        request: copy.request,
        payer: copy.payer,
        content_type: text(header::CONTENT_TYPE).unwrap_or("application/json").to_owned(),
        settlement: text(PAYMENT_RESPONSE).unwrap_or_default().to_owned(),
        body: String::new(),
        until: copy.until,
    };
    let (sender, receiver) = mpsc::channel::<Result<Bytes, Infallible>>(PIECES_MAX);
    let work = async move {
        let mut pieces = body.into_data_stream();
        let (mut bytes, mut whole) = (Vec::new(), true);
        while let Some(piece) = pieces.next().await {
            let Ok(piece) = piece else { return None };
            whole &= bytes.len() + piece.len() <= REPLY_BYTES_MAX;
            if whole {
                bytes.extend_from_slice(&piece);
            }
            // A client that is gone may come back for the copy.
            let _ = sender.send(Ok(piece)).await;
        }
        reply.body = String::from_utf8(bytes).ok().filter(|_| whole)?;
        Some(reply)
    };
    (Response::from_parts(parts, Body::from_stream(ReceiverStream::new(receiver))), work)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(id: &str, expected: bool) {
        assert_eq!(is_identifier(id), expected, "{id}");
    }

    #[test]
    fn identifiers_are_plain_and_bounded() {
        check("pay_0123456789abcdef", true);
        check("0123456789abcde", false);
        check(&"a".repeat(128), true);
        check(&"a".repeat(129), false);
        check("pay_0123456789abc/ef", false);
    }

    #[tokio::test]
    async fn a_copy_is_whole_though_the_client_left() {
        let response = ([(header::CONTENT_TYPE, "text/plain")], "hello").into_response();
        let copy = Copy { request: B256::ZERO, payer: Address::ZERO, until: 7 };
        let (sent, work) = copied(response, copy);
        drop(sent);
        let reply = work.await.unwrap();
        assert_eq!((reply.body.as_str(), reply.content_type.as_str()), ("hello", "text/plain"));
    }
}
