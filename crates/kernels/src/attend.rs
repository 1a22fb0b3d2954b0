//! Attention over the cache: scores, weights, weighted values.
//!
//! The largest score is found before the first weight is computed, and sums are exact, so a
//! prompt taken in one piece, in chunks, or token by token gives the same bits.

use crate::cpu::Cpu;
use crate::kv::KvLayer;
use crate::quantised::Quantised;
use crate::weights::LANES;
use crate::{BLOCK, GROUP, HEAD_DIM_MAX};

/// Products below which one thread attends alone.
const PRODUCTS_MIN: usize = 1 << 19;
/// Neighbouring queries of one sequence that read the cache together.
const QUERIES_PER_TILE: usize = 4;
/// Fewest fraction bits of queries and keys: with fewer, a shifted score could leave 64 bits.
const FRAC_Q_MIN: u8 = 8;

/// The sizes and fraction bits of one layer's attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attention {
    /// Query heads, a multiple of `kv_heads`.
    pub heads: usize,
    /// Key/value heads; each serves `heads / kv_heads` neighbouring query heads.
    pub kv_heads: usize,
    /// Elements per head, a multiple of [`GROUP`] up to [`HEAD_DIM_MAX`].
    pub head_dim: usize,
    /// The factor of the scores, [`crate::tables::att_q30`] of `head_dim`.
    pub att_q30: i32,
    /// Fraction bits of queries and keys, in 8..=16.
    pub frac_q: u8,
    /// Fraction bits of values, at most 31.
    pub frac_v: u8,
    /// Fraction bits of the output, at most 31.
    pub frac_out: u8,
}

/// One position that looks at a sequence.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The sequence, as the layer remembers it.
    pub cache: &'a KvLayer,
    /// The first of its positions that is looked at.
    pub first: usize,
    /// How many positions there are up to the last that is looked at.
    pub positions: usize,
}

impl Cpu {
    /// Attends with every query: `q`: (queries · heads, head_dim), `y`: (queries,
    /// heads · head_dim).
    ///
    /// The rows of a query may be followed by rows that are not queries, as when queries, keys
    /// and values are quantised together: what counts are the first `heads` of every
    /// `q.rows() / queries.len()`.
    ///
    /// # Panics
    /// If lengths do not fit together, a query looks at no position or at more than there are, or
    /// the sizes of [`Attention`] are not as documented there.
    pub fn attend(
        &self,
        q: &Quantised,
        queries: &[Query<'_>],
        attention: &Attention,
        y: &mut [i32],
    ) {
        attention.check();
        let width = attention.heads * attention.head_dim;
        assert_eq!(q.columns(), attention.head_dim, "queries and heads differ in length");
        assert_eq!(y.len(), queries.len() * width, "outputs of {} queries", queries.len());
        if queries.is_empty() {
            return;
        }
        assert_eq!(q.rows() % queries.len(), 0, "{} rows for {}", q.rows(), queries.len());
        let stride = q.rows() / queries.len();
        assert!(stride >= attention.heads, "{stride} rows for {} heads", attention.heads);
        let positions: usize = queries.iter().map(|query| query.check(attention)).sum();

        let job = Job { cpu: self, attention, q, stride, queries };
        let group = attention.heads / attention.kv_heads * attention.head_dim;
        if self.threads().get() == 1 || 2 * positions * width < PRODUCTS_MIN {
            let mut scratch = Scratch::default();
            for (tile, y) in y.chunks_mut(QUERIES_PER_TILE * width).enumerate() {
                job.tile(tile * QUERIES_PER_TILE, y, &mut scratch);
            }
        } else if queries.len() >= 2 * QUERIES_PER_TILE * self.threads().get() {
            self.share(y.chunks_mut(QUERIES_PER_TILE * width).enumerate(), |(tile, y)| {
                job.tile(tile * QUERIES_PER_TILE, y, &mut Scratch::default());
            });
        } else {
            self.share(y.chunks_mut(group).enumerate(), |(piece, y)| {
                let (query, head) = (piece / attention.kv_heads, piece % attention.kv_heads);
                job.run(query..query + 1, head, y, group, &mut Scratch::default());
            });
        }
    }
}

impl Attention {
    fn check(&self) {
        let Attention { heads, kv_heads, head_dim, .. } = *self;
        assert!(kv_heads > 0 && heads % kv_heads == 0, "{kv_heads} do not divide {heads} heads");
        assert!(head_dim > 0 && head_dim % GROUP == 0, "heads of {head_dim} are not whole groups");
        assert!(head_dim <= HEAD_DIM_MAX, "heads of {head_dim} are too long");
        assert!((FRAC_Q_MIN..=16).contains(&self.frac_q), "queries in Fx<{}>", self.frac_q);
        assert!(self.frac_v < 32 && self.frac_out < 32, "more than 31 fraction bits");
        assert!((0..1 << 29).contains(&self.att_q30), "a score factor of {}", self.att_q30);
    }
}

impl Query<'_> {
    /// The positions it looks at.
    fn check(&self, attention: &Attention) -> usize {
        let (positions, len) = (self.positions, self.cache.len());
        assert!((1..=len).contains(&positions), "{positions} of {len} positions");
        assert!(self.first < positions, "positions from {} to {positions}", self.first);
        assert_eq!(self.cache.kv_heads(), attention.kv_heads, "cache of other heads");
        assert_eq!(self.cache.head_dim(), attention.head_dim, "cache of other heads");
        positions
    }
}

