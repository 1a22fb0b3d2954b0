//! The other side's node server, as a source of nodes that is not believed.
//!
//! Whatever it serves is checked by whoever asked ([`NodeSource`]), so it can cost nothing but time;
//! and of that little: an answer is short and comes at once, or it is none. After a few that did not
//! come, or once all of them together took too long, it is not asked again.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use assay_evidence::dispute::{NodeSource, Way};
use assay_evidence::op::Place;
use assay_protocol::B256;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use crate::wire::{ANSWER_BYTES_MAX, Below, Leaf, Nodes, leaf_path};

/// Longest wait for one answer, connecting included. The first may have the provider compute a
/// position again.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);
/// Answers that may fail.
const FAILURES_MAX: u32 = 3;

/// A provider's node server, asked about one dispute.
///
/// # Panics
/// Its answers are waited for where it is asked: on a thread of the async runtime that panics. Ask on
/// one that may block.
#[derive(Debug)]
pub struct NodeServer {
    http: reqwest::Client,
    url: String,
    dispute: u64,
    runtime: Handle,
    until: Instant,
    failures: AtomicU32,
}

impl NodeServer {
    /// The server at `url`, which has `patience` for all its answers together, from now on. To be
    /// called within the async runtime that carries the requests.
    ///
    /// # Errors
    /// If this machine cannot make requests.
    pub fn new(url: &str, dispute: u64, patience: Duration) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(ANSWER_WAIT_MAX)
            .build()?;
        Ok(Self {
            http,
            url: url.trim_end_matches('/').to_owned(),
            dispute,
            runtime: Handle::current(),
            until: Instant::now() + patience,
            failures: AtomicU32::new(0),
        })
    }

    /// Whether it is asked any more.
    pub fn is_given_up(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= FAILURES_MAX || Instant::now() >= self.until
    }

    /// What it says to `path`.
    fn ask<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        if self.is_given_up() {
            return None;
        }
        let wait = ANSWER_WAIT_MAX.min(self.until.saturating_duration_since(Instant::now()));
        let answer = self.runtime.block_on(timeout(wait, self.get(path))).ok().flatten();
        let read = answer.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if read.is_none() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        read
    }

    /// The bytes of an answer, if it is one and no longer than any honest one.
    async fn get(&self, path: &str) -> Option<Vec<u8>> {
        let mut reply = self.http.get(format!("{}{path}", self.url)).send().await.ok()?;
        if !reply.status().is_success() {
            return None;
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = reply.chunk().await.ok()? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return None;
            }
            bytes.extend_from_slice(&chunk);
        }
        Some(bytes)
    }
}

impl NodeSource for NodeServer {
    fn nodes(&self, below: Way, levels: u32) -> Option<Vec<B256>> {
        let Nodes { nodes } = self.ask(&Below { way: below, levels }.path(self.dispute))?;
        Some(nodes)
    }

    fn leaf(&self, place: Place) -> Option<Vec<u8>> {
        let Leaf { data } = self.ask(&leaf_path(self.dispute, place))?;
        Some(data.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Asks a server that answers every request with `reply`, and then holds the line if `hangs`, until
    /// it is given up.
    async fn ask(
        reply: &'static [u8],
        hangs: bool,
        patience: Duration,
    ) -> (Option<Vec<B256>>, u32) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            let mut held = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(reply).await;
                if hangs {
                    held.push(stream);
                }
            }
        });
        let server = NodeServer::new(&url, 1, patience).unwrap();
        let asked = tokio::task::spawn_blocking(move || {
            let found = server.nodes(Way::ROOT, 1);
            let mut asked = 1;
            while found.is_none() && !server.is_given_up() {
                assert_eq!(server.nodes(Way::ROOT, 1), None);
                asked += 1;
            }
            (found, asked)
        });
        let asked = asked.await.unwrap();
        serving.abort();
        asked
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn an_answer_is_read() {
        let reply = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"nodes\":[\"0x0101010101010101010101010101010101010101010101010101010101010101\"]}";
        let (found, _) = ask(reply, false, PATIENCE).await;
        assert_eq!(found, Some(vec![B256::repeat_byte(1)]));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_server_that_talks_nonsense_is_asked_three_times() {
        for reply in [
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".as_slice(),
            b"HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]",
            b"\0\0\0\0",
        ] {
            assert_eq!(ask(reply, false, PATIENCE).await, (None, FAILURES_MAX));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_flood_is_cut_off() {
        static FLOOD: [u8; 64 << 10] = {
            let head = b"HTTP/1.1 200 OK\r\n\r\n";
            let mut flood = [b' '; 64 << 10];
            let mut at = 0;
            while at < head.len() {
                flood[at] = head[at];
                at += 1;
            }
            flood
        };
        assert_eq!(ask(&FLOOD, false, PATIENCE).await, (None, FAILURES_MAX));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_server_that_hangs_costs_no_more_than_patience() {
        let began = Instant::now();
        let (found, _) = ask(b"HTTP/1.1 200 OK\r\n\r\n", true, Duration::from_millis(300)).await;
        assert_eq!(found, None);
        assert!(began.elapsed() < Duration::from_secs(3));
    }
}
