//! The newest windows of one source: when each was, and its embedding.
//!
//! Embeddings are packed into 16 bits a number. Measured with `mini`, whose curve is the steepest there is (a score point for 0.015 of
//! cosine): 8 bits move a score by up to 0.24, and a window across its threshold; 16 bits by 0.0012; half floats by 0.0014, and
//! not every processor converts those.

use clapd_core::time::SampleTime;
use clapd_core::vector::{dot_packed, pack, unpack};

/// Windows that are copied at a time: the source's thread waits for such a copy at the most, a tenth of a millisecond.
const BATCH: usize = 128;

/// How a window follows the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// It goes on.
    Continues,
    /// Nothing was heard for so long that open events ended with the window before.
    Interrupted,
    /// Another detector began with it, which knows nothing of what was before.
    Anew,
}

/// What is stored of a window beside its embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct StoredWindow {
    /// When it ended: milliseconds on a clock that nobody sets.
    pub(super) at: i64,
    pub(super) start: SampleTime,
    pub(super) end: SampleTime,
    pub(super) lost: f32,
    /// It was silent: it has no embedding, and scores 0.
    pub(super) gated: bool,
    pub(super) link: Link,
}

/// The newest windows, up to a number of them.
#[derive(Debug)]
pub(super) struct Ring {
    width: usize,
    capacity: usize,
    /// Where they are full, window number n lies at the place n modulo the capacity.
    windows: Vec<(StoredWindow, f32)>,
    codes: Vec<i16>,
    /// The number of the next window.
    next: u64,
}

/// Windows as they are read.
#[derive(Debug, Default)]
pub(super) struct Batch {
    windows: Vec<(StoredWindow, f32)>,
    codes: Vec<i16>,
    row: Vec<f32>,
}

impl Ring {
    /// An empty one for `capacity` windows with embeddings of `width` numbers. Memory is taken as it fills.
    pub(super) fn new(width: usize, capacity: usize) -> Self {
        Self { width, capacity: capacity.max(1), windows: Vec::new(), codes: Vec::new(), next: 0 }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes of a window.
    pub(super) fn window_bytes(width: usize) -> usize {
        width * size_of::<i16>() + size_of::<(StoredWindow, f32)>()
    }

    /// The same windows in a ring with room for others, as many of the newest as there is room for.
    pub(super) fn with_capacity(&self, capacity: usize) -> Self {
        let mut ring = Self::new(self.width, capacity);
        if !self.windows.is_empty() {
            ring.reserve();
        }
        let kept = self.windows.len().min(ring.capacity);
        for number in self.next - kept as u64..self.next {
            let place = self.place(number);
            ring.windows.push(self.windows[place]);
            ring.codes.extend_from_slice(&self.codes[place * self.width..][..self.width]);
        }
        // Numbers begin anew, since places follow from them.
        ring.next = kept as u64;
        ring
    }

    /// In one piece, so that growing takes no memory for a copy.
    fn reserve(&mut self) {
        self.windows.reserve_exact(self.capacity);
        self.codes.reserve_exact(self.capacity * self.width);
    }

    fn place(&self, number: u64) -> usize {
        // The remainder is smaller than a number of places.
        (number % self.capacity as u64) as usize
    }

    /// Takes a window, in the place of the oldest where there is no room. An embedding of another width counts as none.
    pub(super) fn push(&mut self, window: StoredWindow, embedding: Option<&[f32]>) {
        if self.windows.is_empty() {
            self.reserve();
        }
        let place = self.place(self.next);
        self.next += 1;
        let mut packed = Vec::with_capacity(self.width);
        let scale = embedding.filter(|it| it.len() == self.width).map_or(0.0, |embedding| pack(embedding, &mut packed));
        packed.resize(self.width, 0);
        if place == self.windows.len() {
            self.windows.push((window, scale));
            self.codes.extend_from_slice(&packed);
        } else {
            self.windows[place] = (window, scale);
            self.codes[place * self.width..][..self.width].copy_from_slice(&packed);
        }
    }

    /// Copies windows from number `from` on, as many as a batch has, of those for which `is_wanted` holds of their time. Returns the
    /// number to go on with; none where there are no more. Windows that are gone meanwhile are left out.
    pub(super) fn read(&self, from: u64, is_wanted: impl Fn(i64) -> bool, batch: &mut Batch) -> Option<u64> {
        batch.windows.clear();
        batch.codes.clear();
        let mut number = from.max(self.next - self.windows.len() as u64);
        while number < self.next && batch.windows.len() < BATCH {
            let place = self.place(number);
            if is_wanted(self.windows[place].0.at) {
                batch.windows.push(self.windows[place]);
                batch.codes.extend_from_slice(&self.codes[place * self.width..][..self.width]);
            }
            number += 1;
        }
        (number < self.next).then_some(number)
    }

    /// Windows whose time is from `from` to `to`.
    pub(super) fn count(&self, from: i64, to: i64) -> usize {
        self.windows.iter().filter(|(window, _)| (from..=to).contains(&window.at)).count()
    }

    /// The newest window with its embedding; none where there is none, or it has none.
    pub(super) fn newest(&self) -> Option<(StoredWindow, Vec<f32>)> {
        let place = self.place(self.next.checked_sub(1)?);
        let (window, scale) = self.windows[place];
        let mut embedding = vec![0.0; self.width];
        unpack(&self.codes[place * self.width..][..self.width], scale, &mut embedding);
        (!window.gated).then_some((window, embedding))
    }
}

impl Batch {
    /// Each window with the cosine of its embedding and this unit vector, which is 0 where it has none.
    pub(super) fn for_each_cosine(&self, vector: &[f32], mut take: impl FnMut(&StoredWindow, f32)) {
        let width = self.codes.len() / self.windows.len().max(1);
        for ((window, scale), codes) in self.windows.iter().zip(self.codes.chunks_exact(width.max(1))) {
            take(window, dot_packed(codes, *scale, vector));
        }
    }

