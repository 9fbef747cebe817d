//! `spec.resources`: processor and memory of each node, written as pods have them.

use k8s_openapi::api::core::v1::ResourceRequirements;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::pod::brief;

/// What Kubernetes takes for a quantity, when it is a string.
const QUANTITY: &str =
    r"^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]+)?$";

/// The schema of resources: numbers are taken as they are, and strings that are no quantities are refused.
pub(crate) fn schema(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = brief::<ResourceRequirements>(
        generator,
        "Processor and memory of each node. Without any, a small request and no limit.",
    );
    quantities(schema.ensure_object());
    schema
}

/// A pod takes `cpu: 0.5` without quotes. No type of a structural schema is "a number or a string", so a quantity has none: what is a
/// string has to be a quantity, and the API server refuses the rest by what it may not be.
fn quantities(schema: &mut Map<String, Value>) {
    for name in ["limits", "requests"] {
        let Some(amounts) = schema.get_mut("properties").and_then(|all| all.get_mut(name)) else { continue };
        amounts["additionalProperties"] = json!({
            "x-kubernetes-preserve-unknown-fields": true,
            "pattern": QUANTITY,
            "not": {"enum": [true, false]},
            "maxItems": 0,
            "maxProperties": 0,
        });
    }
}
