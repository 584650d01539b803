//! The program `clapd`. The library's `cli` does everything.

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::ExitCode;

fn main() -> ExitCode {
    clapd::cli::main()
}
