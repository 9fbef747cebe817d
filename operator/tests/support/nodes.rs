//! Nodes that elect, commit and leave joint configurations when the test says so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use quorate_operator::membership::{Configuration, ConfigurationId, Member, MemberId};
use quorate_operator::nodes::{Admin, AdminError, Statuses, Target};
use quorate_operator::observed::{ConfigurationState, Holds, NodeStatus, Progress, Role};

use super::api::Log;

pub(crate) struct Nodes {
    world: Mutex<World>,
    log: Log,
}

#[derive(Default)]
struct World {
    /// By ordinal: member ID and cluster ID.
    nodes: BTreeMap<u64, (MemberId, u64)>,
    /// Those that are stopped.
    stopped: BTreeMap<u64, (MemberId, u64)>,
    cluster: Option<(u64, ConfigurationState)>,
    leader: MemberId,
    term: u64,
    caught_up: Vec<MemberId>,
    last: u64,
    /// Nodes that run and do not answer the operator.
    silent: Vec<u64>,
    forgotten: Vec<String>,
    /// The authorities that nodes trust, by ordinal.
    trusted: BTreeMap<u64, Vec<String>>,
    /// Nodes that neither answer nor refuse.
    hanging: Vec<u64>,
    /// Whose changes the operator has asked for.
    watched: BTreeSet<u64>,
    /// The level of the data, and the newest that all nodes support.
    level: u32,
    supported: u32,
}

impl Nodes {
    pub(crate) fn new(log: Log) -> Self {
        Self { world: Mutex::default(), log }
    }

    /// Starts the node of a pod; with a volume that it had, it is the same member.
    pub(crate) fn start(&self, ordinal: u64) {
        let mut world = self.world.lock();
        world.last += 1;
        let id = 100 + world.last;
        world.nodes.entry(ordinal).or_insert((id, 0));
    }

    /// The node of a pod comes with an empty volume.
    pub(crate) fn lose_volume(&self, ordinal: u64) {
        self.world.lock().nodes.remove(&ordinal);
        self.start(ordinal);
    }

    /// The node of a pod runs on, and does not answer the operator.
    pub(crate) fn silence(&self, ordinal: u64) {
        self.world.lock().silent.push(ordinal);
    }

    /// It answers again.
    pub(crate) fn speak(&self, ordinal: u64) {
        self.world.lock().silent.retain(|silent| *silent != ordinal);
    }

    /// The node of a pod has taken up these authorities.
    pub(crate) fn trust(&self, ordinal: u64, authorities: Vec<String>) {
        self.world.lock().trusted.insert(ordinal, authorities);
    }

    /// The machine of a node is dead: a call of it ends with its deadline.
    pub(crate) fn hang(&self, ordinal: u64) {
        self.world.lock().hanging.push(ordinal);
    }

    /// A node has not all that is committed.
    pub(crate) fn fall_behind(&self, ordinal: u64) {
        let mut world = self.world.lock();
        let id = world.nodes[&ordinal].0;
        world.caught_up.retain(|other| *other != id);
    }

    /// Whose changes the operator has asked for since this was asked last.
    pub(crate) fn take_watched(&self) -> BTreeSet<u64> {
        std::mem::take(&mut self.world.lock().watched)
    }

    /// All nodes support this level of the data.
    pub(crate) fn support(&self, level: u32) {
        self.world.lock().supported = level;
    }

    /// What the operator has closed its connections to.
    pub(crate) fn forgotten(&self) -> Vec<String> {
        self.world.lock().forgotten.clone()
    }

    pub(crate) fn stop(&self, ordinal: u64) {
        let mut world = self.world.lock();
        let stopped = world.nodes.remove(&ordinal);
        world.stopped.extend(stopped.map(|node| (ordinal, node)));
    }

