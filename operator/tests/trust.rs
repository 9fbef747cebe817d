//! Certificates in rounds of the controller: who holds which key, how an authority is replaced, and what a Secret that is missing costs.

// Whole files of tests may panic, and take values as `json!` makes them.
#![allow(clippy::panic, clippy::needless_pass_by_value, clippy::similar_names)]

// Each file of tests uses a part of it.
#[allow(dead_code)]
mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::api::core::v1::Secret;
use kube::runtime::controller::Action;
use quorate_operator::observe::observe;
use quorate_operator::trust::x509::{self, Pair, Request};
use quorate_operator::trust::{Circle, Held, Keeper, LEAF_LIFE, ROTATE};
use serde_json::{Value, json};
use support::{CLUSTER, STATEFUL_SET, Stage};

const VAULT: &str = "/api/v1/namespaces/quorate-system/secrets/ns.demo.authorities";
const PEERS: &str = "/api/v1/namespaces/ns/secrets/demo-peer-tls";
const CLIENTS: &str = "/api/v1/namespaces/ns/secrets/demo-client-tls";
const CONNECTION: &str = "/api/v1/namespaces/ns/secrets/demo-connection";
const GIVEN: &str = "/api/v1/namespaces/ns/secrets/store";

fn spec(client: Value) -> Value {
    json!({"replicas": 3, "storage": {"size": "1Gi"}, "tls": {"client": client}})
}

fn secret(stage: &Stage, path: &str) -> Secret {
    let found = stage.api.get(path).unwrap_or_else(|| panic!("{path} is not there"));
    serde_json::from_value(found).expect("a Secret")
}

fn text(stage: &Stage, path: &str, key: &str) -> String {
    let data = secret(stage, path).data.unwrap_or_default();
    String::from_utf8(data.get(key).map(|bytes| bytes.0.clone()).unwrap_or_default()).expect("text")
}

fn signing(stage: &Stage) -> String {
    let held = Held::read(&secret(stage, VAULT), Circle::Peers).expect("authorities");
    held.authorities().signing
}

/// All nodes take up what is published now.
fn take_up(stage: &Stage) {
    for ordinal in 0..3 {
        stage.nodes.trust(ordinal, fingerprints(&text(stage, PEERS, "ca.crt")));
    }
}

fn fingerprints(bundle: &str) -> Vec<String> {
    let read = |one: &String| x509::first(one.as_bytes()).map(|read| read.fingerprint);
    x509::split(bundle.as_bytes()).iter().filter_map(read).collect()
}

