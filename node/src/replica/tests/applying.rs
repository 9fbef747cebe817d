//! A replica whose applier is slow, or stands still.

use quorate_raft::Body;

use super::*;
use crate::kv::looks::hold;

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

/// However many operations come at once, and whatever they are, a piece of them is applied under a hold of the state's lock: what
/// changes nothing, or has no pieces, is work too.
#[test]
fn pieces_of_applying_are_short_whatever_is_applied() {
    let put = |number: u64, ignore_value| pb::PutRequest {
        key: format!("key-{number}").into(),
        ignore_value,
        ..Default::default()
    };
    let op = |put| pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) };
    let puts = (0..3000).map(|number| Operation::Put(put(number, false)));
    let compact = |revision| Operation::Compact(pb::CompactionRequest { revision, physical: false });
    // The last of its puts fails, and so all of them.
    let failing = || {
        let success = (2489..3001).map(|number| op(put(number, true))).collect();
        Operation::Txn(pb::TxnRequest { success, ..Default::default() })
    };
    let operations = puts.chain((2..258).map(compact)).chain(std::iter::repeat_with(failing).take(170));
    let entries = (1..).zip(operations).map(|(index, operation)| Entry {
        term: 1,
        index,
        payload: Payload::Command(command_of(MemberId(1), index, operation).bytes),
    });
    let mut applier = member(MemberId(1), Restored::default()).applier;
    applier.push(vec![Work::Entries(entries.collect())]);
    let mut failed = 0;
    while applier.is_busy() {
        let step = hold(|| applier.step());
        failed += step.answers.iter().filter(|(_, result)| result.is_err()).count();
        hold(|| applier.collect());
    }
    assert_eq!(failed, 170);
}

/// A member that takes in no more entries is not asked for its vote any less.
#[test]
fn a_follower_that_is_far_behind_takes_no_entries_until_it_has_caught_up() {
    let mut world = World::new();
    let leader = world.elect();
    let follower = world.follower(leader);
    world.get(follower).stalled = true;
    let put = |number| put_bytes(leader, number, 8 << 20);
    let most = MOST_BACKLOG * WAITING_BYTES / (8 << 20);
    for number in 0..most + 10 {
        world.get(leader).write(CLIENT, vec![put(number)]);
        world.settle();
        assert!(is_applied(world.answer(leader, number)), "the others have it");
    }
    let behind = world.get(follower).status().last.index;
    assert!(behind < world.get(leader).status().last.index);
    assert_eq!(world.get(follower).backlog().bytes() / (MOST_BACKLOG * WAITING_BYTES), 1);
    world.tick_often(REQUEST_TICKS);
    assert_eq!(world.get(follower).status().leader, Some(leader), "it hears its leader");
    world.get(follower).stalled = false;
    world.tick_often(50);
    assert_eq!(world.revision(follower), world.revision(leader));
}

/// Requests that are given up give back what they took at their gateway, and stay in the log: with a quorum that stores nothing it would
/// grow for as long as requests come.
#[test]
fn a_leader_takes_in_no_more_than_it_may_hold_while_nothing_is_committed() {
    const ROUND: usize = 8 << 20;
    let mut world = World::new();
    let leader = world.elect();
    let follower = world.follower(leader);
    world.loses =
        |message| matches!(message, Message::Raft(raft) if matches!(raft.body, Body::AppendAccepted { .. }));
    let accepted = world.get(leader).status().commit;
    let mut number = 0;
    for _ in 0..20 {
        for at in [leader, follower] {
            number += 1;
            world.get(at).write(CLIENT, vec![put_bytes(at, number, ROUND)]);
        }
        world.settle();
        world.tick_often(REQUEST_TICKS + 1);
    }
    let status = world.get(leader).status();
    assert_eq!((status.role, status.commit), (Role::Leader, accepted), "it leads, and commits nothing");
    let entries = status.last.index - status.commit;
    assert!(entries * ROUND as u64 <= WAITING_BYTES + 4 * ROUND as u64, "{entries} entries");
    for (at, number) in [(leader, number - 1), (follower, number)] {
        let refused = world.answer(at, number);
        assert!(matches!(refused, Some(Outcome::NotApplied(Failure::TooFarBehind))), "{refused:?}");
    }
    // What has stayed is done, and then there is room again.
    world.loses = |_| false;
    world.tick_often(50);
    world.get(follower).write(CLIENT, vec![put(follower, 100)]);
    world.settle();
    world.tick_often(2);
    assert!(is_applied(world.answer(follower, 100)));
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

/// It would lead on, refuse every request and look well.
#[test]
fn leadership_is_handed_to_a_member_that_applies() {
    let mut world = World::new();
    let leader = world.elect();
    let followers: Vec<MemberId> = world.replicas.keys().copied().filter(|id| *id != leader).collect();
    for id in [leader, followers[0], followers[1]] {
        world.get(id).stalled = true;
    }
    world.get(leader).write(CLIENT, vec![put(leader, 1)]);
    world.settle();
    world.tick_often(REQUEST_TICKS + 3 * HANDS_OVER_EVERY);
    assert_eq!(world.get(leader).status().role, Role::Leader, "nobody does better");
    assert!(world.get(leader).applier_stands_still());
    world.get(followers[1]).stalled = false;
    world.tick_often(builds::TELLS_EVERY + 2 * HANDS_OVER_EVERY);
    assert_eq!(world.get(followers[1]).status().role, Role::Leader);
    world.get(followers[1]).write(CLIENT, vec![put(followers[1], 2)]);
    world.settle();
    assert!(is_applied(world.answer(followers[1], 2)));
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
