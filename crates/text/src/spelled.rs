//! Finds control and user tokens that are spelled out in a text.
//!
//! A rendered template is one string in which `<|user|>` must become one token. Matches are
//! taken from the left; where several begin at one place, the longest wins.

use std::collections::HashMap;

/// Longest spelling that is looked for, in bytes; it bounds the work per byte of text.
pub(crate) const SPELLED_BYTES_MAX: usize = 256;

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'t> {
    /// Text between spelled tokens, never empty.
    Text(&'t str),
    /// A token that was spelled out.
    Token(u32),
}

/// A set of spellings, as a tree of bytes.
#[derive(Debug)]
pub(crate) struct Spelled {
    /// (node, byte) to the next node; node 0 is the root.
    steps: HashMap<(u32, u8), u32>,
    /// The token whose spelling ends at a node.
    ends: HashMap<u32, u32>,
    /// Bytes that begin a spelling, to pass over all others quickly.
    first: [bool; 256],
}

impl Spelled {
    /// Builds the tree. Empty spellings are left out: they would match everywhere.
    pub(crate) fn new<'s>(spellings: impl Iterator<Item = (&'s str, u32)>) -> Self {
        let mut spelled = Self { steps: HashMap::new(), ends: HashMap::new(), first: [false; 256] };
        for (spelling, id) in spellings {
            spelled.add(spelling.as_bytes(), id);
        }
        spelled
    }

    fn add(&mut self, spelling: &[u8], id: u32) {
        let Some(&first) = spelling.first() else { return };
        self.first[usize::from(first)] = true;
        let mut node = 0;
        for &byte in spelling {
            let next = self.steps.len() as u32 + 1;
            node = *self.steps.entry((node, byte)).or_insert(next);
        }
        self.ends.insert(node, id);
    }

    /// Cuts `text` at the spelled tokens.
    pub(crate) fn parts<'t>(&self, text: &'t str) -> impl Iterator<Item = Part<'t>> {
        let mut rest = text;
        let mut token = None;
        std::iter::from_fn(move || {
            if let Some(id) = token.take() {
                return Some(Part::Token(id));
            }
            if rest.is_empty() {
                return None;
            }
            let Some((start, length, id)) = self.find(rest) else {
                return Some(Part::Text(std::mem::take(&mut rest)));
            };
            let before = &rest[..start];
            rest = &rest[start + length..];
            if before.is_empty() {
                return Some(Part::Token(id));
            }
            token = Some(id);
            Some(Part::Text(before))
        })
    }

    /// The first spelled token in `text`: where it begins, its length in bytes, its id.
    fn find(&self, text: &str) -> Option<(usize, usize, u32)> {
        let bytes = text.as_bytes();
        (0..bytes.len()).filter(|&start| self.first[usize::from(bytes[start])]).find_map(|start| {
            let (length, id) = self.longest(&bytes[start..])?;
            Some((start, length, id))
        })
    }

    /// The longest spelling that `bytes` begins with.
    pub(crate) fn longest(&self, bytes: &[u8]) -> Option<(usize, u32)> {
        let mut node = 0;
        let mut found = None;
        for (&byte, length) in bytes.iter().zip(1..) {
            let Some(&next) = self.steps.get(&(node, byte)) else { break };
            node = next;
            if let Some(&id) = self.ends.get(&node) {
                found = Some((length, id));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spells the parts: text as it is, token `n` as `[n]`.
    fn check(text: &str, expected: &str) {
        let words = ["<a>", "<ab", "<", "é", "", "<a><"];
        let spelled = Spelled::new(words.into_iter().zip(0..));
        let parts: String = spelled
            .parts(text)
            .map(|part| match part {
                Part::Text(text) => text.to_owned(),
                Part::Token(id) => format!("[{id}]"),
            })
            .collect();
        assert_eq!(parts, expected);
    }

    #[test]
    fn text_without_tokens_is_one_part() {
        check("", "");
        check("plain", "plain");
    }

    #[test]
    fn the_longest_match_wins() {
        check("x<a>y", "x[0]y");
        check("<a", "[2]a");
        check("<abc", "[1]c");
        check("<a><a>", "[5]a>");
        check("è<aé", "è[2]a[3]");
    }
}
