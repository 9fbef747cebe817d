//! The CRD in YAML, for kubectl and for the Helm chart.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
use kube::CustomResourceExt;
use serde_json::json;

use crate::RaftCluster;

const NOTICE: &str = "# Made from the types in crds/src by `cargo run -p quorate-crds`. Do not edit.\n";

/// Where a generated file stands in the repository, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The path, from the root of the repository.
    pub path: &'static str,
    /// The whole text of the file.
    pub text: String,
}

/// The definition of `RaftCluster`.
pub fn crd() -> CustomResourceDefinition {
    let mut crd = RaftCluster::crd();
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        let properties = schema.and_then(|schema| schema.properties.as_mut());
        if let Some(status) = properties.and_then(|properties| properties.get_mut("status")) {
            status.default = Some(JSON(unseen()));
        }
    }
    crd
}

/// The status of a cluster that no operator has looked at. Without one, tools that wait for what they have applied take it for done.
fn unseen() -> serde_json::Value {
    json!({
        "observedGeneration": -1,
        "conditions": [{
            "type": "Ready",
            "status": "Unknown",
            "reason": "Pending",
            "message": "no operator has looked at this cluster yet",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        }],
    })
}

/// Every file that is made from the types.
pub fn manifests() -> Result<Vec<Target>, serde_yaml::Error> {
    Ok(vec![
        Target {
            path: "crds/raftclusters.yaml",
            text: format!("{NOTICE}{}", serde_yaml::to_string(&crd())?),
        },
        Target { path: "charts/quorate/templates/crds.yaml", text: chart_template()? },
        // In a chart of its own, as Helm installs before it looks at what any chart of a release has of it.
        Target {
            path: "charts/quorate-crds/crds/raftclusters.yaml",
            text: format!("{NOTICE}{}", serde_yaml::to_string(&crd())?),
        },
    ])
}

/// As a template of the chart, so that `helm upgrade` upgrades it; with the keep policy, so that `helm uninstall` does not
/// delete every cluster with it.
fn chart_template() -> Result<String, serde_yaml::Error> {
    let mut crd = crd();
    crd.metadata
        .annotations
        .get_or_insert_default()
        .insert("helm.sh/resource-policy".to_owned(), "keep".to_owned());
    let yaml = serde_yaml::to_string(&crd)?;
    Ok(format!("{NOTICE}{{{{- if .Values.crds.install }}}}\n---\n{yaml}{{{{- end }}}}\n"))
}
