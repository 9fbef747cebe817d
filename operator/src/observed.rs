//! What was seen of one cluster in one round: the input of `plan` and of `status`. Plain data.

use std::collections::BTreeMap;

use crate::membership::{Configuration, ConfigurationId, MemberId, Ordinal};

/// Everything that was seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The cluster's name.
    pub name: String,
    /// The cluster's ID in its status.
    pub identity: Option<u64>,
    /// Whether the status says that a node has founded the cluster.
    pub bootstrapped: bool,
    /// Absent when it does not exist.
    pub stateful_set: Option<StatefulSetState>,
    /// The pods, by ordinal.
    pub pods: BTreeMap<Ordinal, PodState>,
    /// The volume claims, by ordinal.
    pub claims: BTreeMap<Ordinal, ClaimState>,
    /// The nodes that answered, by the ordinal of their pod.
    pub nodes: BTreeMap<Ordinal, NodeStatus>,
}

/// The `StatefulSet`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatefulSetState {
    /// The pods that it is to have.
    pub replicas: u32,
    /// The revision of its template; absent while its controller has not taken up the newest one.
    pub update_revision: Option<String>,
    /// The size in its claim template, which Kubernetes does not let anyone change.
    pub claim_size: Option<String>,
}

/// A pod.
// Each is a fact of its own that Kubernetes reports.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodState {
    /// Its UID: a deletion means this pod, not the next one of the same name.
    pub uid: String,
    /// The revision of the template that it was made from.
    pub revision: Option<String>,
    /// It is being deleted.
    pub terminating: bool,
    /// Its node has not started yet, and may never do. What runs beside it does not count.
    pub pending: bool,
    /// The node's readiness probe says yes, whatever runs beside it.
    pub ready: bool,
    /// All containers are ready, the user's too: what Kubernetes' own budgets and Services go by.
    pub pod_ready: bool,
    /// Its address, once it has one.
    pub ip: Option<String>,
    /// It has had its time to come up: nobody waits for it any more.
    pub settled: bool,
    /// It has not been ready for as long as a pod may take to come up.
    pub stuck: bool,
    /// Why Kubernetes does not run the node, such as `CrashLoopBackOff`.
    pub trouble: Option<String>,
}

/// A volume claim.
// Each is a fact of its own, as with pods.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimState {
    /// Its UID.
    pub uid: String,
    /// It is being deleted, and goes when no pod uses it.
    pub terminating: bool,
    /// It is bound to a volume.
    pub bound: bool,
    /// Its volume is gone, and the data with it.
    pub lost: bool,
    /// It was made for the cluster: one that somebody made by hand is used, and left to them.
    pub ours: bool,
    /// The size that it asks for.
    pub size: Option<String>,
}

/// What a node said of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeStatus {
    /// Zero while it belongs to no cluster.
    pub cluster_id: u64,
    /// Its ID.
    pub member_id: MemberId,
    /// What it does.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// The leader that it knows; zero for none.
    pub leader_id: MemberId,
    /// The version of the product that it runs.
    pub version: String,
    /// `host:port` of its peer listener.
    pub peer_address: String,
    /// URLs of its client listener.
    pub client_urls: Vec<String>,
    /// The newest configuration that it knows.
    pub configuration: Option<ConfigurationState>,
    /// What a leader knows of every member. Empty on others.
    pub progress: BTreeMap<MemberId, Progress>,
}

/// The role of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It belongs to no cluster, and waits.
    #[default]
    Waiting,
    /// It receives the log.
    Learner,
    /// It follows a leader, or waits for one.
    Follower,
    /// It stands for election.
    Candidate,
    /// It leads.
    Leader,
    /// It has been a member, and is none.
    Removed,
}

/// A configuration, and where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigurationState {
    /// Its name.
    pub id: ConfigurationId,
    /// Who takes part.
    pub configuration: Configuration,
    /// Whether it has been committed.
    pub committed: bool,
}

/// What a leader knows of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Heard of within an election timeout.
    pub active: bool,
    /// Close enough to the end of the log to vote.
    pub caught_up: bool,
}

/// The leader, and what it knows.
#[derive(Clone, Copy, Debug)]
pub struct Leader<'a> {
    /// The ordinal of its pod.
    pub ordinal: Ordinal,
    /// What it said.
    pub status: &'a NodeStatus,
    /// The newest configuration.
    pub state: &'a ConfigurationState,
}

