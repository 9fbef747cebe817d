//! Three members with a network, disks and appliers that do as the test says.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use parking_lot::RwLock;
use prost::Message as _;
use quorate_api::log::command::Operation;
use quorate_api::{etcdserverpb as pb, log};
use quorate_raft::{HardState, Snapshot};

use super::*;
use crate::kv::Store;
use crate::kv::snapshot::SnapshotSource;
use crate::level::{FIRST, NEWEST};
use crate::snapshots::{Draft, Found, Manifest, Part, Report};

const CLIENT: Client = Client(0);
const REQUEST_TICKS: u64 = 200;

/// Both halves of a member.
struct Member {
    replica: Replica,
    applier: Applier,
    /// Its applier does nothing.
    stalled: bool,
}

impl Member {
    /// What the replica puts out, before and after the applier has done all that it may.
    fn output(&mut self) -> (Effects, Vec<Answer>) {
        let mut effects = self.replica.output();
        let mut answers = std::mem::take(&mut effects.answers);
        self.applier.push(std::mem::take(&mut effects.apply));
        while self.applies() {
            let Step { answers: done, applied, .. } = self.applier.step();
            let answer =
                |(number, result)| Answer { client: CLIENT, number, outcome: Outcome::Applied(result) };
            answers.extend(done.into_iter().map(answer));
            self.replica.applied(applied);
        }
        let more = self.replica.output();
        self.applier.push(more.apply);
        // The later write stands for the earlier one.
        effects.write = more.write.or(effects.write);
        effects.messages.extend(more.messages);
        effects.jobs.extend(more.jobs);
        answers.extend(more.answers);
        (effects, answers)
    }

    fn applies(&self) -> bool {
        self.applier.is_busy() && !self.stalled
    }

    fn store(&self) -> &RwLock<Store> {
        self.applier.store()
    }
}

impl Deref for Member {
    type Target = Replica;

    fn deref(&self) -> &Replica {
        &self.replica
    }
}

impl DerefMut for Member {
    fn deref_mut(&mut self) -> &mut Replica {
        &mut self.replica
    }
}

struct World {
    replicas: BTreeMap<MemberId, Member>,
    network: VecDeque<Message>,
    answers: Vec<(MemberId, Answer)>,
    /// Those who neither send nor receive.
    cut: Vec<MemberId>,
}

impl World {
    fn new() -> Self {
        Self::keeping(0)
    }

    /// One whose members keep so many bytes of the log behind a snapshot.
    fn keeping(log_bytes: u64) -> Self {
        let ids = [MemberId(1), MemberId(2), MemberId(3)];
        let restored = Restored {
            hard_state: HardState { term: 1, vote: None, commit: 1 },
            entries: vec![configured(1, &[1, 2, 3])],
            ..Restored::default()
        };
        let options = |id| Options { kept_log_bytes: log_bytes, ..options(id) };
        let replicas = ids.map(|id| (id, on(options(id), restored.clone()))).into();
        World { replicas, network: VecDeque::new(), answers: Vec::new(), cut: Vec::new() }
    }

    fn get(&mut self, id: MemberId) -> &mut Member {
        self.replicas.get_mut(&id).expect("it exists")
    }

