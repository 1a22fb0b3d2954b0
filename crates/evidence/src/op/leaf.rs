//! Leaves as a judge reads them: the formats of `assay_protocol::leaf`, checked.

use assay_kernels::reference::SCALE_MAX;
use assay_protocol::{LEAF_COLUMNS, LEAF_VALUES, TensorKind};

use super::error::{Quantity, RuleError, within};

/// Columns that share a scale.
pub(super) const GROUP: usize = 32;
/// Groups of a leaf.
const GROUPS: usize = LEAF_COLUMNS / GROUP;

/// 128 columns of a quantised vector, or the record of one head and position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivationLeaf {
    /// One scale per group of 32, 1..=32767.
    pub scales: [u16; GROUPS],
    /// The numbers, −127..=127.
    pub quants: [i8; LEAF_COLUMNS],
}

/// 128 columns of one row of a matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightLeaf {
    /// The row's exponent.
    pub exponent: i8,
    /// One scale per group of 32, at least 1.
    pub scales: [u16; GROUPS],
    /// The numbers, −127..=127, in the order of their columns.
    pub quants: [i8; LEAF_COLUMNS],
}

/// 32 fixed-point numbers; those that its section lacks are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedLeaf(pub [i32; LEAF_VALUES]);

/// 32 words of 64 bits; those that its section lacks are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WideLeaf(pub [u64; LEAF_VALUES]);

impl ActivationLeaf {
    /// Reads `4 scales ‖ 128 bytes q ^ 0x80`.
    ///
    /// # Errors
    /// If the length differs, a scale is outside 1..=32767 or a number is −128.
    pub fn read(bytes: &[u8]) -> Result<Self, RuleError> {
        let bytes: &[u8; 2 * GROUPS + LEAF_COLUMNS] = sized(bytes)?;
        let scales = scales(&bytes[..2 * GROUPS], SCALE_MAX)?;
        let quants = quants(&bytes[2 * GROUPS..], |k| k)?;
        Ok(Self { scales, quants })
    }
}

impl WeightLeaf {
    /// Reads `kind ‖ e ‖ 4 scales ‖ 128 bytes q ^ 0x80`, the eight lanes of each group reversed.
    ///
    /// # Errors
    /// If length or kind differ, a scale is 0 or a number is −128.
    pub fn read(bytes: &[u8]) -> Result<Self, RuleError> {
        let bytes: &[u8; 2 + 2 * GROUPS + LEAF_COLUMNS] = sized(bytes)?;
        if bytes[0] != TensorKind::W8 as u8 {
            return Err(RuleError::Kind { found: bytes[0] });
        }
        let scales = scales(&bytes[2..2 + 2 * GROUPS], u32::from(u16::MAX))?;
        let quants = quants(&bytes[2 + 2 * GROUPS..], |k| (7 - k / 4) * 4 + k % 4)?;
        Ok(Self { exponent: i8::from_be_bytes([bytes[1]]), scales, quants })
    }
}

impl FixedLeaf {
    /// Reads 32 big-endian i32.
    ///
    /// # Errors
    /// If the length differs.
    pub fn read(bytes: &[u8]) -> Result<Self, RuleError> {
        let bytes: &[u8; 4 * LEAF_VALUES] = sized(bytes)?;
        let (words, _) = bytes.as_chunks::<4>();
        Ok(Self(std::array::from_fn(|k| i32::from_be_bytes(words[k]))))
    }

    /// The first `count` numbers.
    pub(super) fn first(&self, count: usize) -> Result<&[i32], RuleError> {
        Ok(&self.0[..counted(count, LEAF_VALUES)?])
    }
}

impl WideLeaf {
    /// Reads 32 big-endian words of 64 bits.
    ///
    /// # Errors
    /// If the length differs.
    pub fn read(bytes: &[u8]) -> Result<Self, RuleError> {
        let bytes: &[u8; 8 * LEAF_VALUES] = sized(bytes)?;
        let (words, _) = bytes.as_chunks::<8>();
        Ok(Self(std::array::from_fn(|k| u64::from_be_bytes(words[k]))))
    }

    /// The bytes of a leaf that begins with these words.
    ///
    /// # Panics
    /// If there are more than 32.
    pub fn write(words: &[u64]) -> [u8; 8 * LEAF_VALUES] {
        assert!(words.len() <= LEAF_VALUES, "{} words in a leaf of {LEAF_VALUES}", words.len());
        let mut leaf = [0; 8 * LEAF_VALUES];
        for (bytes, word) in leaf.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        leaf
    }

    /// The first `count` words.
    pub(super) fn first(&self, count: usize) -> Result<&[u64], RuleError> {
        Ok(&self.0[..counted(count, LEAF_VALUES)?])
    }
}

/// Reads a revealed list of signed 64-bit numbers, such as the partial sums of a product.
///
/// # Errors
/// If the bytes are not whole numbers.
pub fn partials(bytes: &[u8]) -> Result<Vec<i64>, RuleError> {
    match bytes.as_chunks() {
        (words, []) => Ok(words.iter().map(|word| i64::from_be_bytes(*word)).collect()),
        (words, _) => Err(RuleError::Length { found: bytes.len(), expected: 8 * words.len() }),
    }
}

/// A count of elements that a rule may read.
pub(super) fn counted(count: usize, most: usize) -> Result<usize, RuleError> {
    within(Quantity::Count, count as u64, 1, most as i128)?;
    Ok(count)
}

fn sized<const N: usize>(bytes: &[u8]) -> Result<&[u8; N], RuleError> {
    bytes.try_into().map_err(|_| RuleError::Length { found: bytes.len(), expected: N })
}

fn scales(bytes: &[u8], most: u32) -> Result<[u16; GROUPS], RuleError> {
    let scales: [u16; GROUPS] =
        std::array::from_fn(|group| u16::from_be_bytes([bytes[2 * group], bytes[2 * group + 1]]));
    let wrong = |scale: &u16| *scale == 0 || u32::from(*scale) > most;
    match scales.iter().position(wrong) {
        Some(group) => Err(RuleError::Scale { group, found: scales[group] }),
        None => Ok(scales),
    }
}

/// The numbers of four groups, number k of a group standing at byte `place(k)` of its 32.
fn quants(bytes: &[u8], place: impl Fn(usize) -> usize) -> Result<[i8; LEAF_COLUMNS], RuleError> {
    match bytes.iter().position(|byte| *byte == 0) {
        Some(at) => Err(RuleError::Quant { group: at / GROUP }),
        None => Ok(std::array::from_fn(|k| {
            let byte = bytes[k / GROUP * GROUP + place(k % GROUP)];
            i8::from_be_bytes([byte ^ 0x80])
        })),
    }
}
