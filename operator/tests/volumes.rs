//! Larger volumes, to their end.

// Whole files of tests may panic, and take values as `json!` makes them.
#![allow(clippy::panic, clippy::needless_pass_by_value, clippy::similar_names)]

// Each file of tests uses a part of it.
#[allow(dead_code)]
mod support;

use serde_json::{Value, json};
use support::{CLUSTER, STATEFUL_SET, Stage};

fn claim(ordinal: u32) -> String {
    format!("/api/v1/namespaces/ns/persistentvolumeclaims/data-demo-{ordinal}")
}

async fn three() -> Stage {
    let stage = Stage::new(json!({"replicas": 3, "storage": {"size": "1Gi"}}));
    stage.until_ready().await;
    // What it has seen is written on the claims.
    stage.round().await.expect("the round succeeds");
    for ordinal in 0..3 {
        stage.api.edit(&claim(ordinal), |claim| claim["status"]["capacity"] = json!({"storage": "1Gi"}));
    }
    stage
}

#[tokio::test]
async fn claims_grow_and_the_set_is_made_again_around_its_pods() {
    let stage = three().await;
    let pods = || -> Vec<Value> {
        let pods = stage.api.under("/api/v1/namespaces/ns/pods/");
        pods.iter().map(|pod| pod["metadata"]["uid"].clone()).collect()
    };
    let before = pods();
    stage.api.take_log();
    stage.api.edit(CLUSTER, |cluster| cluster["spec"]["storage"]["size"] = "2Gi".into());
    stage.round().await.expect("the round succeeds");
    let resized = stage.find_condition("VolumesResized").expect("the condition");
    assert_eq!((&resized["status"], &resized["reason"]), (&json!("False"), &json!("Resizing")));
    let message = resized["message"].as_str().unwrap_or_default();
    assert!(message.contains("data-demo-0 has 1Gi"), "{message}");
    for _ in 0..4 {
        stage.round().await.expect("the round succeeds");
        stage.kubernetes();
    }
    let log = stage.api.take_log();
    for ordinal in 0..3 {
        assert!(log.contains(&format!("PATCH {}", claim(ordinal))), "{log:#?}");
    }
    assert!(log.contains(&format!("DELETE {STATEFUL_SET}")), "{log:#?}");
    let set = stage.api.get(STATEFUL_SET).expect("it is made again");
    let size = &set["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"];
    assert_eq!((size, pods()), (&json!("2Gi"), before), "its pods are left alone");
    for ordinal in 0..3 {
        stage.api.edit(&claim(ordinal), |claim| claim["status"]["capacity"] = json!({"storage": "2Gi"}));
    }
    stage.until_ready().await;
    assert_eq!(stage.condition("VolumesResized"), Some("True".to_owned()));
    assert_eq!(stage.status()["storage"]["size"], "2Gi");
}

#[tokio::test]
async fn size_that_one_claim_is_refused_stops_neither_the_others_nor_the_cluster() {
    let stage = three().await;
    stage.api.refuse(&format!("PATCH {}", claim(0)), 403);
    stage.api.take_log();
    stage.api.edit(CLUSTER, |cluster| cluster["spec"]["storage"]["size"] = "2Gi".into());
    stage.round().await.expect("the cluster goes on");
    let log = stage.api.take_log();
    assert!(log.contains(&format!("PATCH {}", claim(2))), "{log:#?}");
    let resized = stage.find_condition("VolumesResized").expect("the condition");
    let message = resized["message"].as_str().unwrap_or_default();
    assert_eq!(resized["reason"], "Refused");
    assert!(message.contains("data-demo-0") && message.contains("spec.storage.size: 1Gi"), "{message}");
    stage.round().await.expect("the round succeeds");
    assert_eq!(stage.condition("Ready"), Some("True".to_owned()));
    assert_eq!(stage.status()["storage"]["size"], "1Gi", "what it can be taken back to");
}

#[tokio::test]
async fn pod_whose_file_system_grows_at_its_start_is_restarted_once() {
    let stage = three().await;
    let pod = "/api/v1/namespaces/ns/pods/demo-1";
    stage.api.edit(pod, |pod| pod["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into());
    stage.api.edit(&claim(1), |claim| {
        claim["status"]["conditions"] = json!([{"type": "FileSystemResizePending", "status": "True",
            "lastTransitionTime": "2026-01-01T01:00:00Z"}]);
    });
    let evicted = |stage: &Stage| stage.api.take_log().iter().any(|line| line.ends_with("demo-1/eviction"));
    tokio::time::pause();
    stage.round().await.expect("the round succeeds");
    assert!(!evicted(&stage), "it may grow while it is in use");
    tokio::time::advance(std::time::Duration::from_mins(3)).await;
    stage.round().await.expect("the round succeeds");
    assert!(evicted(&stage));
    stage.kubernetes();
    stage.api.edit(pod, |pod| pod["metadata"]["creationTimestamp"] = "2026-01-01T02:00:00Z".into());
    for _ in 0..3 {
        tokio::time::advance(std::time::Duration::from_mins(3)).await;
        stage.round().await.expect("the round succeeds");
        assert!(!evicted(&stage), "that did not help");
    }
}
