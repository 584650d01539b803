//! claptune: makes model bundles for clapd, on a host.

use std::process::ExitCode;

fn main() -> ExitCode {
    clapd::tune::cli::main()
}
