//! The alarms of the cluster, as etcd keeps them: which member has raised which. From level 2 on; below it there are none.
//!
//! While NOSPACE is raised, for whichever member, nothing is put; what makes the state smaller is done, and so are reads. It is raised in its
//! place in the log, by the size that all members find there, and stays until a client disarms it.

use std::collections::BTreeSet;

use quorate_api::etcdserverpb::alarm_request::AlarmAction;
use quorate_api::etcdserverpb::{AlarmMember, AlarmRequest, AlarmResponse, AlarmType};
use quorate_api::log::CheckQuota;

use super::{KvError, Store, header};

/// The most alarms of a kind. All stand in one record of a snapshot. NOSPACE has its own, for it must be possible to raise it.
const MAX_OF_A_KIND: usize = 256;

/// Kind and member.
pub(super) type Alarms = BTreeSet<(i32, u64)>;

impl Store {
    /// The alarms that are raised.
    pub fn alarms(&self) -> Vec<AlarmMember> {
        self.alarms.iter().map(alarm).collect()
    }

    /// Whether NOSPACE is raised.
    pub fn is_full(&self) -> bool {
        let no_space = i32::from(AlarmType::Nospace);
        self.alarms.range((no_space, 0)..=(no_space, u64::MAX)).next().is_some()
    }

    /// Raises NOSPACE if the state and what follows take as much as a member's quota, or more; answers what has changed by it.
    pub(super) fn check_quota(&mut self, check: CheckQuota) -> AlarmResponse {
        let CheckQuota { member, quota, growth } = check;
        let key = (AlarmType::Nospace.into(), member);
        let changed =
            self.size_in_use().saturating_add(growth) >= quota && !self.is_full() && self.alarms.insert(key);
        let alarms = changed.then(|| alarm(&key)).into_iter().collect();
        AlarmResponse { header: Some(header(self.revision)), alarms }
    }

    /// Raises an alarm, or takes it back; answers what has changed by it. One that is of no kind, and an action that changes nothing, change
    /// nothing. Refused only if so many are raised that there is no room for another.
    pub(super) fn alarm(&mut self, request: &AlarmRequest) -> Result<AlarmResponse, KvError> {
        let key = (request.alarm, request.member_id);
        let is_kind =
            matches!(AlarmType::try_from(request.alarm), Ok(AlarmType::Nospace | AlarmType::Corrupt));
        let changed = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Activate) => is_kind && self.raise(key)?,
            Ok(AlarmAction::Deactivate) => self.alarms.remove(&key),
            Ok(AlarmAction::Get) | Err(_) => false,
        };
        let alarms = changed.then(|| alarm(&key)).into_iter().collect();
        Ok(AlarmResponse { header: Some(header(self.revision)), alarms })
    }

    /// Raises an alarm. Whether it was not raised before.
    fn raise(&mut self, key: (i32, u64)) -> Result<bool, KvError> {
        let (kind, _) = key;
        let of_its_kind = self.alarms.range((kind, 0)..=(kind, u64::MAX)).count();
        if of_its_kind >= MAX_OF_A_KIND && !self.alarms.contains(&key) {
            return Err(KvError::TooManyAlarms);
        }
        Ok(self.alarms.insert(key))
    }
}

fn alarm((alarm, member_id): &(i32, u64)) -> AlarmMember {
    AlarmMember { member_id: *member_id, alarm: *alarm }
}

/// The alarms of a snapshot; none if they are not such as [`Store::alarms`] tells.
pub(super) fn restored(wire: &[AlarmMember]) -> Option<Alarms> {
    let alarms: Alarms = wire.iter().map(|alarm| (alarm.alarm, alarm.member_id)).collect();
    alarms.iter().map(alarm).eq(wire.iter().copied()).then_some(alarms)
}

#[cfg(test)]
mod tests {
    use parking_lot::RwLock;
    use quorate_api::etcdserverpb::request_op::Request;
    use quorate_api::etcdserverpb::{
        CompactionRequest, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest,
    };
    use quorate_api::log::RaiseLevel;
    use quorate_api::log::command::Operation;

    use super::*;
    use crate::kv::Response;
    use crate::kv::snapshot::{NotEncoded, Restore};
    use crate::level::ALARMS;

