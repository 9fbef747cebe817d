//! Rollouts, and the level that makes an end of going back.

use std::time::Duration;

use quorate_crds::Cause;

use super::*;
use crate::trouble::Trouble;

const DAY: Duration = Duration::from_hours(24);

/// All members run a version that supports level 2, and have for a day; the data has level 1.
fn raisable() -> Observed {
    let mut seen = calm(3);
    for node in seen.nodes.values_mut() {
        (node.version, node.level, node.newest_level) = ("0.2.0".to_owned(), 1, 2);
    }
    seen.raisable_for = Some(DAY);
    seen
}

fn finalizes(after: Option<Duration>) -> Wanted {
    Wanted { finalize_after: after, ..wants(3) }
}

#[test]
fn level_is_raised_after_its_time_and_never_where_the_spec_says_so() {
    let step = |after| plan(&finalizes(after), &raisable(), 99).step;
    let raised = step(Some(DAY)).expect("a step");
    assert_eq!(raised.course, Course::Act(Action::RaiseLevel { leader: 0, to: 2 }));
    assert_eq!(step(Some(DAY + Duration::from_secs(1))), None, "its time has not come");
    assert_eq!(step(None), None);
}

#[test]
fn level_stays_while_a_member_is_away_or_runs_another_version_or_is_not_well() {
    let changes: [fn(&mut Observed); 5] = [
        |seen| drop(seen.nodes.remove(&2)),
        |seen| seen.nodes.get_mut(&2).expect("a node").version = "0.1.0".to_owned(),
        |seen| seen.nodes.get_mut(&2).expect("a node").newest_level = 1,
        |seen| {
            lead(seen).progress.insert(member_id(2), Progress { active: true, caught_up: false });
        },
        |seen| seen.raisable_for = None,
    ];
    for change in changes {
        let mut seen = raisable();
        change(&mut seen);
        let step = plan(&finalizes(Some(DAY)), &seen, 99).step;
        let raises = step.is_some_and(|step| step.kind == StepKind::RaiseLevel);
        assert!(!raises, "{seen:#?}");
    }
}

#[test]
fn broken_image_stops_at_one_pod_and_names_it() {
    let mut seen = calm(3);
    seen.stateful_set.as_mut().expect("a set").update_revision = Some("b".to_owned());
    let pod = seen.pods.get_mut(&2).expect("a pod");
    (pod.revision, pod.ready, pod.pod_ready, pod.stuck) = (Some("b".to_owned()), false, false, true);
    seen.nodes.remove(&2);
    lead(&mut seen).progress.insert(member_id(2), Progress::default());
    seen.troubles = vec![Trouble {
        ordinal: 2,
        cause: Cause::ImageMissing,
        message: "its image cannot be had".to_owned(),
        lasting: DAY,
    }];
    let step = plan(&wants(3), &seen, 99).step.expect("a step");
    assert_eq!(step.course, Course::Wait("demo-2 (its image cannot be had) to be well".to_owned()));

    // Taken back: the broken one goes, and no other.
    seen.stateful_set.as_mut().expect("a set").update_revision = Some("a".to_owned());
    let step = plan(&wants(3), &seen, 99).step.expect("a step");
    assert!(matches!(step.course, Course::Act(Action::EndPod { ordinal: 2, .. })), "{step:?}");
}
