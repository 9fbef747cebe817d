//! `etcdserverpb.Lease`.

use bytes::Bytes;
use getrandom::Error as NoRandom;
use quorate_api::etcdserverpb as pb;
use quorate_api::log::command::Operation;
use tonic::{Code, Request, Status};

use super::arrival::Share;
use super::error::{mismatched, too_many_requests};
use super::member::Member;
use super::pieces::Answer;
use crate::doors::gateway::RequestError;
use crate::kv::{self, KvError};
use crate::leases::{Grant, MAX_TTL, MIN_TTL};

/// Leases, or keys of one, that are read under one hold of the state's lock.
const READ_AT_ONCE: usize = 1024;

/// The same in bytes, about.
const BYTES_AT_ONCE: usize = 256 << 10;

/// So many readers of all leases are answered at a time: each is told of every change that it has not read yet.
const MOST_VIEWS: usize = 32;

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
        let (revision, grant) = {
            let store = self.member.gateway.store().read();
            (store.revision(), store.leases().get(id))
        };
        let header = Some(self.member.header(revision));
        let gone = pb::LeaseTimeToLiveResponse { header, id, ttl: -1, ..Default::default() };
        let Some(grant) = grant.filter(|_| time.ttl != 0) else { return Ok(Answer::new(gone, share)) };
        let mut response =
            pb::LeaseTimeToLiveResponse { ttl: time.left, granted_ttl: time.ttl, ..gone.clone() };
        if keys && !self.read_keys(grant, &mut response.keys, &mut share).await? {
            return Ok(Answer::new(gone, share));
        }
        Ok(Answer::new(response, share))
    }

    /// Reads the keys that hang on a lease, some under each hold of the lock. False if it has ended meanwhile.
    async fn read_keys(
        &self,
        grant: Grant,
        keys: &mut Vec<Bytes>,
        share: &mut Share,
    ) -> Result<bool, Status> {
        loop {
            let (mut bytes, before) = (0, keys.len());
            {
                let store = self.member.gateway.store().read();
                if store.leases().get(grant.id) != Some(grant) {
                    return Ok(false);
                }
                let after = keys.last().cloned();
                for key in store.leases().keys(grant.id, after.as_deref()).take(READ_AT_ONCE) {
                    keys.push(Bytes::copy_from_slice(key));
                    bytes += size_of::<Bytes>() + key.len();
                    if bytes >= BYTES_AT_ONCE {
                        break;
                    }
                }
            }
            share.reach(share.bytes() + bytes)?;
            if keys.len() == before {
                return Ok(true);
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
        let few = {
            let store = self.member.gateway.store().read();
            let leases = store.leases();
            (leases.len() <= READ_AT_ONCE)
                .then(|| (store.revision(), leases.iter_from(i64::MIN).map(|grant| grant.id).collect()))
        };
        let (revision, ids): (i64, Vec<i64>) = match few {
            Some(few) => few,
            None => self.read_many(&mut share).await?,
        };
        let header = Some(self.member.header(revision));
        let leases = ids.into_iter().map(|id| pb::LeaseStatus { id }).collect();
        Ok(Answer::new(pb::LeaseLeasesResponse { header, leases }, share))
    }

    /// The IDs of more leases than are read under one hold of the lock, as they are now, and the revision.
    async fn read_many(&self, share: &mut Share) -> Result<(i64, Vec<i64>), Status> {
        loop {
            let (view, revision, state) = {
                let mut store = self.member.gateway.store().write();
                if store.leases().views() >= MOST_VIEWS {
                    return Err(too_many_requests());
                }
                (store.leases_mut().view(), store.revision(), store.incarnation())
            };
            let mut ids = Vec::new();
            let is_whole = loop {
                let read = {
                    let store = self.member.gateway.store().read();
                    if store.incarnation() != state {
                        break false;
                    }
                    view.next(store.leases(), READ_AT_ONCE)
                };
                ids.extend(read.into_iter().map(|grant| grant.id));
                share.reach(ids.len() * size_of::<pb::LeaseStatus>())?;
                if view.is_at_end() {
                    break true;
                }
                tokio::task::yield_now().await;
            };
            // Another state has taken the place of the one that was read: it begins anew.
            if is_whole {
                return Ok((revision, ids));
            }
        }
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