async fn rounds(stage: &Stage, count: usize) {
    for _ in 0..count {
        stage.round().await.expect("the round succeeds");
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970")
}

/// What an issuer makes for the client port.
fn issued(days: u64) -> Value {
    let authority = x509::authority("issuer", now(), LEAF_LIFE).expect("an authority");
    let names = vec!["demo-client.ns.svc".to_owned()];
    let request = Request { common_name: String::new(), names, server: true, client: false };
    let life = Duration::from_hours(days * 24);
    let Pair { certificate, key } = x509::leaf(&request, &authority, now(), life).expect("a leaf");
    let data = [("tls.crt", certificate), ("tls.key", key), ("ca.crt", authority.certificate)];
    let data: serde_json::Map<_, _> = data
        .into_iter()
        .map(|(key, text)| (key.to_owned(), json!(k8s_openapi::ByteString(text.into_bytes()))))
        .collect();
    json!({"metadata": {"name": "store", "namespace": "ns"}, "type": "kubernetes.io/tls", "data": data})
}

#[tokio::test]
async fn keys_that_sign_are_in_the_operators_namespace_alone() {
    let stage = Stage::new(spec(json!({"clientCertificates": "Required"})));
    stage.until_ready().await;
    for circle in [Circle::Peers, Circle::Clients] {
        assert!(Held::read(&secret(&stage, VAULT), circle).expect("authorities").signer().is_some());
    }
    assert!(!text(&stage, VAULT, "admin.key").is_empty());
    for found in stage.api.under("/api/v1/namespaces/ns/secrets/") {
        let found: Secret = serde_json::from_value(found).expect("a Secret");
        let leaf = found.data.as_ref().and_then(|data| data.get("tls.crt")).expect("a certificate");
        let leaf = x509::first(&leaf.0).expect("a certificate");
        assert_ne!(leaf.common_name, "demo admin", "who reads Secrets there cannot change the cluster");
        let keys: Vec<_> = found.data.iter().flatten().map(|(key, _)| key.as_str()).collect();
        assert!(!keys.iter().any(|key| key.contains("signing")), "{keys:?}");
    }
}

#[tokio::test]
async fn a_certificate_names_the_services_and_the_pods_with_the_clusters_domain() {
    let stage = Stage::new(spec(json!({"names": ["store.example.com", "203.0.113.7"]})));
    stage.until_ready().await;
    let names = |path| x509::first(text(&stage, path, "tls.crt").as_bytes()).expect("a certificate").names;
    let found = names(CLIENTS);
    for name in [
        "demo-client",
        "demo-client.ns.svc",
        "demo-client.ns.svc.k8s.example",
        "demo-leader.ns.svc",
        "*.demo-peers.ns.svc",
        "*.demo-peers.ns.svc.k8s.example",
        "localhost",
        "127.0.0.1",
        "::1",
        "store.example.com",
        "203.0.113.7",
    ] {
        assert!(found.iter().any(|found| found == name), "{name} is not in {found:?}");
    }
    assert!(names(PEERS).iter().any(|found| found == "*.demo-peers.ns.svc"));
}

#[tokio::test]
async fn an_authority_is_replaced_only_as_fast_as_every_node_takes_it_up() {
    let stage = Stage::new(spec(Value::Null));
    stage.until_ready().await;
    take_up(&stage);
    let before = (signing(&stage), text(&stage, PEERS, "tls.crt"));
    stage.api.edit(CLUSTER, |cluster| cluster["metadata"]["annotations"][ROTATE] = "1".into());
    let again = stage.round().await.expect("the round succeeds");
    assert_eq!(again, Action::requeue(Duration::from_secs(10)), "it is looked at again soon");
    rounds(&stage, 3).await;
    let trusted = fingerprints(&text(&stage, PEERS, "ca.crt"));
    assert_eq!((trusted.len(), &trusted[0]), (2, &before.0), "both are trusted");
    assert_eq!((signing(&stage), text(&stage, PEERS, "tls.crt")), before, "the old one signs");
    let condition = stage.find_condition("CertificatesCurrent").expect("the condition");
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("True"), &json!("Rotating")));

    // One of them does not answer: it is not known what that trusts.
    take_up(&stage);
    stage.nodes.silence(2);
    rounds(&stage, 3).await;
    assert_eq!(signing(&stage), before.0);
    stage.nodes.speak(2);
    rounds(&stage, 3).await;
    let trusted = fingerprints(&text(&stage, PEERS, "ca.crt"));
    assert_eq!((trusted.len(), &trusted[1]), (2, &before.0), "the new one signs, both are trusted");
    assert_ne!(text(&stage, PEERS, "tls.crt"), before.1);
    take_up(&stage);
    rounds(&stage, 3).await;
    let trusted = fingerprints(&text(&stage, PEERS, "ca.crt"));
    assert_eq!(trusted, [signing(&stage)]);
    assert!(!trusted.contains(&before.0));
    rounds(&stage, 2).await;
    assert_eq!(fingerprints(&text(&stage, PEERS, "ca.crt")), trusted, "asked for once, done once");
}

#[tokio::test]
async fn an_authority_whose_key_is_lost_goes_on_being_trusted_until_all_trust_another() {
    let stage = Stage::new(spec(Value::Null));
    stage.until_ready().await;
    take_up(&stage);
    let (old, leaf) = (signing(&stage), text(&stage, PEERS, "tls.crt"));
    stage.api.remove(VAULT);
    rounds(&stage, 3).await;
    let trusted = fingerprints(&text(&stage, PEERS, "ca.crt"));
    assert_eq!((trusted.len(), &trusted[0]), (2, &old));
    assert_eq!(text(&stage, PEERS, "tls.crt"), leaf, "nobody shows what others do not trust");
    assert_eq!(stage.condition("Ready"), Some("True".to_owned()), "the nodes are seen all the while");
    for _ in 0..2 {
        take_up(&stage);
        rounds(&stage, 3).await;
    }
    assert_ne!(text(&stage, PEERS, "tls.crt"), leaf);
    assert_eq!(fingerprints(&text(&stage, PEERS, "ca.crt")), [signing(&stage)]);
}

