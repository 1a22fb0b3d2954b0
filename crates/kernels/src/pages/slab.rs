//! Mappings of many large pages, and the pieces that are cut from them.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::slice;
use std::sync::{Arc, Weak};

use memmap2::{Advice, MmapMut, MmapRaw, UncheckedAdvice};

use super::Number;

/// Bytes of a large page.
const LARGE: usize = 2 << 20;
/// Bytes of a slab, unless one piece wants more. Pages that no piece reaches are never touched, so
/// they take no memory.
const SLAB: usize = 64 << 20;
/// Pieces start at multiples of this: a cache line.
const LINE: usize = 64;
/// Memory goes back in multiples of this: the largest small page that Linux knows.
const SMALL: usize = 64 << 10;

thread_local! {
    /// The slab that the next piece is cut from, if that piece still fits. Each thread has its own,
    /// so that models that are read at the same time lie apart.
    static OPEN: RefCell<Rest> = const { RefCell::new(Rest { slab: Weak::new(), from: 0, to: 0 }) };
}

/// A mapping of which nobody makes a slice but the pieces, each of its own place. The system gets it
/// back when the last piece is gone.
type Slab = MmapRaw;

/// What is left of a slab: the bytes from one place to another.
struct Rest {
    slab: Weak<Slab>,
    from: usize,
    to: usize,
}

impl Rest {
    /// A new slab for at least `len` bytes, and all of it; nothing if the system refuses.
    fn new(len: usize) -> Option<(Arc<Slab>, Rest)> {
        // The mapping may start anywhere, its first piece at a large page.
        let len = len.max(SLAB).checked_next_multiple_of(LARGE)?;
        let slab = MmapRaw::from(MmapMut::map_anon(len.checked_add(LARGE)?).ok()?);
        // A system without large pages refuses the advice, which costs speed only.
        let _ = slab.advise(Advice::HugePage);
        let from = slab.as_mut_ptr().align_offset(LARGE).min(LARGE);
        let slab = Arc::new(slab);
        let rest = Rest { slab: Arc::downgrade(&slab), from, to: from + len };
        Some((slab, rest))
    }

    fn len(&self) -> usize {
        self.to - self.from
    }

    /// The place of the next `len` bytes, which are taken; nothing if there are fewer.
    fn take(&mut self, len: usize) -> Option<usize> {
        let len = len.checked_next_multiple_of(LINE).filter(|len| *len <= self.len())?;
        self.from += len;
        Some(self.from - len)
    }
}

/// Some numbers of a slab, which nobody else reads or writes.
#[derive(Debug)]
pub(crate) struct Piece<T> {
    slab: Arc<Slab>,
    /// Bytes before it in the slab, and numbers in it.
    at: usize,
    len: usize,
    numbers: PhantomData<T>,
}

impl<T: Number> Piece<T> {
    /// `len` zeros; nothing if the system has no room for them.
    pub(super) fn cut(len: usize) -> Option<Piece<T>> {
        let bytes = len.checked_mul(size_of::<T>())?;
        let (slab, at) = OPEN.with_borrow_mut(|open| {
            let there = open.slab.upgrade().and_then(|slab| Some((slab, open.take(bytes)?)));
            if there.is_some() {
                return there;
            }
            let (slab, mut rest) = Rest::new(bytes)?;
            let at = rest.take(bytes)?;
            if open.slab.strong_count() == 0 || rest.len() > open.len() {
                *open = rest;
            }
            Some((slab, at))
        })?;
        Some(Piece { slab, at, len, numbers: PhantomData })
    }
}

impl<T> Deref for Piece<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: a place is taken once and lies in the mapping, so these bytes are this piece's
        // alone for as long as it keeps the slab. They start on a cache line, and were zeros or
        // numbers from the start: only of a `Number`, whose zeros are a value, a piece is made.
        unsafe {
            slice::from_raw_parts(self.slab.as_mut_ptr().add(self.at).cast_const().cast(), self.len)
        }
    }
}

impl<T> DerefMut for Piece<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and the piece is borrowed alone.
        unsafe { slice::from_raw_parts_mut(self.slab.as_mut_ptr().add(self.at).cast(), self.len) }
    }
}

impl<T> Drop for Piece<T> {
    /// Gives its memory back where other pieces keep the slab: those may be of another model.
    fn drop(&mut self) {
        if Arc::strong_count(&self.slab) == 1 {
            return;
        }
        let from = self.at.next_multiple_of(SMALL);
        let to = (self.at + size_of::<T>() * self.len) / SMALL * SMALL;
        if from < to {
            // SAFETY: all of these bytes are this piece's, and no place is taken twice.
            let gone = unsafe {
                self.slab.unchecked_advise_range(UncheckedAdvice::DontNeed, from, to - from)
            };
            // What the system does not take back now it takes with the slab.
            let _ = gone;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_apart_and_zero_and_outlive_their_neighbours() {
        let cut = |number: u8, len: usize| {
            let mut piece: Piece<u8> = Piece::cut(len).unwrap();
            assert!(piece.iter().all(|byte| *byte == 0));
            assert_eq!(piece.as_ptr().align_offset(LINE), 0);
            piece.fill(number);
            piece
        };
        let some = |thread: u8| {
            (0..8).map(|i| cut(thread * 8 + i, 100_003 + 77 * usize::from(i))).collect()
        };
        let pieces: Vec<Vec<Piece<u8>>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || some(thread))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (thread, pieces) in pieces.into_iter().enumerate() {
            for (i, piece) in pieces.into_iter().enumerate() {
                let number = (thread * 8 + i) as u8;
                assert!(piece.len() > 100_000 && piece.iter().all(|byte| *byte == number));
            }
        }
    }

    #[test]
    fn who_goes_leaves_the_neighbours_as_they_were() {
        let cut = |number: u8| {
            let mut piece: Piece<u8> = Piece::cut(300_001).unwrap();
            piece.fill(number);
            piece
        };
        let [before, gone, after] = [1, 2, 3].map(cut);
        assert!(Arc::ptr_eq(&before.slab, &after.slab));
        let (slab, at, len) = (Arc::clone(&gone.slab), gone.at, gone.len);
        drop(gone);
        assert!(before.iter().all(|byte| *byte == 1) && after.iter().all(|byte| *byte == 3));
        let left: Piece<u8> = Piece { slab, at, len, numbers: PhantomData };
        let kept = left.iter().filter(|byte| **byte != 0).count();
        assert!(kept < 2 * SMALL, "{kept} bytes did not go back");
    }

    #[test]
    fn a_slab_is_cut_to_its_end_and_no_further() {
        let (slab, mut rest) = Rest::new(1).unwrap();
        assert_eq!(rest.len(), SLAB);
        assert_eq!((slab.as_mut_ptr().addr() + rest.from) % LARGE, 0);
        let first = rest.take(SLAB - 65).unwrap();
        assert_eq!(rest.take(65), None);
        assert_eq!(rest.take(usize::MAX), None);
        assert_eq!(rest.take(1), Some(first + SLAB - LINE));
        assert_eq!(rest.len(), 0);
        let more = Rest::new(SLAB + 1).unwrap().1;
        assert_eq!(more.len(), SLAB + LARGE);
        assert!(Rest::new(usize::MAX).is_none());
    }
}
