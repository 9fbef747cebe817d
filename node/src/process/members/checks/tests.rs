use super::*;

/// A leader, 1, of these voters and learners, all of whom are heard and have all.
fn leader(voters: &[u64], learners: &[u64]) -> StatusResponse {
    let named = |id| log::Member {
        id,
        name: format!("n{id}"),
        peer_address: format!("n{id}:1"),
        ..log::Member::default()
    };
    let members = voters.iter().chain(learners).map(|id| named(*id)).collect();
    let configuration = log::Configuration {
        voters: voters.to_vec(),
        learners: learners.to_vec(),
        members,
        ..log::Configuration::default()
    };
    let heard = |id: &u64| Progress {
        member_id: *id,
        r#match: 100,
        active: true,
        caught_up: true,
        ..Progress::default()
    };
    StatusResponse {
        member_id: 1,
        level: REGISTRATIONS,
        progress: voters.iter().chain(learners).map(heard).collect(),
        configuration: Some(quorate_api::admin::ConfigurationStatus {
            configuration: Some(configuration),
            committed: true,
            ..Default::default()
        }),
        ..StatusResponse::default()
    }
}

fn current(status: &mut StatusResponse) -> &mut log::Configuration {
    status.configuration.as_mut().and_then(|status| status.configuration.as_mut()).expect("there is one")
}

fn silent(status: &mut StatusResponse, id: u64) {
    status.progress.iter_mut().filter(|member| member.member_id == id).for_each(|m| m.active = false);
}

fn add(learner: bool) -> Change {
    Change::Add { peer_address: "n9:1".into(), learner }
}

/// `status` once `change` of member 9 has been made.
fn made(mut status: StatusResponse, change: &Change) -> StatusResponse {
    match next(&status, change, 9, false) {
        Ok(Step::Ask(wanted)) => *current(&mut status) = wanted,
        other => panic!("{other:?}"),
    }
    let progress = Progress { member_id: 9, ..Progress::default() };
    status.progress.push(progress);
    status
}

#[test]
fn a_member_that_is_added_is_a_learner_until_it_has_come_and_shown_as_what_it_is_to_be() {
    for learner in [false, true] {
        let mut status = made(leader(&[1, 2, 3], &[]), &add(learner));
        let configuration = current(&mut status);
        assert_eq!((&configuration.voters[..], &configuration.learners[..]), (&[1, 2, 3][..], &[9][..]));
        let member = &configuration.members[3];
        assert_eq!((member.name.as_str(), member.volume), ("", 0));
        assert_eq!(is_shown_as_voter(configuration, member), !learner);
        assert_eq!(next(&status, &add(learner), 9, true), Ok(Step::Made));
    }
}

#[test]
fn voters_that_have_not_come_count_as_in_etcd() {
    // One may become two, and not three before the second has come.
    let status = made(leader(&[1], &[]), &add(false));
    assert_eq!(next(&status, &add(false), 8, false), Err(Refusal::NotEnoughStarted));
    assert_eq!(next(&status, &add(true), 8, false), Err(Refusal::Unhealthy));
    assert_eq!(next(&status, &Change::Remove(1), 1, false), Err(Refusal::NotEnoughStarted));
    assert_eq!(next(&status, &Change::Promote(9), 9, false), Err(Refusal::LearnerNotReady));
    assert!(matches!(next(&status, &Change::Remove(9), 9, false), Ok(Step::Ask(_))));
}

#[test]
fn nothing_is_added_beside_a_voter_that_is_not_heard() {
    let mut status = leader(&[1, 2, 3], &[]);
    silent(&mut status, 3);
    for learner in [false, true] {
        assert_eq!(next(&status, &add(learner), 9, false), Err(Refusal::Unhealthy));
    }
    // What is not heard may go; what is needed for a quorum may not.
    assert!(matches!(next(&status, &Change::Remove(3), 3, false), Ok(Step::Ask(_))));
    assert_eq!(next(&status, &Change::Remove(2), 2, false), Err(Refusal::Unhealthy));
}

#[test]
fn the_last_voter_and_strangers_are_not_removed() {
    assert_eq!(next(&leader(&[1], &[]), &Change::Remove(1), 1, false), Err(Refusal::NotEnoughStarted));
    assert_eq!(next(&leader(&[1, 2, 3], &[]), &Change::Remove(7), 7, false), Err(Refusal::NotFound));
    assert_eq!(next(&leader(&[1, 2, 3], &[]), &Change::Remove(7), 7, true), Ok(Step::Made));
}

#[test]
fn addresses_are_one_members() {
    let taken = Change::Add { peer_address: "n2:1".into(), learner: false };
    assert_eq!(next(&leader(&[1, 2, 3], &[]), &taken, 9, false), Err(Refusal::AddressExists));
    let update = |id, address: &str| Change::Update(id, address.into());
    let status = leader(&[1, 2, 3], &[]);
    assert_eq!(next(&status, &update(3, "n2:1"), 3, false), Err(Refusal::AddressExists));
    assert_eq!(next(&status, &update(7, "n7:1"), 7, false), Err(Refusal::NotFound));
    assert_eq!(next(&status, &update(3, "n3:1"), 3, false), Ok(Step::Made));
    let mut moved = status.clone();
    current(&mut moved).members[2].peer_address = "n33:1".into();
    assert_eq!(next(&status, &update(3, "n33:1"), 3, false), Ok(Step::Ask(current(&mut moved).clone())));
}

#[test]
fn one_learner_at_a_time_is_added_and_promoted_once_it_has_caught_up() {
    let status = leader(&[1, 2, 3], &[4]);
    assert_eq!(next(&status, &add(true), 9, false), Err(Refusal::TooManyLearners));
    let promote = |id| Change::Promote(id);
    let Ok(Step::Ask(wanted)) = next(&status, &promote(4), 4, false) else { panic!("it has all") };
    assert_eq!((wanted.voters, wanted.learners), (vec![1, 2, 3, 4], vec![]));
    assert_eq!(next(&status, &promote(2), 2, false), Err(Refusal::NotALearner));
    assert_eq!(next(&status, &promote(7), 7, false), Err(Refusal::NotFound));
    let mut lagging = status;
    lagging.progress.iter_mut().filter(|member| member.member_id == 4).for_each(|member| member.r#match = 89);
    assert_eq!(next(&lagging, &promote(4), 4, false), Err(Refusal::LearnerNotReady));
}

#[test]
fn below_its_level_nothing_is_registered_and_a_change_under_way_is_waited_for() {
    let mut status = leader(&[1, 2, 3], &[]);
    status.level = crate::level::FIRST;
    assert_eq!(next(&status, &add(false), 9, false), Err(Refusal::Unsupported));
    current(&mut status).outgoing.push(1);
    assert_eq!(next(&status, &add(false), 9, false), Ok(Step::Wait));
}
