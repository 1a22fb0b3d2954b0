//! Asks a server over HTTP, with a bound on everything: waits, bodies, lines.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, Method, Response, redirect};
use serde_json::Value;
use tokio::time::timeout;

use super::error::RemoteError;

/// Longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Longest wait for an answer that needs no model.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Longest body, or line of a stream, that is read.
const BYTES_MAX: usize = 8 << 20;

/// A server, as HTTP reaches it.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    /// Its base URL, without a slash at the end.
    url: String,
    http: Client,
}

impl Wire {
    pub(crate) fn new(url: &str, token: Option<&str>) -> Result<Self, RemoteError> {
        let url = url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let unusable = |reason: String| RemoteError::Unreachable { url: url.clone(), reason };
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let value = HeaderValue::try_from(format!("Bearer {token}"));
            let mut value = value.map_err(|error| unusable(error.to_string()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let http = Client::builder()
            .default_headers(headers)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_MAX)
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self { url, http })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The status of a document, and the document if it is one.
    pub(crate) async fn get(
        &self,
        path: &str,
        what: &'static str,
    ) -> Result<(u16, Value), RemoteError> {
        let asked = async {
            let response = self.send(Method::GET, path, None).await?;
            let status = response.status().as_u16();
            let body = whole(response, &self.url, what).await?;
            Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
        };
        within(ANSWER_MAX, what, asked).await
    }

    /// What a server that needs no model for it answers to a document.
    pub(crate) async fn post(
        &self,
        path: &str,
        body: &Value,
        what: &'static str,
    ) -> Result<Value, RemoteError> {
        let asked = async {
            let response = self.start(path, body, what).await?;
            let body = whole(response, &self.url, what).await?;
            serde_json::from_slice(&body)
                .map_err(|error| RemoteError::Garbage { what, reason: error.to_string() })
        };
        within(ANSWER_MAX, what, asked).await
    }

    /// Hands a document in; its answer is still to be read.
    pub(crate) async fn start(
        &self,
        path: &str,
        body: &Value,
        what: &'static str,
    ) -> Result<Response, RemoteError> {
        let response = self.send(Method::POST, path, Some(body)).await?;
        match response.status() {
            status if status.is_success() => Ok(response),
            status => Err(RemoteError::Status { what, status: status.as_u16() }),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response, RemoteError> {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.json(body);
        }
        request.send().await.map_err(|error| broken(&self.url, &error))
    }
}

/// All of a body.
pub(crate) async fn whole(
    mut response: Response,
    url: &str,
    what: &'static str,
) -> Result<Vec<u8>, RemoteError> {
    let mut body = Vec::new();
    while let Some(bytes) = response.chunk().await.map_err(|error| broken(url, &error))? {
        if body.len() + bytes.len() > BYTES_MAX {
            return Err(RemoteError::TooLong { what, max: BYTES_MAX });
        }
        body.extend_from_slice(&bytes);
    }
    Ok(body)
}

/// Waits at most so long.
pub(crate) async fn within<T>(
    wait_max: Duration,
    what: &'static str,
    asked: impl Future<Output = Result<T, RemoteError>>,
) -> Result<T, RemoteError> {
    timeout(wait_max, asked).await.unwrap_or(Err(RemoteError::Silent { what, wait_max }))
}

fn broken(url: &str, error: &reqwest::Error) -> RemoteError {
    let error = &error as &dyn std::error::Error;
    let causes = std::iter::successors(error.source(), |error| error.source());
    let reason = causes.last().map_or_else(|| error.to_string(), ToString::to_string);
    RemoteError::Unreachable { url: url.to_owned(), reason }
}

/// The events of a stream, one after the other.
pub(crate) struct Events {
    response: Response,
    url: String,
    read: Vec<u8>,
    /// Bytes of `read` that hold no end of a line.
    searched: usize,
}

impl Events {
    pub(crate) fn new(response: Response, url: &str) -> Self {
        Self { response, url: url.to_owned(), read: Vec::new(), searched: 0 }
    }

    /// The data of the next event; `None` after the last. Whoever calls this bounds the wait: events that
    /// never come, as comments without end, are waited for.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, RemoteError> {
        loop {
            if let Some(line) = self.line() {
                match line.strip_prefix(b"data:").map(<[u8]>::trim_ascii) {
                    Some(b"[DONE]") => return Ok(None),
                    Some(data) => return Ok(Some(data.to_vec())),
                    // Comments, names of events, the empty line after each.
                    None => continue,
                }
            }
            if self.read.len() > BYTES_MAX {
                return Err(RemoteError::TooLong { what: "event", max: BYTES_MAX });
            }
            match self.response.chunk().await.map_err(|error| broken(&self.url, &error))? {
                Some(bytes) => self.read.extend_from_slice(&bytes),
                None => return Ok(None),
            }
        }
    }

    /// The next line that is there whole.
    fn line(&mut self) -> Option<Vec<u8>> {
        let end = self.read[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(end) = end.map(|end| self.searched + end) else {
            self.searched = self.read.len();
            return None;
        };
        self.searched = 0;
        let rest = self.read.split_off(end + 1);
        Some(std::mem::replace(&mut self.read, rest))
    }
}
