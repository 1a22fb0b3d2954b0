//! What a sequence may say next, guessed from what it said before. Pure.
//!
//! Text is copied a lot: names, code, quotations, lists. If the last tokens stood together before,
//! what followed them then is a good guess now. A batch computes a guess as a further row of the same
//! sequence; if the token that is drawn is the one that was guessed, the next row is right already.
//! A guess never decides anything: the drawn token does, and draws are numbered by position, so an
//! answer is the same bits with guesses and without.
//!
//! A row costs time, so guessers learn: a right guess doubles how far the next one reaches, a wrong
//! one makes the sequence wait before it guesses again, each time twice as long.

use std::collections::HashMap;

/// Tokens that must have stood together before.
const GRAM: usize = 3;
/// Most tokens that a sequence waits after wrong guesses.
const REST_MAX: usize = 64;

/// The guesser of one sequence.
#[derive(Debug, Default)]
pub(super) struct Guesser {
    /// What followed each run of [`GRAM`] tokens when it stood there last: a position.
    followed: HashMap<[u32; GRAM], usize>,
    /// Tokens that the map knows of.
    read: usize,
    /// Tokens that the next guess may have, less one.
    reach: usize,
    /// Tokens to wait before the next guess.
    rest: usize,
    /// Wrong guesses in a row.
    misses: u32,
}

impl Guesser {
    /// Guesses at most `guesses_max` of the tokens that follow `tokens`: prompt and output so far.
    pub(super) fn guess(&mut self, tokens: &[u32], guesses_max: usize) -> Vec<u32> {
        // What the last tokens were followed by must not be found at their own end.
        while self.read + 1 < tokens.len() {
            self.read += 1;
            if let Some(gram) = gram(&tokens[..self.read]) {
                self.followed.insert(gram, self.read);
            }
        }
        if self.rest > 0 {
            self.rest -= 1;
            return Vec::new();
        }
        let found = gram(tokens).and_then(|gram| self.followed.get(&gram));
        let Some(&from) = found else { return Vec::new() };
        // Where the guess reaches the end of what is known, it repeats itself.
        let period = tokens.len() - from;
        (0..guesses_max.min(self.reach + 1)).map(|at| tokens[from + at % period]).collect()
    }

    /// Learns from a guess of `guessed` tokens, of which the first `right` were drawn.
    pub(super) fn learn(&mut self, guessed: usize, right: usize) {
        if guessed == 0 {
            return;
        }
        if right == guessed {
            self.reach = (2 * self.reach + 1).min(REST_MAX);
            self.misses = 0;
        } else {
            self.reach = right;
            self.misses = if right > 0 { 0 } else { self.misses + 1 };
            self.rest = if right > 0 { 0 } else { REST_MAX.min(1 << self.misses.min(16)) };
        }
    }
}

/// The last tokens, if there are enough.
fn gram(tokens: &[u32]) -> Option<[u32; GRAM]> {
    tokens.last_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tokens: &[u32], guesses_max: usize, expected: &[u32]) {
        let mut guesser = Guesser { reach: REST_MAX, ..Guesser::default() };
        assert_eq!(guesser.guess(tokens, guesses_max), expected, "{tokens:?}");
    }

    #[test]
    fn what_followed_before_is_guessed() {
        check(&[1, 2, 3, 4, 5, 9, 1, 2, 3], 2, &[4, 5]);
        check(&[1, 2, 3, 7, 1, 2, 3, 8, 1, 2, 3], 1, &[8]);
        check(&[1, 2, 3, 4, 5, 9, 1, 2, 4], 2, &[]);
        check(&[1, 2], 2, &[]);
    }

    #[test]
    fn a_guess_that_reaches_the_end_repeats_itself() {
        check(&[5, 5, 5, 5], 3, &[5, 5, 5]);
        check(&[1, 2, 1, 2, 1], 4, &[2, 1, 2, 1]);
    }

    /// Rows spent on guesses while `drawn` follows `prompt`, and how many of them were right.
    fn play(prompt: &[u32], drawn: &[u32]) -> (usize, usize) {
        let mut guesser = Guesser::default();
        let mut tokens = prompt.to_vec();
        let (mut rows, mut hits, mut at) = (0, 0, 0);
        while at < drawn.len() {
            let guess = guesser.guess(&tokens, 8);
            let right = guess.iter().zip(&drawn[at..]).take_while(|(a, b)| a == b).count();
            guesser.learn(guess.len(), right);
            rows += guess.len();
            hits += right;
            let next = (at + right + 1).min(drawn.len());
            tokens.extend_from_slice(&drawn[at..next]);
            at = next;
        }
        (rows, hits)
    }

    #[test]
    fn copying_is_guessed_nearly_whole() {
        let text: Vec<u32> = (0..200).map(|n: u32| n.wrapping_mul(2_654_435_761) >> 20).collect();
        let (rows, hits) = play(&text, &text);
        assert!(hits > 170 && rows - hits < 10, "{hits} of {rows}");
    }

    #[test]
    fn text_that_only_seems_to_repeat_costs_next_to_nothing() {
        let seems = |n: u32| [1, 2, 3, 100 + n];
        let text: Vec<u32> = (0..500).flat_map(seems).collect();
        let (rows, hits) = play(&text[..40], &text[40..]);
        assert!(hits == 0 && rows <= 40, "{hits} of {rows}");
    }
}
