//! keccak256 of many messages at once.
//!
//! One hash is a chain of permutations, each of which waits for the one before; many hashes are
//! independent. Eight states lie side by side, so that one instruction works on all of them.
//! Definition: the Keccak reference, version 3.0, with the padding of Ethereum (0x01, not the 0x06
//! of SHA-3).

use crate::cpu::fastest;
use crate::path::Path;

/// States that are permuted together.
pub(crate) const STATES: usize = 8;
/// Words of a state.
pub(crate) const WORDS: usize = 25;
/// Bytes that a permutation takes in: 1600 bits less twice the 256 of the result.
const RATE: usize = 136;

/// Eight states: (words, states).
pub(crate) type States = [[u64; STATES]; WORDS];

/// What each round adds to the first word: the definition's linear feedback register, written out.
pub(crate) const ROUNDS: [u64; 24] = [
    0x0000_0000_0000_0001,
    0x0000_0000_0000_8082,
    0x8000_0000_0000_808A,
    0x8000_0000_8000_8000,
    0x0000_0000_0000_808B,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8009,
    0x0000_0000_0000_008A,
    0x0000_0000_0000_0088,
    0x0000_0000_8000_8009,
    0x0000_0000_8000_000A,
    0x0000_0000_8000_808B,
    0x8000_0000_0000_008B,
    0x8000_0000_0000_8089,
    0x8000_0000_0000_8003,
    0x8000_0000_0000_8002,
    0x8000_0000_0000_0080,
    0x0000_0000_0000_800A,
    0x8000_0000_8000_000A,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8080,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8008,
];

/// By how much each word turns left; word x + 5y stands at column x and row y.
const TURNS: [u32; WORDS] =
    [0, 1, 62, 28, 27, 36, 44, 6, 55, 20, 3, 10, 43, 25, 39, 41, 45, 15, 21, 8, 18, 2, 61, 56, 14];

/// Where a word moves: from (x, y) to (y, 2x + 3y).
const fn moved(word: usize) -> usize {
    let (x, y) = (word % 5, word / 5);
    y + 5 * ((2 * x + 3 * y) % 5)
}

/// keccak256 of `tag ‖ message` for messages of `length` bytes that stand one after another in
/// `data`. Bytes beyond the last whole message are not looked at.
///
/// # Panics
/// If `length` is zero.
pub fn keccak256_each(tag: &[u8], data: &[u8], length: usize) -> Vec<[u8; 32]> {
    each(&*fastest(), tag, data, length)
}

fn each(path: &dyn Path, tag: &[u8], data: &[u8], length: usize) -> Vec<[u8; 32]> {
    let blocks = (tag.len() + length) / RATE + 1;
    // One message after another, padded to whole blocks: 1, zeros, and the top bit at the end.
    let mut padded = vec![0; STATES * blocks * RATE];
    for padded in padded.chunks_exact_mut(blocks * RATE) {
        padded[..tag.len()].copy_from_slice(tag);
        padded[tag.len() + length] = 0x01;
        padded[blocks * RATE - 1] |= 0x80;
    }
    let mut hashes = Vec::with_capacity(data.len() / length);
    for messages in data.chunks_exact(length).collect::<Vec<_>>().chunks(STATES) {
        for (padded, message) in padded.chunks_exact_mut(blocks * RATE).zip(messages) {
            padded[tag.len()..][..length].copy_from_slice(message);
        }
        let states = absorb(path, &padded, blocks);
        hashes.extend((0..messages.len()).map(|state| squeeze(&states, state)));
    }
    hashes
}

/// The states after eight messages of so many blocks.
fn absorb(path: &dyn Path, padded: &[u8], blocks: usize) -> States {
    let mut states = [[0; STATES]; WORDS];
    for block in 0..blocks {
        for (message, padded) in padded.chunks_exact(blocks * RATE).enumerate() {
            let words = padded[block * RATE..][..RATE].chunks_exact(8);
            states.iter_mut().zip(words).for_each(|(states, bytes)| states[message] ^= word(bytes));
        }
        path.keccak(&mut states);
    }
    states
}

/// Eight bytes, the lowest first.
fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("a word has eight bytes"))
}

/// The hash that a state holds.
fn squeeze(states: &States, state: usize) -> [u8; 32] {
    let mut hash = [0; 32];
    for (bytes, word) in hash.chunks_exact_mut(8).zip(states) {
        bytes.copy_from_slice(&word[state].to_le_bytes());
    }
    hash
}

/// The permutation, plainly, state by state.
pub(crate) fn permute(states: &mut States) {
    for state in 0..STATES {
        let mut a: [u64; WORDS] = std::array::from_fn(|word| states[word][state]);
        ROUNDS.iter().for_each(|constant| round(&mut a, *constant));
        states.iter_mut().zip(a).for_each(|(words, a)| words[state] = a);
    }
}

fn round(a: &mut [u64; WORDS], constant: u64) {
    let parity: [u64; 5] = std::array::from_fn(|x| (0..5).fold(0, |sum, y| sum ^ a[x + 5 * y]));
    let mut b = [0; WORDS];
    for word in 0..WORDS {
        let (left, right) = (parity[(word + 4) % 5], parity[(word + 1) % 5]);
        b[moved(word)] = (a[word] ^ left ^ right.rotate_left(1)).rotate_left(TURNS[word]);
    }
    for (word, a) in a.iter_mut().enumerate() {
        let row = word / 5 * 5;
        *a = b[word] ^ (!b[row + (word + 1) % 5] & b[row + (word + 2) % 5]);
    }
    a[0] ^= constant;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::path;
    use crate::isa::Isa;

    /// The paths that this machine can run.
    fn paths() -> Vec<Box<dyn Path>> {
        Isa::ALL.into_iter().filter_map(|isa| path(isa).ok()).collect()
    }

    fn hex(hash: &[u8; 32]) -> String {
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn known_messages_have_their_known_hashes() {
        for path in paths() {
            let hashes = each(&*path, b"", b"abcabc", 3);
            let abc = "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45";
            assert_eq!(hashes.iter().map(hex).collect::<Vec<_>>(), [abc, abc]);
            assert_eq!(hex(&each(&*path, b"ab", b"c", 1)[0]), abc);
        }
    }

    #[test]
    fn every_path_permutes_alike() {
        let word =
            |i: usize| (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(i as u32);
        let noise: States =
            std::array::from_fn(|i| std::array::from_fn(|state| word(STATES * i + state)));
        let mut expected = noise;
        permute(&mut expected);
        for path in paths() {
            let mut states = noise;
            path.keccak(&mut states);
            assert_eq!(states, expected);
        }
    }

    #[test]
    fn messages_do_not_meet() {
        for path in paths() {
            for length in [1, 64, 134, 135, 136, 137, 272, 300] {
                let data: Vec<u8> = (0..length * 19).map(|i| (i * i / 7) as u8).collect();
                let together = each(&*path, &[0], &data, length);
                assert_eq!(together.len(), 19);
                for (message, hash) in data.chunks(length).zip(together) {
                    assert_eq!(each(&*path, &[0], message, length), [hash], "{length} bytes");
                    let whole = [&[0], message].concat();
                    assert_eq!(each(&*path, &[], &whole, length + 1), [hash], "{length} bytes");
                }
            }
        }
        assert!(keccak256_each(&[0], &[], 64).is_empty());
    }
}
