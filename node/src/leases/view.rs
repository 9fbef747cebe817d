//! The leases as they were at one moment, read a few at a time while they go on changing.
//!
//! A view that nobody reads on keeps no more than there was when it began: what is granted later it knows by its number.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Grant, Leases};

/// A reader of the leases as they were when it began. What it has not read yet is noted when it changes, so its beginning costs nothing, and
/// it keeps no more than what has changed.
#[derive(Debug)]
pub struct View {
    seen: Arc<Mutex<Seen>>,
}

/// What a view has read, and what it must know of the rest.
#[derive(Debug)]
pub(super) struct Seen {
    /// All below this ID have been read; none at the end.
    next: Option<i64>,
    /// So many were ever granted when it began: what has a greater number came later.
    granted: u64,
    /// What there was, by ID, of those that have changed since.
    before: BTreeMap<i64, Grant>,
}

impl Leases {
    /// Begins to read the leases as they are now.
    pub fn view(&mut self) -> View {
        self.views.retain(|view| view.strong_count() > 0);
        let seen = Arc::new(Mutex::new(Seen {
            next: Some(i64::MIN),
            granted: self.granted,
            before: BTreeMap::new(),
        }));
        self.views.push(Arc::downgrade(&seen));
        View { seen }
    }
}

impl Seen {
    /// The lease `id` is about to change, and `was` this.
    pub(super) fn note(&mut self, id: i64, was: Option<Grant>) {
        if self.next.is_some_and(|next| next <= id)
            && let Some(was) = was.filter(|was| was.number <= self.granted)
        {
            self.before.insert(id, was);
        }
    }
}

impl View {
    /// The next leases of `leases`, where it was begun, in the order of their IDs; it looks at `most`, and may return fewer.
    pub fn next(&self, leases: &Leases, most: usize) -> Vec<Grant> {
        let mut seen = self.seen.lock();
        let mut read = Vec::new();
        for _ in 0..most {
            let Some(next) = seen.next else { break };
            let there = leases.by_id.range(next..).next().map(|(_, lease)| lease.grant);
            let noted = seen.before.range(next..).next().map(|(_, was)| *was);
            let grant = match (there, noted) {
                (Some(there), Some(noted)) if there.id < noted.id => there,
                (_, Some(noted)) => noted,
                (Some(there), None) => there,
                (None, None) => {
                    seen.next = None;
                    break;
                }
            };
            seen.before.remove(&grant.id);
            seen.next = grant.id.checked_add(1);
            read.extend((grant.number <= seen.granted).then_some(grant));
        }
        read
    }

    /// Whether all have been read.
    pub fn is_at_end(&self) -> bool {
        self.seen.lock().next.is_none()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_view_tells_what_there_was_whatever_changes_meanwhile(
            first in prop::collection::btree_set(-20_i64..20, 0..20),
            then in prop::collection::vec((any::<bool>(), -20_i64..20, 0_usize..5), 0..60),
        ) {
            let mut leases = Leases::default();
            for id in &first {
                leases.grant(*id, 60).expect("each is there once");
            }
            let all: Vec<_> = leases.iter_from(i64::MIN).collect();
            let view = leases.view();
            let mut read = Vec::new();
            for (grants, id, most) in then {
                if grants { _ = leases.grant(id, 9) } else { leases.end(id) }
                read.extend(view.next(&leases, most));
            }
            while !view.is_at_end() {
                read.extend(view.next(&leases, 3));
            }
            prop_assert_eq!(read, all);
        }
    }

    #[test]
    fn a_view_that_is_gone_costs_nothing() {
        let mut leases = Leases::default();
        drop(leases.view());
        leases.grant(1, 60).expect("it is new");
        assert!(leases.views.is_empty());
    }

    #[test]
    fn a_view_that_is_not_read_keeps_no_more_than_there_was() {
        let mut leases = Leases::default();
        leases.grant(1, 60).expect("it is new");
        let view = leases.view();
        for id in (1..1000).rev() {
            leases.end(id);
            leases.grant(id, 9).expect("there is none any more");
            leases.end(id);
        }
        assert_eq!(view.seen.lock().before.len(), 1);
        assert_eq!(view.next(&leases, 9), [Grant { id: 1, ttl: 60, number: 1 }]);
    }

    #[test]
    fn the_last_id_ends_it() {
        let mut leases = Leases::default();
        leases.grant(i64::MAX, 60).expect("it is new");
        let view = leases.view();
        assert_eq!((view.next(&leases, 1).len(), view.is_at_end()), (1, true));
    }
}
