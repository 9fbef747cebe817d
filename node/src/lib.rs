//! A node of Quorate: the Raft protocol with a disk under it and a key-value store above it, served over the etcd v3 API.

pub mod address;
mod admin;
pub mod backup;
pub mod bolt;
pub mod cli;
pub mod codec;
pub mod command;
pub mod copy;
pub mod ctl;
pub mod doors;
pub mod found;
pub mod http;
pub mod kv;
pub mod leases;
pub mod level;
pub mod metrics;
mod net;
mod peer;
pub mod process;
pub mod recover;
pub mod replica;
pub mod retention;
pub mod rpc;
pub mod server;
pub mod snapshots;
pub mod storage;
pub mod tls;

#[doc(hidden)]
pub use peer::is_message;
pub use peer::{own_process, registry, terms};
