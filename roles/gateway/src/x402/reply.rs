//! Replies that are paid for: what they cost, what they are known by, and copies to be repeated.
//!
//! A reply may be lost on its way, and its payer asks again. Whoever names the same payment identifier,
//! or brings the same payment, for the same request gets the copy. So a body is read to its end even if
//! the client is gone: a whole answer before it is charged, so that both are kept by one change, a stream
//! while it is sent. Of one that is too long, or no text, only that it was paid is kept: whoever asks again
//! is told so, and does not pay again.

use std::sync::{Arc, OnceLock};

use assay_protocol::{Address, Amount, B256, keccak256};
use axum::body::{Body, Bytes};
use axum::http::response::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::journal::Reply;
use super::wire::{self, PAYMENT_RESPONSE, PaymentPayload};
use crate::openai::Problem;

/// Longest body that is kept, in bytes. Longer ones are sent, and are known to have been.
pub(super) const REPLY_BYTES_MAX: usize = 1 << 20;

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
    /// Where the reply is kept: one for each payment, but of a channel only the last of those whose
    /// clients did not name them. Whoever signs the next voucher has seen the reply to the one before.
    pub(crate) kept: B256,
    /// What was asked: path and body.
    pub(crate) request: B256,
}

/// Why an identifier is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a payment identifier has 16 to 128 letters, digits, hyphens and underscores")]
pub(crate) struct NotIdentifier;

impl Names {
    /// Names a payment by the identifier in its extensions, or by `own`, with its reply at `kept`.
    pub(crate) fn of(
        payment: &PaymentPayload,
        own: B256,
        kept: B256,
        path: &str,
        body: B256,
    ) -> Result<Self, NotIdentifier> {
        let request = keccak256([path.as_bytes(), body.as_slice()].concat());
        Ok(match identifier(payment)? {
            Some(id) => {
                let payment = keccak256(format!("id:{id}"));
                Self { payment, chosen: true, kept: payment, request }
            }
            None => Self { payment: own, chosen: false, kept, request },
        })
    }

    /// Whether `reply` was given to `payer` for this very payment and request.
    pub(crate) fn fit(&self, reply: &Reply, payer: Address) -> bool {
        (reply.payment, reply.request, reply.payer) == (self.payment, self.request, payer)
    }
}

fn identifier(payment: &PaymentPayload) -> Result<Option<String>, NotIdentifier> {
    /// What is looked at of a payment's extensions.
    #[derive(Deserialize)]
    struct Extensions {
        #[serde(rename = "payment-identifier")]
        identifier: Option<Extension>,
    }
    #[derive(Deserialize)]
    struct Extension {
        info: Option<Info>,
    }
    #[derive(Deserialize)]
    struct Info {
        id: Option<String>,
    }
    let Some(extensions) = &payment.extensions else { return Ok(None) };
    let read: Extensions = wire::part(extensions).map_err(|_| NotIdentifier)?;
    let id = read.identifier.and_then(|extension| extension.info?.id);
    if id.as_deref().is_none_or(is_identifier) { Ok(id) } else { Err(NotIdentifier) }
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
    /// The reply once more, or that it was given and paid if its body is not kept.
    pub(crate) fn repeat(self) -> Response {
        let mut response = match self.body {
            Some(body) => {
                let kind = HeaderValue::from_str(&self.content_type);
                let kind = kind.unwrap_or(HeaderValue::from_static("application/json"));
                ([(header::CONTENT_TYPE, kind)], body).into_response()
            }
            None => gone(),
        };
        if let Ok(settlement) = HeaderValue::from_str(&self.settlement) {
            response.headers_mut().insert(PAYMENT_RESPONSE, settlement);
        }
        response
    }
}

/// An answer that was sent and paid, and is not here any more.
fn gone() -> Response {
    let message = "this payment was answered, and the answer is not kept any longer; nothing was \
                   charged now, and a new payment buys a new answer";
    Problem::new(StatusCode::GONE, "payment_answered", message).into_response()
}

