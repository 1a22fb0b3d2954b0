//! A hub of models, as Hugging Face runs one and its mirrors do: what a repository holds, and its files.
//!
//! ```text
//! GET  {endpoint}/api/models/{org}/{name}/revision/{rev}?blobs=true   commit, licence, list of files
//! HEAD {endpoint}/{org}/{name}/resolve/{commit}/{file}                length and hash
//! GET  …the same…                                                     bytes, most often from another host
//! ```
//! Nothing that a hub says is trusted: lists and bodies have bounds, names lead nowhere, a file is what
//! its hash says. The token goes to the endpoint alone, wherever that sends us.

mod choose;
mod digest;
mod fetch;
mod part;
pub(crate) mod pull;
mod reference;

#[cfg(test)]
#[path = "../../tests/hub/fake.rs"]
mod fake;
#[cfg(test)]
mod tests;

pub(crate) use choose::kind_of;
pub(crate) use digest::Digest;
pub(crate) use reference::{Reference, Variant};

use std::time::Duration;

use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RANGE, RETRY_AFTER,
};
use reqwest::{Client, Method, Response, StatusCode, Url, redirect};
use serde::Deserialize;
use tokio::time::sleep;

use crate::failure::{Exit, Failure, Outcome};

/// Longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Longest list of a repository's files, in bytes.
const LIST_MAX: usize = 64 << 20;
/// Longest explanation of an error that is read, in bytes.
const EXPLANATION_MAX: usize = 1 << 10;
/// Hosts that one request may be sent on to.
const REDIRECTS_MAX: usize = 5;

/// A hub, and how we fetch from it.
#[derive(Clone, Debug)]
pub(crate) struct Hub {
    endpoint: Url,
    token: Option<HeaderValue>,
    http: Client,
    manner: Manner,
}

/// How files are fetched: how many connections at once, how often and how long something is tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Attempts without progress.
    pub(crate) attempts_max: u32,
    /// Wait after the first of them; each further one is twice as long.
    pub(crate) wait: Duration,
    /// Longest wait, whatever the hub asks for.
    pub(crate) wait_max: Duration,
    /// Longest silence within an answer.
    pub(crate) silence_max: Duration,
    /// Connections at once.
    pub(crate) connections: usize,
    /// Bytes asked for at a time on each: what a killed process has fetched in vain, at most.
    pub(crate) piece_bytes: u64,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            attempts_max: 6,
            wait: Duration::from_secs(1),
            wait_max: Duration::from_secs(60),
            silence_max: Duration::from_secs(30),
            connections: 4,
            piece_bytes: 16 << 20,
        }
    }
}

/// A file of a repository.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HubFile {
    pub(crate) name: String,
    /// Its length, where the list says.
    pub(crate) size: Option<u64>,
    pub(crate) digest: Option<Digest>,
}

/// A repository at one commit.
#[derive(Clone, Debug)]
pub(crate) struct Repository {
    /// The commit, so that all files are of one state; the revision asked for where the hub tells none.
    pub(crate) commit: String,
    /// The licence, as its publisher names it.
    pub(crate) licence: Option<String>,
    pub(crate) files: Vec<HubFile>,
}

/// A file as the hub serves it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Remote {
    pub(crate) url: Url,
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
}

/// Why a hub gives no model.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HubError {
    #[error("{0}")]
    Unreachable(String),
    #[error("the hub broke off: {0}")]
    Cut(String),
    #[error("{status} for {what}{}", explained(.said))]
    Refused { status: StatusCode, what: String, said: Said },
    #[error("{what} is redirected {why}")]
    Redirect { what: String, why: &'static str },
    #[error("{what} is not what a hub answers: {why}")]
    Malformed { what: String, why: String },
    #[error("the hub tells no hash of {file}, so it cannot be checked")]
    NoHash { file: String },
    #[error("{file} has changed at the hub: {found} bytes, {expected} were expected")]
    Changed { file: String, found: u64, expected: u64 },
    #[error("the hub sends more than was asked for of {file}")]
    TooLong { file: String },
    #[error("{file} does not hash to what the hub says: {found}, {expected} was expected")]
    Hash { file: String, found: Digest, expected: Digest },
    #[error("{path}: {source}")]
    File { path: std::path::PathBuf, source: std::io::Error },
}

/// What a hub says of an error, beside its status.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    /// `X-Error-Code`, such as `GatedRepo`.
    code: String,
    /// `X-Error-Message`, or how the body begins.
    message: String,
    retry_after: Option<Duration>,
}

