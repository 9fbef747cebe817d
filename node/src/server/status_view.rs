//! Keeps the node's view up to date.

use std::time::Instant;

use quorate_api::log;
use quorate_raft::{LogId, Progress, Role as RaftRole, Status};

use super::conflict::Conflict;
use crate::codec;
use crate::doors::view::{ConfigurationView, NodeStatus, NodeView, Role, Unready};
use crate::metrics::Metrics;
use crate::replica::{Agreement, Replica, Room, Standing};

/// The loop's side of a [`NodeView`].
// Each bool is a fact of its own.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug)]
pub(crate) struct StatusView {
    view: NodeView,
    metrics: Metrics,
    /// What never changes, and the last of what does.
    status: NodeStatus,
    /// The state has held, since the process started, everything that was acknowledged by then.
    caught_up: bool,
    stopping: bool,
    /// The applier stands still.
    applies_nothing: bool,
    /// What damage has taken shows at the first time.
    has_published: bool,
    conflict: Conflict,
}

impl StatusView {
    pub(crate) fn new(view: NodeView, metrics: Metrics) -> Self {
        let status = (*view.status()).clone();
        StatusView {
            view,
            metrics,
            status,
            caught_up: false,
            stopping: false,
            applies_nothing: false,
            has_published: false,
            conflict: Conflict::default(),
        }
    }

    /// From now on the node is going away.
    pub(crate) fn stopping(&mut self) {
        self.stopping = true;
    }

    /// The state holds what was acknowledged when the process started.
    pub(crate) fn catches_up(&mut self) {
        self.caught_up = true;
    }

