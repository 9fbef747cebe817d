//! The state of the whole cluster: what the leader knows of each member, beside what each says of itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use futures::future::join_all;
use quorate_api::admin::{Progress, Role, StatusResponse};
use quorate_api::log::Configuration;
use serde_json::{Value, json};

use super::connect::Admins;
use super::{CtlError, Output, membership, print};

/// One line.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    name: String,
    id: u64,
    /// What it says of itself; else what it is in the configuration.
    role: String,
    address: String,
    term: Option<u64>,
    /// What is durable there, as the leader knows.
    matched: Option<u64>,
    applied: Option<u64>,
    /// How many entries of the leader's log it does not have.
    lag: Option<u64>,
    /// Its version, and the levels of it and of its state.
    build: Option<Build>,
    /// The most bytes that the state may take for it.
    quota: Option<u64>,
    /// Why it does not answer.
    silent: Option<String>,
    /// What is wrong with what its disk holds, or with its identity.
    trouble: Option<String>,
}

/// What a node says of its build.
#[derive(Debug, Clone, PartialEq)]
struct Build {
    version: String,
    level: u32,
    oldest: u32,
    newest: u32,
}

impl Build {
    /// The level of the state, and what is supported beyond it.
    fn levels(&self) -> String {
        let Self { level, newest, .. } = self;
        match level {
            0 => format!("- (up to {newest})"),
            level if level == newest => level.to_string(),
            level => format!("{level} (up to {newest})"),
        }
    }
}

/// Shows every member. An error when there is no leader, after what is known has been shown.
pub(super) async fn status(admins: &Admins, output: Output) -> Result<(), CtlError> {
    let (endpoint, first) = admins.any().await?;
    let leader = match admins.leader().await {
        Ok((_, leader)) => Some(leader),
        Err(_) if first.cluster_id == 0 => None,
        Err(error) => {
            print::progress(&error.to_string());
            None
        }
    };
    let source = leader.as_ref().unwrap_or(&first);
    let current = membership::configuration(source).cloned().unwrap_or_default();

    // The members, and the endpoints that were given: a node that waits is in no configuration.
    let known = current.members.iter().map(|member| member.peer_address.clone());
    let mut addresses: Vec<String> =
        known.chain(admins.endpoints.iter().cloned()).chain([endpoint]).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let answers =
        join_all(addresses.iter().map(async |address| (address, admins.status(address).await))).await;

    let rows = rows(
        &current,
        leader.as_ref(),
        answers.iter().map(|(at, answer)| (at.as_str(), answer.as_ref().map_err(ToString::to_string))),
    );
    match output {
        Output::Text => print::text(&text(source, &current, &rows))?,
        Output::Json => print::json(&json(source, &current, &rows))?,
    }
    if leader.is_none() && source.cluster_id != 0 {
        return Err(CtlError::Cluster("the cluster has no leader".to_owned()));
    }
    Ok(())
}

