//! A node's own wishes about its membership: to be let in, and to be described as it is.
//!
//! It asks the leader, as an operator would, by the admin service, and can ask again at any time: each request names the
//! configuration that it starts from.

use std::time::Duration;

use quorate_api::admin::{self as pb, StatusResponse};
use quorate_api::log;
use quorate_raft::MemberId;
use tokio::sync::oneshot;
use tonic::Code;

use super::ask::Asker;
use crate::doors::event::Event;
use crate::doors::mailbox::Mailbox;
use crate::doors::view::{NodeStatus, NodeView, Role};
use crate::level::{Subject, Unsupported};
use crate::peer::Peers;

/// How long to wait before the next look.
const INTERVAL: Duration = Duration::from_millis(200);

/// A node that wants to be a member.
#[derive(Debug)]
#[allow(clippy::struct_field_names, reason = "the name of the flag")]
pub(crate) struct Join {
    pub(crate) view: NodeView,
    pub(crate) asks: Asker,
    /// This node, as configurations should describe it.
    pub(crate) me: log::Member,
    /// The peer addresses of members, when this node is to become a voter by itself, or may not know where the others are by now.
    pub(crate) join: Vec<String>,
    /// It founds a cluster when it belongs to none, and none of those at `join` does.
    pub(crate) founds: bool,
    pub(crate) peers: Peers,
    pub(crate) mailbox: Mailbox,
    /// This process has seen this node among the members.
    pub(crate) let_in: bool,
}

/// Why it can never be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The data directory is another cluster's.
    #[error(
        "this node belongs to cluster {mine:016x}, and the one at {address} to {theirs:016x}: \
         join with an empty data directory, or start this node without --join"
    )]
    OtherCluster {
        /// Of this data directory.
        mine: u64,
        /// Of the member asked.
        theirs: u64,
        /// Where that is.
        address: String,
    },
    /// The cluster's level is none that this node supports.
    #[error(transparent)]
    Unsupported(Unsupported),
    /// It has been a member, and was removed.
    #[error("this member was removed from cluster {0:016x}: join with an empty data directory")]
    Removed(u64),
}