fn explained(said: &Said) -> String {
    if said.message.is_empty() { String::new() } else { format!(": {}", said.message) }
}

impl HubError {
    /// Whether another attempt may end otherwise, and when the hub would have it.
    fn retry(&self) -> Option<Option<Duration>> {
        match self {
            Self::Unreachable(_) | Self::Cut(_) => Some(None),
            Self::Refused { status, said, .. } => {
                let passing = status.is_server_error()
                    || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT]
                        .contains(status);
                passing.then_some(said.retry_after)
            }
            _ => None,
        }
    }

    /// As the command tells it.
    fn failure(&self, hub: &Hub, reference: &Reference) -> Failure {
        let repository = reference.repository();
        let new = |exit, what: String| Failure::new(exit, what).why(self);
        let page = || hub.page(reference);
        match self {
            Self::Unreachable(_) => {
                new(Exit::Unreachable, format!("nobody answers at {}", hub.endpoint))
                    .fix("check the network, or name a mirror of the hub by HF_ENDPOINT")
            }
            Self::Refused { said, .. } if said.code == "GatedRepo" => {
                new(Exit::Permission, format!("{repository} is gated"))
                    .fix(format_args!("accept its terms at {}, then set HF_TOKEN to a token of yours that may read it", page()))
            }
            Self::Refused { status, said, .. }
                if *status == StatusCode::NOT_FOUND || said.code == "RepoNotFound" =>
            {
                let fix = if hub.token.is_some() {
                    "check the name, the revision and what HF_TOKEN may read"
                } else {
                    "check the name and the revision; a private model needs HF_TOKEN"
                };
                new(Exit::NotFound, format!("{} has no such model: {reference}", hub.endpoint)).fix(fix)
            }
            Self::Refused { status: StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, .. } => {
                let fix = if hub.token.is_some() {
                    format!("HF_TOKEN is refused; make one that may read it, and accept its terms at {}", page())
                } else {
                    format!("accept its terms at {}, then set HF_TOKEN to a token of yours that may read it", page())
                };
                new(Exit::Permission, format!("{repository} may not be read")).fix(fix)
            }
            Self::Refused { status: StatusCode::TOO_MANY_REQUESTS, .. } => {
                new(Exit::Conflict, format!("{} has had enough of us", hub.endpoint))
                    .fix("wait some minutes and run it again, it goes on where it stopped; with HF_TOKEN more is allowed")
            }
            Self::Refused { .. } | Self::Cut(_) => {
                new(Exit::Failed, format!("{repository} cannot be fetched"))
                    .fix("run it again, it goes on where it stopped")
            }
            Self::File { source, .. } => {
                Failure::file(format_args!("{repository} cannot be written"), source).why(self)
            }
            Self::Hash { .. } => new(Exit::False, format!("{repository} is not what the hub says"))
                .fix("run it again; if it stays so, the hub or a mirror is damaged or lies"),
            Self::Redirect { .. }
            | Self::Malformed { .. }
            | Self::NoHash { .. }
            | Self::Changed { .. }
            | Self::TooLong { .. } => {
                new(Exit::Malformed, format!("{repository} cannot be fetched"))
                    .fix("run it again; if it stays so, the hub at HF_ENDPOINT is not one")
            }
        }
    }
}

impl Hub {
    /// The hub at `endpoint`. Whether it answers shows when it is asked.
    pub(crate) fn new(endpoint: &str, token: Option<&str>, manner: Manner) -> Outcome<Self> {
        let unusable = |why: &dyn std::fmt::Display| {
            Failure::new(Exit::Usage, format_args!("{endpoint:?} is no hub"))
                .why(why)
                .fix("HF_ENDPOINT looks like https://huggingface.co")
        };
        let mut parsed = Url::parse(endpoint).map_err(|error| unusable(&error))?;
        if !["http", "https"].contains(&parsed.scheme()) || parsed.host().is_none() {
            return Err(unusable(&"it is not an http:// or https:// URL"));
        }
        parsed.set_path(&format!("{}/", parsed.path().trim_end_matches('/')));
        let token = token.map(str::trim).filter(|token| !token.is_empty());
        let token = token.map(|token| {
            let mut value: HeaderValue = format!("Bearer {token}")
                .parse()
                .map_err(|error| Failure::new(Exit::Usage, "HF_TOKEN cannot be sent").why(error))?;
            value.set_sensitive(true);
            Ok(value)
        });
        // A hash is of the bytes as they are.
        let plain = (ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let http = Client::builder()
            .user_agent(concat!("assay/", env!("CARGO_PKG_VERSION")))
            .default_headers(HeaderMap::from_iter([plain]))
            // We follow ourselves, to say who is told the token.
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_MAX)
            .read_timeout(manner.silence_max)
            .build()
            .map_err(|error| Failure::new(Exit::Failed, "no HTTP client").why(error))?;
        Ok(Self { endpoint: parsed, token: token.transpose()?, http, manner })
    }

