//! How a matrix stores its numbers: eight bits or four.
//!
//! Both formats are laid out in panels whose cache lines hold some neighbouring columns of sixteen
//! rows, a word of four bytes per row. A byte is one number of eight bits, or two of four: the
//! lower half belongs to the first four columns of the line and the upper half to the next four.

use crate::weights::{QUAD, SIGN};

/// The format of a matrix: `weight = q · scale · 2^-exponent` in all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// Numbers in -127..=127, scales in 1..=65535.
    #[default]
    W8,
    /// Numbers in -8..=7, scales in -32767..=32767 but not zero: which end of the numbers is the
    /// longer one is the group's choice.
    W4,
}

impl Format {
    /// Every format.
    pub const ALL: [Format; 2] = [Format::W8, Format::W4];

    /// Bytes of so many numbers, which are whole lines.
    pub fn bytes(self, numbers: usize) -> usize {
        match self {
            Format::W8 => numbers,
            Format::W4 => numbers / 2,
        }
    }

    /// The least and the largest number.
    pub(crate) fn range(self) -> [i8; 2] {
        match self {
            Format::W8 => [-127, 127],
            Format::W4 => [-8, 7],
        }
    }

    /// Columns of a cache line of a panel.
    pub(crate) fn line_columns(self) -> usize {
        match self {
            Format::W8 => QUAD,
            Format::W4 => 2 * QUAD,
        }
    }

    /// The byte that holds nothing but zeros.
    pub(crate) fn zero(self) -> u8 {
        match self {
            Format::W8 => SIGN,
            Format::W4 => 0x88,
        }
    }

    /// The number that a byte holds for a column of its line.
    pub(crate) fn read(self, byte: u8, column: usize) -> i8 {
        match self {
            Format::W8 => (byte ^ SIGN) as i8,
            Format::W4 => (byte >> half(column) & 15) as i8 - 8,
        }
    }

    /// The byte with another number for a column of its line.
    pub(crate) fn write(self, byte: u8, column: usize, q: i8) -> u8 {
        match self {
            Format::W8 => q as u8 ^ SIGN,
            Format::W4 => byte & !(15 << half(column)) | ((q + 8) as u8 & 15) << half(column),
        }
    }

    /// The scale that two bytes stand for.
    pub(crate) fn scale(self, bits: u16) -> i32 {
        match self {
            Format::W8 => bits.into(),
            Format::W4 => (bits as i16).into(),
        }
    }

    /// Whether a scale may be used: products with it stay within 31 bits, and a weight that is not
    /// zero stays so.
    pub(crate) fn takes_scale(self, bits: u16) -> bool {
        match self {
            Format::W8 => bits != 0,
            Format::W4 => bits != 0 && bits as i16 != i16::MIN,
        }
    }
}

/// The lowest bit of the half of a byte that a column of a line has.
fn half(column: usize) -> usize {
    column / QUAD % 2 * 4
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Format::W8 => "w8",
            Format::W4 => "w4",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_back_and_leave_their_neighbours() {
        for q in -8..8 {
            let byte = Format::W4.write(0x88, 2, q);
            assert_eq!((Format::W4.read(byte, 2), Format::W4.read(byte, 6)), (q, 0));
            let byte = Format::W4.write(byte, 6, -q.max(-7));
            assert_eq!((Format::W4.read(byte, 2), Format::W4.read(byte, 6)), (q, -q.max(-7)));
        }
        for q in -127..=127 {
            assert_eq!(Format::W8.read(Format::W8.write(0, 5, q), 5), q);
        }
        assert!(Format::ALL.iter().all(|format| format.read(format.zero(), 7) == 0));
    }
}
