//! A matrix of quantised weights, laid out so that one SIMD lane is one output row.
//!
//! Sixteen rows form a panel. Within it, four neighbouring columns of all sixteen rows lie in one
//! cache line, eight where numbers have four bits, so a product walks memory once, in order, and
//! never adds across lanes. Numbers are stored with their sign bit flipped, which is the unsigned
//! form that VNNI wants.

use std::ops::Range;

use crate::GROUP;
use crate::format::Format;
use crate::pages::Pages;
use crate::reference;

/// Rows of a panel: the 32-bit lanes of the widest registers in use.
pub(crate) const LANES: usize = 16;
/// Columns of one word: four bytes of a row in a cache line.
pub(crate) const QUAD: usize = 4;
/// Columns are filled up to a multiple of this.
pub const COLUMNS_STEP: usize = 128;
/// Most columns a matrix may have, so that no sum of products leaves 64 bits.
pub const COLUMNS_MAX: usize = 1 << 17;
/// What flips the sign bit of a number.
pub(crate) const SIGN: u8 = 0x80;

/// A matrix: `weight = q · scale · 2^-exponent`.
///
/// Its [`Format`] says what a number and a scale may be. One scale serves [`GROUP`] columns of a
/// row, and a row has one exponent. Columns are padded to a multiple of [`COLUMNS_STEP`] and rows
/// to whole panels of sixteen, with `q = 0`, `scale = 1` and, for rows, `exponent = 0`.
#[derive(Clone, Debug)]
pub struct Weights {
    format: Format,
    rows: usize,
    columns: usize,
    /// One per padded row.
    exponents: Vec<i8>,
    /// The least and the largest exponent of the rows without padding.
    exponent_range: [i8; 2],
    /// (panels, columns / 4, 16 rows, 4 columns), each `q ^ 0x80`; in W4 (panels, columns / 8,
    /// 16 rows, 4 bytes), each `q + 8` of a column in the lower and of the fourth after it in the
    /// upper half.
    quants: Pages<u8>,
    /// (panels, columns / 32, 16 rows); in W4 the two's complement.
    scales: Pages<u16>,
}

impl Weights {
    /// Packs a matrix in W8 that is given row by row.
    ///
    /// `q`: (rows, columns); `scales`: (rows, columns / 32 rounded up); `exponents`: (rows).
    ///
    /// # Errors
    /// If the matrix has no rows or columns, or too many; if a list has another length than that;
    /// if a number is -128 or a scale 0.
    pub fn from_rows(
        rows: usize,
        columns: usize,
        q: &[i8],
        scales: &[u16],
        exponents: &[i8],
    ) -> Result<Weights, WeightsError> {
        Weights::pack(Format::W8, [rows, columns], q, scales, exponents)
    }

    /// Packs a matrix in W4 that is given row by row, as [`Weights::from_rows`] does in W8.
    ///
    /// # Errors
    /// As [`Weights::from_rows`]; if a number is outside -8..=7, or a scale 0 or -32768.
    pub fn from_rows_w4(
        rows: usize,
        columns: usize,
        q: &[i8],
        scales: &[i16],
        exponents: &[i8],
    ) -> Result<Weights, WeightsError> {
        let scales: Vec<u16> = scales.iter().map(|scale| *scale as u16).collect();
        Weights::pack(Format::W4, [rows, columns], q, &scales, exponents)
    }

    fn pack(
        format: Format,
        [rows, columns]: [usize; 2],
        q: &[i8],
        scales: &[u16],
        exponents: &[i8],
    ) -> Result<Weights, WeightsError> {
        check_extent(rows, columns)?;
        let groups = columns.div_ceil(GROUP);
        check_length(Part::Quants, q.len(), rows.checked_mul(columns))?;
        check_length(Part::Scales, scales.len(), rows.checked_mul(groups))?;
        check_length(Part::Exponents, exponents.len(), Some(rows))?;
        check_quants(format, q.iter().copied())?;
        check_scales(format, scales)?;

        let mut weights = Weights::zero(format, rows, columns.next_multiple_of(COLUMNS_STEP));
        weights.exponents[..rows].copy_from_slice(exponents);
        weights.exponent_range = range(exponents);
        for row in 0..rows {
            weights.pack_row(
                row,
                &q[row * columns..][..columns],
                &scales[row * groups..][..groups],
            );
        }
        Ok(weights)
    }

