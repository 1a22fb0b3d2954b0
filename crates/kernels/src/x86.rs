//! AVX2 and AVX-512.
//!
//! Operations on elements are the loops of [`lanes`], compiled once more for each instruction
//! set. Products are written out: [`avx2`] and [`avx512`]; so are [`powers`] where registers are
//! wide enough to hold tables.

mod ahead;
mod avx2;
mod avx512;
mod keccak;
mod packed;
mod powers;

use crate::attend::Attention;
use crate::cpu::{Angles, Norm, Rope};
use crate::keccak::States;
use crate::lanes;
use crate::path::{Path, RowsMut, Values};
use crate::quantised::Rows;
use crate::weights::Panels;
use keccak::{keccak256, keccak512};

/// Proof that this machine has AVX2.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// Proof that this machine has AVX-512 F, BW, DQ, VL and VNNI.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx2 {
    /// The proof, where it is one.
    pub(crate) fn detect() -> Option<Avx2> {
        is_x86_feature_detected!("avx2").then_some(Avx2(()))
    }
}

impl Avx512 {
    /// The proof, where it is one.
    pub(crate) fn detect() -> Option<Avx512> {
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        all.then_some(Avx512(()))
    }
}

/// Implements [`Path`]: from the loops of [`lanes`], compiled with the features named, from the
/// products of one module, the gates and weights of another and the hashes of a third.
macro_rules! path {
    ($path:ty, $features:literal, $products:ident, $powers:ident, $keccak:ident) => {
        impl Path for $path {
            path! { $features, lanes::quantise(x: &[i32], columns: usize, out: RowsMut<'_>) }
            path! { $features, lanes::rmsnorm(x: &[i32], gain: &[i32], norm: &Norm, y: &mut [i32]) }
            path! { $features, lanes::rope(x: &mut [i32], turn: &Rope, angles: &[Angles<'_>]) }
            path! { $features, $powers::swiglu(gate: &[i32], up: &[i32], frac_out: u8, y: &mut [i32]) }
            path! { $features, lanes::add(x: &mut [i32], y: &[i32]) }
            path! { $features, $powers::softmax(scores: &[i32], weights: &mut [u32]) -> u64 }
            path! {
                $features,
                lanes::means(sums: &[i64], weights: u64, attention: &Attention, y: &mut [i32])
            }
            path! {
                $features,
                $products::matmul(panels: Panels<'_>, shifts: &[i8], x: Rows<'_>, y: &mut [&mut [i32]])
            }
            path! {
                $features,
                $products::scores(
                    keys: Panels<'_>,
                    queries: Rows<'_>,
                    attention: &Attention,
                    scores: &mut [i32],
                    stride: usize
                )
            }
            path! {
                $features,
                $products::blend(values: Values<'_>, weights: &[u32], stride: usize, sums: &mut [i64])
            }
            path! { $features, $keccak::keccak(states: &mut States) }
        }
    };
    ($features:literal, $module:ident::$name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?) => {
        fn $name(&self, $($argument: $type),*) $(-> $result)? {
            #[target_feature(enable = $features)]
            fn compiled($($argument: $type),*) $(-> $result)? {
                $module::$name($($argument),*)
            }
            // SAFETY: a value of this type exists only where these features were detected.
            unsafe { compiled($($argument),*) }
        }
    };
}

path!(Avx2, "avx2", avx2, lanes, keccak256);
path!(Avx512, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", avx512, powers, keccak512);
