//! Commands about members. A change is pursued step by step, until the leader shows it committed.

use std::time::Duration;

use quorate_api::admin::{ChangeMembershipRequest, MemberLevels, StatusResponse, TransferLeadershipRequest};
use quorate_api::log::{Configuration, Member};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tonic::Code;

use super::connect::{Admins, call};
use super::goal::{self, Goal, Step};
use super::{CtlError, Output, print};

/// How often to look how a change is coming along.
const INTERVAL: Duration = Duration::from_millis(200);

/// Shows the configuration.
pub(super) async fn list(admins: &Admins, output: Output) -> Result<(), CtlError> {
    let (_, status) = admins.any().await?;
    show(&status, output)
}

/// Has the node at `address` added.
pub(super) async fn add(
    admins: &Admins,
    output: Output,
    address: &str,
    learner: bool,
    seconds: u64,
) -> Result<(), CtlError> {
    let node = admins.status(address).await?;
    let (_, leader) = admins.leader().await?;
    if node.cluster_id != 0 && node.cluster_id != leader.cluster_id {
        let (theirs, ours) = (print::id(node.cluster_id), print::id(leader.cluster_id));
        return Err(CtlError::Cluster(format!("{address} belongs to cluster {theirs}, not to {ours}")));
    }
    let member = Member {
        id: node.member_id,
        name: node.name,
        peer_address: node.peer_address,
        client_urls: node.client_urls,
        ..Member::default()
    };
    pursue(admins, output, &Goal::Present { member, learner }, seconds).await
}

/// Has a member removed.
pub(super) async fn remove(
    admins: &Admins,
    output: Output,
    member: &str,
    seconds: u64,
) -> Result<(), CtlError> {
    let id = resolve(admins, member).await?;
    pursue(admins, output, &Goal::Absent(id), seconds).await
}

/// Has a learner made a voter.
pub(super) async fn promote(
    admins: &Admins,
    output: Output,
    member: &str,
    seconds: u64,
) -> Result<(), CtlError> {
    let id = resolve(admins, member).await?;
    pursue(admins, output, &Goal::Voter(id), seconds).await
}

/// Has leadership handed over, to `member` or to whom the leader chooses. With `if_here` only by the first of the endpoints.
pub(super) async fn transfer(
    admins: &Admins,
    output: Output,
    member: Option<&str>,
    if_here: bool,
) -> Result<(), CtlError> {
    let (address, leader) = if if_here { admins.here().await? } else { admins.leader().await? };
    if if_here && let Some(why) = stays(&leader) {
        return match output {
            Output::Text => Ok(print::text(&format!("{why}: nothing is handed over\n"))?),
            Output::Json => {
                Ok(print::json(&json!({ "leader_id": print::id(leader.leader_id), "term": leader.term }))?)
            }
        };
    }
    let current = configuration(&leader)?;
    let target = match member {
        Some(member) => goal::find(current, member).map_err(CtlError::Cluster)?.id,
        None => 0,
    };
    let mut client = admins.client(&address).await?;
    let request = TransferLeadershipRequest { cluster_id: leader.cluster_id, target };
    let new = call(&address, admins.timeout, client.transfer_leadership(request)).await?;
    match output {
        Output::Text => {
            let name = goal::describe(new.leader_id, current);
            print::text(&format!("{name} leads in term {}\n", new.term))?;
        }
        Output::Json => {
            print::json(&json!({ "leader_id": print::id(new.leader_id), "term": new.term }))?;
        }
    }
    Ok(())
}

/// Why there is nothing to hand over, if so.
fn stays(node: &StatusResponse) -> Option<&'static str> {
    let voters =
        node.configuration.as_ref().and_then(|c| c.configuration.as_ref()).map_or(0, |c| c.voters.len());
    if node.cluster_id == 0 || node.leader_id != node.member_id {
        Some("this member does not lead")
    } else if voters < 2 {
        Some("this member is the only voter")
    } else {
        None
    }
}

/// Goes step by step, saying what is waited for, until the goal is reached.
async fn pursue(admins: &Admins, output: Output, goal: &Goal, seconds: u64) -> Result<(), CtlError> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut said = String::new();
    loop {
        let reason = match admins.leader().await {
            Err(error) => format!("for a leader ({error})"),
            Ok((address, leader)) => match goal::next(goal, &leader) {
                Step::Done => return show(&leader, output),
                Step::Never(reason) => return Err(CtlError::Cluster(reason)),
                Step::Wait(reason) => reason,
                Step::HandOver => hand_over(admins, &address, &leader).await,
                Step::Change(wanted, what) => change(admins, &address, &leader, wanted, what).await?,
            },
        };
        if reason != said {
            print::progress(&format!("waiting {reason}"));
            said.clone_from(&reason);
        }
        if Instant::now() >= deadline {
            return Err(CtlError::TimedOut { seconds, reason });
        }
        sleep(INTERVAL).await;
    }
}

