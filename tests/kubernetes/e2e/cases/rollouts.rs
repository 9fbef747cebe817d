//! Other pods of the same members: rollouts that are good, broken, taken back and paused; sleep; certificates.

use quorate_crds::Phase;

use super::scene::{CLUSTER, Scene, patch, pods, wait_until, wait_until_replaced};
use super::{Case, PLANNED};
use crate::kubectl::{kubectl, wait_for};
use crate::story::{LONG, NAMESPACE, no_pods_of};
use crate::upgrades::BROKEN;

pub(super) const CASES: &[Case] = &[
    Case::new("a_rollout_replaces_all_pods", 3, PLANNED, rolled_out),
    Case::new("a_broken_rollout_stops_at_one_pod_and_is_taken_back", 3, PLANNED, broken),
    Case::new("a_rollout_waits_while_the_cluster_is_paused", 3, PLANNED, paused),
    Case::new("a_cluster_hibernates_and_wakes", 3, PLANNED, hibernated).outage(),
    Case::new("the_members_authority_is_replaced", 3, PLANNED, authority_replaced),
];

/// Another template of the pods, which changes nothing in them.
fn other_template() -> Result<(), String> {
    patch(r#"{"spec": {"podTemplate": {"metadata": {"annotations": {"example.com/turn": "1"}}}}}"#)
}

fn rolled_out(_: &mut Scene) -> Result<u32, String> {
    let before = pods(3)?;
    other_template()?;
    wait_until_replaced(&before)?;
    Ok(3)
}

fn broken(_: &mut Scene) -> Result<u32, String> {
    let before = pods(3)?;
    patch(&format!(r#"{{"spec": {{"image": "{BROKEN}"}}}}"#))?;
    wait_until("the word of an image that is missing", |now| {
        now.troubles.iter().any(|trouble| trouble.cause.as_str() == "ImageMissing")
    })?;
    let now = pods(3)?;
    let replaced: Vec<_> = (0..3).filter(|&ordinal| now[ordinal].uid != before[ordinal].uid).collect();
    let &[broken] = replaced.as_slice() else {
        return Err(format!("the pods were {before:?}, and are {now:?}"));
    };
    patch(r#"{"spec": {"image": null}}"#)?;
    wait_for("another pod in its place, and ready", LONG, || {
        let again = pods(3)?;
        let others_stay = (0..3).all(|ordinal| ordinal == broken || again[ordinal] == before[ordinal]);
        let mended = again[broken].uid != now[broken].uid && again[broken].ready;
        if others_stay && mended { Ok(()) } else { Err(format!("they are {again:?}")) }
    })?;
    Ok(3)
}

fn paused(_: &mut Scene) -> Result<u32, String> {
    let before = pods(3)?;
    patch(r#"{"spec": {"paused": true}}"#)?;
    wait_until("a cluster that is paused", |now| now.phase == Some(Phase::Paused))?;
    other_template()?;
    wait_until("the generation of the other template", |now| {
        now.observed_generation.is_some_and(|generation| generation >= 3)
    })?;
    if pods(3)? != before {
        return Err(format!("the pods were {before:?}, and are {:?}", pods(3)?));
    }
    patch(r#"{"spec": {"paused": false}}"#)?;
    wait_until_replaced(&before)?;
    Ok(3)
}

fn hibernated(_: &mut Scene) -> Result<u32, String> {
    patch(r#"{"spec": {"hibernate": true}}"#)?;
    wait_for("the end of its pods", LONG, || no_pods_of(CLUSTER))?;
    wait_until("a cluster that hibernates", |now| now.phase == Some(Phase::Hibernated))?;
    patch(r#"{"spec": {"hibernate": false}}"#)?;
    Ok(3)
}

/// No pod is replaced for it.
fn authority_replaced(_: &mut Scene) -> Result<u32, String> {
    let secret = format!("{CLUSTER}-peer-tls");
    let authority = || {
        let get =
            ["get", "secret", &secret, "--output", "jsonpath={.data.ca\\.crt}", "--namespace", NAMESPACE];
        kubectl(&get)
    };
    let (old, before) = (authority()?, pods(3)?);
    let cluster = format!("raftcluster/{CLUSTER}");
    kubectl(&["annotate", &cluster, "quorate.dev/rotate-authorities=1", "--namespace", NAMESPACE])?;
    wait_for("another authority, and one alone", LONG, || {
        let now = authority()?;
        // Two are about twice as long.
        if now != old && now.len() < old.len() * 3 / 2 { Ok(()) } else { Err(format!("{} bytes", now.len())) }
    })?;
    if pods(3)? == before { Ok(3) } else { Err(format!("the pods were {before:?}, and are {:?}", pods(3)?)) }
}
