//! Passes requests on to servers of the operator's own, as they are.
//!
//! A server that speaks OpenAI stands behind the same door as the network: the same keys, budgets and
//! payments. What differs is proof. Nobody signs for what it answers, so there is no receipt, and the
//! reply says so (`x-assay-assurance: none`).
//!
//! Bytes pass through: of a request only the model's name and how the answer is wanted are looked at, of a
//! reply nothing. Beside chat, requests for images and sound pass ([`crate::media`]).

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use assay_protocol::Amount;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::uri::{Authority, PathAndQuery, Scheme};
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::response::Response;
use http_body::Frame;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::body::Read;
use crate::budget::Spending;
use crate::http::{CONNECT_WAIT_MAX, Gateway, IDLE_CONNECTIONS_MAX, IDLE_MAX};
use crate::keys::Caller;
use crate::openai::Problem;
use crate::x402::Cost;

/// What a reply says of itself: nobody can be held to it.
const ASSURANCE: &str = "x-assay-assurance";

/// Tokens that a whole answer may have where its request names no bound.
const TOKENS_MOST: u32 = 8192;

/// What is passed back of a reply's head, beside its status.
const PASSED: [header::HeaderName; 4] =
    [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::CACHE_CONTROL, header::RETRY_AFTER];

/// A model that servers of the operator's own answer for.
#[derive(Clone, Debug)]
pub struct Relayed {
    /// What clients put into `model`, and what the servers know it by.
    pub model: String,
    /// The servers' base URLs without `/v1`, such as `http://127.0.0.1:8000`. Requests take turns; where
    /// one cannot be reached the next is tried.
    pub servers: Vec<Uri>,
    /// What goes into their `Authorization` header, if anything. A client's own never does.
    pub authorization: Option<HeaderValue>,
    /// What an answer costs its client, in base units, whatever its length.
    pub price: Amount,
}

impl Relayed {
    /// Whether it can be served.
    ///
    /// # Errors
    /// The first thing that is wrong with its servers.
    pub fn check(&self) -> Result<(), RelayError> {
        Target::new(self.clone()).map(drop)
    }
}

/// Why a relayed model cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The URL of a server is not one.
    #[error("the server {url} is not an http:// URL with a host")]
    Url {
        /// What was given.
        url: Uri,
    },
    /// A model without servers.
    #[error("the model {model:?} has no server")]
    NoServer {
        /// Its name.
        model: String,
    },
}

/// The relayed models and the connections to their servers.
#[derive(Debug)]
pub(crate) struct Relay {
    client: Client<HttpConnector, Full<Bytes>>,
    pub(crate) models: Vec<Arc<Target>>,
}

/// What a server is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Chat,
    Images,
    Speech,
    Transcriptions,
    Translations,
}

impl Service {
    /// Where servers, and this gateway, are asked for it.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Images => "/v1/images/generations",
            Self::Speech => "/v1/audio/speech",
            Self::Transcriptions => "/v1/audio/transcriptions",
            Self::Translations => "/v1/audio/translations",
        }
    }

    /// What it makes.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Chat => "answers",
            Self::Images => "images",
            Self::Speech => "speech",
            Self::Transcriptions => "transcriptions",
            Self::Translations => "translations",
        }
    }
}

/// How an answer is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    /// As it comes.
    Stream,
    /// At once, of so many tokens at most: nothing is heard before the last one.
    Whole(u32),
    /// At once, and not counted in tokens.
    Other,
}

/// A relayed model at work.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) model: String,
    /// The servers' base URLs.
    places: Vec<Uri>,
    authorization: Option<HeaderValue>,
    price: Amount,
    next: AtomicUsize,
}

