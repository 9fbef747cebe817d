//! No acknowledged write is lost: what a client is told to be done stands in the committed log, once, and stays there.
//!
//! That it stays is the part of the other invariants: committed entries are on the disks of a quorum, in the log of every later
//! leader, and never replaced.

use quorate_raft::{Index, MemberId};

use super::committed::Committed;
use super::once::Once;

#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    answered: u64,
}

impl Acknowledged {
    /// The client of `command` (its origin, its number) is told that it was done, by a member that has applied up to `applied`.
    pub(crate) fn answered(
        &mut self,
        command: (MemberId, u64),
        applied: Index,
        once: &Once,
        committed: &Committed,
    ) {
        let place = once.place(command);
        let Some(place) = place.filter(|place| committed.holds(*place) && place.index <= applied) else {
            panic!(
                "ACKNOWLEDGED: command {} of {} was answered, and is not in the log",
                command.1, command.0
            );
        };
        self.answered += 1;
        assert!(place.index > 0);
    }
}
