//! What keeps a pod from serving: each failure told from the others, because the cure is another for each. Pure.

use std::time::Duration;

use quorate_crds::Cause;

use crate::membership::{MemberId, Ordinal};
use crate::observed::{ClaimState, Machine, NodeStatus, Observed, PodState};

/// A learner that has received nothing for so long is in trouble. A snapshot counts as received when all of it is there.
const STANDS_STILL: Duration = Duration::from_mins(15);
/// A learner that receives the log, and has not reached its end after so long, is slower than the writes.
const FALLS_BEHIND: Duration = Duration::from_hours(1);

/// A pod that does not serve, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The pod.
    pub ordinal: Ordinal,
    /// Why.
    pub cause: Cause,
    /// What is known of it, and what to do where the operator does nothing.
    pub message: String,
    /// For how long it has been seen.
    pub lasting: Duration,
}

/// Says for how long something has lasted that is named so.
pub type Lasting<'a> = &'a mut dyn FnMut(String) -> Duration;

/// Every pod that there should be and that does not serve, with the cause. How long each has lasted is the observer's to say.
pub fn troubles(seen: &Observed, lasting: Lasting<'_>) -> Vec<Trouble> {
    let pods = seen.stateful_set.as_ref().map_or(0, |set| set.replicas);
    let mut found = Vec::new();
    for ordinal in 0..pods {
        // Asked for in every look: what is not asked for counts as ended.
        let behind = behind(seen, ordinal, lasting);
        if let Some((cause, message)) = cause(seen, ordinal).or(behind) {
            let lasting = lasting(format!("trouble {ordinal} {}", cause.as_str()));
            found.push(Trouble { ordinal, cause, message, lasting });
        }
    }
    found
}

/// The member of an ordinal: the one that its pod runs, or that was known of it last.
pub fn member(seen: &Observed, ordinal: Ordinal) -> Option<MemberId> {
    let named = || {
        let configuration = seen.leader()?.configuration();
        configuration
            .voters
            .iter()
            .copied()
            .find(|&id| configuration.ordinal(&seen.name, id) == Some(ordinal))
    };
    let recorded = || seen.recorded.get(&ordinal).map(|known| known.member);
    let runs = seen.occupant(ordinal).map(|node| node.member_id);
    runs.or_else(named).or_else(recorded)
}

fn cause(seen: &Observed, ordinal: Ordinal) -> Option<(Cause, String)> {
    let claim = seen.claims.get(&ordinal);
    let Some(pod) = seen.pods.get(&ordinal) else {
        return seen.refused.clone().map(|sentence| (Cause::Refused, sentence));
    };
    if pod.ready {
        return None;
    }
    if pod.terminating {
        // A pod whose machine is away does not end.
        return on_its_machine(seen, pod, None);
    }
    if let Some(claim) = claim.filter(|claim| claim.lost.is_some()) {
        let volume = claim.volume.as_deref().unwrap_or("of its claim");
        return Some((
            Cause::VolumeMissing,
            format!("the PersistentVolume {volume} is missing: bring it back if it can be had"),
        ));
    }
    on_its_machine(seen, pod, claim)
        .or_else(|| of_its_volume(pod, claim))
        .or_else(|| of_its_process(pod))
        .or_else(|| waits(pod))
        .or_else(|| of_its_node(seen, ordinal, pod))
}

/// A machine that is away takes the pod with it; one that is gone takes the volume too, where the volume is bound to it.
fn on_its_machine(seen: &Observed, pod: &PodState, claim: Option<&ClaimState>) -> Option<(Cause, String)> {
    let volumes = claim.and_then(|claim| claim.machine.as_ref()).filter(|_| pod.pending);
    let (name, what, gone, away) = match (volumes, &pod.machine) {
        (Some(name), _) => (name, "its volume is bound to", Cause::VolumeOnGoneNode, Cause::VolumeOnAwayNode),
        (None, Some(name)) => (name, "it was on", Cause::NodeGone, Cause::NodeAway),
        (None, None) => return None,
    };
    match seen.machines.get(name)? {
        Machine::Gone => {
            Some((gone, format!("{what} the Kubernetes node {name}, which does not exist any more")))
        }
        Machine::Away => Some((
            away,
            format!(
                "{what} the Kubernetes node {name}, which is not ready: if the machine does not come back, delete that node"
            ),
        )),
        Machine::Ready => None,
    }
}

