//! The keys in their order, each with its newest version.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::history::Position;
use super::keys::Keys;

/// Every key that the history knows, the deleted ones included.
///
/// Keys are the index's own: one that shared the buffer of a version, or of the message that brought it, would keep it for as
/// long as the key lives.
#[derive(Debug, Default)]
pub(super) struct Index {
    newest: BTreeMap<Box<[u8]>, Position>,
}

impl Index {
    /// The newest version of `key`.
    pub(super) fn get(&self, key: &[u8]) -> Option<Position> {
        self.newest.get(key).copied()
    }

    /// The newest version of `key`, to be set anew.
    pub(super) fn get_mut(&mut self, key: &[u8]) -> Option<&mut Position> {
        self.newest.get_mut(key)
    }

    /// Makes `position` the newest version of `key`, known or not, and returns the one before.
    pub(super) fn insert(&mut self, key: &[u8], position: Position) -> Option<Position> {
        self.newest.insert(key.into(), position)
    }

    /// Forgets a key whose last version was removed.
    pub(super) fn remove(&mut self, key: &[u8]) {
        self.newest.remove(key);
    }

    /// The keys of a range with their newest versions, in order. With `after`, only those behind it.
    pub(super) fn range<'a, 'k>(
        &'a self,
        keys: Keys<'k>,
        after: Option<&'k [u8]>,
    ) -> impl Iterator<Item = (&'a [u8], Position)> {
        let bounds = bounds(keys, after);
        bounds
            .into_iter()
            .flat_map(|bounds| self.newest.range::<[u8], _>(bounds))
            .map(|(key, at)| (&**key, *at))
    }

    /// The keys of a range in order: where their newest versions lie, to be set anew.
    pub(super) fn range_mut<'a>(&'a mut self, keys: Keys<'_>) -> impl Iterator<Item = &'a mut Position> {
        let bounds = bounds(keys, None);
        bounds.map(|bounds| self.newest.range_mut::<[u8], _>(bounds)).into_iter().flatten().map(|(_, at)| at)
    }
}

/// Where to begin and where to end.
type Bounds<'k> = (Bound<&'k [u8]>, Bound<&'k [u8]>);

/// The bounds of `keys` behind `after`; `None` if nothing can lie between them.
fn bounds<'k>(keys: Keys<'k>, after: Option<&'k [u8]>) -> Option<Bounds<'k>> {
    let start = after.map_or(Bound::Included(keys.start()), Bound::Excluded);
    let first = after.unwrap_or(keys.start());
    let end = match keys {
        Keys::One(key) => Bound::Included(key),
        Keys::From(_) => Bound::Unbounded,
        Keys::Between(_, end) => Bound::Excluded(end),
    };
    let empty = match (keys, after) {
        (Keys::One(_), after) => after.is_some(),
        (Keys::From(_), _) => false,
        (Keys::Between(_, end), _) => first >= end,
    };
    (!empty).then_some((start, end))
}
