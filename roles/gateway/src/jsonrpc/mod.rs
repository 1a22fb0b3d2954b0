//! The same answers for those who think in JSON-RPC 2.0: `POST /rpc`, and a WebSocket there for
//! answers that come in pieces.
//!
//! `message` is the envelope, `methods` what can be asked, `socket` the subscriptions, `stranger` how much
//! is heard from a client without a key. `openrpc.json`
//! describes all of it, for people and for programs that write clients.

mod message;
mod methods;
mod socket;
mod stranger;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};

use crate::body::read;
use crate::http::{Gateway, json};
use crate::keys::Caller;
use crate::openai::Problem;
use crate::signed;
use message::{Call, Calls, Error, answer_line};
#[cfg(test)]
pub(crate) use methods::DOCUMENT;
pub(crate) use methods::Quote;

/// Most calls of one batch.
const BATCH_MAX: usize = 100;

/// Answers one call or a batch of them.
pub(crate) async fn post(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, Problem> {
    let caller = gateway.keys.caller_or_stranger(request.headers());
    let (request, length) = stranger::bounded(&caller, request)?;
    let read = read(request, &gateway).await;
    length.check()?;
    let read = read?;
    let calls = message::read(&read.bytes, BATCH_MAX);
    if !calls.as_ref().is_ok_and(Calls::open_by_grants) {
        signed::needs_key(&caller)?;
    }
    Ok(match answer(&gateway, &caller, calls).await {
        Some(text) => json(text),
        // There were notifications only, and nobody waits for their answers.
        None => axum::http::StatusCode::NO_CONTENT.into_response(),
    })
}

/// Opens a WebSocket, on which answers can be subscribed to.
pub(crate) async fn open(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response<Body> {
    // Whoever shows grants with its orders needs no key; all else is refused call by call.
    let caller = gateway.keys.caller_or_stranger(&headers);
    socket::open(gateway, caller, upgrade)
}

/// The answer to calls; `None` if none of them waits for one.
async fn answer(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    calls: Result<Calls, Error>,
) -> Option<String> {
    let calls = match calls {
        Ok(Calls::One(call)) => return methods::answer(gateway, caller, call).await,
        Ok(Calls::Batch(calls)) => calls,
        Err(error) => return Some(answer_line(None, Err(error))),
    };
    // One after the other: a client that wants its answers side by side sends them so.
    let mut lines = Vec::new();
    for call in calls {
        let line = match call {
            Ok(call) => methods::answer(gateway, caller, call).await,
            Err(error) => Some(answer_line(None, Err(error))),
        };
        lines.extend(line);
    }
    (!lines.is_empty()).then(|| format!("[{}]", lines.join(",")))
}

impl Calls {
    /// Whether grants may open every call to a client without a key.
    fn open_by_grants(&self) -> bool {
        let open = |call: &Call| signed::opens(&call.method);
        match self {
            Self::One(call) => open(call),
            Self::Batch(calls) => calls.iter().all(|call| call.as_ref().is_ok_and(open)),
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}
