//! Where a test lets a thread panic, to see what becomes of the process.
//!
//! No input makes a thread of ours panic for certain, or it would be mended; and that the process survives none of it
//! unseen has to be shown for each thread. It is compiled with debug assertions only, which no release has, and does
//! nothing without the variable.

/// Names a file; the threads whose names are its lines panic, once it is there.
#[cfg(debug_assertions)]
const VARIABLE: &str = "CLAPD_TEST_PANIC";

/// Panics where a test wants the thread of this name to.
#[cfg(debug_assertions)]
#[expect(clippy::panic, reason = "that is what it is for, and no release has it")]
pub fn panic_if_asked(thread: &str) {
    let Some(path) = std::env::var_os(VARIABLE) else { return };
    if std::fs::read_to_string(path).is_ok_and(|names| names.lines().any(|name| name == thread)) {
        panic!("a test wants it");
    }
}

/// Does nothing: this is no test build.
#[cfg(not(debug_assertions))]
pub fn panic_if_asked(_: &str) {}
