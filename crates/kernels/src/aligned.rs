//! Numbers that start on a cache line, so that no 64-byte load touches two lines.

use std::ops::{Deref, DerefMut};

/// Bytes of a cache line.
const LINE: usize = 64;

/// A boxed slice whose first element lies on a cache line.
///
/// It is a plain vector with room to spare and a starting point, which needs no unsafe code.
#[derive(Debug)]
pub(crate) struct Aligned<T> {
    room: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy + Default> Aligned<T> {
    /// `len` default values.
    pub(crate) fn new(len: usize) -> Aligned<T> {
        let spare = LINE / size_of::<T>();
        let room = vec![T::default(); len + spare];
        // Falling back to the start costs speed, never correctness.
        let start = Some(room.as_ptr().align_offset(LINE)).filter(|&at| at <= spare).unwrap_or(0);
        Aligned { room, start, len }
    }

    /// A copy of `values`.
    pub(crate) fn copy(values: &[T]) -> Aligned<T> {
        let mut aligned = Aligned::new(values.len());
        aligned.copy_from_slice(values);
        aligned
    }
}

impl<T: Copy + Default> Clone for Aligned<T> {
    fn clone(&self) -> Aligned<T> {
        Aligned::copy(self)
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.room[self.start..self.start + self.len]
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.room[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_start_on_a_line_and_clones_too() {
        for len in [0, 1, 63, 1000] {
            let mut bytes = Aligned::<u16>::new(len);
            bytes.fill(7);
            let again = bytes.clone();
            assert_eq!(bytes.as_ptr().align_offset(LINE), 0);
            assert_eq!(again.as_ptr().align_offset(LINE), 0);
            assert_eq!(*again, vec![7; len][..]);
        }
    }
}