    /// Where people read about a model, and accept its terms.
    fn page(&self, reference: &Reference) -> String {
        format!("{}{}", self.endpoint, reference.repository())
    }

    /// What a repository holds at `revision`. A hub that cannot be reached at all is not waited for.
    pub(crate) async fn repository(
        &self,
        reference: &Reference,
        revision: &str,
    ) -> Result<Repository, HubError> {
        let path =
            format!("api/models/{}/revision/{}", reference.repository(), escaped(revision, false));
        let url = self.url(&format!("{path}?blobs=true"))?;
        let what = format!("the list of {}", reference.repository());
        let listed = self.persist(false, async || {
            let response = self.ask(Method::GET, url.clone(), None).await?;
            body(response, LIST_MAX, &what).await
        });
        Repository::read(&listed.await?, revision)
            .map_err(|why| HubError::Malformed { what: what.clone(), why })
    }

    /// How the hub serves a file at `commit`.
    pub(crate) async fn remote(
        &self,
        reference: &Reference,
        commit: &str,
        file: &HubFile,
    ) -> Result<Remote, HubError> {
        let (commit, name) = (escaped(commit, false), escaped(&file.name, true));
        let url = self.url(&format!("{}/resolve/{commit}/{name}", reference.repository()))?;
        let head = self.persist(true, async || self.ask(Method::HEAD, url.clone(), None).await);
        let head = head.await?;
        let text = |name: &str| head.headers().get(name).and_then(|value| value.to_str().ok());
        let number = |name| text(name).and_then(|text| text.parse().ok());
        let size = number("x-linked-size")
            .or_else(|| number("content-length").filter(|_| head.status().is_success()))
            .or(file.size);
        let size = size.ok_or_else(|| HubError::Malformed {
            what: file.name.clone(),
            why: "its length is not told".into(),
        })?;
        let digest =
            ["x-linked-etag", "etag"].into_iter().find_map(|name| Digest::of_etag(text(name)?));
        // What the list says of the commit is worth more than a header.
        let digest = file.digest.or(digest);
        let digest = digest.ok_or_else(|| HubError::NoHash { file: file.name.clone() })?;
        Ok(Remote { url, name: file.name.clone(), size, digest })
    }

    fn url(&self, path: &str) -> Result<Url, HubError> {
        let malformed =
            |error| HubError::Malformed { what: path.to_owned(), why: format!("{error}") };
        self.endpoint.join(path).map_err(malformed)
    }

    /// Tries until it ends, as long as another attempt may end otherwise; `connect` says whether that is so
    /// where nobody can be reached.
    async fn persist<T>(
        &self,
        connect: bool,
        mut attempt: impl AsyncFnMut() -> Result<T, HubError>,
    ) -> Result<T, HubError> {
        let mut failed = 0;
        loop {
            let error = match attempt().await {
                Ok(value) => return Ok(value),
                Err(error @ HubError::Unreachable(_)) if !connect => return Err(error),
                Err(error) => error,
            };
            failed += 1;
            self.bear(error, failed).await?;
        }
    }

    /// Waits after the `failed`th attempt without progress; gives the error back where another is in vain.
    async fn bear(&self, error: HubError, failed: u32) -> Result<(), HubError> {
        let Some(asked) = error.retry().filter(|_| failed < self.manner.attempts_max) else {
            return Err(error);
        };
        let own = self.manner.wait * 2_u32.saturating_pow(failed.saturating_sub(1).min(16));
        let wait = asked.unwrap_or(own).clamp(self.manner.wait.min(own), self.manner.wait_max);
        tracing::debug!(%error, ?wait, failed, "the hub is asked again");
        sleep(wait).await;
        Ok(())
    }

