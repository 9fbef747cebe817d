//! The hash of all changes up to a revision, as etcd tells it (`HashKV`): equal histories have equal hashes, also here and there.
//!
//! It is the CRC-32C of the bucket's name and of all versions as etcd stores them ([`super::etcd`]), in the order of revisions. Of what was compacted
//! only that is in it which its key still holds at the revision asked for; unless no key holds anything there: then all that the compaction has left is,
//! but for deletions at the compacted revision itself. (etcd knows, until it starts again, what it has hashed in compacting, and tells that
//! of the compacted revisions. Nothing is kept here: such a revision has the hash that it has after a start.)

use parking_lot::RwLock;
use prost::Message as _;

use super::contents::Contents;
use super::keys::Keys;
use super::revision::Revision;
use super::steps::Steps;
use super::{KvError, Store, etcd};

/// Steps under one hold of the lock.
const STEPS: usize = 1024;

/// Bytes that are read under one hold.
const BYTES: usize = 256 << 10;

/// A hash in the making.
#[derive(Debug)]
pub struct RevisionHash {
    contents: Contents,
    revision: i64,
    /// Whether it is known if any key holds something at the revision.
    has_looked: bool,
    /// Keys up to this one hold nothing there.
    after: Option<Box<[u8]>>,
    hash: u32,
}

/// The hash of all changes up to a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashedRevision {
    /// CRC-32C.
    pub hash: u32,
    /// The revision up to which it goes.
    pub revision: i64,
    /// What was compacted; -1 for nothing.
    pub compacted: i64,
}

impl Store {
    /// Begins to hash all changes up to `revision`; 0 is the current one.
    pub fn hash_at(&self, revision: i64) -> Result<RevisionHash, KvError> {
        if revision > 0 && revision < self.compacted() {
            return Err(KvError::Compacted);
        }
        if revision > self.revision() {
            return Err(KvError::FutureRevision);
        }
        // A negative one is asked for by nobody; etcd takes it as it is, and hashes nothing.
        let revision = if revision == 0 { self.revision() } else { revision };
        let (contents, hash) = (self.contents(), crc32c::crc32c(etcd::BUCKET));
        Ok(RevisionHash { contents, revision, has_looked: false, after: None, hash })
    }
}

impl RevisionHash {
    /// Goes on, under one hold of the lock for some steps. The hash, at the end.
    ///
    /// Fails with [`KvError::Compacted`] if what it reads is gone: see [`Contents::read`].
    pub fn advance(&mut self, store: &RwLock<Store>) -> Result<Option<HashedRevision>, KvError> {
        if !self.has_looked {
            if let Some(held) = self.look(&store.read())? {
                self.contents.limit(self.revision, held);
                self.has_looked = true;
            }
            return Ok(None);
        }
        let versions = self.contents.read(&store.read(), BYTES)?;
        let compacted = self.contents.compacted();
        for version in &versions {
            if etcd::is_deletion(version) && version.revision == compacted {
                continue;
            }
            self.hash = crc32c::crc32c_append(self.hash, &etcd::revision_key(version));
            self.hash = crc32c::crc32c_append(self.hash, &etcd::stored(version).encode_to_vec());
        }
        let whole = HashedRevision { hash: self.hash, revision: self.revision, compacted };
        Ok(self.contents.is_read().then_some(whole))
    }

    /// Looks for a key that holds something at the revision. None while it is not known.
    fn look(&mut self, store: &Store) -> Result<Option<bool>, KvError> {
        self.contents.check(store)?;
        let (point, mut steps) = (Revision::end_of(self.revision), Steps::new(STEPS));
        let from = self.after.take();
        for (key, newest) in store.keys_at(Keys::From(&[]), from.as_deref(), point) {
            if store.history.at(newest, point, &mut steps).is_some() {
                return Ok(Some(true));
            }
            steps.take(1);
            if steps.are_used_up() {
                self.after = Some(key.into());
                return Ok(None);
            }
        }
        Ok(Some(false))
    }
}
