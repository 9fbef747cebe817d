//! A lost quorum: what is said of it, and the way back, with a crash after each effect.

use std::time::Duration;

use quorate_crds::Cause;

use super::*;
use crate::observed::Mark;
use crate::trouble::Trouble;

/// The machines of the second and the third member are gone, with their volumes. The first answers, and leads nobody.
fn hopeless() -> Observed {
    let mut seen = calm(3);
    (lead(&mut seen).role, lead(&mut seen).progress) = (Role::Candidate, [].into());
    for ordinal in 0..3 {
        let claim = seen.claims.get_mut(&ordinal).expect("a claim");
        claim.uid = format!("claim-{ordinal}");
        claim.volume = Some(format!("pv-{ordinal}"));
        claim.mark = Some(Mark { cluster: 1, member: member_id(ordinal), removed: None });
    }
    for ordinal in [1, 2] {
        seen.nodes.remove(&ordinal);
        let pod = seen.pods.get_mut(&ordinal).expect("a pod");
        (pod.ready, pod.pod_ready, pod.running, pod.pending) = (false, false, false, true);
        let message = "its volume is bound to n".to_owned();
        let cause = Cause::VolumeOnGoneNode;
        seen.troubles.push(Trouble { ordinal, cause, message, lasting: Duration::from_hours(1) });
    }
    seen
}

fn wants_back(pod: &str, member: MemberId) -> Wanted {
    Wanted { recover: Some(Request { cluster: 1, pod: pod.to_owned(), member }), ..wants(3) }
}

#[test]
fn a_lost_quorum_is_told_by_what_has_become_of_each_voter() {
    let found = step(&hopeless(), 3);
    let Course::Refuse(until) = &found.course else { panic!("no waiting brings it back: {found:?}") };
    assert!(until.contains("gone for good: demo-1 (its volume is bound to n), demo-2"), "{until}");
    assert!(until.contains("kubectl raft recover demo"), "{until}");

    let mut away = hopeless();
    away.troubles.clear();
    let found = step(&away, 3);
    let Course::Wait(until) = &found.course else { panic!("they may come back: {found:?}") };
    assert_eq!(until, "1 more of the voters to be back: demo-1, demo-2");

    // Their volumes were exchanged for empty ones, and for another cluster's.
    let mut exchanged = hopeless();
    exchanged.troubles.clear();
    let node = |cluster_id, ordinal: Ordinal| NodeStatus {
        name: format!("demo-{ordinal}"),
        cluster_id,
        member_id: 70 + u64::from(ordinal),
        ..NodeStatus::default()
    };
    exchanged.nodes.extend([(1, node(0, 1)), (2, node(5, 2))]);
    let found = step(&exchanged, 3);
    let Course::Refuse(until) = &found.course else { panic!("{found:?}") };
    assert!(until.contains("gone for good: demo-1; with the volume of another cluster: demo-2"), "{until}");

    let mut electing = calm(3);
    (lead(&mut electing).role, lead(&mut electing).progress) = (Role::Candidate, [].into());
    let found = step(&electing, 3);
    assert_eq!(found.course, Course::Wait("a majority of the voters to reach one another".to_owned()));
}

