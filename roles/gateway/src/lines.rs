//! Reads a provider's words, within bounds: a stranger's stream may be endless.

use assay_protocol::wire::Frame;
use reqwest::Response;

/// The frames of an answer, one per line.
#[derive(Debug)]
pub(crate) struct Lines {
    reply: Response,
    bytes: Vec<u8>,
    /// Leading bytes that are known to hold no line's end.
    searched: usize,
    line_bytes_max: usize,
}

/// Why there is no next frame.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinesError {
    /// The connection broke.
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    /// The stream ended without a last frame.
    #[error("the answer broke off")]
    End,
    /// No frame is so long.
    #[error("a line is longer than {max} bytes")]
    Length {
        /// Longest line of such an answer.
        max: usize,
    },
    /// Not a frame.
    #[error("a line cannot be read: {0}")]
    Json(#[from] serde_json::Error),
}

impl Lines {
    /// The frames in `reply`, for an answer of at most `tokens_max` tokens with so many alternatives to
    /// each, or for a vector of so many numbers.
    pub(crate) fn new(
        reply: Response,
        tokens_max: u32,
        logprobs: Option<u8>,
        vector_width: Option<u32>,
    ) -> Self {
        // A token and its logprob, as JSON, for the drawn one and each alternative.
        let rated = logprobs.map_or(0, |top| 64 * (usize::from(top) + 1));
        let rated = rated.saturating_mul(tokens_max as usize);
        // A number, its sign and a comma.
        let vector = vector_width.map_or(0, |width| 12 * width as usize);
        let line_bytes_max =
            line_bytes_max(tokens_max).saturating_add(rated).saturating_add(vector);
        Self { reply, bytes: Vec::new(), searched: 0, line_bytes_max }
    }

    /// The next frame. May be dropped and called again: no byte is lost.
    pub(crate) async fn next(&mut self) -> Result<Frame, LinesError> {
        loop {
            let found = self.bytes[self.searched..].iter().position(|&byte| byte == b'\n');
            if let Some(at) = found {
                let end = self.searched + at;
                let frame = serde_json::from_slice(&self.bytes[..end]);
                self.bytes.drain(..=end);
                self.searched = 0;
                return Ok(frame?);
            }
            self.searched = self.bytes.len();
            if self.searched > self.line_bytes_max {
                return Err(LinesError::Length { max: self.line_bytes_max });
            }
            let chunk = self.reply.chunk().await?.ok_or(LinesError::End)?;
            self.bytes.extend_from_slice(&chunk);
        }
    }
}

/// Longest sealed answer of at most `tokens_max` tokens, in bytes.
pub(crate) fn line_bytes_max(tokens_max: u32) -> usize {
    // A receipt and its wrapping; then for each token an id and a state, as JSON.
    (tokens_max as usize).saturating_mul(96).saturating_add(8192)
}

/// A reply's body; `None` if it is longer than `max` bytes.
pub(crate) async fn short_body(
    reply: &mut Response,
    max: usize,
) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = reply.chunk().await? {
        if bytes.len() + chunk.len() > max {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes))
}
