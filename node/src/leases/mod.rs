//! Leases: which there are, for how long each lives when nothing is heard, and which keys hang on it.
//!
//! They are part of the replicated state, beside the keys: commands grant and end them, and what hangs on them follows from the newest versions
//! of the keys. *When* one ends is not in here: the times are the leader's alone ([`crate::replica`]), and that a lease's time is over comes
//! as a command, too. Pure: no clock, no I/O.

mod view;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Weak;

use parking_lot::Mutex;

use self::view::Seen;
pub use self::view::View;

/// What the state accounts for a lease, in bytes: its places here and where its time is kept. Part of the protocol, from level 2 on: the
/// size of the state decides what is refused.
pub const LEASE_BYTES: u64 = 256;

/// What it accounts for a key that hangs on one, beside the key itself.
pub const HANGING_BYTES: u64 = 64;

/// The shortest time to live, in seconds: etcd's, with its usual times. Whoever asks for less is given this.
pub const MIN_TTL: i64 = 2;

/// The longest: etcd's.
pub const MAX_TTL: i64 = 9_000_000_000;

/// One lease, as it was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Its ID, never 0. When it has ended another one may be granted with the same.
    pub id: i64,
    /// For how long it lives when nothing is heard, in seconds.
    pub ttl: i64,
    /// Which of all grants it is, counted from 1: that is never used again.
    pub number: u64,
}

/// What has become of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was granted.
    Granted(Grant),
    /// It has ended.
    Ended(Grant),
    /// Another state takes the place of the one that they were of: there are none but those that follow.
    Replaced,
}

/// The ID is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exists;

/// All leases.
#[derive(Debug, Default)]
pub struct Leases {
    by_id: BTreeMap<i64, Lease>,
    /// How many were ever granted.
    granted: u64,
    /// What all of it takes, as it is accounted.
    bytes: u64,
    /// What has changed since [`Self::take_changes`].
    changes: Vec<Change>,
    /// Of readers that see the leases as they were.
    views: Vec<Weak<Mutex<Seen>>>,
    /// Those that a copy of the state lacks; none where there is no copy.
    uncopied: Option<Uncopied>,
}

/// The leases that a copy lacks.
#[derive(Debug, Default)]
struct Uncopied {
    /// All from this ID on; none where it has once read all of them.
    next: Option<i64>,
    /// Those before it that have changed since.
    changed: BTreeSet<i64>,
}

/// Keys in their order.
pub type Keys = BTreeSet<Box<[u8]>>;

#[derive(Debug)]
struct Lease {
    grant: Grant,
    keys: Keys,
    /// What those take, as they are accounted.
    bytes: u64,
}

impl Leases {
    /// Grants the lease `id` for `ttl` seconds.
    pub fn grant(&mut self, id: i64, ttl: i64) -> Result<Grant, Exists> {
        if self.by_id.contains_key(&id) {
            return Err(Exists);
        }
        let grant = Grant { id, ttl, number: self.granted + 1 };
        self.touch(id);
        self.granted += 1;
        self.changes.push(Change::Granted(grant));
        self.put_back(grant);
        Ok(grant)
    }

    /// A lease that was written down is there again. False, and nothing is done, if it cannot be: its ID or its number is none, or is taken.
    pub fn restore(&mut self, grant: Grant) -> bool {
        let Grant { id, ttl, number } = grant;
        let can_be = id != 0 && ttl <= MAX_TTL && (1..=self.granted).contains(&number);
        let is_new = can_be && !self.by_id.contains_key(&id);
        if is_new {
            self.put_back(grant);
        }
        is_new
    }

    /// So many were ever granted, before the first of them is restored.
    pub fn restore_granted(&mut self, granted: u64) {
        self.granted = granted;
    }

    fn put_back(&mut self, grant: Grant) {
        self.bytes += LEASE_BYTES;
        self.by_id.insert(grant.id, Lease { grant, keys: Keys::new(), bytes: 0 });
    }

