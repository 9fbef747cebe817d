//! `spec.podTemplate`: what users lay over the members' pods.
//!
//! It is a pod template of Kubernetes, whole, and is merged as Kubernetes merges a patch: lists of containers, volumes, mounts and variables by
//! their keys, the rest as it is. What the operator owns is refused with words, so that nothing is dropped in silence.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodSpec;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::resources;

/// What is laid over the pods of the members.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Labels and annotations of the pods.
    #[serde(default)]
    pub metadata: PodMetadata,
    /// Where and how the pods run, and what runs in them beside the node.
    #[serde(default, skip_serializing_if = "says_nothing")]
    #[schemars(schema_with = "overlay")]
    #[x_kube(validation = Rule::new(
        "!has(self.hostname) && !has(self.subdomain) && !has(self.setHostnameAsFQDN) && !has(self.nodeName) && \
         !has(self.activeDeadlineSeconds) && !has(self.ephemeralContainers) && (!has(self.restartPolicy) || self.restartPolicy == 'Always')"
    ).message(
        "podTemplate.spec must not hold hostname, subdomain, setHostnameAsFQDN, nodeName, activeDeadlineSeconds, ephemeralContainers or a restartPolicy other than Always: members have their pods' names, and run for good. Leave them out; nodeSelector and affinity say where pods run"
    ))]
    #[x_kube(validation = Rule::new(
        "!has(self.terminationGracePeriodSeconds) || self.terminationGracePeriodSeconds >= 30 || \
         (self.terminationGracePeriodSeconds >= 0 && has(self.containers) && self.containers.exists(c, c.name != 'node'))"
    ).message(
        "podTemplate.spec.terminationGracePeriodSeconds must be at least 30: a node hands its leadership over, and lets its clients go, before it ends"
    ))]
    #[x_kube(validation = Rule::new(
        "!has(self.volumes) || self.volumes.all(v, !(v.name in ['data', 'peer-tls', 'client-tls']))"
    ).message(
        "podTemplate.spec.volumes must not hold data, peer-tls or client-tls: these are the node's. Choose another name"
    ))]
    #[x_kube(validation = Rule::new(
        "!has(self.containers) || self.containers.all(c, c.name != 'node' || (!has(c.image) && !has(c.imagePullPolicy) && !has(c.command) && \
         !has(c.args) && !has(c.workingDir) && !has(c.ports) && !has(c.env) && !has(c.envFrom) && !has(c.resources) && !has(c.lifecycle) && \
         !has(c.livenessProbe) && !has(c.readinessProbe) && !has(c.startupProbe) && !has(c.restartPolicy)))"
    ).message(
        "podTemplate.spec.containers: to the container node only volumeMounts, volumeDevices, securityContext, resizePolicy and the like can be added. Write spec.image, spec.env and spec.resources for these; its command, ports and probes are the operator's"
    ))]
    #[x_kube(validation = Rule::new(
        "!has(self.containers) || self.containers.all(c, c.name == 'node' || has(c.image))"
    ).message("podTemplate.spec.containers: each container but node needs an image"))]
    #[x_kube(validation = Rule::new(
        "!has(self.initContainers) || self.initContainers.all(c, c.name != 'node')"
    ).message(
        "podTemplate.spec.initContainers must not hold node: that is the node itself. Choose another name; what is laid over the node is written under containers"
    ))]
    #[x_kube(validation = Rule::new(
        "(!has(self.containers) || self.containers.all(c, !has(c.volumeMounts) || c.volumeMounts.all(m, !(m.name in ['data', 'peer-tls', 'client-tls'])))) && \
         (!has(self.initContainers) || self.initContainers.all(c, !has(c.volumeMounts) || c.volumeMounts.all(m, !(m.name in ['data', 'peer-tls', 'client-tls']))))"
    ).message(
        "podTemplate.spec: no container may mount data, peer-tls or client-tls: a member's log and keys are for its node alone. Add a volume of your own"
    ))]
    #[x_kube(validation = Rule::new(
        "!has(self.containers) || self.containers.all(c, c.name != 'node' || !has(c.volumeMounts) || c.volumeMounts.all(m, \
         !m.mountPath.startsWith('/var/lib/quorate') && !m.mountPath.startsWith('/etc/quorate') && !m.mountPath.startsWith('/usr/local/bin')))"
    ).message(
        "podTemplate.spec.containers: nothing may be mounted over /var/lib/quorate, /etc/quorate and /usr/local/bin of the container node: its data, certificates and programs are there. Choose another path"
    ))]
    #[x_kube(validation = Rule::new(
        "!has(self.containers) || self.containers.all(c, c.name == 'node' || !has(c.ports) || c.ports.all(p, !(p.containerPort in [2379, 2380, 2381])))"
    ).message(
        "podTemplate.spec.containers: ports 2379, 2380 and 2381 are the node's, and all containers of a pod share its address. Choose others"
    ))]
    pub spec: PodSpec,
}

