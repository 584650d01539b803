//! claptune: makes model bundles for clapd, on a host.

#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::ExitCode;

fn main() -> ExitCode {
    claptune::cli::main()
}
