//! Compaction: history below a revision is given up.
//!
//! It takes effect at once, in its place in the log, and costs next to nothing there: from then on reads below that revision
//! fail. Versions that no read can reach any more are removed afterwards, in order of the revisions that made them useless, in pieces
//! as small as the caller wants ([`Store::collect`]). Which ones have gone already cannot be told from outside: answers, sizes in use and
//! snapshots are the same before and after, so members need not keep step.
//!
//! What is kept of a key is its newest version at the revision, and all later ones. From level 2 on that may be a deletion, if it was made at
//! exactly that revision: a watch may begin there, and is to see it (etcd#18089). It goes with the first compaction above.

use std::collections::VecDeque;

use quorate_api::etcdserverpb as pb;
use quorate_api::snapshot as wire;

use super::history::Position;
use super::pins::{Pin, Pins};
use super::revision::Revision;
use super::steps::Steps;
use super::version::{Links, Version};
use super::{KvError, Store, header};
use crate::level::Level;

/// What has been given up, and how far it has been removed.
#[derive(Debug)]
pub(super) struct Compaction {
    /// Reads below this revision fail. -1 as long as nothing was compacted.
    pub(super) revision: i64,
    /// Deletions below this revision are given up: the compacted one, or the one behind it if that was compacted at level 1. 0 at first.
    pub(super) deletions: i64,
    /// The first version that removal is not done with. Those before it that are still here are each the newest of its key as of
    /// the revision that removal has reached.
    pub(super) next: u64,
    /// The first version whose predecessor was not removed. Ahead of `next` by deletions of exactly that revision.
    replaced: u64,
    /// The bytes of all that compactions have given up, counted from where this history begins.
    given_up: GivenUp,
    /// What readers still need is not removed.
    pub(super) pins: Pins,
    /// A copy of the state has the versions before this one, and has to hear of deletions behind it that are removed.
    pub(super) copied: Option<u64>,
    /// Such deletions.
    pub(super) buried: VecDeque<Version>,
}

impl Default for Compaction {
    fn default() -> Self {
        Self {
            revision: -1,
            deletions: 0,
            next: 1,
            replaced: 1,
            given_up: GivenUp::default(),
            pins: Pins::default(),
            copied: None,
            buried: VecDeque::new(),
        }
    }
}

/// Bytes that compactions have given up.
#[derive(Debug, Clone, Copy, Default)]
struct GivenUp {
    /// Of versions.
    versions: u64,
    /// Of places in the index.
    places: u64,
}

/// How far a piece of removal has brought it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collected {
    /// Nothing more is to be removed.
    All,
    /// There is more.
    More,
    /// There is more, for later: some reader still needs it.
    Held,
}

/// The level from which on a deletion at exactly the compacted revision is kept.
const KEEPS_DELETIONS: Level = 2;

/// What removing a version costs, in steps: itself, and its part of the gaps that are closed when half of a segment is gone.
const REMOVAL: usize = 3;

impl Store {
    /// Gives up the history below `revision`, as etcd does: reads at it are still answered.
    pub(super) fn compact(
        &mut self,
        revision: i64,
        steps: &mut Steps,
    ) -> Result<pb::CompactionResponse, KvError> {
        if revision <= self.compaction.revision {
            return Err(KvError::Compacted);
        }
        if revision > self.revision {
            return Err(KvError::FutureRevision);
        }
        let before = self.compaction.given_up;
        self.compaction.revision = revision;
        self.compaction.deletions = if self.level >= KEEPS_DELETIONS { revision } else { revision + 1 };
        self.count_given_up(steps);
        let now = self.compaction.given_up;
        self.sizes.kept -= now.versions - before.versions;
        self.sizes.places_kept -= now.places - before.places;
        Ok(pb::CompactionResponse { header: Some(header(self.revision)) })
    }

    /// Counts the bytes of all versions, of those ever appended here, that the last compaction has given up.
    pub(super) fn count_given_up(&mut self, steps: &mut Steps) {
        let replaced = self.history.obsolete_up_to(self.compaction.revision, steps).replaced;
        let gone = self.history.obsolete_up_to(self.compaction.deletions - 1, steps);
        self.compaction.given_up = GivenUp { versions: replaced + gone.deletions, places: gone.places };
    }

    /// Removes what compactions have left without use, in about `steps` steps: some five for each version. To be called when there is
    /// time: between applies, and while nothing else is to do.
    pub fn collect(&mut self, steps: usize) -> Collected {
        let (target, deletions) = self.removable();
        let mut steps = Steps::new(steps);
        while !steps.are_used_up() {
            if self.history.tidy(&mut steps) {
                continue;
            }
            if let Some(end) = self.collect_next(target, deletions, &mut steps) {
                return end;
            }
        }
        Collected::More
    }

    /// What is removed is of no use to reads at the first of these revisions and above; and deletions are removed below the second.
    fn removable(&self) -> (i64, i64) {
        let Compaction { revision, deletions, .. } = self.compaction;
        let pinned = self.compaction.pins.lowest().filter(|pinned| *pinned < revision);
        pinned.map_or((revision, deletions), |pinned| (pinned, pinned))
    }

