//! A gateway as the commands see it: JSON over HTTP, answers as server-sent events.

use std::time::Duration;

use clap::Args;
use futures_util::StreamExt;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};

use crate::failure::{Exit, Failure, Outcome};

/// Longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Longest silence within an answer. The gateway pings every ten seconds while it waits.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Longest line of an event stream: an answer with its receipt.
const LINE_MAX: usize = 64 << 20;

/// Which gateway a command asks.
#[derive(Args, Clone, Debug)]
pub(crate) struct GatewayArgument {
    /// The gateway to ask
    #[arg(long, value_name = "URL", env = "ASSAY_URL", default_value = "http://127.0.0.1:8700")]
    url: String,
    /// API key, where the gateway demands one
    #[arg(long, value_name = "KEY", env = "ASSAY_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
}

impl GatewayArgument {
    /// A way to ask it. Whether it answers shows when it is asked.
    pub(crate) fn open(&self) -> Outcome<Gateway> {
        Gateway::with(&self.url, self.api_key.as_deref())
    }

    /// A way to ask it with another token than the API key.
    pub(crate) fn open_as(&self, token: &str) -> Outcome<Gateway> {
        Gateway::with(&self.url, Some(token))
    }
}

/// A gateway.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    url: String,
    http: Client,
}

/// A complete answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Completion {
    /// Its name; a receipt is found under it.
    pub(crate) id: String,
    /// The text.
    pub(crate) text: String,
    /// Why it ended: `stop` or `length`.
    pub(crate) finish: String,
    /// Tokens, as the gateway counts them.
    pub(crate) usage: Value,
}

impl Gateway {
    pub(crate) fn new(url: &str) -> Outcome<Self> {
        Self::with(url, None)
    }