    fn ask(store: &mut Store, action: AlarmAction, member_id: u64, alarm: AlarmType) -> usize {
        let request = AlarmRequest { action: action.into(), member_id, alarm: alarm.into() };
        match store.apply(&Operation::Alarm(request)) {
            Ok(Response::Alarm(response)) => response.alarms.len(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_alarm_stays_until_it_is_disarmed() {
        let mut store = Store::new();
        let revision = store.revision();
        assert_eq!(ask(&mut store, AlarmAction::Activate, 7, AlarmType::Nospace), 1);
        assert_eq!(ask(&mut store, AlarmAction::Activate, 7, AlarmType::Nospace), 0, "it is raised already");
        assert_eq!(ask(&mut store, AlarmAction::Activate, 7, AlarmType::None), 0);
        assert_eq!(store.alarms(), [AlarmMember { member_id: 7, alarm: AlarmType::Nospace.into() }]);
        assert_eq!(ask(&mut store, AlarmAction::Deactivate, 8, AlarmType::Nospace), 0);
        assert_eq!(ask(&mut store, AlarmAction::Deactivate, 7, AlarmType::Nospace), 1);
        assert_eq!((store.alarms(), store.revision()), (vec![], revision), "no revision is made");
    }

    /// The alarms stand in one record of a snapshot: without a bound none could be restored.
    #[test]
    fn alarms_are_bounded_and_full_of_one_kind_leave_room_for_no_space() {
        let mut store = Store::new();
        store.apply(&Operation::RaiseLevel(RaiseLevel { to: ALARMS })).expect("it is never refused");
        let mut raised = 0;
        for member_id in 0..250_000 {
            let (action, alarm) = (AlarmAction::Activate.into(), AlarmType::Corrupt.into());
            let request = AlarmRequest { action, member_id, alarm };
            raised += usize::from(store.apply(&Operation::Alarm(request)).is_ok());
        }
        assert_eq!((raised, store.alarms().len()), (MAX_OF_A_KIND, MAX_OF_A_KIND));
        assert_eq!(check(&mut store, 0, 0).len(), 1, "NOSPACE is raised all the same");
        assert_eq!(ask(&mut store, AlarmAction::Activate, 1, AlarmType::Corrupt), 0, "it is raised already");

        let alarms = store.alarms();
        let store = RwLock::new(store);
        let mut source = store.write().snapshot(1 << 16).expect("no other is under way");
        let mut restore = Restore::new();
        while let Some(piece) = source.next_piece(&store).expect("it is not replaced") {
            restore.push(&piece).expect("what was encoded");
        }
        assert_eq!(restore.finish().expect("all of it").alarms(), alarms);
        let mut store = store.into_inner();
        assert_eq!(ask(&mut store, AlarmAction::Deactivate, 1, AlarmType::Corrupt), 1);
        assert_eq!(ask(&mut store, AlarmAction::Activate, 250_000, AlarmType::Corrupt), 1, "there is room");
    }

    /// Whatever else makes the record too long: what cannot be read back is no snapshot.
    #[test]
    fn a_state_whose_record_cannot_be_read_back_makes_no_snapshot() {
        let mut store = Store::new();
        store.alarms = (0..250_000).map(|member| (AlarmType::Corrupt.into(), u64::MAX - member)).collect();
        let store = RwLock::new(store);
        let mut source = store.write().snapshot(1 << 16).expect("no other is under way");
        assert!(matches!(source.next_piece(&store), Err(NotEncoded::TooLong(_))));
    }

    fn put(store: &mut Store) -> Result<Response, KvError> {
        let put = PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() };
        store.apply(&Operation::Put(put))
    }

    fn check(store: &mut Store, quota: u64, growth: u64) -> Vec<AlarmMember> {
        let check = CheckQuota { member: 7, quota, growth };
        match store.apply(&Operation::CheckQuota(check)) {
            Ok(Response::Alarm(response)) => response.alarms,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_space_is_raised_by_the_size_at_its_place() {
        let mut store = Store::new();
        put(&mut store).expect("a plain put");
        let size = store.size_in_use();
        assert_eq!(check(&mut store, size + 11, 10), []);
        let raised = [AlarmMember { member_id: 7, alarm: AlarmType::Nospace.into() }];
        assert_eq!(check(&mut store, size + 10, 10), raised);
        assert_eq!(check(&mut store, size + 10, u64::MAX), [], "it is raised already");
        assert!(store.is_full());
        assert_eq!(ask(&mut store, AlarmAction::Deactivate, 7, AlarmType::Nospace), 1);
        assert_eq!(check(&mut store, size, 0), raised, "it is as full as before");
    }

    #[test]
    fn alarms_of_a_snapshot_are_in_order_and_once() {
        let raised = |member_id| AlarmMember { member_id, alarm: AlarmType::Nospace.into() };
        assert_eq!(restored(&[raised(1), raised(2)]).map(|alarms| alarms.len()), Some(2));
        for wrong in [[raised(2), raised(1)], [raised(1), raised(1)]] {
            assert_eq!(restored(&wrong), None);
        }
    }

    #[test]
    fn nothing_is_put_while_no_space_is_raised() {
        let mut store = Store::new();
        put(&mut store).expect("a plain put");
        let revision = store.revision();
        ask(&mut store, AlarmAction::Activate, 7, AlarmType::Corrupt);
        assert!(!store.is_full(), "it is another alarm");
        ask(&mut store, AlarmAction::Activate, 7, AlarmType::Nospace);
        assert_eq!(put(&mut store), Err(KvError::NoSpace));
        let nested =
            |inner| TxnRequest { success: vec![RequestOp { request: Some(inner) }], ..TxnRequest::default() };
        let put_op = || Request::RequestPut(PutRequest { key: "k".into(), ..PutRequest::default() });
        // Refused whichever branch would be taken, as in etcd.
        let other_branch = TxnRequest { failure: nested(put_op()).success, ..TxnRequest::default() };
        for txn in [nested(put_op()), nested(Request::RequestTxn(nested(put_op()))), other_branch] {
            assert_eq!(store.apply(&Operation::Txn(txn)), Err(KvError::NoSpace));
        }
        assert_eq!(store.revision(), revision);
        let deletion = DeleteRangeRequest { key: "k".into(), ..DeleteRangeRequest::default() };
        let deletes = nested(Request::RequestDeleteRange(deletion.clone()));
        assert!(store.apply(&Operation::Txn(deletes)).is_ok());
        assert!(store.apply(&Operation::DeleteRange(deletion)).is_ok());
        let compact = CompactionRequest { revision: store.revision(), physical: false };
        assert!(store.apply(&Operation::Compact(compact)).is_ok());
        ask(&mut store, AlarmAction::Deactivate, 7, AlarmType::Nospace);
        put(&mut store).expect("it is disarmed");
    }
}