fn of_its_volume(pod: &PodState, claim: Option<&ClaimState>) -> Option<(Cause, String)> {
    if let Some(claim) = claim.filter(|claim| pod.pending && !claim.bound) {
        let warning = claim.warning.clone()?;
        let class = warning.contains("storageclass") && warning.contains("not found");
        let none = warning.contains("no storage class is set");
        return Some(if class || none {
            let cure =
                "make the class, or delete the cluster and make it anew with another spec.storage.className";
            (Cause::StorageClassMissing, format!("{warning}: {cure}"))
        } else {
            (Cause::VolumeNotMade, warning)
        });
    }
    let sentence = pod.unmounted.as_ref().filter(|_| !pod.running)?;
    let volume = claim.and_then(|claim| claim.volume.as_deref());
    let of_volume = sentence.contains("[data]") || volume.is_some_and(|volume| sentence.contains(volume));
    Some((if of_volume { Cause::VolumeStuck } else { Cause::NotStarted }, sentence.clone()))
}

/// What the node said when it ended: its exit codes are a table of its own (`quorate-node --help`).
fn of_its_process(pod: &PodState) -> Option<(Cause, String)> {
    let exit = pod.exit.as_ref().filter(|_| !pod.pending)?;
    if exit.reason == "OOMKilled" {
        return Some((
            Cause::OutOfMemory,
            "it took more memory than its limit: raise spec.resources.limits.memory".to_owned(),
        ));
    }
    let full = exit.said.contains("No space left on device") || exit.said.contains("Disk quota exceeded");
    let (cause, message) = match exit.code {
        3 => (Cause::TooOld, "its data was written by a newer version: give it that version's image"),
        4 => (Cause::Damaged, "the data on its volume is damaged"),
        5 => (Cause::Foreign, "its volume belongs to another member or another cluster"),
        8 if full => (Cause::VolumeFull, "its volume is full: raise spec.storage.size"),
        8 => (Cause::DiskFailed, "its disk fails"),
        10 => {
            let message = "the others have another history than its volume, which may hold acknowledged writes that they have lost: \
                           keep the volume, and see its log";
            (Cause::Contradicted, message)
        }
        7 | 11 => (Cause::SecondProcess, "another process runs as this member: end it, wherever it runs"),
        code if pod.trouble.as_deref() == Some("CrashLoopBackOff") || pod.stuck => {
            let message = format!("its node ends with code {code}");
            return Some((Cause::CrashLoop, with_words(&message, &exit.said)));
        }
        _ => return None,
    };
    Some((cause, with_words(message, &exit.said)))
}

fn with_words(message: &str, said: &str) -> String {
    if said.is_empty() { format!("{message} (see its log)") } else { format!("{message} ({said})") }
}

/// What Kubernetes waits for before it starts the pod.
fn waits(pod: &PodState) -> Option<(Cause, String)> {
    let trouble = pod.trouble.as_deref()?;
    Some(match trouble {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "RegistryUnavailable" => (
            Cause::ImageMissing,
            format!("its image cannot be had ({trouble}): check spec.image and spec.imagePullSecrets"),
        ),
        "CrashLoopBackOff" => (Cause::CrashLoop, "its node ends again and again: see its log".to_owned()),
        _ if pod.unscheduled => (Cause::Unschedulable, trouble.to_owned()),
        _ => (Cause::NotStarted, trouble.to_owned()),
    })
}

/// A node that runs and is not ready, where that is no matter of the others: without a leader nobody is ready, and a learner never is.
fn of_its_node(seen: &Observed, ordinal: Ordinal, pod: &PodState) -> Option<(Cause, String)> {
    if seen.strangers().any(|stranger| stranger == ordinal) {
        let message = "its volume belongs to another cluster: delete the claim if its data is not needed";
        return Some((Cause::Foreign, message.to_owned()));
    }
    let unready = |what: &str| Some((Cause::Unready, format!("its node runs and {what}: see its log")));
    match seen.nodes.get(&ordinal) {
        _ if !pod.stuck => None,
        None => unready("does not answer"),
        Some(node) => {
            let leader = seen.confirmed_leader()?;
            leader.configuration().voters.contains(&node.member_id).then_some(())?;
            unready("is not ready")
        }
    }
}

