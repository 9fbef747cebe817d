//! What a disk gives back is what it was given up to one of its writes, and no less than it has called durable.

use quorate_raft::{MemberId, Restored};

use super::member::{Member, Name, take};

/// A member starts from what it found on its disk.
pub(crate) fn started(id: MemberId, member: &mut Member, found: &Restored) {
    let names: Vec<Name> = found.entries.iter().map(Name::of).collect();
    let state = (found.hard_state.term, found.hard_state.vote);
    let mut log = std::mem::take(&mut member.durable);
    let mut known = member.durable_state;
    let promised = (known, log.len());
    let mut writes = member.under_way.drain(..);
    while (known.term, known.vote) != state || log != names {
        let Some(write) = writes.next() else {
            panic!(
                "RECOVERY: {id} has found {:?} and {} entries; {:?} and {} entries were durable",
                found.hard_state,
                names.len(),
                promised.0,
                promised.1
            );
        };
        take(&mut log, &mut known, &write);
    }
    drop(writes);
    member.configurations.clear();
    member.log.clear();
    for entry in &found.entries {
        member.push(entry);
    }
    member.settle(found.hard_state);
    member.applied = 0;
    member.term = found.hard_state.term;
    member.commit = found.hard_state.commit;
}
