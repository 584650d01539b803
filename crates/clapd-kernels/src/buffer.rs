//! Numbers in memory that begin at a cache line: a vector load that crosses two lines costs two.

use std::marker::PhantomData;

/// Bytes of a cache line, and of the longest vector.
const LINE: usize = 64;

/// Plain old data: every pattern of bits is one, and zero bits are zero.
///
/// # Safety
/// Only for such types, aligned to at most 64 bytes.
pub(super) unsafe trait Pod: Copy + 'static {}
// SAFETY: these are integers and floats.
unsafe impl Pod for f32 {}
// SAFETY: as above.
unsafe impl Pod for u16 {}
// SAFETY: as above.
unsafe impl Pod for i16 {}
// SAFETY: as above.
unsafe impl Pod for i8 {}
// SAFETY: as above.
unsafe impl Pod for u8 {}
// SAFETY: as above.
unsafe impl Pod for i32 {}

#[repr(align(64))]
#[derive(Clone, Copy, Debug)]
struct Line(#[allow(dead_code)] [u8; LINE]);

/// A vector whose first element begins a cache line.
#[derive(Clone, Debug)]
pub(super) struct Aligned<T> {
    lines: Vec<Line>,
    len: usize,
    of: PhantomData<T>,
}

impl<T> Default for Aligned<T> {
    fn default() -> Self {
        Self { lines: Vec::new(), len: 0, of: PhantomData }
    }
}

impl<T: Pod> Aligned<T> {
    /// `len` zeros.
    pub(super) fn zeros(len: usize) -> Self {
        let mut new = Self::default();
        new.fit(len);
        new
    }

    /// Has at least `len` elements from now on; new ones are zero.
    pub(super) fn fit(&mut self, len: usize) {
        if len > self.len {
            self.lines.resize((len * size_of::<T>()).div_ceil(LINE), Line([0; LINE]));
            self.len = len;
        }
    }

    /// The elements.
    pub(super) fn as_slice(&self) -> &[T] {
        // SAFETY: `lines` holds at least `len` elements of initialised bytes, which are valid for a `Pod` type.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    /// The elements, to be written.
    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as in `as_slice`, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }

    /// `from`, then zeros up to `len`.
    pub(super) fn padded(from: &[T], len: usize) -> Self {
        let mut new = Self::zeros(len.max(from.len()));
        new.as_mut_slice()[..from.len()].copy_from_slice(from);
        new
    }
}
