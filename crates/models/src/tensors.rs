//! The tensors of a model, by role.

use std::collections::BTreeMap;

use assay_kernels::Weights;

use crate::rope::RopeTables;
use crate::shape::{Role, Shape};

/// The tensors of a model, and the angles that its positions turn by.
#[derive(Clone, Debug)]
pub struct Tensors {
    /// Matrices: (outputs, inputs).
    pub(crate) matrices: BTreeMap<Role, Weights>,
    /// Gains of norms in `Fx<12>` and biases in `Fx<16>`.
    pub(crate) vectors: BTreeMap<Role, Vec<i32>>,
    /// Angles of every position of the context.
    pub(crate) rope: RopeTables,
}

impl Tensors {
    /// Gathers the tensors of a model of this shape, one by one in the order of
    /// [`Shape::roles`], from two sources: matrices and vectors.
    ///
    /// # Errors
    /// Whatever the sources fail with first.
    pub fn gather<E>(
        shape: &Shape,
        rope: RopeTables,
        mut weights: impl FnMut(Role) -> Result<Weights, E>,
        mut vector: impl FnMut(Role) -> Result<Vec<i32>, E>,
    ) -> Result<Tensors, E> {
        let (mut matrices, mut vectors) = (BTreeMap::new(), BTreeMap::new());
        for role in shape.roles() {
            if role.is_vector() {
                vectors.insert(role, vector(role)?);
            } else {
                matrices.insert(role, weights(role)?);
            }
        }
        Ok(Tensors { matrices, vectors, rope })
    }

    /// Puts another matrix into the place of each, which goes before the next is asked for.
    ///
    /// # Errors
    /// Whatever `change` fails with first.
    pub fn map<E>(
        mut self,
        mut change: impl FnMut(Role, Weights) -> Result<Weights, E>,
    ) -> Result<Tensors, E> {
        let matrices = std::mem::take(&mut self.matrices).into_iter();
        self.matrices = matrices
            .map(|(role, weights)| Ok((role, change(role, weights)?)))
            .collect::<Result<_, E>>()?;
        Ok(self)
    }

    /// The matrix of this role, if there is one.
    pub fn weights(&self, role: Role) -> Option<&Weights> {
        self.matrices.get(&role)
    }

    /// The vector of this role, if there is one: a gain in `Fx<12>`, or a bias in `Fx<16>`.
    pub fn vector(&self, role: Role) -> Option<&[i32]> {
        self.vectors.get(&role).map(Vec::as_slice)
    }
}
