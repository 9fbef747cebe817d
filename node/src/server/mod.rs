//! A running node: the one loop over a closed enum of events, and the threads and doors around it.
//!
//! | thread | does |
//! |---|---|
//! | main | the loop (the protocol, the state, who waits for what) and the connections to other members; admin, HTTP, signals |
//! | `wal` | writes and syncs the log |
//! | `snapshots` | writes and reads snapshots, at a pace that leaves the disk to the log |
//! | `copy` | where one is asked for: writes the copy of the state, behind everything else |
//! | `clients-N` | a runtime each: the client port's connections, dealt out among them |
//!
//! They meet in queues. The loop waits for none of the others.

mod archivist;
mod clients;
mod connection;
mod copyist;
mod disk;
mod driver;
mod enrolment;
pub(crate) mod event;
pub mod gateway;
mod gauge;
mod home;
mod lease_clock;
pub(crate) mod mailbox;
mod node;
mod publisher;
pub mod start;
pub mod view;

pub use node::{RunError, run};
