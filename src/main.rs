//! clapd.
fn main() {}