#[tokio::test]
async fn a_leaf_that_is_deleted_comes_back_of_the_same_authority() {
    let stage = Stage::new(spec(json!({})));
    stage.until_ready().await;
    let trusted = [PEERS, CLIENTS].map(|path| text(&stage, path, "ca.crt"));
    for path in [PEERS, CLIENTS, CONNECTION] {
        stage.api.remove(path);
    }
    stage.round().await.expect("the round succeeds");
    assert_eq!([PEERS, CLIENTS].map(|path| text(&stage, path, "ca.crt")), trusted);
    assert_eq!(text(&stage, CONNECTION, "ca.crt"), trusted[1]);
}

#[tokio::test]
async fn an_operator_that_was_held_up_publishes_nothing_that_is_older() {
    let stage = Stage::new(spec(Value::Null));
    stage.until_ready().await;
    let context = &stage.context;
    let guarded = stage.cluster();
    let cluster = guarded.0.as_ref().expect("a whole resource");
    let reference = kube::runtime::reflector::ObjectRef::new("demo").within("ns");
    let look = context.ages.look(&reference);
    let home = "quorate-system";
    let mut seen = observe(&context.client, &*context.admin, cluster, home, look).await.expect("a sight");
    // Meanwhile another one introduces an authority, and publishes it.
    stage.api.edit(CLUSTER, |cluster| cluster["metadata"]["annotations"][ROTATE] = "1".into());
    rounds(&stage, 2).await;
    let published = text(&stage, PEERS, "ca.crt");
    // What it saw has to be made anew.
    seen.secrets.peers.as_mut().and_then(|peers| peers.data.as_mut()).expect("data").remove("tls.crt");
    let keeper = Keeper { client: &context.client, cluster, home, domain: "k8s.example" };
    let refused = keeper.keep(&mut seen.secrets, &seen.observed).await.expect_err("it is not the newest");
    assert!(refused.to_string().contains("modified"), "{refused}");
    assert_eq!(text(&stage, PEERS, "ca.crt"), published);
}

#[tokio::test]
async fn a_secret_that_is_missing_is_named_and_nothing_stops() {
    let stage = Stage::new(spec(json!({"secretName": "store"})));
    rounds(&stage, 3).await;
    let accepted = stage.find_condition("SpecAccepted").expect("the condition");
    assert_eq!((&accepted["status"], &accepted["reason"]), (&json!("False"), &json!("SecretMissing")));
    assert!(
        accepted["message"].as_str().is_some_and(|said| said.contains("spec.tls.client.secretName")),
        "{accepted}"
    );
    assert!(stage.api.get(STATEFUL_SET).is_none(), "no pod waits for it");
    let again = stage.round().await.expect("the round succeeds");
    assert_eq!(again, Action::requeue(Duration::from_secs(10)), "no event says that it is there");

    stage.api.put(GIVEN, issued(90));
    stage.until_ready().await;
    let again = stage.round().await.expect("the round succeeds");
    assert_eq!(again, Action::requeue(Duration::from_mins(5)), "nor that it is another one");
    let taken = text(&stage, CLIENTS, "tls.crt");
    assert_eq!(taken, text(&stage, GIVEN, "tls.crt"));
    let template = stage.api.get(STATEFUL_SET).expect("the set")["spec"]["template"].clone();

    stage.api.remove(GIVEN);
    rounds(&stage, 2).await;
    let condition = stage.find_condition("CertificatesCurrent").expect("the condition");
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!("SecretMissing")));
    assert_eq!(text(&stage, CLIENTS, "tls.crt"), taken, "pods that start have it");
    assert_eq!(stage.api.get(STATEFUL_SET).expect("the set")["spec"]["template"], template);
    assert_eq!(stage.condition("Ready"), Some("True".to_owned()));
    let events = stage.api.under("/apis/events.k8s.io/v1/namespaces/ns/events");
    assert!(events.iter().any(|event| event["reason"] == "SecretMissing" && event["type"] == "Warning"));

    // One of nonsense takes nothing away either, and a new one is taken up.
    let mut nonsense = issued(90);
    nonsense["data"]["tls.crt"] = json!(k8s_openapi::ByteString(b"nonsense".to_vec()));
    stage.api.put(GIVEN, nonsense);
    rounds(&stage, 1).await;
    let condition = stage.find_condition("CertificatesCurrent").expect("the condition");
    assert_eq!((&condition["reason"], text(&stage, CLIENTS, "tls.crt")), (&json!("SecretInvalid"), taken));
    stage.api.put(GIVEN, issued(90));
    rounds(&stage, 1).await;
    assert_eq!(text(&stage, CLIENTS, "tls.crt"), text(&stage, GIVEN, "tls.crt"));
    assert_eq!(stage.condition("CertificatesCurrent"), Some("True".to_owned()));
}

