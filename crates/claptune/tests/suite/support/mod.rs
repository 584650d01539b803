//! What the tests stand on.

pub mod copy;
pub mod demo_ratings;
pub mod training;
