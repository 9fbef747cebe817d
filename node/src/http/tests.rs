//! What each path answers in each state of a node.

use std::sync::Arc;
use std::time::Duration;

use quorate_api::log;
use quorate_raft::{MemberId, Progress};

use super::*;
use crate::doors::health::{Health, STUCK};
use crate::doors::view::ConfigurationView;
use crate::http::Reading;
use crate::metrics::Metrics;

fn node(role: Role, leader: Option<u64>, unready: Option<Unready>) -> NodeStatus {
    let member = |id, name: &str| log::Member { id, name: name.to_owned(), ..log::Member::default() };
    let configuration = log::Configuration {
        voters: vec![1, 2, 3],
        members: vec![member(1, "n1"), member(2, "n2"), member(3, "n3")],
        ..log::Configuration::default()
    };
    let configuration = Some(ConfigurationView { configuration, ..ConfigurationView::default() });
    NodeStatus { member_id: 1, term: 7, role, leader, unready, configuration, ..NodeStatus::default() }
}

/// What a leader knows of the others: whether each has answered lately.
fn heard(second: bool, third: bool) -> Vec<Progress> {
    let member = |id, active| Progress {
        id: MemberId(id),
        matched: 1,
        active,
        caught_up: true,
        offered: None,
        lost: false,
    };
    vec![member(1, true), member(2, second), member(3, third)]
}

/// A node that serves, and whose loop has just moved.
fn shown(status: NodeStatus) -> Shown {
    let health = Health::default();
    let view = NodeView::new(status);
    let scrape = Scrape::default();
    scrape.shows(Metrics::default().registry(view.clone(), Vec::new(), None));
    health.shows(view);
    health.serves();
    health.moves();
    Shown { health, scrape: Arc::new(scrape), reading: Reading::of("/nowhere".into()) }
}

use crate::metrics::Scrape;

fn ask(shown: &Shown, path: &str, accept: &str) -> Answer {
    let uri = path.parse().unwrap();
    answer(&Asked { method: &Method::GET, uri: &uri, accept, progress: "starting: read 1 of 2 MiB" }, shown)
}

fn get(shown: &Shown, path: &str) -> (u16, String) {
    let answer = ask(shown, path, "");
    (answer.status.as_u16(), answer.body)
}

