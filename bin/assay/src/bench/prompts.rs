//! Prompts of words that nobody has cached.

use rand::rngs::ChaCha8Rng;
use rand::{Rng, RngExt, SeedableRng};

const CONSONANTS: &[u8] = b"bdfgklmnprstvz";
const VOWELS: &[u8] = b"aeiou";

/// A source of prompts of one length. The same seed gives the same prompts.
pub(super) struct Prompts {
    random: ChaCha8Rng,
    /// What all of them begin with.
    shared: String,
    /// Words that each has of its own.
    own: usize,
}

impl Prompts {
    /// Prompts of `words` words, `shared` of which are the same in all.
    pub(super) fn new(seed: u64, words: usize, shared: usize) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let beginning = text(&mut random, shared);
        Self { random, shared: beginning, own: words.saturating_sub(shared) }
    }

    /// The next prompts.
    pub(super) fn take(&mut self, count: usize) -> Vec<String> {
        let next = |_| {
            let own = text(&mut self.random, self.own);
            [self.shared.as_str(), &own].concat()
        };
        (0..count).map(next).collect()
    }
}

/// Words of two syllables, a space after each.
fn text(random: &mut impl Rng, words: usize) -> String {
    let mut letter = |of: &[u8]| of[random.random_range(0..of.len())] as char;
    let word = |_| {
        let syllables = [CONSONANTS, VOWELS, CONSONANTS, VOWELS];
        syllables.map(&mut letter).into_iter().chain([' ']).collect::<String>()
    };
    (0..words).map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_share_what_they_should_and_no_more() {
        let prompts = Prompts::new(1, 10, 4).take(3);
        let words = |prompt: &str| prompt.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for prompt in &prompts {
            assert_eq!(words(prompt).len(), 10);
            assert_eq!(words(prompt)[..4], words(&prompts[0])[..4]);
        }
        assert_ne!(words(&prompts[0])[4..], words(&prompts[1])[4..]);
        assert_eq!(prompts, Prompts::new(1, 10, 4).take(3));
        assert_ne!(prompts, Prompts::new(2, 10, 4).take(3));
    }
}
