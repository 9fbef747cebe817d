//! Pods that do not serve: the resource says which, why, and since when, and events say so once.

// Whole files of tests may panic, and take values as `json!` makes them.
#![allow(clippy::panic, clippy::needless_pass_by_value, clippy::similar_names)]

// Each file of tests uses a part of it.
#[allow(dead_code)]
mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{CLUSTER, Stage};

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/ns/events";
const POD: &str = "/api/v1/namespaces/ns/pods/demo-2";
const CLAIM: &str = "/api/v1/namespaces/ns/persistentvolumeclaims/data-demo-2";

fn three() -> Value {
    json!({"replicas": 3, "storage": {"size": "1Gi"}})
}

/// What Kubernetes says of an object.
fn says(stage: &Stage, kind: &str, name: &str, reason: &str, note: &str) {
    let event = json!({
        "metadata": {"name": format!("{name}.{reason}"), "namespace": "ns"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "reason": reason, "note": note, "type": "Warning",
        "regarding": {"kind": kind, "name": name, "namespace": "ns"},
    });
    stage.api.put(&format!("{EVENTS}/{name}.{reason}"), event);
}

/// The operator's own events with this reason.
fn told(stage: &Stage, reason: &str) -> Vec<String> {
    let all = stage.api.under(EVENTS).into_iter();
    let ours = all.filter(|event| event["reason"] == reason && event["regarding"]["kind"] == "RaftCluster");
    ours.map(|event| event["note"].as_str().expect("a note").to_owned()).collect()
}

/// Rounds, until what is seen has lasted.
async fn rounds(stage: &Stage) {
    for _ in 0..3 {
        stage.round().await.expect("the round succeeds");
        tokio::time::advance(Duration::from_secs(11)).await;
    }
}

/// The third node ends, as the kubelet tells it.
fn ends(stage: &Stage, code: i32, words: &str) {
    stage.nodes.stop(2);
    stage.api.edit(POD, |pod| {
        pod["status"]["conditions"][0] =
            json!({"type": "Ready", "status": "False", "reason": "ContainersNotReady"});
        pod["status"]["containerStatuses"] = json!([{
            "name": "node", "ready": false, "restartCount": 4, "image": "i", "imageID": "",
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": code, "reason": "Error", "message": words}},
        }]);
    });
}

#[tokio::test(start_paused = true)]
async fn pods_that_the_api_server_refuses_are_told_in_its_own_words() {
    let stage = Stage::new(three());
    let sentence = r#"create Pod demo-0 in StatefulSet demo failed error: pods "demo-0" is forbidden: exceeded quota: q"#;
    rounds(&stage).await;
    assert_eq!(stage.status()["troubles"], Value::Null, "they are being made");
    says(&stage, "StatefulSet", "demo", "FailedCreate", sentence);
    rounds(&stage).await;
    let first = stage.status()["troubles"][0].clone();
    assert_eq!(
        (&first["pod"], &first["cause"], &first["message"]),
        (&json!("demo-0"), &json!("Refused"), &json!(sentence))
    );
    let condition = stage.find_condition("Troubled").expect("the condition");
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("True"), &json!("Refused")));
    assert!(condition["message"].as_str().is_some_and(|text| text.contains("exceeded quota")), "{condition}");
    let waits = stage.status()["plan"]["waitingFor"].clone();
    assert!(
        waits.as_str().is_some_and(|text| text.contains("exceeded quota")),
        "the plan says it too: {waits}"
    );
    rounds(&stage).await;
    assert_eq!(told(&stage, "Refused").len(), 3, "once for each pod");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_volume_is_told_once_and_so_is_its_end() {
    let stage = Stage::new(three());
    stage.until_ready().await;
    assert_eq!(stage.condition("Troubled"), Some("False".to_owned()));
    assert_eq!(stage.status()["troubles"], Value::Null);
    let (member, healthy) =
        (stage.status()["members"][2]["id"].clone(), stage.api.get(POD).expect("the pod"));
    ends(&stage, 4, "INFO starts\nquorate-node: segment 7 is damaged\n");
    rounds(&stage).await;
    let told_first = stage.status()["troubles"].clone();
    assert_eq!((&told_first[0]["cause"], &told_first[0]["member"]), (&json!("Damaged"), &member));
    assert!(
        told_first[0]["message"].as_str().is_some_and(|text| text.contains("segment 7 is damaged")),
        "{told_first}"
    );
    let version = stage.api.get(CLUSTER).expect("the cluster")["metadata"]["resourceVersion"].clone();
    rounds(&stage).await;
    assert_eq!(stage.status()["troubles"], told_first, "since when does not move");
    assert_eq!(
        stage.api.get(CLUSTER).expect("the cluster")["metadata"]["resourceVersion"],
        version,
        "nothing is written"
    );
    assert_eq!(told(&stage, "Damaged").len(), 1);
    stage.api.put(POD, healthy);
    stage.nodes.come_back(2);
    rounds(&stage).await;
    assert_eq!(
        (stage.status()["troubles"].clone(), stage.condition("Troubled")),
        (Value::Null, Some("False".to_owned()))
    );
    assert_eq!(told(&stage, "TroubleEnded"), ["demo-2: Damaged no more"]);
}

#[tokio::test(start_paused = true)]
async fn a_storage_class_that_does_not_exist_and_a_volume_that_hangs_are_told_apart() {
    let stage = Stage::new(three());
    stage.until_ready().await;
    stage.nodes.stop(2);
    stage.api.edit(POD, |pod| pod["status"] = json!({"phase": "Pending"}));
    stage.api.edit(CLAIM, |claim| claim["status"]["phase"] = "Pending".into());
    let class = r#"storageclass.storage.k8s.io "no-such" not found"#;
    says(&stage, "PersistentVolumeClaim", "data-demo-2", "ProvisioningFailed", class);
    let uid = stage.api.get(CLAIM).expect("the claim")["metadata"]["uid"].clone();
    let about = |stage: &Stage, event: &str, uid: &Value| {
        stage.api.edit(&format!("{EVENTS}/{event}"), |event| event["regarding"]["uid"] = uid.clone());
    };
    rounds(&stage).await;
    assert_eq!(stage.status()["troubles"], Value::Null, "an earlier claim of the name is another one");
    about(&stage, "data-demo-2.ProvisioningFailed", &uid);
    rounds(&stage).await;
    assert_eq!(
        stage.status()["troubles"][0]["cause"],
        "StorageClassMissing",
        "{}",
        stage.status()["troubles"]
    );

    stage.api.edit(CLAIM, |claim| {
        claim["status"]["phase"] = "Bound".into();
        claim["spec"]["volumeName"] = "pvc-7".into();
    });
    let hangs = r#"Multi-Attach error for volume "pvc-7" Volume is already used by pod(s) other"#;
    says(&stage, "Pod", "demo-2", "FailedAttachVolume", hangs);
    about(&stage, "demo-2.FailedAttachVolume", &stage.api.get(POD).expect("the pod")["metadata"]["uid"]);
    tokio::time::advance(Duration::from_mins(3)).await;
    rounds(&stage).await;
    assert_eq!(stage.status()["troubles"][0]["cause"], "VolumeStuck", "{}", stage.status()["troubles"]);
}
