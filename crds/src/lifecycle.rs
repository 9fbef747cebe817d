//! What may happen to a cluster in the course of its life.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether pods may go where the quorum goes with them.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disruptions {
    /// No pod goes by a drain or a rollout if the quorum would go with it.
    #[default]
    Protect,
    /// A cluster of one voter or two may be drained and rolled: its clients wait until the pod is back. With three voters or
    /// more it changes nothing.
    Allow,
}
