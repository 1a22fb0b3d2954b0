//! The processor as a calculator: an instruction set, some threads, and the operations.
//!
//! Work is cut into pieces that write to separate places, so threads need no agreement. Small
//! work is not cut at all: handing it over takes as long as some thousand multiplications.

use std::num::NonZeroUsize;
use std::ops::Range;

use rayon::ThreadPoolBuildError;

use crate::helpers::Helpers;
use crate::isa::{Isa, IsaError};
use crate::lanes::Plain;
use crate::path::{Path, RowsMut};
use crate::quantised::{Quantised, Rows};
use crate::weights::{LANES, Weights};
use crate::{GROUP, NORM_COLUMNS_MAX};

/// Products below which a matrix is left to one thread.
pub(crate) const PRODUCTS_MIN: usize = 1 << 18;
/// Elements below which an operation on elements is left to one thread.
const ELEMENTS_MIN: usize = 1 << 15;
/// Rows per thread from which a matrix product is cut by rows instead of by panels.
const ROWS_PER_THREAD_MIN: usize = 16;
/// Pieces per thread: a thread that starts late takes fewer.
pub(crate) const PIECES_PER_THREAD: usize = 4;

/// A processor that computes `exact-1`.
///
/// Results depend on neither the instruction set nor the number of threads, nor on which rows are
/// computed together. Methods may be called from several threads at once. They panic when slices
/// do not fit together, which is the caller's mistake: whoever reads foreign numbers checks them.
pub struct Cpu {
    isa: Isa,
    threads: NonZeroUsize,
    path: Box<dyn Path>,
    /// All threads but the calling one; none where that is the only one.
    helpers: Option<Helpers>,
}

impl Cpu {
    /// A processor with this instruction set and this many threads, the calling one included.
    ///
    /// # Errors
    /// If the machine lacks the instructions or refuses the threads.
    pub fn new(isa: Isa, threads: NonZeroUsize) -> Result<Cpu, CpuError> {
        let path = path(isa)?;
        let helpers = NonZeroUsize::new(threads.get() - 1)
            .map(Helpers::new)
            .transpose()
            .map_err(|source| CpuError::Threads { threads, source })?;
        Ok(Cpu { isa, threads, path, helpers })
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The number of threads in use, the calling one included.
    pub fn threads(&self) -> NonZeroUsize {
        self.threads
    }

    /// Quantises `x`: (rows, columns), each row filled up with zeros to `padded` columns.
    ///
    /// # Panics
    /// If `x` is not whole rows, or `padded` is not whole groups or below `columns`.
    pub fn quantise(&self, x: &[i32], columns: usize, padded: usize, out: &mut Quantised) {
        let rows = count(x.len(), columns, "numbers");
        assert!(padded >= columns, "{columns} columns do not fit {padded}");
        out.resize(rows, padded);
        let step = self.rows_per_piece(rows, columns);
        let pieces = x
            .chunks(step * columns)
            .zip(out.q.chunks_mut(step * padded))
            .zip(out.scales.chunks_mut(step * (padded / GROUP)))
            .zip(out.terms.chunks_mut(step * (padded / GROUP)));
        self.share(pieces, |(((x, q), scales), terms)| {
            self.path.quantise(x, columns, RowsMut { columns: padded, q, scales, terms });
        });
    }

    /// Multiplies every row of `x` with the matrix: `y`: (x.rows, w.rows) in `Fx<frac_out>` from
    /// rows in `Fx<frac_in>`.
    ///
    /// # Panics
    /// If the columns differ, `y` has another length, or `exponent + frac_in - frac_out` of a row
    /// is not in 1..=62, which whoever loads a model must check.
    pub fn matmul(&self, w: &Weights, x: &Quantised, frac_in: u8, frac_out: u8, y: &mut [i32]) {
        self.matmul_all(x, frac_in, [Product { weights: w, frac_out, y }]);
    }

    /// Multiplies every row of `x` with several matrices, each as [`Cpu::matmul`] does: the threads
    /// meet once instead of once per matrix, which tells where rows are few.
    ///
    /// # Panics
    /// As [`Cpu::matmul`].
    pub fn matmul_all<'a>(
        &self,
        x: &Quantised,
        frac_in: u8,
        products: impl IntoIterator<Item = Product<'a>>,
    ) {
        let mut products: Vec<Shifted<'a>> = (products.into_iter())
            .map(|product| {
                let Product { weights: w, frac_out, y } = product;
                assert_eq!(x.columns(), w.columns(), "matrix and rows differ in columns");
                assert_eq!(y.len(), x.rows() * w.rows(), "outputs of {} rows", x.rows());
                Shifted { w, shifts: shifts(w, frac_in, frac_out), y }
            })
            .collect();
        let (rows, threads) = (x.rows(), self.threads.get());
        let numbers: usize = products.iter().map(|product| product.w.numbers()).sum();
        if threads == 1 || rows * numbers < PRODUCTS_MIN {
            for Shifted { w, shifts, y } in &mut products {
                self.matmul_piece(w, 0, shifts, x.view(), &mut whole_rows(y, w.rows()));
            }
        } else if rows >= ROWS_PER_THREAD_MIN * threads {
            let step = rows.div_ceil(2 * threads);
            for Shifted { w, shifts, y } in &mut products {
                let pieces = y.chunks_mut(step * w.rows()).enumerate();
                self.share(pieces, |(piece, y)| {
                    let mut y = whole_rows(y, w.rows());
                    let x = x.view().part(piece * step, y.len());
                    self.matmul_piece(w, 0, shifts, x, &mut y);
                });
            }
        } else {
            let panels: usize = products.iter().map(|product| product.w.panels()).sum();
            let step = panels.div_ceil(PIECES_PER_THREAD * threads);
            let mut pieces = Vec::new();
            for Shifted { w, shifts, y } in &mut products {
                let cut = cut_rows(y, w.rows(), step * LANES).into_iter().enumerate();
                pieces.extend(cut.map(|(piece, y)| (*w, &*shifts, piece * step, y)));
            }
            self.share(pieces.into_iter(), |(w, shifts, first, mut y)| {
                self.matmul_piece(w, first, shifts, x.view(), &mut y);
            });
        }
    }

