//! What a member does whose disk is full: it takes in nothing that makes the data grow, long before the log has no room left. Reads,
//! deletions and compactions go on, and so do elections and changes of membership. When there is room again it goes on as before.
//!
//! A member without room tells the leader so. If not even a quorum has room the leader takes in no more than if its own disk were full:
//! what it took could not be committed, and its clients would wait in vain.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use quorate_api::etcdserverpb::request_op::Request;
use quorate_api::etcdserverpb::{RequestOp, TxnRequest};
use quorate_api::log;
use quorate_api::log::command::Operation;
use quorate_raft::{self as raft, Body, Configuration, MemberId};

/// How often, in ticks, a member without room says so.
pub(super) const TELLS_EVERY: u64 = 25;

/// How long what it said counts.
const COUNTS_FOR: u64 = 4 * TELLS_EVERY;

/// How much room a member's disk has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Room {
    /// As much as is needed.
    #[default]
    Enough,
    /// So little that what is left is for making more: deletions, compactions, the snapshot and the log that these need.
    Low,
    /// Next to none: for what keeps the member alive and a member.
    Out,
}

impl Room {
    /// Whether the command in `bytes` may be taken in.
    pub(super) fn admits(self, bytes: &Bytes) -> bool {
        match self {
            Room::Enough => true,
            Room::Low => !grows(bytes),
            Room::Out => false,
        }
    }
}

/// Whether a message is of no use to a member that has no room for entries. One without room falls behind, as if it were away, and comes
/// back when there is room, instead of ending over a log that it cannot write.
pub(super) fn brings_entries(message: &raft::Message) -> bool {
    matches!(&message.body, Body::AppendEntries { entries, .. } if !entries.is_empty())
}

/// What others have said of their room: nothing, as long as they have enough.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    /// And when they said it last.
    short: BTreeMap<MemberId, (Room, u64)>,
}

impl Rooms {
    /// A member has so much room.
    pub(super) fn told(&mut self, from: MemberId, room: Room, now: u64) {
        self.short.insert(from, (room, now));
    }

    /// Time passes: who has room again may have gone unheard, and who was removed says nothing more.
    pub(super) fn tick(&mut self, now: u64) {
        self.short.retain(|_, (room, told)| *room != Room::Enough && now < *told + COUNTS_FOR);
    }

    /// Whether nobody has said that it lacks room.
    pub(super) fn is_empty(&self) -> bool {
        self.short.is_empty()
    }

    /// Whether a member has said that it lacks it.
    pub(super) fn is_short(&self, id: MemberId) -> bool {
        self.short.contains_key(&id)
    }

    /// Those that lack it.
    pub(super) fn short(&self) -> impl Iterator<Item = MemberId> {
        self.short.keys().copied()
    }

    /// How much room a quorum has, if `me` has `own`, and some lack it: then members that are not heard count for nothing. Those who have
    /// said so may be all that there is.
    pub(super) fn of_quorum(
        &self,
        configuration: &Configuration,
        is_heard: impl Fn(MemberId) -> bool,
        (me, own): (MemberId, Room),
    ) -> Room {
        let of = |id| match self.short.get(&id) {
            _ if id == me => own,
            Some((room, _)) => *room,
            None if is_heard(id) => Room::Enough,
            None => Room::Out,
        };
        let has = |wanted: &Room| configuration.quorum(|id| of(id) <= *wanted);
        [Room::Enough, Room::Low].into_iter().find(has).unwrap_or(Room::Out)
    }
}

/// Whether a command makes the data larger.
fn grows(bytes: &Bytes) -> bool {
    let command = log::Command::decode(bytes.clone());
    match command.ok().and_then(|command| command.operation) {
        Some(Operation::Put(_)) => true,
        Some(Operation::Txn(txn)) => puts(&txn),
        Some(
            Operation::DeleteRange(_)
            | Operation::Compact(_)
            | Operation::RaiseLevel(_)
            | Operation::Alarm(_),
        )
        | None => false,
    }
}

/// Whether a transaction may put something, in either branch.
fn puts(txn: &TxnRequest) -> bool {
    let puts = |operation: &RequestOp| match &operation.request {
        Some(Request::RequestPut(_)) => true,
        Some(Request::RequestTxn(inner)) => puts(inner),
        Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) | None => false,
    };
    txn.success.iter().chain(&txn.failure).any(puts)
}

#[cfg(test)]
mod tests {
    use quorate_api::etcdserverpb::{DeleteRangeRequest, PutRequest};

    use super::*;

    fn bytes(operation: Operation) -> Bytes {
        crate::command::encode(1, 1, operation)
    }

    fn operation(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    #[test]
    fn what_makes_room_is_admitted_for_as_long_as_possible() {
        let put = bytes(Operation::Put(PutRequest::default()));
        let delete = bytes(Operation::DeleteRange(DeleteRangeRequest::default()));
        assert!(Room::Enough.admits(&put) && !Room::Low.admits(&put));
        assert!(Room::Low.admits(&delete) && !Room::Out.admits(&delete));
    }

    #[test]
    fn a_quorum_has_as_much_room_as_its_fullest_member() {
        let voters = [1, 2, 3].map(MemberId).into();
        let configuration = Configuration { voters, ..Configuration::default() };
        let mut rooms = Rooms::default();
        let of = |rooms: &Rooms, own, silent: u64| {
            rooms.of_quorum(&configuration, |id| id.0 != silent, (MemberId(1), own))
        };
        rooms.told(MemberId(2), Room::Low, 1);
        rooms.told(MemberId(9), Room::Out, 1);
        assert_eq!(of(&rooms, Room::Enough, 0), Room::Enough, "two have enough");
        assert_eq!(of(&rooms, Room::Low, 0), Room::Low);
        assert_eq!(of(&rooms, Room::Enough, 3), Room::Low, "of two that are there one has enough");
        rooms.told(MemberId(3), Room::Out, 3);
        assert_eq!(of(&rooms, Room::Enough, 0), Room::Low);
        rooms.told(MemberId(2), Room::Out, 3);
        assert_eq!(of(&rooms, Room::Enough, 0), Room::Out);
        rooms.tick(3 + COUNTS_FOR);
        assert!(rooms.is_empty(), "they say it no more");
    }

    #[test]
    fn a_put_is_found_wherever_it_is() {
        let delete = operation(Request::RequestDeleteRange(DeleteRangeRequest::default()));
        let put = operation(Request::RequestPut(PutRequest::default()));
        let inner = TxnRequest { failure: vec![put], ..TxnRequest::default() };
        let outer = TxnRequest {
            success: vec![delete.clone(), operation(Request::RequestTxn(inner))],
            ..TxnRequest::default()
        };
        assert!(!Room::Low.admits(&bytes(Operation::Txn(outer))));
        let deletes = TxnRequest { success: vec![delete], ..TxnRequest::default() };
        assert!(Room::Low.admits(&bytes(Operation::Txn(deletes))));
    }
}