    /// Takes a matrix in the packed layout, as [`Weights::exponents`], [`Weights::quants`] and
    /// [`Weights::scales`] give it. `columns` is the padded number.
    ///
    /// # Errors
    /// If `columns` is not padded, or as for [`Weights::from_rows`].
    pub fn from_parts(
        format: Format,
        rows: usize,
        columns: usize,
        exponents: &[i8],
        quants: &[u8],
        scales: &[u16],
    ) -> Result<Weights, WeightsError> {
        check_extent(rows, columns)?;
        if columns % COLUMNS_STEP != 0 {
            return Err(WeightsError::Columns { found: columns });
        }
        let padded = rows.checked_next_multiple_of(LANES);
        let times = |n: usize| padded.and_then(|rows| rows.checked_mul(n));
        check_length(Part::Exponents, exponents.len(), padded)?;
        check_length(Part::Quants, quants.len(), times(format.bytes(columns)))?;
        check_length(Part::Scales, scales.len(), times(columns / GROUP))?;
        // In W4 every byte is two numbers that may be; in W8 one byte is none, and one byte is found fast.
        if format == Format::W8 && quants.contains(&format.write(0, 0, i8::MIN)) {
            check_quants(format, quants.iter().map(|byte| format.read(*byte, 0)))?;
        }
        check_scales(format, scales)?;
        Ok(Weights {
            format,
            rows,
            columns,
            exponents: exponents.to_vec(),
            exponent_range: range(&exponents[..rows]),
            quants: Pages::copy(quants),
            scales: Pages::copy(scales),
        })
    }

    /// How the numbers are stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Number of rows, without padding: the outputs of a product.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns, with padding: what the inputs of a product must have.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The number at a row and column.
    ///
    /// # Panics
    /// If there is no such row or column.
    pub fn q(&self, row: usize, column: usize) -> i8 {
        assert!(column < self.columns, "column {column} of {}", self.columns);
        self.format.read(self.quants[self.quant_at(row, column)], column)
    }

    /// The numbers of a row, all padded columns or as many as `out` has.
    ///
    /// # Panics
    /// If there is no such row, or `out` is longer than it.
    pub fn row_q(&self, row: usize, out: &mut [i8]) {
        assert!(out.len() <= self.columns, "{} of {} columns", out.len(), self.columns);
        for (column, out) in out.iter_mut().enumerate() {
            *out = self.q(row, column);
        }
    }

    /// The scale of a group of columns of a row.
    ///
    /// # Panics
    /// If there is no such row or group.
    pub fn scale(&self, row: usize, group: usize) -> i32 {
        assert!(group < self.groups(), "group {group} of {}", self.groups());
        self.format.scale(self.scales[self.scale_at(row, group)])
    }

