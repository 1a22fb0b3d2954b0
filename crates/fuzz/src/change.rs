//! Makes new inputs of those in a corpus: pure, and the same from the same seed.

/// Numbers at which readers break: around the ends of their types.
const NUMBERS: [u64; 12] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    i64::MAX as u64,
    i64::MIN as u64,
    u64::MAX,
];
/// Most changes that one input is made by.
const CHANGES_MAX: u64 = 8;

/// Changes inputs.
pub(crate) struct Changer<'a> {
    state: u64,
    words: &'a [&'a str],
}

impl<'a> Changer<'a> {
    pub(crate) fn new(seed: u64, words: &'a [&'a str]) -> Self {
        Self { state: seed, words }
    }

    /// One of `corpus`, changed.
    pub(crate) fn changed(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = self.pick(corpus).cloned().unwrap_or_default();
        for _ in 0..=self.below(CHANGES_MAX) {
            self.change(&mut bytes, corpus);
        }
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.below(bytes.len() as u64 + 1) as usize;
        match self.below(9) {
            0 => self.flip(bytes, at),
            1 => bytes.truncate(at),
            2 => bytes.insert(at, self.next() as u8),
            3 => {
                let range = self.range(bytes.len());
                bytes.drain(range);
            }
            4 => self.repeat(bytes, at),
            5 => {
                let number = self.pick(&NUMBERS).copied().unwrap_or_default().to_le_bytes();
                let width = *self.pick(&[1, 2, 4, 8]).unwrap_or(&8);
                overwrite(bytes, at, &number[..width]);
            }
            6 => {
                let other = self.pick(corpus).cloned().unwrap_or_default();
                let range = self.range(other.len());
                bytes.splice(at..at, other[range].iter().copied());
            }
            _ => {
                let word = self.pick(self.words).copied().unwrap_or_default();
                bytes.splice(at..at, word.bytes());
            }
        }
    }

    fn flip(&mut self, bytes: &mut [u8], at: usize) {
        let bit = 1u8 << self.below(8);
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= bit;
        }
    }

    /// Puts a part of the bytes in many times: depth and length are where readers break.
    fn repeat(&mut self, bytes: &mut Vec<u8>, at: usize) {
        let range = self.range(bytes.len().min(64));
        let times = 1usize << self.below(10);
        let part = bytes[range].repeat(times);
        bytes.splice(at..at, part);
    }

    /// A part of something this long.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let (a, b) = (self.below(length as u64 + 1), self.below(length as u64 + 1));
        a.min(b) as usize..a.max(b) as usize
    }

    fn pick<'t, T>(&mut self, from: &'t [T]) -> Option<&'t T> {
        from.get(self.below(from.len().max(1) as u64) as usize)
    }

    /// A number below `end`, which is not 0. That small numbers are a little likelier does no harm.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Writes over the bytes from `at` on, as many as there are.
fn overwrite(bytes: &mut [u8], at: usize, by: &[u8]) {
    for (byte, new) in bytes[at..].iter_mut().zip(by) {
        *byte = *new;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_makes_one_input_and_another_makes_another() {
        let corpus = [b"one input".to_vec(), b"another".to_vec(), Vec::new()];
        let made = |seed: u64| -> Vec<Vec<u8>> {
            let mut changer = Changer::new(seed, &["word"]);
            (0..200).map(|_| changer.changed(&corpus)).collect()
        };
        assert_eq!(made(1), made(1));
        assert_ne!(made(1), made(2));
        assert!(made(1).iter().any(|bytes| bytes.windows(4).any(|part| part == b"word")));
        assert!(made(1).iter().any(|bytes| bytes.len() > 1000));
    }
}
