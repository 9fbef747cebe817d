//! The versions of every key, in the order of their revisions.
//!
//! Versions are appended and never change, so a position stays valid, and a read at an old revision needs no copy of the
//! state. What happened in a revision lies side by side; snapshots and watches read it from here. Versions lie in segments:
//! growing copies nothing. A compaction takes versions out of their midst: a segment that is half empty closes its gaps, and small
//! neighbours become one, so that what is held follows what is kept, while every position stays as it was given out.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use bytes::Bytes;
use quorate_api::mvccpb::KeyValue;

use super::revision::Revision;
use super::segment::{SEGMENT, Segment};

/// What the state accounts for each version beside its key and value, in bytes. A part of the protocol: the size of the state
/// decides where snapshots are taken, so it must be the same on all members.
const VERSION_BYTES: u64 = 112;
const _: () = assert!(
    size_of::<Option<Version>>() as u64 <= VERSION_BYTES,
    "a version takes more than it is accounted"
);

/// Where a version lies in the history, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position(NonZeroU64);

impl Position {
    /// The position `at`, counted from 1.
    pub(super) fn new(at: u64) -> Option<Self> {
        NonZeroU64::new(at).map(Self)
    }

    /// Its number.
    pub(super) fn number(self) -> u64 {
        self.0.get()
    }
}

/// One change of one key.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) key: Bytes,
    /// Empty in a tombstone.
    pub(super) value: Bytes,
    pub(super) modified: Revision,
    /// The main revision that made the key; 0 in a tombstone.
    pub(super) created: i64,
    /// Changes of the key since it was made, from 1; 0 in a tombstone.
    pub(super) number: i64,
    /// The lease that the key hangs on; 0 for none.
    pub(super) lease: i64,
    /// The key's version before this one.
    pub(super) previous: Option<Position>,
}

impl Version {
    /// What the state accounts for it, in bytes.
    pub(super) fn size(&self) -> u64 {
        (self.key.len() + self.value.len()) as u64 + VERSION_BYTES
    }

    /// Whether this version is the key's deletion.
    pub(super) fn is_tombstone(&self) -> bool {
        self.number == 0
    }

    /// As clients see it. Key and value are shared, not copied.
    pub(super) fn key_value(&self) -> KeyValue {
        KeyValue {
            key: self.key.clone(),
            create_revision: self.created,
            mod_revision: self.modified.main,
            version: self.number,
            value: self.value.clone(),
            lease: self.lease,
        }
    }

    /// As clients see it who ask for keys only: without value and without lease, as in etcd from 3.7 on.
    pub(super) fn key_only(&self) -> KeyValue {
        KeyValue {
            key: self.key.clone(),
            create_revision: self.created,
            mod_revision: self.modified.main,
            version: self.number,
            value: Bytes::new(),
            lease: 0,
        }
    }
}

/// All versions that are kept. Invariants: revisions ascend with positions; `previous` leads to an older version of the same key, or
/// to one that was removed, before which no read may look.
#[derive(Debug)]
pub(super) struct History {
    /// By their first position. Full ones, and what removal has left of them.
    sealed: BTreeMap<u64, Segment>,
    /// What is appended to, without gaps in its positions.
    active: Segment,
}

impl Default for History {
    fn default() -> Self {
        Self { sealed: BTreeMap::new(), active: Segment::new(1) }
    }
}

impl History {
    /// Appends `version`, which must be newer than all others.
    pub(super) fn push(&mut self, version: Version) -> Position {
        if self.active.versions.len() == SEGMENT {
            self.seal();
        }
        debug_assert!(self.active.last().is_none_or(|newest| newest.modified < version.modified));
        let obsolete = self.obsoletes(&version);
        let position = self.next_position();
        self.active.push(version, obsolete);
        position
    }

    /// The position of the version that is appended next.
    pub(super) fn next_position(&self) -> Position {
        Position::new(self.end()).expect("positions count from 1")
    }

    /// The number of that position.
    pub(super) fn end(&self) -> u64 {
        self.active.first + self.active.versions.len() as u64
    }

    /// The version at `position`, which this history gave out; `None` if it was removed.
    pub(super) fn get(&self, position: Position) -> Option<&Version> {
        self.segment(position.number())?.get(position.number())
    }

    /// The same, when nothing can have removed it: it is its key's newest version.
    pub(super) fn newest(&self, position: Position) -> &Version {
        self.get(position).expect("the newest version of a key that the index knows is never removed")
    }