/// What a copy of a reply says beside its body.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    pub(crate) names: Names,
    pub(crate) payer: Address,
    pub(crate) content_type: String,
    pub(crate) until: u64,
}

impl Copy {
    /// The copy of a response with these headers.
    pub(crate) fn of(headers: &HeaderMap, names: Names, payer: Address, until: u64) -> Self {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let content_type = kind.unwrap_or("application/json").to_owned();
        Self { names, payer, content_type, until }
    }

    /// The reply to keep; without a body it says that there was one.
    pub(crate) fn reply(self, settlement: &HeaderValue, body: Option<String>) -> Reply {
        Reply {
            payment: self.names.payment,
            request: self.names.request,
            payer: self.payer,
            content_type: self.content_type,
            settlement: settlement.to_str().unwrap_or_default().to_owned(),
            body,
            until: self.until,
        }
    }
}

/// An answer that was bought.
#[derive(Debug)]
pub(crate) enum Answer {
    /// All of it is here.
    Whole(Parts, Bytes),
    /// It comes piece by piece, or is too long to be kept.
    Stream(Response),
}

/// Reads an answer to its end, if it comes in one piece and its cost is known.
///
/// # Errors
/// If it breaks off.
pub(crate) async fn read(response: Response, cost: &Cost) -> Result<Answer, axum::Error> {
    if cost.get().is_none() || is_events(response.headers()) {
        return Ok(Answer::Stream(response));
    }
    let (parts, body) = response.into_parts();
    let mut rest = body.into_data_stream();
    let (mut pieces, mut length) = (Vec::new(), 0);
    while let Some(piece) = rest.next().await {
        let piece = piece?;
        length += piece.len();
        pieces.push(piece);
        if length > REPLY_BYTES_MAX {
            let begun = futures_util::stream::iter(pieces.into_iter().map(Ok));
            return Ok(Answer::Stream(Response::from_parts(
                parts,
                Body::from_stream(begun.chain(rest)),
            )));
        }
    }
    let body = match pieces.len() {
        0 | 1 => pieces.pop().unwrap_or_default(),
        _ => pieces.concat().into(),
    };
    Ok(Answer::Whole(parts, body))
}

fn is_events(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"text/event-stream"))
}

/// How a stream ended.
pub(crate) struct Ended {
    /// Whether it did not break off.
    pub(crate) whole: bool,
    /// What it said, if that is text and not too long.
    pub(crate) body: Option<String>,
    /// What its client has not got yet.
    last: Last,
}

/// The end of a stream, held back until it is kept: whoever has seen a whole answer finds just that one
/// when it asks again.
struct Last {
    pieces: Vec<Bytes>,
    client: mpsc::Sender<Result<Bytes, axum::Error>>,
}

impl Ended {
    /// Sends the end.
    pub(crate) async fn release(self) {
        for piece in self.last.pieces {
            // A client that is gone may come back for the copy.
            let _ = self.last.client.send(Ok(piece)).await;
        }
    }
}

/// Splits a response into one that is sent and a task's work: reading the body to its end, whether or not
/// the client does. What comes once the cost is known, or says that it is the last, is held back; where the
/// cost is `known` beforehand only the latter tells.
pub(crate) fn copied(response: Response, cost: Cost) -> (Response, impl Future<Output = Ended>) {
    let (parts, body) = response.into_parts();
    let (client, receiver) = mpsc::channel(PIECES_MAX);
    let known = cost.get().is_some();
    let work = async move {
        let mut pieces = body.into_data_stream();
        let (mut bytes, mut short, mut whole) = (Vec::new(), true, true);
        let mut last = Last { pieces: Vec::new(), client };
        while let Some(piece) = pieces.next().await {
            let piece = match piece {
                Ok(piece) => piece,
                Err(error) => {
                    whole = false;
                    // The client must not take what it has for the whole.
                    let _ = last.client.send(Err(error)).await;
                    break;
                }
            };
            short &= bytes.len() + piece.len() <= REPLY_BYTES_MAX;
            if short {
                bytes.extend_from_slice(&piece);
            }
            let ends = !known && cost.get().is_some() || says_done(&piece);
            if (ends || !last.pieces.is_empty()) && last.pieces.len() < PIECES_MAX {
                last.pieces.push(piece);
                continue;
            }
            for piece in last.pieces.drain(..).chain([piece]) {
                // A client that is gone may come back for the copy.
                let _ = last.client.send(Ok(piece)).await;
            }
        }
        let body = String::from_utf8(bytes).ok().filter(|_| short && whole);
        Ended { whole, body, last }
    };
    (Response::from_parts(parts, Body::from_stream(ReceiverStream::new(receiver))), work)
}

