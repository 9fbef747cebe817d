//! What a node counts and measures, for Prometheus.
//!
//! What the view shows anyway is read from it when somebody asks; only what would be lost otherwise is counted as it happens.

use std::fmt;
use std::fs;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::doors::view::{Agreement, NodeStatus, NodeView, Role, VERSION};
use crate::net::Connections;
use crate::tls::Tls;

/// How often the kernel counts a process's time, as it tells programs: 100 a second on every architecture.
const CLOCK_TICKS: f64 = 100.0;

/// What is counted as it happens. Cheap to clone; the clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Writes of clients that were handed to the protocol.
    pub proposals: Counter,
    /// Batches of linearizable reads.
    pub read_batches: Counter,
    /// Changes of leader that this node has seen.
    pub leader_changes: Counter,
    /// Times that a follower was found to lack what it has acknowledged, while this member led.
    pub acknowledgements_lost: Counter,
    /// Times that another process was found to run as a member, this one or another.
    pub identity_conflict: Counter,
    /// Messages that came from other members and were taken in.
    pub peer_messages: Counter,
    /// Snapshots of the state that were taken.
    pub snapshots_taken: Counter,
    /// Snapshots that came from other members.
    pub snapshots_received: Counter,
    /// Snapshots that were begun in vain.
    pub snapshots_failed: Counter,
    /// Bytes of snapshots that are durable.
    pub snapshot_written: Counter,
    apply_backlog_entries: Gauge<u64, AtomicU64>,
    apply_backlog: Gauge<u64, AtomicU64>,
    apply_behind: Gauge<f64, AtomicU64>,
    wal_append: Histogram,
    wal_group_entries: Histogram,
    wal_written: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            proposals: Counter::default(),
            read_batches: Counter::default(),
            leader_changes: Counter::default(),
            acknowledgements_lost: Counter::default(),
            identity_conflict: Counter::default(),
            peer_messages: Counter::default(),
            snapshots_taken: Counter::default(),
            snapshots_received: Counter::default(),
            snapshots_failed: Counter::default(),
            snapshot_written: Counter::default(),
            apply_backlog_entries: Gauge::default(),
            apply_backlog: Gauge::default(),
            apply_behind: Gauge::default(),
            // From 32 us to 1 s.
            wal_append: Histogram::new(exponential_buckets(0.000_032, 2.0, 16)),
            wal_group_entries: Histogram::new(exponential_buckets(1.0, 2.0, 13)),
            wal_written: Counter::default(),
        }
    }
}

impl Metrics {
    /// A group of `entries` was made durable by one write and one fdatasync.
    pub fn appended(&self, entries: usize, bytes: u64, took: Duration) {
        self.wal_append.observe(took.as_secs_f64());
        self.wal_group_entries.observe(entries as f64);
        self.wal_written.inc_by(bytes);
    }

    /// So much is committed and not applied, and its oldest entry has waited for so long.
    pub fn backlog(&self, entries: u64, bytes: u64, waited: Duration) {
        self.apply_backlog_entries.set(entries);
        self.apply_backlog.set(bytes);
        self.apply_behind.set(waited.as_secs_f64());
    }

