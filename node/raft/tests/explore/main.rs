//! Every state of small worlds: the core as it is, with all that can happen to it up to a bound, and each property checked in each
//! state.
//!
//! `cargo test` explores bounds that take seconds; `QUORATE_EXPLORE=full cargo test --release` wider ones, which take minutes. Both go
//! on until there is no state that was not seen, and print how many there are. What is bounded is how often patience ends, processes
//! restart, disks are damaged, and callers propose, read or want a change; and the terms. What messages do is not bounded, unless a
//! world says so: see [`world::Bounds::gaps`].
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::panic,
    reason = "what was seen is only looked up; the protocol itself is not in here; a property that does not hold ends the test"
)]

mod canonical;
#[allow(dead_code, reason = "each kind of test uses a part of it")]
#[path = "../harness/mod.rs"]
mod harness;
mod member;
mod names;
mod properties;
mod search;
mod state;
mod world;

use member::Fault;
use search::{Explored, Search, Violation};
use world::{Bounds, World, configuration};

/// Explores the world within `quick`, or within `full` if that is wanted. No property is violated.
fn explore(world: World, quick: Bounds, full: Bounds) -> Explored {
    let is_full = std::env::var("QUORATE_EXPLORE").is_ok_and(|wanted| wanted == "full");
    let explored = Search::new(&World { bounds: if is_full { full } else { quick }, ..world }).run();
    if let Some(Violation { what, trace }) = &explored.violation {
        panic!("{what}\nafter\n{}", trace.join("\n"));
    }
    assert!(explored.states > 1000, "{explored:?}: something kept the world from moving");
    explored
}

/// From the beginning: pre-votes, votes, a leader, its first entries.
#[test]
fn two_members() {
    let quick = Bounds { ticks: 2, proposals: 1, restarts: 1, ..Bounds::default() };
    explore(World::of("two members", &[1, 2], 3), quick, Bounds { ticks: 3, ..quick });
}

#[test]
fn three_members() {
    let quick = Bounds { ticks: 2, ..Bounds::default() };
    explore(World::of("three members", &[1, 2, 3], 2), quick, Bounds { restarts: 1, ..quick });
}

#[test]
fn three_members_with_a_proposal() {
    let quick = Bounds { ticks: 1, proposals: 1, ..Bounds::default() };
    explore(
        World::of("three members with a proposal", &[1, 2, 3], 2),
        quick,
        Bounds { restarts: 1, ..quick },
    );
}

/// From a leader on: it is deposed while it replicates.
#[test]
fn the_next_leader() {
    let quick = Bounds { ticks: 2, restarts: 1, ..Bounds::default() };
    let full = Bounds { ticks: 1, restarts: 1, proposals: 1, ..Bounds::default() };
    explore(World::of("the next leader", &[1, 2, 3], 3).after_an_election(), quick, full);
}

/// A disk loses all that it held but the first entry, and the member says so.
#[test]
fn a_damaged_disk() {
    let quick = Bounds { ticks: 1, proposals: 1, damages: 1, ..Bounds::default() };
    explore(World::of("a damaged disk", &[1, 2, 3], 3).after_an_election(), quick, quick);
}

#[test]
fn a_damaged_disk_and_the_next_leader() {
    let quick = Bounds { ticks: 2, damages: 1, ..Bounds::default() };
    let full = Bounds { damages: 2, ..quick };
    explore(World::of("a damaged disk and the next leader", &[1, 2, 3], 3).after_an_election(), quick, full);
}

#[test]
fn damaged_disks_of_two_members() {
    let quick = Bounds { ticks: 2, proposals: 1, damages: 1, ..Bounds::default() };
    let full = Bounds { damages: 2, ..quick };
    explore(World::of("damaged disks of two members", &[1, 2], 3).after_an_election(), quick, full);
}

#[test]
fn reads_and_a_crash() {
    let quick = Bounds { proposals: 1, restarts: 1, reads: 1, ..Bounds::default() };
    let full = Bounds { ticks: 1, restarts: 2, reads: 2, ..Bounds::default() };
    explore(World::of("reads and a crash", &[1, 2, 3], 3).after_an_election(), quick, full);
}

