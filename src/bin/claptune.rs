//! claptune: makes model bundles for clapd, on a host.

// Tests may; nothing that runs in a house does.
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::ExitCode;

fn main() -> ExitCode {
    clapd::tune::cli::main()
}
