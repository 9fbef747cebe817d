//! A member with a disk that can be slow and a process that can crash.

use std::collections::VecDeque;

use quorate_raft::{Config, Entry, HardState, MemberId, Output, Raft, Restored, Write, WriteId};

/// A member, its disk, and the writes between them.
pub(crate) struct Host {
    pub(crate) config: Config,
    /// None while the process is down.
    pub(crate) raft: Option<Raft>,
    /// What survives a crash.
    pub(crate) disk: Restored,
    /// Handed out, not durable yet.
    pub(crate) writing: VecDeque<Write>,
    /// The log as it was last handed out: durable or not.
    pub(crate) log: Vec<Entry>,
}

impl Host {
    /// A process that starts on `disk`.
    pub(crate) fn new(config: Config, disk: Restored) -> Self {
        let mut host = Self { config, raft: None, disk, writing: VecDeque::new(), log: Vec::new() };
        host.start();
        host
    }

    pub(crate) fn id(&self) -> MemberId {
        self.config.id
    }

    pub(crate) fn raft(&mut self) -> &mut Raft {
        self.raft.as_mut().expect("the process is up")
    }

    pub(crate) fn is_up(&self) -> bool {
        self.raft.is_some()
    }

    /// What the member asks for; its write goes to the end of those under way.
    pub(crate) fn output(&mut self) -> Output {
        let output = self.raft().output();
        if let Some(write) = &output.write {
            overwrite(&mut self.log, &write.entries);
            self.writing.push_back(write.clone());
        }
        output
    }

    /// The oldest `count` writes reach the disk, and the last of them is reported.
    pub(crate) fn persist(&mut self, count: usize) -> Option<WriteId> {
        let newest = self.reach_disk(count)?;
        self.raft().persisted(newest);
        Some(newest)
    }

    /// The process ends. Of the writes under way the oldest `surviving` reached the disk.
    pub(crate) fn crash(&mut self, surviving: usize) {
        self.raft = None;
        self.reach_disk(surviving);
        self.writing.clear();
    }

    /// The process starts again. Numbers of reads must not come back: the seed moves on.
    pub(crate) fn start(&mut self) {
        self.config.seed = self.config.seed.wrapping_add(0x9E37_79B9);
        self.log.clone_from(&self.disk.entries);
        self.raft = Some(Raft::new(self.config.clone(), self.disk.clone()));
    }

    fn reach_disk(&mut self, count: usize) -> Option<WriteId> {
        let mut newest = None;
        for write in self.writing.drain(..count) {
            overwrite(&mut self.disk.entries, &write.entries);
            if let Some(HardState { term, vote, commit }) = write.hard_state {
                self.disk.hard_state = HardState { term, vote, commit };
            }
            newest = Some(write.id);
        }
        newest
    }
}

/// Puts `entries` into `log`; the first one replaces whatever stood at its index and after.
fn overwrite(log: &mut Vec<Entry>, entries: &[Entry]) {
    if let Some(first) = entries.first() {
        log.truncate(first.index as usize - 1);
        log.extend_from_slice(entries);
    }
}