    /// Root-mean-square norm of each row of `x`: (rows, gain). `gain` is `Fx<12>`.
    ///
    /// # Panics
    /// If `x` is not whole rows, `y` has another length, rows are longer than
    /// [`NORM_COLUMNS_MAX`], or `frac_out` is above 31.
    pub fn rmsnorm(&self, x: &[i32], gain: &[i32], norm: &Norm, y: &mut [i32]) {
        let rows = count(x.len(), gain.len(), "numbers");
        assert_eq!(x.len(), y.len(), "inputs and outputs differ in length");
        assert!(gain.len() <= NORM_COLUMNS_MAX, "rows of {} cannot be normed", gain.len());
        assert!(norm.frac_out < 32, "{} fraction bits", norm.frac_out);
        let step = self.rows_per_piece(rows, gain.len()) * gain.len();
        self.share(x.chunks(step).zip(y.chunks_mut(step)), |(x, y)| {
            self.path.rmsnorm(x, gain, norm, y);
        });
    }

    /// Turns the heads at the start of each row of `x`: (rows, row_stride) by the row's angles;
    /// what follows them in a row is left as it is.
    ///
    /// # Panics
    /// If `x` is not one row per entry of `angles`, the heads do not fit a row, `head_dim` is odd,
    /// or there are fewer angles than pairs.
    pub fn rope(&self, x: &mut [i32], rope: &Rope, angles: &[Angles<'_>]) {
        let rows = count(x.len(), rope.row_stride, "numbers");
        assert_eq!(rows, angles.len(), "rows and angles differ in number");
        assert!(rope.head_dim % 2 == 0, "a head of {} has no pairs", rope.head_dim);
        assert!(rope.heads * rope.head_dim <= rope.row_stride, "the heads do not fit a row");
        for angles in angles {
            let fewest = angles.cos.len().min(angles.sin.len());
            assert!(fewest >= rope.head_dim / 2, "{fewest} angles for {}", rope.head_dim);
        }
        let step = self.rows_per_piece(rows, rope.row_stride);
        let pieces = x.chunks_mut(step * rope.row_stride).zip(angles.chunks(step));
        self.share(pieces, |(x, angles)| self.path.rope(x, rope, angles));
    }

    /// `y = silu(gate) · up`, element by element, in `Fx<frac_out>` from `Fx<16>`.
    ///
    /// # Panics
    /// If the lengths differ, or `frac_out` is above 31.
    pub fn swiglu(&self, gate: &[i32], up: &[i32], frac_out: u8, y: &mut [i32]) {
        assert_eq!(gate.len(), up.len(), "gate and up differ in length");
        assert_eq!(gate.len(), y.len(), "inputs and outputs differ in length");
        assert!(frac_out < 32, "{frac_out} fraction bits");
        let step = self.rows_per_piece(y.len(), 1);
        let pieces = gate.chunks(step).zip(up.chunks(step)).zip(y.chunks_mut(step));
        self.share(pieces, |((gate, up), y)| self.path.swiglu(gate, up, frac_out, y));
    }

    /// `x += y`, element by element, clamped to 32 bits.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add(&self, x: &mut [i32], y: &[i32]) {
        assert_eq!(x.len(), y.len(), "summands differ in length");
        let step = self.rows_per_piece(x.len(), 1);
        self.share(x.chunks_mut(step).zip(y.chunks(step)), |(x, y)| self.path.add(x, y));
    }

    /// The instruction set's operations.
    pub(crate) fn path(&self) -> &dyn Path {
        &*self.path
    }

    /// Runs every task, on all threads if there are several tasks.
    pub(crate) fn share<T: Send>(
        &self,
        tasks: impl ExactSizeIterator<Item = T> + Send,
        run: impl Fn(T) + Sync,
    ) {
        match self.helpers.as_ref().filter(|_| tasks.len() > 1) {
            Some(helpers) => helpers.share(tasks, run),
            None => tasks.for_each(run),
        }
    }

