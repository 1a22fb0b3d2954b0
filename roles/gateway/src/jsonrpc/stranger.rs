//! What is heard from a client without a key where keys are demanded, before its grants are looked at:
//! little, and not for long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use futures_util::{StreamExt, future};

use crate::keys::Caller;
use crate::openai::Problem;

/// Longest request of a stranger, in bytes.
pub(super) const BYTES_MAX: usize = 64 << 10;

/// Bytes that are taken off the line of a longer one, so that its client hears why it is refused.
const DISCARD_BYTES_MAX: usize = 16 << 20;

/// How long a stranger's connection stays on which nothing is asked.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Whether a body was longer than a stranger's may be.
#[derive(Clone, Debug, Default)]
pub(super) struct Length(Arc<AtomicBool>);

impl Length {
    /// Refuses a request that was too long. To be asked once it was read, well or not.
    pub(super) fn check(&self) -> Result<(), Problem> {
        if self.0.load(Ordering::Relaxed) { Err(too_large()) } else { Ok(()) }
    }
}

fn too_large() -> Problem {
    let message = format!("a request without an API key has at most {BYTES_MAX} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
}

/// The request with a body of which no more is kept than `caller` may send.
pub(super) fn bounded(caller: &Caller, request: Request) -> Result<(Request, Length), Problem> {
    let is_long = Length::default();
    if !matches!(caller, Caller::Stranger(_)) {
        return Ok((request, is_long));
    }
    let headers = request.headers();
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    // Who waits for leave to go on hears a refusal before the body.
    if headers.contains_key(header::EXPECT) && length.is_some_and(|length| length > BYTES_MAX) {
        return Err(too_large());
    }
    let (head, body) = request.into_parts();
    let (mut found, seen) = (0_usize, is_long.clone());
    let chunks = body.into_data_stream().map(move |chunk| {
        let chunk = chunk?;
        found = found.saturating_add(chunk.len());
        if found <= BYTES_MAX {
            return Ok(chunk);
        }
        seen.0.store(true, Ordering::Relaxed);
        if found > DISCARD_BYTES_MAX {
            Err(axum::Error::new(too_large().message))
        } else {
            Ok(Bytes::new())
        }
    });
    let ends = chunks.take_while({
        let mut broken = false;
        move |chunk| future::ready(!std::mem::replace(&mut broken, chunk.is_err()))
    });
    Ok((Request::from_parts(head, Body::from_stream(ends)), is_long))
}

/// Whether a connection has been without a question for too long, with nothing under way.
pub(super) fn outstays(caller: &Caller, running: usize, silent: Duration) -> bool {
    matches!(caller, Caller::Stranger(_)) && running == 0 && silent >= IDLE_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Denied;

    #[test]
    fn only_a_stranger_that_asks_nothing_outstays() {
        let stranger = Caller::Stranger(Denied::Missing);
        assert!(outstays(&stranger, 0, IDLE_MAX));
        assert!(!outstays(&stranger, 1, IDLE_MAX));
        assert!(!outstays(&stranger, 0, IDLE_MAX - Duration::from_secs(1)));
        assert!(!outstays(&Caller::Anyone, 0, 10 * IDLE_MAX));
    }
}
