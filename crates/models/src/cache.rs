//! What a sequence remembers of its past.

use assay_kernels::KvLayer;

use crate::shape::Shape;

/// Keys and values of one sequence, for every layer of a model.
///
/// They are stored in the quantised form that the arithmetic defines, so a cache is the same
/// bytes whoever computed it, in whatever batches.
#[derive(Clone, Debug)]
pub struct Cache {
    pub(crate) layers: Vec<KvLayer>,
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
