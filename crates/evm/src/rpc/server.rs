//! Serves the calls over HTTP/1.1 and WebSocket, on one port.
//!
//! A connection costs its owner nothing and us a file and some memory, so it is closed when its
//! next request does not arrive and when its answer is not read. Web pages may ask as well (wallets
//! live in them), unless the node's owner says otherwise.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State as Given;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::message::{Error, write_answer};
use super::socket;
use super::{Limits, Rpc};

/// Longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Bodies and answers up to this length are not counted against what all share, in bytes.
const SHORT_BYTES: usize = 64 << 10;

/// Wait after the system had no connection to give, most often for want of files.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Which web pages may ask. Programs outside a browser are not bound by it.
#[derive(Clone, Debug, Default)]
pub enum Pages {
    /// Every page, as wallets need.
    #[default]
    All,
    /// Pages of these origins, such as `https://example.org`.
    Of(Vec<String>),
    /// No page.
    None,
}

/// Serves `rpc` on `listener` until `shutdown`; requests that run are answered first, for at most
/// `flush_max`. On return every connection is closed.
pub async fn serve(listener: TcpListener, rpc: Rpc, pages: Pages, shutdown: CancellationToken) {
    let limits = rpc.limits().clone();
    let desk = Desk::new(rpc, pages, &limits, shutdown.clone());
    let router = Router::new().fallback(answer).with_state(desk.clone());
    let room = Arc::new(Semaphore::new(limits.connections_max.clamp(1, Semaphore::MAX_PERMITS)));
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    loop {
        let accepted = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (permit.expect("nobody closes the semaphore"), listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = accepted => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "no connection could be taken");
                sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        // A WebSocket outlives its request's connection and holds the place on.
        let place = Arc::new(permit);
        let talk = talk(stream, router.clone(), place, limits.clone(), shutdown.clone());
        let cut = cut.clone();
        connections.spawn(async move {
            let _ = cut.run_until_cancelled(talk).await;
        });
    }
    drop(listener);
    connections.close();
    desk.sockets.close();
    let ended = async { tokio::join!(connections.wait(), desk.sockets.wait()) };
    if timeout(limits.flush_max, ended).await.is_err() {
        tracing::warn!(connections = connections.len(), "closing what is not read to its end");
        cut.cancel();
        desk.cut.cancel();
        connections.wait().await;
        desk.sockets.wait().await;
    }
}

/// Answers the requests on one connection; after `shutdown`, only the one that runs.
async fn talk(
    stream: TcpStream,
    router: Router,
    place: Arc<OwnedSemaphorePermit>,
    limits: Limits,
    shutdown: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delay");
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.write_wait_max));
    let router = router.layer(axum::Extension(Place { _permit: place }));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_wait_max)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router))
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

/// Room for one connection; given back when the last part of it is dropped.
#[derive(Clone)]
struct Place {
    _permit: Arc<OwnedSemaphorePermit>,
}

/// What every request needs.
#[derive(Clone)]
struct Desk {
    rpc: Rpc,
    pages: Arc<Pages>,
    bodies: Share,
    answers: Share,
    sockets: TaskTracker,
    shutdown: CancellationToken,
    cut: CancellationToken,
}

impl Desk {
    fn new(rpc: Rpc, pages: Pages, limits: &Limits, shutdown: CancellationToken) -> Self {
        Self {
            rpc,
            pages: Arc::new(pages),
            bodies: Share::new(limits.bodies_bytes_max, limits.body_wait_max),
            answers: Share::new(limits.answers_bytes_max, limits.body_wait_max),
            sockets: TaskTracker::new(),
            shutdown,
            cut: CancellationToken::new(),
        }
    }
}

/// Memory that all requests share, handed out in KiB.
#[derive(Clone)]
pub(super) struct Share {
    kibibytes: Arc<Semaphore>,
    all: u32,
    wait_max: Duration,
}

impl Share {
    fn new(bytes: usize, wait_max: Duration) -> Self {
        let all = u32::try_from(bytes >> 10).unwrap_or(u32::MAX >> 4).clamp(1, u32::MAX >> 4);
        Self { kibibytes: Arc::new(Semaphore::new(all as usize)), all, wait_max }
    }

    /// Room for `bytes`: nothing for what is short, `Err` when there is none in time.
    pub(super) async fn take(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, ()> {
        if bytes <= SHORT_BYTES {
            return Ok(None);
        }
        let wanted = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX).min(self.all);
        let permit = Arc::clone(&self.kibibytes).acquire_many_owned(wanted);
        match timeout(self.wait_max, permit).await {
            Ok(Ok(permit)) => Ok(Some(permit)),
            Ok(Err(_)) | Err(_) => Err(()),
        }
    }
}