    /// The node of a pod that was stopped runs again, on its volume.
    pub(crate) fn come_back(&self, ordinal: u64) {
        let mut world = self.world.lock();
        let back = world.stopped.remove(&ordinal).expect("it was stopped");
        world.nodes.insert(ordinal, back);
    }

    pub(crate) fn voters(&self) -> Vec<MemberId> {
        let world = self.world.lock();
        world
            .cluster
            .as_ref()
            .map(|(_, state)| state.configuration.voters.iter().copied().collect())
            .unwrap_or_default()
    }

    pub(crate) fn cluster_id(&self) -> Option<u64> {
        self.world.lock().cluster.as_ref().map(|(id, _)| *id)
    }

    pub(crate) fn lead(&self, ordinal: u64) {
        let mut world = self.world.lock();
        world.leader = world.nodes[&ordinal].0;
        world.term += 1;
    }

    /// Nobody leads any more.
    pub(crate) fn depose(&self) {
        self.world.lock().leader = 0;
    }

    /// What the volume of a pod holds becomes a new cluster of one.
    pub(crate) fn recover(&self, ordinal: u64, cluster: u64) {
        let mut world = self.world.lock();
        world.last += 1;
        let id = 100 + world.last;
        world.nodes.insert(ordinal, (id, cluster));
        (world.leader, world.caught_up) = (id, vec![id]);
        world.term += 1000;
        let term = world.term;
        world.cluster = Some((cluster, alone(id, ordinal, term)));
    }

    /// Learners catch up, configurations are committed, joint ones are left.
    pub(crate) fn progress(&self) {
        let mut world = self.world.lock();
        let Some((cluster, mut state)) = world.cluster.clone() else { return };
        let running: Vec<_> = world.nodes.values().map(|(id, _)| *id).collect();
        for node in world.nodes.values_mut().filter(|(id, _)| state.configuration.contains(*id)) {
            node.1 = cluster;
        }
        world.caught_up = running;
        state.committed = true;
        if state.configuration.is_joint() {
            state.configuration.outgoing.clear();
            state.configuration.forget_strangers();
            state.id.index += 1;
        }
        world.cluster = Some((cluster, state));
    }

    fn note(&self, line: String) {
        self.log.lock().push(line);
    }

    fn ordinal(node: &Target) -> u64 {
        let address = node.address.strip_suffix(":2380").expect("the peer port");
        address.strip_prefix("10.0.0.").expect("an address of the test").parse().expect("an ordinal")
    }
}

impl World {
    fn status(&self, ordinal: u64) -> Option<NodeStatus> {
        let &(member_id, cluster_id) =
            self.nodes.get(&ordinal).filter(|_| !self.silent.contains(&ordinal))?;
        let mut status = NodeStatus {
            name: format!("demo-{ordinal}"),
            cluster_id,
            member_id,
            version: "0.1.0".to_owned(),
            holds: Holds { last_term: 1, last_index: 40, commit_index: 40, revision: 7 },
            authorities: self.trusted.get(&ordinal).cloned().unwrap_or_default(),
            level: self.level,
            newest_level: self.supported,
            peer_address: format!("demo-{ordinal}.demo-peers.ns.svc:2380"),
            ..NodeStatus::default()
        };
        if let Some((id, state)) = self.cluster.as_ref().filter(|(id, _)| *id == cluster_id) {
            status.cluster_id = *id;
            status.term = self.term;
            status.leader_id = self.leader;
            status.role = if self.leader == member_id { Role::Leader } else { Role::Follower };
            status.configuration = Some(state.clone());
            let active = |id: MemberId| self.nodes.values().any(|(running, _)| *running == id);
            let progress = |id| Progress { active: active(id), caught_up: self.caught_up.contains(&id) };
            status.progress = state.configuration.ids().into_iter().map(|id| (id, progress(id))).collect();
        }
        Some(status)
    }
}

