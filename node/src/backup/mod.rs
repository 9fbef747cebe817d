//! The state as a file of etcd's, and back: what `etcdctl snapshot save` gets, and what `raftctl snapshot restore` reads.
//!
//! It is the database of an etcd (a [`bolt`](crate::bolt) file) with the SHA-256 of it behind. What stands in which bucket is in [`rows`].

mod file;
mod hash;
mod restore;
mod rows;
mod schema;
#[cfg(test)]
mod tests;

pub use file::{Backup, BackupError};
pub use hash::BackendHash;
pub use restore::{Contained, RestoreError, restore};
pub use rows::{Cluster, Member};
pub use schema::{HASH_BYTES, STORAGE_VERSION, has_hash};
