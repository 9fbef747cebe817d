//! The key-value state: revisions, ranges, transactions. Synchronous, deterministic, without I/O and without a clock.
//!
//! A request is first found valid by itself ([`check`]), where it comes in; then it is applied ([`Applying`]) at its place in the
//! log, the same on every member. What the state holds is the [`history`] of all versions in the order of their revisions;
//! the [`index`] says which of them is the newest of each key. A [`compaction`] takes effect at once; what it leaves without use is
//! removed later, in pieces, and it cannot be told when. A [`snapshot`] is the state as bytes, the same on every member.
//!
//! The state is shared by those that read it and the one that applies, under a lock. No piece of work holds that for more than
//! [`MAX_STEPS`] steps, however large the state is and whatever is asked: ranges, compares, deletions, removal and snapshots are all
//! done in pieces. What a reader has begun it reads at one point of the history, which it pins (`pins`). What a writing transaction is
//! to read is not read where it is applied, but [afterwards](Reply), by the one member that was asked.

mod alarms;
mod applying;
mod changes;
pub mod check;
mod compaction;
mod compares;
mod contents;
pub mod etcd;
mod garbage;
mod growth;
mod hash;
mod history;
mod index;
mod keys;
mod late;
mod leasing;
mod overlap;
mod pins;
mod points;
mod range;
mod read_txn;
mod rebuild;
pub mod records;
pub mod revision;
mod segment;
mod sizes;
pub mod snapshot;
mod steps;
mod store;
#[cfg(test)]
mod tests;
mod txn;
mod version;
mod writer;

use quorate_api::etcdserverpb as pb;

use crate::level::Level;

pub use self::applying::Applying;
pub use self::changes::{Change, Changes, Interrupted};
pub use self::compaction::Collected;
pub use self::contents::Contents;
pub use self::garbage::Garbage;
pub use self::growth::growth;
pub use self::hash::{HashedRevision, RevisionHash};
pub use self::late::Reply;
pub use self::points::SnapshotPolicy;
pub use self::range::RangeScan;
pub use self::read_txn::ReadTxn;
pub use self::rebuild::{Rebuild, RebuildError};
#[cfg(test)]
pub(crate) use self::steps::looks;
pub use self::steps::{BYTES_OF_A_STEP, MAX_STEPS};
pub use self::store::{Incarnation, Store};

/// What an applied command answers. Headers carry the revision only; the service fills in the rest.
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
    /// To an alarm.
    Alarm(pb::AlarmResponse),
    /// To the grant of a lease.
    LeaseGrant(pb::LeaseGrantResponse),
    /// To the end of a lease.
    LeaseRevoke(pb::LeaseRevokeResponse),
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
    /// A put, or whoever ends one, names a lease that does not exist.
    #[error("the lease does not exist")]
    LeaseNotFound,
    /// A lease is to be granted with the ID of one that exists.
    #[error("the lease exists")]
    LeaseExists,
    /// NOSPACE is raised: nothing is put until it is disarmed.
    #[error("the alarm NOSPACE is raised")]
    NoSpace,
    /// The ranges that a writing transaction compares have too many keys.
    #[error("the transaction compares too many keys")]
    TooManyCompared,
    /// So many alarms of the kind are raised that another is not.
    #[error("too many alarms are raised")]
    TooManyAlarms,
}

/// A header that says the revision.
fn header(revision: i64) -> pb::ResponseHeader {
    pb::ResponseHeader { revision, ..pb::ResponseHeader::default() }
}
