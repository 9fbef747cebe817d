//! What members do whose state reaches the quota.

use quorate_api::etcdserverpb::alarm_request::AlarmAction;
use quorate_api::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, CompactionRequest, DeleteRangeRequest,
};

use super::*;
use crate::kv::KvError;
use crate::level::ALARMS;

/// What an empty state and some puts take is below, and a few kilobytes more are above.
const QUOTA: u64 = 6000;

const LARGE: usize = 1000;

/// A world that has risen to level 2, where `quota` is that of its leader.
fn world(quota: u64) -> (World, MemberId) {
    let mut world = World::new();
    let leader = world.elect();
    limit(&mut world, leader, quota);
    world.get(leader).raise_level(Some(ALARMS)).expect("all support it");
    world.settle();
    (world, leader)
}

fn limit(world: &mut World, id: MemberId, quota: u64) {
    let usage = world.get(id).quota.usage();
    world.get(id).quota = Quota::new(id, Some(quota), usage);
}

/// Has `operation` done through `id`. Whether it was, or why not.
fn done(world: &mut World, id: MemberId, number: u64, operation: Operation) -> Result<(), String> {
    world.get(id).write(CLIENT, vec![command_of(id, number, operation)]);
    world.settle();
    world.tick_often(2);
    match world.answer(id, number) {
        Some(Outcome::Applied(Ok(_))) => Ok(()),
        Some(Outcome::Applied(Err(error))) => Err(format!("{error:?}")),
        Some(Outcome::NotApplied(failure)) => Err(format!("{failure:?}")),
        other => panic!("{other:?}"),
    }
}

fn large(number: u64) -> Operation {
    let key = format!("key-{number}").into();
    Operation::Put(pb::PutRequest { key, value: vec![7; LARGE].into(), ..Default::default() })
}

/// Puts through `id`, numbered from `first`, until one is refused. Its number, and why.
fn fill(world: &mut World, id: MemberId, first: u64) -> (u64, String) {
    let puts = first..first + 20;
    puts.into_iter()
        .find_map(|number| Some((number, done(world, id, number, large(number)).err()?)))
        .expect("the quota is reached")
}

/// The alarms that every member has.
fn alarms(world: &World) -> Vec<AlarmMember> {
    let all: Vec<_> = world.replicas.values().map(|member| member.store().read().alarms()).collect();
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{all:?}");
    all[0].clone()
}

fn no_space(id: MemberId) -> AlarmMember {
    AlarmMember { member_id: id.0, alarm: AlarmType::Nospace.into() }
}

fn disarm(id: MemberId) -> Operation {
    let action = AlarmAction::Deactivate.into();
    Operation::Alarm(AlarmRequest { action, member_id: id.0, alarm: AlarmType::Nospace.into() })
}

fn make_room(world: &mut World, id: MemberId, number: u64) {
    let all = DeleteRangeRequest { key: vec![0].into(), range_end: vec![0].into(), prev_kv: false };
    done(world, id, number, Operation::DeleteRange(all)).expect("deletions go on");
    let revision = world.revision(id);
    let compact = CompactionRequest { revision, physical: false };
    done(world, id, number + 1, Operation::Compact(compact)).expect("compactions go on");
}

#[test]
fn puts_beyond_the_quota_are_refused_until_there_is_room_and_the_alarm_is_disarmed() {
    let (mut world, leader) = world(QUOTA);
    let follower = world.follower(leader);
    let (last, why) = fill(&mut world, follower, 1);
    assert_eq!(why, "NoSpace", "the log itself refuses it, behind the check");
    assert!(last > 2, "some were taken");
    assert_eq!(alarms(&world), [no_space(leader)], "whoever is refused finds the alarm");
    assert!(world.get(leader).store().read().size_in_use() < QUOTA);

    // From now on the leader refuses without the log.
    let end = world.get(leader).status().last;
    for (number, id) in [(100, leader), (101, follower)] {
        assert_eq!(done(&mut world, id, number, large(1)), Err("OverQuota".into()));
    }
    assert_eq!(world.get(leader).status().last, end);

    make_room(&mut world, follower, 110);
    assert_eq!(done(&mut world, follower, 120, large(1)), Err("OverQuota".into()), "it is not disarmed yet");
    done(&mut world, follower, 121, disarm(leader)).expect("disarmed");
    assert_eq!(alarms(&world), []);
    done(&mut world, follower, 122, large(1)).expect("there is room");
}

#[test]
fn an_alarm_that_is_disarmed_while_the_state_is_full_is_raised_again_with_the_next_put() {
    let (mut world, leader) = world(QUOTA);
    fill(&mut world, leader, 1);
    done(&mut world, leader, 100, disarm(leader)).expect("disarmed");
    world.tick_often(REQUEST_TICKS);
    assert_eq!(alarms(&world), [], "as in etcd: nothing asks for more");
    assert_eq!(done(&mut world, leader, 101, large(1)), Err("NoSpace".into()));
    assert_eq!(alarms(&world), [no_space(leader)]);
}

#[test]
fn the_smallest_quota_counts_also_that_of_a_member_that_is_away() {
    let (mut world, leader) = world(100 * QUOTA);
    let follower = world.follower(leader);
    limit(&mut world, follower, QUOTA);
    world.tick_often(2 * builds::TELLS_EVERY);
    assert_eq!(world.get(leader).smallest_quota(), Some((QUOTA, follower)));
    world.cut.push(follower);
    world.tick_often(10 * builds::TELLS_EVERY);
    fill(&mut world, leader, 1);
    assert_eq!(world.get(leader).store().read().alarms(), [no_space(follower)]);
    assert!(world.get(leader).store().read().size_in_use() < QUOTA);
}

