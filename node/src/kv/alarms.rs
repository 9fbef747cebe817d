//! The alarms of the cluster, as etcd keeps them: which member has raised which. From level 2 on; below it there are none.

use std::collections::BTreeSet;

use quorate_api::etcdserverpb::alarm_request::AlarmAction;
use quorate_api::etcdserverpb::{AlarmMember, AlarmRequest, AlarmResponse, AlarmType};

use super::{Store, header};

/// Kind and member.
pub(super) type Alarms = BTreeSet<(i32, u64)>;

impl Store {
    /// The alarms that are raised.
    pub fn alarms(&self) -> Vec<AlarmMember> {
        self.alarms.iter().map(alarm).collect()
    }

    /// Raises an alarm, or takes it back; answers what has changed by it. One that is of no kind, and an action that changes nothing, change
    /// nothing.
    pub(super) fn alarm(&mut self, request: &AlarmRequest) -> AlarmResponse {
        let key = (request.alarm, request.member_id);
        let is_kind =
            matches!(AlarmType::try_from(request.alarm), Ok(AlarmType::Nospace | AlarmType::Corrupt));
        let changed = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Activate) => is_kind && self.alarms.insert(key),
            Ok(AlarmAction::Deactivate) => self.alarms.remove(&key),
            Ok(AlarmAction::Get) | Err(_) => false,
        };
        let alarms = changed.then(|| alarm(&key)).into_iter().collect();
        AlarmResponse { header: Some(header(self.revision)), alarms }
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
    use quorate_api::log::command::Operation;

    use super::*;
    use crate::kv::Response;

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
}
