//! A cluster that has lost its quorum for good becomes a new one of what one member holds, because a person asks for it.

// Whole files of tests may panic, and take values as `json!` makes them.
#![allow(clippy::panic, clippy::needless_pass_by_value, clippy::similar_names)]

// Each file of tests uses a part of it.
#[allow(dead_code)]
mod support;

use serde_json::{Value, json};
use support::{CLUSTER, STATEFUL_SET, Stage};

const RUNNER: &str = "/api/v1/namespaces/ns/pods/demo-recover";

fn claim(ordinal: u64) -> String {
    format!("/api/v1/namespaces/ns/persistentvolumeclaims/data-demo-{ordinal}")
}

/// Three members of which two do not come back.
async fn hopeless() -> Stage {
    let stage = Stage::new(json!({"replicas": 3, "storage": {"size": "1Gi"}}));
    stage.until_ready().await;
    stage.round().await.expect("claims are marked");
    for ordinal in 0..3 {
        let name = format!("pv-{ordinal}");
        let uid = stage.api.get(&claim(ordinal)).expect("the claim")["metadata"]["uid"].clone();
        stage.api.edit(&claim(ordinal), |claim| claim["spec"]["volumeName"] = name.clone().into());
        stage.api.put(
            &format!("/api/v1/persistentvolumes/{name}"),
            json!({"metadata": {"name": name},
                "spec": {"persistentVolumeReclaimPolicy": "Delete", "claimRef": {"uid": uid}}}),
        );
    }
    stage.nodes.stop(1);
    stage.nodes.stop(2);
    stage.nodes.depose();
    stage.round().await.expect("the round succeeds");
    assert_eq!(stage.status()["remains"], Value::Null, "it may be an election");
    stage.api.edit(CLUSTER, |cluster| {
        for condition in cluster["status"]["conditions"].as_array_mut().expect("conditions") {
            condition["lastTransitionTime"] = "2026-01-01T00:00:00Z".into();
        }
    });
    stage.round().await.expect("the round succeeds");
    stage.api.take_log();
    stage
}

fn ask(stage: &Stage) {
    let status = stage.status();
    let member = status["members"][0]["id"].clone();
    stage.api.edit(CLUSTER, |cluster| {
        cluster["spec"]["recover"] =
            json!({"cluster": status["clusterID"], "pod": "demo-0", "member": member});
    });
}

#[tokio::test]
async fn what_each_member_holds_is_told_while_there_is_no_quorum() {
    let stage = hopeless().await;
    let remains = stage.status()["remains"].clone();
    assert_eq!(remains.as_array().map(Vec::len), Some(1), "{remains}");
    assert_eq!((&remains[0]["pod"], &remains[0]["answers"]), (&json!("demo-0"), &json!(true)));
    assert_eq!((&remains[0]["lastTerm"], &remains[0]["lastIndex"]), (&json!(1), &json!(40)));
    stage.nodes.silence(0);
    stage.round().await.expect("the round succeeds");
    let remains = stage.status()["remains"].clone();
    assert_eq!(
        (&remains[0]["lastIndex"], &remains[0]["answers"]),
        (&json!(40), &json!(false)),
        "what it said last"
    );
}

#[tokio::test]
async fn the_member_that_was_asked_for_becomes_a_cluster_that_grows_again() {
    let stage = hopeless().await;
    let old = stage.status()["clusterID"].clone();
    ask(&stage);
    stage.round().await.expect("the round succeeds");
    let recovery = stage.status()["recovery"].clone();
    assert_eq!((&recovery["from"], &stage.status()["clusterID"]), (&old, &old));
    assert_eq!(stage.api.take_log().len(), 1, "the status comes first");
    stage.round().await.expect("the round succeeds");
    assert_eq!(stage.api.get(STATEFUL_SET).expect("the set")["spec"]["replicas"], 0);
    assert_eq!(stage.api.get(RUNNER), None, "the pods have not ended");
    stage.kubernetes();
    stage.nodes.stop(0);
    stage.round().await.expect("the round succeeds");
    let runner = stage.api.get(RUNNER).expect("the pod that recovers");
    let arguments = runner["spec"]["containers"][0]["args"].to_string();
    let new = recovery["clusterID"].as_str().expect("an ID").to_owned();
    assert!(arguments.contains(&format!("--new-cluster={new}")), "{arguments}");
    assert_eq!(runner["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"], "data-demo-0");
    stage.round().await.expect("it runs");
    assert!(stage.api.get(&claim(1)).is_some(), "nothing is freed before the new cluster is there");

    stage.nodes.recover(0, u64::from_str_radix(&new, 16).expect("hexadecimal"));
    stage.api.edit(RUNNER, |pod| pod["status"] = json!({"phase": "Succeeded"}));
    for _ in 0..8 {
        stage.round().await.expect("the round succeeds");
    }
    assert_eq!(stage.api.get(RUNNER), None);
    assert_eq!(stage.status()["clusterID"], new);
    for ordinal in [1, 2] {
        assert_eq!(stage.api.get(&claim(ordinal)), None, "it is free for a new member");
        let volume = stage.api.get(&format!("/api/v1/persistentvolumes/pv-{ordinal}")).expect("it is kept");
        assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Retain");
    }
    let kept = &stage.status()["recovery"]["kept"];
    assert_eq!(kept, &json!([{"pod": "demo-1", "volume": "pv-1"}, {"pod": "demo-2", "volume": "pv-2"}]));
    stage.until_ready().await;
    assert_eq!(stage.status()["voters"], "3/3");
    assert_eq!(stage.status()["remains"], Value::Null);
    let bootstraps = stage.api.take_log().iter().filter(|line| line.starts_with("bootstrap")).count();
    assert_eq!(bootstraps, 0, "nothing is founded but by the recovery");
}