/// The configuration of one member alone.
fn alone(id: MemberId, ordinal: u64, term: u64) -> ConfigurationState {
    let name = format!("demo-{ordinal}");
    let member = Member { name, peer_address: String::new(), client_urls: Vec::new() };
    let configuration =
        Configuration { voters: [id].into(), members: [(id, member)].into(), ..Configuration::default() };
    ConfigurationState { id: ConfigurationId { term, index: 1 }, configuration, committed: true }
}

fn refused(node: &Target, message: &str) -> AdminError {
    AdminError::Refused { host: node.host.clone(), message: message.to_owned() }
}

impl Admin for Nodes {
    fn status<'a>(&'a self, node: &'a Target) -> BoxFuture<'a, Result<NodeStatus, AdminError>> {
        let (found, hangs) = {
            let world = self.world.lock();
            (world.status(Self::ordinal(node)), world.hanging.contains(&Self::ordinal(node)))
        };
        async move {
            if hangs {
                tokio::time::sleep(Duration::from_secs(3)).await;
                return Err(refused(node, "no answer within 3 s"));
            }
            found.ok_or_else(|| refused(node, "stopped"))
        }
        .boxed()
    }

    fn watch<'a>(&'a self, node: &'a Target) -> BoxFuture<'a, Result<Statuses, AdminError>> {
        self.world.lock().watched.insert(Self::ordinal(node));
        async move { Err(refused(node, "the tests start the rounds themselves")) }.boxed()
    }

    fn bootstrap<'a>(&'a self, node: &'a Target, cluster_id: u64) -> BoxFuture<'a, Result<(), AdminError>> {
        let ordinal = Self::ordinal(node);
        self.note(format!("bootstrap {ordinal}"));
        let mut world = self.world.lock();
        let id = world.nodes[&ordinal].0;
        world.nodes.insert(ordinal, (id, cluster_id));
        world.cluster = Some((cluster_id, alone(id, ordinal, 1)));
        (world.leader, world.term) = (id, 1);
        world.caught_up = vec![id];
        async { Ok(()) }.boxed()
    }

    fn change_membership<'a>(
        &'a self,
        node: &'a Target,
        cluster_id: u64,
        expected: ConfigurationId,
        wanted: &'a Configuration,
    ) -> BoxFuture<'a, Result<(), AdminError>> {
        let mut world = self.world.lock();
        let (id, mut state) = world.cluster.clone().expect("a cluster");
        let voters = wanted.voters.len();
        self.note(format!("change to {voters} voters and {} learners", wanted.learners.len()));
        if id != cluster_id || state.id != expected {
            return async move { Err(refused(node, "the configuration has moved on")) }.boxed();
        }
        let before = std::mem::replace(&mut state.configuration, wanted.clone());
        if before.voters != wanted.voters {
            state.configuration.outgoing = before.voters;
            for (id, member) in before.members {
                state.configuration.members.entry(id).or_insert(member);
            }
        }
        state.id.index += 1;
        state.committed = false;
        world.cluster = Some((id, state));
        async { Ok(()) }.boxed()
    }

    fn transfer<'a>(
        &'a self,
        _: &'a Target,
        _: u64,
        target: MemberId,
    ) -> BoxFuture<'a, Result<(), AdminError>> {
        let mut world = self.world.lock();
        let ordinal = world.nodes.iter().find(|(_, (id, _))| *id == target).map(|(ordinal, _)| *ordinal);
        self.note(format!("transfer to {}", ordinal.expect("a running node")));
        world.leader = target;
        world.term += 1;
        async { Ok(()) }.boxed()
    }

    fn raise_level<'a>(&'a self, _: &'a Target, _: u64, to: u32) -> BoxFuture<'a, Result<(), AdminError>> {
        self.note(format!("raise the level to {to}"));
        self.world.lock().level = to;
        async { Ok(()) }.boxed()
    }

    fn forget(&self, suffix: &str) {
        self.world.lock().forgotten.push(suffix.to_owned());
    }
}
