//! A member whose volume is of no use is replaced: first the volume is kept, then its claim goes, and a new member takes its place.

// Whole files of tests may panic, and take values as `json!` makes them.
#![allow(clippy::panic, clippy::needless_pass_by_value, clippy::similar_names)]

// Each file of tests uses a part of it.
#[allow(dead_code)]
mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{CLUSTER, Stage};

const POD: &str = "/api/v1/namespaces/ns/pods/demo-2";
const CLAIM: &str = "/api/v1/namespaces/ns/persistentvolumeclaims/data-demo-2";
const VOLUME: &str = "/api/v1/persistentvolumes/pv-2";

/// Three members; the machine of the third, which has its volume, is deleted.
async fn machine_is_gone() -> Stage {
    let stage = Stage::new(json!({"replicas": 3, "storage": {"size": "1Gi"}}));
    stage.until_ready().await;
    stage.round().await.expect("claims are marked");
    let uid = stage.api.get(CLAIM).expect("the claim")["metadata"]["uid"].clone();
    let on = json!([{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n2"]}]}]);
    stage.api.put(
        VOLUME,
        json!({"metadata": {"name": "pv-2"}, "spec": {
            "persistentVolumeReclaimPolicy": "Delete", "claimRef": {"uid": uid},
            "nodeAffinity": {"required": {"nodeSelectorTerms": on}},
        }}),
    );
    stage.api.edit(CLAIM, |claim| claim["spec"]["volumeName"] = "pv-2".into());
    stage.nodes.stop(2);
    stage.api.edit(POD, |pod| {
        pod["status"] = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "volume node affinity conflict"}
        ]});
    });
    stage.api.take_log();
    stage
}

fn position(log: &[String], line: &str) -> usize {
    log.iter().position(|found| found.contains(line)).unwrap_or_else(|| panic!("{line} is not in {log:#?}"))
}

#[tokio::test(start_paused = true)]
async fn a_volume_on_a_machine_that_is_gone_is_kept_and_its_member_replaced() {
    let stage = machine_is_gone().await;
    stage.round().await.expect("the round succeeds");
    let plan = stage.status()["plan"].clone();
    assert_eq!(
        (&plan["step"], &plan["waitingFor"]),
        (&json!("ReplaceMember"), &json!("it to come back, for 1m"))
    );
    assert!(
        plan["reason"].as_str().is_some_and(|text| text.contains("demo-2") && text.contains("n2")),
        "{plan}"
    );
    tokio::time::advance(Duration::from_secs(61)).await;
    for _ in 0..3 {
        stage.round().await.expect("the round succeeds");
    }
    let log = stage.api.take_log();
    let order = [format!("PATCH {VOLUME}"), format!("DELETE {CLAIM}"), format!("POST {POD}/eviction")];
    let found: Vec<_> = order.iter().map(|line| position(&log, line)).collect();
    assert!(found.is_sorted(), "{log:#?}");
    assert_eq!(stage.api.get(VOLUME).expect("the volume")["spec"]["persistentVolumeReclaimPolicy"], "Retain");
    let events = stage.api.under("/apis/events.k8s.io/v1/namespaces/ns/events");
    let named =
        events.iter().any(|event| event["note"].as_str().is_some_and(|note| note.contains("pv-2 is kept")));
    assert!(named, "{events:#?}");

    let before = stage.nodes.voters();
    stage.until_ready().await;
    let after = stage.nodes.voters();
    assert_eq!((before.len(), after.len()), (3, 3));
    assert_eq!(
        before.iter().filter(|id| after.contains(id)).count(),
        2,
        "one was replaced: {before:?} {after:?}"
    );
    assert_eq!(stage.status()["troubles"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_has_come_back_keeps_its_member() {
    let stage = machine_is_gone().await;
    stage.round().await.expect("the round succeeds");
    tokio::time::advance(Duration::from_secs(61)).await;
    stage.api.put(
        "/api/v1/nodes/n2",
        json!({"metadata": {"name": "n2"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
    );
    for _ in 0..4 {
        stage.round().await.expect("the round succeeds");
    }
    let log = stage.api.take_log();
    assert!(!log.iter().any(|line| line.starts_with("DELETE") || line.contains("eviction")), "{log:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_spec_that_leaves_it_to_people_replaces_nobody_and_says_what_to_do() {
    let stage = machine_is_gone().await;
    stage.api.edit(CLUSTER, |cluster| {
        cluster["spec"]["replacement"] = json!({"automatic": [], "patience": "Never"});
    });
    stage.round().await.expect("the round succeeds");
    tokio::time::advance(Duration::from_hours(1)).await;
    stage.round().await.expect("the round succeeds");
    let log = stage.api.take_log();
    assert!(
        !log.iter().any(|line| line.starts_with("DELETE") || line.contains("persistentvolumes/")),
        "{log:#?}"
    );
    let waits = stage.status()["plan"]["waitingFor"].clone();
    assert!(waits.as_str().is_some_and(|text| text.contains("delete the claim data-demo-2")), "{waits}");
}
