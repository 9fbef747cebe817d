//! What was seen of one cluster in one round: the input of `plan` and of `status`. Plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_crds::ScaleDownPolicy;

use crate::membership::{Configuration, ConfigurationId, MemberId, Ordinal};
use crate::plan::{Recovery, RecoveryPod};
use crate::trouble::Trouble;
use crate::upgrade::Rendered;

/// Everything that was seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The cluster's name.
    pub name: String,
    /// The cluster's ID in its status.
    pub identity: Option<u64>,
    /// Whether the status says that the cluster has been founded: by a node that was told to, or before this resource was made.
    pub bootstrapped: bool,
    /// An object of an earlier cluster of this name, which Kubernetes takes away: nothing is made in its place before it is gone.
    pub earlier: Option<String>,
    /// The members that the status names, by ordinal: what was known of them last.
    pub recorded: BTreeMap<Ordinal, Recorded>,
    /// Absent when it does not exist.
    pub stateful_set: Option<StatefulSetState>,
    /// The pods, by ordinal.
    pub pods: BTreeMap<Ordinal, PodState>,
    /// The volume claims, by ordinal.
    pub claims: BTreeMap<Ordinal, ClaimState>,
    /// The nodes that answered, by the ordinal of their pod.
    pub nodes: BTreeMap<Ordinal, NodeStatus>,
    /// The Kubernetes nodes that pods in trouble, or their volumes, are bound to.
    pub machines: BTreeMap<String, Machine>,
    /// Why the API server refuses to make pods, in its own words.
    pub refused: Option<String>,
    /// The pods that do not serve, and why.
    pub troubles: Vec<Trouble>,
    /// The recovery that the status names.
    pub recovery: Option<Recovery>,
    /// The pod that makes a new cluster of a volume.
    pub recovery_pod: Option<RecoveryPod>,
    /// Members that the leader hears of and that lack some of what is committed, and for how long.
    pub lagging: BTreeMap<MemberId, Duration>,
    /// The operator is not to make another template of the pods now.
    pub keeps_template: bool,
    /// Why the API server refuses larger volumes, in its own words.
    pub resize_refused: Option<String>,
    /// For how long all members run a version that supports a higher level than the data has.
    pub raisable_for: Option<Duration>,
    /// The addresses of pods at which another node answered, with the name that it gave.
    pub misplaced: BTreeMap<Ordinal, String>,
}

/// What the status says of a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Its ID.
    pub member: MemberId,
    /// The volume that it was seen on.
    pub volume: Option<String>,
}

/// The `StatefulSet`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatefulSetState {
    /// The pods that it is to have.
    pub replicas: u32,
    /// The revision of its template; absent while its controller has not taken up the newest one.
    pub update_revision: Option<String>,
    /// Its UID.
    pub uid: String,
    /// It is being deleted.
    pub terminating: bool,
    /// The size in its claim template, which Kubernetes does not let anyone change.
    pub claim_size: Option<String>,
    /// The image of the nodes in its template.
    pub image: Option<String>,
    /// What the operator made the template from.
    pub rendered: Option<Rendered>,
}

/// A Kubernetes node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// Its kubelet reports.
    Ready,
    /// It does not: what runs there may run on.
    Away,
    /// It does not exist any more.
    Gone,
}

/// How the container of a node ended last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// The exit code.
    pub code: i32,
    /// The reason that the kubelet gives.
    pub reason: String,
    /// Its last words: the error that it ended with. Empty where they are not known.
    pub said: String,
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
    /// Its node has not started yet, and may never.
    pub pending: bool,
    /// The container of its node runs.
    pub running: bool,
    /// The container of its node is ready: the member serves, whatever runs beside it.
    pub ready: bool,
    /// All of it is ready. It is what Kubernetes counts.
    pub pod_ready: bool,
    /// What its label says that its member is.
    pub role: Option<String>,
    /// Its address, once it has one.
    pub ip: Option<String>,
    /// It has had its time to come up: nobody waits for it any more.
    pub settled: bool,
    /// Its node has not been ready for as long as a pod may take to come up.
    pub stuck: bool,
    /// Why Kubernetes does not run the node, such as `CrashLoopBackOff`.
    pub trouble: Option<String>,
    /// It has no Kubernetes node.
    pub unscheduled: bool,
    /// The Kubernetes node that it is on.
    pub machine: Option<String>,
    /// How its node ended last, unless it has run for long since.
    pub exit: Option<Exit>,
    /// Why Kubernetes cannot mount what it needs, in its own words, where the pod waits for long.
    pub unmounted: Option<String>,
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
    /// For how long the object of its volume has been missing. The data may be there all the same, and come back with it.
    pub lost: Option<Duration>,
    /// It was made for the cluster: one that somebody made by hand is used, and left to them.
    pub ours: bool,
    /// It is older than the resource: it was kept from an earlier one, and is never deleted by scaling.
    pub older: bool,
    /// The size that it asks for.
    pub size: Option<String>,
    /// The size that its volume has.
    pub capacity: Option<String>,
    /// The driver cannot give the size that it asks for.
    pub infeasible: bool,
    /// Its volume is larger, and its file system grows when its pod starts anew.
    pub needs_restart: bool,
    /// The name of its volume.
    pub volume: Option<String>,
    /// The Kubernetes node that its volume is bound to. It is looked at only where the pod has trouble, as is what follows.
    pub machine: Option<String>,
    /// Whether its volume stays when the claim is deleted; none where the volume may not be read.
    pub retained: Option<bool>,
    /// Why its volume is not made, in the words of Kubernetes.
    pub warning: Option<String>,
    /// Whose volume it is, where the operator has seen that.
    pub mark: Option<Mark>,
}

