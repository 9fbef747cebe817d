//! What the state machine asks of the world.

use crate::{Configuration, Entry, Index, LogId, MemberId, Message, Snapshot, Term};

/// What has to survive a crash beside the entries. Term and vote are one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct HardState {
    /// The newest term seen.
    pub term: Term,
    /// For whom this member voted in it.
    pub vote: Option<MemberId>,
    /// What is known to be committed. May be stale after a crash.
    pub commit: Index,
}

/// Names a [`Write`]; they count up by one within the life of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WriteId(pub u64);

/// What must become durable, in order. When it is, say so with [`crate::Raft::persisted`].
///
/// It is one unit up to its first entry: term, vote and reset are durable with that at the latest. The entries behind may follow a
/// part at a time ([`Write::take_beginning`]), in order: a log that ends with one of them is one that a leader might have sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Write {
    /// Its name.
    pub id: WriteId,
    /// Set when term, vote or commit moved. A commit that moved alone makes no write of its own.
    pub hard_state: Option<HardState>,
    /// Set when a snapshot was installed: the log begins anew after this entry. What it held goes, durably, before any of
    /// `entries` is there.
    pub reset: Option<LogId>,
    /// Set when what this member owes has changed: from now on it is every entry up to this one, which may be far beyond the end of its log.
    /// To be kept as [`crate::Restored::lost`] until the log ends with one at least as new.
    pub lost: Option<LogId>,
    /// Consecutive entries. The first one replaces whatever the log held at its index and after.
    pub entries: Vec<Entry>,
}

impl Write {
    /// Takes the beginning off: the same write with as many of its entries as weigh no more than `bytes`, at least one. What is left is
    /// to be made durable after it. None when that would be all of it.
    pub fn take_beginning(&mut self, bytes: usize) -> Option<Self> {
        let mut weight = 0;
        let fitting = self.entries.iter().take_while(|entry| {
            weight += entry.weight();
            weight <= bytes
        });
        let count = fitting.count().max(1);
        if count >= self.entries.len() {
            return None;
        }
        let entries = self.entries.drain(..count).collect();
        Some(Self {
            id: self.id,
            hard_state: self.hard_state.take(),
            reset: self.reset.take(),
            lost: self.lost.take(),
            entries,
        })
    }

    /// What it counts for against limits in bytes: see [`Entry::weight`].
    pub fn weight(&self) -> usize {
        self.entries.iter().map(Entry::weight).sum()
    }
}

/// All that the inputs since the last call of [`crate::Raft::output`] have brought about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Output {
    /// To be made durable.
    pub write: Option<Write>,
    /// To be sent. Nothing in here waits for a write: what does is held back until that write is reported as persisted.
    pub messages: Vec<Message>,
    /// To be applied, in order: committed and durable here.
    pub committed: Vec<Entry>,
    /// Reads that are settled. They may be served once `index` has been applied.
    pub reads: Vec<ReadDone>,
    /// The snapshot that this member lacks, in each output for as long as it does. Its contents are to be fetched, from any
    /// member, and reported by [`crate::Raft::installed`] or [`crate::Raft::install_failed`].
    pub wanted: Option<Snapshot>,
    /// Set when anything of what [`Status`] shows has changed, indices aside, or what is `wanted`.
    pub status_changed: bool,
}

/// A settled read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReadDone {
    /// The number that [`crate::Raft::read_index`] returned.
    pub id: u64,
    /// What must be applied before reading; none when leadership was lost or no leader answered: the client asks again.
    pub index: Option<Index>,
}

/// A member's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Receives the log, does not vote.
    Learner,
    /// Follows.
    Follower,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// What a member knows of itself and its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Status {
    /// This member.
    pub id: MemberId,
    /// Its part.
    pub role: Role,
    /// The newest term that it has seen.
    pub term: Term,
    /// The leader of that term, if known.
    pub leader: Option<MemberId>,
    /// The end of its log.
    pub last: LogId,
    /// What is committed.
    pub commit: Index,
    /// The newest configuration in its log, committed or not.
    pub configuration: Configuration,
    /// Where that configuration stands: its ID.
    pub configuration_id: LogId,
    /// Its disk has completed no write for [`crate::Config::disk_ticks`]: it does not lead while that lasts.
    pub disk_hangs: bool,
    /// It lacks entries that it once acknowledged ([`crate::Restored::lost`]), and takes no part in elections until it has them
    /// again. When it becomes true in the life of a process, the member has found out that its disk went back in time.
    pub repairing: bool,
    /// What it has met that cannot be, if anything: the last, or the one over which it has to end.
    pub contradiction: Option<Contradiction>,
}

/// What cannot be as long as no member forgets what it has promised. It comes of a disk that went back in time unnoticed, or of a copy of a
/// member that runs beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Contradiction {
    /// Final: the process is to end, and its disk to be kept. Nothing was changed.
    #[error(
        "leader {leader} of term {} has another entry {} than the one that is committed here. A member has forgotten what it acknowledged: \
         a disk was put back to an earlier state, or a copy of a member runs beside it. What is committed is never cut off: this \
         data directory is kept as it is, and may hold acknowledged writes that the others have lost",
        theirs.term, theirs.index
    )]
    Committed {
        /// Whose log is another.
        leader: MemberId,
        /// What it has in the place of an entry that is committed here.
        theirs: LogId,
    },
    /// The second one is not followed.
    #[error(
        "{} and {} both lead term {term}: a member has voted twice, or a copy of one runs beside it. The first one is followed",
        leaders.0, leaders.1
    )]
    TwoLeaders {
        /// The term.
        term: Term,
        /// The one that is followed, and the other.
        leaders: (MemberId, MemberId),
    },
}
