//! What stands in the leaves of the trees that a contract may open.
//!
//! Weights and activations come in chunks of 128 columns, fixed-point vectors in chunks of 32
//! values; all integers are big-endian. Within a chunk of a weight leaf the bytes of each group of
//! 32 are arranged so that a contract multiplies eight pairs with one 256-bit multiplication
//! (`docs/protocol/commitments.md`).

/// Columns of one weight or activation leaf.
pub const LEAF_COLUMNS: usize = 128;
/// Values of one fixed-point leaf.
pub const LEAF_VALUES: usize = 32;
/// Columns that share a scale.
const GROUP: usize = 32;
const GROUPS: usize = LEAF_COLUMNS / GROUP;

/// What kind of tensor a manifest lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TensorKind {
    /// int8 groups of 32 with 16-bit scales and an exponent a row.
    W8 = 1,
    /// Fixed-point i32 values.
    Fixed = 2,
    /// Groups of 32 numbers of four bits with 16-bit scales, signed, and an exponent a row.
    W4 = 3,
}

/// One chunk of a W8 row: `kind ‖ e ‖ 4 scales ‖ 128 bytes q ^ 0x80`, element k of a group at
/// byte (7 − k/4)·4 + k%4 of the group's 32.
pub fn weight_leaf(
    exponent: i8,
    scales: &[u16; GROUPS],
    quants: &[i8; LEAF_COLUMNS],
) -> [u8; 2 + 2 * GROUPS + LEAF_COLUMNS] {
    let mut leaf = [0; 2 + 2 * GROUPS + LEAF_COLUMNS];
    leaf[0] = TensorKind::W8 as u8;
    leaf[1] = exponent.to_be_bytes()[0];
    let (head, body) = leaf[2..].split_at_mut(2 * GROUPS);
    write_scales(head, scales);
    for (bytes, group) in body.chunks_exact_mut(GROUP).zip(quants.chunks_exact(GROUP)) {
        for (k, &quant) in group.iter().enumerate() {
            bytes[(7 - k / 4) * 4 + k % 4] = bias(quant);
        }
    }
    leaf
}

/// One chunk of a W4 row: `kind ‖ e ‖ 4 scales ‖ 64 bytes`. Of the 32 bytes that a group has in
/// [`weight_leaf`], the first sixteen are upper and the last sixteen lower halves here, each q + 8.
pub fn weight_leaf_w4(
    exponent: i8,
    scales: &[i16; GROUPS],
    quants: &[i8; LEAF_COLUMNS],
) -> [u8; 2 + 2 * GROUPS + LEAF_COLUMNS / 2] {
    let mut leaf = [0; 2 + 2 * GROUPS + LEAF_COLUMNS / 2];
    leaf[0] = TensorKind::W4 as u8;
    leaf[1] = exponent.to_be_bytes()[0];
    let (head, body) = leaf[2..].split_at_mut(2 * GROUPS);
    for (bytes, scale) in head.chunks_exact_mut(2).zip(scales) {
        bytes.copy_from_slice(&scale.to_be_bytes());
    }
    for (bytes, group) in body.chunks_exact_mut(GROUP / 2).zip(quants.chunks_exact(GROUP)) {
        for (k, &quant) in group.iter().enumerate() {
            let at = (7 - k / 4) * 4 + k % 4;
            let half = if at < GROUP / 2 { 4 } else { 0 };
            bytes[at % (GROUP / 2)] |= ((quant + 8) as u8 & 15) << half;
        }
    }
    leaf
}

/// One chunk of an A8 row: `4 scales ‖ 128 bytes q ^ 0x80` in order.
pub fn activation_leaf(
    scales: &[u16; GROUPS],
    quants: &[i8; LEAF_COLUMNS],
) -> [u8; 2 * GROUPS + LEAF_COLUMNS] {
    let mut leaf = [0; 2 * GROUPS + LEAF_COLUMNS];
    let (head, body) = leaf.split_at_mut(2 * GROUPS);
    write_scales(head, scales);
    body.iter_mut().zip(quants).for_each(|(byte, &quant)| *byte = bias(quant));
    leaf
}

/// One chunk of a fixed-point vector: 32 values, missing ones zero.
///
/// # Panics
/// If there are more than 32 values.
pub fn fixed_leaf(values: &[i32]) -> [u8; 4 * LEAF_VALUES] {
    assert!(values.len() <= LEAF_VALUES, "{} values in a leaf of {LEAF_VALUES}", values.len());
    let mut leaf = [0; 4 * LEAF_VALUES];
    for (bytes, value) in leaf.chunks_exact_mut(4).zip(values) {
        bytes.copy_from_slice(&value.to_be_bytes());
    }
    leaf
}

fn write_scales(bytes: &mut [u8], scales: &[u16; GROUPS]) {
    for (bytes, scale) in bytes.chunks_exact_mut(2).zip(scales) {
        bytes.copy_from_slice(&scale.to_be_bytes());
    }
}

/// Signed bytes are biased by 128, so that a contract reads them without sign extension.
fn bias(quant: i8) -> u8 {
    quant.to_be_bytes()[0] ^ 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_leaf_reverses_its_lanes() {
        let quants: [i8; 128] = std::array::from_fn(|k| k as i8);
        let leaf = weight_leaf(-3, &[1, 2, 3, 0xabcd], &quants);
        assert_eq!(leaf[..10], [1, 0xfd, 0, 1, 0, 2, 0, 3, 0xab, 0xcd]);
        assert_eq!(leaf[10..14], [28 ^ 0x80, 29 ^ 0x80, 30 ^ 0x80, 31 ^ 0x80]);
        assert_eq!(leaf[38..42], [0x80, 0x81, 0x82, 0x83]);
    }

    #[test]
    fn a_leaf_of_four_bits_is_the_same_lanes_in_halves() {
        let quants: [i8; 128] = std::array::from_fn(|k| (k * 5 % 16) as i8 - 8);
        let (wide, leaf) =
            (weight_leaf(-3, &[1; 4], &quants), weight_leaf_w4(-3, &[1, -1, 2, i16::MAX], &quants));
        assert_eq!(leaf[..10], [3, 0xfd, 0, 1, 0xff, 0xff, 0, 2, 0x7f, 0xff]);
        for (wide, bytes) in wide[10..].chunks_exact(32).zip(leaf[10..].chunks_exact(16)) {
            let halves =
                bytes.iter().map(|byte| byte >> 4).chain(bytes.iter().map(|byte| byte & 15));
            // q ^ 0x80 is q + 128, here it is q + 8.
            assert!(halves.eq(wide.iter().map(|byte| byte - 120)));
        }
    }

    #[test]
    fn an_activation_leaf_keeps_its_order() {
        let mut quants = [0; 128];
        quants[0] = -127;
        quants[127] = 127;
        let leaf = activation_leaf(&[1; 4], &quants);
        assert_eq!((leaf[8], leaf[9], leaf[135]), (1, 0x80, 0xff));
    }
}
