//! A model of any family, ready to run.

use assay_kernels::{Cpu, Format, Weights};

use crate::batch::{Batch, ForwardError, Output, Row};
use crate::bounds::{self, ModelError};
use crate::cache::Cache;
use crate::decoder::Scratch;
use crate::rope::{self, RopeTables};
use crate::shape::{FRAC_HEAD, LayerRole, Precision, Role, Rope, Shape};
use crate::tap::Tap;
use crate::tensors::Tensors;

/// A model of one of the families we know, within the bounds that make its arithmetic exact.
#[derive(Clone, Debug)]
pub struct Model {
    shape: Shape,
    precision: Precision,
    tensors: Tensors,
    /// Epsilon of the norms, with twice the fraction bits of the residual stream.
    eps_q: u32,
    /// Epsilon of the norms of heads, with twice [`FRAC_HEAD`] bits.
    head_eps_q: u32,
    /// The angles of layers that see recent positions only.
    window_rope: Option<RopeTables>,
}

impl Model {
    /// Puts a model together from canonical tensors.
    ///
    /// # Errors
    /// If sizes do not match, or a number lies outside the bounds within which no intermediate
    /// overflows; the error names the tensor or size.
    pub fn new(shape: Shape, precision: Precision, tensors: Tensors) -> Result<Model, ModelError> {
        let eps_q = bounds::check(&shape, &precision, &tensors)?;
        let head_eps_q = bounds::eps_q(shape.norm_eps, FRAC_HEAD)?;
        let window_rope = match shape.window {
            Some(window) => {
                let pairing = shape.rope.pairing;
                let rope = Rope { pairing, base: window.base, factors: Vec::new() };
                Some(rope::tables(&rope, shape.head_dim, shape.context)?)
            }
            None => None,
        };
        Ok(Model { shape, precision, tensors, eps_q, head_eps_q, window_rope })
    }

    /// The same tensors with other fraction bits.
    ///
    /// # Errors
    /// As [`Model::new`].
    pub fn with_precision(self, precision: Precision) -> Result<Model, ModelError> {
        Model::new(self.shape, precision, self.tensors)
    }

    /// The same with other matrices, as [`Tensors::map`] changes them.
    ///
    /// # Errors
    /// As [`Model::new`], and whatever `change` fails with first.
    pub fn map<E: From<ModelError>>(
        self,
        change: impl FnMut(Role, Weights) -> Result<Weights, E>,
    ) -> Result<Model, E> {
        let tensors = self.tensors.map(change)?;
        Ok(Model::new(self.shape, self.precision, tensors)?)
    }

    /// The sizes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The fraction bits.
    pub fn precision(&self) -> &Precision {
        &self.precision
    }

    /// Whether a judge knows the arithmetic of this model's graph and the form of its weights, so
    /// that a wrong answer can be proved to one who distrusts both sides.
    pub fn is_judged(&self) -> bool {
        self.shape.graph().judged && self.uses_only(Format::W8)
    }

    /// Whether all matrices are stored in this format.
    pub fn uses_only(&self, format: Format) -> bool {
        self.tensors.matrices.values().all(|weights| weights.format() == format)
    }

    /// The format of the matrices that do most of the work, those of the layers.
    pub fn format(&self) -> Format {
        let mut layers = self.tensors.matrices.iter();
        let layer = layers.find(|(role, _)| matches!(role, Role::Layer(..)));
        layer.map_or(Format::W8, |(_, weights)| weights.format())
    }

    /// The tables that turn queries and keys; empty where positions are learned.
    pub fn rope(&self) -> &RopeTables {
        &self.tensors.rope
    }

    /// The tables of layers that see recent positions only.
    pub fn window_rope(&self) -> Option<&RopeTables> {
        self.window_rope.as_ref()
    }

    /// The tables of a layer.
    pub(crate) fn rope_of(&self, layer: usize) -> &RopeTables {
        let covered = self.shape.window.is_some_and(|window| window.covers(layer));
        self.window_rope.as_ref().filter(|_| covered).unwrap_or(&self.tensors.rope)
    }

    /// Epsilon of the norms, with twice the fraction bits of the residual stream.
    pub fn eps_q(&self) -> u32 {
        self.eps_q
    }

    /// Epsilon of one norm, with twice the fraction bits of its input.
    pub(crate) fn eps_of(&self, role: Role) -> u32 {
        match role {
            Role::Layer(_, LayerRole::QueryNorm | LayerRole::KeyNorm) => self.head_eps_q,
            _ => self.eps_q,
        }
    }

    /// The square root of the width in Q16, rounded, which some families multiply the embedding
    /// with.
    pub(crate) fn embedding_scale(&self) -> i64 {
        let twice = ((self.shape.width as u64) << 34).isqrt();
        twice.div_ceil(2) as i64
    }

    /// Fraction bits of what a tensor takes in and gives out.
    pub(crate) fn fractions(&self, role: Role) -> (u8, u8) {
        self.shape.fractions(&self.precision, role)
    }

    /// A matrix; none for a vector, and for a tensor that this model does not have.
    pub fn weights(&self, role: Role) -> Option<&Weights> {
        self.tensors.weights(role)
    }

    /// The gain of a norm in `Fx<12>`, or a bias in `Fx<16>`; none for a matrix, and for a tensor
    /// that this model does not have.
    pub fn vector(&self, role: Role) -> Option<&[i32]> {
        self.tensors.vector(role)
    }

    /// Computes a batch: every row adds one position to the cache of its sequence.
    ///
    /// The rows of one sequence stand in the order of their positions; those of different
    /// sequences may be mixed. Results are the same bits however tokens are spread over calls,
    /// on every `cpu`; of an encoder, whose positions see each other, a text is one call's.
    /// `scratch` holds no state, only memory to reuse.
    ///
    /// # Errors
    /// If a row names a token or sequence that does not exist, or its sequence is full; no cache
    /// is changed then.
    ///
    /// # Panics
    /// If a cache was made for another shape.
    pub fn forward<T: Tap>(
        &self,
        cpu: &Cpu,
        rows: &[Row],
        caches: &mut [&mut Cache],
        scratch: &mut Scratch,
        tap: &mut T,
    ) -> Result<Output, ForwardError> {
        let shape = self.shape();
        assert!(caches.iter().all(|cache| cache.fits(shape)), "a cache of another model");
        let batch = Batch::plan(shape, rows, caches)?;
        Ok(self.pass(cpu, &batch, caches, scratch, tap))
    }
}