impl Relay {
    pub(crate) fn new(relayed: Vec<Relayed>) -> Result<Self, RelayError> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_WAIT_MAX));
        // A streamed answer's next piece must not wait for the one after.
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(connector);
        let models = relayed.into_iter().map(|model| Target::new(model).map(Arc::new));
        Ok(Self { client, models: models.collect::<Result<_, _>>()? })
    }

    /// The relayed model of this name, if there is one.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Target>> {
        self.models.iter().find(|target| target.model == name)
    }

    /// The relayed model that a body asks, if it does, and how. Nothing is looked at where there is none.
    pub(crate) fn target(&self, body: &[u8]) -> Option<(&Arc<Target>, Manner)> {
        #[derive(Deserialize)]
        struct Asked<'a> {
            #[serde(borrow)]
            model: Cow<'a, str>,
            stream: Option<bool>,
            max_tokens: Option<u32>,
            max_completion_tokens: Option<u32>,
        }
        if self.models.is_empty() {
            return None;
        }
        // A body that is no request is refused by whoever reads it whole.
        let asked: Asked = serde_json::from_slice(body).ok()?;
        let target = self.named(&asked.model)?;
        let most = asked.max_completion_tokens.or(asked.max_tokens).unwrap_or(TOKENS_MOST);
        Some((
            target,
            if asked.stream == Some(true) { Manner::Stream } else { Manner::Whole(most) },
        ))
    }
}

impl Target {
    fn new(relayed: Relayed) -> Result<Self, RelayError> {
        if relayed.servers.is_empty() {
            return Err(RelayError::NoServer { model: relayed.model });
        }
        let chat = |server: Uri| match place(&server, Service::Chat) {
            Some(_) => Ok(server),
            None => Err(RelayError::Url { url: server }),
        };
        let places = relayed.servers.into_iter().map(chat).collect::<Result<_, _>>()?;
        let Relayed { model, authorization, price, .. } = relayed;
        Ok(Self { model, places, authorization, price, next: AtomicUsize::new(0) })
    }
}

/// Where the server at a base URL is asked for a service; `None` if that is no URL of a server.
fn place(url: &Uri, service: Service) -> Option<Uri> {
    let is_http = url.scheme() == Some(&Scheme::HTTP);
    let host = url.authority().map(Authority::as_str).filter(|host| !host.is_empty() && is_http)?;
    let path = format!("{}{}", url.path().trim_end_matches('/'), service.path());
    let path = PathAndQuery::try_from(path).ok()?;
    Uri::builder().scheme(Scheme::HTTP).authority(host).path_and_query(path).build().ok()
}

/// A request for a relayed model, with leave to run it.
pub(crate) struct Passing {
    target: Arc<Target>,
    service: Service,
    manner: Manner,
    /// The body's content type, if it is not JSON.
    kind: Option<HeaderValue>,
    body: Bytes,
    spending: Spending,
    hold: Hold,
}

/// What a request holds until the last byte of its reply is gone: its place among the requests, and a
/// drain's patience.
struct Hold {
    _permit: OwnedSemaphorePermit,
    _begun: TaskTrackerToken,
}

impl Passing {
    /// The model that it asks for.
    pub(crate) fn model(&self) -> &str {
        &self.target.model
    }

    /// The most that the answer may cost its client, in base units.
    pub(crate) fn price_max(&self) -> Amount {
        self.target.price
    }

    /// The same, for another service than chat and a body of this content type; `None` for JSON.
    pub(crate) fn to(self, service: Service, kind: Option<HeaderValue>) -> Self {
        Self { service, kind, ..self }
    }
}

/// Takes a request whose body names the model of `target`, for chat unless it is said otherwise.
pub(crate) fn passing(
    gateway: &Gateway,
    caller: &Caller,
    (target, manner): (&Arc<Target>, Manner),
    read: Read,
) -> Result<Passing, Problem> {
    let hold = Hold { _permit: gateway.permit()?, _begun: gateway.begin()? };
    caller.count()?;
    let spending =
        caller.set_aside_for(&target.model, |name| *name == target.model, target.price)?;
    Ok(Passing {
        target: Arc::clone(target),
        service: Service::Chat,
        manner,
        kind: None,
        body: read.bytes.into(),
        spending,
        hold,
    })
}

