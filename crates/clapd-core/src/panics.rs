//! Panics of the libraries that read files of anyone, turned into errors.

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Result, anyhow};

/// Runs `work`; a panic in it becomes the error `message`. What panicked must not be used again.
pub(crate) fn catch_panic<T>(message: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(anyhow!(message)))
}
