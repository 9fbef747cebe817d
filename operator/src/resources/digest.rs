//! What the pods were made from, in two digests on the `StatefulSet`: a change of the template that no change of the spec explains is another
//! operator's.

use std::fmt::Write;

use k8s_openapi::api::apps::v1::StatefulSet;
use quorate_crds::{RaftCluster, RaftClusterSpec};
use serde_json::{Map, Value, json};

use crate::upgrade::Rendered;

/// On a `StatefulSet`: the digest of the template that the operator made.
const TEMPLATE: &str = "quorate.dev/template";
/// On a `StatefulSet`: the digest of what the spec said of it.
const INPUTS: &str = "quorate.dev/template-of";

/// The fields of the spec that make no other pods.
const BESIDE_THE_PODS: [&str; 14] = [
    "replicas",
    "storage",
    "image",
    "networkPolicy",
    "service",
    "metadata",
    "deletionPolicy",
    "deletionProtection",
    "paused",
    "hibernate",
    "disruptions",
    "replacement",
    "recover",
    "upgrade",
];

/// The digests of a `StatefulSet` that was made of a cluster's spec and of an image.
pub fn digests(cluster: &RaftCluster, image: &str, set: &StatefulSet) -> Rendered {
    let template = set.spec.as_ref().map(|spec| &spec.template);
    let inputs = json!({ "image": image, "spec": said(&cluster.spec) });
    Rendered {
        template: digest(&serde_json::to_value(template).unwrap_or_default()),
        inputs: digest(&inputs),
    }
}

/// Writes them on it.
pub fn write(set: &mut StatefulSet, rendered: &Rendered) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(TEMPLATE.to_owned(), rendered.template.clone());
    annotations.insert(INPUTS.to_owned(), rendered.inputs.clone());
}

/// What stands on one. None where nothing does.
pub fn read(set: &StatefulSet) -> Option<Rendered> {
    let annotations = set.metadata.annotations.as_ref()?;
    Some(Rendered { template: annotations.get(TEMPLATE)?.clone(), inputs: annotations.get(INPUTS)?.clone() })
}

/// What the spec says of the pods, and that is not the default: a field that an older operator did not know, and that nobody has set, says
/// nothing.
fn said(spec: &RaftClusterSpec) -> Value {
    let mut said = serde_json::to_value(spec).unwrap_or_default();
    let defaults = serde_json::to_value(RaftClusterSpec::default()).unwrap_or_default();
    if let Value::Object(fields) = &mut said {
        for beside in BESIDE_THE_PODS {
            fields.remove(beside);
        }
    }
    difference(said, &defaults).unwrap_or_default()
}

fn difference(said: Value, default: &Value) -> Option<Value> {
    match (said, default) {
        (Value::Object(fields), Value::Object(_) | Value::Null) => {
            let fields: Map<_, _> = fields
                .into_iter()
                .filter_map(|(key, value)| {
                    let default = default.get(&key).unwrap_or(&Value::Null);
                    Some((key, difference(value, default)?))
                })
                .collect();
            (!fields.is_empty()).then_some(Value::Object(fields))
        }
        // Null is what the defaults lack: an empty list or object says no more.
        (said, Value::Null) => (!is_empty(&said)).then_some(said),
        (said, default) => (said != *default).then_some(said),
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

/// Of the value as JSON with its keys sorted, which is how a `Map` keeps them.
fn digest(value: &Value) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, value.to_string().as_bytes());
    // Half of it tells templates apart as well.
    hash.as_ref().iter().take(16).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(spec: Value) -> String {
        let spec = serde_json::from_value(spec).expect("a spec");
        digests(&RaftCluster::new("demo", spec), "node:1", &StatefulSet::default()).inputs
    }

    #[test]
    fn only_what_makes_other_pods_counts() {
        let plain = inputs(json!({}));
        for same in [
            json!({"replicas": 5}),
            json!({"storage": {"size": "7Gi"}}),
            json!({"upgrade": {"approved": "9.9.9"}}),
            json!({"paused": true}),
            json!({"log": {"filter": "info"}, "imagePullPolicy": "IfNotPresent"}),
        ] {
            assert_eq!(inputs(same.clone()), plain, "{same}");
        }
        for other in [json!({"quota": "1Gi"}), json!({"podTemplate": {"metadata": {"labels": {"a": "b"}}}})] {
            assert_ne!(inputs(other.clone()), plain, "{other}");
        }
    }

    #[test]
    fn empty_field_says_as_little_as_a_missing_one() {
        assert_eq!(difference(json!({"a": {"b": {}}}), &json!({"a": {}})), None);
        assert_eq!(difference(json!({"a": 1, "b": 2}), &json!({"a": 1})), Some(json!({"b": 2})));
    }
}