/// Asks for a configuration; returns what is waited for then. What may pass by itself is no error.
async fn change(
    admins: &Admins,
    address: &str,
    leader: &StatusResponse,
    wanted: Configuration,
    what: String,
) -> Result<String, CtlError> {
    // What is new tells itself what it supports.
    let current = configuration(leader)?;
    let mut levels = Vec::new();
    for member in wanted.members.iter().filter(|new| current.members.iter().all(|known| known.id != new.id)) {
        let StatusResponse { member_id, oldest_level, newest_level, .. } =
            admins.status(&member.peer_address).await?;
        levels.push(MemberLevels { member_id, oldest_level, newest_level });
    }
    let request = ChangeMembershipRequest {
        cluster_id: leader.cluster_id,
        expected: leader.configuration.as_ref().and_then(|c| c.id),
        wanted: Some(wanted),
        levels,
    };
    let mut client = match admins.client(address).await {
        Ok(client) => client,
        Err(CtlError::Unreachable(reason)) => return Ok(format!("for the leader: {reason}")),
        Err(error) => return Err(error),
    };
    match tokio::time::timeout(admins.timeout, client.change_membership(request)).await {
        Ok(Ok(_)) => {
            print::progress(&what);
            Ok("for the configuration to be committed".to_owned())
        }
        // It no longer leads, another change came first, or it is busy.
        Ok(Err(s)) if matches!(s.code(), Code::Aborted | Code::Unavailable | Code::FailedPrecondition) => {
            Ok(format!("before {what}: {}", s.message()))
        }
        Ok(Err(status)) => {
            Err(CtlError::Refused { endpoint: address.to_owned(), message: status.message().to_owned() })
        }
        Err(_) => Ok(format!("for an answer of the leader, at {address}")),
    }
}

/// Has the leader, which is to be removed, hand over; returns what is waited for then.
async fn hand_over(admins: &Admins, address: &str, leader: &StatusResponse) -> String {
    let request = TransferLeadershipRequest { cluster_id: leader.cluster_id, target: 0 };
    let handed = async {
        let mut client = admins.client(address).await?;
        call(address, admins.timeout, client.transfer_leadership(request)).await
    };
    match handed.await {
        Ok(new) => format!("for {} to lead, before the old leader is removed", print::id(new.leader_id)),
        Err(error) => format!("for the leader to hand over ({error})"),
    }
}

async fn resolve(admins: &Admins, member: &str) -> Result<u64, CtlError> {
    let (_, leader) = admins.leader().await?;
    goal::find(configuration(&leader)?, member).map(|m| m.id).map_err(CtlError::Cluster)
}

/// The newest configuration that a node knows.
pub(super) fn configuration(status: &StatusResponse) -> Result<&Configuration, CtlError> {
    let configuration = status.configuration.as_ref().and_then(|c| c.configuration.as_ref());
    configuration.ok_or_else(|| CtlError::Cluster("the node belongs to no cluster yet".to_owned()))
}

/// A member's part in a configuration.
pub(super) fn part(current: &Configuration, id: u64) -> &'static str {
    match (current.voters.contains(&id), current.outgoing.contains(&id)) {
        (true, _) => "voter",
        (false, true) => "leaving",
        (false, false) if current.learners.contains(&id) => "learner",
        (false, false) => "none",
    }
}

/// Shows a configuration as `status` tells it.
fn show(status: &StatusResponse, output: Output) -> Result<(), CtlError> {
    let current = configuration(status)?;
    if output == Output::Json {
        let members = current.members.iter().map(|member| {
            json!({
                "name": member.name,
                "id": print::id(member.id),
                "part": part(current, member.id),
                "leader": member.id == status.leader_id,
                "peer_address": member.peer_address,
                "client_urls": member.client_urls,
            })
        });
        let members: Vec<Value> = members.collect();
        print::json(&json!({
            "cluster_id": print::id(status.cluster_id),
            "joint": !current.outgoing.is_empty(),
            "members": members,
        }))?;
        return Ok(());
    }
    let rows: Vec<Vec<String>> = current
        .members
        .iter()
        .map(|member| {
            vec![
                member.name.clone(),
                print::id(member.id),
                part(current, member.id).to_owned(),
                member.peer_address.clone(),
                member.client_urls.join(","),
            ]
        })
        .collect();
    print::text(&print::table(&["NAME", "ID", "PART", "PEER ADDRESS", "CLIENT URLS"], &rows))?;
    Ok(())
}
