//! The program `clapd`. The library's `cli` does everything.

#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::ExitCode;

fn main() -> ExitCode {
    clapd::cli::main()
}
