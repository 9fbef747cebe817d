//! `etcdserverpb.Maintenance`.

use std::time::Duration;

use futures::stream::BoxStream;
use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::alarm_request::AlarmAction;
use quorate_api::etcdserverpb::maintenance_server::Maintenance;
use quorate_api::log::command::Operation;
use quorate_raft::{MemberId, ProposeError, TransferError};
use tonic::{Request, Response, Status};

use super::downgrade::downgrade;
use super::error::{self, member_not_found, mismatched};
use super::member::Member;
use super::snapshot::{self, Snapshot};
use crate::backup::BackendHash;
use crate::doors::gateway::RequestError;
use crate::doors::view::{Agreement, ETCD_STORAGE_VERSION, ETCD_VERSION, NodeStatus};
use crate::kv::{self, HashedRevision};

/// How long a transfer may take: it is given up by the leader after an election timeout.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(3);

/// The maintenance service of one client runtime.
#[derive(Debug, Clone)]
pub(super) struct MaintenanceService {
    member: Member,
}

impl MaintenanceService {
    pub(super) fn new(member: Member) -> Self {
        Self { member }
    }

    /// Whether something may be told of this member's state that every voter can tell of its own.
    fn admit_to_state<T>(&self, request: &Request<T>) -> Result<(), Status> {
        self.member.admit(request, false)?;
        self.member.has_state()
    }
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        self.member.admit(&request, true)?;
        let Member { gateway, view, .. } = &self.member;
        let bytes = |size| i64::try_from(size).unwrap_or(i64::MAX);
        let (revision, size, in_use, raised) = {
            let store = gateway.store().read();
            (store.revision(), bytes(store.size()), bytes(store.size_in_use()), store.alarms())
        };
        let status = view.status();
        Ok(Response::new(pb::StatusResponse {
            header: Some(self.member.header(revision)),
            version: ETCD_VERSION.to_owned(),
            db_size: size,
            leader: status.leader.unwrap_or(0),
            raft_index: view.commit_index(),
            raft_term: view.term(),
            raft_applied_index: view.applied_index(),
            errors: errors(&raised, &status),
            // What is compacted and not removed yet makes the difference.
            db_size_in_use: in_use,
            is_learner: self.member.is_learner(),
            storage_version: ETCD_STORAGE_VERSION.to_owned(),
            // The smallest that is known counts. 0 for no limit.
            db_size_quota: bytes(status.smallest_quota.map_or(0, |(quota, _)| quota)),
            downgrade_info: Some(pb::DowngradeInfo::default()),
        }))
    }

    /// Tells the alarms of the cluster, and beside them NOSPACE while this member's own disk is full, and if it leads another's: those end by
    /// themselves when there is room. So it does with CORRUPT, of members that hold another state than a majority. `etcdctl endpoint health`
    /// asks, and takes no answer for ill health. Raising and disarming are of level 2. Only a member's can be raised: etcd takes any, and a
    /// client could raise them without end. Those of members that were removed can be disarmed.
    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        self.member.admit(&request, false)?;
        let request = request.into_inner();
        if request.action == AlarmAction::Activate as i32
            && !self.member.view.status().has_member(request.member_id)
        {
            return Err(member_not_found());
        }
        if request.action != AlarmAction::Get as i32 {
            // Nothing of it is read late.
            let reply = self.member.gateway.propose(Operation::Alarm(request)).await?;
            let kv::Response::Alarm(mut response) = reply.finish() else { return Err(mismatched()) };
            self.member.complete(&mut response.header);
            return Ok(Response::new(response));
        }
        // Where no state is served, people ask all the more.
        if self.member.view.status().agreement == Agreement::Whole {
            self.member.gateway.read_barrier().await?;
        }
        let (revision, raised) = {
            let store = self.member.gateway.store().read();
            (store.revision(), store.alarms())
        };
        let alarms = alarms(raised, &self.member.view.status());
        Ok(Response::new(pb::AlarmResponse { header: Some(self.member.header(revision)), alarms }))
    }

    /// A state in memory has nothing to defragment. But it is the middle step of etcd's way out of NOSPACE, and in many a script: what is
    /// compacted is removed when it answers, as far as no reader needs it.
    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        self.member.admit(&request, false)?;
        self.member.remove_compacted().await;
        Ok(Response::new(pb::DefragmentResponse::default()))
    }

    /// The hash of all that an etcd with this state would store.
    async fn hash(&self, request: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        self.admit_to_state(&request)?;
        let store = self.member.gateway.store();
        let mut hash = BackendHash::new(&mut store.write(), &snapshot::cluster(&self.member));
        let header = Some(self.member.header(hash.revision()));
        loop {
            if let Some(hash) = hash.advance(store).map_err(error::state_gone)? {
                return Ok(Response::new(pb::HashResponse { header, hash }));
            }
            tokio::task::yield_now().await;
        }
    }

    /// The hash of all changes up to a revision: the same on all members, and the same as an etcd's with the same history.
    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        self.admit_to_state(&request)?;
        let store = self.member.gateway.store();
        let (current, mut hash) = {
            let store = store.read();
            (store.revision(), store.hash_at(request.get_ref().revision)?)
        };
        loop {
            let hashed = hash.advance(store).map_err(|error| error::state_gone(error.into()))?;
            if let Some(HashedRevision { hash, revision, compacted }) = hashed {
                return Ok(Response::new(pb::HashKvResponse {
                    header: Some(self.member.header(current)),
                    hash,
                    compact_revision: compacted,
                    hash_revision: revision,
                }));
            }
            tokio::task::yield_now().await;
        }
    }

    type SnapshotStream = BoxStream<'static, Result<pb::SnapshotResponse, Status>>;

    async fn snapshot(
        &self,
        request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        self.member.admit(&request, true)?;
        self.member.has_state()?;
        Ok(Response::new(Box::pin(Snapshot::new(&self.member)?.answers())))
    }

    /// Hands leadership over, and waits until the other leads. As in etcd only the leader can be asked, and its answer has no header.
    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        self.member.admit(&request, false)?;
        let Member { gateway, view, .. } = &self.member;
        if view.status().leader != Some(view.member_id()) {
            return Err(error::not_leader());
        }
        let target = request.get_ref().target_id;
        if !view.status().has_member(target) || view.status().is_learner(target) {
            return Err(error::bad_transferee());
        }
        let mut changes = view.subscribe();
        if target != view.member_id() {
            gateway.transfer(Some(MemberId(target))).await.map_err(|refused| match refused {
                TransferError::NotAVoter(_) => error::bad_transferee(),
                TransferError::NotNow(ProposeError::NotLeader { .. }) => error::not_leader(),
                TransferError::NotNow(ProposeError::Transferring { .. }) => error::transfer_too_slow(),
            })?;
        }
        let leads = changes.wait_for(|status| status.leader == Some(target));
        match tokio::time::timeout(TRANSFER_TIMEOUT, leads).await {
            Ok(Ok(_)) => Ok(Response::new(pb::MoveLeaderResponse::default())),
            Ok(Err(_)) => Err(RequestError::Stopping.into()),
            Err(_) => Err(error::transfer_too_slow()),
        }
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        self.member.admit(&request, false)?;
        let answer = downgrade(request.get_ref())?;
        let header = Some(self.member.header(self.member.gateway.store().read().revision()));
        Ok(Response::new(pb::DowngradeResponse { header, ..answer }))
    }
}

