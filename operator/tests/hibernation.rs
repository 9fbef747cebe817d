//! Clusters that sleep, that are protected, and whose namespace goes.

// Whole files of tests may panic, and take values as `json!` makes them.
#![allow(clippy::panic, clippy::needless_pass_by_value, clippy::similar_names)]

// Each file of tests uses a part of it.
#[allow(dead_code)]
mod support;

use std::time::Duration;

use kube::runtime::controller::Action;
use quorate_operator::controller::{Error, on_error};
use serde_json::{Value, json};
use support::{CLUSTER, STATEFUL_SET, Stage};

fn three() -> Value {
    json!({"replicas": 3, "storage": {"size": "1Gi"}})
}

#[tokio::test]
async fn hibernated_cluster_has_no_pods_and_wakes_as_it_was() {
    let stage = Stage::new(three());
    stage.until_ready().await;
    let voters = stage.nodes.voters();
    stage.api.take_log();
    stage.api.edit(CLUSTER, |cluster| cluster["spec"]["hibernate"] = true.into());
    for _ in 0..3 {
        stage.round().await.expect("the round succeeds");
        stage.kubernetes();
    }
    assert_eq!(stage.api.get(STATEFUL_SET).expect("the set")["spec"]["replicas"], 0);
    assert_eq!(stage.status()["phase"], "Hibernated");
    for (condition, status) in [("Ready", "False"), ("Quorate", "False"), ("Degraded", "False")] {
        let found = stage.find_condition(condition).expect("the condition");
        assert_eq!(
            (&found["status"], &found["reason"]),
            (&json!(status), &json!("Hibernated")),
            "{condition}"
        );
    }
    assert_eq!(stage.api.under("/api/v1/namespaces/ns/persistentvolumeclaims/").len(), 3);
    let again = stage.round().await.expect("the round succeeds");
    assert_eq!(again, Action::requeue(Duration::from_hours(4)), "it is at rest");

    stage.api.edit(CLUSTER, |cluster| cluster["spec"]["hibernate"] = false.into());
    stage.until_ready().await;
    assert_eq!(stage.nodes.voters(), voters);
    let log = stage.api.take_log();
    assert!(!log.iter().any(|line| line.starts_with("change") || line.starts_with("bootstrap")), "{log:#?}");
}

#[tokio::test]
async fn protected_cluster_runs_on_although_its_resource_is_deleted() {
    let mut spec = three();
    (spec["deletionPolicy"], spec["deletionProtection"]) = ("Delete".into(), true.into());
    let stage = Stage::new(spec);
    stage.until_ready().await;
    let finalizers = || stage.api.get(CLUSTER).expect("the cluster")["metadata"]["finalizers"].clone();
    assert_eq!(finalizers(), json!(["quorate.dev/volumes", "quorate.dev/protection"]));
    stage.api.edit(CLUSTER, |cluster| {
        cluster["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    });
    stage.api.take_log();
    for _ in 0..3 {
        stage.round().await.expect("the round succeeds");
        stage.kubernetes();
    }
    let log = stage.api.take_log();
    assert!(!log.iter().any(|line| line.starts_with("DELETE")), "{log:#?}");
    assert_eq!(stage.condition("DeletionHeldUp"), Some("True".to_owned()));
    assert_eq!(stage.api.get(STATEFUL_SET).expect("the set")["spec"]["replicas"], 3);

    stage.api.edit(CLUSTER, |cluster| cluster["spec"]["deletionProtection"] = false.into());
    for _ in 0..6 {
        stage.round().await.expect("the round succeeds");
        stage.kubernetes();
    }
    assert_eq!(finalizers(), json!([]));
}

#[tokio::test]
async fn paused_cluster_keeps_its_volumes_until_it_is_not_paused() {
    let mut spec = three();
    spec["deletionPolicy"] = "Delete".into();
    let stage = Stage::new(spec);
    stage.until_ready().await;
    stage.api.edit(CLUSTER, |cluster| {
        cluster["spec"]["paused"] = true.into();
        cluster["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    });
    stage.api.take_log();
    for _ in 0..3 {
        stage.round().await.expect("the round succeeds");
    }
    let log = stage.api.take_log();
    assert!(!log.iter().any(|line| line.contains("statefulsets") || line.starts_with("DELETE")), "{log:#?}");
    let waits = stage.status()["plan"]["waitingFor"].to_string();
    assert!(waits.contains("spec.paused"), "{waits}");
}

#[tokio::test]
async fn namespace_that_is_being_deleted_is_no_failure() {
    let stage = Stage::new(three());
    let refusal = |message: &str| {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 403,
            "reason": "Forbidden", "message": message});
        let status = serde_json::from_value(status).expect("a status");
        on_error(&stage.cluster(), &Error::Write(kube::Error::Api(status)), &stage.context)
    };
    let going = "secrets \"demo-peer-ca\" is forbidden: unable to create new content in namespace ns because it is being terminated";
    assert_eq!(refusal(going), Action::requeue(Duration::from_secs(10)));
    assert!(stage.context.failures.lock().is_empty());
    assert_eq!(refusal("no rights"), Action::requeue(Duration::from_secs(1)));
}
