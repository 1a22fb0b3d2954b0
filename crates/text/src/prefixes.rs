//! Finds the strings of a set that a text begins with.
//!
//! The set is sorted, so the strings that begin alike stand together; each further byte of the text
//! narrows them down. Large vocabularies take no more than their bytes, and are searched in a few
//! steps for each byte.

/// A set of distinct strings, each with a number.
#[derive(Debug)]
pub(crate) struct Prefixes {
    /// All strings, in the order of `places`.
    text: String,
    /// Ascending by string.
    places: Vec<Place>,
    /// Where in `places` the strings begin that begin with each byte; one more entry than bytes.
    firsts: [u32; 257],
}

/// One string, and its number.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: u32,
    end: u32,
    value: u32,
}

impl Default for Prefixes {
    /// The set of nothing.
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Prefixes {
    /// Sorts `pairs`, whose strings are distinct. Empty ones are left out: everything begins with them.
    pub(crate) fn new(mut pairs: Vec<(&str, u32)>) -> Self {
        pairs.retain(|(string, _)| !string.is_empty());
        pairs.sort_unstable();
        let (mut text, mut places, mut firsts) = (String::new(), Vec::new(), [0; 257]);
        for (string, value) in pairs {
            let start = text.len() as u32;
            text.push_str(string);
            places.push(Place { start, end: text.len() as u32, value });
            firsts[usize::from(string.as_bytes()[0]) + 1] += 1;
        }
        for byte in 0..256 {
            firsts[byte + 1] += firsts[byte];
        }
        Self { text, places, firsts }
    }

    /// All strings in their order, each with its number.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, u32)> {
        let spelled = |place: &Place| &self.text[place.start as usize..place.end as usize];
        self.places.iter().map(move |place| (spelled(place), place.value))
    }

    /// The strings that `text` begins with, the shortest first: the length of each, and its number.
    pub(crate) fn of(&self, text: &[u8]) -> impl Iterator<Item = (usize, u32)> {
        let mut left: &[Place] = match text.first() {
            Some(&first) => {
                let [start, end] = [0, 1].map(|after| self.firsts[usize::from(first) + after]);
                &self.places[start as usize..end as usize]
            }
            None => &[],
        };
        let mut length = 1;
        std::iter::from_fn(move || {
            while let Some(first) = left.first() {
                // Of strings that begin alike, the shortest stands first.
                if (first.end - first.start) as usize == length {
                    left = &left[1..];
                    return Some((length, first.value));
                }
                let next = *text.get(length)?;
                let byte = |place: &Place| self.text.as_bytes()[place.start as usize + length];
                let start = left.partition_point(|place| byte(place) < next);
                let end = left.partition_point(|place| byte(place) <= next);
                left = &left[start..end];
                length += 1;
            }
            None
        })
    }

    /// The longest of them.
    pub(crate) fn longest(&self, text: &[u8]) -> Option<(usize, u32)> {
        self.of(text).last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_that_a_text_begins_with_is_found() {
        let words = ["a", "abc", "b", "", "é", "abd", "éa"];
        let prefixes = Prefixes::new(words.into_iter().zip(0..).collect());
        let check = |text: &str, expected: &[(usize, u32)]| {
            assert_eq!(prefixes.of(text.as_bytes()).collect::<Vec<_>>(), expected, "{text}");
        };
        check("abcd", &[(1, 0), (3, 1)]);
        check("ab", &[(1, 0)]);
        check("éab", &[(2, 4), (3, 6)]);
        check("c", &[]);
        check("", &[]);
        assert_eq!(prefixes.longest(b"abdabd"), Some((3, 5)));
        assert!(Prefixes::new(Vec::new()).of(b"a").next().is_none());
    }

    proptest! {
        #[test]
        fn they_are_those_that_a_search_of_all_finds(
            words in prop::collection::btree_set("[ab\u{e9}]{1,4}", 0..20),
            text in "[ab\u{e9}]{0,6}",
        ) {
            let pairs = words.iter().map(String::as_str).zip(0..).collect();
            let mut expected: Vec<usize> =
                words.iter().filter(|word| text.starts_with(*word)).map(String::len).collect();
            expected.sort_unstable();
            let found = Prefixes::new(pairs);
            let found: Vec<usize> = found.of(text.as_bytes()).map(|(length, _)| length).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
