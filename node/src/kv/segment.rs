//! Versions side by side, with gaps where some were removed.

use super::history::{Obsolete, Position};
use super::version::Version;

/// Versions in a full segment.
pub(super) const SEGMENT: usize = 1024;

/// A run of versions.
#[derive(Debug)]
pub(super) struct Segment {
    /// The position of the first version that ever lay in it.
    pub(super) first: u64,
    /// The main revision of that version.
    pub(super) since: Option<i64>,
    /// Where each version lies, counted from `first`. Empty as long as gaps are kept open: then it is their place here.
    places: Vec<u32>,
    /// `None` where one was removed.
    pub(super) versions: Vec<Option<Version>>,
    /// How many there are.
    pub(super) kept: usize,
    /// What is of no use to a reader who does not look behind the end of the segment before, of all that was ever appended until then.
    pub(super) before: Obsolete,
    /// The same of all that ever lay in this one.
    obsolete: Obsolete,
}

impl Segment {
    /// An empty one, whose first version will have position `first`, behind versions that have made `before` useless.
    pub(super) fn new(first: u64, before: Obsolete) -> Self {
        let (places, versions) = (Vec::new(), Vec::new());
        Self { first, since: None, places, versions, kept: 0, before, obsolete: Obsolete::default() }
    }

    /// What is of no use to a reader who does not look behind its end.
    pub(super) fn total(&self) -> Obsolete {
        let mut total = self.before;
        total += self.obsolete;
        total
    }

    /// Appends a version. Only before gaps are closed.
    pub(super) fn push(&mut self, version: Version, obsolete: Obsolete) {
        debug_assert!(self.places.is_empty() && self.versions.len() < SEGMENT);
        if self.versions.is_empty() {
            self.versions.reserve_exact(SEGMENT);
        }
        self.since.get_or_insert(version.modified().main);
        self.versions.push(Some(version));
        self.kept += 1;
        self.obsolete += obsolete;
    }

    pub(super) fn get(&self, at: u64) -> Option<&Version> {
        self.versions.get(self.slot(at)?)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, at: u64) -> Option<&mut Version> {
        let slot = self.slot(at)?;
        self.versions.get_mut(slot)?.as_mut()
    }

    pub(super) fn remove(&mut self, at: u64) -> Option<Version> {
        let slot = self.slot(at)?;
        let removed = self.versions.get_mut(slot)?.take()?;
        self.kept -= 1;
        Some(removed)
    }

    /// The versions at position `from` and behind it, in order.
    pub(super) fn iter_from(&self, from: u64) -> impl Iterator<Item = (Position, &Version)> {
        let place = from.saturating_sub(self.first);
        let slot = if self.places.is_empty() {
            usize::try_from(place).unwrap_or(usize::MAX).min(self.versions.len())
        } else {
            self.places.partition_point(|other| u64::from(*other) < place)
        };
        (slot..self.versions.len()).filter_map(|slot| {
            let version = self.versions[slot].as_ref()?;
            Some((Position::new(self.first + self.place(slot))?, version))
        })
    }

    /// Whether it is worth while to close its gaps. Every time that it is, half of it has gone: what closing costs is paid by them.
    pub(super) fn is_sparse(&self) -> bool {
        self.kept * 2 <= self.versions.len()
    }

    /// Gives back the room of what was removed.
    pub(super) fn close_gaps(&mut self) {
        let places = (0..self.versions.len()).filter(|slot| self.versions[*slot].is_some());
        self.places = places.map(|slot| self.place(slot) as u32).collect();
        self.versions.retain(Option::is_some);
        self.versions.shrink_to_fit();
    }

    /// Whether the positions of `next`, which follows, can be counted from the start of this one.
    pub(super) fn spans(&self, next: &Self) -> bool {
        let last =
            next.versions.len().checked_sub(1).map_or(next.first, |slot| next.first + next.place(slot));
        u32::try_from(last - self.first).is_ok()
    }

    /// Takes in the segment that follows, whose gaps are closed.
    pub(super) fn join(&mut self, next: Self) {
        debug_assert!(self.first < next.first && self.spans(&next));
        self.close_gaps();
        let shift = (next.first - self.first) as u32;
        self.places.extend(next.places.into_iter().map(|place| place + shift));
        self.versions.extend(next.versions);
        self.versions.shrink_to_fit();
        self.kept += next.kept;
        self.obsolete += next.obsolete;
    }

    /// What lies at `slot` has its position this far behind the first one.
    fn place(&self, slot: usize) -> u64 {
        self.places.get(slot).map_or(slot as u64, |place| u64::from(*place))
    }

    fn slot(&self, at: u64) -> Option<usize> {
        let place = at.checked_sub(self.first)?;
        if self.places.is_empty() {
            return usize::try_from(place).ok();
        }
        self.places.binary_search(&u32::try_from(place).ok()?).ok()
    }
}