    /// The exponent of a row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn exponent(&self, row: usize) -> i8 {
        self.exponents[row]
    }

    /// The exponents of all padded rows.
    pub fn exponents(&self) -> &[i8] {
        &self.exponents
    }

    /// The numbers in packed layout: (panels, columns / 4, 16 rows, 4 columns), each `q ^ 0x80`; in
    /// W4 (panels, columns / 8, 16 rows, 4 bytes) with two of them a byte, each `q + 8`.
    pub fn quants(&self) -> &[u8] {
        &self.quants
    }

    /// The scales in packed layout: (panels, columns / 32, 16 rows); in W4 in two's complement.
    pub fn scales(&self) -> &[u16] {
        &self.scales
    }

    /// Writes the row as `Fx<frac_residual>`: an embedding. `out` takes the first columns.
    ///
    /// # Panics
    /// If there is no such row, or `out` is longer than it.
    pub fn embed(&self, row: usize, frac_residual: u8, out: &mut [i32]) {
        assert!(out.len() <= self.columns, "{} of {} columns", out.len(), self.columns);
        for (column, out) in out.iter_mut().enumerate() {
            let (q, scale) = (self.q(row, column), self.scale(row, column / GROUP));
            *out = reference::embed(q, scale, self.exponents[row], frac_residual);
        }
    }

    /// Number of panels, the last one perhaps padded.
    pub(crate) fn panels(&self) -> usize {
        self.exponents.len() / LANES
    }

    /// Numbers, those of padding included.
    pub(crate) fn numbers(&self) -> usize {
        self.exponents.len() * self.columns
    }

    /// Groups of a row.
    pub(crate) fn groups(&self) -> usize {
        self.columns / GROUP
    }

    /// The least and the largest exponent of a row.
    pub(crate) fn exponent_range(&self) -> [i8; 2] {
        self.exponent_range
    }

    /// Some panels.
    pub(crate) fn panel_range(&self, panels: Range<usize>) -> Panels<'_> {
        let part = |size: usize| panels.start * size..panels.end * size;
        Panels {
            format: self.format,
            groups: self.groups(),
            quants: &self.quants[part(LANES * self.format.bytes(self.columns))],
            scales: &self.scales[part(LANES * self.groups())],
        }
    }

    /// A matrix of zeros.
    fn zero(format: Format, rows: usize, columns: usize) -> Weights {
        let padded = rows.next_multiple_of(LANES);
        let mut quants = Pages::new(padded * format.bytes(columns));
        let mut scales = Pages::new(padded * (columns / GROUP));
        quants.fill(format.zero());
        scales.fill(1);
        Weights {
            format,
            rows,
            columns,
            exponents: vec![0; padded],
            exponent_range: [0; 2],
            quants,
            scales,
        }
    }

    fn pack_row(&mut self, row: usize, q: &[i8], scales: &[u16]) {
        let format = self.format;
        let (first, step) = (self.quant_at(row, 0), LANES * QUAD);
        for (line, numbers) in q.chunks(format.line_columns()).enumerate() {
            let bytes = &mut self.quants[first + line * step..][..QUAD];
            for (column, number) in numbers.iter().enumerate() {
                let byte = &mut bytes[column % QUAD];
                *byte = format.write(*byte, column, *number);
            }
        }
        for (group, scale) in scales.iter().enumerate() {
            let at = self.scale_at(row, group);
            self.scales[at] = *scale;
        }
    }

    /// The byte that holds a number.
    fn quant_at(&self, row: usize, column: usize) -> usize {
        let (panel, lane) = (row / LANES, row % LANES);
        let width = self.format.line_columns();
        let line = panel * (self.columns / width) + column / width;
        (line * LANES + lane) * QUAD + column % QUAD
    }

    fn scale_at(&self, row: usize, group: usize) -> usize {
        let (panel, lane) = (row / LANES, row % LANES);
        (panel * self.groups() + group) * LANES + lane
    }
}

/// A run of whole panels: of a matrix, or of keys, whose positions then are the rows.
#[derive(Clone, Copy)]
pub(crate) struct Panels<'a> {
    /// How numbers are stored; those of keys have eight bits.
    pub(crate) format: Format,
    /// Groups of a row.
    pub(crate) groups: usize,
    /// (panels, groups, 8 lines, 16 rows, 4 columns); in W4 (panels, groups, 4 lines, 16 rows,
    /// 4 bytes of two columns).
    pub(crate) quants: &'a [u8],
    /// (panels, groups, 16 rows).
    pub(crate) scales: &'a [u16],
}

impl Panels<'_> {
    /// Number of panels.
    pub(crate) fn len(&self) -> usize {
        self.scales.len() / (self.groups * LANES)
    }
}

/// The least and the largest of numbers; zeros of none.
fn range(numbers: &[i8]) -> [i8; 2] {
    let (least, most) = (numbers.iter().min(), numbers.iter().max());
    [least, most].map(|number| number.copied().unwrap_or(0))
}

fn check_extent(rows: usize, columns: usize) -> Result<(), WeightsError> {
    if rows == 0 || columns == 0 {
        return Err(WeightsError::Empty { rows, columns });
    }
    if columns > COLUMNS_MAX {
        return Err(WeightsError::TooManyColumns { found: columns });
    }
    Ok(())
}

/// `expected` is nothing where the product of the sizes does not fit a `usize`.
fn check_length(part: Part, found: usize, expected: Option<usize>) -> Result<(), WeightsError> {
    match expected {
        Some(expected) if found == expected => Ok(()),
        _ => Err(WeightsError::Length { part, found, expected: expected.unwrap_or(usize::MAX) }),
    }
}

fn check_quants(format: Format, mut quants: impl Iterator<Item = i8>) -> Result<(), WeightsError> {
    let [least, most] = format.range();
    let mut found = 0;
    match quants.position(|q| {
        found = q;
        q < least || q > most
    }) {
        Some(at) => Err(WeightsError::Quant { at, found, least, most }),
        None => Ok(()),
    }
}

