//! The admin service of a node, as the scenarios need it.

use std::net::SocketAddr;

use quorate_api::admin::admin_client::AdminClient;
use quorate_api::admin::{
    ChangeMembershipRequest, RaiseLevelRequest, StatusRequest, StatusResponse, TransferLeadershipRequest,
};
use quorate_api::log::Configuration;
use quorate_tests::clients::endpoint;
use tonic::Status;
use tonic::transport::Channel;

async fn client(peer: SocketAddr) -> Result<AdminClient<Channel>, Status> {
    let channel = endpoint(peer).connect().await.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(AdminClient::new(channel))
}

/// What the node at this peer port knows.
pub(crate) async fn status(peer: SocketAddr) -> Result<StatusResponse, Status> {
    Ok(client(peer).await?.status(StatusRequest {}).await?.into_inner())
}

/// Starts the change from the configuration in `status`, which is the leader's, to `wanted`.
pub(crate) async fn change(
    peer: SocketAddr,
    status: &StatusResponse,
    wanted: Configuration,
) -> Result<(), Status> {
    let expected = status.configuration.as_ref().and_then(|configuration| configuration.id);
    let request = ChangeMembershipRequest {
        cluster_id: status.cluster_id,
        expected,
        wanted: Some(wanted),
        ..Default::default()
    };
    client(peer).await?.change_membership(request).await.map(drop)
}

/// Hands the leadership to whom the leader chooses.
pub(crate) async fn transfer(peer: SocketAddr, status: &StatusResponse) -> Result<u64, Status> {
    let request = TransferLeadershipRequest { cluster_id: status.cluster_id, target: 0 };
    Ok(client(peer).await?.transfer_leadership(request).await?.into_inner().leader_id)
}

/// Raises the level of the cluster to `to`, through its leader.
pub(crate) async fn raise_level(peer: SocketAddr, status: &StatusResponse, to: u32) -> Result<u32, Status> {
    let request = RaiseLevelRequest { cluster_id: status.cluster_id, to };
    Ok(client(peer).await?.raise_level(request).await?.into_inner().level)
}
