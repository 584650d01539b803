//! clapd: listens, scores, tells. The library's `cli` does the rest.

// Tests may; nothing that runs in a house does.
#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::ExitCode;

fn main() -> ExitCode {
    clapd::cli::main()
}