fn check_scales(format: Format, scales: &[u16]) -> Result<(), WeightsError> {
    match scales.iter().position(|scale| !format.takes_scale(*scale)) {
        Some(at) => Err(WeightsError::Scale { at, found: format.scale(scales[at]) }),
        None => Ok(()),
    }
}

/// One of the three lists that a matrix consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The exponents of the rows.
    Exponents,
    /// The numbers.
    Quants,
    /// The scales of the groups.
    Scales,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Part::Exponents => "exponents",
            Part::Quants => "numbers",
            Part::Scales => "scales",
        })
    }
}

/// Why numbers do not form a matrix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeightsError {
    /// There is nothing in it.
    #[error("a matrix of {rows} rows and {columns} columns holds nothing")]
    Empty {
        /// Rows given.
        rows: usize,
        /// Columns given.
        columns: usize,
    },
    /// Sums of products could overflow.
    #[error("{found} columns are more than the {COLUMNS_MAX} that sums stay exact for")]
    TooManyColumns {
        /// Columns given.
        found: usize,
    },
    /// Packed columns are not a multiple of [`COLUMNS_STEP`].
    #[error("{found} columns are not a multiple of {COLUMNS_STEP}")]
    Columns {
        /// Columns given.
        found: usize,
    },
    /// A list has the wrong length.
    #[error("the matrix has {found} {part} instead of {expected}")]
    Length {
        /// The list.
        part: Part,
        /// Its length.
        found: usize,
        /// The length that rows and columns call for.
        expected: usize,
    },
    /// A number that the format has not: of eight bits -128, which two-byte products could not
    /// hold.
    #[error("number {at} of the matrix is {found}, outside {least}..={most}")]
    Quant {
        /// Its place in the list given.
        at: usize,
        /// The number.
        found: i8,
        /// The least there may be.
        least: i8,
        /// The largest there may be.
        most: i8,
    },
    /// A scale is zero, or has no opposite.
    #[error("scale {at} of the matrix is {found}")]
    Scale {
        /// Its place in the list given.
        at: usize,
        /// The scale.
        found: i32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A matrix whose numbers, scales and exponents are all different from their neighbours.
    fn matrix(rows: usize, columns: usize) -> (Vec<i8>, Vec<u16>, Vec<i8>) {
        let q = (0..rows * columns).map(|i| (i * 31 % 255) as u8 as i8).map(|q| q.max(-127));
        let scales = (0..rows * columns.div_ceil(GROUP)).map(|i| (i * 97) as u16 | 1).collect();
        let exponents = (0..rows).map(|i| i as i8).collect();
        (q.collect(), scales, exponents)
    }

    fn weights(rows: usize, columns: usize) -> Weights {
        let (q, scales, exponents) = matrix(rows, columns);
        Weights::from_rows(rows, columns, &q, &scales, &exponents).unwrap()
    }

    fn check(result: Result<Weights, WeightsError>, message: &str) {
        assert_eq!(result.unwrap_err().to_string(), message);
    }

    #[test]
    fn rows_are_read_back_and_padded() {
        let (rows, columns) = (19, 150);
        let (q, scales, exponents) = matrix(rows, columns);
        let w = weights(rows, columns);
        assert_eq!((w.rows(), w.columns()), (19, 256));
        read_back(&w, &q, &scales, &exponents);
    }

    /// Whether a matrix of 19 rows and 150 columns is what it was made of, padded.
    fn read_back<S: Copy + Into<i32>>(w: &Weights, q: &[i8], scales: &[S], exponents: &[i8]) {
        let (rows, columns) = (19, 150);
        let mut row_q = [1; 256];
        for row in 0..rows {
            w.row_q(row, &mut row_q);
            assert_eq!(row_q[..columns], q[row * columns..][..columns]);
            assert_eq!(row_q[columns..], [0; 106]);
            for group in 0..8 {
                let scale = if group < 5 { scales[row * 5 + group].into() } else { 1 };
                assert_eq!(w.scale(row, group), scale);
            }
            assert_eq!(w.exponent(row), exponents[row]);
        }
        assert_eq!((w.q(31, 255), w.scale(31, 7), w.exponent(31)), (0, 1, 0));
    }

    #[test]
    fn packed_parts_are_taken_back() {
        let w = weights(19, 150);
        taken_back(&w);
    }

    fn taken_back(w: &Weights) {
        let (exponents, quants, scales) = (w.exponents(), w.quants(), w.scales());
        let (rows, columns) = (w.rows(), w.columns());
        let again =
            Weights::from_parts(w.format(), rows, columns, exponents, quants, scales).unwrap();
        assert_eq!(again.quants(), w.quants());
        assert_eq!(again.scales(), w.scales());
        assert_eq!(again.exponents(), w.exponents());
    }

    #[test]
    fn rows_of_four_bits_are_read_back_and_padded_and_take_half_the_bytes() {
        let (rows, columns) = (19, 150);
        let q: Vec<i8> = (0..rows * columns).map(|i| (i * 7 % 16) as i8 - 8).collect();
        let scales: Vec<i16> = (0..rows * 5).map(|i| (i as i16 * 331) ^ -1).collect();
        let exponents: Vec<i8> = (0..rows as i8).collect();
        let w = Weights::from_rows_w4(rows, columns, &q, &scales, &exponents).unwrap();
        assert_eq!((w.format(), w.quants().len()), (Format::W4, 32 * 256 / 2));
        read_back(&w, &q, &scales, &exponents);
        taken_back(&w);
    }

    #[test]
    fn four_bits_hold_sixteen_numbers() {
        let from = |q: i8, scale: i16| Weights::from_rows_w4(1, 1, &[q], &[scale], &[0]);
        assert!(from(-8, -32_767).is_ok() && from(7, 32_767).is_ok());
        check(from(8, 1), "number 0 of the matrix is 8, outside -8..=7");
        check(from(-9, 1), "number 0 of the matrix is -9, outside -8..=7");
        check(from(1, 0), "scale 0 of the matrix is 0");
        check(from(1, i16::MIN), "scale 0 of the matrix is -32768");
    }

    #[test]
    fn bad_rows_are_refused() {
        let (mut q, mut scales, exponents) = matrix(2, 40);
        let from = |rows, columns, q: &[i8], scales: &[u16]| {
            Weights::from_rows(rows, columns, q, scales, &exponents)
        };
        check(from(2, 41, &q, &scales), "the matrix has 80 numbers instead of 82");
        check(from(2, 40, &q, &scales[1..]), "the matrix has 3 scales instead of 4");
        check(from(0, 40, &[], &[]), "a matrix of 0 rows and 40 columns holds nothing");
        check(
            from(2, COLUMNS_MAX + 1, &q, &scales),
            "131073 columns are more than the 131072 that sums stay exact for",
        );
        check(
            from(usize::MAX, 2, &q, &scales),
            "the matrix has 80 numbers instead of 18446744073709551615",
        );
        check(
            Weights::from_rows(2, 40, &q, &scales, &[0]),
            "the matrix has 1 exponents instead of 2",
        );
        q[7] = -128;
        check(from(2, 40, &q, &scales), "number 7 of the matrix is -128, outside -127..=127");
        q[7] = -127;
        scales[3] = 0;
        check(from(2, 40, &q, &scales), "scale 3 of the matrix is 0");
    }

    #[test]
    fn bad_parts_are_refused() {
        let w = weights(16, 128);
        let (mut quants, mut scales) = (w.quants().to_vec(), w.scales().to_vec());
        let from = |rows, columns, quants: &[u8], scales: &[u16]| {
            Weights::from_parts(Format::W8, rows, columns, w.exponents(), quants, scales)
        };
        check(from(16, 64, &quants, &scales), "64 columns are not a multiple of 128");
        check(from(17, 128, &quants, &scales), "the matrix has 16 exponents instead of 32");
        check(
            from(usize::MAX, 128, &quants, &scales),
            "the matrix has 16 exponents instead of 18446744073709551615",
        );
        check(from(16, 128, &quants[1..], &scales), "the matrix has 2047 numbers instead of 2048");
        quants[9] = 0;
        check(
            from(16, 128, &quants, &scales),
            "number 9 of the matrix is -128, outside -127..=127",
        );
        quants[9] = 1;
        scales[5] = 0;
        check(from(16, 128, &quants, &scales), "scale 5 of the matrix is 0");
    }
}
