//! What each path answers, from what the view shows.

use std::fmt::Write as _;

use http::{Method, StatusCode, Uri};
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use crate::doors::view::{NodeStatus, NodeView, Role};

const TEXT: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PATHS: &str = "/livez /readyz /metrics /role /leader";

/// An answer, before it is HTTP.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Answer {
    /// A line of text.
    fn line(status: StatusCode, line: &str) -> Self {
        Self { status, content_type: TEXT, body: format!("{line}\n") }
    }
}

/// Answers a request.
pub(super) fn answer(method: &Method, uri: &Uri, view: &NodeView, registry: &Registry) -> Answer {
    if *method != Method::GET && *method != Method::HEAD {
        return Answer::line(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
    }
    let status = view.status();
    match uri.path() {
        "/livez" => Answer::line(StatusCode::OK, "ok"),
        "/readyz" if asks_for(uri, "verbose") => verbose(view, &status),
        "/readyz" => ready(&status),
        "/metrics" => metrics(registry),
        "/role" => Answer::line(StatusCode::OK, role_name(status.role)),
        "/leader" => leader(&status),
        path => Answer::line(StatusCode::NOT_FOUND, &format!("no {path} here; there are {PATHS}")),
    }
}

/// Whether the query has the flag, with or without a value.
fn asks_for(uri: &Uri, flag: &str) -> bool {
    let mut pairs = uri.query().unwrap_or_default().split('&');
    pairs.any(|pair| pair.split('=').next() == Some(flag))
}

fn ready(status: &NodeStatus) -> Answer {
    match status.unready {
        None => Answer::line(StatusCode::OK, "ok"),
        Some(why) => Answer::line(StatusCode::SERVICE_UNAVAILABLE, &why.to_string()),
    }
}

/// The same, with what it was judged from.
fn verbose(view: &NodeView, status: &NodeStatus) -> Answer {
    let mut answer = ready(status);
    let mut say = |name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(answer.body, "{name}: {value}");
    };
    say("cluster", &format_args!("{:016x}", status.cluster_id));
    say("member", &format_args!("{:016x} {}", status.member_id, status.name));
    say("role", &role_name(status.role));
    say("term", &status.term);
    say("leader", &describe_leader(status));
    say("log", &format_args!("ends at {}", view.last_index()));
    say("commit", &view.commit_index());
    say("applied", &view.applied_index());
    answer
}

fn metrics(registry: &Registry) -> Answer {
    let mut body = String::new();
    match text::encode(&mut body, registry) {
        Ok(()) => Answer { status: StatusCode::OK, content_type: OPEN_METRICS, body },
        Err(_) => Answer::line(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written"),
    }
}

fn leader(status: &NodeStatus) -> Answer {
    let leads = status.role == Role::Leader;
    let code = if leads { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Answer::line(code, &describe_leader(status))
}

fn describe_leader(status: &NodeStatus) -> String {
    match (status.leader, status.leader_member()) {
        (None, _) => "no leader is known".to_owned(),
        (Some(id), Some(member)) if !member.name.is_empty() => format!("{} ({id:016x}) leads", member.name),
        (Some(id), _) => format!("{id:016x} leads"),
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Waiting => "waiting",
        Role::Learner => "learner",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
        Role::Removed => "removed",
    }
}

#[cfg(test)]
mod tests {
    use quorate_api::log;

    use super::*;
    use crate::doors::view::{ConfigurationView, Unready};
    use crate::metrics::Metrics;

    fn node(role: Role, leader: Option<u64>, unready: Option<Unready>) -> NodeView {
        let member = |id, name: &str| log::Member { id, name: name.to_owned(), ..log::Member::default() };
        let configuration = log::Configuration {
            voters: vec![1, 2],
            members: vec![member(1, "n1"), member(2, "n2")],
            ..log::Configuration::default()
        };
        let configuration = Some(ConfigurationView { configuration, ..ConfigurationView::default() });
        NodeView::new(NodeStatus {
            member_id: 1,
            role,
            leader,
            unready,
            configuration,
            ..NodeStatus::default()
        })
    }

    fn get(view: &NodeView, path: &str) -> (u16, String) {
        let registry = Metrics::default().registry(view.clone());
        let answer = answer(&Method::GET, &path.parse().unwrap(), view, &registry);
        (answer.status.as_u16(), answer.body)
    }

    #[test]
    fn the_leader_is_ready_and_leads() {
        let view = node(Role::Leader, Some(1), None);
        assert_eq!(get(&view, "/livez"), (200, "ok\n".into()));
        assert_eq!(get(&view, "/readyz"), (200, "ok\n".into()));
        assert_eq!(get(&view, "/role"), (200, "leader\n".into()));
        assert_eq!(get(&view, "/leader"), (200, "n1 (0000000000000001) leads\n".into()));
        assert!(get(&view, "/metrics").1.ends_with("# EOF\n"));
    }

    #[test]
    fn a_follower_says_who_leads() {
        let view = node(Role::Follower, Some(2), None);
        assert_eq!(get(&view, "/readyz").0, 200);
        assert_eq!(get(&view, "/role"), (200, "follower\n".into()));
        assert_eq!(get(&view, "/leader"), (503, "n2 (0000000000000002) leads\n".into()));
    }

    #[test]
    fn who_is_not_ready_says_why() {
        let view = node(Role::Candidate, None, Some(Unready::NoLeader));
        assert_eq!(get(&view, "/livez").0, 200);
        assert_eq!(get(&view, "/readyz"), (503, "no leader\n".into()));
        assert_eq!(get(&view, "/leader"), (503, "no leader is known\n".into()));
        let (code, body) = get(&view, "/readyz?verbose=1");
        assert_eq!(code, 503);
        assert!(body.starts_with("no leader\n") && body.contains("role: candidate\n"), "{body}");
        let waiting = node(Role::Waiting, None, Some(Unready::Waiting));
        assert_eq!(get(&waiting, "/role"), (200, "waiting\n".into()));
        assert_eq!(get(&waiting, "/readyz").0, 503);
    }

    #[test]
    fn other_requests_are_refused() {
        let view = node(Role::Leader, Some(1), None);
        assert_eq!(get(&view, "/").0, 404);
        assert!(get(&view, "/healthz").1.contains("/readyz"));
        let registry = Metrics::default().registry(view.clone());
        let post = answer(&Method::POST, &Uri::from_static("/readyz"), &view, &registry);
        assert_eq!(post.status, StatusCode::METHOD_NOT_ALLOWED);
    }
}
