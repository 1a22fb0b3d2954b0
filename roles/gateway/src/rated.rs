//! Gives text together with how likely the model held its tokens to be.
//!
//! Text is held back for good reasons, and a token is told with the text that it ends. Tokens that are
//! no text (the one that ends an answer, a stop sequence) are told nobody.

use std::collections::VecDeque;
use std::sync::Arc;

use assay_protocol::{Logprobs, LogprobsError};
use assay_text::Tokenizer;

/// More text of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Piece {
    pub(crate) text: String,
    /// The tokens that end in it; none: nobody asked for logprobs.
    pub(crate) rated: Option<Vec<Rated>>,
}

/// A token of a text, and how likely it was.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rated {
    pub(crate) token: Spelled,
    /// The likeliest ones, likeliest first.
    pub(crate) top: Vec<Spelled>,
}

/// A token as clients see it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Spelled {
    /// As text; of a token that is none, how it is written.
    pub(crate) text: String,
    pub(crate) bytes: Vec<u8>,
    /// Natural logarithm of its probability, by the model's own distribution.
    pub(crate) logprob: f64,
}

/// The tokens of one answer that are not told yet.
#[derive(Debug)]
pub(crate) struct Rates {
    asked: Option<u8>,
    tokenizer: Arc<Tokenizer>,
    /// Each with the end of its text, in bytes from the start of the answer.
    waiting: VecDeque<(Rated, usize)>,
    end: usize,
    /// Tokens told so far, and bytes of text.
    told: usize,
    shown: usize,
}

impl Rates {
    pub(crate) fn new(asked: Option<u8>, tokenizer: Arc<Tokenizer>) -> Self {
        Self { asked, tokenizer, waiting: VecDeque::new(), end: 0, told: 0, shown: 0 }
    }

    /// Whether logprobs are asked for.
    pub(crate) fn are_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// Takes the next tokens, if a model can have said this of them.
    pub(crate) fn take(&mut self, said: &[Logprobs]) -> Result<(), LogprobsError> {
        let Some(asked) = self.asked else { return Ok(()) };
        for logprobs in said {
            // The model may have more tokens than its tokenizer spells.
            logprobs.check(asked, usize::MAX)?;
            let rated = Rated {
                token: self.spelled(logprobs.token, logprobs.logprob),
                top: logprobs.top.iter().map(|&(token, p)| self.spelled(token, p)).collect(),
            };
            self.end += rated.token.bytes.len();
            self.waiting.push_back((rated, self.end));
        }
        Ok(())
    }

    fn spelled(&self, token: u32, logprob_q16: i32) -> Spelled {
        let bytes = self.tokenizer.bytes(token).to_vec();
        let text = match bytes[..] {
            [] => self.tokenizer.spelling(token).unwrap_or_default().to_owned(),
            _ => String::from_utf8_lossy(&bytes).into_owned(),
        };
        Spelled { text, bytes, logprob: f64::from(logprob_q16) / 65536.0 }
    }

    /// `text` with those tokens that end in it, of the first `settled` of the answer.
    pub(crate) fn piece(&mut self, text: String, settled: usize) -> Piece {
        self.shown += text.len();
        let mut rated = Vec::new();
        while self.told < settled
            && self.waiting.front().is_some_and(|(_, end)| *end <= self.shown)
            && let Some((next, _)) = self.waiting.pop_front()
        {
            self.told += 1;
            rated.push(next);
        }
        Piece { text, rated: self.asked.map(|_| rated) }
    }
}

impl Piece {
    /// Whether there is nothing to tell.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.rated.as_ref().is_none_or(Vec::is_empty)
    }
}

impl From<String> for Piece {
    fn from(text: String) -> Self {
        Self { text, rated: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draft::tests::nano;

    #[test]
    fn tokens_are_told_with_the_text_that_they_end() {
        let tokenizer = Arc::clone(&nano().listed.tokenizer);
        let [a, b] = ["a", "b"].map(|letter| tokenizer.encode_plain(letter)[0]);
        let eos = tokenizer.id_of("<eos>").unwrap();
        let said = |token| Logprobs { token, logprob: -65_536, top: vec![(token, -65_536)] };
        let mut rates = Rates::new(Some(1), Arc::clone(&tokenizer));
        let tokens = |piece: Piece| -> Vec<String> {
            piece.rated.unwrap().into_iter().map(|rated| rated.token.text).collect()
        };
        rates.take(&[said(a), said(b)]).unwrap();
        // The text of both is there, but the second may begin a stop sequence.
        assert_eq!(tokens(rates.piece("a".into(), 1)), ["a"]);
        rates.take(&[said(eos)]).unwrap();
        assert_eq!(tokens(rates.piece(String::new(), 2)), [""; 0]);
        let last = rates.piece("b".into(), 2);
        assert_eq!(last.rated.as_ref().unwrap()[0].top[0].logprob, -1.0);
        assert_eq!(tokens(last), ["b"]);
        let two = Logprobs { token: a, logprob: 1, top: vec![(a, 1)] };
        assert!(rates.take(&[two]).is_err());
        assert_eq!(Rates::new(None, tokenizer).piece("x".into(), 9), Piece::from("x".to_owned()));
    }
}
