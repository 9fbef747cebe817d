//! The etcd v3 API, as far as it is served: each service checks what came in, hands it to the
//! [`Gateway`](crate::doors::gateway::Gateway), and completes the answer's header.
//!
//! Codes and texts of errors are etcd's: clients tell errors by them. All of them stand in [`error`].

mod arrival;
mod cluster;
mod downgrade;
mod error;
mod health;
mod keep_alive;
mod kv;
mod lease;
mod maintenance;
mod member;
mod messages;
mod pieces;
mod range_stream;
mod read;
#[cfg(test)]
mod served;
mod services;
mod snapshot;
mod streams;
#[cfg(test)]
mod tests;
mod unary;
mod watch;

pub use self::member::PeerScheme;
pub use self::services::{Bounds, Services, is_stream};