/// A learner that does not come to the end of the log.
fn behind(seen: &Observed, ordinal: Ordinal, lasting: Lasting<'_>) -> Option<(Cause, String)> {
    let leader = seen.leader()?;
    let &NodeStatus { member_id: id, .. } = seen.occupant(ordinal)?;
    if !leader.configuration().learners.contains(&id) || leader.is_well(id) {
        return None;
    }
    let has = leader.status.matched.get(&id).copied().unwrap_or_default();
    let still = lasting(format!("learner {id:x} has {has}"));
    let all = lasting(format!("learner {id:x}"));
    let minutes = |time: Duration| time.as_secs() / 60;
    let said = if still >= STANDS_STILL {
        format!(
            "it has received nothing for {} minutes: see its log, and the leader's",
            minutes(STANDS_STILL)
        )
    } else if all >= FALLS_BEHIND {
        format!(
            "it is behind for {} minutes: its disk or its network is slower than the writes",
            minutes(FALLS_BEHIND)
        )
    } else {
        return None;
    };
    Some((Cause::NotCatchingUp, said))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::{Exit, StatefulSetState};

    fn seen(pod: PodState) -> Observed {
        Observed {
            name: "demo".to_owned(),
            stateful_set: Some(StatefulSetState { replicas: 1, ..StatefulSetState::default() }),
            pods: [(0, pod)].into(),
            claims: [(0, ClaimState { bound: true, ..ClaimState::default() })].into(),
            machines: [("away", Machine::Away), ("gone", Machine::Gone), ("up", Machine::Ready)]
                .map(|(name, machine)| (name.to_owned(), machine))
                .into(),
            ..Observed::default()
        }
    }

    fn cause_of(seen: &Observed) -> Option<Cause> {
        troubles(seen, &mut |_| Duration::ZERO).first().map(|trouble| trouble.cause)
    }

    #[test]
    fn every_failure_has_a_cause_of_its_own() {
        let on = |machine: &str| PodState { machine: Some(machine.to_owned()), ..PodState::default() };
        let exits = |code: i32, reason: &str| PodState {
            exit: Some(Exit { code, reason: reason.to_owned(), said: String::new() }),
            trouble: Some("CrashLoopBackOff".to_owned()),
            ..on("up")
        };
        let waits = |trouble: &str, unscheduled| PodState {
            trouble: Some(trouble.to_owned()),
            pending: true,
            unscheduled,
            ..PodState::default()
        };
        let cases = [
            (PodState { ready: true, ..on("gone") }, None),
            (on("gone"), Some(Cause::NodeGone)),
            (on("away"), Some(Cause::NodeAway)),
            (exits(4, "Error"), Some(Cause::Damaged)),
            (exits(3, "Error"), Some(Cause::TooOld)),
            (exits(5, "Error"), Some(Cause::Foreign)),
            (exits(8, "Error"), Some(Cause::DiskFailed)),
            (exits(10, "Error"), Some(Cause::Contradicted)),
            (exits(11, "Error"), Some(Cause::SecondProcess)),
            (exits(137, "OOMKilled"), Some(Cause::OutOfMemory)),
            (exits(1, "Error"), Some(Cause::CrashLoop)),
            (waits("ImagePullBackOff", false), Some(Cause::ImageMissing)),
            (waits("0/3 nodes are available", true), Some(Cause::Unschedulable)),
            (waits("CreateContainerConfigError", false), Some(Cause::NotStarted)),
            (PodState { stuck: true, running: true, ..on("up") }, Some(Cause::Unready)),
            (PodState { running: true, ..on("up") }, None),
        ];
        for (pod, cause) in cases {
            assert_eq!(cause_of(&seen(pod.clone())), cause, "{pod:?}");
        }
    }

    #[test]
    fn what_the_node_said_is_passed_on_and_a_full_volume_has_a_name_of_its_own() {
        let exit = |code, said: &str| Exit { code, reason: "Error".to_owned(), said: said.to_owned() };
        let pod = |exit| PodState { exit: Some(exit), stuck: true, ..PodState::default() };
        let mut full = seen(pod(exit(8, "cannot write wal/7: No space left on device (os error 28)")));
        assert_eq!(cause_of(&full), Some(Cause::VolumeFull));
        full.pods.insert(0, pod(exit(4, "segment 7 is damaged at byte 4096")));
        let found = troubles(&full, &mut |_| Duration::ZERO).remove(0);
        assert_eq!(found.message, "the data on its volume is damaged (segment 7 is damaged at byte 4096)");
    }

    #[test]
    fn volumes_that_are_not_made_and_not_mounted_are_told_apart() {
        let mut pending = seen(PodState { pending: true, ..PodState::default() });
        let mut warned = |bound, warning: &str, unmounted: Option<&str>| {
            let claim = pending.claims.get_mut(&0).expect("a claim");
            (claim.bound, claim.volume) = (bound, Some("pvc-7".to_owned()));
            claim.warning = Some(warning.to_owned()).filter(|text| !text.is_empty());
            pending.pods.get_mut(&0).expect("a pod").unmounted = unmounted.map(str::to_owned);
            cause_of(&pending)
        };
        let class = r#"storageclass.storage.k8s.io "no-such" not found"#;
        assert_eq!(warned(false, class, None), Some(Cause::StorageClassMissing));
        let none = "no persistent volumes available for this claim and no storage class is set";
        assert_eq!(warned(false, none, None), Some(Cause::StorageClassMissing));
        assert_eq!(warned(false, "the driver has no room", None), Some(Cause::VolumeNotMade));
        let attached = r#"Multi-Attach error for volume "pvc-7" Volume is already used by pod(s) demo-0"#;
        assert_eq!(warned(true, "", Some(attached)), Some(Cause::VolumeStuck));
        let secret = r#"MountVolume.SetUp failed for volume "peer-tls" : secret "demo-peer-tls" not found"#;
        assert_eq!(warned(true, "", Some(secret)), Some(Cause::NotStarted));
        assert_eq!(warned(true, "", None), None, "it is being started");
    }

    #[test]
    fn a_learner_is_in_trouble_only_when_it_stands_still_or_never_comes_to_the_end() {
        use crate::membership::{Configuration, Member};
        use crate::observed::{ConfigurationState, Progress, Role};
        let name = |ordinal: u32| Member {
            name: format!("demo-{ordinal}"),
            peer_address: String::new(),
            client_urls: Vec::new(),
        };
        let configuration = Configuration {
            voters: [1].into(),
            learners: [2].into(),
            members: [(1, name(0)), (2, name(1))].into(),
            ..Configuration::default()
        };
        let state = ConfigurationState { configuration, committed: true, ..ConfigurationState::default() };
        let node = |ordinal: u32, role| NodeStatus {
            name: format!("demo-{ordinal}"),
            cluster_id: 9,
            member_id: u64::from(ordinal) + 1,
            role,
            configuration: Some(state.clone()),
            progress: [(2, Progress { active: true, caught_up: false })].into(),
            matched: [(2, 40)].into(),
            ..NodeStatus::default()
        };
        let mut growing = seen(PodState { ready: true, ..PodState::default() });
        growing.identity = Some(9);
        growing.stateful_set.as_mut().expect("a set").replicas = 2;
        growing.pods.insert(1, PodState { running: true, stuck: true, ..PodState::default() });
        growing.nodes = [(0, node(0, Role::Leader)), (1, node(1, Role::Learner))].into();
        let cause = |still: Duration, all: Duration| {
            let mut lasting = |what: String| if what.ends_with("has 40") { still } else { all };
            troubles(&growing, &mut lasting).first().map(|trouble| trouble.cause)
        };
        assert_eq!(cause(Duration::ZERO, Duration::from_mins(30)), None, "it is on its way, and never ready");
        assert_eq!(cause(STANDS_STILL, STANDS_STILL), Some(Cause::NotCatchingUp));
        assert_eq!(cause(Duration::ZERO, FALLS_BEHIND), Some(Cause::NotCatchingUp));
    }

    #[test]
    fn without_a_leader_a_node_that_answers_is_not_the_trouble() {
        let mut leaderless = seen(PodState { running: true, stuck: true, ..PodState::default() });
        leaderless.identity = Some(9);
        leaderless.nodes = [(0, NodeStatus { cluster_id: 9, member_id: 1, ..NodeStatus::default() })].into();
        assert_eq!(cause_of(&leaderless), None);
        leaderless.nodes.clear();
        assert_eq!(cause_of(&leaderless), Some(Cause::Unready));
    }

    #[test]
    fn a_pod_that_cannot_end_because_its_machine_is_away_is_in_trouble() {
        let on = |machine: &str| PodState {
            machine: Some(machine.to_owned()),
            terminating: true,
            ..PodState::default()
        };
        assert_eq!(cause_of(&seen(on("away"))), Some(Cause::NodeAway));
        assert_eq!(cause_of(&seen(on("up"))), None, "it ends");
    }

    #[test]
    fn a_volume_that_is_bound_to_a_machine_goes_with_it() {
        let mut local = seen(PodState {
            pending: true,
            unscheduled: true,
            trouble: Some("affinity".to_owned()),
            ..PodState::default()
        });
        local.claims.get_mut(&0).expect("a claim").machine = Some("gone".to_owned());
        assert_eq!(cause_of(&local), Some(Cause::VolumeOnGoneNode));
        local.claims.get_mut(&0).expect("a claim").machine = Some("away".to_owned());
        assert_eq!(cause_of(&local), Some(Cause::VolumeOnAwayNode));
        local.claims.get_mut(&0).expect("a claim").lost = Some(Duration::ZERO);
        assert_eq!(cause_of(&local), Some(Cause::VolumeMissing));
    }

    #[test]
    fn pods_that_are_refused_say_so_in_the_words_of_the_api_server() {
        let mut refused = seen(PodState::default());
        refused.pods.clear();
        assert_eq!(cause_of(&refused), None, "it is being made");
        refused.refused = Some("pods \"demo-0\" is forbidden: exceeded quota".to_owned());
        let found = troubles(&refused, &mut |_| Duration::ZERO);
        assert_eq!(
            (found[0].cause, found[0].message.as_str()),
            (Cause::Refused, refused.refused.as_deref().unwrap_or_default())
        );
    }
}