/// What is wrong, in etcd's words where it has some, and what is full.
fn errors(raised: &[pb::AlarmMember], status: &NodeStatus) -> Vec<String> {
    let no_leader = status.leader.is_none().then(|| "etcdserver: no leader".to_owned());
    let alarms = raised.iter().map(|alarm| {
        let reason = match alarm.alarm() {
            pb::AlarmType::Nospace => " (the state has reached the quota of --quota-bytes)",
            pb::AlarmType::None | pb::AlarmType::Corrupt => "",
        };
        format!("memberID:{} alarm:{}{reason}", alarm.member_id, alarm.alarm().as_str_name())
    });
    let disks =
        status.short_of_room.iter().map(|id| format!("memberID:{id} alarm:NOSPACE (its disk is full)"));
    let descriptors = status.short_of_descriptors.iter();
    let descriptors = descriptors.map(|id| format!("memberID:{id} too many open files (ulimit -n)"));
    let corrupt = status.suspects.iter().map(|id| format!("memberID:{id} alarm:CORRUPT"));
    no_leader.into_iter().chain(alarms).chain(disks).chain(descriptors).chain(corrupt).collect()
}

/// Those that are `raised`, and those that only this member knows of.
fn alarms(raised: Vec<pb::AlarmMember>, status: &NodeStatus) -> Vec<pb::AlarmMember> {
    let no_space = status.short_of_room.iter().map(|id| (*id, pb::AlarmType::Nospace));
    let corrupt = status.suspects.iter().map(|id| (*id, pb::AlarmType::Corrupt));
    let mut alarms = raised;
    for (member_id, alarm) in no_space.chain(corrupt) {
        let alarm = pb::AlarmMember { member_id, alarm: alarm.into() };
        if !alarms.contains(&alarm) {
            alarms.push(alarm);
        }
    }
    alarms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_says_what_is_full() {
        let raised = [pb::AlarmMember { member_id: 1, alarm: pb::AlarmType::Nospace.into() }];
        let status = NodeStatus {
            leader: Some(1),
            short_of_room: vec![2],
            short_of_descriptors: vec![3],
            ..NodeStatus::default()
        };
        let [quota, disk, descriptors] = &errors(&raised, &status)[..] else { panic!("three are full") };
        assert!(quota.starts_with("memberID:1 alarm:NOSPACE") && quota.contains("--quota-bytes"), "{quota}");
        assert!(disk.starts_with("memberID:2 alarm:NOSPACE") && disk.contains("disk"), "{disk}");
        assert!(
            descriptors.starts_with("memberID:3 ") && descriptors.contains("open files"),
            "{descriptors}"
        );
        assert_eq!(alarms(raised.to_vec(), &status).len(), 2, "a lack of descriptors is no alarm of etcd's");
        assert_eq!(errors(&[], &NodeStatus::default()), ["etcdserver: no leader"]);
    }
}
