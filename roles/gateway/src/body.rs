//! Reads the bodies of requests, within bounds of bytes, memory and time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::http::Gateway;
use crate::openai::Problem;

/// Longest request body, in bytes.
const BODY_BYTES_MAX: usize = 16 << 20;

/// Longest form, which may hold a recording, in bytes.
const FORM_BYTES_MAX: usize = 32 << 20;

/// Bytes up to which a body counts as short. Every request may have a short one at once; longer
/// ones share the room below, so that memory is bounded by both together.
const BODY_BYTES_SHORT: usize = 64 << 10;

/// Bytes that all longer bodies together may have while they are read and made into orders, which
/// takes a few times their length.
pub(crate) const BODIES_BYTES_MAX: usize = 64 << 20;

/// Longest wait for some of that room.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(3);

/// Bytes that are taken off the line of a body that is too long. Most clients listen only after
/// they have said everything, and would hear nothing but a broken connection.
const DISCARD_BYTES_MAX: usize = 64 << 20;

/// Longest wait for a request's body.
const BODY_WAIT_MAX: Duration = Duration::from_secs(30);

/// A request's body, and the room it takes until it is dropped.
pub(crate) struct Read {
    pub(crate) bytes: Vec<u8>,
    /// None for a short one.
    room: Option<OwnedSemaphorePermit>,
}

/// A body that takes no room, since it is part of another.
impl From<Vec<u8>> for Read {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, room: None }
    }
}

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Json,
    /// A multipart form, as whoever asks for one has made sure.
    Form,
}

impl Shape {
    /// Longest body, in bytes.
    fn bytes_max(self) -> usize {
        match self {
            Self::Json => BODY_BYTES_MAX,
            Self::Form => FORM_BYTES_MAX,
        }
    }
}

/// Reads a request's body, within bounds of bytes and time.
pub(crate) async fn read(request: Request, gateway: &Gateway) -> Result<Read, Problem> {
    read_as(Shape::Json, request, gateway).await
}

/// [`read`], for a body of this shape.
pub(crate) async fn read_as(
    shape: Shape,
    request: Request,
    gateway: &Gateway,
) -> Result<Read, Problem> {
    let max = shape.bytes_max();
    if shape == Shape::Json {
        is_json(request.headers())?;
    }
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    // Who waits for leave to go on hears a refusal before the body.
    let hears = request.headers().contains_key(header::EXPECT);
    if length.is_some_and(|length| length > DISCARD_BYTES_MAX || hears && length > max) {
        return Err(too_large(max));
    }
    let all = all_of(request.into_body(), length, max, &gateway.room);
    timeout(BODY_WAIT_MAX, all).await.unwrap_or_else(|_| {
        if length.is_some_and(|length| length > max) {
            return Err(too_large(max));
        }
        let message = "the body took too long to arrive";
        Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", message))
    })
}

/// Reads a body of at most `max` bytes to its end; `length` is what its head says of its length.
async fn all_of(
    body: Body,
    length: Option<usize>,
    max: usize,
    room: &Arc<Semaphore>,
) -> Result<Read, Problem> {
    let mut chunks = body.into_data_stream();
    let mut read = Read { bytes: Vec::new(), room: None };
    let mut found = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            let message = format!("the body broke off: {error}");
            Problem::new(StatusCode::BAD_REQUEST, "invalid_body", message)
        })?;
        found += chunk.len();
        if found.max(length.unwrap_or(0)) > max {
            read = Read { bytes: Vec::new(), room: None };
            if found > DISCARD_BYTES_MAX {
                break;
            }
            continue;
        }
        if found > BODY_BYTES_SHORT && read.room.is_none() {
            // A body that does not say how long it is may become as long as any.
            let needed = length.unwrap_or(max);
            read.room = Some(room_for(needed, room).await?);
            read.bytes.reserve_exact(needed.saturating_sub(read.bytes.len()));
        }
        read.bytes.extend_from_slice(&chunk);
    }
    if found > max { Err(too_large(max)) } else { Ok(read) }
}

async fn room_for(bytes: usize, room: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Problem> {
    let bytes = u32::try_from(bytes).map_err(|_| too_large(bytes))?;
    let room = timeout(ROOM_WAIT_MAX, Arc::clone(room).acquire_many_owned(bytes)).await;
    room.map_err(|_| Problem::overloaded())?.map_err(|_| Problem::closing())
}

fn too_large(max: usize) -> Problem {
    let message = format!("the body has more than {max} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
}

fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let said = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
    let unsupported = |message: String| {
        Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message))
    };
    let kind = said(header::CONTENT_TYPE).unwrap_or("application/json");
    if !kind
        .split(';')
        .next()
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
    {
        return unsupported(format!("the content type is {kind}, expected application/json"));
    }
    match said(header::CONTENT_ENCODING) {
        None | Some("identity") => Ok(()),
        Some(encoding) => unsupported(format!("the content encoding {encoding} is not supported")),
    }
}
