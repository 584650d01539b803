//! clapd: listens, scores, tells. The library's `cli` does the rest.

use std::process::ExitCode;

fn main() -> ExitCode {
    clapd::cli::main()
}
