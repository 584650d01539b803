//! Memory that runs reuse, one [`Scratch`] for each thread, and the threads themselves, which end with each run.
//!
//! What a piece of work computes depends on the piece alone, so results are the same for any number of threads.

use super::scratch::Scratch;

/// Memory for runs of any layer. Make one for each thread that runs layers; it grows to what the largest needs.
pub struct Workspace {
    scratches: Vec<Scratch>,
}

impl Workspace {
    /// For runs that use up to `threads` threads, at least 1.
    pub fn new(threads: usize) -> Self {
        Self { scratches: (0..threads.max(1)).map(|_| Scratch::default()).collect() }
    }

    /// Threads that a run may use.
    pub fn threads(&self) -> usize {
        self.scratches.len()
    }

    /// The memory of the calling thread, for what runs on one.
    pub(super) fn first(&mut self) -> &mut Scratch {
        &mut self.scratches[0]
    }

    /// Does `work` for every piece in 0..`pieces`, each thread for an equal share of them. True if all gave true.
    pub(super) fn run_pieces(&mut self, pieces: usize, work: impl Fn(usize, &mut Scratch) -> bool + Sync) -> bool {
        let threads = self.scratches.len().min(pieces).max(1);
        let share = |t: usize| (t * pieces / threads)..((t + 1) * pieces / threads);
        let run = |t: usize, scratch: &mut Scratch| share(t).fold(true, |all, piece| work(piece, scratch) & all);
        let (own, others) = self.scratches.split_at_mut(1);
        if threads == 1 {
            return run(0, &mut own[0]);
        }
        std::thread::scope(|scope| {
            let run = &run;
            let others: Vec<_> =
                (1..threads).zip(others).map(|(t, scratch)| scope.spawn(move || run(t, scratch))).collect();
            let mine = run(0, &mut own[0]);
            // A thread that panicked has not done its work.
            others.into_iter().fold(mine, |all, other| other.join().unwrap_or(false) & all)
        })
    }
}

/// A pointer to rows that threads share; each writes rows that no other touches.
#[derive(Clone, Copy)]
pub(super) struct DisjointRows(*mut f32);
// SAFETY: whoever writes through the pointer sees to it that threads write disjoint rows.
unsafe impl Send for DisjointRows {}
// SAFETY: as above.
unsafe impl Sync for DisjointRows {}

impl DisjointRows {
    /// The rows of `x`.
    pub(super) fn new(x: &mut [f32]) -> Self {
        Self(x.as_mut_ptr())
    }

    /// Where they begin.
    pub(super) fn as_ptr(self) -> *mut f32 {
        self.0
    }
}