    /// Lets everything happen that needs no time.
    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for (id, member) in &mut self.replicas {
                let (effects, answers) = member.output();
                quiet &= effects.write.is_none() && effects.messages.is_empty();
                quiet &= !member.has_output() && !member.applies();
                if let Some(write) = effects.write {
                    member.persisted(write.id);
                }
                self.answers.extend(answers.into_iter().map(|answer| (*id, answer)));
                if !self.cut.contains(id) {
                    self.network.extend(effects.messages);
                }
            }
            while let Some(message) = self.network.pop_front() {
                quiet = false;
                if !self.cut.contains(&message.to()) {
                    self.get(message.to()).receive(message);
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn tick(&mut self) {
        for replica in self.replicas.values_mut() {
            replica.tick();
        }
        self.settle();
    }

    /// Waits for a leader that is not cut off.
    fn elect(&mut self) -> MemberId {
        for _ in 0..1000 {
            self.tick();
            let leads = |(id, replica): (&MemberId, &Member)| {
                (replica.status().role == Role::Leader && !self.cut.contains(id)).then_some(*id)
            };
            if let Some(leader) = self.replicas.iter().find_map(leads) {
                self.tick_often(20);
                return leader;
            }
        }
        panic!("nobody leads");
    }

    fn tick_often(&mut self, times: u64) {
        for _ in 0..times {
            self.tick();
        }
    }

    fn follower(&self, leader: MemberId) -> MemberId {
        *self.replicas.keys().find(|id| **id != leader && !self.cut.contains(id)).expect("two follow")
    }

    /// What was answered to request `number` at `id`.
    fn answer(&self, id: MemberId, number: u64) -> Option<&Outcome> {
        let asked = |(at, answer): &&(MemberId, Answer)| *at == id && answer.number == number;
        let all: Vec<_> = self.answers.iter().filter(asked).collect();
        assert!(all.len() <= 1, "answered once: {all:?}");
        all.first().map(|(_, answer)| &answer.outcome)
    }

    fn revision(&self, id: MemberId) -> i64 {
        self.replicas[&id].store().read().revision()
    }
}

fn member(id: MemberId, restored: Restored) -> Member {
    on(options(id), restored)
}

fn on(options: Options, restored: Restored) -> Member {
    above(options, restored, Store::new())
}

fn above(options: Options, restored: Restored, state: Store) -> Member {
    let state = Arc::new(RwLock::new(state));
    let held = Held::of(&state.read());
    let applier = Applier::new(&options, restored.snapshot.as_ref(), state);
    Member { replica: Replica::new(options, restored, held), applier, stalled: false }
}

fn options(id: MemberId) -> Options {
    let raft = Config {
        id,
        election_ticks: 10,
        start_ticks: 10,
        heartbeat_ticks: 2,
        disk_ticks: 20,
        priority: 0,
        lease: None,
        promised: false,
        max_append_bytes: 1 << 20,
        max_inflight_bytes: 16 << 20,
        seed: id.0,
    };
    Options {
        raft,
        request_ticks: REQUEST_TICKS,
        snapshots: SnapshotPolicy::default(),
        kept_log_bytes: 0,
        removed: 0,
        levels: Levels::ALL,
    }
}

/// A configuration of these voters.
fn voters(ids: &[u64]) -> Configuration {
    let ids = ids.iter().map(|id| MemberId(*id));
    let addresses = ids.clone().map(|id| (id, Bytes::new())).collect();
    Configuration { voters: ids.collect(), addresses, ..Configuration::default() }
}

/// The entry of term 1 that makes them so.
fn configured(index: Index, ids: &[u64]) -> Entry {
    Entry { term: 1, index, payload: Payload::Configuration(Box::new(voters(ids))) }
}

fn put(origin: MemberId, number: u64) -> Command {
    put_bytes(origin, number, 1)
}

fn put_bytes(origin: MemberId, number: u64, bytes: usize) -> Command {
    let (key, value) = (format!("key-{number}").into(), vec![b'v'; bytes].into());
    let request = pb::PutRequest { key, value, ..Default::default() };
    command_of(origin, number, Operation::Put(request))
}

fn command_of(origin: MemberId, number: u64, operation: Operation) -> Command {
    let needs = command::needs(&operation);
    Command { number, bytes: command::encode(origin.0, number, operation), needs }
}

fn is_applied(outcome: Option<&Outcome>) -> bool {
    matches!(outcome, Some(Outcome::Applied(Ok(_))))
}

#[test]
fn the_member_that_was_asked_answers() {
    let mut world = World::new();
    let leader = world.elect();
    let follower = world.follower(leader);
    world.get(leader).write(CLIENT, vec![put(leader, 1), put(leader, 2)]);
    world.get(follower).write(CLIENT, vec![put(follower, 7)]);
    world.settle();
    assert!(is_applied(world.answer(leader, 1)) && is_applied(world.answer(leader, 2)));
    assert!(is_applied(world.answer(follower, 7)));
    assert_eq!(world.answers.len(), 3, "nobody else does");
    assert_eq!(world.revision(leader), 4);
}

#[test]
fn what_was_lost_with_a_leader_is_done_once_by_the_next() {
    let mut world = World::new();
    let old = world.elect();
    let follower = world.follower(old);
    // Forwarded to a leader that nobody hears any more; and appended by one that cannot commit.
    world.cut.push(old);
    world.get(follower).write(CLIENT, vec![put(follower, 1)]);
    world.get(old).write(CLIENT, vec![put(old, 2)]);
    world.settle();
    assert!(world.answer(follower, 1).is_none() && world.answer(old, 2).is_none());

    let new = world.elect();
    assert!(is_applied(world.answer(follower, 1)));
    world.cut.clear();
    world.tick_often(50);
    assert!(is_applied(world.answer(old, 2)));
    assert_eq!(world.revision(new), 3, "each was done once");
    assert_eq!(world.revision(old), 3);
}

#[test]
fn a_forwarded_command_for_another_term_is_not_appended() {
    let mut world = World::new();
    let leader = world.elect();
    let from = world.follower(leader);
    let term = world.get(leader).status().term;
    let commands = vec![put(from, 5).bytes];
    world.get(leader).receive(Message::Forward { from, to: leader, term: term - 1, commands });
    let effects = world.get(leader).replica.output();
    let rejection = Message::ForwardRejected {
        from: leader,
        to: from,
        term: term - 1,
        numbers: vec![5],
        reason: Rejection::NotLeader,
    };
    assert!(effects.messages.contains(&rejection), "{:?}", effects.messages);
    world.settle();
    assert_eq!(world.revision(leader), 1);
}

#[test]
fn a_late_rejection_says_nothing_of_a_later_attempt() {
    let mut world = World::new();
    let leader = world.elect();
    let follower = world.follower(leader);
    let term = world.get(leader).status().term;
    world.get(follower).write(CLIENT, vec![put(follower, 1)]);
    let forward = world.get(follower).replica.output().messages;
    assert!(matches!(forward[..], [Message::Forward { .. }]), "{forward:?}");
    let late = Message::ForwardRejected {
        from: leader,
        to: follower,
        term: term - 1,
        numbers: vec![1],
        reason: Rejection::NotLeader,
    };
    world.get(follower).receive(late);
    world.get(follower).tick();
    world.network.extend(forward);
    world.settle();
    world.tick_often(5);
    assert!(is_applied(world.answer(follower, 1)));
    assert_eq!(world.revision(leader), 2, "done once");
}

#[test]
fn what_waits_too_long_is_given_up_honestly() {
    let mut world = World::new();
    let leader = world.elect();
    let follower = world.follower(leader);
    world.cut.extend([leader, follower]);
    world.get(follower).write(CLIENT, vec![put(follower, 1)]);
    world.settle();
    world.tick_often(50);
    // By now it knows of no leader: this one is never handed on.
    world.get(follower).write(CLIENT, vec![put(follower, 2)]);
    world.get(follower).read(CLIENT, 3);
    world.tick_often(REQUEST_TICKS + 10);
    assert!(matches!(world.answer(follower, 1), Some(Outcome::NotApplied(Failure::TimedOut))));
    assert!(matches!(world.answer(follower, 2), Some(Outcome::NotApplied(Failure::NoLeader))));
    assert!(matches!(world.answer(follower, 3), Some(Outcome::NotReadable(_))));
    world.cut.clear();
    world.elect();
    assert_eq!(world.revision(follower), 1, "what was given up is not done behind the client's back");
}

#[test]
fn a_read_sees_what_was_acknowledged_elsewhere() {
    let mut world = World::new();
    let leader = world.elect();
    let follower = world.follower(leader);
    world.get(leader).write(CLIENT, vec![put(leader, 1)]);
    world.settle();
    assert!(is_applied(world.answer(leader, 1)));
    world.get(follower).read(CLIENT, 9);
    world.settle();
    world.tick_often(5);
    assert!(matches!(world.answer(follower, 9), Some(Outcome::Readable)));
    assert_eq!(world.revision(follower), 2);
}

#[test]
fn a_read_never_joins_a_batch_that_was_asked_for_before_it() {
    let mut world = World::new();
    let leader = world.elect();
    let follower = world.follower(leader);
    world.get(follower).read(CLIENT, 1);
    let first = world.get(follower).replica.output().messages;
    world.get(follower).read(CLIENT, 2);
    let second = world.get(follower).replica.output();
    assert!(second.messages.is_empty() && second.answers.is_empty(), "one batch at a time");
    world.network.extend(first);
    world.settle();
    world.tick_often(5);
    assert!(matches!(world.answer(follower, 1), Some(Outcome::Readable)));
    assert!(matches!(world.answer(follower, 2), Some(Outcome::Readable)));
}

#[test]
fn an_outsider_serves_nobody() {
    let mut outsider = member(MemberId(9), Restored::default());
    outsider.write(CLIENT, vec![put(MemberId(9), 1)]);
    outsider.read(CLIENT, 2);
    let answers = outsider.replica.output().answers;
    assert!(matches!(answers[0].outcome, Outcome::NotApplied(Failure::NotAMember)));
    assert!(matches!(answers[1].outcome, Outcome::NotReadable(Failure::NotAMember)));
}

/// That entry 2 is committed, which removes it, was durable in the mark only.
#[test]
fn who_was_removed_does_not_campaign_after_a_start() {
    let restored = Restored {
        hard_state: HardState { term: 1, vote: None, commit: 1 },
        entries: vec![configured(1, &[1, 2]), configured(2, &[1])],
        ..Restored::default()
    };
    let mut removed = on(Options { removed: 2, ..options(MemberId(2)) }, restored.clone());
    let mut waits = member(MemberId(2), restored);
    for _ in 0..50 {
        removed.tick();
        waits.tick();
    }
    assert!(!waits.replica.output().messages.is_empty(), "the log alone does not tell");
    assert!(removed.replica.output().messages.is_empty());
    assert_eq!((removed.standing(), removed.removed()), (Standing::Removed, 2));
}

/// The snapshot covers the entry that removes it, and was durable before the mark.
#[test]
fn who_was_removed_knows_it_from_the_log_behind_a_snapshot() {
    let id = LogId { term: 1, index: 2 };
    let mut restored = Restored {
        hard_state: HardState { term: 1, vote: None, commit: 2 },
        snapshot: Some(Snapshot { id, configuration: voters(&[1]), configuration_id: id }),
        entries: vec![configured(1, &[1, 2]), configured(2, &[1])],
        ..Restored::default()
    };
    let removed = member(MemberId(2), restored.clone());
    assert_eq!((removed.standing(), removed.removed()), (Standing::Removed, 2));
    // What was not committed has let nobody in.
    restored.hard_state.commit = 0;
    assert_eq!(member(MemberId(2), restored).standing(), Standing::Outsider);
}

/// Failure 32.
#[test]
fn who_waits_for_what_a_snapshot_covers_is_told() {
    let mut world = World::new();
    let leader = world.elect();
    let follower = world.follower(leader);
    world.cut.push(follower);
    world.get(follower).write(CLIENT, vec![put(follower, 1)]);
    world.settle();
    assert!(world.answer(follower, 1).is_none(), "it was handed on, and the answer is lost");

    let (manifest, state) = snapshot_beyond(world.get(follower));
    let id = manifest.id();
    world.get(follower).reported(Report::Received(manifest, state));
    world.settle();
    assert!(matches!(world.answer(follower, 1), Some(Outcome::NotApplied(Failure::TimedOut))));
    assert_eq!((world.get(follower).applied, world.revision(follower)), (id.index, 6));
    // What it takes in from now on is done as ever.
    world.get(follower).write(CLIENT, vec![put(follower, 2)]);
    world.settle();
    assert!(world.answer(follower, 2).is_none());
}

/// A command that another version has encoded: with a field that this one does not know.
fn foreign(origin: MemberId, number: u64) -> Bytes {
    let known = put(origin, number).bytes;
    [&known[..], &[0xa0, 0x06, 1]].concat().into()
}

fn raise(to: Level) -> Operation {
    Operation::RaiseLevel(log::RaiseLevel { to })
}

/// C1 of the review: it was skipped, by those who did not know it.
#[test]
fn an_entry_of_a_newer_version_ends_the_process_before_anything_of_it_is_applied() {
    let entry = |index, bytes: Bytes| Entry { term: 1, index, payload: Payload::Command(bytes) };
    let id = MemberId(1);
    let higher = command_of(id, 8, raise(NEWEST + 1)).bytes;
    let unknown = log::Command { origin: 1, request: 8, ..Default::default() }.encode_to_vec().into();
    for (newer, needs) in [(foreign(id, 8), None), (higher, Some(NEWEST + 1)), (unknown, None)] {
        let restored = Restored {
            hard_state: HardState { term: 1, vote: None, commit: 4 },
            entries: vec![
                configured(1, &[1]),
                entry(2, put(id, 7).bytes),
                entry(3, newer),
                entry(4, put(id, 9).bytes),
            ],
            ..Restored::default()
        };
        let Member { mut replica, mut applier, .. } = member(id, restored);
        let ended = replica.replay(4, &mut applier).expect_err("it cannot be applied");
        assert_eq!((ended.what, ended.needs), (Subject::Entry(3), needs));
        let revision = applier.store().read().revision();
        assert_eq!((replica.applied, revision), (2, 2), "what stands before it is");
        assert!(replica.output().end.is_some() && !applier.is_busy(), "it stays that way");
    }
}

/// A state of a level that is not supported is not begun with: the log behind it may say nothing of its level any more.
#[test]
fn a_state_of_a_higher_level_is_refused() {
    let mut state = Store::new();
    state.apply(&raise(NEWEST + 1)).unwrap();
    let Member { mut replica, mut applier, .. } = above(options(MemberId(1)), Restored::default(), state);
    assert_eq!(replica.replay(0, &mut applier).map_err(|ended| ended.needs), Err(Some(NEWEST + 1)));
}

#[test]
fn a_leader_appends_nothing_that_it_cannot_read_or_that_the_level_does_not_allow() {
    let mut world = World::new();
    let leader = world.elect();
    let follower = world.follower(leader);
    let end = world.get(leader).status().last;
    let above = command_of(follower, 2, raise(NEWEST + 1));
    world.get(follower).write(CLIENT, vec![above.clone()]);
    world.settle();
    let refused =
        |outcome: Option<&Outcome>| matches!(outcome, Some(Outcome::NotApplied(Failure::Unsupported)));
    assert!(refused(world.answer(follower, 2)), "the follower itself knows");
    // One of a newer version does not.
    for (number, bytes) in [(3, foreign(follower, 3)), (4, command_of(follower, 4, raise(NEWEST + 1)).bytes)]
    {
        world.get(follower).write(CLIENT, vec![Command { number, bytes, needs: FIRST }]);
        world.settle();
        assert!(refused(world.answer(follower, number)), "{:?}", world.answer(follower, number));
    }
    assert_eq!(world.get(leader).status().last, end, "nothing was appended");
}

#[test]
fn a_raise_of_the_level_is_the_same_on_every_member_and_never_undone() {
    let mut state = Store::new();
    assert_eq!(state.level(), FIRST);
    state.apply(&raise(2)).unwrap();
    state.apply(&raise(1)).unwrap();
    assert_eq!((state.level(), state.revision()), (2, 1));
    // A manifest of such a state, offered to a member that does not support it.
    let mut world = World::new();
    let leader = world.elect();
    let follower = world.follower(leader);
    let id = snapshot_of(world.get(leader));
    let wire = quorate_api::snapshot::Manifest { level: NEWEST + 1, ..Default::default() };
    assert!(
        matches!(Manifest::from_wire(wire), Err(crate::snapshots::ManifestError::Level(level)) if level > NEWEST)
    );
    let level = Levels { oldest: FIRST + 1, newest: FIRST + 1 };
    world.get(follower).levels = level;
    let manifest = Box::new(manifest_at(world.get(leader), id));
    world.get(follower).receive(Message::SnapshotManifest { from: leader, to: follower, manifest });
    assert_eq!(world.get(follower).output().0.end.map(|end| end.what), Some(Subject::Snapshot(id.index)));
}

/// The level rises when every member supports it, and only then.
#[test]
fn the_level_rises_when_every_member_has_said_that_it_supports_it() {
    let mut world = World::new();
    let leader = world.elect();
    let old = world.follower(leader);
    world.get(old).levels = Levels { oldest: FIRST, newest: FIRST };
    world.tick_often(2 * builds::TELLS_EVERY);
    let error = world.get(leader).raise_level(None).expect_err("one does not support it");
    assert!(
        matches!(&error, RaiseError::Unsupported { to: NEWEST, members } if members[0].id == old),
        "{error}"
    );
    assert!(matches!(world.get(old).raise_level(None), Err(RaiseError::NotNow(_))), "it does not lead");
    world.get(old).levels = Levels::ALL;
    world.cut.push(old);
    world.tick_often(5 * builds::TELLS_EVERY);
    assert!(world.get(leader).raise_level(None).is_err(), "it was not heard lately");
    world.cut.clear();
    world.tick_often(2 * builds::TELLS_EVERY);
    let leader = world.elect();
    assert_eq!(world.get(leader).raise_level(None), Ok(NEWEST));
    world.tick_often(20);
    assert!(world.replicas.values().all(|replica| replica.level() == NEWEST));
    assert_eq!(world.get(leader).raise_level(Some(FIRST)), Ok(NEWEST), "it never falls");
}

/// Followers whose disks are full cannot write what a leader with room would append: its clients are told instead of waiting in vain.
#[test]
fn a_leader_takes_nothing_that_no_quorum_has_room_for() {
    let mut world = World::new();
    let leader = world.elect();
    let followers: Vec<MemberId> = world.replicas.keys().copied().filter(|id| *id != leader).collect();
    let written = |world: &mut World, at, number| {
        world.get(at).write(CLIENT, vec![put(at, number)]);
        world.settle();
        world.tick_often(2);
        is_applied(world.answer(at, number))
    };
    world.get(followers[0]).set_room(Room::Out);
    world.settle();
    assert!(written(&mut world, leader, 1), "two have room");
    world.get(followers[1]).set_room(Room::Low);
    world.settle();
    assert!(!written(&mut world, leader, 2));
    let refused = world.answer(leader, 2);
    assert!(matches!(refused, Some(Outcome::NotApplied(Failure::NoSpace))), "{refused:?}");
    assert_eq!(world.replicas[&leader].short_of_room(), followers);
    // It holds for as long as they say so, and ends when they have room.
    world.tick_often(3 * REQUEST_TICKS);
    assert!(!written(&mut world, leader, 3));
    world.get(followers[1]).set_room(Room::Enough);
    world.settle();
    assert!(written(&mut world, leader, 4));
    // One has enough and is away: the other is all that there is.
    world.get(followers[0]).set_room(Room::Enough);
    world.settle();
    world.cut.push(followers[0]);
    world.get(followers[1]).set_room(Room::Low);
    world.settle();
    world.tick_often(20);
    assert!(!written(&mut world, leader, 5));
    let refused = world.answer(leader, 5);
    assert!(matches!(refused, Some(Outcome::NotApplied(Failure::NoSpace))), "{refused:?}");
}

/// What the leader offers cannot be read any more, and in a quiet cluster the log calls for no other one.
#[test]
fn a_damaged_snapshot_is_taken_again() {
    let mut world = World::new();
    let leader = world.elect();
    world.get(leader).write(CLIENT, vec![put(leader, 1)]);
    world.settle();
    let newest = world.get(leader).applied;
    let taken = |replica: &mut Member| {
        let job = replica.output().0.jobs.into_iter().find_map(|job| match job {
            Job::Take(snapshot, source) => Some((snapshot, source)),
            _ => None,
        });
        job.map(|(snapshot, source)| manifest_of(snapshot, source, replica.store()))
    };
    let damaged = |replica: &mut Member, id| {
        replica.reported(Report::Read(MemberId(9), id, Part::Piece(0), Some(Found::Damaged)));
        replica.tick();
    };
    let replica = world.get(leader);
    let id = snapshot_of(replica);
    damaged(replica, LogId { index: newest - 1, ..id });
    assert!(taken(replica).is_none(), "it is not the newest");
    damaged(replica, id);
    let manifest = taken(replica).expect("another one");
    assert_eq!(manifest.id(), id, "nothing has happened since");
    replica.reported(Report::Taken(manifest.clone()));
    for _ in 0..2000 {
        replica.tick();
        assert!(taken(replica).is_none(), "it is there");
    }
    // Again, now that the log begins with it.
    damaged(replica, id);
    assert_eq!(taken(replica).expect("another one").id(), id);
}

/// A snapshot of what the member has applied is taken.
fn snapshot_of(replica: &mut Member) -> LogId {
    let snapshot = replica.raft.snapshot_at(replica.applied).expect("it is committed");
    let id = snapshot.id;
    let source = replica.store().write().snapshot(4096).expect("no other is being taken");
    let manifest = manifest_of(snapshot, source, replica.store());
    replica.reported(Report::Taken(manifest));
    id
}

/// The log is kept back to the snapshot that a member fetches, though others are taken meanwhile; unless there is no room.
#[test]
fn who_fetches_a_snapshot_goes_on_from_there_by_the_log() {
    for (room, is_kept) in [(Room::Enough, true), (Room::Low, false)] {
        let mut world = World::keeping(1 << 20);
        let leader = world.elect();
        let away = world.follower(leader);
        let mut number = 0;
        let mut write = |world: &mut World| {
            for _ in 0..3 {
                number += 1;
                world.get(leader).write(CLIENT, vec![put_bytes(leader, number, 1 << 20)]);
                world.settle();
            }
        };
        world.cut.push(away);
        write(&mut world);
        let fetched = snapshot_of(world.get(leader));
        world.cut.clear();
        world.tick_often(20);
        assert_eq!(world.get(away).fetcher.id(), Some(fetched));
        write(&mut world);
        world.get(leader).set_room(room);
        assert!(snapshot_of(world.get(leader)) > fetched);
        let kept = world.get(leader).raft.snapshot_at(fetched.index + 1).is_some();
        assert_eq!(kept, is_kept, "{room:?}");
    }
}

fn manifest_at(replica: &mut Member, id: LogId) -> Manifest {
    let Status { configuration, configuration_id, .. } = replica.status();
    let snapshot = Snapshot { id, configuration, configuration_id };
    let source = replica.store().write().snapshot(4096).expect("no other is being taken");
    manifest_of(snapshot, source, replica.store())
}

fn manifest_of(snapshot: Snapshot, mut source: SnapshotSource, store: &RwLock<Store>) -> Manifest {
    let (piece_bytes, level) = (source.piece_bytes() as u32, source.level());
    let mut draft = Draft::default();
    while let Some(piece) = source.next_piece(store).expect("the state is the same") {
        draft.add(&piece);
    }
    draft.finish(snapshot, piece_bytes, level)
}

/// A deletion of millions of keys, say: the leader leads on, and what it decides is done elsewhere. What comes before it is done waits;
/// what would wait for too long is refused.
#[test]
fn a_leader_whose_applier_stands_still_leads_on() {
    let mut world = World::new();
    let leader = world.elect();
    let follower = world.follower(leader);
    let term = world.get(leader).status().term;
    world.get(leader).stalled = true;
    world.get(leader).write(CLIENT, vec![put(leader, 1)]);
    world.get(follower).write(CLIENT, vec![put(follower, 2)]);
    world.settle();
    world.get(leader).read(CLIENT, 3);
    world.settle();
    assert!(is_applied(world.answer(follower, 2)), "it is committed, and applied where it was asked for");
    assert!(world.answer(leader, 1).is_none() && world.answer(leader, 3).is_none());
    world.tick_often(REQUEST_TICKS / 2 + 1);
    let status = world.get(leader).status();
    assert_eq!((status.role, status.term), (Role::Leader, term));
    for (at, number) in [(leader, 4), (follower, 5)] {
        world.get(at).write(CLIENT, vec![put(at, number)]);
        world.settle();
        let refused = world.answer(at, number);
        assert!(matches!(refused, Some(Outcome::NotApplied(Failure::TooFarBehind))), "{refused:?}");
    }
    world.get(leader).stalled = false;
    world.settle();
    assert!(is_applied(world.answer(leader, 1)));
    assert!(matches!(world.answer(leader, 3), Some(Outcome::Readable)));
    world.get(leader).write(CLIENT, vec![put(leader, 6)]);
    world.settle();
    assert!(is_applied(world.answer(leader, 6)));
}

/// A member that takes in no more entries is not asked for its vote any less.
#[test]
fn a_follower_that_is_far_behind_takes_no_entries_until_it_has_caught_up() {
    let mut world = World::new();
    let leader = world.elect();
    let follower = world.follower(leader);
    world.get(follower).stalled = true;
    let put = |number| put_bytes(leader, number, 8 << 20);
    let most = MOST_BACKLOG_BYTES / (8 << 20);
    for number in 0..most + 10 {
        world.get(leader).write(CLIENT, vec![put(number)]);
        world.settle();
        assert!(is_applied(world.answer(leader, number)), "the others have it");
    }
    let behind = world.get(follower).status().last.index;
    assert!(behind < world.get(leader).status().last.index);
    assert_eq!(world.get(follower).backlog().bytes() / MOST_BACKLOG_BYTES, 1);
    world.tick_often(REQUEST_TICKS);
    assert_eq!(world.get(follower).status().leader, Some(leader), "it hears its leader");
    world.get(follower).stalled = false;
    world.tick_often(50);
    assert_eq!(world.revision(follower), world.revision(leader));
}

/// What was handed out before a snapshot took the state's place must not be applied onto it.
#[test]
fn entries_that_wait_are_applied_before_a_snapshot_takes_their_place() {
    let mut world = World::new();
    let leader = world.elect();
    let follower = world.follower(leader);
    world.get(follower).stalled = true;
    world.get(leader).write(CLIENT, vec![put(leader, 1), put(leader, 2)]);
    world.settle();
    world.tick_often(5);
    assert_eq!(world.revision(follower), 1, "nothing is applied there yet");
    let (manifest, state) = snapshot_beyond(world.get(follower));
    let id = manifest.id();
    world.get(follower).reported(Report::Received(manifest, state));
    let (effects, _) = world.get(follower).output();
    assert!(effects.write.is_some(), "the log begins behind the snapshot, whatever the state does");
    world.get(follower).stalled = false;
    world.settle();
    assert_eq!((world.get(follower).applied, world.revision(follower)), (id.index, 6));
}

/// A snapshot at an entry that the member's log does not reach, and its state, of five keys.
fn snapshot_beyond(member: &Member) -> (Manifest, Box<Store>) {
    let status = member.status();
    let id = LogId { term: status.term, index: status.last.index + 100 };
    let manifest = Manifest::from_wire(quorate_api::snapshot::Manifest {
        index: id.index,
        term: id.term,
        configuration: Some(crate::codec::configuration_to_wire(&status.configuration)),
        configuration_index: status.configuration_id.index,
        configuration_term: status.configuration_id.term,
        bytes: 1,
        hashes: vec![0; 32].into(),
        piece_bytes: 4096,
        level: FIRST,
    });
    let mut state = Store::new();
    for number in 0..5 {
        let request = pb::PutRequest { key: format!("{number}").into(), ..Default::default() };
        state.apply(&Operation::Put(request)).unwrap();
    }
    state.applied_up_to(id);
    (manifest.unwrap(), Box::new(state))
}

/// The entry that removes a member is known of, and its mark can be stored, before the state has come so far.
#[test]
fn a_removal_is_known_before_it_is_applied() {
    let restored = Restored {
        hard_state: HardState { term: 1, vote: None, commit: 2 },
        entries: vec![configured(1, &[1, 2]), configured(2, &[1])],
        ..Restored::default()
    };
    let mut removed = member(MemberId(2), restored);
    let effects = removed.replica.output();
    assert!(matches!(effects.apply[..], [Work::Entries(_)]) && effects.status_changed);
    assert_eq!((removed.removed(), removed.applied), (2, 0));
}

/// Review M1: 1,000 rounds were 1,000 numbers.
#[test]
fn what_is_given_up_leaves_nothing_behind_while_nobody_leads() {
    let mut world = World::new();
    let alone = MemberId(1);
    world.cut.extend([MemberId(1), MemberId(2), MemberId(3)]);
    for round in 0..100 {
        world.get(alone).write(CLIENT, vec![put(alone, round)]);
        world.tick_often(REQUEST_TICKS + 10);
        let failed = world.answer(alone, round);
        assert!(matches!(failed, Some(Outcome::NotApplied(Failure::NoLeader))), "{failed:?}");
    }
    assert_eq!(world.get(alone).writes.unsent(), 0);
}

#[test]
fn a_request_is_refused_at_once_when_none_could_have_been_served_for_as_long_as_one_may_wait() {
    let mut world = World::new();
    let leader = world.elect();
    let alone = world.follower(leader);
    world.cut.push(alone);
    world.tick_often(REQUEST_TICKS + 50);
    world.get(alone).write(CLIENT, vec![put(alone, 1)]);
    world.get(alone).read(CLIENT, 2);
    world.settle();
    assert!(matches!(world.answer(alone, 1), Some(Outcome::NotApplied(Failure::NoLeader))));
    assert!(matches!(world.answer(alone, 2), Some(Outcome::NotReadable(Failure::NoLeader))));
    world.cut.clear();
    world.tick_often(50);
    world.get(alone).write(CLIENT, vec![put(alone, 3)]);
    world.settle();
    world.tick_often(5);
    assert!(is_applied(world.answer(alone, 3)));
}

/// Review M6: what a link does not hold is lost without a word.
#[test]
fn no_more_is_forwarded_than_a_link_holds() {
    let mut world = World::new();
    let leader = world.elect();
    let follower = world.follower(leader);
    let commands = (0..100).map(|number| put_bytes(follower, number, 1 << 20)).collect();
    world.get(follower).write(CLIENT, commands);
    let messages = world.get(follower).replica.output().messages;
    let bytes = |message: &Message| match message {
        Message::Forward { commands, .. } => commands.iter().map(Bytes::len).sum(),
        _ => 0_usize,
    };
    let sent: usize = messages.iter().map(bytes).sum();
    assert!((32 << 20..=34 << 20).contains(&sent), "{sent} bytes");
    world.network.extend(messages);
    world.settle();
    world.tick_often(10);
    assert!((0..100).all(|number| is_applied(world.answer(follower, number))), "the rest follows");
}

/// Review L10: leadership went to and fro between members without room.
#[test]
fn leadership_is_handed_only_to_a_member_with_room() {
    let mut world = World::new();
    let leader = world.elect();
    let followers: Vec<MemberId> = world.replicas.keys().copied().filter(|id| *id != leader).collect();
    for id in [leader, followers[0], followers[1]] {
        world.get(id).set_room(Room::Out);
    }
    world.settle();
    world.tick_often(3 * HANDS_OVER_EVERY);
    assert_eq!(world.get(leader).status().role, Role::Leader, "nobody has more room");
    world.get(followers[1]).set_room(Room::Enough);
    world.settle();
    world.tick_often(2 * HANDS_OVER_EVERY);
    assert_eq!(world.get(followers[1]).status().role, Role::Leader);
}

/// Review L1: a hundred bytes of a peer ask for a quarter of a megabyte.
#[test]
fn few_parts_of_snapshots_are_read_at_a_time() {
    let mut member = member(MemberId(1), Restored::default());
    let (id, part) = (LogId { term: 1, index: 1 }, Part::Piece(0));
    let ask = |member: &mut Member, from| {
        let request = Message::SnapshotRequest { from: MemberId(from), to: MemberId(1), id, part };
        member.receive(request);
    };
    for from in 2..12 {
        (0..1000).for_each(|_| ask(&mut member, from));
    }
    assert_eq!(member.replica.output().jobs.len(), 256);
    // What was read makes room.
    member.reported(Report::Read(MemberId(2), id, part, None));
    ask(&mut member, 3);
    assert!(member.replica.output().jobs.is_empty(), "it has its share");
    ask(&mut member, 9);
    assert_eq!(member.replica.output().jobs.len(), 1);
}