/// Whose volume a claim stands for. It is written on the claim, so that it outlives the resource and its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The cluster.
    pub cluster: u64,
    /// The member.
    pub member: MemberId,
    /// The member was seen to be removed by scaling: what the spec wanted to become of the volume at that time.
    pub removed: Option<ScaleDownPolicy>,
}

/// What a node said of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeStatus {
    /// What it calls itself: the name of its pod.
    pub name: String,
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
    /// What its log and its state hold.
    pub holds: Holds,
    /// The authorities that it trusts on its peer port: the SHA-256 of each, in hexadecimal, in the order of its file.
    pub authorities: Vec<String>,
    /// The level of its data. Zero while it belongs to no cluster.
    pub level: u32,
    /// The newest level that it supports.
    pub newest_level: u32,
    /// `host:port` of its peer listener.
    pub peer_address: String,
    /// URLs of its client listener.
    pub client_urls: Vec<String>,
    /// The newest configuration that it knows.
    pub configuration: Option<ConfigurationState>,
    /// What a leader knows of every member. Empty on others.
    pub progress: BTreeMap<MemberId, Progress>,
    /// The last entry that a leader knows to be durable on each member. Empty on others.
    pub matched: BTreeMap<MemberId, u64>,
    /// What it has noticed of a second process that runs as a member. Empty if nothing.
    pub conflict: String,
}

/// What the log and the state of a node hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holds {
    /// The term of the last entry of its log.
    pub last_term: u64,
    /// The last entry.
    pub last_index: u64,
    /// The last entry that it knows to be committed.
    pub commit_index: u64,
    /// The revision of its state.
    pub revision: i64,
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
    /// Sorts the answers of the nodes. An answer counts for the pod that it names: an address may have gone to another pod since the
    /// API server last heard of it.
    pub fn take_answers(&mut self, answers: BTreeMap<Ordinal, NodeStatus>) {
        let (right, wrong): (BTreeMap<_, _>, BTreeMap<_, _>) =
            answers.into_iter().partition(|(ordinal, node)| node.name == self.pod_name(*ordinal));
        self.nodes = right;
        self.misplaced = wrong.into_iter().map(|(ordinal, node)| (ordinal, node.name)).collect();
    }

    /// A member that more than one pod runs, and those pods: its volume has been copied.
    pub fn duplicate(&self) -> Option<(MemberId, BTreeSet<Ordinal>)> {
        let mut pods: BTreeMap<MemberId, BTreeSet<Ordinal>> = BTreeMap::new();
        for (&ordinal, node) in &self.nodes {
            pods.entry(node.member_id).or_default().insert(ordinal);
        }
        pods.into_iter().find(|(id, pods)| *id != 0 && pods.len() > 1)
    }

    /// What a node of this cluster has noticed of a second process that runs as a member.
    pub fn conflict(&self) -> Option<(Ordinal, &str)> {
        let ours = self.nodes.iter().filter(|(_, node)| Some(node.cluster_id) == self.identity);
        ours.map(|(&ordinal, node)| (ordinal, node.conflict.as_str()))
            .find(|(_, conflict)| !conflict.is_empty())
    }

    /// Pods that run a member which the configuration knows in another pod, with that pod's name.
    pub fn displaced(&self) -> impl Iterator<Item = (Ordinal, &str)> + '_ {
        self.nodes.keys().filter_map(|&ordinal| Some((ordinal, self.belongs_to(ordinal)?)))
    }

    /// The other pod that the member in this pod belongs to.
    fn belongs_to(&self, ordinal: Ordinal) -> Option<&str> {
        let node = self.nodes.get(&ordinal)?;
        let leader = self.leader().filter(|leader| leader.status.cluster_id == node.cluster_id)?;
        let named = &leader.configuration().members.get(&node.member_id)?.name;
        (*named != self.pod_name(ordinal)).then_some(named)
    }

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

    /// The member that runs in a pod, if it is this pod's member of the cluster, or could become it.
    pub fn occupant(&self, ordinal: Ordinal) -> Option<&NodeStatus> {
        let node = self.runs(ordinal)?;
        self.belongs_to(ordinal).is_none().then_some(node)
    }

    /// The node in a pod, if it belongs to this cluster or to none, whichever pod its member belongs to.
    pub fn runs(&self, ordinal: Ordinal) -> Option<&NodeStatus> {
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
        let said = self.pods.get(&ordinal).and_then(|pod| pod.trouble.as_ref());
        match self.trouble(ordinal).map(|trouble| &trouble.message).or(said) {
            Some(trouble) => format!("{name} ({trouble})"),
            None => name,
        }
    }

    /// What keeps a pod from serving.
    pub fn trouble(&self, ordinal: Ordinal) -> Option<&Trouble> {
        self.troubles.iter().find(|trouble| trouble.ordinal == ordinal)
    }

    /// The name of a pod.
    pub fn pod_name(&self, ordinal: Ordinal) -> String {
        format!("{}-{ordinal}", self.name)
    }
}

impl ClaimState {
    /// Whether the claim is known to be this cluster's: it says so, or it was made in the life of the resource.
    pub fn is_of(&self, identity: Option<u64>) -> bool {
        self.ours && self.mark.map_or(!self.older, |mark| Some(mark.cluster) == identity)
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
