//! `etcdserverpb.Lease`.

use bytes::Bytes;
use getrandom::Error as NoRandom;
use quorate_api::etcdserverpb as pb;
use quorate_api::log::command::Operation;
use tonic::{Code, Request, Status};

use super::arrival::Share;
use super::error::mismatched;
use super::member::Member;
use super::pieces::Answer;
use crate::doors::gateway::RequestError;
use crate::kv::{self, KvError};
use crate::leases::{MAX_TTL, MIN_TTL};

/// Leases, or keys of one, that are read under one hold of the state's lock.
const READ_AT_ONCE: usize = 1024;

/// The lease service of one client runtime, but for the stream of renewals (`rpc/keep_alive.rs`).
#[derive(Debug, Clone)]
pub(super) struct LeaseService {
    pub(super) member: Member,
}

impl LeaseService {
    /// With ID 0 this member chooses one. Less than the shortest time is taken for that.
    pub(super) async fn grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Answer<pb::LeaseGrantResponse>, Status> {
        self.member.admit(&request, false)?;
        let pb::LeaseGrantRequest { ttl, id } = request.into_inner();
        if ttl > MAX_TTL {
            return Err(Status::new(Code::OutOfRange, "etcdserver: too large lease TTL"));
        }
        let ttl = ttl.max(MIN_TTL);
        loop {
            let chosen = if id == 0 { random_id().map_err(no_random)? } else { id };
            let grant = Operation::LeaseGrant(pb::LeaseGrantRequest { ttl, id: chosen });
            let reply = match self.member.gateway.propose(grant).await {
                Err(RequestError::Refused(KvError::LeaseExists)) if id == 0 => continue,
                reply => reply?,
            };
            let kv::Response::LeaseGrant(mut response) = reply.finish() else { return Err(mismatched()) };
            self.member.complete(&mut response.header);
            return Ok(Answer::done(response, self.member.answers.share()));
        }
    }

    pub(super) async fn revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Answer<pb::LeaseRevokeResponse>, Status> {
        self.member.admit(&request, false)?;
        let reply = self.member.gateway.propose(Operation::LeaseRevoke(request.into_inner())).await?;
        let kv::Response::LeaseRevoke(mut response) = reply.finish() else { return Err(mismatched()) };
        self.member.complete(&mut response.header);
        Ok(Answer::done(response, self.member.answers.share()))
    }

    /// How much is left the leader knows; what hangs on it this member's state. A lease that does not exist has -1 left.
    pub(super) async fn time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Answer<pb::LeaseTimeToLiveResponse>, Status> {
        self.member.admit(&request, false)?;
        let pb::LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let time = self.member.gateway.lease_time(id, false).await?;
        // What was granted to others before this call was asked is here as well.
        self.member.gateway.read_barrier().await?;
        let mut share = self.member.answers.share();
        let header = Some(self.member.header(self.member.gateway.store().read().revision()));
        let gone = pb::LeaseTimeToLiveResponse { header, id, ttl: -1, ..Default::default() };
        if time.ttl == 0 || self.member.gateway.store().read().leases().get(id).is_none() {
            return Ok(Answer::new(gone, share));
        }
        let mut response = pb::LeaseTimeToLiveResponse { ttl: time.left, granted_ttl: time.ttl, ..gone };
        if keys {
            self.read_keys(id, &mut response.keys, &mut share).await?;
        }
        Ok(Answer::new(response, share))
    }

    /// Reads the keys that hang on a lease, some under each hold of the lock.
    async fn read_keys(&self, id: i64, keys: &mut Vec<Bytes>, share: &mut Share) -> Result<(), Status> {
        loop {
            let before = keys.len();
            {
                let store = self.member.gateway.store().read();
                let after = keys.last().cloned();
                let more = store.leases().keys(id, after.as_deref()).take(READ_AT_ONCE);
                keys.extend(more.map(Bytes::copy_from_slice));
            }
            let bytes: usize = keys[before..].iter().map(|key| size_of::<Bytes>() + key.len()).sum();
            share.reach(share.bytes() + bytes)?;
            if keys.len() < before + READ_AT_ONCE {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }

    /// The IDs of all leases.
    pub(super) async fn leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Answer<pb::LeaseLeasesResponse>, Status> {
        self.member.admit(&request, false)?;
        self.member.gateway.read_barrier().await?;
        let mut share = self.member.answers.share();
        let (view, revision) = {
            let mut store = self.member.gateway.store().write();
            (store.leases_mut().view(), store.revision())
        };
        let mut leases = Vec::new();
        while !view.is_at_end() {
            let read = view.next(self.member.gateway.store().read().leases(), READ_AT_ONCE);
            share.reach(share.bytes() + read.len() * size_of::<pb::LeaseStatus>())?;
            leases.extend(read.into_iter().map(|grant| pb::LeaseStatus { id: grant.id }));
            tokio::task::yield_now().await;
        }
        let header = Some(self.member.header(revision));
        Ok(Answer::new(pb::LeaseLeasesResponse { header, leases }, share))
    }
}

/// A positive ID that hardly any lease has.
fn random_id() -> Result<i64, NoRandom> {
    loop {
        let id = (getrandom::u64()? >> 1).cast_signed();
        if id != 0 {
            return Ok(id);
        }
    }
}

fn no_random(error: NoRandom) -> Status {
    Status::internal(format!("the system gives no random number for the ID of a lease: {error}"))
}