    /// Everything that is served, that which is read from `view` and `ports` included.
    pub(crate) fn registry(&self, view: NodeView, ports: Vec<Connections>, peer: Option<Tls>) -> Registry {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        let quorate = registry.sub_registry_with_prefix("quorate");
        quorate.register_collector(Box::new(PortsCollector(ports)));
        if let Some(peer) = peer {
            quorate.register_collector(Box::new(AuthoritiesCollector(peer)));
        }
        quorate.register_collector(Box::new(ViewCollector(view)));
        quorate.register(
            "proposals",
            "Writes of this node's clients handed to the protocol",
            self.proposals.clone(),
        );
        quorate.register(
            "read_batches",
            "Batches of linearizable reads of this node's clients",
            self.read_batches.clone(),
        );
        quorate.register(
            "raft_leader_changes",
            "Changes of leader that this node has seen",
            self.leader_changes.clone(),
        );
        let peers = [
            (
                "raft_acknowledgements_lost",
                "Times that a follower lacked what it had acknowledged to this leader",
                &self.acknowledgements_lost,
            ),
            (
                "identity_conflict",
                "Times that two processes were seen to run as one member",
                &self.identity_conflict,
            ),
            ("peer_messages", "Messages of other members that were taken in", &self.peer_messages),
        ];
        for (name, help, counter) in peers {
            quorate.register(name, help, counter.clone());
        }
        let snapshots = [
            ("snapshots_taken", "Snapshots of the state that were taken", &self.snapshots_taken),
            ("snapshots_received", "Snapshots that came from other members", &self.snapshots_received),
            (
                "snapshots_failed",
                "Snapshots that were begun, to take or to receive, in vain",
                &self.snapshots_failed,
            ),
        ];
        for (name, help, counter) in snapshots {
            quorate.register(name, help, counter.clone());
        }
        quorate.register_with_unit(
            "snapshot_written",
            "Snapshots that were written",
            Unit::Bytes,
            self.snapshot_written.clone(),
        );
        quorate.register(
            "apply_backlog_entries",
            "Entries that are committed and not applied",
            self.apply_backlog_entries.clone(),
        );
        let help = "The same in bytes of the log";
        quorate.register_with_unit("apply_backlog", help, Unit::Bytes, self.apply_backlog.clone());
        let help = "For how long the oldest of them has waited";
        quorate.register_with_unit("apply_behind", help, Unit::Seconds, self.apply_behind.clone());
        quorate.register_with_unit(
            "wal_append",
            "Time to make a group of entries durable: one write and one fdatasync",
            Unit::Seconds,
            self.wal_append.clone(),
        );
        quorate.register("wal_group_entries", "Entries in a group", self.wal_group_entries.clone());
        quorate.register_with_unit(
            "wal_written",
            "Written to the log, padding included",
            Unit::Bytes,
            self.wal_written.clone(),
        );
        registry
    }
}

/// How long a text is good for: readers that come more often than that cost nothing.
const FRESH: Duration = Duration::from_secs(1);

/// All metrics as `OpenMetrics` text, made at most once in [`FRESH`].
#[derive(Debug, Default)]
pub(crate) struct Scrape {
    registry: OnceLock<Registry>,
    last: Mutex<Option<(Instant, Arc<String>)>>,
}

impl Scrape {
    /// From now on there is something to show.
    pub(crate) fn shows(&self, registry: Registry) {
        let _ = self.registry.set(registry);
    }

    /// The text. None before there is anything to show.
    pub(crate) fn text(&self) -> Option<Arc<String>> {
        let registry = self.registry.get()?;
        let mut last = self.last.lock();
        if let Some((_, text)) = last.as_ref().filter(|(made, _)| made.elapsed() < FRESH) {
            return Some(Arc::clone(text));
        }
        let mut text = String::new();
        text::encode(&mut text, registry).ok()?;
        let text = Arc::new(text);
        *last = Some((Instant::now(), Arc::clone(&text)));
        Some(text)
    }
}

/// Shows the connections of each port.
#[derive(Debug)]
struct PortsCollector(Vec<Connections>);

impl Collector for PortsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let ports: Vec<_> = self.0.iter().map(|port| (port.limits(), port.counts())).collect();
        let gauges = [
            ("connections", "Open connections", ports.iter().map(|(_, count)| count.open as u64).collect()),
            (
                "connections_limit",
                "The most of them",
                ports.iter().map(|(limits, _)| limits.most as u64).collect(),
            ),
        ];
        let gauges: [(&str, &str, Vec<u64>); 2] = gauges;
        for (name, help, values) in gauges {
            let kind = ConstGauge::new(0_u64).metric_type();
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for ((limits, _), value) in ports.iter().zip(values) {
                ConstGauge::new(value).encode(family.encode_family(&[("port", limits.port)])?)?;
            }
        }
        let help = "Connections that were ended or not taken: idle ones closed for others, all others busy, a deadline passed";
        let kind = ConstCounter::new(0_u64).metric_type();
        let mut family = encoder.encode_descriptor("connections_ended", help, None, kind)?;
        for (limits, count) in &ports {
            for (reason, value) in
                [("evicted", count.evicted), ("refused", count.refused), ("deadline", count.cut)]
            {
                let labels = [("port", limits.port), ("reason", reason)];
                ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// Shows which authorities the peer port trusts.
#[derive(Debug)]
struct AuthoritiesCollector(Tls);

impl Collector for AuthoritiesCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "An authority that the peer port trusts now, by the SHA-256 of its certificate";
        let one = ConstGauge::new(1_u64);
        let mut family = encoder.encode_descriptor("peer_authority", help, None, one.metric_type())?;
        for sha256 in self.0.authorities() {
            one.encode(family.encode_family(&[("sha256", sha256)])?)?;
        }
        Ok(())
    }
}