    /// Rows of `columns` elements per task of an operation on elements.
    pub(crate) fn rows_per_piece(&self, rows: usize, columns: usize) -> usize {
        if self.helpers.is_none() || rows * columns < ELEMENTS_MIN {
            return rows.max(1);
        }
        rows.div_ceil(PIECES_PER_THREAD * self.threads.get()).max(1)
    }

    /// The panels from `first` on that `y` has room for, times some rows.
    fn matmul_piece(
        &self,
        w: &Weights,
        first: usize,
        shifts: &[i8],
        x: Rows<'_>,
        y: &mut [&mut [i32]],
    ) {
        let Some(width) = y.first().map(|y| y.len()) else { return };
        let panels = first..first + width.div_ceil(LANES);
        let shifts = &shifts[panels.start * LANES..panels.end * LANES];
        self.path.matmul(w.panel_range(panels), shifts, x, y);
    }
}

impl std::fmt::Debug for Cpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cpu({}, {} threads)", self.isa, self.threads)
    }
}

/// One of several matrices that meet the same rows.
#[derive(Debug)]
pub struct Product<'a> {
    /// The matrix.
    pub weights: &'a Weights,
    /// Fraction bits of the outputs.
    pub frac_out: u8,
    /// Where outputs go: (rows of the input, rows of the matrix).
    pub y: &'a mut [i32],
}

/// A product whose shifts are known.
struct Shifted<'a> {
    w: &'a Weights,
    /// One per padded row.
    shifts: Vec<i8>,
    y: &'a mut [i32],
}

/// What a norm needs to know about its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Norm {
    /// Fraction bits of the input. The norm divides them out; they say what `eps_q` means.
    pub frac_residual: u8,
    /// Fraction bits of the output, at most 31.
    pub frac_out: u8,
    /// Epsilon in twice the fraction bits of the input.
    pub eps_q: u32,
}

/// Which elements of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pairing {
    /// Element `i` with element `i + head_dim / 2`.
    Halves,
    /// Element `2i` with element `2i + 1`.
    Adjacent,
}

/// Where the heads to be turned lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rope {
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// Heads at the start of each row.
    pub heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Which elements form a pair.
    pub pairing: Pairing,
}

/// How far each pair of a head turns at one position, in Q30; `head_dim / 2` entries each.
#[derive(Clone, Copy, Debug)]
pub struct Angles<'a> {
    /// The cosines.
    pub cos: &'a [i32],
    /// The sines.
    pub sin: &'a [i32],
}

/// Why there is no such processor.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    /// The instructions are missing.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// The system refused the threads.
    #[error("cannot start {threads} threads")]
    Threads {
        /// The threads asked for.
        threads: NonZeroUsize,
        /// What the system said.
        source: ThreadPoolBuildError,
    },
}

/// The fastest path of this machine.
pub(crate) fn fastest() -> Box<dyn Path> {
    path(Isa::detect()).unwrap_or_else(|_| Box::new(Plain))
}

pub(crate) fn path(isa: Isa) -> Result<Box<dyn Path>, IsaError> {
    let path: Option<Box<dyn Path>> = match isa {
        Isa::Scalar => Some(Box::new(Plain)),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => crate::x86::Avx2::detect().map(|path| Box::new(path) as _),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => crate::x86::Avx512::detect().map(|path| Box::new(path) as _),
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx2 | Isa::Avx512 => None,
    };
    path.ok_or(IsaError::Unsupported { isa })
}

/// How many rows of `columns` there are in `len` elements.
pub(crate) fn count(len: usize, columns: usize, what: &str) -> usize {
    assert!(columns > 0 && len % columns == 0, "{len} {what} are not whole rows of {columns}");
    len / columns
}

/// The right shift of every padded row. Rows that only pad a panel have no output, so any shift
/// will do.
fn shifts(w: &Weights, frac_in: u8, frac_out: u8) -> Vec<i8> {
    shifts_of(w, 0..w.exponents().len(), frac_in, frac_out)
}

/// The right shifts of some padded rows.
pub(crate) fn shifts_of(w: &Weights, rows: Range<usize>, frac_in: u8, frac_out: u8) -> Vec<i8> {
    let change = i16::from(frac_in) - i16::from(frac_out);
    for exponent in w.exponent_range() {
        let shift = i16::from(exponent) + change;
        assert!((1..=62).contains(&shift), "a row would be shifted by {shift}");
    }
    w.exponents()[rows]
        .iter()
        .map(|exponent| (i16::from(*exponent) + change).clamp(1, 62) as i8)
        .collect()
}

/// One slice per row.
fn whole_rows(y: &mut [i32], width: usize) -> Vec<&mut [i32]> {
    y.chunks_exact_mut(width).collect()
}

/// For every run of `step` columns, one slice per row.
pub(crate) fn cut_rows(y: &mut [i32], width: usize, step: usize) -> Vec<Vec<&mut [i32]>> {
    let mut pieces: Vec<Vec<&mut [i32]>> = Vec::new();
    pieces.resize_with(width.div_ceil(step), Vec::new);
    for row in y.chunks_exact_mut(width) {
        for (piece, part) in pieces.iter_mut().zip(row.chunks_mut(step)) {
            piece.push(part);
        }
    }
    pieces
}
