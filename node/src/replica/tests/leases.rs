//! Leases whose leader is slow, changes, or hears late.

use super::*;
use crate::replica::{Question, TimeLeft};

/// Seconds, of ten ticks each.
const TTL: i64 = 2;

const ID: i64 = 7;

/// A cluster with a lease that has just been granted, and its leader.
fn with_lease() -> (World, MemberId) {
    let mut world = World::new();
    let leader = world.elect();
    world.tick_often(100);
    world.get(leader).raise_level(None).expect("all support it");
    world.settle();
    let grant = Operation::LeaseGrant(pb::LeaseGrantRequest { ttl: TTL, id: ID });
    world.get(leader).write(CLIENT, vec![Command::new(leader.0, 100, grant)]);
    world.settle();
    assert!(is_applied(world.answer(leader, 100)));
    (world, leader)
}

fn ask(world: &mut World, at: MemberId, number: u64, renews: bool) {
    world.get(at).ask(CLIENT, vec![Question { number, id: ID, renews }]);
    world.settle();
}

fn time(world: &World, at: MemberId, number: u64) -> Option<TimeLeft> {
    match world.answer(at, number) {
        Some(Outcome::Lease(time)) => Some(time.expect("it is known")),
        None => None,
        other => panic!("{other:?}"),
    }
}

fn lives(world: &mut World, at: MemberId) -> bool {
    world.get(at).store().read().leases().get(ID).is_some()
}

#[test]
fn a_lease_ends_everywhere_when_nothing_is_heard_of_it_and_not_before() {
    let (mut world, leader) = with_lease();
    let follower = world.follower(leader);
    world.tick_often(19);
    ask(&mut world, follower, 1, false);
    assert_eq!(time(&world, follower, 1).map(|time| time.ttl), Some(TTL));
    assert!(lives(&mut world, follower));
    world.tick_often(3);
    assert!(!lives(&mut world, leader) && !lives(&mut world, follower));
    ask(&mut world, follower, 2, true);
    assert_eq!(time(&world, follower, 2), Some(TimeLeft::default()), "there is none any more");
}

/// A deletion of millions of keys, say. A client that renews in time keeps its lease.
#[test]
fn renewals_are_answered_while_the_applier_of_the_leader_stands_still() {
    let (mut world, leader) = with_lease();
    let follower = world.follower(leader);
    world.get(leader).stalled = true;
    world.get(follower).write(CLIENT, vec![put(follower, 200)]);
    world.settle();
    for round in 0..12 {
        world.tick_often(10);
        ask(&mut world, follower, round, true);
        assert_eq!(time(&world, follower, round), Some(TimeLeft { ttl: TTL, left: TTL }), "round {round}");
    }
    // Whether there is another lease it does not know before it has applied what was committed.
    world.get(follower).ask(CLIENT, vec![Question { number: 300, id: 99, renews: true }]);
    world.settle();
    assert_eq!(time(&world, follower, 300), None);
    world.get(leader).stalled = false;
    world.settle();
    assert_eq!(time(&world, follower, 300), Some(TimeLeft::default()));
    assert!(lives(&mut world, leader));
}

/// A question that was lost on its way is asked again.
#[test]
fn a_renewal_that_is_lost_is_asked_again() {
    let (mut world, leader) = with_lease();
    let follower = world.follower(leader);
    world.loses = |message| matches!(message, Message::LeaseQuestions { .. });
    ask(&mut world, follower, 1, true);
    world.loses = |_| false;
    assert_eq!(time(&world, follower, 1), None);
    world.tick_often(60);
    assert!(time(&world, follower, 1).is_some());
}

/// A leader that is deposed and does not know says nothing of a lease: the one after it gives the lease its time.
#[test]
fn a_leader_that_no_quorum_hears_renews_nothing() {
    let (mut world, leader) = with_lease();
    world.cut.push(leader);
    ask(&mut world, leader, 1, true);
    assert_eq!(time(&world, leader, 1), None);
    let next = world.elect();
    ask(&mut world, next, 2, true);
    assert_eq!(time(&world, next, 2), Some(TimeLeft { ttl: TTL, left: TTL }));
    world.tick_often(15);
    assert!(lives(&mut world, next));
    world.tick_often(10);
    assert!(!lives(&mut world, next));
}
