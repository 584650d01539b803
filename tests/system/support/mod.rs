//! What the tests share: brokers, sound servers, daemons, faults.

pub mod broker;
pub mod certificates;
pub mod faults;
pub mod http;
pub mod node;
pub mod setup_run;
pub mod sound_card;
pub mod sound_server;
pub mod stream_server;
