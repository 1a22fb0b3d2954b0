//! What a sequence remembers of its past.

use std::sync::Arc;

use assay_kernels::{BLOCK, KvBlock, KvLayer};

use crate::shape::Shape;

/// Keys and values of one sequence, for every layer of a model.
///
/// They are stored in the quantised form that the arithmetic defines, so a cache is the same
/// bytes whoever computed it, in whatever batches.
#[derive(Clone, Debug)]
pub struct Cache {
    pub(crate) layers: Vec<KvLayer>,
}

/// [`Page::POSITIONS`] whole positions of a sequence, for every layer. Cloning it copies nothing:
/// sequences that begin with the same tokens may remember the same pages.
#[derive(Clone, Debug)]
pub struct Page {
    layers: Arc<[KvBlock]>,
}

impl Page {
    /// Positions of a page.
    pub const POSITIONS: usize = BLOCK;
}

impl Cache {
    /// An empty cache for a model of this shape.
    ///
    /// # Panics
    /// If the shape has no layers or is not one that [`crate::Model::new`] accepts.
    pub fn new(shape: &Shape) -> Cache {
        assert!(shape.layers > 0, "a model has at least one layer");
        Cache { layers: vec![KvLayer::new(shape.kv_heads, shape.head_dim); shape.layers] }
    }

    /// Number of positions remembered: where the next token of the sequence goes.
    pub fn len(&self) -> usize {
        self.layers[0].len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets every position from `len` on; does nothing if there are no more than that.
    pub fn truncate(&mut self, len: usize) {
        for layer in &mut self.layers {
            layer.truncate(len);
        }
    }

    /// A copy that remembers positions below `len` only, or all if there are no more than that: what
    /// computing position `len` once more needs.
    #[must_use]
    pub fn prefix(&self, len: usize) -> Cache {
        Cache { layers: self.layers.iter().map(|layer| layer.prefix(len)).collect() }
    }

    /// The whole page of that index, to be shared.
    ///
    /// # Panics
    /// If not all of its positions are remembered.
    pub fn page(&self, index: usize) -> Page {
        Page { layers: self.layers.iter().map(|layer| layer.block(index)).collect() }
    }

    /// Remembers what a page holds, after whole pages, or instead of the whole page of that index.
    /// What the tokens before and in it are is the caller's to know.
    ///
    /// # Panics
    /// If the page is of another model, or would leave a gap.
    pub fn put_page(&mut self, index: usize, page: &Page) {
        assert_eq!(page.layers.len(), self.layers.len(), "a page of another model");
        for (layer, block) in self.layers.iter_mut().zip(&*page.layers) {
            layer.put_block(index, block);
        }
    }

    /// Bytes of memory in use, which grow by blocks of positions.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(KvLayer::bytes).sum()
    }

    /// Whether this cache was made for a model of this shape.
    pub(crate) fn fits(&self, shape: &Shape) -> bool {
        let fits = |layer: &KvLayer| {
            layer.kv_heads() == shape.kv_heads && layer.head_dim() == shape.head_dim
        };
        self.layers.len() == shape.layers && self.layers.iter().all(fits)
    }
}
