//! The constants of `exact-1`, computed with integers only.
//!
//! Powers of two come from two tables of 256 entries, so that every device can look them up
//! instead of agreeing on an `exp`. Repeated integer square roots give `2^(-1/256)` and
//! `2^(-1/65536)` in Q64 with an error of a few units; 255 products later the error is still
//! below `2^-53`, and no entry lies that close to a rounding boundary: the hash of both tables is
//! pinned by a test.

/// `T1[i] = round(2^30 · 2^(-i / 256))`, for the upper byte of a 16-bit fraction.
pub static T1: [i32; 256] = powers(8);

/// `T2[i] = round(2^30 · 2^(-i / 65536))`, for the lower byte of a 16-bit fraction.
pub static T2: [i32; 256] = powers(16);

/// `round(2^30 · log2(e))`.
pub const LOG2E_Q30: i32 = 1_549_082_005;

/// `round(2^62 · log2(e))`.
const LOG2E_Q62: u128 = 6_653_256_548_922_161_246;

/// The factor `round(2^30 · log2(e) / sqrt(head_dim))` that turns a dot product into a score in
/// units of powers of two.
///
/// # Panics
/// If `head_dim` is 0 or 1, whose factor does not fit.
pub const fn att_q30(head_dim: usize) -> i32 {
    assert!(head_dim > 1, "the attention factor needs a head of at least two elements");
    // With t = 2^31 · log2(e) / sqrt(head_dim), the result is ceil(floor(t) / 2), and t² is this:
    let square = ((LOG2E_Q62 * LOG2E_Q62) >> 62) / head_dim as u128;
    square.isqrt().div_ceil(2) as i32
}

/// `round(2^30 · 2^(-i / 2^halvings))` for i in 0..256.
const fn powers(halvings: u32) -> [i32; 256] {
    let one: u128 = 1 << 64;
    let mut base = one >> 1;
    let mut halving = 0;
    while halving < halvings {
        base = (base << 64).isqrt();
        halving += 1;
    }
    let mut table = [0; 256];
    let mut power = one;
    let mut i = 0;
    while i < 256 {
        table[i] = ((power + (1 << 33)) >> 34) as i32;
        power = (power * base) >> 64;
        i += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn the_tables_are_the_ones_everybody_uses() {
        let mut hash = Sha256::new();
        for entry in T1.iter().chain(&T2) {
            hash.update(entry.to_be_bytes());
        }
        let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "01d6f32577f78e37c47ab5e98fbfbe44e1e1e65e834ff0a8b1a7f6d2a90e447f");
    }

    #[test]
    fn attention_factors_are_rounded_to_nearest() {
        // From 60-digit decimals.
        for (head_dim, factor) in ATT_Q30 {
            assert_eq!(att_q30(head_dim), factor, "head_dim {head_dim}");
        }
    }

    const ATT_Q30: [(usize, i32); 11] = [
        (2, 1_095_366_390),
        (3, 894_362_912),
        (32, 273_841_598),
        (64, 193_635_251),
        (80, 173_192_633),
        (96, 158_102_520),
        (128, 136_920_799),
        (160, 122_465_685),
        (192, 111_795_364),
        (224, 103_502_395),
        (256, 96_817_625),
    ];
}
