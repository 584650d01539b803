//! claptune.
fn main() {}
