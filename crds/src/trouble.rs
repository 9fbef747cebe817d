//! `status.troubles`: the pods that do not serve, each with its cause.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A pod that does not serve, and why.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TroubleStatus {
    /// The pod.
    pub pod: String,
    /// The member that the pod runs, or ran, in hexadecimal. Absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// Why it does not serve.
    pub cause: Cause,
    /// What is known of it, and what to do where the operator does nothing.
    pub message: String,
    /// Since when it has been seen, by the operator's clock.
    pub since: Time,
}

/// Why a pod does not serve.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The Kubernetes node that it ran on does not exist any more.
    NodeGone,
    /// The Kubernetes node that it runs on is not ready.
    NodeAway,
    /// Its volume can be used on one Kubernetes node alone, which does not exist any more.
    VolumeOnGoneNode,
    /// Its volume can be used on one Kubernetes node alone, which is not ready.
    VolumeOnAwayNode,
    /// The object of its volume is missing.
    VolumeMissing,
    /// Its volume cannot be attached or mounted.
    VolumeStuck,
    /// Its volume cannot be made.
    VolumeNotMade,
    /// The storage class that its claim names does not exist.
    StorageClassMissing,
    /// The data on its volume is damaged.
    Damaged,
    /// Its volume is full.
    VolumeFull,
    /// Its disk fails.
    DiskFailed,
    /// The data was written by a newer version.
    TooOld,
    /// The data belongs to another member or another cluster.
    Foreign,
    /// The volume may hold acknowledged writes that the others have lost.
    Contradicted,
    /// Another process runs as this member.
    SecondProcess,
    /// It was ended because it took too much memory.
    OutOfMemory,
    /// It ends again and again, for a reason that has no name of its own.
    CrashLoop,
    /// Its image cannot be had.
    ImageMissing,
    /// There is no Kubernetes node for it.
    Unschedulable,
    /// The API server refuses to make it.
    Refused,
    /// Kubernetes does not start it.
    NotStarted,
    /// It receives the log and does not reach its end.
    NotCatchingUp,
    /// It runs, and does not serve.
    Unready,
}

impl Cause {
    /// The word for programs: the reason of events and conditions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NodeGone => "NodeGone",
            Self::NodeAway => "NodeAway",
            Self::VolumeOnGoneNode => "VolumeOnGoneNode",
            Self::VolumeOnAwayNode => "VolumeOnAwayNode",
            Self::VolumeMissing => "VolumeMissing",
            Self::VolumeStuck => "VolumeStuck",
            Self::VolumeNotMade => "VolumeNotMade",
            Self::StorageClassMissing => "StorageClassMissing",
            Self::Damaged => "Damaged",
            Self::VolumeFull => "VolumeFull",
            Self::DiskFailed => "DiskFailed",
            Self::TooOld => "TooOld",
            Self::Foreign => "Foreign",
            Self::Contradicted => "Contradicted",
            Self::SecondProcess => "SecondProcess",
            Self::OutOfMemory => "OutOfMemory",
            Self::CrashLoop => "CrashLoop",
            Self::ImageMissing => "ImageMissing",
            Self::Unschedulable => "Unschedulable",
            Self::Refused => "Refused",
            Self::NotStarted => "NotStarted",
            Self::NotCatchingUp => "NotCatchingUp",
            Self::Unready => "Unready",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_a_cause_is_the_one_in_the_schema() {
        for cause in [Cause::NodeGone, Cause::StorageClassMissing, Cause::NotCatchingUp, Cause::ImageMissing]
        {
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.as_str());
        }
    }
}
