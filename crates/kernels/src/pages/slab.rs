//! Mappings of many large pages, and the pieces that are cut from them.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use memmap2::{Advice, MmapMut};

use super::Number;

/// Bytes of a large page.
const LARGE: usize = 2 << 20;
/// Bytes of a slab, unless one piece wants more. What no piece took is never touched, so it
/// takes no memory.
const SLAB: usize = 64 << 20;
/// Pieces start at multiples of this: a cache line.
const LINE: usize = 64;

/// The slab that the next piece is cut from, if that piece still fits.
static OPEN: Mutex<Rest> = Mutex::new(Rest { slab: Weak::new(), from: 0, to: 0 });

/// What is left of a slab: the bytes from one place to another.
struct Rest {
    slab: Weak<Slab>,
    from: usize,
    to: usize,
}

/// A mapping, given back to the system when its last piece is gone.
#[derive(Debug)]
struct Slab {
    /// Where it starts; the bytes behind it belong to the pieces.
    start: NonNull<u8>,
    /// Kept, never read.
    _map: MmapMut,
}

// SAFETY: `start` is an address and no more; the mapping goes from thread to thread itself.
unsafe impl Send for Slab {}
// SAFETY: as above; nothing of a slab changes.
unsafe impl Sync for Slab {}

impl Slab {
    /// A slab for at least `len` bytes, and all of it as the rest; nothing if the system
    /// refuses.
    fn new(len: usize) -> Option<(Arc<Slab>, Rest)> {
        // The mapping may start anywhere, its first piece at a large page.
        let len = len.max(SLAB).checked_next_multiple_of(LARGE)?;
        let mut map = MmapMut::map_anon(len.checked_add(LARGE)?).ok()?;
        // A system without large pages refuses the advice, which costs speed only.
        let _ = map.advise(Advice::HugePage);
        let start = NonNull::new(map.as_mut_ptr())?;
        let from = start.align_offset(LARGE).min(LARGE);
        let slab = Arc::new(Slab { start, _map: map });
        let rest = Rest { slab: Arc::downgrade(&slab), from, to: from + len };
        Some((slab, rest))
    }
}

impl Rest {
    fn len(&self) -> usize {
        self.to - self.from
    }

    /// The place of the next `len` bytes, which are taken.
    fn take(&mut self, len: usize) -> Option<usize> {
        let len = len.checked_next_multiple_of(LINE).filter(|len| *len <= self.len())?;
        self.from += len;
        Some(self.from - len)
    }
}

/// Some numbers of a slab, which nobody else reads or writes.
#[derive(Debug)]
pub(crate) struct Piece<T> {
    first: NonNull<T>,
    len: usize,
    /// Kept for as long as there are pieces of it.
    _slab: Arc<Slab>,
}

// SAFETY: a piece owns its numbers, as a box does.
unsafe impl<T: Send> Send for Piece<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Piece<T> {}

impl<T: Number> Piece<T> {
    /// `len` zeros; nothing if the system has no room for them.
    pub(super) fn cut(len: usize) -> Option<Piece<T>> {
        let bytes = len.checked_mul(size_of::<T>())?;
        // Whoever panicked here had taken a place or not; the rest is true either way.
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let (slab, at) = match open.slab.upgrade() {
            Some(slab) if open.len() >= bytes.checked_next_multiple_of(LINE)? => {
                (slab, open.take(bytes)?)
            }
            _ => {
                let (slab, mut rest) = Slab::new(bytes)?;
                let at = rest.take(bytes)?;
                if open.slab.strong_count() == 0 || rest.len() > open.len() {
                    *open = rest;
                }
                (slab, at)
            }
        };
        // SAFETY: `at` and the bytes behind it lie in the mapping, as a rest never leaves it.
        let first = unsafe { slab.start.add(at) }.cast();
        Some(Piece { first, len, _slab: slab })
    }
}

impl<T> Deref for Piece<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: a place is taken once, so these bytes are this piece's alone, for as long as
        // it keeps the slab. They start on a cache line, and were zeros or numbers from the
        // start: only for a `Number` is a piece made.
        unsafe { NonNull::slice_from_raw_parts(self.first, self.len).as_ref() }
    }
}

impl<T> DerefMut for Piece<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and the piece is borrowed alone.
        unsafe { NonNull::slice_from_raw_parts(self.first, self.len).as_mut() }
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
            assert_eq!(piece.first.align_offset(LINE), 0);
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
    fn a_slab_is_cut_to_its_end_and_no_further() {
        let (slab, mut rest) = Slab::new(1).unwrap();
        assert_eq!(rest.len(), SLAB);
        assert_eq!(slab.start.addr().get().wrapping_add(rest.from) % LARGE, 0);
        let first = rest.take(SLAB - 65).unwrap();
        assert_eq!(rest.take(65), None);
        assert_eq!(rest.take(usize::MAX), None);
        assert_eq!(rest.take(1), Some(first + SLAB - LINE));
        assert_eq!(rest.len(), 0);
        let more = Slab::new(SLAB + 1).unwrap().1;
        assert_eq!(more.len(), SLAB + LARGE);
        assert!(Slab::new(usize::MAX).is_none());
    }
}
