//! Weights that are asked for before they are needed.
//!
//! The processor's own prefetcher keeps a few lines ahead of a product. That is enough where one
//! waits for memory alone; where a product also computes, the waiting and the computing add up.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

/// Bytes from a line in use to the line that is asked for: more than memory sends during its delay,
/// a fraction of what the nearest cache holds, and the best of 1 to 32 KiB where it was tried.
const AHEAD: usize = 8 << 10;

/// Asks for what lies [`AHEAD`] of `line`, be it weights or not.
#[inline(always)]
pub(super) fn ask(line: *const u8) {
    // SAFETY: it is a hint; whatever the address, nothing is read that a program can see.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(AHEAD).cast()) };
}
