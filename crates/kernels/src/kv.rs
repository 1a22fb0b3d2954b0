//! The keys and values that one layer remembers of one sequence.
//!
//! Records are quantised rows, so the cache is as canonical as the weights. They are kept in
//! blocks of 64 absolute positions. Keys lie like weights, with positions as lanes: scores of
//! sixteen positions come out of one product. Values lie with dimensions as lanes and two
//! positions side by side, which is what a 16-bit multiply-add of pairs takes.
//!
//! Blocks may be shared: sequences that begin alike remember the same bytes. Whoever writes into a
//! shared block gets a copy of its own first, so sharing changes memory, never a number.

use std::sync::Arc;

use crate::aligned::Aligned;
use crate::format::Format;
use crate::path::Values;
use crate::quantised::Quantised;
use crate::weights::{LANES, Panels, QUAD, SIGN};
use crate::{BLOCK, GROUP, HEAD_DIM_MAX};

/// Keys and values of positions `0..len`, for every key/value head of one layer.
#[derive(Clone, Debug)]
pub struct KvLayer {
    kv_heads: usize,
    head_dim: usize,
    len: usize,
    blocks: Vec<Arc<Block>>,
}

/// A block of one layer that several sequences may look at. Cloning it copies nothing.
#[derive(Clone, Debug)]
pub struct KvBlock(Arc<Block>);

/// [`BLOCK`] positions of all heads.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// (kv_heads, 4 panels, head_dim / 4, 16 positions, 4 dimensions), each `q ^ 0x80`.
    keys: Aligned<u8>,
    /// (kv_heads, 4 panels, head_dim / 32, 16 positions).
    key_scales: Aligned<u16>,
    /// (kv_heads, 32 pairs, head_dim, 2 positions).
    values: Aligned<i8>,
    /// (kv_heads, head_dim / 32, 64 positions).
    value_scales: Aligned<u16>,
}

/// One head of a block, as the kernels read it.
#[derive(Clone, Copy)]
pub(crate) struct BlockHead<'a> {
    /// Four panels of sixteen positions.
    pub(crate) keys: Panels<'a>,
    /// What is weighted by the scores.
    pub(crate) values: Values<'a>,
}

impl KvLayer {
    /// An empty cache.
    ///
    /// # Panics
    /// If there are no heads, or `head_dim` is not a multiple of 32 in 32..=256.
    pub fn new(kv_heads: usize, head_dim: usize) -> KvLayer {
        assert!(kv_heads > 0, "a layer has at least one head");
        assert!(
            head_dim > 0 && head_dim % GROUP == 0 && head_dim <= HEAD_DIM_MAX,
            "heads of {head_dim} are not a multiple of {GROUP} up to {HEAD_DIM_MAX}"
        );
        KvLayer { kv_heads, head_dim, len: 0, blocks: Vec::new() }
    }

    /// Number of positions remembered.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of key/value heads.
    pub fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    /// Elements per head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Bytes of memory that the records take.
    pub fn bytes(&self) -> usize {
        let records = BLOCK * self.kv_heads;
        self.blocks.len() * records * 2 * (self.head_dim + self.head_dim / GROUP * 2)
    }

    /// Remembers one more position: the rows `k_row..k_row + kv_heads` of `k` are its keys, head
    /// by head, and those of `v` from `v_row` on its values.
    ///
    /// # Panics
    /// If the rows are not `head_dim` long, or there are fewer.
    pub fn push(&mut self, k: &Quantised, k_row: usize, v: &Quantised, v_row: usize) {
        assert_eq!(k.columns(), self.head_dim, "keys and cache differ in length");
        assert_eq!(v.columns(), self.head_dim, "values and cache differ in length");
        let (block, at) = (self.len / BLOCK, self.len % BLOCK);
        if block == self.blocks.len() {
            self.blocks.push(Arc::new(Block::new(self.kv_heads, self.head_dim)));
        }
        let block = Arc::make_mut(&mut self.blocks[block]);
        for head in 0..self.kv_heads {
            block.put_key(head, at, k.row(k_row + head));
            block.put_value(head, at, v.row(v_row + head));
        }
        self.len += 1;
    }