/// What is under way counts: whatever comes before any of it is applied, the state stays below the quota on every member.
#[test]
fn many_puts_at_once_stay_below_the_quota() {
    let (mut world, leader) = world(20 * QUOTA);
    let follower = world.follower(leader);
    world.get(leader).stalled = true;
    for id in [leader, follower] {
        for batch in 0..10 {
            let numbers = batch * 100 + 1..batch * 100 + 40;
            let puts = numbers.map(|number| command_of(id, number, large(number)));
            world.get(id).write(CLIENT, puts.collect());
            world.settle();
        }
    }
    world.get(leader).stalled = false;
    world.settle();
    world.tick_often(10);
    assert_eq!(alarms(&world), [no_space(leader)]);
    for member in world.replicas.values() {
        let size = member.store().read().size_in_use();
        assert!(size < 20 * QUOTA && size > 19 * QUOTA, "what fits is taken: {size}");
    }
}

/// A put that keeps the value makes a version as large as that, however small it is itself.
#[test]
fn puts_that_keep_a_large_value_stay_below_the_quota() {
    const VALUE: u64 = 1 << 20;
    for at_level in [FIRST, ALARMS] {
        let quota = 10 * VALUE;
        let mut world = World::new();
        let leader = world.elect();
        limit(&mut world, leader, quota);
        if at_level == ALARMS {
            world.get(leader).raise_level(Some(ALARMS)).expect("all support it");
            world.settle();
        }
        let put =
            |value: Vec<u8>| pb::PutRequest { key: "k".into(), value: value.into(), ..Default::default() };
        done(&mut world, leader, 1, Operation::Put(put(vec![7; VALUE as usize]))).expect("a plain put");
        let keeps = || pb::PutRequest { ignore_value: true, ..put(Vec::new()) };
        let puts = (2..102).map(|number| command_of(leader, number, Operation::Put(keeps()))).collect();
        world.get(leader).write(CLIENT, puts);
        world.settle();
        for member in world.replicas.values() {
            let size = member.store().read().size_in_use();
            assert!(size < quota && size > 3 * VALUE, "level {at_level}: {size}");
        }
    }
}

/// A leader that has not applied a disarmament yet, which somebody else has acknowledged, does not refuse what comes after it.
#[test]
fn a_leader_that_is_behind_leaves_it_to_the_log() {
    let (mut world, leader) = world(QUOTA);
    let follower = world.follower(leader);
    fill(&mut world, leader, 1);
    world.get(leader).stalled = true;
    make_room(&mut world, follower, 110);
    done(&mut world, follower, 120, disarm(leader)).expect("disarmed");
    world.get(leader).write(CLIENT, vec![command_of(leader, 200, large(1))]);
    world.settle();
    assert!(world.answer(leader, 200).is_none(), "it waits for the applier");
    world.get(leader).stalled = false;
    world.settle();
    assert!(is_applied(world.answer(leader, 200)), "{:?}", world.answer(leader, 200));
}

#[test]
fn another_leader_and_a_restart_keep_the_alarm() {
    let (mut world, leader) = world(QUOTA);
    fill(&mut world, leader, 1);
    world.cut.push(leader);
    let next = world.elect();
    assert_eq!(world.get(next).store().read().alarms(), [no_space(leader)]);
    assert_eq!(done(&mut world, next, 200, large(1)), Err("OverQuota".into()));
    // The state of a snapshot has it too.
    let mut pieces = Vec::new();
    let store = world.get(next).store();
    let mut source = store.write().snapshot(1 << 16).expect("no other");
    while let Some(piece) = source.next_piece(store).expect("it is not replaced") {
        pieces.push(piece);
    }
    let mut restore = crate::kv::snapshot::Restore::new();
    for piece in &pieces {
        restore.push(piece).expect("what was encoded");
    }
    let mut restored = restore.finish().expect("all of it");
    assert_eq!(Usage::of(&restored), Usage::of(&store.read()));
    assert_eq!(restored.apply(&large(1)).map(drop), Err(KvError::NoSpace));
}

/// Below the level of alarms the leader alone refuses, so that nothing new stands in the log.
#[test]
fn below_the_level_of_alarms_the_leader_refuses_at_admission() {
    let mut world = World::new();
    let leader = world.elect();
    let follower = world.follower(leader);
    limit(&mut world, leader, QUOTA);
    let (last, why) = fill(&mut world, follower, 1);
    assert_eq!((why.as_str(), last > 2), ("OverQuota", true));
    let size = world.get(leader).store().read().size_in_use();
    assert!(size < QUOTA, "{size}");
    assert_eq!(alarms(&world), []);
    assert!(world.get(leader).usage().is_full, "the leader shows it");
    // What is admitted at once counts together.
    let puts = (100..110).map(|number| command_of(leader, number, large(number))).collect();
    world.get(leader).write(CLIENT, puts);
    world.settle();
    assert!(world.get(leader).store().read().size_in_use() < QUOTA);
    make_room(&mut world, follower, 200);
    assert!(!world.get(leader).usage().is_full);
    done(&mut world, follower, 210, large(1)).expect("there is room, and no alarm to disarm");
}