    /// Whether that has been said.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.caught_up
    }

    /// Whether this member leads.
    pub(crate) fn leads(&self) -> bool {
        self.status.role == Role::Leader
    }

    /// The revision of the state.
    pub(crate) fn revision(&self) -> i64 {
        self.view.revision()
    }

    /// The members of the newest configuration.
    pub(crate) fn members(&self) -> &[log::Member] {
        self.status.members()
    }

    /// Publishes everything but how far the state has come: the applier's thread does that.
    pub(crate) fn publish(&mut self, replica: &Replica, cluster_id: u64) {
        let raft = replica.status();
        let role = role(&raft, replica.standing());
        self.tell(role, &raft);
        self.tell_quota(replica);
        self.tell_of_losses(&raft, replica.progress());
        self.tell_of_standstill(replica);
        let status = &mut self.status;
        status.cluster_id = cluster_id;
        status.role = role;
        status.term = raft.term;
        status.level = if cluster_id == 0 { 0 } else { replica.level() };
        status.leader = raft.leader.map(|id| id.0);
        let short = replica.short_of_room();
        let of = |wanted: bool| {
            let those = short.iter().filter(|(_, room)| (*room == Room::NoDescriptors) == wanted);
            those.map(|(id, _)| id.0).collect()
        };
        (status.short_of_room, status.short_of_descriptors) = (of(false), of(true));
        status.smallest_quota = replica.smallest_quota().map(|(quota, id)| (quota, id.0));
        status.over_quota = replica.usage().is_full;
        status.fetching = replica.fetching();
        status.refused_parts = replica.refused_parts();
        status.repairing = raft.repairing;
        configure(&mut status.configuration, &raft);
        self.tell_of_agreement(replica.agreement());
        self.status.suspects = replica.suspects().into_iter().map(|id| id.0).collect();
        self.status.unready = self.unready();
        self.status.conflict = self.conflict.shown(Instant::now()).map(str::to_owned);
        self.view.publish_log(raft.last, raft.commit);
        self.view.publish(self.status.clone());
    }

    fn unready(&self) -> Option<Unready> {
        match self.status.role {
            _ if self.stopping => Some(Unready::Stopping),
            Role::Waiting => Some(Unready::Waiting),
            Role::Removed => Some(Unready::Removed),
            _ if matches!(self.status.agreement, Agreement::Corrupt(_)) => Some(Unready::Corrupt),
            _ if self.status.agreement != Agreement::Whole => Some(Unready::Divided),
            _ if self.status.leader.is_none() => Some(Unready::NoLeader),
            Role::Learner => Some(Unready::CatchingUp),
            _ if !self.caught_up => Some(Unready::CatchingUp),
            _ if self.applies_nothing => Some(Unready::AppliesNothing),
            Role::Follower | Role::Candidate | Role::Leader => None,
        }
    }

    /// Says what is lost, here and, if this member leads, elsewhere: once each time.
    fn tell_of_losses(&mut self, raft: &Status, progress: Vec<Progress>) {
        let before = &mut self.status;
        if raft.repairing && !before.repairing && self.has_published {
            before.went_back += 1;
            tracing::warn!(
                last = raft.last.index,
                "the disk of this member went back in time: it lacks entries that it has acknowledged. It has no vote until the leader has \
                 sent them again"
            );
        } else if before.repairing && !raft.repairing {
            tracing::info!(last = raft.last.index, "this member holds again what it had lost, and votes");
        }
        for member in progress.iter().filter(|member| member.lost) {
            let is_news = !before.progress.iter().any(|known| known.id == member.id && known.lost);
            if is_news {
                self.metrics.acknowledgements_lost.inc();
                let (member, matched) = (member.id, member.matched);
                tracing::warn!(%member, matched, "a member lacks entries that it has acknowledged; sends them again");
            }
        }
        if let Some(contradiction) = raft.contradiction
            && self.conflict.meet(contradiction, Instant::now())
        {
            tracing::error!("{contradiction}");
        }
        before.progress = progress;
        self.has_published = true;
    }

    /// Says that the applier stands still, and that it goes on.
    fn tell_of_standstill(&mut self, replica: &Replica) {
        let stands_still = replica.applier_stands_still();
        if stands_still == std::mem::replace(&mut self.applies_nothing, stands_still) {
            return;
        }
        if stands_still {
            let entries = replica.backlog().entries();
            tracing::error!(
                entries,
                "the applier makes no step, though committed entries wait: serves nobody until it goes on"
            );
        } else {
            tracing::info!("the applier goes on");
        }
    }

    /// Says whether the state is that of the others, when that has changed.
    fn tell_of_agreement(&mut self, agreement: Agreement) {
        if agreement == std::mem::replace(&mut self.status.agreement, agreement) {
            return;
        }
        match agreement {
            Agreement::Whole => tracing::info!("the members hold the same state again: writes go on"),
            Agreement::Divided(index) => tracing::error!(
                index,
                "the voters hold different states at this entry, and no majority the same: nothing is written until the members whose state is \
                 not to be kept are removed"
            ),
            Agreement::Corrupt(corrupt) => tracing::error!("{corrupt}"),
        }
    }

    /// Another process runs as a member, as `what` says.
    pub(crate) fn conflict(&mut self, what: String) {
        if self.conflict.see(what, Instant::now()) {
            self.metrics.identity_conflict.inc();
        }
    }

    /// Says what people want to read in a log, once each time.
    fn tell(&self, role: Role, raft: &Status) {
        let before = &self.status;
        if role == Role::Removed && before.role != Role::Removed {
            tracing::warn!(
                "this member was removed from its cluster: it takes no part any more, and its data directory is of no more use"
            );
        } else if role != before.role && matches!(role, Role::Leader | Role::Follower | Role::Learner) {
            tracing::info!(role = role.as_str_name(), term = raft.term, "took a new part");
        }
        if let Some(leader) = raft.leader.filter(|leader| Some(leader.0) != before.leader) {
            self.metrics.leader_changes.inc();
            tracing::info!(%leader, term = raft.term, "follows a leader");
        } else if raft.leader.is_none() && before.leader.is_some() {
            tracing::info!(term = raft.term, "lost the leader");
        }
    }

    /// Says that puts are refused by the quota, and that they are not any more.
    fn tell_quota(&self, replica: &Replica) {
        let usage = replica.usage();
        if usage.is_full == self.status.over_quota {
            return;
        }
        if !usage.is_full {
            return tracing::info!(state = usage.bytes, "NOSPACE is disarmed: takes puts again");
        }
        // The leader has heard of all quotas.
        let smallest = replica.smallest_quota().filter(|_| self.status.role == Role::Leader);
        let (quota, member) = smallest.map_or((None, None), |(quota, id)| (Some(quota), Some(id)));
        tracing::warn!(
            state = usage.bytes,
            quota,
            member = member.map(tracing::field::display),
            "NOSPACE: the state has reached the smallest quota of the members (--quota-bytes). Puts are refused: delete, compact, and \
             disarm the alarm"
        );
    }
}

fn role(raft: &Status, standing: Standing) -> Role {
    match (standing, raft.role) {
        (Standing::Outsider, _) => Role::Waiting,
        (Standing::Removed, _) => Role::Removed,
        (Standing::Member, RaftRole::Learner) => Role::Learner,
        (Standing::Member, RaftRole::Follower) => Role::Follower,
        (Standing::Member, RaftRole::PreCandidate | RaftRole::Candidate) => Role::Candidate,
        (Standing::Member, RaftRole::Leader) => Role::Leader,
    }
}

/// Brings the view of the configuration up to date; translates it only when it is another one.
fn configure(view: &mut Option<ConfigurationView>, raft: &Status) {
    let id: LogId = raft.configuration_id;
    if id.index == 0 {
        *view = None;
        return;
    }
    let committed = id.index <= raft.commit;
    match view {
        Some(view) if view.id == id => view.committed = committed,
        _ => {
            let configuration = codec::configuration_to_wire(&raft.configuration);
            *view = Some(ConfigurationView { id, committed, configuration });
        }
    }
}
