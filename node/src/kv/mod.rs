//! The key-value state: revisions, ranges, transactions. Synchronous, deterministic, without I/O and without a clock.
//!
//! A request is first found valid by itself ([`check`]), where it comes in; then [`Store`] answers it at its place in the
//! log, the same on every member. What the state holds is the [`history`] of all versions in the order of their revisions;
//! the [`index`] says which of them is the newest of each key. A [`compaction`] takes effect at once; what it leaves without use is
//! removed later, in pieces, and nobody can tell when. A [`snapshot`] is the state as bytes, the same on every member.

pub mod check;
mod compaction;
mod history;
mod index;
mod keys;
mod overlap;
mod points;
mod range;
mod rebuild;
pub mod records;
pub mod revision;
mod segment;
pub mod snapshot;
mod store;
#[cfg(test)]
mod tests;
mod txn;

use quorate_api::etcdserverpb as pb;

use crate::level::Level;

pub use self::compaction::Collected;
pub use self::points::SnapshotPolicy;
pub use self::range::RangeScan;
pub use self::rebuild::{Rebuild, RebuildError};
pub use self::store::{Incarnation, Store};
pub use self::txn::ReadTxn;

/// What an applied command answers. Headers carry the revision only; who answers fills in the rest.
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    /// To a put.
    Put(pb::PutResponse),
    /// To a deletion.
    DeleteRange(pb::DeleteRangeResponse),
    /// To a transaction.
    Txn(pb::TxnResponse),
    /// To a compaction.
    Compact(pb::CompactionResponse),
    /// To a raise of the level: the level of the state from now on.
    RaiseLevel(Level),
}

/// Why a request is refused by the state. The same on every member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// The revision asked for has been compacted.
    #[error("the revision has been compacted")]
    Compacted,
    /// The revision asked for does not exist yet.
    #[error("the revision is in the future")]
    FutureRevision,
    /// A put wants to keep the value or the lease of a key that does not exist.
    #[error("the key to keep a value or lease of does not exist")]
    KeyNotFound,
    /// A put names a lease that does not exist.
    #[error("the lease does not exist")]
    LeaseNotFound,
}

/// A header that says the revision.
fn header(revision: i64) -> pb::ResponseHeader {
    pb::ResponseHeader { revision, ..pb::ResponseHeader::default() }
}