    /// The lease ends. What hung on it must be gone, or go.
    pub fn end(&mut self, id: i64) {
        self.touch(id);
        if let Some(lease) = self.by_id.remove(&id) {
            self.bytes -= LEASE_BYTES + lease.bytes;
            self.changes.push(Change::Ended(lease.grant));
        }
    }

    /// The keys that hang on the lease, taken off it: it is about to end, and they with it. What they take is accounted until it has.
    pub fn take_keys(&mut self, id: i64) -> Keys {
        self.by_id.get_mut(&id).map(|lease| std::mem::take(&mut lease.keys)).unwrap_or_default()
    }

    /// `key` hangs on the lease from now on, if there is such a lease. Whether there is.
    pub fn attach(&mut self, id: i64, key: &[u8]) -> bool {
        let Some(lease) = self.by_id.get_mut(&id) else { return false };
        if !lease.keys.contains(key) {
            lease.keys.insert(key.into());
            lease.bytes += hanging(key);
            self.bytes += hanging(key);
        }
        true
    }

    /// `key` does not hang on it any more.
    pub fn detach(&mut self, id: i64, key: &[u8]) {
        if let Entry::Occupied(mut entry) = self.by_id.entry(id)
            && entry.get_mut().keys.remove(key)
        {
            entry.get_mut().bytes -= hanging(key);
            self.bytes -= hanging(key);
        }
    }

    /// The lease with this ID.
    pub fn get(&self, id: i64) -> Option<Grant> {
        self.by_id.get(&id).map(|lease| lease.grant)
    }

    /// Keys that hang on it, in order, those behind `after`.
    pub fn keys<'a>(&'a self, id: i64, after: Option<&'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
        use std::ops::Bound::{Excluded, Unbounded};
        let keys = self.by_id.get(&id).map(|lease| {
            lease.keys.range::<[u8], _>((after.map_or(Unbounded, Excluded), Unbounded)).map(|key| &**key)
        });
        keys.into_iter().flatten()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// How many were ever granted.
    pub fn granted(&self) -> u64 {
        self.granted
    }

    /// All from the ID `from` on, in the order of their IDs: as many steps as there are.
    pub fn iter_from(&self, from: i64) -> impl Iterator<Item = Grant> {
        self.by_id.range(from..).map(|(_, lease)| lease.grant)
    }

    /// What they and what hangs on them take, as it is accounted.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What has changed since this was asked last, in order.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// For a copy of the state that has none of them: from now on what it lacks is noted. If it is noted already that goes on.
    pub fn begin_copy(&mut self) {
        self.uncopied.get_or_insert(Uncopied { next: Some(i64::MIN), changed: BTreeSet::new() });
    }

    /// For a copy that has all there is: from now on what it lacks is noted.
    pub fn resume_copy(&mut self) {
        self.uncopied = Some(Uncopied::default());
    }

    /// There is no copy any more.
    pub fn end_copy(&mut self) {
        self.uncopied = None;
    }

    /// Up to `most` leases that the copy lacks: what they are, or that there is none with the ID. It has them then.
    pub fn take_uncopied(&mut self, most: usize) -> Vec<(i64, Option<Grant>)> {
        let Some(Uncopied { next, changed }) = &mut self.uncopied else { return Vec::new() };
        let mut taken = Vec::new();
        while taken.len() < most {
            let first = next.and_then(|next| self.by_id.range(next..).next()).map(|(id, _)| *id);
            if let Some(id) = first {
                *next = id.checked_add(1);
            } else {
                *next = None;
            }
            let Some(id) = first.or_else(|| changed.pop_first()) else { break };
            taken.push((id, self.by_id.get(&id).map(|lease| lease.grant)));
        }
        taken
    }

    /// How many leases the copy lacks, and one more while it has not read all of them once. 0 where there is no copy.
    pub fn uncopied(&self) -> u64 {
        let lacks = |lacks: &Uncopied| lacks.changed.len() as u64 + u64::from(lacks.next.is_some());
        self.uncopied.as_ref().map_or(0, lacks)
    }