/// Shows what the view knows.
#[derive(Debug)]
struct ViewCollector(NodeView);

impl Collector for ViewCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let view = &self.0;
        let status = view.status();
        let info = Info::new(vec![
            ("version", VERSION.to_owned()),
            ("cluster_id", format!("{:016x}", status.cluster_id)),
            ("member_id", format!("{:016x}", status.member_id)),
            ("name", status.name.clone()),
        ]);
        let described = encoder.encode_descriptor(
            "node",
            "Which node this is",
            None,
            EncodeMetric::metric_type(&info),
        )?;
        info.encode(described)?;

        let voters = status.configuration.as_ref().map_or(0, |c| c.configuration.voters.len());
        let learners = status.configuration.as_ref().map_or(0, |c| c.configuration.learners.len());
        let (fetched, pieces) = status.fetching.unwrap_or_default();
        let gauges = [
            (
                "no_space",
                "Whether the disk is too full for writes",
                u64::from(status.short_of_room.contains(&status.member_id)),
            ),
            (
                "no_descriptors",
                "Whether the log has no descriptor for what comes next",
                u64::from(status.short_of_descriptors.contains(&status.member_id)),
            ),
            ("over_quota", "Whether puts are refused by the quota (NOSPACE)", u64::from(status.over_quota)),
            ("snapshot_pieces", "Pieces of the snapshot that is being fetched", pieces.into()),
            ("snapshot_pieces_fetched", "Those of them that have come", fetched.into()),
            (
                "snapshot_parts_refused",
                "Parts of snapshots that did not match, since the start",
                status.refused_parts,
            ),
            ("ready", "Whether the node serves its clients", u64::from(status.unready.is_none())),
            ("cluster_level", "The level of the cluster, as this node's state has it", status.level.into()),
            ("supported_level", "The newest level that this node supports", status.levels.newest.into()),
            (
                "raft_repairing",
                "Whether this member lacks what it has acknowledged, and has no vote",
                status.repairing.into(),
            ),
            ("raft_went_back", "Times that this disk was found to have gone back in time", status.went_back),
            (
                "corrupt",
                "Whether the state of this member differs from that of a majority: it serves nothing",
                u64::from(matches!(status.agreement, Agreement::Corrupt(_))),
            ),
            (
                "divided",
                "Whether voters hold different states and no majority the same: nothing is written",
                u64::from(matches!(status.agreement, Agreement::Divided(_))),
            ),
            (
                "corrupt_members",
                "Members that are known to be corrupt, or may be",
                status.suspects.len() as u64,
            ),
            ("raft_term", "The newest term seen", view.term()),
            ("raft_is_leader", "Whether this member leads", u64::from(status.role == Role::Leader)),
            ("raft_has_leader", "Whether a leader is known", u64::from(status.leader.is_some())),
            ("raft_voters", "Voters of the newest configuration", voters as u64),
            ("raft_learners", "Learners of the newest configuration", learners as u64),
            ("raft_last_index", "The end of the log", view.last_index()),
            ("raft_commit_index", "What is known to be committed", view.commit_index()),
            ("raft_applied_index", "What the state holds", view.applied_index()),
            ("store_revision", "The revision of the state", view.revision().unsigned_abs()),
        ];
        for (name, help, value) in gauges {
            gauge(&mut encoder, name, help, None, value)?;
        }
        let sizes = [
            (
                "store_size",
                "What the state takes, as it is accounted, that is not compacted",
                view.state_bytes(),
            ),
            ("quota", "The most that it may take for this member; 0 for no limit", status.quota.unwrap_or(0)),
            (
                "smallest_quota",
                "The smallest of those of the members that this one has heard of; 0 for no limit",
                status.smallest_quota.map_or(0, |(quota, _)| quota),
            ),
        ];
        for (name, help, value) in sizes {
            gauge(&mut encoder, name, help, Some(&Unit::Bytes), value)?;
        }
        members(&mut encoder, &status)
    }
}

