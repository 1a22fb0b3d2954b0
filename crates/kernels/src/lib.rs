//! Turns numbers into numbers, with the same bits on every machine.
//!
//! The arithmetic is called `exact-1`: numbers of eight bits, or four, in groups of 32, integer
//! scales, exact sums and fixed-point everything else. [`mod@reference`] defines it; [`Cpu`] computes it fast.
//! Threads, batches and instruction sets change the speed of a result, never a bit of it.

pub mod reference;
pub mod tables;

mod aligned;
mod attend;
mod cpu;
mod elementwise;
mod experts;
mod format;
mod helpers;
mod isa;
mod keccak;
mod kv;
mod lanes;
mod pages;
mod path;
mod quantised;
mod weights;
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "intrinsics and the calls of functions that need them")]
#[allow(clippy::incompatible_msrv, reason = "only other machines are built with older compilers")]
mod x86;

pub use attend::{Attention, Query};
pub use cpu::{Angles, Cpu, CpuError, Norm, Pairing, Product, Rope};
pub use elementwise::Activation;
pub use experts::{Choice, Met, Run};
pub use format::Format;
pub use isa::{Isa, IsaError};
pub use keccak::keccak256_each;
pub use kv::{KvBlock, KvLayer};
pub use quantised::Quantised;
pub use weights::{COLUMNS_MAX, COLUMNS_STEP, Part, Weights, WeightsError};

/// Numbers that share one scale, in weights, activations and the cache alike.
pub const GROUP: usize = 32;

/// Positions whose weighted values are summed before a rounding; blocks start at multiples of it.
pub const BLOCK: usize = 64;

/// Most elements a head may have.
pub const HEAD_DIM_MAX: usize = 256;

/// Most elements a row may have that is normed, so that its sum of squares fits 64 bits.
pub const NORM_COLUMNS_MAX: usize = 1 << 15;
