//! `spec.resources`: processor and memory of each node, written as pods have them.

use k8s_openapi::api::core::v1::ResourceRequirements;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::pod::brief;

/// What Kubernetes takes for a quantity, when it is a string.
const QUANTITY: &str =
    r"^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]+)?$";

/// The schema of resources.
pub(crate) fn schema(generator: &mut SchemaGenerator) -> Schema {
    brief::<ResourceRequirements>(
        generator,
        "Processor and memory of each node. Without any, a small request and no limit.",
    )
}

/// Makes every quantity of a schema one that is taken as pods take it.
///
/// A pod takes `cpu: 0.5` without quotes. No type of a structural schema is "a number or a string", so a quantity has none: what is a
/// string has to be a quantity, and the API server refuses the rest by what it may not be.
pub(crate) fn quantities(schema: &mut Map<String, Value>) {
    for (name, value) in schema.iter_mut() {
        // Ports and percentages are numbers or strings too. Quantities are known by where they stand: amounts of resources, and two fields.
        let is_amount = ["additionalProperties", "sizeLimit", "divisor"].contains(&name.as_str());
        if is_amount && value.get("x-kubernetes-int-or-string").is_some() {
            *value = quantity();
        }
        match value {
            Value::Object(inner) => quantities(inner),
            Value::Array(items) => items.iter_mut().filter_map(Value::as_object_mut).for_each(quantities),
            _ => {}
        }
    }
}

fn quantity() -> Value {
    json!({
        "x-kubernetes-preserve-unknown-fields": true,
        "pattern": QUANTITY,
        "not": {"enum": [true, false]},
        "maxItems": 0,
        "maxProperties": 0,
    })
}