/// Hands a request on, and gives back what comes of it.
pub(crate) async fn pass(gateway: &Gateway, passing: Passing) -> Result<Response, Problem> {
    let Passing { target, service, manner, kind, body, spending, hold } = passing;
    let kind = kind.unwrap_or(HeaderValue::from_static("application/json"));
    let reply = tokio::select! {
        biased;
        () = gateway.stopping.cancelled() => return Err(Problem::closing()),
        reply = ask(gateway, &target, service, manner, (kind, body)) => reply?,
    };
    let (mut head, body) = reply.into_parts();
    let mut headers = HeaderMap::with_capacity(PASSED.len() + 4);
    for name in PASSED {
        if let Some(value) = head.headers.remove(&name) {
            headers.insert(name, value);
        }
    }
    headers.insert(ASSURANCE, HeaderValue::from_static("none"));
    head.headers = headers;
    if head.status.is_success() {
        let rows = spending.book(target.price).filter(|_| target.price > Amount(0));
        if let Some(rows) = rows.filter(|rows| !rows.is_empty()) {
            gateway.store.keep(rows).await.map_err(Problem::storage)?;
        }
        head.extensions.insert(Cost::known(target.price));
    }
    let wait_max = gateway.patience.frame_wait_max;
    let body = Reply { body, wait_max, overdue: None, _hold: hold };
    Ok(Response::from_parts(head, Body::new(body)))
}

/// Asks the servers of a model, one after the other, until one can be reached.
async fn ask(
    gateway: &Gateway,
    target: &Target,
    service: Service,
    manner: Manner,
    (kind, body): (HeaderValue, Bytes),
) -> Result<hyper::Response<Incoming>, Problem> {
    let wait_max = match manner {
        Manner::Stream => gateway.patience.frame_wait_max,
        Manner::Whole(tokens) => gateway.patience.answer_wait_max(tokens),
        // An image takes about as long as the longest text.
        Manner::Other => gateway.patience.answer_wait_max(TOKENS_MOST),
    };
    let first = target.next.fetch_add(1, Ordering::Relaxed);
    let mut unreached = None;
    for turn in 0..target.places.len() {
        let server = &target.places[first.wrapping_add(turn) % target.places.len()];
        let Some(place) = place(server, service) else { continue };
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = place.clone();
        request.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
        if let Some(authorization) = &target.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        match timeout(wait_max, gateway.relay.client.request(request)).await {
            Ok(Ok(reply)) => return Ok(reply),
            // What was never heard may be said to another.
            Ok(Err(error)) if error.is_connect() => {
                tracing::warn!(model = target.model, %place, %error, "a server cannot be reached");
                unreached = Some(error);
            }
            Ok(Err(error)) => {
                tracing::warn!(model = target.model, %place, %error, "a server broke off");
                return Err(Problem::upstream(format!("the model's server broke off: {error}")));
            }
            Err(_) => return Err(Problem::timeout("the model's server did not answer in time")),
        }
    }
    let why = unreached.map(|error| error.to_string()).unwrap_or_default();
    Err(Problem::upstream(format!("no server of the model can be reached: {why}")))
}

/// A server's reply on its way through. It ends where the server falls silent.
struct Reply {
    body: Incoming,
    wait_max: Duration,
    /// Set while nothing is there.
    overdue: Option<Pin<Box<Sleep>>>,
    _hold: Hold,
}

/// Why a reply ends early.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the server broke off: {0}")]
    Server(#[from] hyper::Error),
    #[error("the server fell silent")]
    Silent,
}

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.overdue = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Broken::from)));
        }
        let wait_max = self.wait_max;
        let overdue = self.overdue.get_or_insert_with(|| Box::pin(sleep(wait_max)));
        ready!(overdue.as_mut().poll(context));
        Poll::Ready(Some(Err(Broken::Silent)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
