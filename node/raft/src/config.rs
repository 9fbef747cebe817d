//! What a member is started with.

use bytes::Bytes;

use crate::{Configuration, Entry, HardState, Lease, LogId, MemberId, Payload, Snapshot};

/// Timing and limits. Times are in ticks; how long a tick lasts is the caller's choice.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Config {
    /// This member.
    pub id: MemberId,
    /// A follower that hears nothing for this long, up to twice as long (drawn at random), campaigns.
    pub election_ticks: u32,
    /// The same the first time after a start, unless an earlier promise may bind it ([`Self::lease`], [`Self::promised`]): when all start at
    /// once there is no leader to wait for. From 1 to `election_ticks`. Those who hear a leader that lives refuse the pre-vote.
    pub start_ticks: u32,
    /// How often a leader is heard at the least. Several times less than `election_ticks`.
    pub heartbeat_ticks: u32,
    /// A member whose disk completes no write for this long, while one is under way, steps down if it leads, and is not
    /// elected while that lasts. Longer than a healthy disk is ever busy with one write.
    pub disk_ticks: u32,
    /// How much this member is to lead, compared with others. A leader hands over to a voter of a higher priority that has kept
    /// up for some election timeouts. It is a wish and costs no availability: whoever can lead leads, with priority 0 (which
    /// everybody may have) as well.
    pub priority: u32,
    /// Whether a leader that cannot have been deposed answers reads at once; else each of them asks a quorum.
    pub lease: Option<Lease>,
    /// Whether an earlier process of this member may have had leases, and made a promise that holds still: then this one votes for
    /// nobody whom the leader did not ask until it has been up for an election timeout.
    pub promised: bool,
    /// The most bytes of entries in one message. A single entry that is larger travels alone.
    pub max_append_bytes: usize,
    /// The most bytes of entries on their way to one follower.
    pub max_inflight_bytes: usize,
    /// The seed of the random election timeouts, and of where the numbers of forwarded reads begin. It must differ from
    /// one start of a member to the next: that tells a late answer to an earlier process's read from an answer to ours.
    pub seed: u64,
}

/// What was found on disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Restored {
    /// Term, vote and commit.
    pub hard_state: HardState,
    /// The newest snapshot that is whole and durable: one that was made here, or fetched, whether or not its installation was
    /// finished. The caller's state is what it holds.
    pub snapshot: Option<Snapshot>,
    /// The log, consecutive: from index 1, or with a snapshot from any index up to the one after it.
    pub entries: Vec<Entry>,
    /// The newest entry that was ever durable here, if damage has taken some away: then `entries` are what is intact before
    /// the first of those, and may be fewer than are committed. Term, vote and commit have to be intact.
    ///
    /// It is to be given at each start, and kept durably therefore, until [`crate::Status::repairing`] says that this member
    /// has again what it owes. If more is lost meanwhile, the greater of both counts. See [`Restored::is_beyond_repair`].
    pub lost: Option<LogId>,
}

impl Restored {
    /// The log of a cluster's founder, as if it had been elected in term 1 and had appended the configuration `{id}`:
    /// by itself it is a majority, so once this is durable it is committed.
    pub(crate) fn founding(id: MemberId, address: Bytes) -> Self {
        let configuration = Configuration {
            voters: [id].into(),
            addresses: [(id, address)].into(),
            ..Configuration::default()
        };
        let entry = Entry { term: 1, index: 1, payload: Payload::Configuration(Box::new(configuration)) };
        let hard_state = HardState { term: 1, vote: Some(id), commit: 1 };
        Self { hard_state, entries: vec![entry], ..Self::default() }
    }
}
