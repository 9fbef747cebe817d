//! `spec.env`: which of the node's variables are for users, and which are not.

use k8s_openapi::api::core::v1::EnvVar;
use schemars::{Schema, SchemaGenerator};

use crate::pod::brief;

/// They found a cluster, or let a member in.
const FOUNDING: [&str; 2] = ["QUORATE_BOOTSTRAP", "QUORATE_JOIN"];
/// The operator sets them, from where a pod runs and what it mounts.
const SET: [&str; 17] = [
    "POD_NAME",
    "QUORATE_DATA_DIR",
    "QUORATE_NAME",
    "QUORATE_LISTEN_CLIENT",
    "QUORATE_LISTEN_PEER",
    "QUORATE_LISTEN_HTTP",
    "QUORATE_ADVERTISE_CLIENT",
    "QUORATE_ADVERTISE_PEER",
    "QUORATE_STOP_DELAY",
    "QUORATE_CLIENT_CERT",
    "QUORATE_CLIENT_KEY",
    "QUORATE_CLIENT_CA",
    "QUORATE_PEER_CERT",
    "QUORATE_PEER_KEY",
    "QUORATE_PEER_CA",
    "QUORATE_PEER_ALLOWED_NAMES",
    "QUORATE_ADMIN_ALLOWED_NAMES",
];
/// They have fields of their own.
const FIELDS: [&str; 5] = [
    "QUORATE_QUOTA_BYTES",
    "QUORATE_AUTO_COMPACTION_MODE",
    "QUORATE_AUTO_COMPACTION_RETENTION",
    "QUORATE_LOG",
    "QUORATE_LOG_FORMAT",
];

/// Whether a user may set this variable of the node. The schema's rules refuse the others; an object that is older than the rules may hold them.
pub fn is_for_users(name: &str) -> bool {
    ![&FOUNDING[..], &SET, &FIELDS].into_iter().flatten().any(|reserved| *reserved == name)
}

/// Holds while no variable founds or joins.
pub(crate) fn founds_nothing() -> String {
    holds_none(&FOUNDING)
}

/// Holds while no variable is one that the operator sets.
pub(crate) fn leaves_the_operators() -> String {
    holds_none(&SET)
}

/// Holds while no variable is one that has a field.
pub(crate) fn leaves_fields() -> String {
    holds_none(&FIELDS)
}

fn holds_none(names: &[&str]) -> String {
    format!("self.all(variable, !(variable.name in ['{}']))", names.join("', '"))
}

/// The schema of the list.
pub(crate) fn schema(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = brief::<Vec<EnvVar>>(
        generator,
        "More environment variables for the node. Names that begin with `QUORATE_` set those of the node's options that \
         have no field here.",
    );
    // The API server wants to know how long a rule over all of them may take.
    schema.insert("maxItems".to_owned(), 256.into());
    schema
}
