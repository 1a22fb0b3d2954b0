//! Takes the blocks of GGUF files apart: what 32 or 256 packed elements stand for.
//!
//! Two forms. Blocks of 32 with one scale and no offset hold whole numbers times that scale: their
//! numbers are kept as they are ([`scale`], [`quants`]). All others have a scale per sixteen
//! elements or an offset, and are read as the binary32 values that ggml defines for them
//! ([`values`]): each operation is one IEEE 754 rounding, in the order written here, so every
//! machine reads the same bits. Source: ggml's block layouts; the vectors are made by the `gguf`
//! package.

use crate::binary::Binary;
use crate::load::Kind;

/// Elements of a block that keeps its quants.
pub(crate) const KEPT: usize = 32;
/// Elements of a block with nested scales.
const SUPER: usize = 256;

/// Quarter-precision numbers of four bits, doubled so that they are whole.
const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];
/// The uneven steps of the four-bit format "nl".
const UNEVEN: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Whether a block is 32 whole numbers times one scale.
pub(crate) fn keeps_quants(kind: Kind) -> bool {
    matches!(kind, Kind::Q8_0 | Kind::Q4_0 | Kind::Q5_0 | Kind::Iq4Nl | Kind::Mxfp4)
}

/// The scale of a block that [`keeps_quants`]; `None` for infinities and NaN.
pub(crate) fn scale(kind: Kind, block: &[u8]) -> Option<Binary> {
    match kind {
        // An exponent alone, halved because the numbers are doubled; 255 is no number.
        Kind::Mxfp4 if block[0] == 255 => None,
        Kind::Mxfp4 => {
            Some(Binary { negative: false, mantissa: 1, exponent: i32::from(block[0]) - 128 })
        }
        _ => Binary::from_f16(word(block, 0)),
    }
}

/// The numbers of a block that [`keeps_quants`], before its scale's sign.
pub(crate) fn quants(kind: Kind, block: &[u8]) -> [i8; KEPT] {
    std::array::from_fn(|at| match kind {
        Kind::Q4_0 => nibble(&block[2..], at) as i8 - 8,
        Kind::Q5_0 => (nibble(&block[6..], at) | bit(&block[2..], at) << 4) as i8 - 16,
        Kind::Iq4Nl => UNEVEN[usize::from(nibble(&block[2..], at))],
        Kind::Mxfp4 => E2M1[usize::from(nibble(&block[1..], at))],
        _ => block[2 + at] as i8,
    })
}

/// Appends the values of a block of the other form. Where a scale is an infinity or NaN, so are
/// they.
pub(crate) fn values(kind: Kind, block: &[u8], out: &mut Vec<f32>) {
    match kind {
        Kind::Q4_1 => offset(block, out, |at| nibble(&block[4..], at)),
        Kind::Q5_1 => offset(block, out, |at| nibble(&block[8..], at) | bit(&block[4..], at) << 4),
        Kind::Q2K => q2_k(block, out),
        Kind::Q3K => q3_k(block, out),
        Kind::Q4K => nested(block, out, |at| long_nibble(&block[16..], at)),
        Kind::Q5K => nested(block, out, |at| {
            // Bit `i` of a byte belongs to the i-th run of 32 elements.
            let high = block[16 + at % 32] >> (at / 32) & 1;
            long_nibble(&block[48..], at) | high << 4
        }),
        Kind::Q6K => q6_k(block, out),
        _ => out.extend(scale(kind, block).map_or([f32::NAN; KEPT], |scale| {
            let scale = scale.to_f32();
            quants(kind, block).map(|q| f32::from(q) * scale)
        })),
    }
}

/// `d · q + m`, both of the block's head.
fn offset(block: &[u8], out: &mut Vec<f32>, q: impl Fn(usize) -> u8) {
    let (d, m) = (half(block, 0), half(block, 2));
    out.extend((0..KEPT).map(|at| d * f32::from(q(at)) + m));
}

/// Two-bit numbers; a byte per sixteen elements holds scale and offset, four bits each.
fn q2_k(block: &[u8], out: &mut Vec<f32>) {
    let (d, dmin) = (half(block, 80), half(block, 82));
    out.extend((0..SUPER).map(|at| {
        let packed = block[at / 16];
        let q = two_bits(&block[16..], at);
        d * f32::from(packed & 15) * f32::from(q) - dmin * f32::from(packed >> 4)
    }));
}

/// Three-bit numbers, the third bit apart and inverted; six-bit scales per sixteen elements.
fn q3_k(block: &[u8], out: &mut Vec<f32>) {
    let (scales, d) = (&block[96..108], half(block, 108));
    out.extend((0..SUPER).map(|at| {
        let group = at / 16;
        let low = scales[group % 8] >> (group / 8 * 4) & 15;
        let high = scales[8 + group % 4] >> (group / 4 * 2) & 3;
        let scale = (low | high << 4) as i8 - 32;
        let below = if block[at % 32] >> (at / 32) & 1 == 1 { 0 } else { 4 };
        let q = two_bits(&block[32..], at) as i8 - below;
        d * f32::from(scale) * f32::from(q)
    }));
}