    /// How many views are being read.
    pub fn views(&self) -> usize {
        self.views.iter().filter(|view| view.strong_count() > 0).count()
    }

    /// Whether the copy has all there is.
    pub fn is_copied(&self) -> bool {
        self.uncopied.as_ref().is_none_or(|lacks| lacks.next.is_none() && lacks.changed.is_empty())
    }

    /// The lease with this ID is about to change: whoever reads what was needs to know.
    fn touch(&mut self, id: i64) {
        if let Some(Uncopied { next, changed }) = &mut self.uncopied
            && next.is_none_or(|next| id < next)
        {
            changed.insert(id);
        }
        if !self.views.is_empty() {
            let was = self.get(id);
            self.views.retain(|view| view.upgrade().map(|seen| seen.lock().note(id, was)).is_some());
        }
    }
}

/// What a key that hangs on a lease takes, as it is accounted.
pub fn hanging(key: &[u8]) -> u64 {
    key.len() as u64 + HANGING_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_counts_as_long_as_it_hangs_on_a_lease() {
        let mut leases = Leases::default();
        assert_eq!(leases.grant(7, 60), Ok(Grant { id: 7, ttl: 60, number: 1 }));
        assert_eq!(leases.grant(7, 60), Err(Exists));
        assert!(leases.attach(7, b"key") && leases.attach(7, b"key") && !leases.attach(8, b"key"));
        assert_eq!(leases.bytes(), LEASE_BYTES + hanging(b"key"));
        leases.detach(7, b"other");
        leases.detach(7, b"key");
        assert_eq!(leases.bytes(), LEASE_BYTES);
        leases.attach(7, b"a");
        leases.attach(7, b"b");
        assert_eq!(leases.keys(7, None).collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(leases.keys(7, Some(b"a")).collect::<Vec<_>>(), [b"b"]);
        assert_eq!(leases.take_keys(7).len(), 2);
        assert_eq!(leases.bytes(), LEASE_BYTES + 2 * hanging(b"a"), "until the lease has ended");
        leases.end(7);
        assert_eq!((leases.bytes(), leases.is_empty()), (0, true));
    }

    #[test]
    fn a_lease_that_is_granted_again_is_another_one() {
        let mut leases = Leases::default();
        let first = leases.grant(7, 60).expect("it is new");
        leases.end(7);
        let second = leases.grant(7, 60).expect("there is none any more");
        assert_ne!(first.number, second.number);
        let changes = [Change::Granted(first), Change::Ended(first), Change::Granted(second)];
        assert_eq!((leases.take_changes(), leases.take_changes()), (changes.to_vec(), Vec::new()));
    }

    #[test]
    fn what_cannot_be_is_not_restored() {
        let mut leases = Leases::default();
        leases.restore_granted(2);
        assert!(leases.restore(Grant { id: 7, ttl: 60, number: 2 }));
        for (id, ttl, number) in [(7, 60, 1), (0, 60, 1), (8, 60, 3), (8, 60, 0), (8, MAX_TTL + 1, 1)] {
            assert!(!leases.restore(Grant { id, ttl, number }));
        }
        assert_eq!((leases.len(), leases.granted(), leases.take_changes()), (1, 2, Vec::new()));
    }

    #[test]
    fn a_copy_is_told_what_it_lacks() {
        let mut leases = Leases::default();
        let first = leases.grant(1, 60).expect("it is new");
        leases.begin_copy();
        assert!(!leases.is_copied());
        assert_eq!(leases.take_uncopied(9), [(1, Some(first))]);
        assert!(leases.is_copied());
        let second = leases.grant(2, 60).expect("it is new");
        leases.end(1);
        assert_eq!(leases.take_uncopied(1), [(1, None)]);
        assert!(!leases.is_copied());
        assert_eq!(leases.take_uncopied(1), [(2, Some(second))]);
    }
}