/// Labels and annotations of the pods.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PodMetadata {
    /// Labels added to the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 128))]
    #[x_kube(validation = Rule::new(
        "self.all(key, !key.startsWith('quorate.dev/') && !(key in ['app.kubernetes.io/name', 'app.kubernetes.io/instance', 'app.kubernetes.io/managed-by']))"
    ).message(
        "podTemplate.metadata.labels must not hold app.kubernetes.io/name, instance or managed-by, nor names that begin with quorate.dev/: the operator finds the pods by them. Choose others"
    ))]
    pub labels: BTreeMap<String, String>,
    /// Annotations added to the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

// Serde wants a reference.
fn says_nothing(spec: &PodSpec) -> bool {
    *spec == PodSpec::default()
}

/// A pod's spec of which nothing is required. How many containers, volumes and ports there may be is what the API server has to know to see that
/// the rules over them take no time.
fn overlay(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = brief::<PodSpec>(
        generator,
        "What is laid over the pods: any field of a pod's spec, merged as Kubernetes merges a patch. A container called node is the node \
         itself. With other containers the node is a sidecar: it starts before them, and ends after them; \
         terminationGracePeriodSeconds is then their time, and the node's is added. A given affinity replaces the operator's own.",
    );
    let spec = schema.ensure_object();
    spec.remove("required");
    bound(spec, &["volumes"], 64);
    for containers in ["containers", "initContainers"] {
        bound(spec, &[containers], 16);
        bound(spec, &[containers, "ports"], 32);
        bound(spec, &[containers, "volumeMounts"], 64);
    }
    schema
}

/// Limits the list at a path of properties and their items.
fn bound(schema: &mut Map<String, Value>, path: &[&str], items: u32) {
    let Some((first, rest)) = path.split_first() else { return };
    let list =
        schema.get_mut("properties").and_then(|all| all.get_mut(*first)).and_then(Value::as_object_mut);
    let Some(list) = list else { return };
    if rest.is_empty() {
        list.insert("maxItems".to_owned(), items.into());
    } else if let Some(item) = list.get_mut("items").and_then(Value::as_object_mut) {
        bound(item, rest, items);
    }
}

/// The schema of a type of Kubernetes without its long descriptions, which `kubectl explain pod.spec` has already: with
/// them the CRD would be several times its size. Quantities are taken as pods take them.
pub(crate) fn brief<T: JsonSchema>(generator: &mut SchemaGenerator, description: &str) -> Schema {
    let mut schema = T::json_schema(generator);
    // References are inlined by the CRD's generator only after this; they are resolved here to be shortened too.
    let object = schema.ensure_object();
    strip_descriptions(object);
    resources::quantities(object);
    schema.insert("description".to_owned(), description.into());
    schema
}

fn strip_descriptions(object: &mut Map<String, Value>) {
    // A property may itself be called "description": only strings are the schema's own.
    if object.get("description").is_some_and(Value::is_string) {
        object.remove("description");
    }
    for value in object.values_mut() {
        strip_in(value);
    }
}

fn strip_in(value: &mut Value) {
    match value {
        Value::Object(object) => strip_descriptions(object),
        Value::Array(items) => items.iter_mut().for_each(strip_in),
        _ => {}
    }
}