/// From {1,2,3} through the joint configuration to {1,4}.
#[test]
fn a_change_of_members() {
    let quick = Bounds { changes: 1, restarts: 1, ..Bounds::default() };
    let full = Bounds { ticks: 1, ..quick };
    explore(World::of_changes("from {1,2,3} to {1,4}", 0).after_an_election(), quick, full);
}

/// And back: 2 and 3 are learners again, and become voters through the joint configuration.
#[test]
fn a_change_back() {
    let quick = Bounds { changes: 2, ..Bounds::default() };
    let full = Bounds { ticks: 1, ..quick };
    explore(World::of_changes("from {1,4} to {1,2,3}", 1).after_an_election(), quick, full);
}

/// The whole way: from {1,2,3} through the joint configuration to {1,4}, where 2 and 3 become learners, and through the joint
/// configuration back to {1,2,3}. Nobody loses patience; in the full world somebody crashes. Entries that come before those which
/// precede them do not arrive, as if they were lost: see [`Bounds::gaps`]. What else comes late, again or never is not bounded.
#[test]
fn a_change_the_whole_way() {
    let quick = Bounds { changes: 3, gaps: Some(0), ..Bounds::default() };
    let full = Bounds { restarts: 1, ..quick };
    let world = World::of_changes("from {1,2,3} to {1,4} and back", 0).after_an_election();
    let explored = explore(world, quick, full);
    assert_eq!(
        explored.furthest, 7,
        "two entries before, and a joint configuration each way, and three others"
    );
}

/// The same without that crash, but on the way the power fails, everywhere at once. Then somebody is elected, and finishes what was
/// begun; no further change is. In the quick world the way ends at {1,4}.
#[test]
fn a_change_the_whole_way_and_an_outage() {
    let quick = Bounds { changes: 1, outages: 1, ticks: 1, gaps: Some(0), ..Bounds::default() };
    let full = Bounds { changes: 3, ..quick };
    let world = World::of_changes("from {1,2,3} to {1,4} and back, with an outage", 0);
    explore(world.after_an_election(), quick, full);
}

/// All of that in one, with two members: {1,2} to {1} and back.
#[test]
fn a_change_there_and_back() {
    let mut world = World::of("from {1,2} to {1} and back", &[1, 2], 3).after_an_election();
    world.changes = vec![configuration(&[1], &[]), configuration(&[1], &[2]), configuration(&[1, 2], &[])];
    let quick = Bounds { changes: 3, ..Bounds::default() };
    let full = Bounds { ticks: 1, restarts: 1, ..quick };
    explore(world, quick, full);
}

/// What the change of members has left can only be led on by a learner, for a while: see `testscripts/learner-ahead.txt`.
#[test]
fn a_learner_that_is_ahead() {
    let quick = Bounds { ticks: 3, ..Bounds::default() };
    let full = Bounds { ticks: 4, restarts: 2, ..quick };
    let explored = explore(World::of_a_learner_ahead("a learner that is ahead"), quick, full);
    assert!(
        explored.furthest >= 3,
        "the learner's entry is committed, by one of a leader's own: {explored:?}"
    );
}

/// The search finds what follows when a disk gives back an older state: the vote in it is given twice.
#[test]
fn a_forgotten_vote_is_found() {
    let mut world = World::of("a forgotten vote", &[1, 2, 3], 2);
    world.fault = Fault::ForgetsVote;
    world.bounds = Bounds { ticks: 2, restarts: 1, ..Bounds::default() };
    let violation = Search::new(&world).run().violation.expect("two votes of one member");
    assert!(violation.what.starts_with("Vote("), "{violation:#?}");
}

/// And when a member does not say that its disk has lost something: a leader lacks what is committed.
#[test]
fn forgotten_damage_is_found() {
    let mut world = World::of("forgotten damage", &[1, 2, 3], 3).after_an_election();
    world.fault = Fault::ForgetsDamage;
    world.bounds = Bounds { ticks: 2, proposals: 1, damages: 1, ..Bounds::default() };
    let violation = Search::new(&world).run().violation.expect("what is committed is lost");
    assert!(violation.what.contains("not durable on a quorum"), "{violation:#?}");
}