/// Answers one HTTP request of any path.
async fn answer(
    Given(desk): Given<Desk>,
    axum::Extension(place): axum::Extension<Place>,
    method: Method,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    body: Body,
) -> Response {
    let origin = headers.get(header::ORIGIN);
    let allowed = match admit(&desk.pages, origin) {
        Ok(allowed) => allowed,
        Err(()) => return plain(StatusCode::FORBIDDEN, "pages of this origin may not ask here\n"),
    };
    if let Ok(upgrade) = upgrade {
        return open_socket(desk, place, upgrade);
    }
    let mut response = match method {
        Method::POST => post(&desk, &headers, body).await,
        Method::OPTIONS => preflight(),
        Method::GET | Method::HEAD => plain(StatusCode::OK, &greeting(&desk.rpc)),
        _ => plain(StatusCode::METHOD_NOT_ALLOWED, "calls are sent with POST\n"),
    };
    if let Some(allowed) = allowed {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
    }
    response
}

/// What a browser is told about the origin of the page that asks.
fn admit(pages: &Pages, origin: Option<&HeaderValue>) -> Result<Option<HeaderValue>, ()> {
    match (pages, origin) {
        (Pages::All, _) => Ok(Some(HeaderValue::from_static("*"))),
        (_, None) => Ok(None),
        (Pages::Of(origins), Some(origin)) if origins.iter().any(|one| origin == one.as_str()) => {
            Ok(Some(origin.clone()))
        }
        _ => Err(()),
    }
}

fn preflight() -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "POST, GET, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "content-type, authorization"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

fn greeting(rpc: &Rpc) -> String {
    let (number, hash) = rpc.head();
    format!(
        "This is the JSON-RPC of an EVM chain.\n\nchain id  {}\nhead      {number} {hash}\n\n\
         Send calls with POST, for example:\n  curl -H 'content-type: application/json' \\\n    \
         -d '{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"eth_blockNumber\"}}' URL\n\
         Subscriptions are served over WebSocket on the same port.\n",
        rpc.chain_id()
    )
}

fn plain(status: StatusCode, text: &str) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text.to_owned()).into_response()
}

async fn post(desk: &Desk, headers: &HeaderMap, body: Body) -> Response {
    let limits = desk.rpc.limits();
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok())
        // A body of unknown length may become as long as any.
        .unwrap_or(limits.body_bytes_max);
    if length > limits.body_bytes_max {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, long_body(limits));
    }
    let Ok(_room) = desk.bodies.take(length).await else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, busy("long requests"));
    };
    let read = axum::body::to_bytes(body, limits.body_bytes_max);
    let body = match timeout(limits.body_wait_max, read).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return refuse(StatusCode::PAYLOAD_TOO_LARGE, long_body(limits)),
        Err(_) => {
            let late = Error::Request("the request did not arrive in time".into());
            return refuse(StatusCode::REQUEST_TIMEOUT, late);
        }
    };
    let Some(text) = desk.rpc.answer(&body, None).await else {
        return StatusCode::NO_CONTENT.into_response();
    };
    match desk.answers.take(text.len()).await {
        Ok(room) => json(StatusCode::OK, Bytes::from_owner(Held { text, _room: room })),
        Err(()) => refuse(StatusCode::SERVICE_UNAVAILABLE, busy("long answers")),
    }
}

/// An answer and the memory it was given, until it is sent.
struct Held {
    text: Vec<u8>,
    _room: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

fn json(status: StatusCode, text: Bytes) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

fn refuse(status: StatusCode, error: Error) -> Response {
    let mut text = Vec::new();
    write_answer(&mut text, None, &Err(error));
    json(status, text.into())
}

fn long_body(limits: &Limits) -> Error {
    Error::Limit(format!("a request has at most {} bytes", limits.body_bytes_max))
}

fn busy(with: &str) -> Error {
    Error::Limit(format!("the server is busy with {with}: try again"))
}

fn open_socket(desk: Desk, place: Place, upgrade: WebSocketUpgrade) -> Response {
    let limits = desk.rpc.limits();
    let longest = limits.body_bytes_max;
    upgrade.max_message_size(longest).max_frame_size(longest).on_upgrade(move |socket| {
        let Desk { rpc, answers, sockets, shutdown, cut, .. } = desk;
        let talk = socket::talk(rpc, socket, answers, shutdown);
        let talk = async move {
            let _ = cut.run_until_cancelled(talk).await;
            drop(place);
        };
        sockets.track_future(talk)
    })
}