/// Scales and offsets of six bits per 32 elements, behind a scale for each of the two.
fn nested(block: &[u8], out: &mut Vec<f32>, q: impl Fn(usize) -> u8) {
    let (d, dmin, packed) = (half(block, 0), half(block, 2), &block[4..16]);
    out.extend((0..SUPER).map(|at| {
        let (scale, offset) = six_bits(packed, at / 32);
        d * f32::from(scale) * f32::from(q(at)) - dmin * f32::from(offset)
    }));
}

/// Six-bit numbers, their upper two bits apart; signed byte scales per sixteen elements.
fn q6_k(block: &[u8], out: &mut Vec<f32>) {
    let d = half(block, 208);
    out.extend((0..SUPER).map(|at| {
        // Halves of 128 elements, four runs of 32 in each.
        let (part, run, lane) = (at / 128, at / 32 % 4, at % 32);
        let low = block[part * 64 + run % 2 * 32 + lane] >> (run / 2 * 4) & 15;
        let high = block[128 + part * 32 + lane] >> (run * 2) & 3;
        let q = (low | high << 4) as i8 - 32;
        let scale = block[192 + at / 16] as i8;
        d * f32::from(scale) * f32::from(q)
    }));
}

/// Scale and offset of one of eight runs, out of twelve bytes.
fn six_bits(packed: &[u8], run: usize) -> (u8, u8) {
    if run < 4 {
        return (packed[run] & 63, packed[run + 4] & 63);
    }
    let (both, first, second) = (packed[run + 4], packed[run - 4], packed[run]);
    (both & 15 | first >> 6 << 4, both >> 4 | second >> 6 << 4)
}

/// Element `at` of 32 in sixteen bytes: the low halves first, then the high ones.
fn nibble(bytes: &[u8], at: usize) -> u8 {
    bytes[at % 16] >> (at / 16 * 4) & 15
}

/// Element `at` of 256 in 128 bytes: of every 32 bytes, the low halves first.
fn long_nibble(bytes: &[u8], at: usize) -> u8 {
    bytes[at / 64 * 32 + at % 32] >> (at / 32 % 2 * 4) & 15
}

/// Element `at` of 256 in 64 bytes: of every 32 bytes, the lowest two bits first.
fn two_bits(bytes: &[u8], at: usize) -> u8 {
    bytes[at / 128 * 32 + at % 32] >> (at / 32 % 4 * 2) & 3
}

fn bit(bytes: &[u8], at: usize) -> u8 {
    bytes[at / 8] >> (at % 8) & 1
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// A binary16 as binary32, which holds it exactly; NaN for infinities as well.
fn half(bytes: &[u8], at: usize) -> f32 {
    Binary::from_f16(word(bytes, at)).map_or(f32::NAN, Binary::to_f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    /// Blocks as bytes and the bits of their values, both in hex, by the `gguf` package.
    #[derive(Deserialize)]
    struct Case {
        kind: String,
        code: u32,
        block: String,
        values: Vec<String>,
    }

    fn unhex(text: &str) -> Vec<u8> {
        let digit = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(digit).collect()
    }

    #[test]
    fn blocks_are_the_values_that_others_read() {
        #[derive(Deserialize)]
        struct Vectors {
            cases: Vec<Case>,
        }
        let text = include_str!("../../../tests/vectors/blocks.json");
        let Vectors { cases } = serde_json::from_str(text).unwrap();
        let mut kinds = std::collections::BTreeSet::new();
        for case in &cases {
            let kind = Kind::from_ggml(case.code).unwrap();
            let (elements, bytes) = kind.block();
            let block = unhex(&case.block);
            assert_eq!(block.len(), bytes, "{}", case.kind);
            let mut found = Vec::new();
            values(kind, &block, &mut found);
            assert_eq!(found.len(), elements, "{}", case.kind);
            for (at, (found, expected)) in found.iter().zip(&case.values).enumerate() {
                let expected = f32::from_bits(u32::from_str_radix(expected, 16).unwrap());
                // A zero of either sign is the same weight.
                assert!(*found == expected, "{} {at}: {found} for {expected}", case.kind);
            }
            kinds.insert(&case.kind);
        }
        assert_eq!(kinds.len(), 11);
    }

    #[test]
    fn what_is_no_number_is_none() {
        let mut mxfp4 = [0x11; 17];
        mxfp4[0] = 255;
        assert_eq!(scale(Kind::Mxfp4, &mxfp4), None);
        let mut q4_k = [0x11; 144];
        q4_k[..2].copy_from_slice(&0x7c00u16.to_le_bytes());
        let mut read = Vec::new();
        values(Kind::Q4K, &q4_k, &mut read);
        assert!(read.iter().all(|value| value.is_nan()));
    }
}
