//! SentencePiece's map of characters: what a text's characters become before pieces are looked for.
//!
//! Files bring it as a double array of four-byte units with the replacements behind it, mostly some
//! variant of Unicode's form NFKC. It is read into a plain list of pairs, each checked, so that a
//! damaged map is refused where it is read and cannot lead anything astray later.
//!
//! A unit holds a label in its lowest eight bits, whether a key ends there in bit 8, and in the others
//! how far its children lie: the child by a byte is the unit at that distance xor the byte. The value
//! of a key stands in the child by the byte zero: where its replacement begins, which a zero ends.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation as _;

use crate::TokenizerError;
use crate::prefixes::Prefixes;

/// Most units of a map; published ones have some fifty thousand.
const UNITS_MAX: usize = 1 << 18;
/// Most bytes of all replacements as a file brings them.
const REPLACEMENTS_BYTES_MAX: usize = 1 << 20;
/// Most keys, and most steps to all of them. Keys that end alike share units: `nmt_nfkc` has 224,711 keys
/// at the end of 262,072 steps.
const KEYS_MAX: usize = 1 << 20;
/// Most bytes of all keys with their replacements; there they are 2.6 million.
const PAIRS_BYTES_MAX: usize = 16 << 20;
/// Longest key in bytes. Published ones have up to a dozen.
const KEY_BYTES_MAX: usize = 64;
/// How many times longer than its key a replacement may be. In NFKC it is eleven times at most.
const GROWTH_MAX: usize = 16;
/// Bytes of a grapheme that is looked up as a whole, in the `tokenizers` library.
const GRAPHEME_BYTES_MAX: usize = 5;

/// What characters become, by the characters. The one by default leaves all as they are.
#[derive(Debug, Default)]
pub struct Charsmap {
    /// Keys, none empty, with the place of what each becomes.
    keys: Prefixes,
    /// All replacements; that at one place ends where it says, and begins where the one before ends.
    replacements: String,
    ends: Vec<u32>,
}

impl Charsmap {
    /// Reads a map as files bring it: the length of the units in bytes, little endian in four bytes, the
    /// units, and the replacements. No bytes at all are the map that leaves everything as it is.
    ///
    /// # Errors
    /// [`TokenizerError::Charsmap`] for anything else, and for a map that is too large.
    pub fn read(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
            return if bytes.is_empty() {
                Ok(Self::default())
            } else {
                Err(refuse("is cut short"))
            };
        };
        let length = u32::from_le_bytes(*length) as usize;
        if !length.is_multiple_of(4) || length > rest.len() {
            return Err(refuse("states a length that is not its own"));
        }
        let (units, replacements) = rest.split_at(length);
        if units.len() / 4 > UNITS_MAX || replacements.len() > REPLACEMENTS_BYTES_MAX {
            return Err(refuse("is too large"));
        }
        let units = units.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let units: Vec<u32> = units.collect();
        Self::new(&Walk::new(&units, replacements).pairs()?)
    }

    /// Checks pairs of key and replacement, which must ascend by key.
    pub(crate) fn new(pairs: &[(String, String)]) -> Result<Self, TokenizerError> {
        let bytes = pairs.iter().map(|(key, replacement)| key.len() + replacement.len());
        if pairs.len() > KEYS_MAX || bytes.sum::<usize>() > PAIRS_BYTES_MAX {
            return Err(refuse("is too large"));
        }
        if !pairs.is_sorted_by(|(before, _), (after, _)| before < after) {
            return Err(refuse("has keys out of order"));
        }
        let (mut replacements, mut ends) = (String::new(), Vec::with_capacity(pairs.len()));
        for (key, replacement) in pairs {
            if key.is_empty() || key.len() > KEY_BYTES_MAX {
                return Err(refuse("has an empty or long key"));
            }
            if replacement.len() > GROWTH_MAX * key.len() {
                return Err(refuse("has a replacement that is too long"));
            }
            replacements.push_str(replacement);
            ends.push(replacements.len() as u32);
        }
        let keys = Prefixes::new(pairs.iter().map(|(key, _)| key.as_str()).zip(0..).collect());
        Ok(Self { keys, replacements, ends })
    }

    /// Keys and replacements, ascending by key.
    pub(crate) fn pairs(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.keys.iter().map(|(key, place)| (key, self.replacement(place)))
    }

    /// The parts that `text` becomes: of all keys that it goes on with, the longest is replaced.
    pub(crate) fn by_longest<'t>(&'t self, text: &'t str) -> impl Iterator<Item = &'t str> {
        let mut rest = text;
        std::iter::from_fn(move || {
            let first = rest.chars().next()?;
            let found = self.keys.longest(rest.as_bytes());
            let (part, after) = rest.split_at(found.map_or(first.len_utf8(), |(length, _)| length));
            rest = after;
            Some(found.map_or(part, |(_, place)| self.replacement(place)))
        })
    }

    /// The same as the `tokenizers` library does it: a short grapheme as a whole becomes what the shortest
    /// key becomes that it begins with; in any other, each character counts alone.
    pub(crate) fn by_grapheme<'t>(&'t self, text: &'t str) -> impl Iterator<Item = &'t str> {
        text.graphemes(true).flat_map(move |grapheme| {
            let short = grapheme.len() <= GRAPHEME_BYTES_MAX;
            let whole = if short { self.shortest(grapheme) } else { None };
            let (letters, whole) = match whole {
                Some(whole) => ("", Some(whole)),
                None => (grapheme, None),
            };
            let alone = letters.split_inclusive(|_: char| true);
            whole.into_iter().chain(alone.map(|letter| self.shortest(letter).unwrap_or(letter)))
        })
    }

    /// What the shortest key becomes that `text` begins with.
    fn shortest(&self, text: &str) -> Option<&str> {
        let (_, place) = self.keys.of(text.as_bytes()).next()?;
        Some(self.replacement(place))
    }

    fn replacement(&self, place: u32) -> &str {
        let place = place as usize;
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.replacements[start as usize..self.ends[place] as usize]
    }
}

