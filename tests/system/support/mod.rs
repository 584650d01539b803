//! What the tests stand on.

pub mod broker;
pub mod certificates;
pub mod faults;
pub mod node;
pub mod place;
pub mod sound_server;
