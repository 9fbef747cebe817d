//! The keys in their order, each with its newest version.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Bound;

use super::history::Position;
use super::keys::Keys;
use super::steps::looks;

/// Every key that the history knows: those that exist now, and apart from them those whose newest version is a deletion.
///
/// So what is done to the current state costs as much as there is, however much was deleted from a range and not compacted yet.
/// Keys are the index's own: one that shared the buffer of a version, or of the message that brought it, would keep it for as
/// long as the key lives.
#[derive(Debug, Default)]
pub(super) struct Index {
    live: Tree,
    deleted: Tree,
}

type Tree = BTreeMap<Box<[u8]>, Position>;

/// A key that was taken out, and its newest version.
pub(super) type Taken = (Box<[u8]>, Position);

impl Index {
    /// The newest version of `key`, be it a deletion.
    pub(super) fn get(&self, key: &[u8]) -> Option<Position> {
        looks::add(1);
        self.live.get(key).or_else(|| self.deleted.get(key)).copied()
    }

    /// The newest version of `key`, unless it is a deletion.
    pub(super) fn get_live(&self, key: &[u8]) -> Option<Position> {
        looks::add(1);
        self.live.get(key).copied()
    }

    /// `key` was put: `position` is its newest version.
    pub(super) fn put(&mut self, key: &[u8], position: Position) {
        looks::add(1);
        if let Some(newest) = self.live.get_mut(key) {
            *newest = position;
        } else {
            let own = |key: &[u8]| {
                looks::copy(key.len());
                key.into()
            };
            let key = self.deleted.remove_entry(key).map_or_else(|| own(key), |(key, _)| key);
            self.live.insert(key, position);
        }
    }

    /// `key` was deleted: `position` is its newest version.
    pub(super) fn delete(&mut self, key: Box<[u8]>, position: Position) {
        looks::add(1);
        self.deleted.insert(key, position);
    }

    /// Takes keys of a range out of those that exist, the first ones, in order: up to `most`, and no more once they have `bytes`. They are to
    /// be given to [`Self::delete`]. And whether it is known that there are no more.
    pub(super) fn take_live(&mut self, keys: Keys<'_>, most: usize, bytes: usize) -> (Vec<Taken>, bool) {
        looks::add(1);
        if let Keys::One(key) = keys {
            return (self.live.remove_entry(key).into_iter().collect(), true);
        }
        let Some((start, end)) = bounds(keys, None) else { return (Vec::new(), true) };
        let bounds = (start.map(Box::from), end.map(Box::from));
        let (mut taken, mut left) = (Vec::new(), bytes);
        let mut live = self.live.extract_if(bounds, |_, _| true);
        while taken.len() < most && left > 0 {
            let Some((key, newest)) = live.next() else { return (taken, true) };
            looks::add(1);
            left = left.saturating_sub(key.len());
            taken.push((key, newest));
        }
        (taken, false)
    }

    /// Forgets a key whose last version was removed.
    pub(super) fn remove(&mut self, key: &[u8]) {
        looks::add(1);
        if self.deleted.remove(key).is_none() {
            self.live.remove(key);
        }
    }

    /// The keys of a range with their newest versions, in order; those whose newest is a deletion only with `deleted_too`. With
    /// `after`, only keys behind it.
    pub(super) fn range<'a, 'k>(
        &'a self,
        keys: Keys<'k>,
        after: Option<&'k [u8]>,
        deleted_too: bool,
    ) -> impl Iterator<Item = (&'a [u8], Position)> + use<'a, 'k> {
        let live = within(&self.live, keys, after).peekable();
        let deleted = deleted_too.then(|| within(&self.deleted, keys, after)).into_iter().flatten();
        Merged { live, deleted: deleted.peekable() }
    }
}

fn within<'a, 'k>(
    tree: &'a Tree,
    keys: Keys<'k>,
    after: Option<&'k [u8]>,
) -> impl Iterator<Item = (&'a [u8], Position)> + use<'a, 'k> {
    let range = bounds(keys, after).map(|bounds| tree.range::<[u8], _>(bounds));
    range.into_iter().flatten().inspect(|_| looks::add(1)).map(|(key, at)| (&**key, *at))
}

/// Two runs of keys as one. No key is in both.
struct Merged<L: Iterator, D: Iterator> {
    live: Peekable<L>,
    deleted: Peekable<D>,
}

impl<'a, L, D> Iterator for Merged<L, D>
where
    L: Iterator<Item = (&'a [u8], Position)>,
    D: Iterator<Item = (&'a [u8], Position)>,
{
    type Item = (&'a [u8], Position);

    fn next(&mut self) -> Option<Self::Item> {
        match (self.live.peek(), self.deleted.peek()) {
            (Some((live, _)), Some((deleted, _))) if live > deleted => self.deleted.next(),
            (None, _) => self.deleted.next(),
            _ => self.live.next(),
        }
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
