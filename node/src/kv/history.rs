//! The versions of every key, in the order of their revisions.
//!
//! Versions are appended and never change, so a position stays valid, and a read at an old revision needs no copy of the
//! state. What happened in a revision lies side by side; snapshots and watches read it from here. Versions lie in segments:
//! growing copies nothing. A compaction takes versions out of their midst: a segment that is half empty closes its gaps, and small
//! neighbours become one, so that what is held follows what is kept, while every position stays as it was given out.
//!
//! A key's versions are a list from the newest back, and beside the one before, each leads to one further back: a jump of level n passes
//! `2^n - 1` versions. A version jumps twice as far as the one before it if that one and the one that it jumps to jump equally far, and
//! to the one before it else (Myers, An applicative random-access stack, 1983). So any of a million versions is found in some 60 steps,
//! with 5 bytes for each, and appending looks at three.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::ops::AddAssign;

use super::revision::Revision;
use super::segment::{SEGMENT, Segment};
use super::sizes;
use super::steps::{Steps, looks};
use super::version::{Links, Version};

/// What it costs to find a segment by its revision, in steps.
const FINDING: usize = 16;

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

/// Bytes of versions that are of no use to a reader who does not look behind some version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Obsolete {
    /// Of those that were replaced, but for deletions.
    pub(super) replaced: u64,
    /// Of deletions.
    pub(super) deletions: u64,
    /// Of the places in the index that are given up with those.
    pub(super) places: u64,
}

impl AddAssign for Obsolete {
    fn add_assign(&mut self, other: Self) {
        self.replaced += other.replaced;
        self.deletions += other.deletions;
        self.places += other.places;
    }
}

/// All versions that are kept. Invariants: revisions ascend with positions; `previous` and jumps lead to older versions of the same key,
/// or to some that were removed, before which no read may look.
#[derive(Debug)]
pub(super) struct History {
    /// By their first position. Full ones, and what removal has left of them.
    sealed: BTreeMap<u64, Segment>,
    /// What is appended to, without gaps in its positions.
    active: Segment,
    /// The first positions of sealed segments that are half empty, or were.
    sparse: BTreeSet<u64>,
    /// The revision of the version appended last, whether or not it is still there.
    newest: Revision,
}

impl Default for History {
    fn default() -> Self {
        Self {
            sealed: BTreeMap::new(),
            active: Segment::new(1, Obsolete::default()),
            sparse: BTreeSet::new(),
            newest: Revision::START,
        }
    }
}

impl History {
    /// Appends `version`, which must be newer than all others, behind its key's version `previous`.
    pub(super) fn push(&mut self, mut version: Version, previous: Option<Position>) -> Position {
        if self.active.versions.len() == SEGMENT {
            self.seal();
        }
        debug_assert!(self.newest < version.modified());
        self.newest = version.modified();
        let position = self.next_position();
        version.set_links(self.links(position, previous));
        let obsolete = self.obsoletes(&version);
        self.active.push(version, obsolete);
        position
    }

    /// How the version at `position` leads back.
    fn links(&self, position: Position, previous: Option<Position>) -> Links {
        let Some(before) = previous else { return Links::default() };
        let to_previous = Links { previous, jump: 0, level: 1 };
        let further = || {
            let (at, level) = self.jump(before)?;
            let (target, behind) = self.jump(at).filter(|(_, behind)| *behind == level)?;
            // Where history was removed the list begins anew.
            self.get(target)?;
            let jump = u32::try_from(position.number() - target.number()).ok()?;
            Some(Links { previous, jump, level: behind + 1 })
        };
        further().unwrap_or(to_previous)
    }

    /// Where the version at `position` jumps to, and over how many.
    fn jump(&self, position: Position) -> Option<(Position, u8)> {
        let links = self.get(position)?.links();
        let to = match links.jump {
            0 => links.previous?,
            back => Position::new(position.number() - u64::from(back))?,
        };
        (links.level > 0).then_some((to, links.level))
    }

    /// The position of the version that is appended next.
    pub(super) fn next_position(&self) -> Position {
        Position::new(self.end()).expect("positions count from 1")
    }

    /// The number of that position.
    pub(super) fn end(&self) -> u64 {
        self.active.first + self.active.versions.len() as u64
    }

    /// The revision of the version appended last, whether or not it is still there.
    pub(super) fn newest_revision(&self) -> Revision {
        self.newest
    }

    /// The version at `position`, which this history gave out; `None` if it was removed.
    pub(super) fn get(&self, position: Position) -> Option<&Version> {
        looks::add(1);
        self.segment(position.number())?.get(position.number())
    }

    /// The same, when nothing can have removed it: it is its key's newest version.
    pub(super) fn newest(&self, position: Position) -> &Version {
        self.get(position).expect("the newest version of a key that the index knows is never removed")
    }

    /// What a key held at `point`, given its newest version: nothing if it did not exist.
    pub(super) fn at(&self, newest: Position, point: Revision, steps: &mut Steps) -> Option<&Version> {
        let version = self.newest_at(newest, point, steps)?;
        (!version.is_tombstone()).then_some(version)
    }

    /// A key's newest version at `point`, be it a deletion, given its newest of all.
    pub(super) fn newest_at(&self, newest: Position, point: Revision, steps: &mut Steps) -> Option<&Version> {
        steps.take(1);
        let (mut at, mut version) = (newest, self.newest(newest));
        while version.modified() > point {
            let links = version.links();
            if links.jump > 0 {
                steps.take(1);
                let target = Position::new(at.number() - u64::from(links.jump))?;
                if let Some(further) = self.get(target).filter(|further| further.modified() > point) {
                    (at, version) = (target, further);
                    continue;
                }
            }
            steps.take(1);
            at = links.previous?;
            version = self.get(at)?;
        }
        Some(version)
    }