/// The members of the configuration, and then whoever else answers.
fn rows<'a>(
    current: &Configuration,
    leader: Option<&StatusResponse>,
    answers: impl Iterator<Item = (&'a str, Result<&'a StatusResponse, String>)>,
) -> Vec<Row> {
    let mut said: BTreeMap<u64, &StatusResponse> = BTreeMap::new();
    let mut silent: BTreeMap<&str, String> = BTreeMap::new();
    for (address, answer) in answers {
        match answer {
            Ok(status) => _ = said.insert(status.member_id, status),
            Err(reason) => _ = silent.insert(address, reason),
        }
    }
    let mut rows: Vec<Row> = Vec::new();
    for member in &current.members {
        let own = said.remove(&member.id);
        let progress = leader.and_then(|l| l.progress.iter().find(|p| p.member_id == member.id));
        rows.push(Row {
            name: member.name.clone(),
            address: member.peer_address.clone(),
            role: own.map_or_else(|| membership::part(current, member.id).to_owned(), role),
            silent: own.is_none().then(|| {
                silent
                    .get(member.peer_address.as_str())
                    .cloned()
                    .unwrap_or_else(|| format!("another node answers at {}", member.peer_address))
            }),
            ..row(member.id, own, progress, leader)
        });
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows.extend(said.values().map(|own| Row {
        name: own.name.clone(),
        address: own.peer_address.clone(),
        role: role(own),
        ..row(own.member_id, Some(own), None, leader)
    }));
    rows
}

fn row(
    id: u64,
    own: Option<&StatusResponse>,
    progress: Option<&Progress>,
    leader: Option<&StatusResponse>,
) -> Row {
    let matched = progress.map(|progress| progress.r#match);
    Row {
        name: String::new(),
        id,
        role: String::new(),
        address: String::new(),
        term: own.map(|own| own.term),
        matched,
        applied: own.map(|own| own.applied_index),
        lag: leader.zip(matched).map(|(leader, matched)| leader.last_index.saturating_sub(matched)),
        build: own.map(|own| Build {
            version: own.version.clone(),
            level: own.level,
            oldest: own.oldest_level,
            newest: own.newest_level,
        }),
        quota: own.and_then(|own| own.quota_bytes),
        silent: None,
        trouble: trouble(own, progress),
    }
}

/// As the member says itself, or else the leader.
fn trouble(own: Option<&StatusResponse>, progress: Option<&Progress>) -> Option<String> {
    match own {
        Some(StatusResponse { corrupt: Some(corrupt), .. }) => Some(format!(
            "its state differs from that of a majority at entry {}: it serves and leads nothing. Remove it, and start a new member with an empty \
             data directory",
            corrupt.index
        )),
        Some(own) if own.divided_at > 0 => Some(format!(
            "the voters hold different states at entry {}, and no majority the same: nothing is written. Remove those whose state is not to be \
             kept",
            own.divided_at
        )),
        Some(own) if !own.conflict.is_empty() => Some(own.conflict.clone()),
        Some(own) if own.repairing => Some(
            "lacks entries that it has acknowledged, and has no vote until the leader has sent them again"
                .into(),
        ),
        _ => progress
            .is_some_and(|progress| progress.lost)
            .then(|| "lacks entries that it has acknowledged".into()),
    }
}

fn role(status: &StatusResponse) -> String {
    Role::try_from(status.role).map_or("unknown", |role| role.as_str_name()).to_lowercase()
}

fn text(source: &StatusResponse, current: &Configuration, rows: &[Row]) -> String {
    let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                row.name.clone(),
                print::id(row.id),
                row.role.clone(),
                number(row.term),
                number(row.matched),
                number(row.applied),
                number(row.lag),
                row.build.as_ref().map_or_else(|| "-".to_owned(), |build| build.version.clone()),
                row.build.as_ref().map_or_else(|| "-".to_owned(), Build::levels),
                row.silent
                    .as_ref()
                    .map_or_else(|| row.address.clone(), |_| format!("{} (silent)", row.address)),
            ]
        })
        .collect();
    let mut text = if source.cluster_id == 0 {
        "no cluster: the node waits to be bootstrapped or added\n".to_owned()
    } else {
        let joint = if current.outgoing.is_empty() {
            String::new()
        } else {
            format!(", changing from {}", current.outgoing.len())
        };
        let (voters, learners) = (current.voters.len(), current.learners.len());
        let cluster = print::id(source.cluster_id);
        format!(
            "cluster {cluster}, level {}, term {}, {voters} voters{joint}, {learners} learners, committed up to {}\n",
            source.level, source.term, source.commit_index
        )
    };
    text.push_str(&quota(source, rows));
    let head = ["NAME", "ID", "ROLE", "TERM", "MATCH", "APPLIED", "LAG", "VERSION", "LEVEL", "ADDRESS"];
    text.push_str(&print::table(&head, &cells));
    for row in rows {
        if let Some(reason) = &row.silent {
            let _ = writeln!(text, "{}: {reason}", row.name);
        }
        if let Some(trouble) = &row.trouble {
            let _ = writeln!(text, "{}: {trouble}", row.name);
        }
    }
    text
}

/// What the state takes, of what the member with the smallest quota allows. A line, if there is a quota.
fn quota(source: &StatusResponse, rows: &[Row]) -> String {
    let smallest = rows.iter().filter_map(|row| Some((row.quota?, &row.name))).min();
    let Some((quota, name)) = smallest.filter(|_| source.cluster_id != 0) else { return String::new() };
    let takes =
        format!("state {} of the {} bytes that {name} allows (--quota-bytes)", source.state_bytes, quota);
    if source.over_quota {
        return format!("{takes}: NOSPACE, puts are refused: delete, compact, and `etcdctl alarm disarm`\n");
    }
    takes + "\n"
}

