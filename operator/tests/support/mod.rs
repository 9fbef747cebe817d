//! An API server and nodes in memory, for rounds of the controller.

pub(crate) mod api;
pub(crate) mod nodes;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use quorate_operator::ages::Ages;
use quorate_operator::applied::Applied;
use quorate_operator::controller::{Context, Error, Guarded, reconcile};
use quorate_operator::custody::{ANNOTATION, Installation};
use quorate_operator::events::Events;
use quorate_operator::fleet::{Fleet, Rules};
use quorate_operator::lease::Held;
use quorate_operator::metrics::Metrics;
use quorate_operator::pace::Pace;
use quorate_operator::streams::Streams;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use self::api::Api;
use self::nodes::Nodes;

/// An operator, an API server and nodes.
pub(crate) struct Stage {
    pub(crate) api: Arc<Api>,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) context: Arc<Context>,
    /// Whose rounds are to begin. Nobody else listens: the tests begin them themselves.
    pub(crate) triggers: mpsc::Receiver<ObjectRef<Guarded>>,
}

/// The installation that looks after the cluster.
pub(crate) const OPERATOR: &str = "quorate-system/quorate-operator";
pub(crate) const CLUSTER: &str = "/apis/quorate.dev/v1alpha1/namespaces/ns/raftclusters/demo";
pub(crate) const STATEFUL_SET: &str = "/apis/apps/v1/namespaces/ns/statefulsets/demo";

pub(crate) fn installation(name: &str) -> Installation {
    let (namespace, lease) = name.split_once('/').expect("NAMESPACE/LEASE");
    Installation { namespace: namespace.to_owned(), lease: lease.to_owned() }
}

impl Stage {
    pub(crate) fn new(spec: Value) -> Self {
        let log = Arc::new(Mutex::new(Vec::new()));
        let api = Arc::new(Api::new(log.clone()));
        let nodes = Arc::new(Nodes::new(log));
        api.put(
            CLUSTER,
            json!({
                "apiVersion": "quorate.dev/v1alpha1", "kind": "RaftCluster",
                "metadata": {"name": "demo", "namespace": "ns", "generation": 1, "annotations": {ANNOTATION: OPERATOR}},
                "spec": spec,
            }),
        );
        let (context, triggers) = operator(&api, &nodes, "node:test");
        Self { api, nodes, context, triggers }
    }

    /// The operator is exchanged for another version of it, whose nodes have this image.
    pub(crate) fn upgrade_operator(&mut self, node_image: &str) {
        (self.context, self.triggers) = operator(&self.api, &self.nodes, node_image);
    }

    /// The resource as it is stored now.
    pub(crate) fn cluster(&self) -> Arc<DeserializeGuard<quorate_crds::RaftCluster>> {
        let stored = self.api.get(CLUSTER).expect("the cluster exists");
        Arc::new(serde_json::from_value(stored).expect("the guard takes anything with metadata"))
    }

    pub(crate) async fn round(&self) -> Result<Action, Error> {
        self.context.held.renewed(tokio::time::Instant::now());
        reconcile(self.cluster(), self.context.clone()).await
    }

    /// Kubernetes' part: makes pods and claims for the `StatefulSet`, and starts them.
    pub(crate) fn kubernetes(&self) {
        let Some(set) = self.api.get(STATEFUL_SET) else { return };
        let replicas = set["spec"]["replicas"].as_u64().expect("a number");
        let labels = &set["spec"]["selector"]["matchLabels"];
        let mut hasher = DefaultHasher::new();
        set["spec"]["template"].to_string().hash(&mut hasher);
        let revision = format!("demo-{:x}", hasher.finish());
        self.api.edit(STATEFUL_SET, |set| {
            set["status"] =
                json!({"observedGeneration": set["metadata"]["generation"], "updateRevision": &revision});
        });
        let mut pod_labels = labels.clone();
        pod_labels["controller-revision-hash"] = revision.into();
        let pod_path = |ordinal: u64| format!("/api/v1/namespaces/ns/pods/demo-{ordinal}");
        for ordinal in 0..replicas {
            let claim = format!("/api/v1/namespaces/ns/persistentvolumeclaims/data-demo-{ordinal}");
            if self.api.get(&claim).is_none() {
                let name = format!("data-demo-{ordinal}");
                self.api.put(
                    &claim,
                    json!({"metadata": {"name": name, "namespace": "ns", "labels": labels},
                        "spec": {"resources": {"requests": {"storage": "1Gi"}}}, "status": {"phase": "Bound"}}),
                );
            }
            if self.api.get(&pod_path(ordinal)).is_none() {
                self.api.put(
                    &pod_path(ordinal),
                    json!({"metadata": {"name": format!("demo-{ordinal}"), "namespace": "ns", "labels": pod_labels},
                        "status": {"phase": "Running", "podIP": format!("10.0.0.{ordinal}"),
                            "conditions": [{"type": "Ready", "status": "True"}]}}),
                );
                self.nodes.start(ordinal);
            }
        }
        for ordinal in replicas..10 {
            self.api.remove(&pod_path(ordinal));
        }
    }

    /// Rounds, Kubernetes' part and the nodes' in turn, until the cluster is ready.
    pub(crate) async fn until_ready(&self) {
        for _ in 0..60 {
            self.round().await.expect("the round succeeds");
            self.kubernetes();
            self.nodes.progress();
            if self.condition("Ready") == Some("True".to_owned()) && self.settled() {
                return;
            }
        }
        panic!("not ready: {:#?}", self.api.get(CLUSTER));
    }

    fn settled(&self) -> bool {
        let cluster = self.api.get(CLUSTER).expect("the cluster exists");
        cluster["status"]["members"].as_array().map(Vec::len)
            == cluster["spec"]["replicas"].as_u64().map(|n| n as usize)
            && cluster["status"]["plan"].is_null()
    }

    pub(crate) fn status(&self) -> Value {
        self.api.get(CLUSTER).expect("the cluster exists")["status"].clone()
    }

    pub(crate) fn condition(&self, kind: &str) -> Option<String> {
        self.find_condition(kind).and_then(|found| Some(found["status"].as_str()?.to_owned()))
    }

    pub(crate) fn find_condition(&self, kind: &str) -> Option<Value> {
        self.status()["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind).cloned()
    }
}

fn operator(
    api: &Arc<Api>,
    nodes: &Arc<Nodes>,
    node_image: &str,
) -> (Arc<Context>, mpsc::Receiver<ObjectRef<Guarded>>) {
    let client = api.client();
    let (streams, triggers) = Streams::new(nodes.clone());
    let context = Context {
        client: client.clone(),
        admin: nodes.clone(),
        streams,
        events: Events::new(client, Some("operator-0".to_owned())),
        metrics: Arc::new(Metrics::default()),
        node_image: node_image.to_owned(),
        domain: "k8s.example".to_owned(),
        fleet: Fleet::new(Rules::default()),
        installation: installation(OPERATOR),
        applied: Applied::default(),
        pace: Pace::default(),
        ages: Ages::default(),
        held: Held::default(),
        asked: Mutex::default(),
        failures: Mutex::new(HashMap::new()),
    };
    (Arc::new(context), triggers)
}
