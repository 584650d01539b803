//! The newest samples of a stream, found by their position since it began.

/// A ring of samples; sample `p` of the stream lies at `p % capacity`.
pub(super) struct SampleRing {
    data: Vec<f32>,
    end: u64,
}

impl SampleRing {
    /// A ring that keeps the newest `capacity` samples.
    pub(super) fn new(capacity: usize) -> Self {
        Self { data: vec![0.0; capacity.max(1)], end: 0 }
    }

    /// How many samples have come so far.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The oldest position that can still be read.
    pub(super) fn begin(&self) -> u64 {
        self.end.saturating_sub(self.data.len() as u64)
    }

    /// Appends samples, at most `capacity` of them.
    pub(super) fn append(&mut self, samples: &[f32]) {
        let at = self.index(self.end);
        let (first, second) = samples.split_at(samples.len().min(self.data.len() - at));
        self.data[at..at + first.len()].copy_from_slice(first);
        self.data[..second.len()].copy_from_slice(second);
        self.end += samples.len() as u64;
    }

    /// Moves on by `count` samples without writing them; the caller then appends at least `capacity` samples before it
    /// reads.
    pub(super) fn skip(&mut self, count: u64) {
        self.end += count;
    }

    /// Copies the samples from position `begin` on into `out`; all of them are still in the ring.
    pub(super) fn copy(&self, begin: u64, out: &mut [f32]) {
        let at = self.index(begin);
        let (first, second) = out.split_at_mut(out.len().min(self.data.len() - at));
        first.copy_from_slice(&self.data[at..at + first.len()]);
        second.copy_from_slice(&self.data[..second.len()]);
    }

    /// The sample at a position that is still in the ring.
    pub(super) fn get(&self, position: u64) -> f32 {
        self.data[self.index(position)]
    }

    fn index(&self, position: u64) -> usize {
        (position % self.data.len() as u64) as usize
    }
}