    /// Forgets every position from `len` on; does nothing if there are no more than that.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.blocks.truncate(self.len.div_ceil(BLOCK));
    }

    /// The whole block of that index, to be shared.
    ///
    /// # Panics
    /// If not all of its positions are remembered.
    pub fn block(&self, index: usize) -> KvBlock {
        assert!((index + 1) * BLOCK <= self.len, "block {index} of {} positions", self.len);
        KvBlock(Arc::clone(&self.blocks[index]))
    }

    /// Remembers what a whole block holds, after whole blocks, or instead of the whole block of that
    /// index.
    ///
    /// # Panics
    /// If the block is of other heads, or would leave a gap.
    pub fn put_block(&mut self, index: usize, block: &KvBlock) {
        let numbers = self.kv_heads * BLOCK * self.head_dim;
        assert_eq!(block.0.keys.len(), numbers, "a block of other heads");
        let end = (index + 1) * BLOCK;
        if self.len == index * BLOCK {
            self.blocks.push(Arc::clone(&block.0));
            self.len = end;
            return;
        }
        assert!(end <= self.len, "block {index} of {} positions", self.len);
        self.blocks[index] = Arc::clone(&block.0);
    }

    /// A copy that remembers positions below `len` only, or all if there are no more than that. It
    /// shares their blocks.
    pub fn prefix(&self, len: usize) -> KvLayer {
        let KvLayer { kv_heads, head_dim, .. } = *self;
        let len = self.len.min(len);
        KvLayer { kv_heads, head_dim, len, blocks: self.blocks[..len.div_ceil(BLOCK)].to_vec() }
    }

    /// The key of a head at a position: numbers and scales.
    ///
    /// # Panics
    /// If there is no such head or position.
    pub fn key(&self, head: usize, position: usize) -> (Vec<i8>, Vec<u16>) {
        let (block, at) = self.find(head, position);
        let q = |dim| (block.keys.quants[key_at(self.head_dim, at, dim)] ^ SIGN) as i8;
        let scale = |group| block.keys.scales[key_scale_at(self.groups(), at, group)];
        ((0..self.head_dim).map(q).collect(), (0..self.groups()).map(scale).collect())
    }

    /// The value of a head at a position: numbers and scales.
    ///
    /// # Panics
    /// If there is no such head or position.
    pub fn value(&self, head: usize, position: usize) -> (Vec<i8>, Vec<u16>) {
        let (block, at) = self.find(head, position);
        let q = |dim| block.values.q[value_at(self.head_dim, at, dim)];
        let scale = |group| block.values.scales[group * BLOCK + at];
        ((0..self.head_dim).map(q).collect(), (0..self.groups()).map(scale).collect())
    }

    /// One head of every block, in order of positions.
    pub(crate) fn head(&self, head: usize) -> impl Iterator<Item = BlockHead<'_>> {
        self.blocks.iter().map(move |block| block.head(head, self.kv_heads))
    }

    fn groups(&self) -> usize {
        self.head_dim / GROUP
    }

    fn find(&self, head: usize, position: usize) -> (BlockHead<'_>, usize) {
        assert!(head < self.kv_heads, "head {head} of {}", self.kv_heads);
        assert!(position < self.len, "position {position} of {}", self.len);
        (self.blocks[position / BLOCK].head(head, self.kv_heads), position % BLOCK)
    }
}

impl Block {
    fn new(kv_heads: usize, head_dim: usize) -> Block {
        let (numbers, scales) = (kv_heads * BLOCK * head_dim, kv_heads * BLOCK * head_dim / GROUP);
        let mut keys = Aligned::new(numbers);
        keys.fill(SIGN);
        Block {
            keys,
            key_scales: Aligned::new(scales),
            values: Aligned::new(numbers),
            value_scales: Aligned::new(scales),
        }
    }

    fn head(&self, head: usize, kv_heads: usize) -> BlockHead<'_> {
        let (numbers, scales) = (self.keys.len() / kv_heads, self.key_scales.len() / kv_heads);
        BlockHead {
            keys: Panels {
                format: Format::W8,
                groups: scales / BLOCK,
                quants: &self.keys[head * numbers..][..numbers],
                scales: &self.key_scales[head * scales..][..scales],
            },
            values: Values {
                q: &self.values[head * numbers..][..numbers],
                scales: &self.value_scales[head * scales..][..scales],
            },
        }
    }

    fn put_key(&mut self, head: usize, at: usize, (q, scales): (&[i8], &[u16])) {
        let keys = &mut self.keys[head * BLOCK * q.len()..];
        for (dim, q) in q.iter().enumerate() {
            keys[key_at(scales.len() * GROUP, at, dim)] = *q as u8 ^ SIGN;
        }
        let key_scales = &mut self.key_scales[head * BLOCK * scales.len()..];
        for (group, scale) in scales.iter().enumerate() {
            key_scales[key_scale_at(scales.len(), at, group)] = *scale;
        }
    }

    fn put_value(&mut self, head: usize, at: usize, (q, scales): (&[i8], &[u16])) {
        let values = &mut self.values[head * BLOCK * q.len()..];
        for (dim, q) in q.iter().enumerate() {
            values[value_at(scales.len() * GROUP, at, dim)] = *q;
        }
        let value_scales = &mut self.value_scales[head * BLOCK * scales.len()..];
        for (group, scale) in scales.iter().enumerate() {
            value_scales[group * BLOCK + at] = *scale;
        }
    }
}

