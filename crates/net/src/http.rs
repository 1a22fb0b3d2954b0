//! Serves HTTP/1.1 to strangers.
//!
//! A connection costs its owner nothing to hold, and us a file and some memory. So it is closed
//! when its next request does not arrive, and when its answer is not read; while there are too
//! many, the next ones wait at the system's door. How long a body may take, and how long it may
//! be, is for the routes to say: only they know what it is worth.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Longest head of a request, and about the most of an answer that is copied ahead of its reader,
/// in bytes.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// Wait after the system had no connection to give, most often for want of files.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How much of connections is borne.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once. The next ones wait until one is closed.
    pub connections_max: usize,
    /// Longest wait for a request's head, the first as well as the next on the same connection.
    pub header_wait_max: Duration,
    /// Longest time in which a client reads nothing of an answer that is there for it.
    pub write_wait_max: Duration,
    /// Longest wait at the end for clients to read what is left.
    pub flush_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 8192,
            header_wait_max: Duration::from_secs(30),
            write_wait_max: Duration::from_secs(30),
            flush_max: Duration::from_secs(5),
        }
    }
}

/// Serves `router` on `listener` until `shutdown`.
///
/// Then no connection is taken any more, and requests that run are answered, for at most
/// `flush_max`: whoever wants longer answers finished cancels `shutdown` after them. On return
/// every connection is closed.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) {
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
        let talk = talk(stream, router.clone(), limits, shutdown.clone());
        let cut = cut.clone();
        connections.spawn(async move {
            // Dropping a connection closes it, and cancels what its request was about.
            let _ = cut.run_until_cancelled(talk).await;
            drop(permit);
        });
    }
    drop(listener);
    connections.close();
    if timeout(limits.flush_max, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "closing what is not read to its end");
        cut.cancel();
        connections.wait().await;
    }
}

/// Answers the requests on one connection; after `shutdown`, only the one that runs. A connection
/// that becomes a WebSocket is its route's from then on.
async fn talk(stream: TcpStream, router: Router, limits: Limits, shutdown: CancellationToken) {
    // Small pieces are sent as they come: an answer's next token must not wait for the one after.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delay");
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.write_wait_max));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_wait_max)
        .max_buf_size(BUFFER_BYTES_MAX)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::net::SocketAddr;

    use axum::body::{Body, Bytes};
    use axum::routing::get;
    use futures_util::stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    const SHORT: Duration = Duration::from_millis(200);
    const LONG: Duration = Duration::from_secs(5);

    /// A server that can be asked for a word, a word after a while, and an answer without end.
    struct Stage {
        address: SocketAddr,
        shutdown: CancellationToken,
        running: JoinHandle<()>,
        /// Cancelled once the answer without end is given up.
        given_up: CancellationToken,
    }

    impl Stage {
        async fn new(limits: Limits) -> Self {
            let given_up = CancellationToken::new();
            let noticed = given_up.clone();
            let endless = move || {
                let chunk = Bytes::from_static(&[b'x'; 1 << 16]);
                let state = noticed.clone().drop_guard();
                let chunks = stream::unfold(state, move |state| {
                    let chunk = chunk.clone();
                    async move { Some((Ok::<_, Infallible>(chunk), state)) }
                });
                let body = Body::from_stream(chunks);
                async { body }
            };
            let slow = || async {
                sleep(SHORT).await;
                "slow"
            };
            let router = Router::new()
                .route("/word", get(|| async { "word" }))
                .route("/slow", get(slow))
                .route("/endless", get(endless));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let shutdown = CancellationToken::new();
            let running = tokio::spawn(serve(listener, router, limits, shutdown.clone()));
            Self { address, shutdown, running, given_up }
        }

        async fn say(&self, words: &str) -> TcpStream {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(words.as_bytes()).await.unwrap();
            stream
        }

        async fn ask(&self, path: &str) -> TcpStream {
            self.say(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
        }

        async fn ended(self) {
            timeout(LONG, self.running).await.unwrap().unwrap();
        }
    }

    /// All that is said until the connection is closed.
    async fn heard(mut stream: TcpStream) -> String {
        let mut said = Vec::new();
        // A connection may also be reset, which ends it as well.
        let _ = timeout(LONG, stream.read_to_end(&mut said)).await.unwrap();
        String::from_utf8_lossy(&said).into_owned()
    }

    #[tokio::test]
    async fn half_a_head_is_not_waited_for() {
        let limits = Limits { header_wait_max: SHORT, ..Limits::default() };
        let stage = Stage::new(limits).await;
        for half in ["", "GET /word HTTP/1.1\r\nhost", "GET /word HTTP/1.1\r\nhost: x\r\n\r\n"] {
            let started = Instant::now();
            let said = heard(stage.say(half).await).await;
            assert!(started.elapsed() < LONG / 2);
            assert_eq!(said.ends_with("word"), half.ends_with("\r\n\r\n"), "{said}");
        }
    }

    #[tokio::test]
    async fn beyond_the_most_connections_the_next_waits_for_one_to_end() {
        let limits = Limits { connections_max: 2, header_wait_max: SHORT, ..Limits::default() };
        let stage = Stage::new(limits).await;
        let started = Instant::now();
        let _silent = (stage.say("").await, stage.say("GET").await);
        assert!(heard(stage.ask("/word").await).await.ends_with("word"));
        assert!(started.elapsed() >= SHORT);
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_is_given_up() {
        let stage = Stage::new(Limits { write_wait_max: SHORT, ..Limits::default() }).await;
        let _deaf = stage.ask("/endless").await;
        sleep(SHORT / 2).await;
        assert!(!stage.given_up.is_cancelled());
        timeout(LONG, stage.given_up.cancelled()).await.unwrap();
    }

    #[tokio::test]
    async fn a_reader_who_pauses_is_not_cut_off() {
        let stage = Stage::new(Limits { write_wait_max: 3 * SHORT, ..Limits::default() }).await;
        let mut reader = stage.ask("/endless").await;
        let mut bytes = vec![0; 1 << 20];
        for _ in 0..4 {
            sleep(SHORT).await;
            for _ in 0..16 {
                reader.read_exact(&mut bytes).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn at_the_end_what_runs_is_answered() {
        let stage = Stage::new(Limits::default()).await;
        let reply = stage.ask("/slow").await;
        sleep(SHORT / 2).await;
        stage.shutdown.cancel();
        assert!(heard(reply).await.ends_with("slow"));
        let address = stage.address;
        stage.ended().await;
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn at_the_end_nobody_is_waited_for_for_long() {
        let stage = Stage::new(Limits { flush_max: SHORT, ..Limits::default() }).await;
        let _endless = stage.ask("/endless").await;
        let _silent = stage.say("GET").await;
        sleep(SHORT / 2).await;
        stage.shutdown.cancel();
        stage.ended().await;
    }
}