    /// The versions from position `from` on, in order.
    pub(super) fn iter_from(&self, from: u64) -> impl Iterator<Item = (Position, &Version)> {
        let start = self.sealed.range(..=from).next_back().map_or(from, |(first, _)| *first);
        let segments = self.sealed.range(start..).map(|(_, segment)| segment).chain([&self.active]);
        segments.flat_map(move |segment| segment.iter_from(from)).inspect(|_| looks::add(1))
    }

    /// Of all versions that were ever appended, up to the main revision `revision`. Those behind it must still be there. Looks at a segment.
    pub(super) fn obsolete_up_to(&self, revision: i64, steps: &mut Steps) -> Obsolete {
        let Some(last) = self.last_since(revision) else {
            return self.sealed.values().next().unwrap_or(&self.active).before;
        };
        let next = self.sealed.range(last.first + 1..).next().map(|(_, segment)| segment);
        let next = next.or((last.first < self.active.first).then_some(&self.active));
        let mut upto = match next {
            Some(next) => next.before,
            None => last.total(),
        };
        steps.take(FINDING + last.versions.len());
        for (_, version) in last.iter_from(0).filter(|(_, version)| version.modified().main > revision) {
            steps.take(2);
            looks::add(1);
            let behind = self.obsoletes(version);
            upto.replaced -= behind.replaced;
            upto.deletions -= behind.deletions;
            upto.places -= behind.places;
        }
        upto
    }

    /// The number of the first version that the main revision `revision` or a later one has made. Looks at a segment.
    pub(super) fn first_of(&self, revision: i64) -> u64 {
        let from = self.last_since(revision - 1).map_or(0, |segment| segment.first);
        let mut behind = self.iter_from(from).skip_while(|(_, version)| version.modified().main < revision);
        behind.next().map_or(self.end(), |(at, _)| at.number())
    }

    /// The last segment that begins at `revision` or before.
    fn last_since(&self, revision: i64) -> Option<&Segment> {
        let begins = |segment: &Segment| segment.since.is_some_and(|since| since <= revision);
        if begins(&self.active) {
            return Some(&self.active);
        }
        let (mut low, mut high, mut found) = (0, self.active.first, None);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.sealed.range(low..=middle).next_back() {
                Some((_, segment)) if begins(segment) => (found, low) = (Some(segment), middle + 1),
                Some((first, _)) => high = *first,
                None => low = middle + 1,
            }
        }
        found
    }

    /// The bytes that are of no use to a reader who does not look behind `version`.
    fn obsoletes(&self, version: &Version) -> Obsolete {
        // A deletion that was replaced is not counted again: it is of no use whether or not the key was put anew.
        let replaced =
            version.previous.and_then(|at| self.get(at)).filter(|replaced| !replaced.is_tombstone());
        let replaced = replaced.map_or(0, Version::size);
        if version.is_tombstone() {
            return Obsolete { replaced, deletions: version.size(), places: sizes::place(version.key()) };
        }
        Obsolete { replaced, ..Obsolete::default() }
    }

    /// Whether what comes behind a key's version `previous` makes the key: it does not exist there, as far as is known.
    pub(super) fn makes_key(&self, previous: Option<Position>) -> bool {
        previous.and_then(|at| self.get(at)).is_none_or(Version::is_tombstone)
    }

    /// The version at `position`, to be changed in what does not show.
    pub(super) fn get_mut(&mut self, position: Position) -> Option<&mut Version> {
        looks::add(1);
        let at = position.number();
        if at >= self.active.first {
            return self.active.get_mut(at);
        }
        self.sealed.range_mut(..=at).next_back()?.1.get_mut(at)
    }

    /// Takes the version at `position` out, if it is still there. The room that it took is given back by [`Self::tidy`].
    pub(super) fn remove(&mut self, position: Position) -> Option<Version> {
        looks::add(1);
        let at = position.number();
        if at >= self.active.first {
            return self.active.remove(at);
        }
        let (first, segment) = self.sealed.range_mut(..=at).next_back()?;
        let removed = segment.remove(at)?;
        if segment.is_sparse() {
            self.sparse.insert(*first);
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
        let next = Segment::new(self.end(), self.active.total());
        let full = std::mem::replace(&mut self.active, next);
        if full.is_sparse() {
            self.sparse.insert(full.first);
        }
        self.sealed.insert(full.first, full);
    }

    /// Gives back room that removed versions have left: closes the gaps of one segment, and joins it to the one before it if both
    /// together are small. Whether there was anything to do.
    pub(super) fn tidy(&mut self, steps: &mut Steps) -> bool {
        let Some(first) = self.sparse.pop_first() else { return false };
        let Some(mut segment) = self.sealed.remove(&first) else { return true };
        let mut moved = segment.versions.len();
        segment.close_gaps();
        if segment.kept > 0 {
            match self.sealed.range_mut(..first).next_back() {
                Some((_, before)) if before.kept + segment.kept <= SEGMENT / 2 && before.spans(&segment) => {
                    moved += before.versions.len();
                    before.join(segment);
                }
                _ => drop(self.sealed.insert(first, segment)),
            }
        }
        steps.take(moved);
        looks::add(moved);
        true
    }

    /// How many versions there are, in how many places, in how many segments.
    #[cfg(test)]
    pub(super) fn room(&self) -> (usize, usize, usize) {
        let segments = || self.sealed.values().chain([&self.active]);
        let places = segments().map(|segment| segment.versions.len()).sum();
        (segments().map(|segment| segment.kept).sum(), places, segments().count())
    }
}
