//! Pods, machines and volumes that go.

use std::process::Command;

use quorate_crds::{Cause, TroubleStatus};

use super::scene::{CLUSTER, Scene, delete_pods, leader_and_others, name, status, wait_until};
use super::{Case, PLANNED, UNPLANNED};
use crate::kubectl::kubectl;
use crate::story::{NAMESPACE, ids, wait_until_ready_of};

pub(super) const CASES: &[Case] = &[
    Case::new("the_leaders_pod_is_deleted", 3, UNPLANNED, leader_deleted),
    Case::new("a_followers_pod_is_deleted", 3, UNPLANNED, follower_deleted),
    Case::new("two_of_five_pods_are_deleted_at_once", 5, UNPLANNED, two_deleted),
    Case::new("a_volume_is_deleted", 3, UNPLANNED, volume_deleted),
    Case::new("a_followers_machine_is_cut_off", 3, UNPLANNED, follower_cut_off).local(),
    Case::new("the_leaders_machine_is_cut_off", 3, UNPLANNED, leader_cut_off).local(),
    Case::new("all_machines_are_drained_one_after_the_other", 3, PLANNED, drained).local(),
];

fn leader_deleted(_: &mut Scene) -> Result<u32, String> {
    let (leader, _) = leader_and_others(3)?;
    delete_pods(&[leader])?;
    Ok(3)
}

fn follower_deleted(_: &mut Scene) -> Result<u32, String> {
    let (_, others) = leader_and_others(3)?;
    delete_pods(&others[..1])?;
    Ok(3)
}

/// The leader and another one: the three that are left elect.
fn two_deleted(_: &mut Scene) -> Result<u32, String> {
    let (leader, others) = leader_and_others(5)?;
    delete_pods(&[leader, others[0]])?;
    Ok(5)
}

fn volume_deleted(_: &mut Scene) -> Result<u32, String> {
    let (_, others) = leader_and_others(3)?;
    let (lost, before) = (others[0], ids(&status()?));
    let claim = format!("data-{}", name(lost));
    kubectl(&["delete", "persistentvolumeclaim", &claim, "--namespace", NAMESPACE, "--wait=false"])?;
    kubectl(&["delete", "pod", &name(lost), "--namespace", NAMESPACE])?;
    let at = i32::try_from(lost).map_err(|error| error.to_string())?;
    wait_until("another member in its place", |now| {
        let now = ids(now);
        now.len() == 3 && now.get(&at).is_some_and(|id| Some(id) != before.get(&at))
    })?;
    Ok(3)
}

/// Only this cluster's pods are asked to go; all else on the machine stays.
fn drained(_: &mut Scene) -> Result<u32, String> {
    let machines = kubectl(&["get", "nodes", "--output", "jsonpath={.items[*].metadata.name}"])?;
    for machine in machines.split_whitespace() {
        let drain = ["drain", machine, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout", "5m"];
        let drained = kubectl(&[&drain[..], &["--pod-selector", "quorate.dev/cluster=case"]].concat());
        // Whatever came of it, the machine takes pods again.
        kubectl(&["uncordon", machine])?;
        drained?;
        wait_until_ready_of(CLUSTER, 3)?;
    }
    Ok(3)
}

fn follower_cut_off(_: &mut Scene) -> Result<u32, String> {
    let (_, others) = leader_and_others(3)?;
    cut_off(others[0])
}

fn leader_cut_off(_: &mut Scene) -> Result<u32, String> {
    let (leader, _) = leader_and_others(3)?;
    cut_off(leader)
}

/// The network of a pod's machine goes until the operator has named it, and comes back.
fn cut_off(ordinal: u32) -> Result<u32, String> {
    let pod = name(ordinal);
    let get = ["get", "pod", &pod, "--namespace", NAMESPACE, "--output", "jsonpath={.spec.nodeName}"];
    let machine = kubectl(&get)?;
    // They are called node1, node2 and so on.
    let number = machine.trim_start_matches(|letter: char| !letter.is_ascii_digit());
    local("node-down", number)?;
    let named = wait_until("the name of the machine that is away", |now| {
        let away = |trouble: &TroubleStatus| trouble.pod == pod && trouble.cause == Cause::NodeAway;
        now.troubles.iter().any(|trouble| away(trouble) && trouble.message.contains(&machine))
    });
    // Whatever was seen, the next case needs it.
    local("node-up", number)?;
    named.map(|_| 3)
}

/// A command of the local Kubernetes.
fn local(command: &str, argument: &str) -> Result<(), String> {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/kubernetes/cluster");
    let done = Command::new(program).args([command, argument]).output();
    let done = done.map_err(|error| format!("cannot run {program}: {error}"))?;
    let said = String::from_utf8_lossy(&done.stderr);
    if done.status.success() { Ok(()) } else { Err(format!("{program} {command} {argument}: {said}")) }
}