impl Observed {
    /// The leader: of all nodes of this cluster that say they lead, the one with the highest term.
    pub fn leader(&self) -> Option<Leader<'_>> {
        let identity = self.identity?;
        self.nodes
            .iter()
            .filter(|(_, node)| node.cluster_id == identity && node.role == Role::Leader)
            .filter_map(|(&ordinal, status)| {
                Some(Leader { ordinal, status, state: status.configuration.as_ref()? })
            })
            .max_by_key(|leader| leader.status.term)
    }

    /// The leader, where a majority of its voters say themselves that they are in its term: one that has been deposed and
    /// does not know is none.
    pub fn confirmed_leader(&self) -> Option<Leader<'_>> {
        let leader = self.leader()?;
        let follows =
            |id| self.nodes.values().any(|node| node.member_id == id && leader.is_followed_by(node));
        leader.configuration().has_quorum(follows).then_some(leader)
    }

    /// Who leads, by pod, and the term: the leader, or whom a majority of the nodes that answered names in the newest term.
    /// A leader that does not answer in time may lead all the same.
    pub fn leadership(&self) -> Option<(String, u64)> {
        let ours = || self.nodes.values().filter(|node| Some(node.cluster_id) == self.identity);
        let term = ours().filter(|node| node.leader_id != 0).map(|node| node.term).max();
        if let Some(leader) = self.leader().filter(|leader| term <= Some(leader.status.term)) {
            return Some((self.pod_name(leader.ordinal), leader.status.term));
        }
        let names = |id: MemberId| ours().filter(move |node| Some(node.term) == term && node.leader_id == id);
        let leader = ours()
            .map(|node| node.leader_id)
            .find(|&id| id != 0 && names(id).count() * 2 > ours().count())?;
        let members =
            ours().filter_map(|node| node.configuration.as_ref()?.configuration.members.get(&leader));
        Some((members.map(|member| member.name.clone()).next()?, term?))
    }

    /// The member that runs in a pod, if it is one of this cluster, or could become one.
    pub fn occupant(&self, ordinal: Ordinal) -> Option<&NodeStatus> {
        let node = self.nodes.get(&ordinal)?;
        (node.cluster_id == 0 || Some(node.cluster_id) == self.identity).then_some(node)
    }

    /// Whether any node says that it belongs to this cluster.
    pub fn founded(&self) -> bool {
        self.bootstrapped
            || self.identity.is_some_and(|id| self.nodes.values().any(|node| node.cluster_id == id))
    }

    /// The ordinals of pods that hold another cluster's volume.
    pub fn strangers(&self) -> impl Iterator<Item = Ordinal> + '_ {
        self.nodes
            .iter()
            .filter(|(_, node)| {
                node.cluster_id != 0 && self.identity.is_some_and(|identity| node.cluster_id != identity)
            })
            .map(|(&ordinal, _)| ordinal)
    }

    /// The name of a pod that is waited for, with what keeps it.
    pub fn awaited(&self, ordinal: Ordinal) -> String {
        let name = self.pod_name(ordinal);
        match self.pods.get(&ordinal).and_then(|pod| pod.trouble.as_ref()) {
            Some(trouble) => format!("{name} ({trouble})"),
            None => name,
        }
    }

    /// The name of a pod.
    pub fn pod_name(&self, ordinal: Ordinal) -> String {
        format!("{}-{ordinal}", self.name)
    }
}

impl<'a> Leader<'a> {
    /// Whether the leader hears of a member, and the member has what has been committed.
    pub fn is_well(&self, id: MemberId) -> bool {
        id == self.status.member_id
            || self.status.progress.get(&id).is_some_and(|progress| progress.active && progress.caught_up)
    }

    /// Whether the leader hears of a member.
    pub fn hears(&self, id: MemberId) -> bool {
        id == self.status.member_id || self.status.progress.get(&id).is_some_and(|progress| progress.active)
    }

    /// Whether a node of this cluster is in the leader's term.
    pub fn is_followed_by(&self, node: &NodeStatus) -> bool {
        node.cluster_id == self.status.cluster_id && node.term == self.status.term
    }

    /// Whether the leader hears of a quorum.
    pub fn has_quorum(&self) -> bool {
        self.state.configuration.has_quorum(|id| self.hears(id))
    }

    /// The newest configuration.
    pub fn configuration(&self) -> &'a Configuration {
        &self.state.configuration
    }
}