/// Whether a piece of a stream of events ends with OpenAI's last one.
fn says_done(piece: &[u8]) -> bool {
    piece.trim_ascii_end().ends_with(b"data: [DONE]")
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

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

    fn pieces(count: usize, bytes: usize) -> Response {
        let piece = Bytes::from(vec![b'a'; bytes]);
        let pieces = std::iter::repeat_n(Ok::<_, Infallible>(piece), count);
        Body::from_stream(futures_util::stream::iter(pieces)).into_response()
    }

    #[tokio::test]
    async fn an_answer_of_known_cost_is_read_whole() {
        let known = Cost::known(Amount(1));
        let read = read(pieces(3, 5), &known).await.unwrap();
        assert!(matches!(read, Answer::Whole(_, body) if body.as_ref() == [b'a'; 15]));
        let unknown = Cost::default();
        assert!(matches!(super::read(pieces(3, 5), &unknown).await, Ok(Answer::Stream(_))));
        let events = ([(header::CONTENT_TYPE, "text/event-stream")], "data: x").into_response();
        assert!(matches!(super::read(events, &known).await, Ok(Answer::Stream(_))));
    }

    #[tokio::test]
    async fn an_answer_too_long_to_be_kept_is_sent_all_the_same() {
        let read = read(pieces(3, REPLY_BYTES_MAX / 2), &Cost::known(Amount(1))).await.unwrap();
        let Answer::Stream(response) = read else { panic!("{read:?}") };
        let (sent, work) = copied(response, Cost::known(Amount(1)));
        let sent = tokio::spawn(axum::body::to_bytes(sent.into_body(), usize::MAX));
        let ended = work.await;
        assert!(ended.whole && ended.body.is_none());
        ended.release().await;
        assert_eq!(sent.await.unwrap().unwrap().len(), REPLY_BYTES_MAX / 2 * 3);
    }

    #[tokio::test]
    async fn the_end_of_a_stream_waits_until_it_is_kept() {
        let pieces =
            ["data: a\n\n", "data: [DONE]\n\n"].map(|p| Ok::<_, Infallible>(Bytes::from(p)));
        let response = Body::from_stream(futures_util::stream::iter(pieces)).into_response();
        let (sent, work) = copied(response, Cost::known(Amount(1)));
        let ended = work.await;
        let mut sent = sent.into_body().into_data_stream();
        assert_eq!(sent.next().await.unwrap().unwrap().as_ref(), b"data: a\n\n");
        assert!(futures_util::FutureExt::now_or_never(sent.next()).is_none());
        ended.release().await;
        assert_eq!(sent.next().await.unwrap().unwrap().as_ref(), b"data: [DONE]\n\n");
        assert!(sent.next().await.is_none());
    }

    #[tokio::test]
    async fn a_copy_is_whole_though_the_client_left() {
        let response = ([(header::CONTENT_TYPE, "text/plain")], "hello").into_response();
        let (sent, work) = copied(response, Cost::known(Amount(1)));
        drop(sent);
        let ended = work.await;
        assert_eq!((ended.whole, ended.body.as_deref()), (true, Some("hello")));
    }
}
