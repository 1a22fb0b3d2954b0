//! Byte-pair merging: joins the pieces of one word in the order the vocabulary states.
//!
//! The rule: while any neighbouring pair has a merge, join the pair whose merge comes
//! earliest in the list, and of equal pairs the leftmost. A heap of candidates over a linked
//! list does this in `n log n` steps for a word of `n` bytes, so a stranger's ten-megabyte
//! "word" costs no more than ten megabytes of words.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The end of a list of pieces, and the id of a piece that was joined to the one before it.
const NONE: u32 = u32::MAX;

/// One line of the merge list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Merge {
    pub(crate) left: u32,
    pub(crate) right: u32,
    pub(crate) into: u32,
}

/// The merge list, with the pairs indexed.
#[derive(Debug)]
pub(crate) struct Merges {
    /// Earliest first; the index is the rank.
    list: Vec<Merge>,
    /// (right, rank) of every merge, those with equal left pieces together, sorted by the right.
    ranks: Vec<(u32, u32)>,
    /// Where in `ranks` the merges of each left piece begin; one more entry than pieces.
    starts: Vec<u32>,
}

/// A piece of the word: a token id and its neighbours' places.
#[derive(Clone, Copy)]
struct Piece {
    id: u32,
    before: u32,
    after: u32,
}

impl Merges {
    /// Indexes `list`. Pairs are distinct, and the list has fewer than 2^32: both were checked.
    /// Where merges are `shared`, those that make the same token one after another have one rank:
    /// the first of them.
    pub(crate) fn new(list: Vec<Merge>, shared: bool) -> Self {
        let mut order: Vec<u32> = (0..list.len() as u32).collect();
        order.sort_unstable_by_key(|&rank| {
            let merge = list[rank as usize];
            (merge.left, merge.right)
        });
        let mut first = 0;
        let shared_ranks: Vec<u32> = (0..list.len())
            .map(|rank| {
                if !shared || list[rank].into != list[first].into {
                    first = rank;
                }
                first as u32
            })
            .collect();
        let ranked = |rank: u32| (list[rank as usize].right, shared_ranks[rank as usize]);
        let ranks = order.iter().map(|&rank| ranked(rank)).collect();
        let mut starts = Vec::new();
        for (place, &rank) in (0u32..).zip(&order) {
            let pieces = list[rank as usize].left as usize + 1;
            if starts.len() < pieces {
                starts.resize(pieces, place);
            }
        }
        starts.push(order.len() as u32);
        Self { list, ranks, starts }
    }

    /// The list, earliest first.
    pub(crate) fn list(&self) -> &[Merge] {
        &self.list
    }

    /// Appends to `ids` the tokens of one word, given as one token per byte.
    ///
    /// Words of four thousand million bytes and more are cut before merging: places are `u32`.
    pub(crate) fn apply(&self, bytes: &[u32], ids: &mut Vec<u32>) {
        for part in bytes.chunks(NONE as usize - 1) {
            self.apply_part(part, ids);
        }
    }

    fn apply_part(&self, bytes: &[u32], ids: &mut Vec<u32>) {
        let Some(last) = bytes.len().checked_sub(1) else { return };
        let mut pieces: Vec<Piece> = bytes
            .iter()
            .zip(0u32..)
            .map(|(&id, place)| Piece {
                id,
                before: place.checked_sub(1).unwrap_or(NONE),
                after: if place as usize == last { NONE } else { place + 1 },
            })
            .collect();

        let candidates: Vec<Reverse<u64>> = (0..bytes.len() as u32)
            .filter_map(|place| Some(candidate(self.rank_at(&pieces, place)?, place)))
            .collect();
        let mut candidates = BinaryHeap::from(candidates);

        while let Some(Reverse(next)) = candidates.pop() {
            let (rank, place) = ((next >> 32) as u32, next as u32);
            // A candidate is stale when a join nearby has changed the pair it was made for.
            if self.rank_at(&pieces, place) != Some(rank) {
                continue;
            }
            join(&mut pieces, place, self.list[rank as usize].into);
            for left in [pieces[place as usize].before, place] {
                if let Some(rank) = self.rank_at(&pieces, left) {
                    candidates.push(candidate(rank, left));
                }
            }
        }

        let mut place = 0;
        while place != NONE {
            let piece = pieces[place as usize];
            ids.push(piece.id);
            place = piece.after;
        }
    }

