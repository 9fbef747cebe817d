//! The troubles of pods in the status: quiet for a moment, since when, and what has changed.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use quorate_crds::TroubleStatus;

use crate::observed::Observed;
use crate::trouble::{Trouble, member};

/// What is over within this is not told: pods come and go, and a scheduler tries more than once.
pub const QUIET: Duration = Duration::from_secs(10);

/// The troubles to tell. One that was told before keeps its time, whoever saw it first.
pub(super) fn told(seen: &Observed, before: &[TroubleStatus], now: Timestamp) -> Vec<TroubleStatus> {
    let mut all: Vec<_> =
        seen.troubles.iter().filter_map(|trouble| tell(seen, trouble, before, now)).collect();
    all.sort_by(|a, b| a.pod.cmp(&b.pod));
    all
}

fn tell(
    seen: &Observed,
    trouble: &Trouble,
    before: &[TroubleStatus],
    now: Timestamp,
) -> Option<TroubleStatus> {
    let pod = seen.pod_name(trouble.ordinal);
    let known = before.iter().find(|known| known.pod == pod && known.cause == trouble.cause);
    if known.is_none() && trouble.lasting < QUIET {
        return None;
    }
    let began = || {
        let lasting = SignedDuration::try_from(trouble.lasting).unwrap_or_default();
        let began = now.checked_sub(lasting).unwrap_or(now);
        // As the API server stores it: a status that differs in fractions of a second would be written for ever.
        Time(Timestamp::from_second(began.as_second()).unwrap_or(began))
    };
    Some(TroubleStatus {
        member: member(seen, trouble.ordinal).map(|id| format!("{id:016x}")),
        cause: trouble.cause,
        message: trouble.message.clone(),
        since: known.map_or_else(began, |known| known.since.clone()),
        pod,
    })
}

/// All of them in a sentence for a condition.
pub(super) fn sentence(troubles: &[TroubleStatus]) -> String {
    let one = |trouble: &TroubleStatus| {
        let TroubleStatus { pod, cause, message, since, .. } = trouble;
        format!("{pod}: {} since {}: {message}", cause.as_str(), since.0)
    };
    troubles.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// What is to be told of a change: a reason and a note for each trouble that has come, and for each pod that has none any more.
pub fn news(before: &[TroubleStatus], after: &[TroubleStatus]) -> (Vec<(&'static str, String)>, Vec<String>) {
    let same = |one: &TroubleStatus, other: &TroubleStatus| one.pod == other.pod && one.cause == other.cause;
    let come = after.iter().filter(|now| !before.iter().any(|known| same(known, now)));
    let gone = before.iter().filter(|known| !after.iter().any(|now| now.pod == known.pod));
    (
        come.map(|trouble| (trouble.cause.as_str(), format!("{}: {}", trouble.pod, trouble.message)))
            .collect(),
        gone.map(|trouble| format!("{}: {} no more", trouble.pod, trouble.cause.as_str())).collect(),
    )
}

#[cfg(test)]
mod tests {
    use quorate_crds::Cause;

    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T01:00:00.5Z".parse().expect("a time")
    }

    fn seen(lasting: u64) -> Observed {
        let trouble = Trouble {
            ordinal: 1,
            cause: Cause::NodeGone,
            message: "it was on n1".to_owned(),
            lasting: Duration::from_secs(lasting),
        };
        Observed { name: "demo".to_owned(), troubles: vec![trouble], ..Observed::default() }
    }

    #[test]
    fn a_trouble_is_told_when_it_lasts_and_keeps_its_time() {
        assert_eq!(told(&seen(9), &[], now()), []);
        let told_first = told(&seen(60), &[], now());
        assert_eq!(told_first[0].since.0.to_string(), "2026-01-01T00:59:00Z");
        let later = now() + SignedDuration::from_secs(100);
        assert_eq!(told(&seen(0), &told_first, later), told_first, "another operator goes on with it");
    }

    #[test]
    fn news_are_what_has_come_and_which_pods_are_well_again() {
        let first = told(&seen(60), &[], now());
        let (come, gone) = news(&[], &first);
        assert_eq!((come, gone.len()), (vec![("NodeGone", "demo-1: it was on n1".to_owned())], 0));
        assert_eq!(news(&first, &first), (vec![], vec![]), "said once");
        let other = vec![TroubleStatus { cause: Cause::VolumeOnGoneNode, ..first[0].clone() }];
        let (come, gone) = news(&first, &other);
        assert_eq!((come.len(), gone.len()), (1, 0), "it has another trouble now");
        assert_eq!(news(&first, &[]).1, ["demo-1: NodeGone no more"]);
    }
}
