//! Commands about the level of the cluster.

use quorate_api::admin::RaiseLevelRequest;
use serde_json::json;

use super::connect::{Admins, call};
use super::{CtlError, Output, print};

/// Has the level raised, to `to` or to the newest that the leader supports.
pub(super) async fn raise(admins: &Admins, output: Output, to: Option<u32>) -> Result<(), CtlError> {
    let (address, leader) = admins.leader().await?;
    let mut client = admins.client(&address).await?;
    let request = RaiseLevelRequest { cluster_id: leader.cluster_id, to: to.unwrap_or(0) };
    let raised = call(&address, admins.timeout, client.raise_level(request)).await?;
    match output {
        Output::Text => print::text(&format!("the cluster has level {}\n", raised.level))?,
        Output::Json => print::json(&json!({ "level": raised.level }))?,
    }
    Ok(())
}