/// Everything that a piece of attention reads.
struct Job<'a> {
    cpu: &'a Cpu,
    attention: &'a Attention,
    q: &'a Quantised,
    /// Rows of `q` from one query to the next.
    stride: usize,
    queries: &'a [Query<'a>],
}

/// Buffers that pieces of attention on one thread share.
#[derive(Default)]
struct Scratch {
    /// The queries of one key/value head.
    rows: Quantised,
    /// (rows, positions up to a whole block).
    scores: Vec<i32>,
    /// (rows, positions up to a whole block); zero where a query does not look.
    weights: Vec<u32>,
    /// (rows, head_dim).
    sums: Vec<i64>,
}

impl Job<'_> {
    /// All heads of the queries from `first` on that `y` has room for.
    fn tile(&self, first: usize, y: &mut [i32], scratch: &mut Scratch) {
        let Attention { heads, kv_heads, head_dim, .. } = *self.attention;
        let (width, group) = (heads * head_dim, heads / kv_heads * head_dim);
        let end = first + y.len() / width;
        let mut start = first;
        while start < end {
            let cache = self.queries[start].cache;
            let same = |query: &&Query<'_>| std::ptr::eq(query.cache, cache);
            let run = start + self.queries[start..end].iter().take_while(same).count();
            for head in 0..kv_heads {
                let y = &mut y[(start - first) * width + head * group..];
                self.run(start..run, head, y, width, scratch);
            }
            start = run;
        }
    }

    /// The query heads of one key/value head, for queries that share a cache: the outputs of a
    /// query lie side by side in `y`, those of the next `y_stride` further on.
    fn run(
        &self,
        queries: std::ops::Range<usize>,
        head: usize,
        y: &mut [i32],
        y_stride: usize,
        scratch: &mut Scratch,
    ) {
        let (attention, path) = (self.attention, self.cpu.path());
        let (head_dim, group) = (attention.head_dim, attention.heads / attention.kv_heads);
        let cache = self.queries[queries.start].cache;
        let positions = |row: usize| self.queries[queries.start + row / group].positions;
        let rows = queries.len() * group;
        let from = |row: usize| self.queries[queries.start + row / group].first;
        let longest = (0..rows).map(positions).max().unwrap_or(0);
        // Blocks that no query looks at are passed over.
        let unseen = (0..rows).map(from).min().unwrap_or(0) / BLOCK;
        let (blocks, stride) = (longest.div_ceil(BLOCK), longest.next_multiple_of(BLOCK));

        let firsts = queries.clone().map(|query| query * self.stride + head * group);
        scratch.rows.gather(self.q, firsts.flat_map(|first| first..first + group));
        scratch.scores.resize(rows * stride, 0);
        scratch.weights.resize(rows * stride, 0);
        scratch.sums.clear();
        scratch.sums.resize(rows * head_dim, 0);

        for (block, records) in cache.head(head).enumerate().take(blocks).skip(unseen) {
            let scores = &mut scratch.scores[block * BLOCK..];
            path.scores(records.keys, scratch.rows.view(), attention, scores, stride);
        }
        let totals: Vec<u64> = (0..rows)
            .map(|row| {
                let seen = from(row)..positions(row);
                let scores = &scratch.scores[row * stride..][seen.clone()];
                let weights = &mut scratch.weights[row * stride..][..stride];
                weights[..seen.start].fill(0);
                weights[seen.end..].fill(0);
                path.softmax(scores, &mut weights[seen])
            })
            .collect();
        for (block, records) in cache.head(head).enumerate().take(blocks).skip(unseen) {
            let weights = &scratch.weights[block * BLOCK..];
            path.blend(records.values, weights, stride, &mut scratch.sums);
        }
        for (row, total) in totals.into_iter().enumerate() {
            let sums = &scratch.sums[row * head_dim..][..head_dim];
            let at = row / group * y_stride + row % group * head_dim;
            path.means(sums, total, attention, &mut y[at..][..head_dim]);
        }
    }
}

/// Scores come out in whole panels, so a block must be panels.
const _: () = assert!(BLOCK % LANES == 0);
