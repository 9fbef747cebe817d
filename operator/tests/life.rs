//! A resource that is lost, made anew or deleted: what becomes of its cluster.

// Whole files of tests may panic, and take values as `json!` makes them.
#![allow(clippy::panic, clippy::needless_pass_by_value, clippy::similar_names)]

// Each file of tests uses a part of it.
#[allow(dead_code)]
mod support;

use serde_json::{Value, json};
use support::{CLUSTER, STATEFUL_SET, Stage};

fn three() -> Value {
    json!({"replicas": 3, "storage": {"size": "1Gi"}})
}

#[tokio::test]
async fn a_cluster_whose_status_is_lost_is_not_founded_again() {
    let stage = Stage::new(three());
    stage.until_ready().await;
    stage.nodes.lose_volume(0);
    stage.api.edit(CLUSTER, |cluster| cluster["status"] = Value::Null);
    stage.api.take_log();
    stage.round().await.expect("the ID is taken from the volumes");
    for ordinal in [1, 2] {
        stage.nodes.silence(ordinal);
    }
    for _ in 0..3 {
        stage.round().await.expect("the round succeeds");
    }
    let log = stage.api.take_log();
    assert!(!log.iter().any(|line| line.starts_with("bootstrap")), "{log:#?}");
    assert_eq!(stage.status()["bootstrapped"], true, "{}", stage.status());
}

#[tokio::test]
async fn objects_of_an_earlier_cluster_of_the_name_are_not_taken_over() {
    let stage = Stage::new(three());
    stage.until_ready().await;
    stage.api.edit(CLUSTER, |cluster| {
        cluster["metadata"]["uid"] = "anew".into();
        cluster["status"] = Value::Null;
    });
    stage.api.take_log();
    for _ in 0..3 {
        stage.round().await.expect("it waits");
    }
    let log = stage.api.take_log();
    assert!(!log.iter().any(|line| line.contains("statefulsets")), "the collector takes them: {log:#?}");
    let plan = stage.status()["plan"].clone();
    assert!(plan["reason"].as_str().is_some_and(|reason| reason.contains("StatefulSet demo")), "{plan}");
    assert!(stage.api.get(STATEFUL_SET).is_some());
}

#[tokio::test]
async fn volumes_go_after_their_pods_and_the_finalizer_after_the_volumes() {
    let mut spec = three();
    spec["deletionPolicy"] = "Delete".into();
    let stage = Stage::new(spec);
    stage.until_ready().await;
    stage.api.edit(CLUSTER, |cluster| {
        cluster["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    });
    stage.api.take_log();
    let finalizers = || stage.api.get(CLUSTER).expect("the cluster")["metadata"]["finalizers"].clone();
    let deletions = || stage.api.take_log().iter().filter(|line| line.starts_with("DELETE")).count();
    for _ in 0..3 {
        stage.round().await.expect("the round succeeds");
    }
    assert_eq!(deletions(), 0, "the pods have not ended");
    assert_eq!(stage.status()["phase"], "Deleting");
    assert_eq!(stage.status()["plan"]["waitingFor"], "the pods to end: demo-0, demo-1, demo-2");
    stage.kubernetes();
    stage.round().await.expect("the round succeeds");
    assert_eq!(deletions(), 3);
    assert_eq!(finalizers(), json!(["quorate.dev/volumes"]), "a claim may be held up");
    stage.round().await.expect("the round succeeds");
    assert_eq!(finalizers(), json!([]));
}

#[tokio::test]
async fn claims_say_whose_volumes_they_stand_for() {
    let stage = Stage::new(three());
    stage.until_ready().await;
    stage.round().await.expect("the round succeeds");
    let annotations = |ordinal: u32| {
        let path = format!("/api/v1/namespaces/ns/persistentvolumeclaims/data-demo-{ordinal}");
        stage.api.get(&path).map(|claim| claim["metadata"]["annotations"].clone())
    };
    let members = stage.status()["members"].clone();
    for ordinal in 0..3 {
        let found = annotations(ordinal).expect("the claim");
        assert_eq!(found["quorate.dev/cluster-id"], stage.status()["clusterID"]);
        assert_eq!(found["quorate.dev/member-id"], members[ordinal as usize]["id"]);
    }
    stage.api.edit(CLUSTER, |cluster| cluster["spec"]["storage"]["whenScaled"] = "Retain".into());
    stage.api.edit(CLUSTER, |cluster| cluster["spec"]["replicas"] = 1.into());
    stage.until_ready().await;
    stage.api.edit(CLUSTER, |cluster| cluster["spec"]["storage"]["whenScaled"] = "Delete".into());
    for _ in 0..5 {
        stage.round().await.expect("the round succeeds");
        stage.kubernetes();
    }
    assert_eq!(annotations(2).expect("it was to be kept")["quorate.dev/removed"], "Retain");
}
