//! Compaction: history below a revision is given up.
//!
//! It takes effect at once, in its place in the log, and costs next to nothing there: from then on reads below that revision
//! fail. Versions that no read can reach any more are removed afterwards, in order of the revisions that made them useless, in pieces
//! as small as the caller wants ([`Store::collect`]). Which ones have gone already is nobody's business: answers, sizes in use and
//! snapshots are the same before and after, so members need not keep step.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use quorate_api::etcdserverpb as pb;

use super::history::{History, Position, Version};
use super::index::Index;
use super::{KvError, Store, header};

/// What has been given up, and how far it has been removed.
#[derive(Debug)]
pub(super) struct Compaction {
    /// Reads below this revision fail. -1 as long as nothing was compacted.
    pub(super) revision: i64,
    /// The first version that removal has not come to. Those before it that are still here are each the newest of its key as of
    /// the revision that removal has reached.
    pub(super) next: u64,
    /// A snapshot under way: what was kept as of this compaction stays.
    pin: Weak<Pin>,
    /// A copy of the state has the versions before this one, and has to hear of deletions behind it that are removed.
    pub(super) copied: Option<u64>,
    /// Such deletions.
    pub(super) buried: Vec<Version>,
}

impl Default for Compaction {
    fn default() -> Self {
        Self { revision: -1, next: 1, pin: Weak::new(), copied: None, buried: Vec::new() }
    }
}

/// Keeps what a compaction at this revision leaves, as long as it lives.
#[derive(Debug)]
pub(super) struct Pin(i64);

/// How far a piece of removal has brought it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collected {
    /// Nothing more is to be removed.
    All,
    /// There is more.
    More,
    /// There is more, for later: a snapshot under way still wants it.
    Held,
}

impl Store {
    /// Gives up the history below `revision`, as etcd does: reads at it are still answered.
    pub(super) fn compact(&mut self, revision: i64) -> Result<pb::CompactionResponse, KvError> {
        if revision <= self.compaction.revision {
            return Err(KvError::Compacted);
        }
        if revision > self.revision {
            return Err(KvError::FutureRevision);
        }
        self.sizes.kept -= self.history.obsolete_between(self.compaction.revision, revision);
        self.compaction.revision = revision;
        Ok(pb::CompactionResponse { header: Some(header(self.revision)) })
    }

    /// Removes what compactions have left without use, looking at up to `budget` versions (about a microsecond each). To be
    /// called when there is time: between applies, and while nothing else is to do.
    pub fn collect(&mut self, budget: usize) -> Collected {
        let target = self.compaction.pin.upgrade().map_or(self.compaction.revision, |pin| pin.0);
        for _ in 0..budget {
            let next = Position::new(self.compaction.next).expect("positions count from 1");
            match self.history.get(next).map(|version| version.modified.main) {
                Some(revision) if revision <= target => self.pass(next),
                Some(revision) if revision <= self.compaction.revision => return Collected::Held,
                // A state that was read from its copy has gaps where that holds what was deleted.
                None if next.number() < self.end() => self.compaction.next += 1,
                _ => return Collected::All,
            }
        }
        Collected::More
    }

    /// Has nothing removed that is kept as of now, until what is returned is dropped. `None` while another one lives.
    pub(super) fn pin(&mut self) -> Option<Arc<Pin>> {
        if self.compaction.pin.strong_count() > 0 {
            return None;
        }
        let pin = Arc::new(Pin(self.compaction.revision));
        self.compaction.pin = Arc::downgrade(&pin);
        Some(pin)
    }

    /// Whether `pin` is this state's.
    pub(super) fn is_pinned_by(&self, pin: &Arc<Pin>) -> bool {
        std::ptr::eq(self.compaction.pin.as_ptr(), Arc::as_ptr(pin))
    }

    /// Removes what the version at `at`, and whatever comes before it, makes useless: what it replaced, and itself if it is a
    /// deletion.
    fn pass(&mut self, at: Position) {
        let Store { index, history, sizes, compaction, .. } = self;
        compaction.next = at.number() + 1;
        let Some(version) = history.get_mut(at) else { return };
        let replaced = version.previous.take();
        if version.is_tombstone() {
            let deletion = remove_deletion(index, history, at, &mut sizes.held);
            let is_news = compaction.copied.is_some_and(|copied| at.number() >= copied);
            compaction.buried.extend(deletion.filter(|_| is_news));
        } else if index.get(&version.key) == Some(at) {
            version.own_bytes();
        }
        if let Some(replaced) = replaced.and_then(|replaced| history.remove(replaced)) {
            sizes.held -= replaced.size();
        }
    }
}

/// Removes a deletion, and the key with it if it was not put again.
fn remove_deletion(
    index: &mut Index,
    history: &mut History,
    at: Position,
    held: &mut u64,
) -> Option<Version> {
    let deletion = history.remove(at)?;
    *held -= deletion.size();
    if index.get(&deletion.key) == Some(at) {
        index.remove(&deletion.key);
    }
    Some(deletion)
}

impl Version {
    /// Gives the version a buffer of its own. Key and value share the buffer of the message that brought them, and that of many
    /// others: one version that stays would keep all of it.
    pub(super) fn own_bytes(&mut self) {
        let own = Bytes::from([&*self.key, &*self.value].concat());
        self.key = own.slice(..self.key.len());
        self.value = own.slice(self.key.len()..);
    }
}
