//! What a change of membership is to come to, and the next step on the way there, from what the leader says. Pure: asked
//! again and again, it leads to the goal from wherever the cluster is, also after raftctl was interrupted.

use quorate_api::admin::{ConfigurationStatus, StatusResponse};
use quorate_api::log::{Configuration, Member};

use super::print;

/// What is wanted.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Goal {
    /// This node is a member: a learner, or a voter.
    Present {
        /// The node.
        member: Member,
        /// It is not to vote.
        learner: bool,
    },
    /// The member votes.
    Voter(u64),
    /// The member is gone.
    Absent(u64),
}

/// What is to be done next.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// The goal is reached.
    Done,
    /// Look again later; this is waited for.
    Wait(String),
    /// Ask for this configuration, to do that.
    Change(Configuration, String),
    /// The leader is to hand over first.
    HandOver,
    /// It cannot be, for this reason.
    Never(String),
}

/// The next step to `goal`, from what the leader says.
pub(super) fn next(goal: &Goal, leader: &StatusResponse) -> Step {
    let Some(ConfigurationStatus { configuration: Some(current), committed, .. }) = &leader.configuration
    else {
        return Step::Wait("for the leader's configuration".to_owned());
    };
    if !current.outgoing.is_empty() {
        let (old, new) = (current.outgoing.len(), current.voters.len());
        return Step::Wait(format!(
            "for the joint configuration ({old} voters to {new}) to be committed by both majorities"
        ));
    }
    if !committed {
        return Step::Wait("for the configuration to be committed".to_owned());
    }
    match goal {
        Goal::Present { member, learner: true } if is_member(current, member.id) => Step::Done,
        Goal::Present { member, .. } if !is_member(current, member.id) => {
            let mut wanted = current.clone();
            wanted.learners.push(member.id);
            wanted.members.retain(|m| m.id != member.id);
            wanted.members.push(member.clone());
            Step::Change(wanted, format!("adding {} as a learner", name(member)))
        }
        Goal::Present { member, .. } => promote(member.id, current, leader),
        Goal::Voter(id) => promote(*id, current, leader),
        Goal::Absent(id) => remove(*id, current, leader),
    }
}

fn promote(id: u64, current: &Configuration, leader: &StatusResponse) -> Step {
    if current.voters.contains(&id) {
        return Step::Done;
    }
    if !current.learners.contains(&id) {
        return Step::Never(format!("{} is no member", print::id(id)));
    }
    let who = describe(id, current);
    match leader.progress.iter().find(|progress| progress.member_id == id) {
        Some(progress) if progress.caught_up => {
            let mut wanted = current.clone();
            wanted.learners.retain(|learner| *learner != id);
            wanted.voters.push(id);
            Step::Change(wanted, format!("making {who} a voter"))
        }
        Some(progress) if progress.active => {
            let behind = leader.last_index.saturating_sub(progress.r#match);
            // No number that changes with every look: it would be said anew each time.
            Step::Wait(if behind > 0 {
                format!("for {who} to catch up with the log")
            } else {
                format!("for the leader to see {who} caught up")
            })
        }
        _ => Step::Wait(format!("for {who} to be heard of by the leader")),
    }
}

fn remove(id: u64, current: &Configuration, leader: &StatusResponse) -> Step {
    if !is_member(current, id) {
        return Step::Done;
    }
    if current.voters == [id] {
        return Step::Never(format!(
            "{} is the only voter: without it there is no cluster",
            describe(id, current)
        ));
    }
    if leader.member_id == id {
        return Step::HandOver;
    }
    let mut wanted = current.clone();
    wanted.voters.retain(|voter| *voter != id);
    wanted.learners.retain(|learner| *learner != id);
    wanted.members.retain(|member| member.id != id);
    Step::Change(wanted, format!("removing {}", describe(id, current)))
}

/// The member with this name or ID. A name that two members share names none of them.
pub(super) fn find<'a>(current: &'a Configuration, wanted: &str) -> Result<&'a Member, String> {
    if let Some(member) = current.members.iter().find(|member| print::id(member.id) == wanted) {
        return Ok(member);
    }
    let mut named = current.members.iter().filter(|member| member.name == wanted);
    match (named.next(), named.next()) {
        (Some(member), None) => Ok(member),
        (Some(_), Some(_)) => Err(format!("several members are named {wanted}: give the ID")),
        (None, _) => {
            let there: Vec<&str> = current.members.iter().map(|member| member.name.as_str()).collect();
            Err(format!("no member {wanted}; there are {}", there.join(", ")))
        }
    }
}