    /// What a key held at `revision`, given its newest version: nothing if it did not exist.
    pub(super) fn at(&self, newest: Position, revision: i64) -> Option<&Version> {
        let mut version = self.newest(newest);
        while version.modified.main > revision {
            version = self.get(version.previous?)?;
        }
        (!version.is_tombstone()).then_some(version)
    }

    /// The versions from position `from` on, in order.
    pub(super) fn iter_from(&self, from: u64) -> impl Iterator<Item = (Position, &Version)> {
        let start = self.sealed.range(..=from).next_back().map_or(from, |(first, _)| *first);
        let segments = self.sealed.range(start..).map(|(_, segment)| segment).chain([&self.active]);
        segments.flat_map(move |segment| segment.iter_from(from))
    }

    /// The bytes of the versions that a compaction at revision `upto` takes, if the last one was at `after`: what was replaced or
    /// deleted in between, and the deletions themselves. The same for any two histories of the same operations, whatever has been
    /// removed from them.
    pub(super) fn obsolete_between(&self, after: i64, upto: i64) -> u64 {
        let segments = [&self.active].into_iter().chain(self.sealed.values().rev());
        let newer =
            segments.take_while(|segment| segment.last().is_none_or(|last| last.modified.main > after));
        newer.map(|segment| self.obsolete_in(segment, after, upto)).sum()
    }

    fn obsolete_in(&self, segment: &Segment, after: i64, upto: i64) -> u64 {
        match (segment.since, segment.last()) {
            (Some(since), Some(last)) if since > after && last.modified.main <= upto => segment.obsolete,
            (Some(since), _) if since > upto => 0,
            _ => {
                let within = |version: &&Version| (after + 1..=upto).contains(&version.modified.main);
                let versions = segment.iter_from(0).map(|(_, version)| version);
                versions.filter(within).map(|version| self.obsoletes(version)).sum()
            }
        }
    }

    /// The bytes that are of no use to whoever does not look behind `version`.
    fn obsoletes(&self, version: &Version) -> u64 {
        // A deletion that was replaced is not counted again: it was of no use from its own revision on.
        let replaced =
            version.previous.and_then(|at| self.get(at)).filter(|replaced| !replaced.is_tombstone());
        let deletion = if version.is_tombstone() { version.size() } else { 0 };
        replaced.map_or(0, Version::size) + deletion
    }

    /// The version at `position`, to be changed in what does not show.
    pub(super) fn get_mut(&mut self, position: Position) -> Option<&mut Version> {
        let at = position.number();
        if at >= self.active.first {
            return self.active.get_mut(at);
        }
        self.sealed.range_mut(..=at).next_back()?.1.get_mut(at)
    }

    /// Takes the version at `position` out, if it is still there.
    pub(super) fn remove(&mut self, position: Position) -> Option<Version> {
        let at = position.number();
        if at >= self.active.first {
            return self.active.remove(at);
        }
        let (first, segment) = self.sealed.range_mut(..=at).next_back()?;
        let (first, removed) = (*first, segment.remove(at)?);
        if segment.is_sparse() {
            self.tidy(first);
        }
        Some(removed)
    }

    fn segment(&self, at: u64) -> Option<&Segment> {
        if at >= self.active.first {
            return Some(&self.active);
        }
        self.sealed.range(..=at).next_back().map(|(_, segment)| segment)
    }

    fn seal(&mut self) {
        let next = Segment::new(self.end());
        let full = std::mem::replace(&mut self.active, next);
        let (first, sparse) = (full.first, full.is_sparse());
        self.sealed.insert(first, full);
        if sparse {
            self.tidy(first);
        }
    }

    /// Closes the gaps of a sealed segment, and joins it to the one before it if both together are small.
    fn tidy(&mut self, first: u64) {
        let Some(mut segment) = self.sealed.remove(&first) else { return };
        segment.close_gaps();
        if segment.kept == 0 {
            return;
        }
        if let Some((_, before)) = self.sealed.range_mut(..first).next_back()
            && before.kept + segment.kept <= SEGMENT / 2
            && before.spans(&segment)
        {
            before.join(segment);
            return;
        }
        self.sealed.insert(first, segment);
    }

    /// How many versions there are, in how many places, in how many segments.
    #[cfg(test)]
    pub(super) fn room(&self) -> (usize, usize, usize) {
        let segments = || self.sealed.values().chain([&self.active]);
        let places = segments().map(|segment| segment.versions.len()).sum();
        (segments().map(|segment| segment.kept).sum(), places, segments().count())
    }
}
