//! Three members with a network, disks and appliers that do as the test says.

mod applying;
mod leases;
mod levels;
mod quota;

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use prost::Message as _;
use quorate_api::log::command::Operation;
use quorate_api::{etcdserverpb as pb, log};
use quorate_raft::{HardState, Role, Snapshot};

use super::*;
use crate::kv::Store;
use crate::kv::snapshot::SnapshotSource;
use crate::level::{FIRST, NEWEST};
use crate::snapshots::{Draft, Found, Manifest, Part, Report};

const CLIENT: Client = Client(0);
const REQUEST_TICKS: u64 = 200;
const WAITING_BYTES: u64 = 64 << 20;

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
    /// Which messages are lost.
    loses: fn(&Message) -> bool,
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
        World { replicas, network: VecDeque::new(), answers: Vec::new(), cut: Vec::new(), loses: |_| false }
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
                if !self.cut.contains(&message.to()) && !(self.loses)(&message) {
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
        ticks_per_second: 10,
        waiting_bytes: WAITING_BYTES,
        snapshots: SnapshotPolicy::default(),
        kept_log_bytes: 0,
        removed: 0,
        levels: Levels::ALL,
        quota: None,
        corrupt: None,
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
    Command::new(origin.0, number, operation)
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
    let short: Vec<MemberId> =
        world.replicas[&leader].short_of_room().into_iter().map(|(id, _)| id).collect();
    assert_eq!(short, followers);
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

#[test]
fn a_leader_without_descriptors_says_so() {
    let mut world = World::new();
    let leader = world.elect();
    let follower = world.follower(leader);
    world.get(leader).set_room(Room::NoDescriptors);
    for (number, id) in [(1, leader), (2, follower)] {
        world.get(id).write(CLIENT, vec![put(id, number)]);
        world.settle();
        let refused = world.answer(id, number);
        assert!(matches!(refused, Some(Outcome::NotApplied(Failure::NoDescriptors))), "{refused:?}");
    }
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
