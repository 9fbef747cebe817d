//! What each path answers, from what the node shows.

use std::fmt::Write as _;

use http::{Method, StatusCode, Uri};

use super::{Shown, etcd, leadership, scrape};
use crate::doors::view::{NodeStatus, NodeView, Role, Unready};

const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const JSON: &str = "application/json";
const PATHS: &str = "/livez /startupz /readyz /health /version /metrics /role /leader";

/// What was asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    /// All of what `Accept` said, or nothing.
    pub(super) accept: &'a str,
    /// How far the node is, while it starts.
    pub(super) progress: &'a str,
}

impl Asked<'_> {
    /// Whether the client names this media type.
    pub(super) fn accepts(&self, media_type: &str) -> bool {
        let mut types = self.accept.split(',').filter_map(|range| range.split(';').next());
        types.any(|range| range.trim().eq_ignore_ascii_case(media_type))
    }

    /// Whether the query has the flag, with or without a value.
    fn has(&self, flag: &str) -> bool {
        let mut pairs = self.uri.query().unwrap_or_default().split('&');
        pairs.any(|pair| pair.split('=').next() == Some(flag))
    }
}

/// An answer, before it is HTTP.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    pub(super) body: String,
    pub(super) headers: Vec<(&'static str, String)>,
}

impl Answer {
    pub(super) fn new(status: StatusCode, content_type: &'static str, body: String) -> Self {
        Self { status, content_type, body, headers: Vec::new() }
    }

    /// A line of text.
    pub(super) fn line(status: StatusCode, line: &str) -> Self {
        Self::new(status, TEXT, format!("{line}\n"))
    }

    fn unavailable(line: &str) -> Self {
        Self::line(StatusCode::SERVICE_UNAVAILABLE, line)
    }
}

/// Answers a request.
pub(super) fn answer(asked: &Asked<'_>, shown: &Shown) -> Answer {
    if *asked.method != Method::GET && *asked.method != Method::HEAD {
        return Answer::line(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
    }
    match asked.uri.path() {
        "/livez" => live(shown),
        "/startupz" => started(shown, asked.progress),
        "/readyz" => ready(shown, asked),
        "/health" => etcd::health(&shown.health),
        "/version" => etcd::version(),
        "/metrics" => scrape::metrics(asked, &shown.scrape),
        "/role" => leadership::role(asked, &shown.health),
        "/leader" => leadership::leader(asked, &shown.health),
        path => Answer::line(StatusCode::NOT_FOUND, &format!("no {path} here; there are {PATHS}")),
    }
}

fn live(shown: &Shown) -> Answer {
    match shown.health.still_for() {
        Some(still) if shown.health.stands_still() => {
            return Answer::unavailable(&format!("the loop has not moved for {} s", still.as_secs()));
        }
        _ => {}
    }
    match shown.health.applier_stuck_for() {
        Some(still) => {
            let what =
                format!("the applier has made no step for {} s, though entries wait for it", still.as_secs());
            Answer::unavailable(&what)
        }
        None => Answer::line(StatusCode::OK, "ok"),
    }
}

fn started(shown: &Shown, progress: &str) -> Answer {
    if shown.health.has_started() {
        return Answer::line(StatusCode::OK, "ok");
    }
    Answer::unavailable(progress)
}

fn ready(shown: &Shown, asked: &Asked<'_>) -> Answer {
    let Some(view) = shown.health.view() else {
        return Answer::unavailable(asked.progress);
    };
    let status = view.status();
    let mut answer = match status.unready {
        None if shown.health.stands_still() => Answer::unavailable("the loop stands still"),
        None => Answer::line(StatusCode::OK, "ok"),
        Some(why) => Answer::unavailable(&describe(why, &status, view)),
    };
    if asked.has("verbose") {
        details(&mut answer.body, view, &status);
    }
    answer
}

/// Why the node is not ready, and if it is getting there, how far it is.
fn describe(why: Unready, status: &NodeStatus, view: &NodeView) -> String {
    if why != Unready::CatchingUp {
        return why.to_string();
    }
    if let Some((fetched, pieces)) = status.fetching {
        return format!("{why}: {fetched} of {pieces} pieces of a snapshot have come");
    }
    let behind = view.commit_index().saturating_sub(view.applied_index());
    format!("{why}: applied {}, {behind} entries behind what it knows to be committed", view.applied_index())
}

/// What readiness was judged from.
fn details(body: &mut String, view: &NodeView, status: &NodeStatus) {
    let mut say = |name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(body, "{name}: {value}");
    };
    say("cluster", &format_args!("{:016x}", status.cluster_id));
    say("member", &format_args!("{:016x} {}", status.member_id, status.name));
    say("role", &role_name(status.role));
    say("term", &status.term);
    say("leader", &leadership::describe(status));
    say("log", &format_args!("ends at {}", view.last_index()));
    say("commit", &view.commit_index());
    say("applied", &view.applied_index());
}

pub(super) fn role_name(role: Role) -> &'static str {
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
#[path = "tests.rs"]
mod tests;
