//! A cluster for one case, with clients at work on it.

use std::time::Duration;

use quorate_crds::RaftClusterStatus;

use crate::kubectl::{apply, kubectl, wait_for};
use crate::member::{Pod, pod};
use crate::story::{self, LONG, NAMESPACE, SOON, TIMEOUT, brief, manifest, no_pods_of, status_of};
use crate::traffic::Traffic;

/// The cluster of whatever case runs.
pub(super) const CLUSTER: &str = "case";
/// What a case may add to the namespace goes with it by this label.
pub(super) const LABEL: (&str, &str) = ("quorate.dev/made-for", "case");

/// The cluster and its clients.
pub(super) struct Scene {
    traffic: Traffic,
}

impl Scene {
    /// A cluster of so many members, Ready and in use.
    pub(super) fn begin(members: u32) -> Result<Self, String> {
        clear()?;
        let spec = format!("{{replicas: {members}, storage: {{size: 1Gi}}, deletionPolicy: Delete}}");
        apply(&manifest(CLUSTER, &spec))?;
        ready(members)?;
        let names: Vec<_> = (0..members).map(name).collect();
        let traffic = Traffic::start(NAMESPACE, &names.iter().map(String::as_str).collect::<Vec<_>>())?;
        traffic.wait_for_answers(100, SOON)?;
        let mut scene = Self { traffic };
        // What it took until the ways in were open is none of the case.
        scene.longest_pause()?;
        Ok(scene)
    }

    /// Waits until it has so many voters, and nothing is left to do.
    #[allow(clippy::unused_self, reason = "it is of this cluster")]
    pub(super) fn until_ready(&self, members: u32) -> Result<(), String> {
        ready(members)
    }

    /// The longest time in which no write was acknowledged, since this was asked last.
    pub(super) fn longest_pause(&mut self) -> Result<Duration, String> {
        // A pause that lasts is over only when there is an answer again.
        self.traffic.wait_for_answers(self.traffic.answers() + 50, SOON)?;
        Ok(self.traffic.longest_pause())
    }

    /// Ends the clients, and checks that all they saw can be.
    pub(super) fn end(self) -> Result<(), String> {
        self.traffic.stop_and_check()
    }
}

fn ready(members: u32) -> Result<(), String> {
    story::wait_until_ready_of(CLUSTER, members as usize)
}

/// Takes away what a case has made.
pub(super) fn clear() -> Result<(), String> {
    let (key, value) = LABEL;
    let made = format!("{key}={value}");
    let in_namespace = ["--namespace", NAMESPACE, "--timeout", TIMEOUT];
    kubectl(&[&["delete", "resourcequotas", "--selector", &made], &in_namespace[..]].concat())?;
    kubectl(&[&["delete", "raftcluster", CLUSTER, "--ignore-not-found"], &in_namespace[..]].concat())?;
    wait_for("the end of its pods", LONG, || no_pods_of(CLUSTER))?;
    // Also those of members that were replaced, whose volumes are kept.
    let selector = format!("quorate.dev/cluster={CLUSTER}");
    kubectl(&[&["delete", "persistentvolumeclaims", "--selector", &selector], &in_namespace[..]].concat())
        .map(drop)
}

pub(super) fn name(ordinal: u32) -> String {
    format!("{CLUSTER}-{ordinal}")
}

pub(super) fn status() -> Result<RaftClusterStatus, String> {
    status_of(CLUSTER)
}

/// `kubectl patch`, merged as JSON.
pub(super) fn patch(change: &str) -> Result<(), String> {
    story::patch(CLUSTER, change)
}

/// The status, once it is so.
pub(super) fn wait_until(
    what: &str,
    holds: impl Fn(&RaftClusterStatus) -> bool,
) -> Result<RaftClusterStatus, String> {
    wait_for(what, LONG, || {
        let now = status()?;
        if holds(&now) { Ok(now) } else { Err(brief(&now)) }
    })
}

/// The ordinals of the leader and of all others, as the status has them.
pub(super) fn leader_and_others(members: u32) -> Result<(u32, Vec<u32>), String> {
    let leader = wait_until("a leader in the status", |now| now.leader.is_some())?.leader.unwrap_or_default();
    let at = (0..members).find(|&ordinal| name(ordinal) == leader);
    let at = at.ok_or_else(|| format!("{leader} leads, and is none of {members}"))?;
    Ok((at, (0..members).filter(|&ordinal| ordinal != at).collect()))
}

/// The pods of so many members.
pub(super) fn pods(members: u32) -> Result<Vec<Pod>, String> {
    (0..members).map(|ordinal| pod(NAMESPACE, &name(ordinal))).collect()
}

/// Deletes pods, as people do, and waits until others are in their place and ready.
pub(super) fn delete_pods(ordinals: &[u32]) -> Result<(), String> {
    let names: Vec<_> = ordinals.iter().map(|&ordinal| name(ordinal)).collect();
    let before: Vec<_> = names.iter().map(|name| pod(NAMESPACE, name)).collect::<Result<_, _>>()?;
    let mut delete = vec!["delete", "pod", "--namespace", NAMESPACE, "--wait=false"];
    delete.extend(names.iter().map(String::as_str));
    kubectl(&delete)?;
    for (name, old) in names.iter().zip(before) {
        wait_for("another pod in its place, and ready", LONG, || {
            let now = pod(NAMESPACE, name)?;
            if now.uid != old.uid && now.ready { Ok(()) } else { Err(format!("{name} is {now:?}")) }
        })?;
    }
    Ok(())
}

/// Waits until every pod has been replaced, and is ready.
pub(super) fn wait_until_replaced(before: &[Pod]) -> Result<(), String> {
    let members = u32::try_from(before.len()).map_err(|error| error.to_string())?;
    wait_for("other pods in the place of all", LONG, || {
        let now = pods(members)?;
        let all = now.iter().zip(before).all(|(now, before)| now.uid != before.uid && now.ready);
        if all { Ok(()) } else { Err(format!("they are {now:?}, and were {before:?}")) }
    })
}