/// Where a block keeps a dimension of the key at one of its positions.
fn key_at(head_dim: usize, at: usize, dim: usize) -> usize {
    let quad = at / LANES * (head_dim / QUAD) + dim / QUAD;
    (quad * LANES + at % LANES) * QUAD + dim % QUAD
}

/// Where a block keeps a scale of the key at one of its positions.
fn key_scale_at(groups: usize, at: usize, group: usize) -> usize {
    (at / LANES * groups + group) * LANES + at % LANES
}

/// Where a block keeps a dimension of the value at one of its positions.
fn value_at(head_dim: usize, at: usize, dim: usize) -> usize {
    (at / 2 * head_dim + dim) * 2 + at % 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cpu, Isa};
    use std::num::NonZeroUsize;

    #[test]
    fn records_are_read_back() {
        let (kv_heads, head_dim, positions) = (3, 96, 130);
        let cpu = Cpu::new(Isa::Scalar, NonZeroUsize::MIN).unwrap();
        let numbers: Vec<i32> = (0..positions * kv_heads * head_dim)
            .map(|i| (i as i32).wrapping_mul(0x9E37_79B1_u32 as i32) >> (i % 20))
            .collect();
        let mut rows = Quantised::new();
        cpu.quantise(&numbers, head_dim, head_dim, &mut rows);

        let mut cache = KvLayer::new(kv_heads, head_dim);
        let value_row = |position: usize| (positions - 1 - position) * kv_heads;
        for position in 0..positions {
            cache.push(&rows, position * kv_heads, &rows, value_row(position));
        }
        cache.truncate(100);
        cache.truncate(200);
        assert_eq!(cache.len(), 100);
        assert_eq!(cache.bytes(), 2 * 64 * 3 * 2 * (96 + 6));
        let prefix = cache.prefix(64);
        assert_eq!((prefix.len(), prefix.bytes()), (64, cache.bytes() / 2));
        assert_eq!(prefix.key(2, 63), cache.key(2, 63));
        assert_eq!((cache.prefix(300).len(), cache.prefix(0).len()), (100, 0));
        for position in 0..100 {
            for head in 0..kv_heads {
                let (q, scales) = rows.row(position * kv_heads + head);
                assert_eq!(cache.key(head, position), (q.to_vec(), scales.to_vec()));
                let (q, scales) = rows.row(value_row(position) + head);
                assert_eq!(cache.value(head, position), (q.to_vec(), scales.to_vec()));
            }
        }
    }

    /// Two sequences share a block; one forgets half of it and remembers something else.
    #[test]
    fn who_writes_into_a_shared_block_gets_its_own() {
        let (kv_heads, head_dim) = (2, 32);
        let cpu = Cpu::new(Isa::Scalar, NonZeroUsize::MIN).unwrap();
        let numbers: Vec<i32> = (0..128 * kv_heads * head_dim).map(|i| i as i32 * 77).collect();
        let mut rows = Quantised::new();
        cpu.quantise(&numbers, head_dim, head_dim, &mut rows);
        let mut first = KvLayer::new(kv_heads, head_dim);
        for position in 0..128 {
            first.push(&rows, position * kv_heads, &rows, position * kv_heads);
        }
        let mut second = KvLayer::new(kv_heads, head_dim);
        second.put_block(0, &first.block(0));
        second.put_block(1, &first.block(1));
        second.put_block(0, &first.block(0));
        assert_eq!((second.len(), second.key(1, 127)), (128, first.key(1, 127)));
        let before = (first.key(0, 100), first.value(0, 100));
        second.truncate(100);
        second.push(&rows, 0, &rows, 0);
        assert_eq!((first.key(0, 100), first.value(0, 100)), before);
        assert_eq!(second.key(0, 100), first.key(0, 0));
        assert_eq!(second.key(1, 99), first.key(1, 99));
    }

    #[test]
    #[should_panic(expected = "block 1 of 0 positions")]
    fn a_block_leaves_no_gap() {
        let mut cache = KvLayer::new(1, 32);
        let block = KvBlock(Arc::new(Block::new(1, 32)));
        cache.put_block(1, &block);
    }
}
