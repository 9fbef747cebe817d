//! What a disk gives back is what it was given up to one of its writes, and no less than it has called durable.

use quorate_raft::{MemberId, Restored, Snapshot};

use super::Invariants;
use super::member::{Name, UnderWay, take};

impl Invariants {
    /// A member starts from what it found on its disk.
    ///
    /// A `damaged` disk may give back less: then the member has to know it.
    pub(super) fn recover(&mut self, id: MemberId, found: &Restored, damaged: bool) {
        if let Some(snapshot) = &found.snapshot {
            self.snapshots.found(snapshot, &self.committed);
        }
        let snapshot = found.snapshot.as_ref();
        let mut member = self.members.remove(&id).expect("it was founded");
        let covered = snapshot.map_or(0, |snapshot| snapshot.id.index);
        assert!(
            damaged || covered >= member.covered,
            "RECOVERY: {id} has lost its snapshot at {}",
            member.covered
        );
        assert!(
            damaged || found.lost.is_none(),
            "RECOVERY: {id} misses {:?}, and nothing was damaged",
            found.lost
        );
        member.covered = covered;

        let names: Vec<Name> = found.entries.iter().map(Name::of).collect();
        let state = (found.hard_state.term, found.hard_state.vote);
        let mut log = std::mem::take(&mut member.durable);
        let mut known = member.durable_state;
        let promised = (known, log.len());
        match found.lost {
            Some(lost) => member.damaged(&log, lost),
            None => member.whole(),
        }
        let mut writes = member.under_way.drain(..).flat_map(UnderWay::steps);
        // What a snapshot covers may have been given up, or may not be on the disk yet: what counts is what follows.
        let first = found.entries.first().map_or(u64::MAX, |entry| entry.index);
        let ends = |log: &[Name]| match found.entries.last() {
            Some(last) if last.index > covered => log.get(first as usize - 1..) == Some(&names[..]),
            _ => log.len() as u64 <= covered,
        };
        if damaged && found.lost.is_some() {
            // What is whole is the beginning of what it had.
            let end = found.entries.last().map_or(0, |entry| entry.index).max(covered);
            let (held, promised) = (self.committed.last().min(end) as usize, found.lost.unwrap_or_default());
            assert!(promised.index > end || found.entries.last().is_some_and(|e| e.term < promised.term));
            log = member.log[..member.log.len().min(end as usize)].to_vec();
            log.resize(log.len().max(held), Name { term: 0, fingerprint: 0 });
            let start = (first as usize).min(log.len() + 1) - 1;
            log[..held.min(start)].copy_from_slice(self.committed.until(held.min(start) as u64));
            log.truncate(start);
            log.extend_from_slice(&names);
            (known.term, known.vote) = state;
            writes.by_ref().for_each(drop);
        }
        while found.lost.is_none() && ((known.term, known.vote) != state || !ends(&log)) {
            let Some(write) = writes.next() else {
                panic!(
                    "RECOVERY: {id} has found {:?}, {} entries from {first} on, and a snapshot at {covered}; {:?} and {} entries were durable",
                    found.hard_state,
                    names.len(),
                    promised.0,
                    promised.1
                );
            };
            take(&mut log, &mut known, &write);
        }
        drop(writes);
        member.log = log;
        member.configurations.retain(|(id, _)| id.index < first);
        for entry in &found.entries {
            if let quorate_raft::Payload::Configuration(configuration) = &entry.payload {
                member.configurations.push((entry.id(), (**configuration).clone()));
            }
        }
        // The log on disk does not reach the snapshot before the next write: until then nothing behind its end was promised.
        let on_disk = member.log.clone();
        if let Some(snapshot) = snapshot {
            self.begin_after(&mut member, snapshot);
        }
        member.settle(found.hard_state);
        member.durable = on_disk;
        member.applied = covered;
        member.term = found.hard_state.term;
        member.commit = found.hard_state.commit.max(covered);
        self.members.insert(id, member);
    }

    /// A snapshot whose last entry the log does not hold takes its place in memory, and on disk with the next write. The configurations that
    /// it covers are known in any case: what was found of the log may end before them.
    fn begin_after(&self, member: &mut super::Member, snapshot: &Snapshot) {
        let at = snapshot.id.index;
        let mut configurations = self.configurations.until(at, |id| self.committed.holds(id));
        if member.term_at(at) == Some(snapshot.id.term) {
            configurations.extend(member.configurations.drain(..).filter(|(id, _)| id.index > at));
        } else {
            member.log = self.committed.until(at).to_vec();
        }
        member.configurations = configurations;
    }
}
