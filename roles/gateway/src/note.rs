//! Writes one line of each request, once its answer has been told to the end: who asked for what, what came
//! of it, how much and how long. What was said stays between client and provider.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use http_body::{Frame, SizeHint};

use crate::figures::{InFlight, Route};
use crate::http::Gateway;

/// What an answer was, told by whoever bought it, before its end. The line's writer finds it among the
/// response's extensions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Note(Arc<OnceLock<Noted>>);

#[derive(Debug)]
struct Noted {
    model: String,
    /// Tokens of prompt and output; none where nobody told.
    tokens: Option<(u32, u32)>,
}

impl Note {
    /// Of an answer of which only the model is known.
    pub(crate) fn of_model(model: &str) -> Self {
        let note = Self::default();
        let _ = note.0.set(Noted { model: model.to_owned(), tokens: None });
        note
    }

    /// Says it, once; what is said later counts for nothing.
    pub(crate) fn is(&self, model: &str, tokens: (u32, u32)) {
        let _ = self.0.set(Noted { model: model.to_owned(), tokens: Some(tokens) });
    }
}

/// The word by which a client program knows what went wrong, among a response's extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Code(pub(crate) &'static str);

/// A request, from its arrival on.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) route: Route,
    pub(crate) begun: Instant,
    pub(crate) id: String,
    pub(crate) _flying: InFlight,
}

impl Arrival {
    /// A response whose end is written down.
    pub(crate) fn watched(self, response: Response) -> Response {
        let note = response.extensions().get::<Note>().cloned();
        let code = response.extensions().get::<Code>().copied();
        let status = response.status();
        let line = Line { arrival: self, note, code, status };
        response.map(|body| {
            let complete = http_body::Body::is_end_stream(&body);
            Body::new(Watched { body, line, complete })
        })
    }
}

/// What is written when a response is over.
struct Line {
    arrival: Arrival,
    note: Option<Note>,
    code: Option<Code>,
    status: StatusCode,
}

impl Line {
    fn write(&self, complete: bool) {
        let Arrival { gateway, method, path, route, begun, id, .. } = &self.arrival;
        gateway.figures.answered_http(route, self.status, *begun);
        let noted = self.note.as_ref().and_then(|note| note.0.get());
        let model = noted.map(|noted| noted.model.as_str());
        let tokens = noted.and_then(|noted| noted.tokens);
        let (prompt_tokens, output_tokens) = (tokens.map(|t| t.0), tokens.map(|t| t.1));
        let (status, ms) = (self.status.as_u16(), begun.elapsed().as_millis());
        let code = self.code.map(|code| code.0);
        // Who looks whether it lives looks often.
        let probes = matches!(path.as_str(), "/livez" | "/readyz" | "/health" | "/metrics");
        if probes && complete {
            tracing::debug!(%method, path, status, ms, id, "request");
        } else {
            tracing::info!(
                %method, path, model, status, code, prompt_tokens, output_tokens, ms, id, complete,
                "request"
            );
        }
    }
}

/// A body whose end is noticed, also if nobody reads on.
struct Watched {
    body: Body,
    line: Line,
    complete: bool,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let over = matches!(polled, Poll::Ready(None));
        self.complete |= over || http_body::Body::is_end_stream(&self.body);
        polled
    }

    fn is_end_stream(&self) -> bool {
        http_body::Body::is_end_stream(&self.body)
    }

    fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.body)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.line.write(self.complete);
    }
}