fn json(source: &StatusResponse, current: &Configuration, rows: &[Row]) -> Value {
    let members = rows.iter().map(|row| {
        json!({
            "name": row.name,
            "id": print::id(row.id),
            "role": row.role,
            "part": membership::part(current, row.id),
            "address": row.address,
            "term": row.term,
            "match": row.matched,
            "applied": row.applied,
            "lag": row.lag,
            "version": row.build.as_ref().map(|build| &build.version),
            "level": row.build.as_ref().map(|build| build.level),
            "oldest_level": row.build.as_ref().map(|build| build.oldest),
            "newest_level": row.build.as_ref().map(|build| build.newest),
            "quota_bytes": row.quota,
            "error": row.silent,
            "trouble": row.trouble,
        })
    });
    let members: Vec<Value> = members.collect();
    json!({
        "cluster_id": print::id(source.cluster_id),
        "leader_id": (source.leader_id != 0).then(|| print::id(source.leader_id)),
        "term": source.term,
        "level": source.level,
        "commit": source.commit_index,
        "state_bytes": source.state_bytes,
        "over_quota": source.over_quota,
        "joint": !current.outgoing.is_empty(),
        "members": members,
    })
}

#[cfg(test)]
mod tests {
    use quorate_api::log::Member;

    use super::*;

    #[test]
    fn the_leaders_view_is_joined_with_each_members_own() {
        let member = |id: u64| Member {
            id,
            name: format!("n{id}"),
            peer_address: format!("n{id}:1"),
            ..Default::default()
        };
        let current = Configuration {
            voters: vec![1, 2],
            learners: vec![3],
            members: vec![member(1), member(2), member(3)],
            ..Default::default()
        };
        let of = |id: u64, role: Role, applied| StatusResponse {
            member_id: id,
            name: format!("n{id}"),
            role: role.into(),
            quota_bytes: Some(100 * id),
            state_bytes: 70,
            term: 4,
            applied_index: applied,
            ..Default::default()
        };
        let progress = |id, matched| Progress {
            member_id: id,
            r#match: matched,
            active: true,
            caught_up: false,
            lost: false,
        };
        let leader = StatusResponse {
            cluster_id: 9,
            leader_id: 1,
            last_index: 10,
            progress: vec![progress(1, 10), progress(2, 7), progress(3, 2)],
            ..of(1, Role::Leader, 9)
        };
        let (follower, waiting) = (of(2, Role::Follower, 6), of(8, Role::Waiting, 0));
        let answers = [
            ("n1:1", Ok(&leader)),
            ("n2:1", Ok(&follower)),
            ("n3:1", Err("no answer".to_owned())),
            ("x:1", Ok(&waiting)),
        ];
        let rows = rows(&current, Some(&leader), answers.into_iter());
        let shown: Vec<_> = rows
            .iter()
            .map(|r| (r.name.as_str(), r.role.as_str(), r.term, r.matched, r.applied, r.lag))
            .collect();
        assert_eq!(
            shown,
            [
                ("n1", "leader", Some(4), Some(10), Some(9), Some(0)),
                ("n2", "follower", Some(4), Some(7), Some(6), Some(3)),
                ("n3", "learner", None, Some(2), None, Some(8)),
                ("n8", "waiting", Some(4), None, Some(0), None),
            ]
        );
        let text = text(&leader, &current, &rows);
        assert!(
            text.starts_with("cluster 0000000000000009, level 0, term 4, 2 voters, 1 learners"),
            "{text}"
        );
        assert!(text.contains("\nstate 70 of the 100 bytes that n1 allows (--quota-bytes)\n"), "{text}");
        let full = StatusResponse { over_quota: true, ..leader.clone() };
        assert!(quota(&full, &rows).contains("NOSPACE, puts are refused: delete, compact"));
        assert!(text.contains("n3:1 (silent)") && text.ends_with("n3: no answer\n"), "{text}");
        assert_eq!(json(&leader, &current, &rows)["members"][1]["lag"], 3);
    }
}
