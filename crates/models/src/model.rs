//! A model of any family, ready to run.

use assay_kernels::{Cpu, Weights};

use crate::batch::{Batch, ForwardError, Output, Row};
use crate::bounds::{self, ModelError};
use crate::cache::Cache;
use crate::llama::{Llama, Scratch, Tensors};
use crate::rope::RopeTables;
use crate::shape::{Family, Precision, Role, Shape};
use crate::tap::Tap;

/// A model of one of the families we know, within the bounds that make its arithmetic exact.
#[derive(Clone, Debug)]
pub enum Model {
    /// See [`Llama`].
    Llama(Llama),
}

impl Model {
    /// Puts a model together from canonical tensors.
    ///
    /// # Errors
    /// If sizes do not match, or a number lies outside the bounds within which no intermediate
    /// overflows; the error names the tensor or size.
    pub fn new(shape: Shape, precision: Precision, tensors: Tensors) -> Result<Model, ModelError> {
        let eps_q = bounds::check(&shape, &precision, &tensors)?;
        Ok(match shape.family {
            Family::Llama => Model::Llama(Llama { shape, precision, tensors, eps_q }),
        })
    }

    /// The same tensors with other fraction bits.
    ///
    /// # Errors
    /// As [`Model::new`].
    pub fn with_precision(self, precision: Precision) -> Result<Model, ModelError> {
        match self {
            Model::Llama(llama) => Model::new(llama.shape, precision, llama.tensors),
        }
    }

    /// The sizes.
    pub fn shape(&self) -> &Shape {
        match self {
            Model::Llama(llama) => &llama.shape,
        }
    }

    /// The fraction bits.
    pub fn precision(&self) -> &Precision {
        match self {
            Model::Llama(llama) => &llama.precision,
        }
    }

    /// The tables that turn queries and keys.
    pub fn rope(&self) -> &RopeTables {
        match self {
            Model::Llama(llama) => &llama.tensors.rope,
        }
    }

    /// Epsilon of the norms, with twice the fraction bits of the residual stream.
    pub fn eps_q(&self) -> u32 {
        match self {
            Model::Llama(llama) => llama.eps_q,
        }
    }

    /// A matrix; none for a gain, and for a tensor that this model does not have.
    pub fn weights(&self, role: Role) -> Option<&Weights> {
        match self {
            Model::Llama(llama) => llama.tensors.weights(role),
        }
    }

    /// The gain of a norm in `Fx<12>`; none for a matrix, and for a tensor that this model does
    /// not have.
    pub fn gain(&self, role: Role) -> Option<&[i32]> {
        match self {
            Model::Llama(llama) => llama.tensors.gain(role),
        }
    }

    /// Computes a batch: every row adds one position to the cache of its sequence.
    ///
    /// The rows of one sequence stand in the order of their positions; those of different
    /// sequences may be mixed. Results are the same bits however tokens are spread over calls,
    /// on every `cpu`. `scratch` holds no state, only memory to reuse.
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
        Ok(match self {
            Model::Llama(llama) => llama.forward(cpu, &batch, caches, scratch, tap),
        })
    }
}
