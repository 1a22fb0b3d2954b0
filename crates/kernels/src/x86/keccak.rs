//! The permutation of Keccak, one state in each 64-bit lane.
//!
//! As [`crate::keccak`] has it plainly, compiled for registers of four lanes and of eight. A round is
//! written without loops: words with constant indices stay in registers.

/// A module of that name with the permutation: `$lanes` states to a register.
macro_rules! permutation {
    (
        $(#[$doc:meta])* $module:ident, $features:literal, $vector:ty, $lanes:literal,
        $load:ident, $store:ident, $zero:ident, $set1:ident,
        |$a:ident, $b:ident, $c:ident| xor3: $xor3:expr, chi: $chi:expr,
        |$v:ident, $by:ident| turn: $turn:expr
    ) => {
        $(#[$doc])*
        pub(super) mod $module {
            use std::arch::x86_64::*;

            use crate::keccak::{ROUNDS, STATES, States, WORDS};

            /// See [`crate::path::Path::keccak`].
            #[inline]
            #[target_feature(enable = $features)]
            pub(in crate::x86) fn keccak(states: &mut States) {
                for first in (0..STATES).step_by($lanes) {
                    let mut a = [$zero(); WORDS];
                    for (a, words) in a.iter_mut().zip(states.iter()) {
                        // SAFETY: `first` is a multiple of the lanes below eight, so as many words follow.
                        *a = unsafe { $load(words[first..].as_ptr().cast()) };
                    }
                    for constant in ROUNDS {
                        a = round(a, $set1(constant.cast_signed()));
                    }
                    for (a, words) in a.iter().zip(states.iter_mut()) {
                        // SAFETY: as above.
                        unsafe { $store(words[first..].as_mut_ptr().cast(), *a) };
                    }
                }
            }

            #[inline]
            #[target_feature(enable = $features)]
            fn round(a: [$vector; WORDS], constant: $vector) -> [$vector; WORDS] {
                let column = |x: usize| xor3(xor3(a[x], a[x + 5], a[x + 10]), a[x + 15], a[x + 20]);
                let [p0, p1, p2, p3, p4] = [column(0), column(1), column(2), column(3), column(4)];
                let turned = [turn(p0, 1), turn(p1, 1), turn(p2, 1), turn(p3, 1), turn(p4, 1)];
                let parity = [p0, p1, p2, p3, p4];
                let word = |at: usize, by: u32| {
                    turn(xor3(a[at], parity[(at + 4) % 5], turned[(at + 1) % 5]), by)
                };
                // Which word comes to a place, and by how much it turns: `moved` and `TURNS`.
                #[rustfmt::skip]
                let b = [
                    word(0, 0), word(6, 44), word(12, 43), word(18, 21), word(24, 14),
                    word(3, 28), word(9, 20), word(10, 3), word(16, 45), word(22, 61),
                    word(1, 1), word(7, 6), word(13, 25), word(19, 8), word(20, 18),
                    word(4, 27), word(5, 36), word(11, 10), word(17, 15), word(23, 56),
                    word(2, 62), word(8, 55), word(14, 39), word(15, 41), word(21, 2),
                ];
                let row = |y: usize| {
                    let [b0, b1, b2, b3, b4] = [b[y], b[y + 1], b[y + 2], b[y + 3], b[y + 4]];
                    [chi(b0, b1, b2), chi(b1, b2, b3), chi(b2, b3, b4), chi(b3, b4, b0), chi(b4, b0, b1)]
                };
                let [[r0, a1, a2, a3, a4], [a5, a6, a7, a8, a9]] = [row(0), row(5)];
                let [[a10, a11, a12, a13, a14], [a15, a16, a17, a18, a19]] = [row(10), row(15)];
                let [a20, a21, a22, a23, a24] = row(20);
                let a0 = xor3(r0, constant, $zero());
                [
                    a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18,
                    a19, a20, a21, a22, a23, a24,
                ]
            }

            #[inline]
            #[target_feature(enable = $features)]
            fn xor3($a: $vector, $b: $vector, $c: $vector) -> $vector {
                $xor3
            }

            /// `a ^ (!b & c)`.
            #[inline]
            #[target_feature(enable = $features)]
            fn chi($a: $vector, $b: $vector, $c: $vector) -> $vector {
                $chi
            }

            #[inline]
            #[target_feature(enable = $features)]
            fn turn($v: $vector, $by: u32) -> $vector {
                $turn
            }
        }
    };
}

permutation! {
    /// Four states at a time.
    keccak256, "avx2", __m256i, 4,
    _mm256_loadu_si256, _mm256_storeu_si256, _mm256_setzero_si256, _mm256_set1_epi64x,
    |a, b, c| xor3: _mm256_xor_si256(_mm256_xor_si256(a, b), c),
        chi: _mm256_xor_si256(a, _mm256_andnot_si256(b, c)),
    // A shift by 64 gives zero, so that a turn by 0 is none.
    |v, by| turn: _mm256_or_si256(
        _mm256_sllv_epi64(v, _mm256_set1_epi64x(i64::from(by))),
        _mm256_srlv_epi64(v, _mm256_set1_epi64x(64 - i64::from(by))),
    )
}

permutation! {
    /// All eight at once; the numbers are truth tables of three bits.
    keccak512, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", __m512i, 8,
    _mm512_loadu_si512, _mm512_storeu_si512, _mm512_setzero_si512, _mm512_set1_epi64,
    |a, b, c| xor3: _mm512_ternarylogic_epi64::<0x96>(a, b, c),
        chi: _mm512_ternarylogic_epi64::<0xD2>(a, b, c),
    |v, by| turn: _mm512_rolv_epi64(v, _mm512_set1_epi64(i64::from(by)))
}
