//! Which groups of watches want a key.
//!
//! Single keys are looked up. Ranges lie in an array in the order of their starts, which is read as a balanced tree: its root is the middle, and beside each
//! range stands the last end below it. So those that cover a key are found in as many steps as there are of them, and a logarithm more. New ranges wait in
//! a list, which is gone through for each key, until there are so many that the array is made anew: that costs each of them a logarithm.

use std::collections::{BTreeSet, HashMap};
use std::mem::take;

use bytes::Bytes;

use super::filter::{End, Filter};

/// A group of watches.
pub(super) type GroupId = u64;

/// How many ranges may wait: so many and an eighth of those in the array, and no more than [`MOST_WAITING`].
const WAITING: usize = 32;
const MOST_WAITING: usize = 256;

/// The filters of all groups.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    keys: HashMap<Bytes, BTreeSet<GroupId>>,
    tree: Vec<Node>,
    /// Of the array, how many have gone.
    gone: usize,
    waiting: Vec<Range>,
}

#[derive(Debug, Clone)]
struct Range {
    start: Bytes,
    /// None for no end.
    end: Option<Bytes>,
    group: GroupId,
}

#[derive(Debug)]
struct Node {
    range: Range,
    /// The group is still there.
    lives: bool,
    /// The last end of this one and all below it; none for no end.
    last: Option<Bytes>,
}

impl Ranges {
    /// `group` wants what `filter` says.
    pub(super) fn insert(&mut self, filter: &Filter, group: GroupId) {
        let end = match &filter.end {
            End::One => {
                self.keys.entry(filter.start.clone()).or_default().insert(group);
                return;
            }
            End::Never => None,
            End::Before(end) => Some(end.clone()),
        };
        self.waiting.push(Range { start: filter.start.clone(), end, group });
        if self.waiting.len() > (WAITING + self.tree.len() / 8).min(MOST_WAITING) {
            self.plant();
        }
    }

    /// `group` has gone, which wanted what `filter` says.
    pub(super) fn remove(&mut self, filter: &Filter, group: GroupId) {
        if filter.end == End::One {
            if let Some(groups) = self.keys.get_mut(&filter.start) {
                groups.remove(&group);
                if groups.is_empty() {
                    self.keys.remove(&filter.start);
                }
            }
            return;
        }
        if let Some(at) = self.waiting.iter().position(|range| range.group == group) {
            self.waiting.swap_remove(at);
            return;
        }
        let place = |node: &Node| (&node.range.start, node.range.group).cmp(&(&filter.start, group));
        if let Ok(at) = self.tree.binary_search_by(place) {
            self.gone += usize::from(take(&mut self.tree[at].lives));
        }
        if self.gone * 2 > self.tree.len() {
            self.plant();
        }
    }

    /// The groups whose keys `key` belongs to.
    pub(super) fn of(&self, key: &[u8], found: &mut Vec<GroupId>) {
        found.clear();
        found.extend(self.keys.get(key).into_iter().flatten());
        let covers = |range: &Range| key >= &range.start[..] && is_before(key, range.end.as_ref());
        found.extend(self.waiting.iter().filter(|range| covers(range)).map(|range| range.group));
        descend(&self.tree, key, found);
    }

    /// Makes the array of all that there are.
    fn plant(&mut self) {
        let old = take(&mut self.tree).into_iter().filter(|node| node.lives).map(|node| node.range);
        let mut ranges: Vec<Range> = old.chain(take(&mut self.waiting)).collect();
        ranges.sort_unstable_by(|a, b| (&a.start, a.group).cmp(&(&b.start, b.group)));
        let node = |range: Range| Node { lives: true, last: range.end.clone(), range };
        self.tree = ranges.into_iter().map(node).collect();
        self.gone = 0;
        note_last(&mut self.tree);
    }
}

fn is_before(key: &[u8], end: Option<&Bytes>) -> bool {
    end.is_none_or(|end| key < &end[..])
}

fn later(a: Option<Bytes>, b: Option<Bytes>) -> Option<Bytes> {
    Some(a?.max(b?))
}

/// Writes down the last ends below each node. The last end of all.
fn note_last(tree: &mut [Node]) {
    let middle = tree.len() / 2;
    let (before, rest) = tree.split_at_mut(middle);
    let Some((root, behind)) = rest.split_first_mut() else { return };
    for below in [before, behind] {
        note_last(below);
        if let Some(node) = below.get(below.len() / 2) {
            root.last = later(root.last.take(), node.last.clone());
        }
    }
}

fn descend(tree: &[Node], key: &[u8], found: &mut Vec<GroupId>) {
    let Some(root) = tree.get(tree.len() / 2) else { return };
    if !is_before(key, root.last.as_ref()) {
        return;
    }
    let (before, rest) = tree.split_at(tree.len() / 2);
    descend(before, key, found);
    if key >= &root.range.start[..] {
        if root.lives && is_before(key, root.range.end.as_ref()) {
            found.push(root.range.group);
        }
        descend(&rest[1..], key, found);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(start: u8, end: Option<u8>, one: bool) -> Filter {
        let end = match (one, end) {
            (true, _) => End::One,
            (false, None) => End::Never,
            (false, Some(end)) => End::Before(vec![end].into()),
        };
        Filter { start: vec![start].into(), end, puts: true, deletions: true, previous: false }
    }

    proptest! {
        #[test]
        fn all_groups_that_cover_a_key_are_found_and_no_others(
            filters in prop::collection::vec((0..20_u8, prop::option::weighted(0.9, 0..20_u8), prop::bool::weighted(0.2), any::<bool>()), 0..300),
        ) {
            let mut ranges = Ranges::default();
            let mut kept = Vec::new();
            for (group, (start, end, one, stays)) in filters.into_iter().enumerate() {
                let filter = filter(start, end, one);
                ranges.insert(&filter, group as u64);
                kept.push((filter, group as u64));
                if !stays {
                    let (filter, group) = kept.swap_remove(kept.len() / 2);
                    ranges.remove(&filter, group);
                }
            }
            let mut found = Vec::new();
            for key in 0..21_u8 {
                ranges.of(&[key], &mut found);
                found.sort_unstable();
                let mut expected: Vec<_> =
                    kept.iter().filter(|(filter, _)| filter.covers(&[key])).map(|(_, group)| *group).collect();
                expected.sort_unstable();
                prop_assert_eq!(&found, &expected);
            }
        }
    }
}