/// Finds all keys of a double array.
struct Walk<'a> {
    units: &'a [u32],
    /// Where the children begin that a unit is among, and its byte; ascending.
    edges: Vec<(usize, u8)>,
    replacements: &'a [u8],
    /// Children that were found: in an array that leads back to itself there is no end of them.
    seen: usize,
    /// Bytes of the keys and replacements that were found.
    bytes: usize,
}

impl<'a> Walk<'a> {
    fn new(units: &'a [u32], replacements: &'a [u8]) -> Self {
        let edge = |(place, unit): (usize, &u32)| {
            let byte = u8::try_from(label(*unit)).ok().filter(|byte| *byte != 0)?;
            Some((place ^ usize::from(byte), byte))
        };
        let mut edges: Vec<_> = units.iter().enumerate().filter_map(edge).collect();
        edges.sort_unstable();
        Self { units, edges, replacements, seen: 0, bytes: 0 }
    }

    /// Keys and replacements, ascending by key.
    fn pairs(mut self) -> Result<Vec<(String, String)>, TokenizerError> {
        let mut pairs = Vec::new();
        let Some(&root) = self.units.first() else { return Ok(pairs) };
        // The children yet to look at, of each byte of the key at hand.
        let mut path = vec![self.edges_of(children(0, root))];
        let mut key: Vec<u8> = Vec::new();
        while let Some(left) = path.last_mut() {
            let Some(edge) = left.next() else {
                path.pop();
                key.pop();
                continue;
            };
            let (base, byte) = self.edges[edge];
            let place = base ^ usize::from(byte);
            self.seen += 1;
            if self.seen > KEYS_MAX {
                return Err(refuse("is too large"));
            }
            key.push(byte);
            if key.len() > KEY_BYTES_MAX {
                return Err(refuse("has an empty or long key"));
            }
            let base = children(place, self.units[place]);
            if self.units[place] >> 8 & 1 == 1 {
                pairs.push(self.pair(&key, base)?);
            }
            path.push(self.edges_of(base));
        }
        Ok(pairs)
    }

    /// The units that are children where children begin at `base`.
    fn edges_of(&self, base: usize) -> Range<usize> {
        let start = self.edges.partition_point(|(other, _)| *other < base);
        let end = self.edges.partition_point(|(other, _)| *other <= base);
        start..end
    }