/// How far each member is behind, as the leader sees it.
fn members(encoder: &mut DescriptorEncoder<'_>, status: &NodeStatus) -> fmt::Result {
    if status.progress.is_empty() {
        return Ok(());
    }
    let help = "What is durable at a member, as its leader knows";
    let kind = ConstGauge::new(0_u64).metric_type();
    let mut family = encoder.encode_descriptor("raft_match_index", help, None, kind)?;
    for member in &status.progress {
        let labels = [("member_id", member.id.to_string())];
        let value = ConstGauge::new(member.matched);
        value.encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: u64,
) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)
}

/// Shows what the kernel knows of the process, under the names that every program uses.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(bytes) = fs::read_to_string("/proc/self/status").ok().and_then(|s| resident_bytes(&s)) {
            gauge(&mut encoder, "process_resident_memory", "Resident memory", Some(&Unit::Bytes), bytes)?;
        }
        if let Some(seconds) = fs::read_to_string("/proc/self/stat").ok().and_then(|s| cpu_seconds(&s)) {
            let counter = ConstCounter::new(seconds);
            let help = "User and system time";
            let kind = counter.metric_type();
            counter.encode(encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), kind)?)?;
        }
        if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
            gauge(
                &mut encoder,
                "process_open_fds",
                "Open file descriptors",
                None,
                descriptors.count() as u64,
            )?;
        }
        Ok(())
    }
}

/// From `/proc/self/status`.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// From `/proc/self/stat`: fields 14 and 15, counted behind the name in parentheses, which may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map(str::parse::<u64>);
    let ticks = times.next()?.ok()? + times.next()?.ok()?;
    Some(ticks as f64 / CLOCK_TICKS)
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use quorate_raft::{MemberId, Progress};

    use super::*;

    #[test]
    fn everything_is_named_with_its_unit() {
        let progress = vec![Progress {
            id: MemberId(10),
            matched: 5,
            active: true,
            caught_up: true,
            offered: None,
            lost: false,
        }];
        let view = NodeView::new(NodeStatus {
            member_id: 10,
            role: Role::Leader,
            term: 3,
            leader: Some(10),
            progress,
            ..NodeStatus::default()
        });
        view.publish_log(quorate_raft::LogId { term: 1, index: 8 }, 7);
        view.publish_applied(6, 4);
        let metrics = Metrics::default();
        metrics.proposals.inc_by(2);
        metrics.appended(2, 4096, Duration::from_micros(100));
        metrics.backlog(3, 200, Duration::from_millis(1500));
        let mut text = String::new();
        encode(&mut text, &metrics.registry(view, Vec::new(), None)).unwrap();
        for line in [
            "quorate_node_info{version=",
            "quorate_ready 1",
            "quorate_raft_term 3",
            "quorate_raft_is_leader 1",
            "quorate_raft_last_index 8",
            "quorate_raft_commit_index 7",
            "quorate_raft_applied_index 6",
            "quorate_store_revision 4",
            "quorate_raft_match_index{member_id=\"000000000000000a\"} 5",
            "quorate_proposals_total 2",
            "quorate_raft_leader_changes_total 0",
            "quorate_apply_backlog_entries 3",
            "quorate_apply_backlog_bytes 200",
            "quorate_apply_behind_seconds 1.5",
            "quorate_wal_append_seconds_count 1",
            "quorate_wal_group_entries_sum 2.0",
            "quorate_wal_written_bytes_total 4096",
            "process_resident_memory_bytes ",
            "process_cpu_seconds_total ",
        ] {
            assert!(text.lines().any(|l| l.starts_with(line)), "no {line} in\n{text}");
        }
    }

    #[test]
    fn a_name_may_hold_anything() {
        let stat = "7 (a) b ( c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds(""), None);
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    12 kB\n"), Some(12 * 1024));
    }
}