#[tokio::test]
async fn a_key_of_another_certificate_is_not_taken() {
    let stage = Stage::new(spec(json!({"secretName": "store"})));
    let mut mixed = issued(90);
    mixed["data"]["tls.key"] = issued(90)["data"]["tls.key"].clone();
    stage.api.put(GIVEN, mixed);
    rounds(&stage, 2).await;
    let accepted = stage.find_condition("SpecAccepted").expect("the condition");
    assert_eq!(accepted["reason"], "SecretInvalid");
    assert!(
        accepted["message"].as_str().is_some_and(|said| said.contains("another certificate's key")),
        "{accepted}"
    );
}

#[tokio::test]
async fn an_application_finds_address_authority_and_certificate_in_one_secret() {
    let stage = Stage::new(spec(json!({"clientCertificates": "Required"})));
    stage.until_ready().await;
    assert_eq!(stage.status()["binding"]["name"], "demo-connection");
    let found = |key| text(&stage, CONNECTION, key);
    assert_eq!((found("type"), found("provider")), ("etcd".to_owned(), "quorate".to_owned()));
    assert_eq!(found("uri"), "https://demo-client.ns.svc.k8s.example:2379");
    assert_eq!(
        (found("host"), found("port")),
        ("demo-client.ns.svc.k8s.example".to_owned(), "2379".to_owned())
    );
    assert_eq!(found("ca.crt"), text(&stage, CLIENTS, "ca.crt"));
    let own = x509::first(found("tls.crt").as_bytes()).expect("a certificate");
    let authority = x509::first(found("ca.crt").as_bytes()).expect("an authority");
    assert!(own.is_signed_by(&authority) && own.has_usages(false, true));
    assert_eq!((found("certificates"), found("private-key")), (found("tls.crt"), found("tls.key")));

    let clear = Stage::new(spec(Value::Null));
    clear.until_ready().await;
    assert_eq!(text(&clear, CONNECTION, "uri"), "http://demo-client.ns.svc.k8s.example:2379");
    assert!(text(&clear, CONNECTION, "ca.crt").is_empty());
}

#[tokio::test]
async fn the_end_of_each_certificate_is_a_metric_as_long_as_the_cluster_is_there() {
    let stage = Stage::new(spec(json!({})));
    stage.until_ready().await;
    let metrics = &stage.context.metrics;
    let told = |what: &str| {
        let line = format!("certificate=\"{what}\"");
        metrics
            .text()
            .expect("text")
            .lines()
            .any(|found| found.contains(&line) && found.contains("name=\"demo\""))
    };
    for what in ["peer", "peer-authority", "client", "client-authority"] {
        assert!(told(what), "{what}");
    }
    metrics.forget_certificates(&kube::runtime::reflector::ObjectRef::new("demo").within("ns"));
    assert!(!told("peer"));
}
