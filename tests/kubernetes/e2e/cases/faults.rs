//! Pods, machines and volumes that go.

use super::scene::{Scene, delete_pods, leader_and_others, name, status, wait_until};
use super::{Case, PLANNED, UNPLANNED};
use crate::kubectl::kubectl;
use crate::story::{NAMESPACE, ids, wait_until_ready_of};

pub(super) const CASES: &[Case] = &[
    Case::new("the_leaders_pod_is_deleted", 3, UNPLANNED, leader_deleted),
    Case::new("a_followers_pod_is_deleted", 3, UNPLANNED, follower_deleted),
    Case::new("two_of_five_pods_are_deleted_at_once", 5, UNPLANNED, two_deleted),
    Case::new("a_volume_is_deleted", 3, UNPLANNED, volume_deleted),
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
        wait_until_ready_of(super::scene::CLUSTER, 3)?;
    }
    Ok(3)
}
