//! A state of what the database of an etcd holds.
//!
//! Every key keeps its revisions, its versions and its lease, each lease has its whole time again, and what was compacted stays so. What belongs to the old cluster is left behind:
//! its members, and its alarms, which are raised by them.

use bytes::Bytes;
use prost::Message as _;
use quorate_api::snapshot as wire;
use quorate_raft::LogId;

use super::schema::{
    ALARM, AUTH, AUTH_ENABLED, AUTH_USERS, FINISHED_COMPACT, KEY, LEASE, Lease, META, SCHEDULED_COMPACT,
};
use crate::bolt::{BadFile, Bucket, Database, Storage};
use crate::kv::revision::INITIAL;
use crate::kv::{Rebuild, RebuildError, Store, etcd, records};
use crate::leases::MAX_TTL;
use crate::level::NEWEST;

/// Why there is no state in a database.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] BadFile),
    /// It has no versions.
    #[error("it is a database, but not of an etcd of version 3: it has no bucket \"key\"")]
    NotEtcd,
    /// An entry of the bucket `key` is none.
    #[error("the change number {0} in it is none that etcd makes")]
    Change(u64),
    /// A lease is none.
    #[error("the lease number {0} in it is none that etcd makes")]
    Lease(u64),
    /// A compacted revision is none.
    #[error("it does not say what was compacted in the way that etcd does")]
    Compaction,
    /// A key and its value are more than a request may have here.
    #[error(
        "revision {revision} holds a key with its value of {bytes} bytes, and no more than {most} are taken: delete it, or make it smaller, \
         compact, and save another snapshot"
    )]
    TooLarge {
        /// Which.
        revision: i64,
        /// What they have.
        bytes: usize,
        /// The most that is taken.
        most: usize,
    },
    /// All entries are some, and together they are no state.
    #[error(transparent)]
    Impossible(#[from] RebuildError),
}

/// What a database holds.
#[derive(Debug)]
pub struct Contained {
    /// The state.
    pub store: Store,
    /// How many changes of keys it holds: with those that a compaction was to remove.
    pub changes: u64,
    /// How many leases keys hang on that it does not hold. An etcd never ends them: in the state they have the longest time that there is.
    pub missing_leases: usize,
    /// How many users.
    pub users: u64,
    /// Whether clients have to say who they are.
    pub auth_enabled: bool,
    /// How many alarms were raised.
    pub alarms: u64,
}

/// Reads all of `database`. It needs the memory of the state, and some pages.
pub fn restore<S: Storage>(database: &Database<S>) -> Result<Contained, RestoreError> {
    let buckets = database.buckets()?;
    let find = |name: &[u8]| buckets.iter().find(|(found, _)| *found == name).map(|(_, bucket)| bucket);
    let value =
        |bucket: &[u8], key: &[u8]| find(bucket).map_or(Ok(None), |found| value(database, found, key));
    let count = |name: &[u8]| find(name).map_or(Ok(0), |found| count(database, found));

    let compacted = |key| match value(META, key)? {
        Some(value) => etcd::revision_of(&value).map(Some).ok_or(RestoreError::Compaction),
        None => Ok(None),
    };
    // One that has begun is done when an etcd starts.
    let compacted = compacted(FINISHED_COMPACT)?.max(compacted(SCHEDULED_COMPACT)?);
    let key = find(KEY).ok_or(RestoreError::NotEtcd)?;
    let mut rebuild = Rebuild::default();
    find(LEASE).map_or(Ok(()), |bucket| leases(database, bucket, &mut rebuild))?;
    let (changes, newest) = versions(database, key, &mut rebuild)?;
    let missing = rebuild.missing_leases();
    for lease in &missing {
        rebuild.grant(*lease, MAX_TTL);
    }
    let store = state(rebuild, newest, compacted)?;
    let auth_enabled = value(AUTH, AUTH_ENABLED)?.is_some_and(|value| value[..] == [1]);
    let (users, alarms) = (count(AUTH_USERS)?, count(ALARM)?);
    Ok(Contained { store, changes, missing_leases: missing.len(), users, auth_enabled, alarms })
}

fn leases<S: Storage>(
    database: &Database<S>,
    bucket: &Bucket,
    rebuild: &mut Rebuild,
) -> Result<(), RestoreError> {
    let mut entries = database.entries(bucket);
    while let Some((key, value)) = entries.next()? {
        let none = RestoreError::Lease(rebuild.leases() + 1);
        let Ok(Lease { id, ttl, .. }) = Lease::decode(value) else { return Err(none) };
        if id == 0 || key[..] != id.to_be_bytes() || !(1..=MAX_TTL).contains(&ttl) {
            return Err(none);
        }
        rebuild.grant(id, ttl);
    }
    Ok(())
}

/// How many changes there are, and the newest revision.
fn versions<S: Storage>(
    database: &Database<S>,
    bucket: &Bucket,
    rebuild: &mut Rebuild,
) -> Result<(u64, i64), RestoreError> {
    let (mut entries, mut changes, mut newest) = (database.entries(bucket), 0, INITIAL);
    while let Some((key, value)) = entries.next()? {
        changes += 1;
        let version = etcd::version_of(&key, value).ok_or(RestoreError::Change(changes))?;
        newest = newest.max(version.revision);
        // A restore of etcd's puts a revision of no key, to leave some out.
        if version.key.is_empty() {
            continue;
        }
        records::check(&version).map_err(|too_long| RestoreError::TooLarge {
            revision: version.revision,
            bytes: too_long.0,
            most: records::MAX_RECORD_BYTES,
        })?;
        rebuild.push(&version)?;
    }
    Ok((changes, newest))
}

fn state(rebuild: Rebuild, newest: i64, compacted: Option<i64>) -> Result<Store, RestoreError> {
    let leases = rebuild.leases();
    let state = wire::State {
        revision: newest.max(compacted.unwrap_or(INITIAL)),
        compacted: compacted.unwrap_or(-1),
        level: NEWEST,
        deletions: compacted.unwrap_or(0),
        grants: leases,
        leases,
        ..wire::State::default()
    };
    let store = rebuild.finish(&state, LogId::default())?;
    store.check_versions()?;
    Ok(store)
}

fn value<S: Storage>(
    database: &Database<S>,
    bucket: &Bucket,
    wanted: &[u8],
) -> Result<Option<Bytes>, RestoreError> {
    let mut entries = database.entries(bucket);
    while let Some((key, value)) = entries.next()? {
        if key == wanted {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

fn count<S: Storage>(database: &Database<S>, bucket: &Bucket) -> Result<u64, RestoreError> {
    let (mut entries, mut count) = (database.entries(bucket), 0);
    while entries.next()?.is_some() {
        count += 1;
    }
    Ok(count)
}
