//! Memory that runs reuse, one share for each thread, and the threads themselves.
//!
//! In: how many pieces of work there are. Out: every piece done once, by whichever thread.
//! What a piece computes depends on the piece alone, so results are the same for any number of threads.
//! Never: keeps a thread between runs.

use super::attention::Room;
use super::buffer::Aligned;
use super::norm::Rows;

/// One thread's memory.
#[derive(Default)]
pub(super) struct Scratch {
    /// What goes into a linear.
    pub(super) input: Rows,
    /// Queries, keys and values, row by row.
    pub(super) qkv: Aligned<f32>,
    /// What attention makes.
    pub(super) context: Rows,
    /// Between the two linears of a block.
    pub(super) hidden: Rows,
    pub(super) room: Room,
    /// A row of biases of scores.
    pub(super) bias: Aligned<f32>,
    /// Where the rows of the present piece lie.
    pub(super) places: Vec<usize>,
    /// Where rows lie that stand one behind the other.
    pub(super) dense: Vec<usize>,
}

/// Memory for runs of any layer. Make one for each thread that runs layers; it grows to what the largest needs.
pub struct Workspace {
    pub(super) shares: Vec<Scratch>,
}

impl Workspace {
    /// For runs that use up to `threads` threads, at least 1.
    pub fn new(threads: usize) -> Self {
        Self { shares: (0..threads.max(1)).map(|_| Scratch::default()).collect() }
    }

    /// Threads that a run may use.
    pub fn threads(&self) -> usize {
        self.shares.len()
    }

    /// Does `work` for every piece in 0..`pieces`, each thread for an equal share of them. True if all gave true.
    pub(super) fn each(&mut self, pieces: usize, work: impl Fn(usize, &mut Scratch) -> bool + Sync) -> bool {
        let threads = self.shares.len().min(pieces).max(1);
        let share = |t: usize| (t * pieces / threads)..((t + 1) * pieces / threads);
        let run = |t: usize, scratch: &mut Scratch| share(t).fold(true, |all, piece| work(piece, scratch) & all);
        let (own, others) = self.shares.split_at_mut(1);
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

/// A pointer that threads share; each writes rows that no other touches.
#[derive(Clone, Copy)]
pub(super) struct Shared(pub(super) *mut f32);
// SAFETY: whoever makes one sees to it that threads write disjoint rows.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}
