//! Who leads, for programs beside the node: those that must run once in a cluster, and load balancers.

use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{Answer, Asked, JSON, role_name};
use crate::doors::health::Health;
use crate::doors::view::{NodeStatus, Role};

/// How long the loop of a leader may stand still before `/leader` no longer believes what it said last: the others may have another by
/// then. The shortest election takes half a second.
const STALE_MILLIS: u128 = 400;

/// `/role`.
pub(super) fn role(asked: &Asked<'_>, health: &Health) -> Answer {
    let Some(view) = health.view() else {
        return Answer::line(StatusCode::OK, role_name(Role::Waiting));
    };
    let status = view.status();
    present(asked, &status, StatusCode::OK, role_name(status.role))
}

/// `/leader`.
pub(super) fn leader(asked: &Asked<'_>, health: &Health) -> Answer {
    let Some(view) = health.view() else {
        return Answer::line(StatusCode::SERVICE_UNAVAILABLE, "no leader is known");
    };
    let status = view.status();
    let is_fresh = health.still_for().is_some_and(|still| still.as_millis() < STALE_MILLIS);
    let leads = status.role == Role::Leader && is_fresh && is_heard_by_a_quorum(&status);
    let code = if leads { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    present(asked, &status, code, &describe(&status))
}

/// Whether a quorum has answered this leader within the last rounds, as far as it has published.
fn is_heard_by_a_quorum(status: &NodeStatus) -> bool {
    let Some(view) = &status.configuration else { return false };
    let active = |id: &u64| status.progress.iter().any(|member| member.id.0 == *id && member.active);
    let majority = |voters: &[u64]| {
        voters.is_empty() || voters.iter().filter(|id| active(id)).count() > voters.len() / 2
    };
    majority(&view.configuration.voters) && majority(&view.configuration.outgoing)
}

fn present(asked: &Asked<'_>, status: &NodeStatus, code: StatusCode, line: &str) -> Answer {
    let mut answer = if asked.accepts(JSON) {
        Answer::new(code, JSON, fields(status).to_string())
    } else {
        Answer::line(code, line)
    };
    answer.headers = vec![
        ("quorate-role", role_name(status.role).to_owned()),
        ("quorate-term", status.term.to_string()),
        ("quorate-leader", status.leader.map(hex).unwrap_or_default()),
        ("quorate-member", hex(status.member_id)),
    ];
    answer
}

fn fields(status: &NodeStatus) -> Value {
    let leader = status.leader_member();
    json!({
        "cluster": hex(status.cluster_id),
        "member": { "id": hex(status.member_id), "name": status.name },
        "role": role_name(status.role),
        "term": status.term,
        "leader": status.leader.map(|id| json!({
            "id": hex(id),
            "name": leader.map(|member| member.name.as_str()),
            "client_urls": leader.map(|member| member.client_urls.as_slice()),
        })),
    })
}

fn hex(id: u64) -> String {
    format!("{id:016x}")
}

/// Who leads, in words.
pub(super) fn describe(status: &NodeStatus) -> String {
    match (status.leader, status.leader_member()) {
        (None, _) => "no leader is known".to_owned(),
        (Some(id), Some(member)) if !member.name.is_empty() => format!("{} ({id:016x}) leads", member.name),
        (Some(id), _) => format!("{id:016x} leads"),
    }
}
