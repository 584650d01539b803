//! What the tests stand on.

pub mod copy;
pub mod study;
pub mod training;
