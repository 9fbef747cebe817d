//! What has changed since a revision: what watches tell.
//!
//! The history has it in the order in which it happened, so a reader is a place in the history and holds nothing of it, however far it is behind.

use std::sync::Arc;

use quorate_api::mvccpb::{Event, KeyValue, event::EventType};

use super::pins::Pin;
use super::revision::Revision;
use super::steps::Steps;
use super::version::Version;
use super::{Incarnation, Store};

/// What it costs to find a revision in the history, in steps.
const FINDING: usize = 1024;

/// A reader of what has changed.
#[derive(Debug, Clone)]
pub struct Changes {
    /// All before this revision has been read.
    next: i64,
    /// The number of the version that is next, in which state; none before it was looked for.
    at: Option<(Incarnation, u64)>,
    /// Some of the revision `next` has been read.
    is_within: bool,
    /// Whether what it has not read is kept, whatever is compacted, and how.
    keeps: bool,
    pin: Option<Arc<Pin>>,
}

/// Why a reader cannot go on as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupted {
    /// What it was to read has been compacted, up to this revision.
    Compacted(i64),
    /// Another state has taken the place of the one that it read: it begins [`Changes::next`] anew.
    Replaced,
}

/// One change of one key.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    store: &'a Store,
    version: &'a Version,
}

impl Changes {
    /// Of the revision `from` and all later ones.
    pub fn since(from: i64) -> Self {
        Self { next: from, at: None, is_within: false, keeps: false, pin: None }
    }

    /// The same for a reader that reads on soon: from the first time on, what it has not read is kept for it, as long as there is memory.
    pub fn kept_since(from: i64) -> Self {
        Self { keeps: true, ..Self::since(from) }
    }

    /// The first revision that has not been read as a whole.
    pub fn next(&self) -> i64 {
        self.next
    }

    /// Whether some of that revision has been read, and not all.
    pub fn is_within(&self) -> bool {
        self.is_within
    }

    /// Whether everything has been read that `store` holds.
    pub fn is_at_end(&self, store: &Store) -> bool {
        self.next > store.revision()
    }

    /// Hands changes to `take`, in order, for about so many `steps`, or until that takes one not. Returns whether there was no more.
    pub fn advance(
        &mut self,
        store: &Store,
        steps: usize,
        take: impl FnMut(Change<'_>) -> bool,
    ) -> Result<bool, Interrupted> {
        let read = self.read(store, steps, take);
        self.pin = self.keeps.then(|| Arc::new(store.pin(self.next - 1)));
        read
    }

    fn read(
        &mut self,
        store: &Store,
        steps: usize,
        mut take: impl FnMut(Change<'_>) -> bool,
    ) -> Result<bool, Interrupted> {
        // At level 1 deletions of exactly the compacted revision are gone as well.
        let least = store.compacted().max(store.compaction.deletions);
        let is_kept = self.pin.as_deref().is_some_and(|pin| store.is_pinned_by(pin));
        if self.next < least && !is_kept {
            return Err(Interrupted::Compacted(least));
        }
        if self.is_at_end(store) {
            return Ok(true);
        }
        let mut steps = Steps::new(steps);
        let mut at = self.find(store, &mut steps)?;
        for (position, version) in store.history.iter_from(at) {
            let Revision { main, .. } = version.modified();
            if main > store.revision() || position.number() >= store.end() {
                break;
            }
            self.is_within &= main == self.next;
            self.next = self.next.max(main);
            steps.take(1);
            if steps.are_used_up() || !take(Change { store, version }) {
                self.at = Some((store.incarnation(), position.number()));
                return Ok(false);
            }
            steps.take_bytes(version.size() as usize);
            self.is_within = true;
            at = position.number() + 1;
        }
        self.next = store.revision() + 1;
        self.is_within = false;
        self.at = Some((store.incarnation(), at));
        Ok(true)
    }

    /// The number of the version that is next.
    fn find(&mut self, store: &Store, steps: &mut Steps) -> Result<u64, Interrupted> {
        match &self.at {
            Some((state, at)) if *state == store.incarnation() => Ok(*at),
            Some(_) if self.is_within => {
                *self = Self { keeps: self.keeps, ..Self::since(self.next) };
                Err(Interrupted::Replaced)
            }
            _ => {
                steps.take(FINDING);
                Ok(store.history.first_of(self.next))
            }
        }
    }
}

impl Change<'_> {
    /// The revision that made it.
    pub fn revision(&self) -> i64 {
        self.version.modified().main
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        self.version.key()
    }

    /// Whether the key was deleted.
    pub fn is_deletion(&self) -> bool {
        self.version.is_tombstone()
    }

    /// As clients see it, which may ask for what the key held before.
    pub fn event(&self, with_previous: bool) -> Event {
        let (kind, kv) = if self.is_deletion() {
            let (key, mod_revision) = (self.version.shared_key(), self.revision());
            (EventType::Delete, KeyValue { key, mod_revision, ..KeyValue::default() })
        } else {
            (EventType::Put, self.version.key_value())
        };
        let prev_kv = with_previous.then(|| self.previous()).flatten();
        Event { r#type: kind.into(), kv: Some(kv), prev_kv }
    }

    /// What the key held before, unless it did not exist, or that has been compacted.
    fn previous(&self) -> Option<KeyValue> {
        if self.revision() - 1 < self.store.compacted() {
            return None;
        }
        let before = self.version.previous.and_then(|at| self.store.history.get(at))?;
        (!before.is_tombstone()).then(|| before.key_value())
    }
}
