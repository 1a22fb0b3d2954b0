//! Numbers on large pages, where the system has them.
//!
//! A pass reads every weight once. On pages of 4 KiB each page costs a walk through the page
//! tables and stops the processor's prefetcher; from pages of 2 MiB memory is read nearly twice as
//! fast. Such a page starts at a multiple of its size, and a matrix seldom fills one: so matrices
//! are cut from slabs of many pages, one behind the other.

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "pieces of one mapping have owners of their own")]
mod slab;

use std::ops::{Deref, DerefMut};

use crate::aligned::Aligned;
#[cfg(target_os = "linux")]
use slab::Piece;

/// Bytes below which large pages are not worth a piece of a slab.
#[cfg(target_os = "linux")]
const PIECE_MIN: usize = 32 << 10;

/// What weights are made of. Bytes that are all zero are a value of it, the default, on which
/// [`slab`] relies.
pub(crate) trait Number: Copy + Default {}

impl Number for u8 {}
impl Number for u16 {}

/// A boxed slice whose first element lies on a cache line.
#[derive(Debug)]
pub(crate) enum Pages<T> {
    /// A part of memory that the system was asked to back with large pages.
    #[cfg(target_os = "linux")]
    Piece(Piece<T>),
    /// Memory like any other.
    Plain(Aligned<T>),
}

impl<T: Number> Pages<T> {
    /// `len` zeros.
    pub(crate) fn new(len: usize) -> Pages<T> {
        #[cfg(target_os = "linux")]
        if size_of::<T>().checked_mul(len).is_some_and(|bytes| bytes >= PIECE_MIN) {
            // A system that refuses a slab costs speed only.
            if let Some(piece) = Piece::cut(len) {
                return Pages::Piece(piece);
            }
        }
        Pages::Plain(Aligned::new(len))
    }

    /// A copy of `numbers`.
    pub(crate) fn copy(numbers: &[T]) -> Pages<T> {
        let mut pages = Pages::new(numbers.len());
        pages.copy_from_slice(numbers);
        pages
    }
}

impl<T: Number> Clone for Pages<T> {
    fn clone(&self) -> Pages<T> {
        Pages::copy(self)
    }
}

impl<T> Deref for Pages<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            #[cfg(target_os = "linux")]
            Pages::Piece(piece) => piece,
            Pages::Plain(numbers) => numbers,
        }
    }
}

impl<T> DerefMut for Pages<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            #[cfg(target_os = "linux")]
            Pages::Piece(piece) => piece,
            Pages::Plain(numbers) => numbers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_numbers_start_on_a_line_as_zeros_and_are_copied() {
        for len in [0, 1, 1000, (1 << 21) + 3] {
            let mut numbers: Pages<u16> = Pages::new(len);
            assert!(numbers.iter().all(|number| *number == 0));
            numbers.fill(777);
            assert_eq!(numbers.as_ptr().align_offset(64), 0);
            assert_eq!(*numbers.clone(), vec![777; len][..]);
        }
    }
}