    /// The rank of the merge of the pair whose left piece lies at `place`.
    fn rank_at(&self, pieces: &[Piece], place: u32) -> Option<u32> {
        let left = pieces.get(place as usize)?;
        let right = pieces.get(left.after as usize)?;
        self.rank(left.id, right.id)
    }

    /// The rank of the merge of `left` and `right`.
    fn rank(&self, left: u32, right: u32) -> Option<u32> {
        let start = *self.starts.get(left as usize)?;
        let end = *self.starts.get(left as usize + 1)?;
        let merges = &self.ranks[start as usize..end as usize];
        let place = merges.binary_search_by_key(&right, |&(right, _)| right).ok()?;
        Some(merges[place].1)
    }
}

/// A merge that may be made: in one number, so that a smaller rank, then a smaller place of
/// the left piece, comes first.
fn candidate(rank: u32, place: u32) -> Reverse<u64> {
    Reverse(u64::from(rank) << 32 | u64::from(place))
}

/// Joins the piece at `place` with the next one.
fn join(pieces: &mut [Piece], place: u32, into: u32) {
    let right = pieces[place as usize].after;
    let after = pieces[right as usize].after;
    pieces[right as usize] = Piece { id: NONE, before: NONE, after: NONE };
    pieces[place as usize].id = into;
    pieces[place as usize].after = after;
    if let Some(next) = pieces.get_mut(after as usize) {
        next.before = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rank(merges: &Merges, left: u32, right: u32) -> Option<u32> {
        let place = merges.list.iter().position(|merge| (merge.left, merge.right) == (left, right));
        place.map(|rank| rank as u32)
    }

    /// The rule as stated at the top of the file, step by step.
    fn plain(merges: &Merges, word: &[u32]) -> Vec<u32> {
        let mut ids = word.to_vec();
        loop {
            let ranked = ids
                .windows(2)
                .enumerate()
                .filter_map(|(place, pair)| Some((rank(merges, pair[0], pair[1])?, place)));
            let Some((rank, place)) = ranked.min() else { return ids };
            ids.splice(place..place + 2, [merges.list[rank as usize].into]);
        }
    }

    /// Merges over a small set of ids, with every pair at most once.
    fn merges(pairs: &[(u32, u32, u32)]) -> Merges {
        let mut list: Vec<Merge> = Vec::new();
        for &(left, right, into) in pairs {
            if !list.iter().any(|merge| (merge.left, merge.right) == (left, right)) {
                list.push(Merge { left, right, into });
            }
        }
        Merges::new(list, false)
    }

    fn apply(merges: &Merges, word: &[u32]) -> Vec<u32> {
        let mut ids = Vec::new();
        merges.apply(word, &mut ids);
        ids
    }

    #[test]
    fn the_earlier_merge_wins() {
        let merges = merges(&[(1, 2, 12), (0, 1, 10), (0, 12, 99)]);
        assert_eq!(apply(&merges, &[0, 1, 2]), [99]);
        assert_eq!(apply(&merges, &[0, 1, 0, 1, 2]), [10, 99]);
    }

    #[test]
    fn of_equal_pairs_the_leftmost_wins() {
        assert_eq!(apply(&merges(&[(0, 0, 1)]), &[0, 0, 0]), [1, 0]);
    }

    #[test]
    fn an_empty_word_has_no_tokens() {
        assert!(apply(&merges(&[(0, 0, 1)]), &[]).is_empty());
    }

    proptest! {
        #[test]
        fn the_heap_does_what_the_rule_says(
            pairs in prop::collection::vec((0u32..6, 0u32..6, 0u32..6), 0..20),
            word in prop::collection::vec(0u32..6, 0..40),
        ) {
            let merges = merges(&pairs);
            prop_assert_eq!(apply(&merges, &word), plain(&merges, &word));
        }
    }
}
