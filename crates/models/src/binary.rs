//! Takes binary floating-point numbers apart into the integers they are made of.
//!
//! Everything that turns a model's floats into its canonical integers starts here, so that no
//! rounding mode, no fused multiply-add and no library function has a say in the result.

/// A finite number, exactly: (−1)^`negative` · `mantissa` · 2^`exponent`, `mantissa` < 2^24.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Binary {
    pub(crate) negative: bool,
    pub(crate) mantissa: u32,
    pub(crate) exponent: i32,
}

impl Binary {
    /// Takes an IEEE 754 binary32 apart; `None` for infinities and NaN.
    pub(crate) fn from_f32(bits: u32) -> Option<Self> {
        let fraction = bits & 0x007f_ffff;
        let (mantissa, exponent) = match (bits >> 23) & 0xff {
            0xff => return None,
            0 => (fraction, -149),
            biased => (fraction | 0x0080_0000, biased as i32 - 150),
        };
        Some(Self { negative: bits >> 31 == 1, mantissa, exponent })
    }

    /// Takes an IEEE 754 binary16 apart; `None` for infinities and NaN.
    pub(crate) fn from_f16(bits: u16) -> Option<Self> {
        let bits = u32::from(bits);
        let fraction = bits & 0x03ff;
        let (mantissa, exponent) = match (bits >> 10) & 0x1f {
            0x1f => return None,
            0 => (fraction, -24),
            biased => (fraction | 0x0400, biased as i32 - 25),
        };
        Some(Self { negative: bits >> 15 == 1, mantissa, exponent })
    }

    /// Takes a bfloat16, the upper half of a binary32, apart; `None` for infinities and NaN.
    pub(crate) fn from_bf16(bits: u16) -> Option<Self> {
        Self::from_f32(u32::from(bits) << 16)
    }

    /// The number as a binary32. Exact for every number that came from one of the three formats.
    pub(crate) fn to_f32(self) -> f32 {
        // Two exact powers of two, because 2^-149 itself is not a normal number.
        let half = self.exponent / 2;
        let size = f64::from(self.mantissa) * power(half) * power(self.exponent - half);
        if self.negative { -size as f32 } else { size as f32 }
    }
}

/// 2^exponent, for exponents in the range of normal binary64 numbers.
fn power(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_numbers_come_apart() {
        let one = Binary { negative: false, mantissa: 1 << 23, exponent: -23 };
        assert_eq!(Binary::from_f32(1.0f32.to_bits()), Some(one));
        assert_eq!(Binary::from_bf16(0x3f80), Some(one));
        let half_one = Binary { negative: true, mantissa: 1 << 10, exponent: -10 };
        assert_eq!(Binary::from_f16(0xbc00), Some(half_one));
        let least = Binary { negative: false, mantissa: 1, exponent: -24 };
        assert_eq!(Binary::from_f16(1), Some(least));
        assert_eq!(Binary::from_f32(f32::NAN.to_bits()), None);
        assert_eq!(Binary::from_f32(f32::NEG_INFINITY.to_bits()), None);
        assert_eq!(Binary::from_f16(0x7c00), None);
        assert_eq!(Binary::from_bf16(0xffff), None);
    }

    proptest! {
        #[test]
        fn a_float_survives_being_taken_apart(bits: u32) {
            if let Some(binary) = Binary::from_f32(bits) {
                prop_assert_eq!(binary.to_f32().to_bits(), bits);
            } else {
                prop_assert!(!f32::from_bits(bits).is_finite());
            }
        }
    }
}