    /// One that is asked with this token.
    pub(crate) fn with(url: &str, token: Option<&str>) -> Outcome<Self> {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse();
            let mut value: HeaderValue = value.map_err(|error| {
                Failure::new(Exit::Usage, "the API key cannot be sent").why(error)
            })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let http = Client::builder()
            .default_headers(headers)
            .no_proxy()
            .connect_timeout(CONNECT_MAX)
            .read_timeout(SILENCE_MAX)
            .build()
            .map_err(|error| Failure::new(Exit::Failed, "no HTTP client").why(error))?;
        let url = url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        Ok(Self { url, http })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The document at `path`.
    pub(crate) async fn get(&self, path: &str) -> Outcome<Value> {
        let response = self.http.get(format!("{}{path}", self.url)).send().await;
        let response = self.checked(response).await?;
        response.json().await.map_err(|error| self.failed(&error))
    }

    /// Hands a document in at `path`.
    pub(crate) async fn post(&self, path: &str, document: &Value) -> Outcome<Value> {
        let request = self.http.post(format!("{}{path}", self.url)).json(document);
        let response = self.checked(request.send().await).await?;
        response.json().await.map_err(|error| self.failed(&error))
    }

    /// Has what is at `path` removed.
    pub(crate) async fn delete(&self, path: &str) -> Outcome<Value> {
        let sent = self.http.delete(format!("{}{path}", self.url)).send().await;
        self.checked(sent).await?.json().await.map_err(|error| self.failed(&error))
    }

    /// Asks by JSON-RPC.
    pub(crate) async fn call(&self, method: &str, params: Value) -> Outcome<Value> {
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let mut answer = self.post("/rpc", &call).await?;
        match answer["error"].take() {
            Value::Null => Ok(answer["result"].take()),
            error => {
                let status = error["data"]["status"]
                    .as_u64()
                    .and_then(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok());
                let mut said = json!({ "message": error["message"] });
                said["code"] = error["data"]["code"].clone();
                Err(refused(status.unwrap_or(StatusCode::BAD_REQUEST), &json!({ "error": said })))
            }
        }
    }

    /// Whether requests would be answered now.
    pub(crate) async fn is_ready(&self) -> bool {
        let response = self.http.get(format!("{}/readyz", self.url)).send().await;
        response.is_ok_and(|response| response.status().is_success())
    }

    /// Whether it answers at all.
    pub(crate) async fn is_alive(&self) -> bool {
        let response = self.http.get(format!("{}/livez", self.url)).send().await;
        response.is_ok_and(|response| response.status().is_success())
    }

    /// Name of the first model.
    pub(crate) async fn first_model(&self) -> Outcome<String> {
        let models = self.get("/v1/models").await?;
        models["data"][0]["id"].as_str().map(str::to_owned).ok_or_else(|| {
            Failure::new(Exit::NotFound, format_args!("the gateway at {} has no model", self.url))
        })
    }

    /// Asks for an answer; `on_text` is given each piece of it as it comes.
    pub(crate) async fn answer(
        &self,
        mut request: Value,
        mut on_text: impl FnMut(&str),
    ) -> Outcome<Completion> {
        request["stream"] = json!(true);
        request["stream_options"] = json!({ "include_usage": true });
        let mut answer = Completion::default();
        let take = |chunk: &Value| on_text(answer.take(chunk));
        self.stream("/v1/chat/completions", &request, take).await?;
        if answer.finish.is_empty() {
            return Err(Failure::new(Exit::Unreachable, "the answer broke off")
                .why(format_args!("{} closed the stream early", self.url)));
        }
        Ok(answer)
    }

    /// Hands a document in at `path`; `on_event` is given each document of the stream that comes back.
    pub(crate) async fn stream(
        &self,
        path: &str,
        request: &Value,
        mut on_event: impl FnMut(&Value),
    ) -> Outcome {
        let sent = self.http.post(format!("{}{path}", self.url)).json(request).send();
        let mut events = Events::of(self.checked(sent.await).await?);
        while let Some(data) = events.next().await.map_err(|error| self.failed(&error))? {
            let event: Value = serde_json::from_str(&data).map_err(|error| {
                Failure::new(Exit::Failed, "the gateway sent something that is not JSON").why(error)
            })?;
            if event["error"].is_object() {
                return Err(refused(StatusCode::BAD_GATEWAY, &event));
            }
            on_event(&event);
        }
        Ok(())
    }

    async fn checked(&self, sent: Result<Response, reqwest::Error>) -> Outcome<Response> {
        let response = sent.map_err(|error| self.failed(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.json().await.unwrap_or(Value::Null);
        Err(refused(status, &body))
    }

    fn failed(&self, error: &reqwest::Error) -> Failure {
        if error.is_builder() {
            return Failure::new(Exit::Usage, format_args!("{} is not an address", self.url))
                .why(root_cause(error))
                .fix("pass something like --url http://127.0.0.1:8700");
        }
        if error.is_timeout() {
            return Failure::new(Exit::Timeout, format_args!("{} took too long", self.url))
                .why(root_cause(error));
        }
        Failure::new(Exit::Unreachable, format_args!("no gateway at {}", self.url))
            .why(root_cause(error))
            .fix("start one with `assay up`, or pass its address with --url")
    }
}

impl Completion {
    /// Takes in one chunk; gives the text it adds.
    fn take<'a>(&mut self, chunk: &'a Value) -> &'a str {
        if let Some(id) = chunk["id"].as_str() {
            id.clone_into(&mut self.id);
        }
        if chunk["usage"].is_object() {
            self.usage = chunk["usage"].clone();
        }
        let choice = &chunk["choices"][0];
        if let Some(finish) = choice["finish_reason"].as_str() {
            finish.clone_into(&mut self.finish);
        }
        let text = choice["delta"]["content"].as_str().unwrap_or_default();
        self.text.push_str(text);
        text
    }
}

/// An error of the gateway in our own words.
fn refused(status: StatusCode, body: &Value) -> Failure {
    let error = &body["error"];
    let exit = match status.as_u16() {
        400 | 413 | 422 => Exit::Usage,
        401 | 403 => Exit::Permission,
        404 => Exit::NotFound,
        408 | 504 => Exit::Timeout,
        409 | 429 => Exit::Conflict,
        502 | 503 => Exit::Unreachable,
        _ => Exit::Failed,
    };
    let what = error["message"].as_str().unwrap_or("the gateway refused without a word");
    let failure = Failure::new(exit, what);
    match error["code"].as_str() {
        Some("context_length_exceeded") => failure
            .why("prompt and answer share the model's context")
            .fix("shorten the prompt, or pass a smaller --max-tokens"),
        Some("invalid_api_key") => failure.fix("pass --api-key, or set ASSAY_API_KEY"),
        Some("model_not_found") => failure.fix("`assay status` lists the models served"),
        Some(code) => failure.why(format_args!("{code} ({status})")),
        None => failure.why(status),
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The data lines of a stream of server-sent events, up to `[DONE]`.
struct Events {
    bytes: std::pin::Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<Vec<u8>>> + Send>>,
    lines: Lines,
}

impl Events {
    fn of(response: Response) -> Self {
        let bytes = response.bytes_stream().map(|piece| piece.map(|bytes| bytes.to_vec()));
        Self { bytes: Box::pin(bytes), lines: Lines::default() }
    }

    async fn next(&mut self) -> Result<Option<String>, reqwest::Error> {
        loop {
            while let Some(line) = self.lines.next() {
                match line.strip_prefix("data:").map(str::trim) {
                    Some("[DONE]") => return Ok(None),
                    Some(data) => return Ok(Some(data.to_owned())),
                    // Comments keep the connection alive, empty lines end events of one line.
                    None => {}
                }
            }
            match self.bytes.next().await.transpose()? {
                Some(piece) => self.lines.push(&piece),
                None => return Ok(None),
            }
        }
    }
}

/// Bytes cut into lines.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
    /// Bytes of `rest` in which no line ends.
    searched: usize,
}

impl Lines {
    fn push(&mut self, piece: &[u8]) {
        if self.rest.len() + piece.len() > LINE_MAX {
            // No honest line is that long; its parts will not parse.
            self.rest.clear();
            self.searched = 0;
        }
        self.rest.extend_from_slice(piece);
    }

    fn next(&mut self) -> Option<String> {
        let Some(end) = self.rest[self.searched..].iter().position(|byte| *byte == b'\n') else {
            self.searched = self.rest.len();
            return None;
        };
        let line: Vec<u8> = self.rest.drain(..=self.searched + end).collect();
        self.searched = 0;
        Some(String::from_utf8_lossy(&line).trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_however_they_arrive() {
        let text = "data: {\"a\":1}\n\n: ping\r\ndata: ü\n";
        for size in 1..text.len() {
            let (mut lines, mut found) = (Lines::default(), Vec::new());
            for piece in text.as_bytes().chunks(size) {
                lines.push(piece);
                found.extend(std::iter::from_fn(|| lines.next()));
            }
            assert_eq!(found, ["data: {\"a\":1}", "", ": ping", "data: ü"], "{size}");
        }
    }

    #[test]
    fn chunks_add_up_to_an_answer() {
        let mut answer = Completion::default();
        let chunk = |content: &str, finish: Value| json!({"id": "chatcmpl-1", "choices": [{"delta": {"content": content}, "finish_reason": finish}]});
        assert_eq!(answer.take(&chunk("5", Value::Null)), "5");
        assert_eq!(answer.take(&chunk("7", json!("stop"))), "7");
        answer.take(&json!({"choices": [], "usage": {"total_tokens": 3}}));
        assert_eq!((answer.text.as_str(), answer.finish.as_str()), ("57", "stop"));
        assert_eq!(answer.usage["total_tokens"], 3);
    }

    #[test]
    fn refusals_keep_the_gateways_words() {
        let body = json!({"error": {"message": "no such model", "code": "model_not_found"}});
        let failure = refused(StatusCode::NOT_FOUND, &body);
        assert!(failure.to_string().starts_with("no such model\n  fix: "), "{failure}");
    }
}
