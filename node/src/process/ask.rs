//! Asks other members what they know, finds the leader, and asks that for a change of membership: by the admin service, as an operator would.

use std::time::Duration;

use quorate_api::admin::admin_client::AdminClient;
use quorate_api::admin::{self as pb, StatusResponse};
use tonic::{Response, Status};

use crate::tls::Dialer;

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    pub(crate) dialer: Dialer,
}

impl Asker {
    /// The status of the leader, starting from the member at `address`, and its address.
    pub(super) async fn find_leader(&self, mut address: String) -> Result<(String, StatusResponse), String> {
        for _ in 0..3 {
            let status = self.status(&address).await.map_err(|reason| format!("{address}: {reason}"))?;
            if status.leader_id == 0 {
                return Err(format!("{address}: knows no leader"));
            }
            if status.leader_id == status.member_id {
                return Ok((address, status));
            }
            let members = status.configuration.and_then(|c| c.configuration).map(|c| c.members);
            let leader = members.into_iter().flatten().find(|member| member.id == status.leader_id);
            address =
                leader.ok_or_else(|| format!("{address}: does not know where its leader is"))?.peer_address;
        }
        Err(format!("{address}: no longer the leader"))
    }

    /// The status of the member at `address`.
    pub(super) async fn status(&self, address: &str) -> Result<StatusResponse, String> {
        let request = async {
            let mut client = AdminClient::new(self.dialer.dial(address).await?);
            let status = client.status(pb::StatusRequest {}).await;
            status.map(Response::into_inner).map_err(|status| status.message().to_owned())
        };
        tokio::time::timeout(REQUEST_TIMEOUT, request)
            .await
            .unwrap_or_else(|_| Err("no answer in time".into()))
    }

    /// Asks the leader, which is at `address`, for a change. [`tonic::Code::DeadlineExceeded`] when no answer has come: it may have been begun.
    pub(super) async fn change(
        &self,
        address: &str,
        request: pb::ChangeMembershipRequest,
    ) -> Result<(), Status> {
        let change = async {
            let mut client = AdminClient::new(self.dialer.dial(address).await.map_err(Status::unavailable)?);
            client.change_membership(request).await.map(drop)
        };
        let late = |_| Err(Status::deadline_exceeded("no answer in time"));
        tokio::time::timeout(REQUEST_TIMEOUT, change).await.unwrap_or_else(late)
    }
}
