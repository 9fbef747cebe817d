//! A member with a disk that can be slow and a process that can crash.

use std::collections::VecDeque;

use quorate_raft::{Config, Entry, Index, LogId, MemberId, Output, Raft, Restored, Snapshot, Write, WriteId};

/// A member, its disk, and the writes between them.
pub(crate) struct Host {
    pub(crate) config: Config,
    /// None while the process is down.
    pub(crate) raft: Option<Raft>,
    /// What survives a crash. Of its snapshot only the identity: everybody's contents are the same.
    pub(crate) disk: Restored,
    /// An earlier state of the disk.
    pub(crate) backup: Option<Restored>,
    /// Handed out, not durable yet.
    pub(crate) writing: VecDeque<Write>,
    /// The log as it was last handed out: durable or not.
    pub(crate) log: Vec<Entry>,
    /// The snapshot that the member lacks.
    pub(crate) wanted: Option<Snapshot>,
    /// A snapshot that has come and is durable, and of which the member was not told yet.
    pub(crate) fetched: Option<Snapshot>,
    /// The newest entry that its state holds.
    pub(crate) applied: Index,
}

impl Host {
    /// A process that starts on `disk`.
    pub(crate) fn new(config: Config, disk: Restored) -> Self {
        let mut host = Self {
            config,
            raft: None,
            disk,
            backup: None,
            writing: VecDeque::new(),
            log: Vec::new(),
            wanted: None,
            fetched: None,
            applied: 0,
        };
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

    /// What its snapshot covers.
    pub(crate) fn covered(&self) -> LogId {
        self.disk.snapshot.as_ref().map_or_else(LogId::default, |snapshot| snapshot.id)
    }

    /// The end of the log on disk, or of the snapshot.
    pub(crate) fn durable(&self) -> Index {
        self.disk.entries.last().map_or(0, |entry| entry.index).max(self.covered().index)
    }

    /// What the member asks for; its write goes to the end of those under way.
    pub(crate) fn output(&mut self) -> Output {
        let output = self.raft().output();
        if let Some(write) = &output.write {
            overwrite(&mut self.log, write);
            self.writing.push_back(write.clone());
        }
        self.wanted.clone_from(&output.wanted);
        if !self.raft().status().repairing {
            self.disk.lost = None;
        }
        output
    }

    /// The oldest `count` writes reach the disk, and the last of them is reported.
    pub(crate) fn persist(&mut self, count: usize) -> Option<WriteId> {
        let newest = self.reach_disk(count)?;
        self.raft().persisted(newest);
        Some(newest)
    }

    /// The state up to `index` becomes a snapshot, and the log up to `keep_after` goes, from the disk as well.
    pub(crate) fn compact(&mut self, index: Index, keep_after: Index) -> Option<Snapshot> {
        let snapshot = self.raft().snapshot_at(index)?;
        if snapshot.id > self.covered() {
            self.disk.snapshot = Some(snapshot.clone());
        }
        self.raft().compact(snapshot.clone(), keep_after);
        self.disk.entries.retain(|entry| entry.index > keep_after);
        self.log.retain(|entry| entry.index > keep_after);
        Some(snapshot)
    }

    /// The contents of `snapshot` have come, and are durable.
    pub(crate) fn fetch(&mut self, snapshot: Snapshot) {
        if snapshot.id > self.covered() {
            self.disk.snapshot = Some(snapshot.clone());
        }
        self.fetched = Some(snapshot);
    }

    /// What was fetched is reported. Returns whether it has become the state.
    pub(crate) fn install(&mut self, snapshot: &Snapshot) -> bool {
        let replaces = self.raft().installed(snapshot);
        if replaces {
            self.applied = snapshot.id.index;
        }
        replaces
    }

    /// The process ends. Of the writes under way the oldest `surviving` reached the disk.
    pub(crate) fn crash(&mut self, surviving: usize) {
        self.raft = None;
        self.reach_disk(surviving);
        self.writing.clear();
    }

    /// While the process is down the disk loses what it holds of the log after `keep`, and notices: it says what was the newest.
    pub(crate) fn damage(&mut self, keep: Index) {
        let newest = self.disk.entries.last().map(Entry::id).max(Some(self.covered()));
        if self.durable() > keep {
            self.disk.lost = self.disk.lost.max(newest);
            self.disk.entries.retain(|entry| entry.index <= keep);
        }
    }

    /// A copy of the disk, as a snapshot of a volume is one: to be put back later.
    pub(crate) fn copy_disk(&mut self) {
        self.backup = Some(self.disk.clone());
    }

    /// While the process is down its disk goes back to what was copied. Whether there was a copy.
    pub(crate) fn put_back(&mut self) -> bool {
        self.backup.clone().map(|backup| self.disk = backup).is_some()
    }

    /// The process starts again. Numbers of reads must not come back: the seed moves on.
    pub(crate) fn start(&mut self) {
        self.config.seed = self.config.seed.wrapping_add(0x9E37_79B9);
        self.log.clone_from(&self.disk.entries);
        self.applied = self.covered().index;
        self.wanted = None;
        self.fetched = None;
        self.raft = Some(Raft::new(self.config.clone(), self.disk.clone()));
    }

    fn reach_disk(&mut self, count: usize) -> Option<WriteId> {
        let mut newest = None;
        for write in self.writing.drain(..count) {
            overwrite(&mut self.disk.entries, &write);
            if let Some(hard_state) = write.hard_state {
                self.disk.hard_state = hard_state;
            }
            self.disk.lost = write.lost.or(self.disk.lost);
            if let Some(reset) = write.reset {
                let covered = self.disk.snapshot.as_ref().map(|snapshot| snapshot.id);
                assert!(covered >= Some(reset), "{reset:?} is not in a snapshot: {covered:?}");
            }
            newest = Some(write.id);
        }
        newest
    }
}

/// The entry at `index` of a log that may begin anywhere.
pub(crate) fn at(log: &[Entry], index: Index) -> Option<&Entry> {
    let offset = index.checked_sub(log.first()?.index)?;
    log.get(usize::try_from(offset).ok()?)
}

/// Does to `log` what the write says: its first entry replaces whatever stood at its index and after.
pub(crate) fn overwrite(log: &mut Vec<Entry>, write: &Write) {
    if write.reset.is_some() {
        log.clear();
    }
    if let Some(first) = write.entries.first() {
        log.retain(|entry| entry.index < first.index);
        assert!(log.last().is_none_or(|last| last.index + 1 == first.index), "a gap before {first:?}");
        log.extend_from_slice(&write.entries);
    }
}