    /// Deals with the next version, if there is one.
    fn collect_next(&mut self, target: i64, deletions: i64, steps: &mut Steps) -> Option<Collected> {
        let Compaction { next, replaced, revision: compacted, .. } = self.compaction;
        match self.main_at(next, steps) {
            Some(main) if main < deletions => {
                if next >= replaced {
                    self.remove_replaced(next, steps);
                }
                self.remove_deletion(next, steps);
                self.compaction.next += 1;
                return None;
            }
            // A state that was read from its copy has gaps where that holds what was deleted.
            None if next < self.history.end() => {
                self.compaction.next += 1;
                return None;
            }
            _ => {}
        }
        let replaced = replaced.max(next);
        match self.main_at(replaced, steps) {
            Some(main) if main <= target => self.remove_replaced(replaced, steps),
            None if replaced < self.history.end() => self.compaction.replaced = replaced + 1,
            _ => {
                let held =
                    target < compacted && self.main_at(next, steps).is_some_and(|main| main <= compacted);
                return Some(if held { Collected::Held } else { Collected::All });
            }
        }
        None
    }

    /// The main revision of the version number `at`; none if there is none.
    fn main_at(&self, at: u64, steps: &mut Steps) -> Option<i64> {
        steps.take(1);
        Some(self.history.get(Position::new(at)?)?.modified().main)
    }

    /// Removes what version number `at` has replaced. It is the first of its key from now on.
    fn remove_replaced(&mut self, at: u64, steps: &mut Steps) {
        let Store { index, history, sizes, compaction, .. } = self;
        steps.take(3);
        compaction.replaced = at + 1;
        let Some(at) = Position::new(at) else { return };
        let Some(version) = history.get_mut(at) else { return };
        let (links, main) = (version.links(), version.modified().main);
        version.set_links(Links::default());
        // It stays for long, and would keep others of the message that brought it.
        if !version.is_tombstone() && index.get(version.key()) == Some(at) {
            steps.take_bytes(version.own_bytes());
        }
        // A deletion that the same transaction has replaced goes when others of that revision go.
        let of_the_same = |version: &Version| version.is_tombstone() && version.modified().main == main;
        let Some(previous) = links.previous else { return };
        if history.get(previous).is_some_and(of_the_same) {
            return;
        }
        if let Some(replaced) = history.remove(previous) {
            steps.take(REMOVAL);
            sizes.remove(&replaced);
        }
    }

    /// Removes version number `at` if it is a deletion, and the key with it if it was not put again.
    fn remove_deletion(&mut self, at: u64, steps: &mut Steps) {
        let Store { index, history, sizes, compaction, .. } = self;
        steps.take(1);
        let Some(at) = Position::new(at) else { return };
        if !history.get(at).is_some_and(Version::is_tombstone) {
            return;
        }
        let Some(deletion) = history.remove(at) else { return };
        steps.take(REMOVAL);
        sizes.remove(&deletion);
        if index.get(deletion.key()) == Some(at) {
            index.remove(deletion.key());
        }
        let is_news = compaction.copied.is_some_and(|copied| at.number() >= copied);
        compaction.buried.extend(is_news.then_some(deletion));
    }

    /// Whether everything is removed that a compaction at `revision`, which gives up deletions below `deletions`, does not leave.
    pub(super) fn has_collected(&self, revision: i64, deletions: i64) -> bool {
        let from = |at| self.history.iter_from(at).next().map(|(_, version)| version.modified().main);
        let Compaction { next, replaced, .. } = self.compaction;
        from(next).is_none_or(|main| main >= deletions)
            && from(replaced.max(next)).is_none_or(|main| main > revision)
    }

    /// Version number `at`, of revision `main`, was read back from a snapshot, which holds nothing that is to be removed.
    pub(super) fn restored(&mut self, at: Position, main: i64) {
        let Compaction { next, replaced, revision, deletions, .. } = &mut self.compaction;
        if main < *deletions {
            *next = at.number() + 1;
        }
        if main <= *revision {
            *replaced = at.number() + 1;
        }
    }

    /// Takes over what a state that was written down says of its last compaction. False if no state can say that.
    pub(super) fn set_compacted(&mut self, state: &wire::State) -> bool {
        let behind = state.compacted.saturating_add(1);
        let deletions = if state.level >= KEEPS_DELETIONS { state.deletions } else { behind };
        self.compaction.revision = state.compacted;
        self.compaction.deletions = deletions;
        (-1..=state.revision).contains(&state.compacted)
            && (deletions == state.compacted || deletions == behind)
    }

    /// What is written down of deletions that were given up; 0 before the level that keeps some.
    pub(super) fn kept_deletions(&self) -> i64 {
        if self.level >= KEEPS_DELETIONS { self.compaction.deletions } else { 0 }
    }

    /// Has nothing removed that can be read at `revision`, which was not compacted, until the pin is dropped.
    pub(super) fn pin(&self, revision: i64) -> Pin {
        self.compaction.pins.pin(revision)
    }

    /// Whether `pin` is this state's.
    pub(super) fn is_pinned_by(&self, pin: &Pin) -> bool {
        self.compaction.pins.hold(pin)
    }

    /// Whether everything is there that was to be seen at `point`, for a reader that has `pin`.
    pub(super) fn can_read(&self, point: Revision, pin: Option<&Pin>) -> bool {
        let pinned = pin.is_some_and(|pin| pin.revision() <= point.whole() && self.is_pinned_by(pin));
        pinned || point.whole() >= self.compaction.revision
    }
}