/// What Kubernetes and the status make of an action.
fn carry_out(seen: &mut Observed, action: &Action) {
    match action {
        Action::BeginRecovery(begun) => seen.recovery = Some(begun.clone()),
        Action::RunRecovery { to, .. } => {
            let stage = Stage::Succeeded;
            let uid = "runner".to_owned();
            seen.recovery_pod = Some(RecoveryPod { uid, to: *to, terminating: false, stage });
        }
        Action::RetainVolume { ordinal, .. } => {
            seen.claims.get_mut(ordinal).expect("a claim").retained = Some(true);
        }
        Action::DeleteClaim { ordinal, .. } => drop(seen.claims.remove(ordinal)),
        Action::FinishRecovery(finished) => seen.identity = Some(finished.to),
        Action::EndRecovery { .. } => seen.recovery_pod = None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_recovery_goes_on_after_a_crash_at_each_effect_and_founds_one_cluster() {
    let wanted = wants_back("demo-0", member_id(0));
    let mut seen = hopeless();
    seen.claims.values_mut().for_each(|claim| claim.retained = Some(false));
    let mut done = Vec::new();
    let mut fresh = 99;
    for _ in 0..20 {
        // Each operator begins with what it sees, and draws an ID of its own.
        fresh += 1;
        let found = plan(&wanted, &seen, fresh);
        seen.stateful_set.as_mut().expect("a set").replicas = found.pods;
        let Some(action) = found.action() else {
            assert_eq!(found.pods, 0, "no pod beside a recovery: {found:?}");
            seen.pods.clear();
            seen.nodes.clear();
            seen.troubles.clear();
            continue;
        };
        let name = format!("{action:?}").split([' ', '(', '{']).next().unwrap_or_default().to_owned();
        if name == "EndRecovery" {
            assert_eq!(found.pods, 0, "its volume is in use until then");
        }
        carry_out(&mut seen, action);
        done.push(name);
        if done.last().is_some_and(|last| last == "EndRecovery") {
            break;
        }
    }
    let order = [
        "BeginRecovery",
        "RunRecovery",
        "RetainVolume",
        "DeleteClaim",
        "RetainVolume",
        "DeleteClaim",
        "FinishRecovery",
        "EndRecovery",
    ];
    assert_eq!(done, order);
    let recovery = seen.recovery.clone().expect("it is in the status");
    assert_eq!((seen.identity, recovery.to), (Some(100), 100), "the ID of the first that began");
    let kept = [("demo-1", "pv-1"), ("demo-2", "pv-2")];
    assert_eq!(recovery.kept, kept.map(|(pod, volume)| (pod.to_owned(), volume.to_owned())));
    let after = plan(&wanted, &seen, 200);
    assert_eq!(after.pods, 3, "it grows again");
    assert!(!matches!(after.action(), Some(Action::BeginRecovery(_))), "a request holds once: {after:?}");
}

#[test]
fn nothing_is_recovered_that_has_a_leader_or_holds_another_member() {
    let refused = |wanted: &Wanted, seen: &Observed, part: &str| {
        let step = plan(wanted, seen, 99).step.expect("a step");
        let Course::Refuse(until) = &step.course else { panic!("{step:?}") };
        assert!(step.kind == StepKind::Recover && until.contains(part), "{step:?}");
    };
    let mut led = calm(3);
    led.claims = hopeless().claims;
    refused(&wants_back("demo-0", member_id(0)), &led, "demo-0 leads");
    refused(&wants_back("demo-0", 77), &hopeless(), "000000000000000a");
    refused(&wants_back("other-0", member_id(0)), &hopeless(), "the name of a pod");
    let mut lost = hopeless();
    lost.claims.remove(&0);
    refused(&wants_back("demo-0", member_id(0)), &lost, "data-demo-0");
}

#[test]
fn another_member_becomes_another_cluster() {
    let begun = |seen: &Observed, wanted: &Wanted, fresh| match plan(wanted, seen, fresh).action() {
        Some(Action::BeginRecovery(begun)) => begun.clone(),
        other => panic!("{other:?}"),
    };
    let mut seen = hopeless();
    seen.recovery = Some(begun(&seen, &wants_back("demo-0", member_id(0)), 100));
    let said = Stage::Failed("the log is damaged".to_owned());
    let pod = RecoveryPod { uid: "runner".to_owned(), to: 100, terminating: false, stage: said };
    seen.recovery_pod = Some(pod);
    (seen.pods, seen.nodes, seen.troubles) = Default::default();
    let failed = plan(&wants_back("demo-0", member_id(0)), &seen, 101).step.expect("a step");
    assert!(
        matches!(&failed.course, Course::Refuse(until) if until.contains("the log is damaged")),
        "{failed:?}"
    );
    let other = wants_back("demo-1", member_id(1));
    assert!(matches!(plan(&other, &seen, 101).action(), Some(Action::EndRecovery { .. })));
    seen.recovery_pod = None;
    assert_eq!(begun(&seen, &other, 102).to, 102, "the first ID may stand on the first volume");
}

/// Rounds of operators of which a third end before they act, until all is as wanted.
fn settle(world: &mut World, seed: u64) {
    for round in 0..900 {
        if round % 50 == 0 {
            world.mend();
        }
        if world.is_settled() {
            return;
        }
        let (plan, _) = world.round(false);
        if let Some(action) = plan.action().filter(|_| !world.chance.one_in(3)) {
            world.act(action, world.wanted.replicas);
        }
        world.tick();
    }
    panic!("seed {seed} is not as wanted: {world:#?}");
}

#[test]
fn a_cluster_that_has_lost_its_quorum_comes_back_as_another_wherever_it_is_interrupted() {
    for seed in 0..60 {
        let mut world = World::new(3, seed);
        settle(&mut world, seed);
        world.round(false);
        let before = world.id();
        world.suffer(&Fault::Disaster(vec![1, 2]), None);
        settle(&mut world, seed);
        assert!(before.is_some() && world.id() != before, "seed {seed}: it is the cluster that was given up");
    }
}
