//! What computes: an instruction set and a number of threads, chosen once and handed to whoever loads weights.
//!
//! It is no global: the value travels from the edge, which knows the environment and the configuration, to the place that packs
//! weights.

use std::thread::available_parallelism;

use anyhow::{Result, ensure};
use clapd_kernels::Isa;

/// More threads than this gain nothing: a CLAP's largest layer has 64 windows to share out.
const MAX_THREADS: usize = 64;

/// Instruction set and threads of our own kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compute {
    isa: Isa,
    threads: usize,
}

impl Compute {
    /// The kernel of this name (see [`Isa::choose`]), or the fastest that this CPU has, on `threads` threads.
    ///
    /// # Errors
    /// A kernel that is unknown or that the CPU lacks; a number of threads that is not 1 to 64.
    pub fn new(kernel: Option<&str>, threads: usize) -> Result<Self> {
        ensure!(
            (1..=MAX_THREADS).contains(&threads),
            "{threads} threads; 1 to {MAX_THREADS} are allowed, and more than this machine's {} gain nothing",
            available_parallelism().map_or(1, usize::from)
        );
        Ok(Self { isa: Isa::choose(kernel)?, threads })
    }

    /// Which instruction set.
    pub fn isa(self) -> Isa {
        self.isa
    }

    /// How many threads.
    pub fn threads(self) -> usize {
        self.threads
    }
}

impl Default for Compute {
    /// The fastest kernel, on one thread: a daemon shares its computer with others, and one thread is enough for one source.
    fn default() -> Self {
        Self { isa: Isa::available().first().copied().unwrap_or(Isa::Scalar), threads: 1 }
    }
}