#[test]
fn a_leader_that_a_quorum_answers_leads() {
    let status = NodeStatus { progress: heard(true, false), ..node(Role::Leader, Some(1), None) };
    let node = shown(status);
    for path in ["/livez", "/startupz", "/readyz"] {
        assert_eq!(get(&node, path), (200, "ok\n".into()));
    }
    assert_eq!(get(&node, "/role"), (200, "leader\n".into()));
    assert_eq!(get(&node, "/leader"), (200, "n1 (0000000000000001) leads\n".into()));
    assert_eq!(get(&node, "/health"), (200, r#"{"health":"true","reason":""}"#.into()));
}

#[test]
fn node_whose_applier_is_stuck_does_not_live() {
    let node = shown(node(Role::Leader, Some(1), Some(Unready::AppliesNothing)));
    assert_eq!((get(&node, "/livez").0, get(&node, "/readyz")), (200, (503, "applies nothing\n".into())));
    node.health.applier_stands_still(STUCK + Duration::from_secs(3));
    let what = "the applier has made no step for 63 s, though entries wait for it\n";
    assert_eq!(get(&node, "/livez"), (503, what.into()));
}

#[test]
fn a_leader_that_no_quorum_answers_does_not_say_that_it_leads() {
    let status = NodeStatus { progress: heard(false, false), ..node(Role::Leader, Some(1), None) };
    assert_eq!(get(&shown(status), "/leader").0, 503);
}

#[test]
fn a_leader_whose_loop_has_not_begun_does_not_say_that_it_leads() {
    let status = NodeStatus { progress: heard(true, true), ..node(Role::Leader, Some(1), None) };
    let health = Health::default();
    health.shows(NodeView::new(status));
    let node = Shown { health, scrape: Arc::default(), reading: Reading::of("/nowhere".into()) };
    assert_eq!(get(&node, "/leader").0, 503);
}

#[test]
fn a_follower_says_who_leads_in_words_json_and_headers() {
    let node = shown(node(Role::Follower, Some(2), None));
    assert_eq!(get(&node, "/readyz").0, 200);
    assert_eq!(get(&node, "/role"), (200, "follower\n".into()));
    assert_eq!(get(&node, "/leader"), (503, "n2 (0000000000000002) leads\n".into()));
    for (path, code) in [("/leader", 503), ("/role", 200)] {
        let answer = ask(&node, path, "text/html;q=0.5, application/json");
        assert_eq!((answer.status.as_u16(), answer.content_type), (code, JSON));
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!((&body["role"], &body["term"]), (&"follower".into(), &7.into()));
        assert_eq!(body["leader"]["name"], "n2");
        assert_eq!(body["member"]["id"], "0000000000000001");
        let leader = answer.headers.iter().find(|(name, _)| *name == "quorate-leader");
        assert_eq!(leader.unwrap().1, "0000000000000002");
    }
}

#[test]
fn a_node_that_is_not_ready_says_why_and_how_far_it_is() {
    let candidate = shown(node(Role::Candidate, None, Some(Unready::NoLeader)));
    assert_eq!(get(&candidate, "/livez").0, 200);
    assert_eq!(get(&candidate, "/readyz"), (503, "no leader\n".into()));
    assert_eq!(get(&candidate, "/leader"), (503, "no leader is known\n".into()));
    assert_eq!(get(&candidate, "/health"), (503, r#"{"health":"false","reason":"RAFT NO LEADER"}"#.into()));
    let (code, body) = get(&candidate, "/readyz?verbose=1");
    assert_eq!(code, 503);
    assert!(body.starts_with("no leader\n") && body.contains("role: candidate\n"), "{body}");

    let full = NodeStatus { over_quota: true, ..node(Role::Follower, Some(2), None) };
    assert_eq!(get(&shown(full), "/health"), (503, r#"{"health":"false","reason":"ALARM NOSPACE"}"#.into()));

    let behind = shown(node(Role::Follower, Some(2), Some(Unready::CatchingUp)));
    behind.health.view().unwrap().publish_log(quorate_raft::LogId { term: 1, index: 90 }, 80);
    behind.health.view().unwrap().publish_applied(30, 1);
    assert!(get(&behind, "/readyz").1.contains("applied 30, 50 entries behind"));
    let status =
        NodeStatus { fetching: Some((3, 10)), ..node(Role::Learner, Some(2), Some(Unready::CatchingUp)) };
    assert!(get(&shown(status), "/readyz").1.contains("3 of 10 pieces"));

    let waiting = shown(node(Role::Waiting, None, Some(Unready::Waiting)));
    assert_eq!(get(&waiting, "/role"), (200, "waiting\n".into()));
    assert_eq!(get(&waiting, "/readyz").0, 503);
}

#[test]
fn a_process_that_reads_its_log_is_alive_and_neither_started_nor_ready() {
    let node =
        Shown { health: Health::default(), scrape: Arc::default(), reading: Reading::of("/nowhere".into()) };
    assert_eq!(get(&node, "/livez"), (200, "ok\n".into()));
    for path in ["/startupz", "/readyz"] {
        let (code, body) = get(&node, path);
        assert!(code == 503 && body.starts_with("starting: read"), "{code} {body}");
    }
    assert_eq!(get(&node, "/leader").0, 503);
    assert_eq!(get(&node, "/role"), (200, "waiting\n".into()));
    assert_eq!(get(&node, "/metrics").0, 503);
    assert_eq!(get(&node, "/health").0, 503);
}

#[test]
fn metrics_come_in_the_text_that_is_asked_for() {
    let node = shown(node(Role::Leader, Some(1), None));
    let plain = ask(&node, "/metrics", "text/plain;version=0.0.4");
    assert_eq!(plain.content_type, "text/plain; version=0.0.4; charset=utf-8");
    assert!(!plain.body.contains(" info\n") && !plain.body.contains("# EOF"), "{}", plain.body);
    assert!(plain.body.contains("# TYPE quorate_proposals_total counter\nquorate_proposals_total 0\n"));
    let open = ask(&node, "/metrics", "application/openmetrics-text; version=1.0.0,text/plain;q=0.5");
    assert!(open.content_type.starts_with("application/openmetrics-text"));
    assert!(open.body.ends_with("# EOF\n"));
}

#[test]
fn etcds_version_is_told() {
    let (code, body) = get(&shown(node(Role::Leader, Some(1), None)), "/version");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &body["etcdserver"]), (200, &"3.7.3".into()));
}

#[test]
fn other_requests_are_refused() {
    let node = shown(node(Role::Leader, Some(1), None));
    assert_eq!(get(&node, "/").0, 404);
    assert!(get(&node, "/healthz").1.contains("/readyz"));
    let uri = Uri::from_static("/readyz");
    let post = answer(&Asked { method: &Method::POST, uri: &uri, accept: "", progress: "" }, &node);
    assert_eq!(post.status, StatusCode::METHOD_NOT_ALLOWED);
}
