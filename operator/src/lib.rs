//! The operator of `RaftCluster`s.
//!
//! Each round of the controller observes a cluster, validates its spec, plans the next step, applies the plan and writes the
//! status. `validate`, `plan`, `resources` and `status` are pure: they decide, and only `observe` and `apply` talk.

pub mod ages;
pub mod applied;
pub mod apply;
mod ask;
mod causes;
mod check;
pub mod cli;
pub mod controller;
pub mod custody;
pub mod duration;
pub mod events;
pub mod fence;
pub mod fleet;
pub mod http;
pub mod lease;
pub mod membership;
pub mod metrics;
pub mod nodes;
pub mod observe;
pub mod observed;
pub mod pace;
pub mod plan;
pub mod plugin;
mod pod_state;
pub mod quantity;
mod recovery;
pub mod resources;
pub mod roles;
mod run;
pub mod status;
pub mod streams;
pub mod trouble;
pub mod trust;
pub mod upgrade;
pub mod validate;

pub use run::run;
