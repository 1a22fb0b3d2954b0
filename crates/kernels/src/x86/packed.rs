//! Rows of activations in the order in which tiles of a product read them.
//!
//! A tile of a few rows reads one stream then instead of two per row. In the cache that is no
//! faster, but the processor's prefetcher follows few streams, and where weights come from memory
//! their own is one of them: a batch of eight reads them a third faster.

use std::ops::Range;

use crate::quantised::{Rows, Term};
use crate::{GROUP, weights::QUAD};

/// Cuts rows into tiles of at most `most`; all have about as many.
pub(super) fn tiles(rows: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let tiles = rows.div_ceil(most);
    (0..tiles).map(move |tile| tile * rows / tiles..(tile + 1) * rows / tiles)
}

/// Quantised rows, tile by tile; `N` words stand for each group of a row.
pub(super) struct Packed<const N: usize> {
    groups: usize,
    /// Per tile: (groups, N words, rows of the tile). As many arrays as rows have groups.
    words: Vec<[i32; N]>,
}

impl<const N: usize> Packed<N> {
    /// Packs `x` into [`tiles`] of at most `most` rows, in the words that `spell` makes of a group.
    pub(super) fn new(
        x: Rows<'_>,
        most: usize,
        spell: impl Fn(&[i8; GROUP], Term) -> [i32; N],
    ) -> Packed<N> {
        let mut packed = Packed { groups: x.groups, words: vec![[0; N]; x.len() * x.groups] };
        for rows in tiles(x.len(), most) {
            let words = packed.words[rows.start * x.groups..rows.end * x.groups].as_flattened_mut();
            for (t, row) in rows.clone().enumerate() {
                let row = x.part(row, 1);
                let groups = row.q.as_chunks::<GROUP>().0.iter().zip(row.terms);
                for ((q, term), words) in groups.zip(words.chunks_exact_mut(N * rows.len())) {
                    let places = words.chunks_exact_mut(rows.len());
                    for (place, word) in places.zip(spell(q, *term)) {
                        place[t] = word;
                    }
                }
            }
        }
        packed
    }

    /// The tile of some rows.
    pub(super) fn rows(&self, rows: Range<usize>) -> &[[i32; N]] {
        &self.words[rows.start * self.groups..rows.end * self.groups]
    }
}

/// Words per group and row of [`whole`] rows: eight quads, the offset and the scale.
pub(super) const WORDS: usize = GROUP / QUAD + 2;

/// Rows whose words are their numbers as they stand, four in each.
pub(super) fn whole(x: Rows<'_>, most: usize) -> Packed<WORDS> {
    Packed::new(x, most, |q, term| {
        let mut words = [0; WORDS];
        words[..WORDS - 2].copy_from_slice(&quads(q));
        words[WORDS - 2..].copy_from_slice(&[term.offset, term.scale]);
        words
    })
}

/// Four neighbouring numbers as one word.
fn quads(q: &[i8; GROUP]) -> [i32; GROUP / QUAD] {
    std::array::from_fn(|quad| {
        i32::from_le_bytes(std::array::from_fn(|i| q[quad * QUAD + i] as u8))
    })
}
