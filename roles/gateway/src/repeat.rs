//! A request that its client sends again under the same `Idempotency-Key` is answered once.
//!
//! Who names a request so may not have heard its answer, and asks again. It gets the first answer then,
//! and pays once; while that is still made, it is told to wait. A whole answer is made to its end even if
//! its client is gone. Answers are remembered for an hour, in bounded memory: the oldest are forgotten
//! first, and all of them with the gateway.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use assay_protocol::{B256, keccak256};
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};

use crate::begin::Taken;
use crate::body::read;
use crate::http::Gateway;
use crate::openai::Problem;

/// By which header a client names a request.
const KEY: &str = "idempotency-key";

/// Longest name, in bytes.
const KEY_BYTES_MAX: usize = 255;

/// How long an answer is remembered.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// Bytes of all answers that are remembered.
const BYTES_MAX: usize = 64 << 20;

/// Longest answer that is remembered, in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Named requests that are known.
const NAMES_MAX: usize = 10_000;

/// Requests that their clients named, and the answers they got.
#[derive(Debug, Default)]
pub(crate) struct Repeats(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    named: HashMap<B256, Named>,
    /// Names by age, the oldest first; some may be forgotten already.
    ages: VecDeque<(Instant, B256)>,
    bytes: usize,
}

#[derive(Debug)]
struct Named {
    /// keccak256 of its body.
    body: B256,
    since: Instant,
    /// None while it is made.
    answer: Option<Answer>,
}

/// An answer to be given again.
#[derive(Clone, Debug)]
struct Answer {
    kind: HeaderValue,
    body: Bytes,
}

/// What is known of a name that comes.
enum Found {
    /// Nothing: the request is worked on now.
    New(Turn),
    Answered(Answer),
    Busy,
    /// It was another request's.
    Other,
}

/// Leave to work on a named request. What has no answer when this is dropped is forgotten.
struct Turn {
    gateway: Arc<Gateway>,
    name: B256,
}

impl Known {
    fn forget(&mut self, name: B256) {
        let answer = self.named.remove(&name).and_then(|named| named.answer);
        self.bytes -= answer.map_or(0, |answer| answer.body.len());
    }

    /// Forgets what is too old or too much.
    fn sweep(&mut self, now: Instant) {
        while let Some(&(since, name)) = self.ages.front() {
            let full = self.bytes > BYTES_MAX || self.ages.len() > NAMES_MAX;
            if !full && now.duration_since(since) < REMEMBERED {
                return;
            }
            self.ages.pop_front();
            if self.named.get(&name).is_some_and(|named| named.since == since) {
                self.forget(name);
            }
        }
    }
}

