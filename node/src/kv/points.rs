//! Where snapshots are due: the log itself decides, so that all members take theirs at the same index.

use super::Store;

/// How much of the log makes a snapshot due. To be the same on all members: otherwise each takes its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// At least so many bytes of entries lie between two snapshots.
    pub least_bytes: u64,
    /// The bytes of each of its pieces but the last, a multiple of 4 KiB.
    pub piece_bytes: u32,
}

impl Default for SnapshotPolicy {
    /// Every 16 MiB at the most: the log stays in memory for so long. In pieces of 256 KiB.
    fn default() -> Self {
        Self { least_bytes: 16 << 20, piece_bytes: 256 << 10 }
    }
}

impl SnapshotPolicy {
    /// Whether a snapshot is due after entries of `weight` bytes since the last one, of a state of `state` bytes. A large state waits
    /// for half as many bytes of entries as it has itself: so snapshots never write more than twice what the log does.
    pub fn is_due(self, weight: u64, state: u64) -> bool {
        weight >= self.least_bytes.max(state / 2)
    }

    /// Whether a snapshot is due because the state has shrunk so much, from `before` bytes to `state`: the files of the old ones, and
    /// of the log, take room that is no longer needed.
    fn has_shrunk(self, before: u64, state: u64) -> bool {
        before >= self.least_bytes && state <= before / 2
    }
}

impl Store {
    /// Takes note of an applied entry of `bytes` ([`quorate_raft::Entry::weight`]): of every one, whatever it holds, after its
    /// command was applied. Returns whether a snapshot is due as of this entry.
    pub fn weigh(&mut self, bytes: u64, policy: SnapshotPolicy) -> bool {
        self.weight += bytes;
        let kept = self.sizes.kept;
        let due = policy.is_due(self.weight, kept) || policy.has_shrunk(self.kept_at_point, kept);
        if due {
            self.weight = 0;
            self.kept_at_point = kept;
        }
        due
    }
}
