//! What a member does whose disk is full: it takes in nothing that makes the data grow, long before the log has no room left. Reads,
//! deletions and compactions go on, and so do elections and changes of membership. When there is room again it goes on as before.
//!
//! A member without room tells the leader so. If not even a quorum has room the leader takes in no more than if its own disk were full:
//! what it took could not be committed, and its clients would wait in vain.

use std::collections::BTreeMap;

use quorate_raft::{self as raft, Body, Configuration, MemberId};

use super::Rejection;

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
    /// There is no descriptor for the next file of the log: nothing is taken in, as without room, until there is.
    NoDescriptors,
    /// Next to none: for what keeps the member alive and a member.
    Out,
}

impl Room {
    /// Whether a command may be taken in that may make the state larger by `growth` ([`crate::kv::growth`]).
    pub(super) fn admits(self, growth: u64) -> bool {
        match self {
            Room::Enough => true,
            Room::Low => growth == 0,
            Room::NoDescriptors | Room::Out => false,
        }
    }

    /// Whether nothing at all is taken in.
    pub fn takes_nothing(self) -> bool {
        self >= Room::NoDescriptors
    }

    /// Why not.
    pub(super) fn rejection(self) -> Rejection {
        if self == Room::NoDescriptors { Rejection::NoDescriptors } else { Rejection::NoSpace }
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

    /// Those that lack it, and how much they have.
    pub(super) fn short(&self) -> impl Iterator<Item = (MemberId, Room)> {
        self.short.iter().map(|(id, (room, _))| (*id, *room))
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
        [Room::Enough, Room::Low, Room::NoDescriptors].into_iter().find(has).unwrap_or(Room::Out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_room_is_admitted_for_as_long_as_possible() {
        assert!(Room::Enough.admits(9) && !Room::Low.admits(9));
        assert!(Room::Low.admits(0) && !Room::Out.admits(0) && !Room::NoDescriptors.admits(0));
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
}
