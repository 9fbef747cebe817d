//! What the operator counts, in the text format of Prometheus.

use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use quorate_crds::{MemberRole, RaftClusterStatus};

use crate::controller::Guarded;
use crate::trust::{TERMS, Term};

type Labels = Vec<(&'static str, String)>;

/// The operator's metrics.
pub struct Metrics {
    registry: Registry,
    rounds: Family<Labels, Counter>,
    round_seconds: Histogram,
    steps: Family<Labels, Counter>,
    leading: Gauge<f64, AtomicU64>,
    certificates: Family<Labels, Gauge<i64, AtomicI64>>,
    clusters: [Family<Labels, Gauge>; 5],
}

/// What is said of each cluster: the name of the metric, and what it means.
const OF_A_CLUSTER: [(&str, &str); 5] = [
    ("cluster_ready", "1 while the condition Ready of the cluster holds"),
    ("cluster_quorate", "1 while a leader of the cluster with a quorum is known"),
    ("cluster_voters", "Voters of the newest configuration"),
    ("cluster_voters_healthy", "Voters that the leader hears of, and that have caught up"),
    ("cluster_term", "The term of the newest leader"),
];

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("quorate_operator");
        let rounds = Family::<Labels, Counter>::default();
        let round_seconds = Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0]);
        let steps = Family::<Labels, Counter>::default();
        let leading = Gauge::<f64, AtomicU64>::default();
        registry.register("reconciliations", "Rounds, by their result", rounds.clone());
        registry.register("reconciliation_seconds", "The time that rounds take", round_seconds.clone());
        registry.register("steps", "Steps of plans that were done, by kind", steps.clone());
        let certificates = Family::<Labels, Gauge<i64, AtomicI64>>::default();
        let ends = "When certificates end, in seconds since 1970, by what they are for";
        registry.register("certificate_end_timestamp_seconds", ends, certificates.clone());
        registry.register("leading", "1 while this operator holds the lease", leading.clone());
        let clusters = OF_A_CLUSTER.map(|(name, help)| {
            let family = Family::<Labels, Gauge>::default();
            registry.register(name, help, family.clone());
            family
        });
        Self { registry, rounds, round_seconds, steps, leading, certificates, clusters }
    }
}

impl Metrics {
    /// A round has ended.
    pub fn round(&self, succeeded: bool, took: Duration) {
        let result = if succeeded { "success" } else { "failure" };
        self.rounds.get_or_create(&vec![("result", result.to_owned())]).inc();
        self.round_seconds.observe(took.as_secs_f64());
    }

    /// A step has been done.
    pub fn step(&self, kind: &str) {
        self.steps.get_or_create(&vec![("kind", kind.to_owned())]).inc();
    }

    /// What the status of a cluster says now.
    pub fn cluster(&self, namespace: &str, name: &str, status: &RaftClusterStatus) {
        let holds = |kind: &str| {
            let found = status.conditions.iter().find(|condition| condition.type_ == kind);
            i64::from(found.is_some_and(|condition| condition.status == "True"))
        };
        let voters = status.members.iter().filter(|member| member.role != MemberRole::Learner);
        let healthy = voters.clone().filter(|member| member.healthy).count();
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let values = [
            holds("Ready"),
            holds("Quorate"),
            count(voters.count()),
            count(healthy),
            status.term.unwrap_or_default(),
        ];
        for (family, value) in self.clusters.iter().zip(values) {
            family.get_or_create(&labels(namespace, name)).set(value);
        }
    }

    /// Forgets a cluster that is gone.
    pub fn forget(&self, namespace: &str, name: &str) {
        for family in &self.clusters {
            family.remove(&labels(namespace, name));
        }
    }

    /// Whether this operator holds the lease.
    pub fn leading(&self, leading: bool) {
        self.leading.set(if leading { 1.0 } else { 0.0 });
    }

    /// How long the certificates of a cluster are good.
    pub fn certificates(&self, cluster: &ObjectRef<Guarded>, terms: &[Term]) {
        for what in TERMS {
            let labels = certificate(cluster, what);
            match terms.iter().find(|term| term.what == what) {
                Some(term) => drop(self.certificates.get_or_create(&labels).set(term.not_after)),
                None => drop(self.certificates.remove(&labels)),
            }
        }
    }

    /// A cluster is gone.
    pub fn forget_certificates(&self, cluster: &ObjectRef<Guarded>) {
        self.certificates(cluster, &[]);
    }

    /// All metrics as text.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn certificate(cluster: &ObjectRef<Guarded>, what: &str) -> Labels {
    let namespace = cluster.namespace.clone().unwrap_or_default();
    vec![("namespace", namespace), ("name", cluster.name.clone()), ("certificate", what.to_owned())]
}

/// `namespace` alone would be taken for the operator's own by whoever scrapes it.
fn labels(namespace: &str, name: &str) -> Labels {
    vec![("cluster_namespace", namespace.to_owned()), ("cluster", name.to_owned())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_has_its_metrics_until_it_is_gone() {
        let metrics = Metrics::default();
        let status = RaftClusterStatus { term: Some(7), ..RaftClusterStatus::default() };
        metrics.cluster("ns", "demo", &status);
        let line = "quorate_operator_cluster_term{cluster_namespace=\"ns\",cluster=\"demo\"} 7";
        let text = metrics.text().expect("text");
        assert!(text.contains(line), "{text}");
        metrics.forget("ns", "demo");
        assert!(!metrics.text().expect("text").contains("demo"));
    }
}
