//! The mark of a removal in a member's identity: stored, as the server's loop does it, before the member does anything else.

use quorate_node::storage::OpenError;
use quorate_raft::{Index, MemberId};
use rand::RngExt;

use crate::disk::Failure;
use crate::host::{Process, Stage, Task, dir, name};
use crate::time::MILLI;
use crate::world::World;

/// What happens to a mark that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The process, or its machine, ends meanwhile.
    Kill,
    /// The disk is full.
    Full,
    /// The device reports an error.
    Fail(Failure),
}

impl Process {
    /// What the status has changed to may have to be stored.
    pub(crate) fn note_removal(&mut self) {
        let removed = self.replica.removed();
        self.unstored = (removed != self.identity.removed).then_some(removed);
    }
}

impl World {
    /// The disk stores the mark, if there is one to be stored. It shares the disk with the log's writes, and may come before or after them;
    /// snapshots wait for it. Whether it does.
    pub(crate) fn store_removal(&mut self, id: MemberId) -> bool {
        let now = self.now();
        let Some(host) = self.hosts.get_mut(&id) else { return false };
        let comes_first = host.order.random_bool(0.7);
        let disk = host.disk.clone();
        let Stage::Up(process) = &mut host.stage else { return false };
        let Some(removed) = process.unstored else { return false };
        let other_work = process.writes_wait() || process.release.is_some();
        if other_work && !comes_first {
            return false;
        }
        disk.begin(now);
        match self.mark_trouble.take() {
            None => {}
            Some(Trouble::Kill) => host.killed_when_it_writes = true,
            Some(Trouble::Full) => disk.fill(0, now + 100 * MILLI),
            Some(Trouble::Fail(failure)) => disk.fail_next(failure),
        }
        process.task = Some(Task::Mark(process.identity.set_removed(&disk, &dir(), removed)));
        if other_work {
            self.coverage.count("removals stored while the log was written");
        }
        self.disk_works(id);
        true
    }

    /// The mark is stored, or that has failed.
    pub(crate) fn stored_removal(&mut self, id: MemberId, stored: &Result<(), OpenError>) {
        let process = self.hosts.get_mut(&id).and_then(|host| host.process_mut()).expect("it has stored it");
        if stored.as_ref().is_err_and(OpenError::lacks_descriptors) {
            return self.coverage.count("removals that waited for a descriptor");
        }
        process.unstored = None;
        let mark = process.identity.removed;
        self.coverage.count(match stored {
            Err(_) => "removals not stored",
            Ok(()) if mark > 0 => "removals stored",
            Ok(()) => "removals taken back",
        });
        if stored.is_ok() {
            self.invariants.stored_removal(id, mark);
        }
        self.say(|| format!("{} stores that entry {mark} has removed it: {stored:?}", name(id)));
        self.use_applier(id, Vec::new());
    }

    /// How a member stands in its cluster.
    pub(crate) fn stands(&mut self, id: MemberId) {
        let Some(process) = self.hosts.get(&id).and_then(|host| host.process()) else { return };
        let Process { replica, unstored, identity, .. } = process;
        let mark = unstored.unwrap_or(identity.removed);
        self.invariants.stands(id, replica.standing(), replica.removed(), mark);
    }

    /// A process starts with this mark, and with a snapshot that covers so much.
    pub(crate) fn note_mark(&mut self, mark: Index, covered: Index) {
        if mark > 0 {
            self.coverage.count("processes started as a removed member");
            if covered >= mark {
                self.coverage.count("processes started as a removed member whose log does not tell");
            }
        }
    }
}