/// A member's name with its ID.
pub(super) fn describe(id: u64, current: &Configuration) -> String {
    current.members.iter().find(|member| member.id == id).map_or_else(|| print::id(id), name)
}

fn name(member: &Member) -> String {
    format!("{} ({})", member.name, print::id(member.id))
}

fn is_member(current: &Configuration, id: u64) -> bool {
    current.voters.contains(&id) || current.learners.contains(&id)
}

#[cfg(test)]
mod tests {
    use quorate_api::admin::Progress;

    use super::*;

    fn member(id: u64) -> Member {
        Member { id, name: format!("n{id}"), ..Default::default() }
    }

    /// Member 1 leads.
    fn leader(voters: &[u64], learners: &[u64]) -> StatusResponse {
        let members = voters.iter().chain(learners).map(|id| member(*id)).collect();
        let configuration =
            Configuration { voters: voters.to_vec(), outgoing: vec![], learners: learners.to_vec(), members };
        let status = ConfigurationStatus { id: None, configuration: Some(configuration), committed: true };
        StatusResponse { member_id: 1, last_index: 10, configuration: Some(status), ..Default::default() }
    }

    fn change(step: Step) -> (Vec<u64>, Vec<u64>, Vec<u64>) {
        let Step::Change(wanted, _) = step else { panic!("{step:?} is no change") };
        (wanted.voters, wanted.learners, wanted.members.iter().map(|m| m.id).collect())
    }

    #[test]
    fn a_node_is_added_as_learner_then_voter() {
        let goal = Goal::Present { member: member(2), learner: false };
        assert_eq!(change(next(&goal, &leader(&[1], &[]))), (vec![1], vec![2], vec![1, 2]));
        let mut status = leader(&[1], &[2]);
        assert!(matches!(next(&goal, &status), Step::Wait(why) if why.contains("heard of")));
        status.progress =
            vec![Progress { member_id: 2, r#match: 5, active: true, caught_up: false, lost: false }];
        assert!(matches!(next(&goal, &status), Step::Wait(why) if why.contains("catch up")));
        status.progress[0].caught_up = true;
        assert_eq!(change(next(&goal, &status)), (vec![1, 2], vec![], vec![1, 2]));
        assert_eq!(next(&goal, &leader(&[1, 2], &[])), Step::Done);
    }

    #[test]
    fn a_learner_stays_one_when_that_is_wanted() {
        let goal = Goal::Present { member: member(2), learner: true };
        assert_eq!(change(next(&goal, &leader(&[1], &[]))).1, vec![2]);
        assert_eq!(next(&goal, &leader(&[1], &[2])), Step::Done);
    }

    #[test]
    fn members_are_removed() {
        assert_eq!(
            change(next(&Goal::Absent(2), &leader(&[1, 2, 3], &[]))),
            (vec![1, 3], vec![], vec![1, 3])
        );
        assert_eq!(change(next(&Goal::Absent(2), &leader(&[1], &[2]))), (vec![1], vec![], vec![1]));
        assert_eq!(next(&Goal::Absent(1), &leader(&[1, 2], &[])), Step::HandOver);
        assert_eq!(next(&Goal::Absent(9), &leader(&[1, 2], &[])), Step::Done);
        assert!(matches!(next(&Goal::Absent(1), &leader(&[1], &[2])), Step::Never(_)));
    }

    #[test]
    fn a_change_under_way_is_waited_for() {
        let mut status = leader(&[1, 2], &[]);
        status.configuration.as_mut().unwrap().committed = false;
        assert!(matches!(next(&Goal::Absent(2), &status), Step::Wait(_)));
        let mut status = leader(&[1, 2], &[]);
        status.configuration.as_mut().unwrap().configuration.as_mut().unwrap().outgoing = vec![1, 3];
        assert!(matches!(next(&Goal::Absent(3), &status), Step::Wait(why) if why.contains("joint")));
    }

    #[test]
    fn members_have_names() {
        let mut current = leader(&[1, 2], &[]).configuration.unwrap().configuration.unwrap();
        assert_eq!(find(&current, "n2").unwrap().id, 2);
        assert_eq!(find(&current, "0000000000000002").unwrap().id, 2);
        assert_eq!(find(&current, "n3").unwrap_err(), "no member n3; there are n1, n2");
        current.members[0].name = "n2".into();
        assert!(find(&current, "n2").unwrap_err().contains("several"));
        assert!(matches!(next(&Goal::Voter(9), &leader(&[1], &[])), Step::Never(_)));
    }
}
