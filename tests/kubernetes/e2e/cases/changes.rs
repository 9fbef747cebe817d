//! More members and fewer, and whoever gets into the way of that.

use super::scene::{CLUSTER, LABEL, Scene, patch, wait_until};
use super::{Case, PLANNED};
use crate::kubectl::{apply, kubectl};
use crate::story::{NAMESPACE, OPERATOR_NAMESPACE, Story};

pub(super) const CASES: &[Case] = &[
    Case::new("one_becomes_three", 1, PLANNED, |_| to(3)),
    Case::new("three_become_five", 3, PLANNED, |_| to(5)),
    Case::new("five_become_three", 5, PLANNED, |_| to(3)),
    Case::new("three_become_one", 3, PLANNED, |_| to(1)),
    Case::new("three_become_seven_in_one_change", 3, PLANNED, |_| to(7)),
    Case::new("a_wish_is_changed_in_the_middle", 3, PLANNED, changed_in_the_middle),
    Case::new("a_wish_that_has_no_room_is_taken_back", 3, PLANNED, no_room),
    Case::new("the_operator_is_killed_in_a_change", 3, PLANNED, operator_killed),
    Case::new("helm_upgrades_the_operator_in_a_change", 3, PLANNED, operator_upgraded),
];

fn to(members: u32) -> Result<u32, String> {
    patch(&format!(r#"{{"spec": {{"replicas": {members}}}}}"#))?;
    Ok(members)
}

/// New members are there, and none of them votes yet, or some do.
fn until_it_grows() -> Result<(), String> {
    wait_until("a fourth member", |now| now.members.len() > 3).map(drop)
}

fn changed_in_the_middle(_: &mut Scene) -> Result<u32, String> {
    to(5)?;
    until_it_grows()?;
    to(3)
}

fn no_room(_: &mut Scene) -> Result<u32, String> {
    let (key, value) = LABEL;
    apply(&format!(
        "{{apiVersion: v1, kind: ResourceQuota, metadata: {{name: {CLUSTER}, namespace: {NAMESPACE}, labels: {{{key}: {value}}}}}, \
         spec: {{hard: {{pods: \"3\"}}}}}}"
    ))?;
    to(5)?;
    wait_until("the word of the quota", |now| {
        now.troubles
            .iter()
            .any(|trouble| trouble.cause.as_str() == "Refused" && trouble.message.contains("quota"))
    })?;
    to(3)
}

fn operator_killed(_: &mut Scene) -> Result<u32, String> {
    to(5)?;
    until_it_grows()?;
    let operators =
        ["--namespace", OPERATOR_NAMESPACE, "--selector", "app.kubernetes.io/name=quorate-operator"];
    kubectl(&[&["delete", "pods", "--grace-period", "0", "--force"], &operators[..]].concat())?;
    Ok(5)
}

fn operator_upgraded(_: &mut Scene) -> Result<u32, String> {
    to(5)?;
    until_it_grows()?;
    // Another template of the operator's pods.
    Story::install_with(&["operator.log=debug".to_owned()])?;
    Ok(5)
}