    /// Sends a request, and follows where it is sent on to; of bytes, those in `range`, both ends included.
    ///
    /// The answer to `HEAD` is that of the endpoint: it knows length and hash, other hosts need not.
    async fn ask(
        &self,
        method: Method,
        url: Url,
        range: Option<(u64, u64)>,
    ) -> Result<Response, HubError> {
        let what = url.path().to_owned();
        let redirect = |why| HubError::Redirect { what: what.clone(), why };
        let mut url = url;
        for _ in 0..=REDIRECTS_MAX {
            let mut request = self.http.request(method.clone(), url.clone());
            let at_home = url.origin() == self.endpoint.origin();
            if let Some(token) = self.token.as_ref().filter(|_| at_home) {
                request = request.header(AUTHORIZATION, token.clone());
            }
            if let Some((first, last)) = range {
                request = request.header(RANGE, format!("bytes={first}-{last}"));
            }
            let response = request.send().await.map_err(unheard)?;
            let status = response.status();
            if !status.is_redirection() {
                return if status.is_success() {
                    Ok(response)
                } else {
                    Err(refused(response, what).await)
                };
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok());
            let next = next.ok_or_else(|| redirect("nowhere"))?;
            let leaves = next.origin() != url.origin();
            if method == Method::HEAD && leaves && response.headers().contains_key("x-linked-etag")
            {
                return Ok(response);
            }
            let downgraded = url.scheme() == "https" && next.scheme() != "https";
            if downgraded || !["http", "https"].contains(&next.scheme()) {
                return Err(redirect("to where nobody may listen in"));
            }
            url = next;
        }
        Err(redirect("again and again"))
    }
}

/// A failed request, by whether anybody was reached.
fn unheard(error: reqwest::Error) -> HubError {
    let is_connect = error.is_connect();
    let why = chain(&error.without_url());
    if is_connect { HubError::Unreachable(why) } else { HubError::Cut(why) }
}

/// An error with its causes: the outermost alone says little.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// A refusal with what the hub says about it.
async fn refused(response: Response, what: String) -> HubError {
    let status = response.status();
    let text = |name: &str| {
        let value = response.headers().get(name).and_then(|value| value.to_str().ok());
        printable(value.unwrap_or_default())
    };
    let mut said =
        Said { code: text("x-error-code"), message: text("x-error-message"), retry_after: None };
    let seconds =
        response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    said.retry_after = seconds.map(Duration::from_secs);
    if said.message.is_empty()
        && let Ok(bytes) = body(response, EXPLANATION_MAX, &what).await
    {
        #[derive(Deserialize)]
        struct Explanation {
            error: String,
        }
        let told = serde_json::from_slice(&bytes).map(|it: Explanation| printable(&it.error));
        said.message = told.unwrap_or_default();
    }
    HubError::Refused { status, what, said }
}

/// Text of a stranger's, fit for a terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// A body of at most `max` bytes.
async fn body(mut response: Response, max: usize, what: &str) -> Result<Vec<u8>, HubError> {
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(unheard)? {
        if bytes.len() + piece.len() > max {
            return Err(HubError::TooLong { file: what.to_owned() });
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// A path's part, or a path, as a URL writes it.
fn escaped(text: &str, slashes: bool) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'/' if slashes => out.push('/'),
            byte if plain(byte) => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

impl Repository {
    /// Reads what a hub says of a repository. Files whose names lead elsewhere are left out.
    fn read(json: &[u8], revision: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Said {
            sha: Option<String>,
            siblings: Vec<Sibling>,
            #[serde(rename = "cardData", default)]
            card: serde_json::Value,
            #[serde(default)]
            tags: Vec<String>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
            size: Option<u64>,
            #[serde(rename = "blobId")]
            blob: Option<String>,
            lfs: Option<Lfs>,
        }
        #[derive(Deserialize)]
        struct Lfs {
            #[serde(alias = "oid")]
            sha256: Option<String>,
        }
        let said: Said = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let commit = said.sha.unwrap_or_else(|| revision.to_owned());
        let card = match &said.card["license"] {
            serde_json::Value::Array(all) => all.first().and_then(|it| it.as_str()),
            one => one.as_str(),
        };
        let tag = || said.tags.iter().find_map(|tag| tag.strip_prefix("license:"));
        let licence = card.or_else(tag).map(printable);
        let files = said.siblings.into_iter().filter(|file| reference::is_plain(&file.rfilename));
        let files = files.map(|file| HubFile {
            digest: match file.lfs {
                Some(lfs) => lfs.sha256.as_deref().and_then(Digest::of_etag),
                None => file.blob.as_deref().and_then(Digest::of_etag),
            },
            name: file.rfilename,
            size: file.size,
        });
        Ok(Self { commit, licence, files: files.collect() })
    }
}