    /// A key whose value stands at `place`, and what it becomes.
    fn pair(&mut self, key: &[u8], place: usize) -> Result<(String, String), TokenizerError> {
        let spelled = String::from_utf8(key.to_vec());
        let spelled = spelled.map_err(|_| refuse("has a key that is not UTF-8"))?;
        let value = self.value(place)?;
        self.bytes += spelled.len() + value.len();
        if self.bytes > PAIRS_BYTES_MAX {
            return Err(refuse("is too large"));
        }
        Ok((spelled, value))
    }

    /// The replacement that the unit at `place` names.
    fn value(&self, place: usize) -> Result<String, TokenizerError> {
        let missing = || refuse("has a key without a replacement");
        let start = self.units.get(place).ok_or_else(missing)? & 0x7fff_ffff;
        let rest = self.replacements.get(start as usize..).ok_or_else(missing)?;
        let end = rest.iter().position(|&byte| byte == 0).ok_or_else(missing)?;
        let text = std::str::from_utf8(&rest[..end]);
        text.map(str::to_owned).map_err(|_| refuse("has a replacement that is not UTF-8"))
    }
}

/// Where the children of the unit at `place` are, but for their byte.
fn children(place: usize, unit: u32) -> usize {
    // At most 2^29: no overflow.
    place ^ ((unit >> 10) << ((unit & 1 << 9) >> 6)) as usize
}

/// A unit's byte; a value has none, and something else here.
fn label(unit: u32) -> u32 {
    unit & (1 << 31 | 0xff)
}

