//! Decides how much of an answer's text can be shown before the answer is complete.
//!
//! Three things hold text back: a character whose bytes are not all there, tokens that may begin a
//! stop sequence, and text that may begin a stop string. What is shown never has to be taken back.

use std::sync::Arc;

use assay_protocol::{Ending, Finish, LogprobsError};
use assay_text::{Stream, Tokenizer};

/// An answer's tokens and the text they make, while they arrive.
#[derive(Debug)]
pub(crate) struct Text {
    ending: Ending,
    output: Vec<u32>,
    stream: Option<Stream<Arc<Tokenizer>>>,
    /// Leading tokens that went into `stream`.
    settled: usize,
    cut: Cut,
}

/// Why tokens are not the next ones of an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotTokens {
    /// There are some after the one that ends the answer.
    #[error("the answer goes on after its end")]
    Overrun,
    /// There are none, which would keep a reader waiting for ever.
    #[error("tokens were announced, and there are none")]
    None,
    /// There are logprobs that were not asked for.
    #[error("logprobs came that were not asked for")]
    Unasked,
    /// There are no logprobs, and they were asked for.
    #[error("tokens came without their logprobs")]
    Unrated,
    /// There is a vector that is not what was ordered.
    #[error("a vector of {found} numbers came, expected one of {expected}")]
    Vector {
        /// Its numbers.
        found: usize,
        /// The model's; zero where it makes none, or one was there.
        expected: usize,
    },
    /// The logprobs are not such as a model gives.
    #[error(transparent)]
    Logprobs(#[from] LogprobsError),
}

impl Text {
    pub(crate) fn new(tokenizer: Arc<Tokenizer>, ending: Ending, stops: Vec<String>) -> Self {
        let stream = Some(Stream::new(tokenizer));
        Self { ending, output: Vec::new(), stream, settled: 0, cut: Cut::new(stops) }
    }

    /// All tokens so far.
    pub(crate) fn output(&self) -> &[u32] {
        &self.output
    }

    /// How many of them have become text, held back or not.
    pub(crate) fn settled(&self) -> usize {
        self.settled
    }

    /// Whether a stop string appeared, after which nothing more is shown.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.done
    }

    /// Takes tokens, and returns the text that can now be shown.
    pub(crate) fn take(&mut self, tokens: &[u32]) -> Result<String, NotTokens> {
        if tokens.is_empty() {
            return Err(NotTokens::None);
        }
        for &token in tokens {
            if self.ending.at(&self.output).is_some() {
                return Err(NotTokens::Overrun);
            }
            self.output.push(token);
        }
        let settled = match self.ending.at(&self.output) {
            Some(finish) => self.ending.text_len(&self.output, finish),
            None => self.ending.settled_len(&self.output),
        };
        Ok(self.settle(settled))
    }

    /// Ends the text by `finish`, and returns what was held back.
    pub(crate) fn finish(&mut self, finish: Finish) -> String {
        let mut shown = self.settle(self.ending.text_len(&self.output, finish));
        if let Some(stream) = self.stream.take() {
            shown += &self.cut.push(&stream.finish());
        }
        shown + &self.cut.finish()
    }

    fn settle(&mut self, settled: usize) -> String {
        let mut shown = String::new();
        if let Some(stream) = &mut self.stream {
            let tokens = self.output.get(self.settled..settled).unwrap_or_default();
            tokens.iter().for_each(|&token| shown += &self.cut.push(&stream.push(token)));
            self.settled = self.settled.max(settled);
        }
        shown
    }
}

/// The text of a complete answer as its client was shown it, and whether a stop string ended it.
pub(crate) fn retold(
    tokenizer: Arc<Tokenizer>,
    ending: Ending,
    stops: Vec<String>,
    output: &[u32],
    finish: Finish,
) -> (String, bool) {
    let mut text = Text::new(tokenizer, ending, stops);
    // An answer of no tokens was cancelled, and has no text.
    let mut shown = text.take(output).unwrap_or_default();
    shown += &text.finish(finish);
    (shown, text.is_cut())
}

/// Ends a text before the first stop string that is complete; of several complete at once, before
/// the longest.
#[derive(Debug)]
struct Cut {
    stops: Vec<String>,
    /// Text that may begin a stop string.
    held: String,
    done: bool,
}