    /// Each window with its embedding, which is zero where it has none.
    pub(super) fn for_each(&mut self, mut take: impl FnMut(&StoredWindow, &[f32])) {
        let width = self.codes.len() / self.windows.len().max(1);
        self.row.resize(width, 0.0);
        for ((window, scale), codes) in self.windows.iter().zip(self.codes.chunks_exact(width.max(1))) {
            unpack(codes, *scale, &mut self.row);
            take(window, &self.row);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WIDTH: usize = 3;

    fn window(number: u16) -> StoredWindow {
        let [start, end] = [0, 2].map(|later| SampleTime::from_samples(u64::from(number) + later, 1));
        StoredWindow { at: i64::from(number), start, end, lost: 0.0, gated: false, link: Link::Continues }
    }

    fn read_all(ring: &Ring, is_wanted: impl Fn(i64) -> bool) -> Vec<(i64, Vec<f32>)> {
        let (mut batch, mut all, mut next) = (Batch::default(), Vec::new(), Some(0));
        while let Some(number) = next {
            next = ring.read(number, &is_wanted, &mut batch);
            batch.for_each(|window, row| all.push((window.at, row.to_vec())));
        }
        all
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(bool),
        Resize(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            60 => any::<bool>().prop_map(Step::Push),
            1 => (1_usize..400).prop_map(Step::Resize),
        ];
        prop::collection::vec(step, 0..800)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The model is a plain list, cut to its end.
        #[test]
        fn a_ring_holds_the_newest_windows_in_order(steps in steps(), capacity in 1_usize..300, from in 0_i64..800) {
            let (mut ring, mut capacity, mut list) = (Ring::new(WIDTH, capacity), capacity, Vec::new());
            for (number, step) in (0_u16..).zip(steps) {
                match step {
                    Step::Push(encoded) => {
                        let embedding = [0.5, -1.0, f32::from(number) / 1_000.0];
                        ring.push(StoredWindow { gated: !encoded, ..window(number) }, encoded.then_some(&embedding));
                        list.push((i64::from(number), if encoded { embedding } else { [0.0; WIDTH] }));
                    }
                    Step::Resize(other) => {
                        capacity = other;
                        ring = ring.with_capacity(capacity);
                    }
                }
                list.drain(..list.len().saturating_sub(capacity));
                prop_assert!(ring.codes.capacity() <= capacity * WIDTH && ring.windows.capacity() <= capacity);
            }
            let wanted: Vec<_> = list.iter().filter(|(at, _)| *at >= from).collect();
            let read = read_all(&ring, |at| at >= from);
            prop_assert_eq!(read.len(), wanted.len());
            for ((at, row), (expected, embedding)) in read.iter().zip(wanted) {
                prop_assert_eq!(at, expected);
                prop_assert!(row.iter().zip(embedding).all(|(x, y)| (x - y).abs() < 1e-4), "{:?} {:?}", row, embedding);
            }
        }
    }

    #[test]
    fn what_is_overwritten_while_it_is_read_is_left_out() {
        let mut ring = Ring::new(WIDTH, BATCH + 50);
        (0..BATCH as u16 + 50).for_each(|number| ring.push(window(number), None));
        let mut batch = Batch::default();
        let next = ring.read(0, |_| true, &mut batch);
        assert_eq!(next, Some(BATCH as u64));
        // All that was there, and some more.
        (0..BATCH as u16 + 70).for_each(|number| ring.push(window(number), None));
        ring.read(next.unwrap(), |_| true, &mut batch);
        let mut first = None;
        batch.for_each(|window, _| {
            first.get_or_insert(window.at);
        });
        assert_eq!(first, Some(20));
    }
}