impl Repeats {
    fn find(&self, name: B256, body: B256) -> Option<Found> {
        let (mut known, now) = (self.lock(), Instant::now());
        known.sweep(now);
        if let Some(named) = known.named.get(&name) {
            return Some(match &named.answer {
                _ if named.body != body => Found::Other,
                Some(answer) => Found::Answered(answer.clone()),
                None => Found::Busy,
            });
        }
        known.named.insert(name, Named { body, since: now, answer: None });
        known.ages.push_back((now, name));
        None
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    fn keep(self, answer: Answer) {
        let mut known = self.gateway.repeats.lock();
        known.bytes += answer.body.len();
        match known.named.get_mut(&self.name) {
            Some(named) => named.answer = Some(answer),
            None => known.bytes -= answer.body.len(),
        }
        known.sweep(Instant::now());
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut known = self.gateway.repeats.lock();
        if known.named.get(&self.name).is_some_and(|named| named.answer.is_none()) {
            known.forget(self.name);
        }
    }
}

/// Lets a request on, unless it was answered before under the name it has.
pub(crate) async fn once(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let Some(key) = request.headers().get(KEY).cloned() else { return Ok(next.run(request).await) };
    // What is paid by itself is known by its payment.
    if request.method() != Method::POST || Taken::rides(&request) {
        return Ok(next.run(request).await);
    }
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        let message = format!("an Idempotency-Key has 1 to {KEY_BYTES_MAX} bytes");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_idempotency_key", message));
    }
    // Strangers' names are nobody else's.
    let whose = request.headers().get(header::AUTHORIZATION).map_or(&b""[..], |who| who.as_bytes());
    let path = request.uri().path().as_bytes();
    let name = keccak256([path, b"\n", whose, b"\n", key.as_bytes()].concat());
    gateway.keys.caller(request.headers())?;
    let (parts, body) = request.into_parts();
    let mut asked = Request::new(body);
    *asked.headers_mut() = parts.headers.clone();
    let read = read(asked, &gateway).await?;
    let found = gateway.repeats.find(name, keccak256(&read.bytes));
    let found = found.unwrap_or_else(|| Found::New(Turn { gateway: Arc::clone(&gateway), name }));
    let turn = match found {
        Found::New(turn) => turn,
        Found::Answered(answer) => return Ok(again(answer)),
        Found::Busy => return Err(busy()),
        Found::Other => {
            let message = "the Idempotency-Key was used for another request; take a new one";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "idempotency_key_reused", message));
        }
    };
    let request = Request::from_parts(parts, Body::from(read.bytes));
    // Its client may hang up and ask again, and gets what this comes to.
    let made = gateway.purchases.spawn(async move { copied(next.run(request).await, turn).await });
    made.await.map_err(|error| Problem::internal(error.to_string()))
}

fn busy() -> Problem {
    let message =
        "a request with this Idempotency-Key is being answered; ask again with the same one";
    let problem = Problem::new(StatusCode::CONFLICT, "idempotency_conflict", message);
    Problem { retry_after_s: Some(1), ..problem }
}

fn again(answer: Answer) -> Response {
    let mut response = Body::from(answer.body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, answer.kind);
    response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    response
}

/// A response whose body is remembered once all of it is there. One that failed is not: it may be tried
/// again.
async fn copied(response: Response, turn: Turn) -> Response {
    if !response.status().is_success() {
        return response;
    }
    let json = HeaderValue::from_static("application/json");
    let kind = response.headers().get(header::CONTENT_TYPE).cloned().unwrap_or(json);
    let (parts, body) = response.into_parts();
    if kind.as_bytes().starts_with(b"text/event-stream") {
        return Response::from_parts(parts, streamed(body, kind, turn));
    }
    match to_bytes(body, usize::MAX).await {
        Ok(body) => {
            if body.len() <= ANSWER_BYTES_MAX {
                turn.keep(Answer { kind, body: body.clone() });
            }
            Response::from_parts(parts, Body::from(body))
        }
        Err(error) => Problem::internal(error.to_string()).into_response(),
    }
}

/// A stream that is copied while it is sent. One that breaks off tells an error, and is not kept.
fn streamed(body: Body, kind: HeaderValue, turn: Turn) -> Body {
    let state = (body.into_data_stream(), Vec::new(), Some((kind, turn)));
    let pieces =
        stream::unfold(state, async |(mut pieces, mut copy, mut turn)| match pieces.next().await {
            Some(Ok(piece)) => {
                if copy.len() + piece.len() > ANSWER_BYTES_MAX {
                    turn = None;
                } else if turn.is_some() {
                    copy.extend_from_slice(&piece);
                }
                Some((Ok(piece), (pieces, copy, turn)))
            }
            Some(Err(error)) => Some((Err(error), (pieces, copy, None))),
            None => {
                if let Some((kind, turn)) = turn.filter(|_| !broke(&copy)) {
                    turn.keep(Answer { kind, body: copy.into() });
                }
                None
            }
        });
    Body::from_stream(pieces)
}

/// Whether a stream's last event tells of an error.
fn broke(events: &[u8]) -> bool {
    let last = events.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    last.starts_with(b"data: {\"error\"") || find(last, b"\"type\":\"response.failed\"")
}

fn find(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}
