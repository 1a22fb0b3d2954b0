//! Rows of quantised activations, ready to meet weights.

use crate::GROUP;
use crate::weights::SIGN;

/// What a kernel needs to know of a group beside its numbers, in the width that it needs.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Term {
    /// -128 times the sum of the numbers: undoes the sign flip of the weights they meet.
    pub(crate) offset: i32,
    /// The scale again.
    pub(crate) scale: i32,
}

/// Rows in the A8 format: `value = q · scale · 2^-fraction`, one scale per [`GROUP`] columns.
///
/// `q` is in -127..=127 and a scale in 1..=32767. The fraction bits belong to the site a row is
/// used at and are not stored. The buffers are reused: quantising into the same value again
/// allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Quantised {
    rows: usize,
    columns: usize,
    /// (rows, columns).
    pub(crate) q: Vec<i8>,
    /// (rows, columns / 32).
    pub(crate) scales: Vec<u16>,
    /// (rows, columns / 32).
    pub(crate) terms: Vec<Term>,
}

impl Quantised {
    /// No rows.
    pub fn new() -> Quantised {
        Quantised::default()
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns, with padding.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The numbers and the scales of a row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> (&[i8], &[u16]) {
        let groups = self.columns / GROUP;
        (&self.q[row * self.columns..][..self.columns], &self.scales[row * groups..][..groups])
    }

    /// Makes room for rows whose contents are written next.
    pub(crate) fn resize(&mut self, rows: usize, columns: usize) {
        assert_eq!(columns % GROUP, 0, "{columns} columns are not whole groups");
        (self.rows, self.columns) = (rows, columns);
        self.q.resize(rows * columns, 0);
        self.scales.resize(rows * columns / GROUP, 1);
        self.terms.resize(rows * columns / GROUP, Term::default());
    }

    /// Becomes a copy of some rows of another value, in the order they are named.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn gather(&mut self, from: &Quantised, rows: impl Iterator<Item = usize>) {
        let groups = from.columns / GROUP;
        (self.rows, self.columns) = (0, from.columns);
        self.q.clear();
        self.scales.clear();
        self.terms.clear();
        for row in rows {
            let (q, scales) = from.row(row);
            self.rows += 1;
            self.q.extend_from_slice(q);
            self.scales.extend_from_slice(scales);
            self.terms.extend_from_slice(&from.terms[row * groups..][..groups]);
        }
    }

    /// All rows, as the kernels read them.
    pub(crate) fn view(&self) -> Rows<'_> {
        Rows { groups: self.columns / GROUP, q: &self.q, terms: &self.terms }
    }
}

/// A run of quantised rows.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// Groups of a row.
    pub(crate) groups: usize,
    /// (rows, groups, 32).
    pub(crate) q: &'a [i8],
    /// (rows, groups).
    pub(crate) terms: &'a [Term],
}

impl<'a> Rows<'a> {
    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.terms.len() / self.groups
    }

    /// `count` rows from the `first` on.
    pub(crate) fn part(&self, first: usize, count: usize) -> Rows<'a> {
        let part = |size: usize| first * size..(first + count) * size;
        Rows {
            groups: self.groups,
            q: &self.q[part(self.groups * GROUP)],
            terms: &self.terms[part(self.groups)],
        }
    }
}

impl Term {
    /// Of a group with this sum and scale.
    pub(crate) fn new(sum: i32, scale: i32) -> Term {
        Term { offset: -i32::from(SIGN) * sum, scale }
    }
}
