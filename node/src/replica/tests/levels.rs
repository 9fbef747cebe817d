//! Commands, states and members of other levels.

use super::*;

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
        world.get(follower).write(CLIENT, vec![Command { number, bytes, needs: FIRST, growth: 0 }]);
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
    let stranger = MemberId(9);
    let offered = Message::SnapshotManifest { from: stranger, to: follower, manifest: manifest.clone() };
    world.get(follower).receive(offered);
    assert!(world.get(follower).output().0.end.is_none(), "nobody but a member can end it");
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

/// It would be a member of the majority, and end at the entry that raised the level.
#[test]
fn a_learner_that_lacks_the_level_is_not_made_a_voter() {
    let learner = MemberId(3);
    let mut configuration = voters(&[1, 2]);
    configuration.learners.insert(learner);
    configuration.addresses.insert(learner, Bytes::new());
    let entry = Entry { term: 1, index: 1, payload: Payload::Configuration(Box::new(configuration.clone())) };
    let restored = Restored {
        hard_state: HardState { term: 1, vote: None, commit: 1 },
        entries: vec![entry],
        ..Restored::default()
    };
    let mut world = World::new();
    world.replicas = [1, 2, 3].map(|id| (MemberId(id), member(MemberId(id), restored.clone()))).into();
    let leader = world.elect();
    world.tick_often(2 * builds::TELLS_EVERY);
    assert_eq!(world.get(leader).raise_level(None), Ok(NEWEST), "it said so before it was started anew");
    world.settle();
    world.get(learner).levels = Levels { oldest: FIRST, newest: FIRST };
    world.tick_often(2 * builds::TELLS_EVERY);
    let id = world.get(leader).status().configuration_id;
    let wanted = voters(&[1, 2, 3]);
    let refused = world.get(leader).change_membership(id, wanted.clone());
    assert_eq!(refused, Err(ChangeError::Lagging(learner)));
    world.get(learner).levels = Levels::ALL;
    world.tick_often(2 * builds::TELLS_EVERY);
    world.get(leader).change_membership(id, wanted).expect("it supports the level");
}
