//! How much the server bears.
//!
//! Whoever reaches the port may ask anything, so each thing that can be asked for without end has
//! an end here. What is refused is refused at once, with words that say how to ask for less.

use std::time::{Duration, Instant};

/// The most of everything that strangers can ask for.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once, WebSockets included. The next ones wait until one is closed.
    pub connections_max: usize,
    /// Longest wait for a request's head, the first as well as the next on the same connection.
    pub header_wait_max: Duration,
    /// Longest wait for a request's body.
    pub body_wait_max: Duration,
    /// Longest time in which a client reads nothing of what is there for it; then it is dropped.
    pub write_wait_max: Duration,
    /// Longest wait at the end for clients to read what is left.
    pub flush_max: Duration,
    /// Longest body of a request and longest WebSocket message, in bytes.
    pub body_bytes_max: usize,
    /// All bodies over 64 KiB together, in bytes. The next ones wait for `body_wait_max`, then they
    /// are refused.
    pub bodies_bytes_max: usize,
    /// Longest answer, in bytes; the calls of a batch after it are answered with an error.
    pub answer_bytes_max: usize,
    /// All answers over 64 KiB that are not yet read, in bytes. The next ones wait for
    /// `body_wait_max`, then they are refused.
    pub answers_bytes_max: usize,
    /// Calls in one batch.
    pub batch_max: usize,
    /// Calls at once on one WebSocket; then nothing more is read from it until one is answered.
    pub socket_calls_max: usize,
    /// Silence after which a WebSocket is asked whether it lives; after twice that it is closed.
    pub socket_silence_max: Duration,
    /// Calls at once that run code (`eth_call`, estimates, traces). The next ones wait for
    /// `turn_wait_max`, then they are refused.
    pub runs_max: usize,
    /// Calls at once that read blocks and old states from disk; the next ones wait likewise.
    pub reads_max: usize,
    /// Longest wait for one's turn to run or to read.
    pub turn_wait_max: Duration,
    /// Longest that one call runs code or looks for logs.
    pub run_wait_max: Duration,
    /// Gas that one call may burn; a call that asks for more gets this much.
    pub call_gas_max: u64,
    /// What the steps of one trace may take in memory, in bytes, roughly counted.
    pub trace_bytes_max: usize,
    /// Blocks that one search for logs may span.
    pub logs_blocks_max: u64,
    /// Logs that one search may find.
    pub logs_max: usize,
    /// Accounts and slots that one call may ask for (proofs, storage values).
    pub slots_max: usize,
    /// Filters at once.
    pub filters_max: usize,
    /// Silence after which a filter is forgotten.
    pub filter_wait_max: Duration,
    /// Subscriptions at once on one WebSocket.
    pub socket_subscriptions_max: usize,
    /// Subscriptions at once on all of them.
    pub subscriptions_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            connections_max: 4096,
            header_wait_max: Duration::from_secs(30),
            body_wait_max: Duration::from_secs(10),
            write_wait_max: Duration::from_secs(30),
            flush_max: Duration::from_secs(5),
            body_bytes_max: 5 << 20,
            bodies_bytes_max: 64 << 20,
            answer_bytes_max: 64 << 20,
            answers_bytes_max: 512 << 20,
            batch_max: 1000,
            socket_calls_max: 64,
            socket_silence_max: Duration::from_secs(60),
            runs_max: cores,
            reads_max: 64,
            turn_wait_max: Duration::from_secs(10),
            run_wait_max: Duration::from_secs(5),
            call_gas_max: 50_000_000,
            trace_bytes_max: 128 << 20,
            logs_blocks_max: 50_000,
            logs_max: 20_000,
            slots_max: 1024,
            filters_max: 10_000,
            filter_wait_max: Duration::from_secs(300),
            socket_subscriptions_max: 256,
            subscriptions_max: 10_000,
        }
    }
}

impl Limits {
    /// When a call that begins now has to be done.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.run_wait_max
    }
}
