//! Splits a history by keys.

use std::collections::BTreeMap;

use super::history::History;
use super::model::Model;

/// The operations on one set of keys that no other operation touches.
pub(super) struct Partition<M: Model> {
    pub keys: Vec<M::Key>,
    pub history: History<M::Input, M::Output>,
}

/// Histories by the group of keys that they are about.
type Parts<M> = BTreeMap<usize, History<<M as Model>::Input, <M as Model>::Output>>;

/// Keys that occur in one operation belong together, and so do the keys of either's other operations.
pub(super) fn split<M: Model>(model: &M, history: History<M::Input, M::Output>) -> Vec<Partition<M>> {
    let mut groups = Groups::default();
    let homes: Vec<_> = history.iter().map(|operation| groups.join(&model.keys(&operation.input))).collect();
    let mut parts: Parts<M> = BTreeMap::new();
    for (home, operation) in homes.into_iter().zip(history) {
        parts.entry(groups.root(home)).or_default().push(operation);
    }
    let mut keys = groups.members();
    let part = |(root, history)| Partition { keys: keys.remove(&root).unwrap_or_default(), history };
    parts.into_iter().map(part).collect()
}

/// Disjoint sets of keys (union-find).
struct Groups<K> {
    number: BTreeMap<K, usize>,
    parent: Vec<usize>,
}

impl<K> Default for Groups<K> {
    fn default() -> Self {
        Self { number: BTreeMap::new(), parent: Vec::new() }
    }
}

impl<K: Clone + Ord> Groups<K> {
    /// Makes one group of the groups of `keys`, and returns it. An operation on no key at all is a group of its own.
    fn join(&mut self, keys: &[K]) -> usize {
        let mut numbers = keys.iter().map(|key| self.number(key)).collect::<Vec<_>>().into_iter();
        let Some(first) = numbers.next() else { return self.add() };
        for other in numbers {
            let (a, b) = (self.root(first), self.root(other));
            self.parent[b] = a;
        }
        first
    }

    fn number(&mut self, key: &K) -> usize {
        if let Some(&number) = self.number.get(key) {
            return number;
        }
        let number = self.add();
        self.number.insert(key.clone(), number);
        number
    }

    fn add(&mut self) -> usize {
        self.parent.push(self.parent.len());
        self.parent.len() - 1
    }

    fn root(&mut self, mut number: usize) -> usize {
        while self.parent[number] != number {
            self.parent[number] = self.parent[self.parent[number]];
            number = self.parent[number];
        }
        number
    }

    fn members(&mut self) -> BTreeMap<usize, Vec<K>> {
        let mut members: BTreeMap<usize, Vec<K>> = BTreeMap::new();
        for (key, number) in self.number.clone() {
            members.entry(self.root(number)).or_default().push(key);
        }
        members
    }
}