/// What is to be done next.
#[derive(Debug, PartialEq)]
enum Step {
    Done,
    /// Nothing yet, because of this.
    Wait(&'static str),
    /// Ask for this configuration, because of that.
    Change(log::Configuration, &'static str),
}

impl Join {
    /// Asks until there is nothing left to wish for.
    pub(crate) async fn run(mut self) -> Result<(), JoinError> {
        let mut said = String::new();
        loop {
            let outcome = self.once().await?;
            if outcome == Progress::Done {
                return Ok(());
            }
            if let Progress::Waits(reason) = outcome
                && reason != said
            {
                tracing::info!(reason, "waits to be enrolled");
                said = reason;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// One look at the leader, and one request at most. Who was let in may be removed again at any time: that is the end of its
    /// wish, and no error of whoever started it.
    async fn once(&mut self) -> Result<Progress, JoinError> {
        let mine = self.view.status();
        if mine.role == Role::Removed {
            let wants_in = !self.join.is_empty() && !self.let_in;
            return if wants_in { Err(JoinError::Removed(mine.cluster_id)) } else { Ok(Progress::Done) };
        }
        if self.founds && mine.cluster_id == 0 {
            return self.found_if_alone().await;
        }
        let by_join = mine.leader_member().is_none();
        let addresses = match mine.leader_member() {
            // This node itself may lead, and have moved: then the configuration does not know where it is.
            Some(leader) if leader.id == self.me.id => vec![self.me.peer_address.clone()],
            Some(leader) => vec![leader.peer_address.clone()],
            None => self.join.clone(),
        };
        if by_join && mine.cluster_id != 0 {
            self.get_acquainted(mine.cluster_id).await;
        }
        let mut found = Ok(None);
        for address in addresses {
            found = self.asks.find_leader(address).await.map(Some);
            if found.is_ok() {
                break;
            }
        }
        let (address, leader) = match found {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(Progress::Quiet),
            Err(reason) => return Ok(Progress::Waits(reason)),
        };
        if mine.cluster_id != 0 && leader.cluster_id != mine.cluster_id {
            // An address of our own configuration may have been given to somebody else since: the configuration will follow.
            if !by_join {
                return Ok(Progress::Waits(format!("{address} belongs to another cluster now")));
            }
            return Err(JoinError::OtherCluster {
                mine: mine.cluster_id,
                theirs: leader.cluster_id,
                address,
            });
        }
        if leader.level != 0 {
            mine.levels.check(Subject::Cluster, leader.level).map_err(JoinError::Unsupported)?;
        }
        if !self.join.is_empty() && !self.let_in && was_removed(&mine, &leader, self.me.id) {
            return Err(JoinError::Removed(mine.cluster_id));
        }
        if mine.cluster_id == 0
            && !self.join.is_empty()
            && let Some(taking) = take_registration(&leader, &self.me)
        {
            return Ok(match taking {
                Taking::Tell(wanted) => {
                    self.change(
                        &address,
                        &leader,
                        wanted,
                        "told the cluster that it has come to be the member registered for its address",
                    )
                    .await
                }
                Taking::Become(member) => self.take_id(member).await,
                Taking::Forgot(member) => Progress::Waits(format!(
                    "this volume was member {member} and has forgotten what it acknowledged: it was put back. Remove that member, and start with an empty data directory"
                )),
            });
        }
        self.let_in |= committed(&leader).is_some_and(|current| names(current, self.me.id));
        Ok(match next_step(&leader, &self.me, !self.join.is_empty(), self.let_in) {
            Step::Done => Progress::Done,
            Step::Wait(reason) => Progress::Waits(reason.to_owned()),
            Step::Change(wanted, why) => self.change(&address, &leader, wanted, why).await,
        })
    }

    /// Has this node take the ID that was registered for it; then it starts anew.
    async fn take_id(&self, member: MemberId) -> Progress {
        let (reply, refused) = oneshot::channel();
        self.mailbox.post(Event::TakeId { member, reply });
        match refused.await {
            Ok(error) => Progress::Waits(error.to_string()),
            Err(_) => Progress::Quiet,
        }
    }

    /// Founds a cluster once all those at [`Self::join`] have said that they belong to none. If one of them belongs to a cluster this node
    /// joins that: its own disk may have been replaced since it was founded. One that does not answer may belong to one as well.
    async fn found_if_alone(&mut self) -> Result<Progress, JoinError> {
        let mut silent = None;
        for address in &self.join {
            match self.asks.status(address).await {
                Ok(status) if status.cluster_id != 0 => {
                    let cluster = format_args!("{:016x}", status.cluster_id);
                    tracing::warn!(cluster, address, "there is a cluster already: joins it, and founds none");
                    self.founds = false;
                    return Ok(Progress::Quiet);
                }
                Ok(_) => {}
                Err(reason) => {
                    silent = Some(format!(
                        "founds no cluster before {address} says that it belongs to none: {reason}"
                    ));
                }
            }
        }
        if let Some(reason) = silent {
            return Ok(Progress::Waits(reason));
        }
        let (reply, founded) = oneshot::channel();
        let cluster_id = getrandom::u64().unwrap_or_default();
        self.mailbox.post(Event::Bootstrap { cluster_id, reply });
        match founded.await {
            Ok(Err(error)) => Ok(Progress::Waits(error.to_string())),
            Ok(Ok(())) | Err(_) => Ok(Progress::Quiet),
        }
    }

    /// While no leader is known: asks those at [`Self::join`] where they and the others are by now. All members may have moved at once, and
    /// what the configuration says leads nowhere. They hear from this one where it is by its first message: so links come about without a leader, one
    /// is elected, and the configuration follows.
    async fn get_acquainted(&self, cluster_id: u64) {
        for address in &self.join {
            let Ok(status) = self.asks.status(address).await else { continue };
            if status.cluster_id != cluster_id {
                continue;
            }
            self.peers.introduced(MemberId(status.member_id), address);
            for contact in status.contacts {
                self.peers.introduced(MemberId(contact.member_id), &contact.peer_address);
            }
        }
    }

    async fn change(
        &self,
        address: &str,
        leader: &StatusResponse,
        wanted: log::Configuration,
        why: &'static str,
    ) -> Progress {
        let levels = self.view.status().levels;
        let request = pb::ChangeMembershipRequest {
            cluster_id: leader.cluster_id,
            expected: leader.configuration.as_ref().and_then(|c| c.id),
            wanted: Some(wanted),
            levels: vec![pb::MemberLevels {
                member_id: self.me.id,
                oldest_level: levels.oldest,
                newest_level: levels.newest,
            }],
        };
        match self.asks.change(address, request).await {
            Ok(()) => {
                tracing::info!(leader = address, "{why}");
                Progress::Quiet
            }
            // Somebody else was faster, or the leader is busy with an earlier change: look again.
            Err(status) if matches!(status.code(), Code::Aborted | Code::Unavailable) => Progress::Quiet,
            Err(status) => Progress::Waits(format!("{address}: {}", status.message())),
        }
    }
}

/// How a node with an empty volume becomes the member that was registered for its address.
#[derive(Debug, PartialEq)]
enum Taking {
    /// It says so in the configuration: whose volume it is counts from when that is committed.
    Tell(log::Configuration),
    /// That was committed: the ID is this volume's.
    Become(MemberId),
    /// The volume has been that member, and has forgotten it: it came back from before.
    Forgot(MemberId),
}

/// What `me`, with an empty volume, does about a registration for its address, if there is one that is not another volume's.
///
/// An ID is taken by one volume only, ever: the log says which, by the ID that was drawn on that volume, before the volume says so. A volume that is lost
/// between the two, or later, takes the ID with it, and what was registered is to be removed.
fn take_registration(leader: &StatusResponse, me: &log::Member) -> Option<Taking> {
    let current = committed(leader)?;
    let is_mine = |member: &&log::Member| {
        member.registered() != log::Registration::None
            && member.id != me.id
            && member.peer_address == me.peer_address
            && (member.volume == 0 || member.volume == me.id)
    };
    let registered = current.members.iter().find(is_mine)?;
    if registered.volume == me.id {
        let has_acknowledged =
            |member: &pb::Progress| member.member_id == registered.id && member.r#match > 0;
        let has_come =
            !current.learners.contains(&registered.id) || leader.progress.iter().any(has_acknowledged);
        let id = MemberId(registered.id);
        return Some(if has_come { Taking::Forgot(id) } else { Taking::Become(id) });
    }
    let mut wanted = current.clone();
    let named = wanted.members.iter_mut().find(|member| member.id == registered.id)?;
    (named.name, named.volume) = (me.name.clone(), me.id);
    named.client_urls.clone_from(&me.client_urls);
    Some(Taking::Tell(wanted))
}

#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Done,
    Quiet,
    Waits(String),
}

/// What `me` asks of the leader, whose status is `leader`; with `join`, until it votes, unless it was registered as a learner. Who was `let_in` and is no member any more
/// was removed, and does not come back by itself.
fn next_step(leader: &StatusResponse, me: &log::Member, join: bool, let_in: bool) -> Step {
    let Some(current) = committed(leader) else {
        return Step::Wait("a change of membership is under way");
    };
    let is_voter = current.voters.contains(&me.id);
    let is_learner = current.learners.contains(&me.id);
    let registered = current.members.iter().find(|member| member.id == me.id).map(log::Member::registered);
    let votes = match registered.unwrap_or_default() {
        log::Registration::None => join,
        log::Registration::Voter => true,
        log::Registration::Learner => false,
    };
    let mut wanted = current.clone();
    describe(&mut wanted, me);
    match (is_voter, is_learner) {
        (false, false) if !join || let_in => Step::Done,
        (false, false) => {
            wanted.learners.push(me.id);
            Step::Change(wanted, "was added as a learner")
        }
        (false, true) if votes => {
            if !leader.progress.iter().any(|member| member.member_id == me.id && member.caught_up) {
                return Step::Wait("catching up with the leader's log");
            }
            wanted.learners.retain(|id| *id != me.id);
            wanted.voters.push(me.id);
            Step::Change(wanted, "is being made a voter")
        }
        _ if wanted != *current => Step::Change(wanted, "told the cluster its new addresses"),
        _ => Step::Done,
    }
}

/// The leader's configuration, unless it is being changed.
fn committed(leader: &StatusResponse) -> Option<&log::Configuration> {
    let status = leader.configuration.as_ref().filter(|status| status.committed)?;
    status.configuration.as_ref().filter(|current| current.outgoing.is_empty())
}

/// Whether a configuration that was committed after the newest that this node knows has removed it. A leader that is behind says
/// nothing by not naming it.
fn was_removed(mine: &NodeStatus, leader: &StatusResponse, id: u64) -> bool {
    let Some(own) = &mine.configuration else { return false };
    // What names it a voter follows from one that was committed, whether or not this node knows that it is itself.
    let was_member =
        own.configuration.voters.contains(&id) || (own.committed && names(&own.configuration, id));
    let Some(current) = committed(leader) else { return false };
    let newer =
        leader.configuration.as_ref().and_then(|status| status.id).is_some_and(|at| at.index > own.id.index);
    was_member && newer && !names(current, id)
}

fn names(configuration: &log::Configuration, id: u64) -> bool {
    configuration.voters.contains(&id) || configuration.learners.contains(&id)
}

/// Describes `me` in `configuration` as it is. What was registered stays.
fn describe(configuration: &mut log::Configuration, me: &log::Member) {
    match configuration.members.iter_mut().find(|member| member.id == me.id) {
        Some(member) => {
            let (registered, volume) = (member.registered, member.volume);
            *member = log::Member { registered, volume, ..me.clone() };
        }
        None => configuration.members.push(me.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64) -> log::Member {
        log::Member { id, peer_address: format!("n{id}:1"), ..Default::default() }
    }

    fn leader(voters: &[u64], learners: &[u64]) -> StatusResponse {
        let members = voters.iter().chain(learners).map(|id| member(*id)).collect();
        let configuration = log::Configuration {
            voters: voters.to_vec(),
            outgoing: Vec::new(),
            learners: learners.to_vec(),
            members,
        };
        let status =
            pb::ConfigurationStatus { id: None, configuration: Some(configuration), committed: true };
        StatusResponse { configuration: Some(status), ..Default::default() }
    }

    fn wanted(step: Step) -> log::Configuration {
        match step {
            Step::Change(wanted, _) => wanted,
            other => panic!("{other:?} is no change"),
        }
    }

    #[test]
    fn a_stranger_becomes_a_learner_and_then_a_voter() {
        let step = wanted(next_step(&leader(&[1], &[]), &member(2), true, false));
        assert_eq!((step.voters, step.learners), (vec![1], vec![2]));
        assert_eq!(step.members, [member(1), member(2)]);

        let mut status = leader(&[1], &[2]);
        assert!(matches!(next_step(&status, &member(2), true, false), Step::Wait(_)));
        status.progress.push(pb::Progress {
            member_id: 2,
            r#match: 9,
            active: true,
            caught_up: true,
            lost: false,
        });
        let step = wanted(next_step(&status, &member(2), true, false));
        assert_eq!((step.voters, step.learners), (vec![1, 2], vec![]));

        assert_eq!(next_step(&leader(&[1, 2], &[]), &member(2), true, false), Step::Done);
    }

    /// With the member 9 registered for the address of 2.
    fn registered(registered: log::Registration, volume: u64) -> StatusResponse {
        let mut status = leader(&[1], &[9]);
        let current = status.configuration.as_mut().unwrap().configuration.as_mut().unwrap();
        let member = current.members.last_mut().unwrap();
        (member.peer_address, member.volume) = ("n2:1".into(), volume);
        member.set_registered(registered);
        status
    }

    #[test]
    fn an_id_that_was_registered_is_taken_by_one_volume() {
        let me = log::Member { name: "two".into(), ..member(2) };
        let status = registered(log::Registration::Learner, 0);
        let Some(Taking::Tell(told)) = take_registration(&status, &me) else {
            panic!("it tells the cluster first")
        };
        let named = &told.members[1];
        assert_eq!((named.id, named.volume, named.name.as_str()), (9, 2, "two"));
        let mut status = registered(log::Registration::Learner, 2);
        assert_eq!(take_registration(&status, &me), Some(Taking::Become(MemberId(9))));
        // It has come, and was put back to before that.
        status.progress.push(pb::Progress { member_id: 9, r#match: 7, ..Default::default() });
        assert_eq!(take_registration(&status, &me), Some(Taking::Forgot(MemberId(9))));
        let current = status.configuration.as_mut().unwrap().configuration.as_mut().unwrap();
        (current.voters, current.learners) = (vec![1, 9], vec![]);
        status.progress.clear();
        assert_eq!(take_registration(&status, &me), Some(Taking::Forgot(MemberId(9))));
        // Another volume that comes from there afterwards.
        let other = log::Member { id: 3, ..me.clone() };
        let status = registered(log::Registration::Learner, 2);
        assert_eq!(take_registration(&status, &other), None);
        // A member that nobody has registered is left alone, wherever it is.
        let status = registered(log::Registration::None, 0);
        assert_eq!(take_registration(&status, &me), None);
    }

    #[test]
    fn who_was_registered_votes_or_not_as_it_was_registered() {
        let me = log::Member { peer_address: "n2:1".into(), ..member(9) };
        let status = registered(log::Registration::Learner, 2);
        assert_eq!(next_step(&status, &me, true, true), Step::Done);
        let mut status = registered(log::Registration::Voter, 2);
        assert!(matches!(next_step(&status, &me, false, true), Step::Wait(_)));
        status.progress.push(pb::Progress { member_id: 9, caught_up: true, ..Default::default() });
        let step = wanted(next_step(&status, &me, false, true));
        assert_eq!((step.voters, step.learners, step.members[1].volume), (vec![1, 9], vec![], 2));
    }

    #[test]
    fn who_was_let_in_and_removed_does_not_come_back_by_itself() {
        assert_eq!(next_step(&leader(&[1], &[]), &member(2), true, true), Step::Done);
    }

    #[test]
    fn without_join_others_decide() {
        assert_eq!(next_step(&leader(&[1], &[]), &member(2), false, false), Step::Done);
        assert_eq!(next_step(&leader(&[1], &[2]), &member(2), false, false), Step::Done);
    }

    #[test]
    fn a_member_that_has_moved_says_so() {
        let moved = log::Member { peer_address: "elsewhere:1".into(), ..member(2) };
        for status in [leader(&[1, 2], &[]), leader(&[1], &[2])] {
            let step = wanted(next_step(&status, &moved, false, false));
            assert_eq!(step.members, [member(1), moved.clone()]);
        }
    }

    #[test]
    fn a_change_under_way_is_waited_for() {
        let mut joint = leader(&[1, 2], &[]);
        joint.configuration.as_mut().unwrap().configuration.as_mut().unwrap().outgoing = vec![1];
        assert!(matches!(next_step(&joint, &member(3), true, false), Step::Wait(_)));
        let mut uncommitted = leader(&[1], &[]);
        uncommitted.configuration.as_mut().unwrap().committed = false;
        assert!(matches!(next_step(&uncommitted, &member(3), true, false), Step::Wait(_)));
    }
}
