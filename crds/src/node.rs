//! What the spec says of the node itself: how much it may hold, how much history it keeps, what it logs.
//!
//! Each field sets one of the node's flags. The flags that have no field here are set with `spec.env`.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// How much history is kept when nothing is said: what etcd's users set most often, and nothing grows for ever.
const DEFAULT_RETENTION: &str = "1h";

/// How much history the cluster keeps. Older versions of keys are compacted by the leader.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "self.mode != 'Periodic' || string(self.retention).matches('^([0-9]{1,5}|([0-9]{1,9}([.][0-9]{1,9})?(h|m|s|ms))+)$')"
).message(
    "compaction.retention is no time: write one such as 1h, 30m or 1h30m, or 0 to compact nothing; with mode Revision it is a number of revisions"
))]
#[x_kube(validation = Rule::new(
    "self.mode != 'Revision' || string(self.retention).matches('^[0-9]{1,18}$')"
).message(
    "compaction.retention must be a number of revisions with mode Revision, such as 10000, or 0 to compact nothing"
))]
pub struct Compaction {
    /// What the retention is counted in: Periodic (time), or Revision.
    #[serde(default)]
    pub mode: CompactionMode,
    /// How much history is kept: a time such as 1h30m, or a number of hours; with mode Revision a number of revisions. 0: nothing is compacted
    /// unless a client asks for it.
    #[serde(default = "default_retention")]
    #[schemars(schema_with = "retention")]
    pub retention: IntOrString,
}

/// What a retention is counted in.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CompactionMode {
    /// In time.
    #[default]
    Periodic,
    /// In revisions.
    Revision,
}

impl CompactionMode {
    /// The node's word for it.
    pub fn flag(self) -> &'static str {
        match self {
            Self::Periodic => "periodic",
            Self::Revision => "revision",
        }
    }
}

impl Compaction {
    /// The retention, as the node's flag has it.
    pub fn retention(&self) -> String {
        match &self.retention {
            IntOrString::Int(number) => number.to_string(),
            IntOrString::String(text) => text.clone(),
        }
    }
}

impl Default for Compaction {
    fn default() -> Self {
        Self { mode: CompactionMode::default(), retention: default_retention() }
    }
}

fn default_retention() -> IntOrString {
    IntOrString::String(DEFAULT_RETENTION.to_owned())
}

fn retention(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "How much history is kept: a time such as 1h30m, or a number of hours; with mode Revision a number of revisions. \
                        0: nothing is compacted unless a client asks for it.",
        "x-kubernetes-int-or-string": true,
        "maxLength": 32,
    })
}

/// What the nodes log.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    /// What is logged, as in `info` or `info,quorate_node=debug`.
    #[serde(default = "default_filter")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("!(self in ['text', 'json', 'Text', 'Json'])").message(
        "log.filter says what is logged, such as info; how it looks is said by log.format"
    ))]
    pub filter: String,
    /// What a line looks like: Text, or Json.
    #[serde(default)]
    pub format: LogFormat,
}

/// What a line of the log looks like.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

impl LogFormat {
    /// The node's word for it.
    pub fn flag(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

fn default_filter() -> String {
    "info".to_owned()
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: default_filter(), format: LogFormat::default() }
    }
}
