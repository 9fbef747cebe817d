//! Which transitions were reached, and how often: what was never reached was never tested.

use std::collections::BTreeMap;

/// Everything that can be reached, in the order in which it is printed.
pub(crate) const NAMES: &[&str] = &[
    // Elections.
    "pre-votes asked for",
    "pre-votes refused",
    "elections begun",
    "votes refused",
    "leaders elected",
    "learners elected",
    "leaders elected that have heard nobody since their start",
    "candidates that saw another win",
    "leaders that met a later term",
    "leaders that lost their quorum",
    "leaders whose disk hung",
    "leaders that were removed",
    // The log.
    "appends rejected",
    "log tails replaced",
    // Requests.
    "commands appended",
    "commands forwarded",
    "forwards rejected",
    "commands given up: no leader",
    "commands given up: no answer in time",
    "requests refused: no member",
    "requests refused: no space",
    "requests refused: over the quota",
    "requests refused at admission: over the quota",
    "alarms raised by the quota",
    "requests refused: too far behind",
    "requests answered twice",
    "answers read a while after they were applied",
    "answers whose point another state has taken away",
    "reads refused: compacted",
    "steps of applying between which nothing was removed",
    "read rounds asked of the leader",
    "read rounds refused by a member that does not lead",
    "reads served by the leader",
    "reads served by others",
    "reads given up",
    "reads served by a leader that may have a lease",
    "ticks overslept, with leases",
    // Leases.
    "leases granted",
    "leases renewed",
    "leases renewed through another than the leader",
    "leases revoked",
    "leases whose time was over",
    "leases that were told to have ended",
    "questions of leases sent to the leader",
    "questions of leases answered for others",
    "questions of leases given up",
    "keys hung on leases",
    "keys not hung on a lease that has ended",
    // Applying.
    "entries applied late",
    "leaders that led on while applying stood still",
    "runs in which nothing but applying was slow",
    // Membership.
    "learners added",
    "joint configurations entered",
    "joint configurations left",
    "joint configurations left by another leader",
    "configurations rolled back",
    "changes refused: stale",
    "changes refused: in progress",
    "changes refused: a new voter lags",
    "changes refused: too few of the new voters answer",
    "changes refused: impossible",
    "changes refused: does not lead",
    // Transfers.
    "transfers begun",
    "transfers done",
    "transfers given up",
    "transfers refused",
    // Snapshots.
    "snapshots taken",
    "snapshots not taken",
    "snapshots offered",
    "snapshots asked for in vain",
    "pieces of snapshots sent",
    "snapshots found damaged when others asked",
    "snapshots received",
    "snapshots received in several pieces",
    "snapshots not received",
    "processes started from a snapshot",
    "beginnings of logs given up",
    "compactions done",
    "compactions refused or given up",
    // Copies of the state.
    "starts from the copy",
    "starts from the copy ahead of what is known to be committed",
    "starts without a copy: the engine fails",
    "starts on an empty copy",
    "starts on a copy behind the snapshot",
    "starts on a copy that is not of the log",
    "starts on a copy that is damaged",
    "starts on a copy that was lost",
    "starts on an older copy",
    "starts on a copy with a flipped bit",
    "copies brought up to date",
    "copies written in several steps",
    "copies begun anew",
    "copies that failed",
    "copies given up: no room",
    // Members of two versions.
    "members upgraded",
    "members put back to the older version",
    "raises of the level proposed",
    "raises of the level refused: does not lead",
    "raises of the level refused: not every member supports it",
    "starts refused: level",
    "processes ended: level",
    "alarms raised or disarmed",
    "alarms refused: level",
    "alarms given up",
    // Disks and processes.
    "processes started",
    "processes that applied what was committed before they served",
    "processes started as a removed member",
    "processes started as a removed member whose log does not tell",
    "removals stored",
    "removals stored while the log was written",
    "removals taken back",
    "removals not stored",
    "processes killed while they stored a removal",
    "processes killed",
    "processes killed while they wrote",
    "processes killed while they started",
    "power cuts",
    "processes ended: write failed",
    "processes ended: fsync failed",
    "processes ended: disk full",
    "groups that waited for a descriptor",
    "removals that waited for a descriptor",
    "parts of writes that were durable before the rest",
    "disks nearly full",
    "disks full",
    "disks with room again",
    "leaders told that a disk is nearly full",
    "starts in vain: disk full",
    "starts in vain: device errors",
    "starts in vain: no descriptors",
    "starts refused: damage",
    "starts on a flipped bit that did no harm",
    "starts on a damaged log that others repair",
    "damaged logs repaired",
    "disks that went back in time",
    "disks that were not put back: somebody depends on what came since",
    "members that found out that their disk went back in time",
    "copies of members started beside them",
    "copies of members that were not started",
    "copies of members refused: the original is heard",
    "copies of members refused: they have forgotten something",
    "copies of members that ended",
    "copies of members stopped: the original was not heard",
    "second processes that people were told of",
    "processes refused: the one before is taken for heard",
    "members refused: they have forgotten something",
    "members told that they have forgotten something",
    "frames refused: another stream has taken the place",
    "frames refused: a term that cannot be",
    "states that came to differ",
    "states that came to differ with a snapshot",
    "members that found out that their state differs",
    "times that members were divided",
    "states that differ and could not be told from the rest",
    "requests refused: corrupt, or divided",
    "torn tails cut",
    "files on disks at the end",
    "segments reserved",
    "members lost for good",
    "clusters adopted",
    // At the end.
    "histories checked",
    "histories not decided",
];

/// Counts by name.
#[derive(Debug, Clone)]
pub(crate) struct Coverage {
    counts: BTreeMap<&'static str, u64>,
}

impl Coverage {
    pub(crate) fn new() -> Self {
        Self { counts: NAMES.iter().map(|name| (*name, 0)).collect() }
    }

    /// It was reached once more.
    pub(crate) fn count(&mut self, name: &'static str) {
        self.add(name, 1);
    }

    pub(crate) fn add(&mut self, name: &'static str, times: u64) {
        *self.counts.get_mut(name).unwrap_or_else(|| panic!("{name} is not in the list")) += times;
    }

    pub(crate) fn get(&self, name: &str) -> u64 {
        self.counts[name]
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (name, times) in &other.counts {
            self.add(name, *times);
        }
    }
}
