//! Reads the body of an order: the submission is its first line, top-ups are the others. A body that
//! ends is a submission without more top-ups.

use std::sync::{Mutex, PoisonError};

use assay_protocol::wire::{Refusal, TopUp};
use axum::body::{Body, BodyDataStream, Bytes};
use futures_util::StreamExt;

/// Longest line of a top-up, in bytes.
const TOP_UP_BYTES_MAX: usize = 1024;

/// A body that is read line by line.
pub(crate) struct Lines {
    /// Locked by nobody: the mutex only makes the body, which is not `Sync`, part of what is.
    chunks: Mutex<BodyDataStream>,
    /// What was read and is not part of the first line.
    rest: Vec<u8>,
    ended: bool,
}

/// What a buyer says while its answer runs.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Its next voucher.
    TopUp(TopUp),
    /// Nothing more: the body ended, or goes on with what is no top-up.
    Ended,
    /// The connection broke.
    Broken,
}

impl Lines {
    pub(crate) fn new(body: Body) -> Self {
        Self { chunks: Mutex::new(body.into_data_stream()), rest: Vec::new(), ended: false }
    }

    /// The next bytes of the first line; `None` at its end.
    pub(crate) async fn first(&mut self) -> Result<Option<Bytes>, Refusal> {
        if self.ended || !self.rest.is_empty() {
            return Ok(None);
        }
        match self.chunks().next().await {
            Some(Ok(mut chunk)) => {
                if let Some(end) = chunk.iter().position(|&byte| byte == b'\n') {
                    self.rest = chunk.split_off(end).into();
                }
                Ok(Some(chunk))
            }
            Some(Err(error)) => {
                Err(Refusal::Invalid { reason: format!("the submission cannot be read: {error}") })
            }
            None => {
                self.ended = true;
                Ok(None)
            }
        }
    }

    fn chunks(&mut self) -> &mut BodyDataStream {
        self.chunks.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing more is to be heard.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// What follows the first line, a word at a time; never anything after [`Heard::Ended`] or
    /// [`Heard::Broken`]. May be dropped at any time without a word being lost.
    pub(crate) async fn next(&mut self) -> Heard {
        loop {
            if self.ended {
                return std::future::pending().await;
            }
            if let Some(word) = self.line() {
                return word;
            }
            match self.chunks().next().await {
                Some(Ok(chunk)) => self.rest.extend_from_slice(&chunk),
                Some(Err(_)) => {
                    self.close();
                    return Heard::Broken;
                }
                None => {
                    // The last line needs no end.
                    self.rest.push(b'\n');
                    let last = self.line();
                    self.close();
                    return last.unwrap_or(Heard::Ended);
                }
            }
        }
    }

    /// Takes the next line that is not blank out of what was read.
    fn line(&mut self) -> Option<Heard> {
        let blank = self.rest.iter().position(|byte| !byte.is_ascii_whitespace());
        self.rest.drain(..blank.unwrap_or(self.rest.len()));
        let end = self.rest.iter().take(TOP_UP_BYTES_MAX).position(|&byte| byte == b'\n');
        if end.is_none() && self.rest.len() < TOP_UP_BYTES_MAX {
            return None;
        }
        let line: Vec<u8> = self.rest.drain(..=end.unwrap_or(0)).collect();
        match serde_json::from_slice(&line) {
            Ok(top_up) => Some(Heard::TopUp(top_up)),
            Err(error) => {
                tracing::debug!(%error, "a line is no top-up");
                self.close();
                Some(Heard::Ended)
            }
        }
    }

    /// Hears no more.
    pub(crate) fn close(&mut self) {
        self.ended = true;
        self.rest = Vec::new();
    }
}
