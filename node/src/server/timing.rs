//! The times of the protocol and of the loop, in one place: for whoever wants to compare or tune them.

use std::time::Duration;

/// How often time passes for the replica. A tick that comes late is one tick: a machine that stalls does not make up for it
/// by an election.
pub(crate) const TICK: Duration = Duration::from_millis(20);

/// How often the leader's view of the members is published, in ticks.
pub(crate) const PROGRESS_TICKS: u64 = 5;

/// How long a request waits for its answer: as in etcd, five seconds and an election.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);

/// A leader is heard this often.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(100);

/// A follower campaigns after one to two of these in silence. A machine that is busy for less does not cause an election.
pub(crate) const ELECTION: Duration = Duration::from_millis(500);

/// The same the first time after a start. A leader that lives may need longer to reach it again: then it asks in vain, and harms nobody.
pub(crate) const START: Duration = Duration::from_millis(100);

/// How long a leader reads by itself once others have promised not to elect another for [`ELECTION`]. Both count ticks, and may be one
/// off: a clock may be faster than another by the ratio of 24 to 13 ticks.
pub(crate) const LEASE: Duration = Duration::from_millis(240);

/// A leader whose disk completes no write for this long steps down: longer than a healthy disk is ever busy with one fsync.
pub(crate) const DISK_DEADLINE: Duration = Duration::from_secs(1);

/// How many bytes of the log are kept behind a snapshot, for members that are a little behind.
pub(crate) const KEPT_LOG_BYTES: u64 = 16 << 20;

/// `time`, counted in [`TICK`]s.
pub(crate) fn ticks(time: Duration) -> u64 {
    (time.as_millis() / TICK.as_millis()) as u64
}
