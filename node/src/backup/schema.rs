//! The names that etcd 3.7 gives to what it stores.

/// Buckets, in the order in which they stand in the file.
pub(super) const ALARM: &[u8] = b"alarm";
pub(super) const AUTH: &[u8] = b"auth";
pub(super) const AUTH_ROLES: &[u8] = b"authRoles";
pub(super) const AUTH_USERS: &[u8] = b"authUsers";
pub(super) const CLUSTER: &[u8] = b"cluster";
pub(super) const KEY: &[u8] = crate::kv::etcd::BUCKET;
pub(super) const LEASE: &[u8] = b"lease";
pub(super) const MEMBERS: &[u8] = b"members";
pub(super) const MEMBERS_REMOVED: &[u8] = b"members_removed";
pub(super) const META: &[u8] = b"meta";

/// In `auth`: one byte, 1 if clients have to say who they are.
pub(super) const AUTH_ENABLED: &[u8] = b"authEnabled";

/// In `cluster`: the version of etcd whose features are in use.
pub(super) const CLUSTER_VERSION: &[u8] = b"clusterVersion";

/// In `meta`: the configuration of Raft, as JSON.
pub(super) const CONF_STATE: &[u8] = b"confState";
/// The last entry that is applied, and its term: 8 bytes each, the most significant first.
pub(super) const CONSISTENT_INDEX: &[u8] = b"consistent_index";
pub(super) const TERM: &[u8] = b"term";
/// The revision of the last compaction: once it has begun, and once all is removed.
pub(super) const SCHEDULED_COMPACT: &[u8] = b"scheduledCompactRev";
pub(super) const FINISHED_COMPACT: &[u8] = b"finishedCompactRev";
pub(super) const STORAGE: &[u8] = b"storageVersion";

/// The version of etcd whose storage the file is.
pub const STORAGE_VERSION: &str = "3.7.0";

/// Bytes of the hash behind the database.
pub const HASH_BYTES: u64 = 32;

/// Whether a file of so many bytes has a hash behind the database: that is made of whole pages.
pub fn has_hash(bytes: u64) -> bool {
    bytes % 512 == HASH_BYTES
}

/// A lease, in `lease` by its ID in 8 bytes, the most significant first.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Lease {
    #[prost(int64, tag = "1")]
    pub(super) id: i64,
    /// For how long it lives when nothing is heard, in seconds.
    #[prost(int64, tag = "2")]
    pub(super) ttl: i64,
    /// How much of that is left, where an etcd keeps it. Here each has its whole time again.
    #[prost(int64, tag = "3")]
    pub(super) left: i64,
}