impl Cut {
    fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new(), done: false }
    }

    /// Adds text, and returns what can be shown.
    fn push(&mut self, piece: &str) -> String {
        if self.done {
            return String::new();
        }
        if self.stops.is_empty() {
            return piece.to_owned();
        }
        let seen = self.held.len();
        self.held.push_str(piece);
        for end in seen + 1..=self.held.len() {
            let text = &self.held.as_bytes()[..end];
            let complete = self.stops.iter().filter(|stop| text.ends_with(stop.as_bytes()));
            if let Some(stop) = complete.map(String::len).max() {
                self.done = true;
                self.held.truncate(end - stop);
                return std::mem::take(&mut self.held);
            }
        }
        let shown = self.held.len() - self.pending();
        self.held.drain(..shown).collect()
    }

    /// Ends the text, and returns what was held.
    fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes at the end of `held` that may begin a stop string. They begin a character, since
    /// stop strings do.
    fn pending(&self) -> usize {
        let text = self.held.as_bytes();
        let begins = |stop: &String| {
            let stop = stop.as_bytes();
            (1..stop.len().min(text.len() + 1)).rev().find(|&n| text.ends_with(&stop[..n]))
        };
        self.stops.iter().filter_map(begins).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draft::tests::nano;
    use proptest::prelude::*;

    /// Pushes pieces; shows what comes out of each, with `|` between them and `!` once cut.
    fn check(stops: &[&str], pieces: &[&str], expected: &str) {
        let mut cut = Cut::new(stops.iter().map(ToString::to_string).collect());
        let mut shown: Vec<String> = pieces.iter().map(|piece| cut.push(piece)).collect();
        shown.push(if cut.done { "!".into() } else { cut.finish() });
        assert_eq!(shown.join("|"), expected);
    }

    #[test]
    fn text_ends_before_the_stop_string() {
        check(&["END"], &["a", "bENDc", "d"], "a|b||!");
        check(&["END"], &["aE", "N", "Dx"], "a|||!");
        check(&["\n"], &["a.\n"], "a.|!");
        check(&["ü€"], &["aü", "€"], "a||!");
    }

    #[test]
    fn what_only_looks_like_one_comes_out() {
        check(&["END"], &["aE", "x"], "a|Ex|");
        check(&["END"], &["aEN"], "a|EN");
        check(&["aab"], &["aa", "aab"], "|aa|!");
    }

    #[test]
    fn of_two_the_one_complete_first_wins() {
        check(&["abc", "b"], &["xabc"], "xa|!");
        check(&["bc", "abc"], &["xabc"], "x|!");
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            text in "[ab\u{fc}]{0,30}",
            stops in prop::collection::vec("[ab\u{fc}]{1,4}", 0..3),
            ends in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut whole = Cut::new(stops.clone());
            let expected = whole.push(&text) + &whole.finish();
            let characters: Vec<char> = text.chars().collect();
            let mut ends: Vec<usize> =
                ends.iter().map(|end| end.index(characters.len() + 1)).collect();
            ends.push(characters.len());
            ends.sort_unstable();
            let mut cut = Cut::new(stops.clone());
            let (mut shown, mut start) = (String::new(), 0);
            for end in ends {
                shown += &cut.push(&characters[start..end].iter().collect::<String>());
                start = end;
            }
            shown += &cut.finish();
            prop_assert_eq!(&shown, &expected);
            for stop in &stops {
                prop_assert!(!shown.contains(stop));
            }
        }

        #[test]
        fn shown_text_is_the_decoded_text(
            tokens in prop::collection::vec(3u32..400, 1..40),
            stop in prop::collection::vec(3u32..400, 1..3),
        ) {
            let tokenizer = Arc::clone(&nano().listed.tokenizer);
            let ending = Ending { eos: vec![2], stops: vec![stop], tokens_max: 40 };
            let end = (1..=tokens.len()).find(|&n| ending.at(&tokens[..n]).is_some());
            let output = &tokens[..end.unwrap_or(tokens.len())];
            let mut text = Text::new(Arc::clone(&tokenizer), ending.clone(), vec![]);
            let mut shown = String::new();
            for token in output {
                shown += &text.take(&[*token]).unwrap();
            }
            let finish = ending.at(output).unwrap_or(Finish::Cancelled);
            shown += &text.finish(finish);
            prop_assert_eq!(shown, tokenizer.decode(&output[..ending.text_len(output, finish)]));
        }
    }

    #[test]
    fn no_token_follows_the_end() {
        let tokenizer = Arc::clone(&nano().listed.tokenizer);
        let ending = Ending { eos: vec![2], stops: vec![], tokens_max: 3 };
        let mut text = Text::new(tokenizer, ending, vec![]);
        assert!(text.take(&[10, 2]).is_ok());
        assert_eq!(text.take(&[11]), Err(NotTokens::Overrun));
        assert_eq!(text.take(&[]), Err(NotTokens::None));
    }
}
