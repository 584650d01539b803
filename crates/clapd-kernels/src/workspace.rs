//! Memory that runs reuse, one [`Scratch`] for each thread, and the threads themselves, which end with each run.
//!
//! What a piece of work computes depends on the piece alone, so results are the same for any number of threads. A piece
//! that panics makes the run an error: what the layer wrote so far is no result.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, Builder};

use anyhow::{Result, bail};

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
    ///
    /// # Errors
    /// A piece that panicked: what was written so far is no result. The next run may go well.
    pub(super) fn run_pieces(
        &mut self,
        pieces: usize,
        work: impl Fn(usize, &mut Scratch) -> bool + Sync,
    ) -> Result<bool> {
        let threads = self.scratches.len().min(pieces).max(1);
        let share = |t: usize| (t * pieces / threads)..((t + 1) * pieces / threads);
        let run = |t: usize, scratch: &mut Scratch| share(t).fold(true, |all, piece| work(piece, scratch) & all);
        // None where a piece panicked. What it left in the scratch is replaced below, and its rows are nobody's result.
        let run = |t: usize, scratch: &mut Scratch| catch_unwind(AssertUnwindSafe(|| run(t, scratch))).ok();
        let (own, others) = self.scratches.split_at_mut(1);
        let own = &mut own[0];
        let done = if threads == 1 {
            run(0, own)
        } else {
            thread::scope(|scope| {
                let run = &run;
                let (mut here, mut elsewhere) = (vec![0], Vec::with_capacity(threads - 1));
                for (t, scratch) in (1..threads).zip(others) {
                    match Builder::new().spawn_scoped(scope, move || run(t, scratch)) {
                        Ok(thread) => elsewhere.push(thread),
                        // A limit of the process or the service allows no more threads: slower is better than not at all.
                        Err(_) => here.push(t),
                    }
                }
                let here: Vec<_> = here.into_iter().map(|t| run(t, own)).collect();
                let elsewhere = elsewhere.into_iter().map(|thread| thread.join().ok().flatten());
                here.into_iter().chain(elsewhere).try_fold(true, |all, done| Some(done? & all))
            })
        };
        let Some(all) = done else {
            // Half a step may have been done in any of them.
            self.scratches.fill_with(Scratch::default);
            bail!("a layer panicked while it computed, which is a fault in clapd")
        };
        Ok(all)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_that_panics_is_an_error_on_any_thread_and_the_next_run_goes_well() {
        for threads in 1..=4 {
            for bad in 0..8 {
                let mut workspace = Workspace::new(threads);
                let panicked = workspace.run_pieces(8, |piece, _| {
                    assert!(piece != bad, "piece {piece} of {threads} threads, as this test wants it");
                    true
                });
                assert!(panicked.unwrap_err().to_string().contains("panicked"), "{threads} threads, piece {bad}");
                assert!(workspace.run_pieces(8, |_, _| true).unwrap());
                assert!(!workspace.run_pieces(8, |piece, _| piece != bad).unwrap());
            }
        }
    }

    #[test]
    fn every_piece_is_done_once() {
        for (threads, pieces) in [(1, 0), (1, 5), (3, 2), (3, 7), (4, 4)] {
            let mut done = vec![0.0; pieces];
            let rows = DisjointRows::new(&mut done);
            let all = Workspace::new(threads).run_pieces(pieces, |piece, _| {
                // SAFETY: there is a float for each piece, and a piece is one thread's.
                unsafe { *rows.as_ptr().add(piece) += 1.0 };
                true
            });
            assert!(all.unwrap() && done.iter().all(|times| *times == 1.0), "{threads} threads: {done:?}");
        }
    }
}
