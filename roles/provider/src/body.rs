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

#[cfg(test)]
mod tests {
    use assay_protocol::{Amount, Signature};
    use futures_util::stream;

    use super::*;

    fn top_up(claimable: u128) -> String {
        let top_up = TopUp { claimable: Amount(claimable), signature: Signature([1; 65]) };
        serde_json::to_string(&top_up).unwrap()
    }

    /// What is heard of a body that comes in these chunks; `broken`: and then breaks off.
    async fn check(chunks: &[&str], broken: bool, expected: (&str, &[&str])) {
        let chunks = chunks.iter().map(|chunk| Ok(Bytes::copy_from_slice(chunk.as_bytes())));
        let end = broken.then(|| Err(std::io::Error::other("gone")));
        let all: Vec<Result<Bytes, std::io::Error>> = chunks.chain(end).collect();
        let mut lines = Lines::new(Body::from_stream(stream::iter(all)));
        let mut first = Vec::new();
        while let Ok(Some(chunk)) = lines.first().await {
            first.extend(chunk);
        }
        assert_eq!(String::from_utf8_lossy(&first), expected.0);
        let mut heard = Vec::new();
        while !lines.ended() {
            heard.push(match lines.next().await {
                Heard::TopUp(top_up) => top_up.claimable.to_string(),
                Heard::Ended => "ended".into(),
                Heard::Broken => "broken".into(),
            });
        }
        assert_eq!(heard, expected.1);
    }

    #[tokio::test]
    async fn the_first_line_is_the_submission_and_the_others_are_top_ups() {
        check(&["{}"], false, ("{}", &[])).await;
        check(&["{", "}\n"], false, ("{}", &["ended"])).await;
        let two = format!("{{}}\n{}\n\n {}", top_up(7), top_up(8));
        check(&[&two], false, ("{}", &["7", "8"])).await;
        let (early, late) = two.split_at(20);
        check(&[early, late, "\n"], false, ("{}", &["7", "8", "ended"])).await;
        check(&[early, late, "\n"], true, ("{}", &["7", "8", "broken"])).await;
    }

    #[tokio::test]
    async fn what_is_no_top_up_ends_the_talk() {
        let later = top_up(9);
        check(&["{}\n{\"claimable\":9}\n", &later], false, ("{}", &["ended"])).await;
        let blank = " \n".repeat(100_000);
        check(&["{}\n", &blank, &later], false, ("{}", &["9"])).await;
        let long = "1".repeat(TOP_UP_BYTES_MAX);
        check(&["{}\n", &long, &later], false, ("{}", &["ended"])).await;
    }
}
