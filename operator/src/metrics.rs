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
}

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
        Self { registry, rounds, round_seconds, steps, leading, certificates }
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