fn refuse(problem: &'static str) -> TokenizerError {
    TokenizerError::Charsmap { problem }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(pairs: &[(&str, &str)]) -> Charsmap {
        let own =
            |(key, replacement): &(&str, &str)| ((*key).to_owned(), (*replacement).to_owned());
        let mut pairs: Vec<_> = pairs.iter().map(own).collect();
        pairs.sort();
        Charsmap::new(&pairs).unwrap()
    }

    /// A double array with one key for each replacement: by the first byte, the children of each key stand
    /// in a block of their own.
    fn file(pairs: &[(&str, &str)]) -> Vec<u8> {
        let block = 256;
        let letters: usize = pairs.iter().map(|(key, _)| key.len()).sum();
        let mut units = vec![0u32; block * (letters + 2)];
        let mut replacements = Vec::new();
        // The root's children stand in block 1.
        units[0] = (block as u32) << 10;
        let mut free = 2;
        for (key, replacement) in pairs {
            let mut base = block;
            for (byte, left) in key.bytes().zip((0..key.len()).rev()) {
                let place = base ^ usize::from(byte);
                if units[place] == 0 {
                    let children = free * block;
                    free += 1;
                    units[place] = ((place ^ children) as u32) << 10 | u32::from(byte);
                }
                base = children(place, units[place]);
                if left == 0 {
                    units[place] |= 1 << 8;
                    units[base] = 1 << 31 | replacements.len() as u32;
                }
            }
            replacements.extend(replacement.bytes());
            replacements.push(0);
        }
        let length = (units.len() as u32 * 4).to_le_bytes();
        let units = units.iter().flat_map(|unit| unit.to_le_bytes());
        length.into_iter().chain(units).chain(replacements).collect()
    }

    const PAIRS: [(&str, &str); 5] =
        [("A", "a"), ("e\u{301}", "é"), ("\t", " "), ("ﬁ", "fi"), ("\u{200d}", "")];

    #[test]
    fn a_double_array_is_read_whole() {
        let read = Charsmap::read(&file(&PAIRS)).unwrap();
        let expected = map(&PAIRS);
        assert!(read.pairs().eq(expected.pairs()) && read.pairs().len() == PAIRS.len());
        assert_eq!(Charsmap::read(&[]).unwrap().pairs().len(), 0);
        assert_eq!(Charsmap::read(&[0; 4]).unwrap().pairs().len(), 0);
    }

    #[test]
    fn the_longest_key_is_replaced() {
        let map = map(&[("a", "1"), ("ab", "2"), ("b", ""), ("e\u{301}", "é"), ("e", "3")]);
        let check = |text: &str, expected: &str| {
            assert_eq!(map.by_longest(text).collect::<String>(), expected, "{text}");
        };
        check("aabxb", "12x");
        check("e\u{301}e", "é3");
        check("", "");
        check("中", "中");
    }

    #[test]
    fn graphemes_are_replaced_by_their_shortest_key() {
        let map = map(&[("\r", " "), ("e\u{301}", "é"), ("ﬁ", "fi"), ("\u{301}", "'")]);
        let check = |text: &str, expected: &str| {
            assert_eq!(map.by_grapheme(text).collect::<String>(), expected, "{text}");
        };
        check("a\r\nb", "a b");
        check("e\u{301}", "é");
        check("ﬁ\u{301}", "fi");
        // A longer grapheme is taken letter by letter.
        check("e\u{301}\u{301}\u{301}", "e'''");
        check("", "");
    }

    fn refused(bytes: &[u8], expected: &str) {
        let error = Charsmap::read(bytes).unwrap_err();
        assert_eq!(error.to_string(), format!("the map of characters {expected}"));
    }

    #[test]
    fn damaged_maps_are_refused() {
        refused(&[1, 0], "is cut short");
        refused(&[5, 0, 0, 0, 1, 1, 1, 1, 1], "states a length that is not its own");
        refused(&[8, 0, 0, 0, 1, 1, 1, 1], "states a length that is not its own");
        refused(&vec![0; 4 + REPLACEMENTS_BYTES_MAX + 1], "is too large");
        let whole = file(&PAIRS);
        refused(&whole[..whole.len() - 1], "has a key without a replacement");
        let mut other = whole.clone();
        let end = other.len();
        other[end - 3] = 0xff;
        refused(&other, "has a replacement that is not UTF-8");
        refused(&file(&[("a", &"b".repeat(17))]), "has a replacement that is too long");
        let long = "a".repeat(KEY_BYTES_MAX + 1);
        refused(&file(&[(&long, "")]), "has an empty or long key");
    }

    /// Each unit is a child of every other.
    #[test]
    fn an_array_without_an_end_is_refused() {
        let unit = |byte: u32| (byte << 10 | byte).to_le_bytes();
        let mut bytes = vec![0, 4, 0, 0];
        bytes.extend((0..256).flat_map(unit));
        bytes.push(0);
        refused(&bytes, "has an empty or long key");
    }

    /// Five blocks of units, each unit of one leading to all of the next: more keys than anybody has.
    #[test]
    fn an_array_of_too_many_keys_is_refused() {
        let unit = |place: usize| match (place / 256, place % 256) {
            (_, 0) => 1 << 31,
            (5, byte) => byte,
            (block, byte) => (place ^ ((block + 1) * 256)) << 10 | 1 << 8 | byte,
        };
        let mut units: Vec<u32> = (0..6 * 256).map(|place| unit(place) as u32).collect();
        units[0] = 256 << 10;
        let mut bytes = (units.len() as u32 * 4).to_le_bytes().to_vec();
        bytes.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        bytes.push(0);
        refused(&bytes, "has a key that is not UTF-8");
        // Keys of ASCII alone.
        for place in (0..6 * 256).filter(|place| place % 256 >= 128) {
            bytes[4 + 4 * place] = 0;
        }
        refused(&bytes, "is too large");
    }

    #[test]
    fn pairs_are_checked_as_files_are() {
        let pair = |key: &str| (key.to_owned(), String::new());
        let error = |pairs: Vec<_>| Charsmap::new(&pairs).unwrap_err().to_string();
        let out = "the map of characters has keys out of order";
        assert_eq!(error(vec![pair("b"), pair("a")]), out);
        assert_eq!(error(vec![pair("a"), pair("a")]), out);
        assert_eq!(error(vec![pair("")]), "the map of characters has an empty or long key");
    }

    proptest! {
        /// Whatever a file says, reading it ends, and so does every text that is read by it.
        #[test]
        fn changed_maps_do_no_harm(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
            text in "[Ae\u{301}\tﬁ\u{200d}x]{0,20}",
        ) {
            let mut bytes = file(&PAIRS);
            for (place, byte) in changes {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            if let Ok(map) = Charsmap::read(&bytes) {
                prop_assert!(map.by_longest(&text).map(str::len).sum::<usize>() <= 1024);
                prop_assert!(map.by_grapheme(&text).map(str::len).sum::<usize>() <= 1024);
            }
        }
    }
}
