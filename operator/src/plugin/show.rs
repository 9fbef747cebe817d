//! A cluster as people read it. Pure.

use std::fmt::Write as _;

use kube::ResourceExt;
use quorate_crds::{RaftCluster, RaftClusterStatus};

/// The whole of it.
pub(super) fn status(cluster: &RaftCluster) -> String {
    let status = cluster.status.clone().unwrap_or_default();
    let mut text = String::new();
    let mut add = |about: &str, value: String| {
        let _ = writeln!(text, "{about:<10}{value}");
    };
    add("cluster", format!("{} in {}", cluster.name_any(), cluster.namespace().unwrap_or_default()));
    add("id", or_none(status.cluster_id.clone()));
    add("phase", status.phase.map_or_else(|| "none".to_owned(), |phase| format!("{phase:?}")));
    let term = status.term.map(|term| format!(" in term {term}")).unwrap_or_default();
    add("leader", format!("{}{term}", or_none(status.leader.clone())));
    add("voters", or_none(status.voters.clone()));
    add("version", or_none(status.version.clone()));
    text.push('\n');
    text.push_str(&members(&status));
    text.push_str(&troubles(&status));
    text.push('\n');
    text.push_str(&plan(cluster));
    text
}

/// What is done next.
pub(super) fn plan(cluster: &RaftCluster) -> String {
    let status = cluster.status.clone().unwrap_or_default();
    let Some(plan) = &status.plan else {
        return "nothing is to be done: the cluster is as the spec wants it\n".to_owned();
    };
    let mut text = format!("step      {}\nreason    {}\n", plan.step, plan.reason);
    if let Some(waits) = &plan.waiting_for {
        let _ = writeln!(text, "waits for {waits}");
    }
    text
}

fn members(status: &RaftClusterStatus) -> String {
    let row = |member: &quorate_crds::MemberStatus| {
        vec![
            member.pod.clone(),
            member.id.clone(),
            format!("{:?}", member.role),
            if member.healthy { "yes" } else { "no" }.to_owned(),
            or_none(member.volume.clone()),
        ]
    };
    table(&["POD", "MEMBER", "ROLE", "HEALTHY", "VOLUME"], status.members.iter().map(row).collect())
}

fn troubles(status: &RaftClusterStatus) -> String {
    if status.troubles.is_empty() {
        return String::new();
    }
    let row = |trouble: &quorate_crds::TroubleStatus| {
        vec![
            trouble.pod.clone(),
            trouble.cause.as_str().to_owned(),
            trouble.since.0.to_string(),
            trouble.message.clone(),
        ]
    };
    let rows = status.troubles.iter().map(row).collect();
    format!("\n{}", table(&["TROUBLE", "CAUSE", "SINCE", "MESSAGE"], rows))
}

/// Columns as wide as what is in them; nothing behind the last.
pub(super) fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let head = head.iter().map(|&name| name.to_owned()).collect();
    let all: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let width =
        |column: usize| all.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let mut text = String::new();
    for row in &all {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let _ = write!(line, "{cell:<wide$}", wide = width(column).unwrap_or_default() + 3);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn or_none(text: Option<String>) -> String {
    text.unwrap_or_else(|| "none".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_names_leader_members_troubles_and_the_plan() {
        let cluster: RaftCluster = serde_json::from_value(serde_json::json!({
            "apiVersion": "quorate.dev/v1alpha1", "kind": "RaftCluster",
            "metadata": {"name": "demo", "namespace": "shop"}, "spec": {},
            "status": {
                "clusterID": "00000000000000a1", "phase": "Degraded", "leader": "demo-0", "term": 7, "voters": "2/3",
                "members": [
                    {"ordinal": 0, "id": "000000000000000a", "role": "Leader", "pod": "demo-0", "healthy": true, "volume": "pv-0"},
                    {"ordinal": 1, "id": "000000000000000b", "role": "Voter", "pod": "demo-1", "healthy": false},
                ],
                "troubles": [{"pod": "demo-1", "cause": "Damaged", "message": "its log", "since": "2026-01-01T00:00:00Z"}],
                "plan": {"step": "ReplaceMember", "reason": "demo-1 is lost", "waitingFor": "it to come back"},
            },
        }))
        .expect("a cluster");
        let wanted = "\
cluster   demo in shop
id        00000000000000a1
phase     Degraded
leader    demo-0 in term 7
voters    2/3
version   none

POD      MEMBER             ROLE     HEALTHY   VOLUME
demo-0   000000000000000a   Leader   yes       pv-0
demo-1   000000000000000b   Voter    no        none

TROUBLE   CAUSE     SINCE                  MESSAGE
demo-1    Damaged   2026-01-01T00:00:00Z   its log

step      ReplaceMember
reason    demo-1 is lost
waits for it to come back
";
        assert_eq!(status(&cluster), wanted);
    }
}
