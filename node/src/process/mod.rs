//! The process of a node: what is put together at its start, and taken apart in order at its end.
//!
//! The wiring of everything else; nothing else knows this room.

mod addresses;
mod ask;
mod clients;
mod disks;
mod error;
mod handover;
mod join;
pub mod log;
mod members;
mod memory;
mod node;
mod notify;
mod peer_port;
mod runtime;
mod stop;

pub use error::{Exit, RunError};
pub use join::JoinError;
pub use node::run;
