//! What keeps a pod from serving: each failure told from the others, because the cure is another for each. Pure.

use std::time::Duration;

use crate::membership::Ordinal;
use crate::observed::{ClaimState, Machine, Observed, PodState};

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

/// Why a pod does not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The Kubernetes node that it ran on, or that has its volume, does not exist any more.
    NodeGone,
    /// That Kubernetes node is not ready.
    NodeAway,
    /// The object of its volume is missing.
    VolumeMissing,
    /// The data on its volume is damaged.
    Damaged,
    /// The disk fails, or is full.
    DiskFailed,
    /// The data was written by a newer version.
    TooOld,
    /// The data belongs to another member or another cluster.
    Foreign,
    /// The volume may hold acknowledged writes that the others have lost.
    Contradicted,
    /// Another process runs as this member.
    SecondProcess,
    /// It was ended because it took too much memory.
    OutOfMemory,
    /// It ends again and again, for a reason that is not known.
    CrashLoop,
    /// Its image cannot be had.
    Image,
    /// Its volume cannot be made.
    NoVolume,
    /// There is no Kubernetes node for it.
    Unschedulable,
    /// The API server refuses to make it.
    Refused,
    /// Kubernetes does not start it.
    NotStarted,
    /// It runs, and does not serve.
    Unready,
}

impl Cause {
    /// The word for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NodeGone => "NodeGone",
            Self::NodeAway => "NodeAway",
            Self::VolumeMissing => "VolumeMissing",
            Self::Damaged => "Damaged",
            Self::DiskFailed => "DiskFailed",
            Self::TooOld => "TooOld",
            Self::Foreign => "Foreign",
            Self::Contradicted => "Contradicted",
            Self::SecondProcess => "SecondProcess",
            Self::OutOfMemory => "OutOfMemory",
            Self::CrashLoop => "CrashLoop",
            Self::Image => "ImageMissing",
            Self::NoVolume => "NoVolume",
            Self::Unschedulable => "Unschedulable",
            Self::Refused => "Refused",
            Self::NotStarted => "NotStarted",
            Self::Unready => "Unready",
        }
    }
}

/// Every pod that there should be and that does not serve, with the cause. How long each has lasted is the observer's to say.
pub fn troubles(seen: &Observed, mut lasting: impl FnMut(Ordinal, Cause) -> Duration) -> Vec<Trouble> {
    let pods = seen.stateful_set.as_ref().map_or(0, |set| set.replicas);
    let trouble = |ordinal| {
        let (cause, message) = cause(seen, ordinal)?;
        Some(Trouble { ordinal, cause, message, lasting: lasting(ordinal, cause) })
    };
    (0..pods).filter_map(trouble).collect()
}

fn cause(seen: &Observed, ordinal: Ordinal) -> Option<(Cause, String)> {
    let claim = seen.claims.get(&ordinal);
    let Some(pod) = seen.pods.get(&ordinal) else {
        return seen.refused.clone().map(|sentence| (Cause::Refused, sentence));
    };
    if pod.ready || pod.terminating {
        return None;
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
        .or_else(|| {
            pod.stuck.then(|| (Cause::Unready, "its node runs and is not ready: see its log".to_owned()))
        })
}

/// A machine that is away takes the pod with it; one that is gone takes the volume too, where the volume is bound to it.
fn on_its_machine(seen: &Observed, pod: &PodState, claim: Option<&ClaimState>) -> Option<(Cause, String)> {
    let volumes = claim.and_then(|claim| claim.machine.as_ref()).filter(|_| pod.pending);
    let (name, what) = match (volumes, &pod.machine) {
        (Some(name), _) => (name, "its volume is bound to"),
        (None, Some(name)) => (name, "it was on"),
        (None, None) => return None,
    };
    match seen.machines.get(name)? {
        Machine::Gone => Some((
            Cause::NodeGone,
            format!("{what} the Kubernetes node {name}, which does not exist any more"),
        )),
        Machine::Away => {
            Some((Cause::NodeAway, format!("{what} the Kubernetes node {name}, which is not ready")))
        }
        Machine::Ready => None,
    }
}

fn of_its_volume(pod: &PodState, claim: Option<&ClaimState>) -> Option<(Cause, String)> {
    let claim = claim.filter(|claim| pod.pending && !claim.bound)?;
    Some((Cause::NoVolume, claim.warning.clone()?))
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
    let (cause, message) = match exit.code {
        3 => (Cause::TooOld, "its data was written by a newer version: give it that version's image"),
        4 => (Cause::Damaged, "the data on its volume is damaged"),
        5 => (Cause::Foreign, "its volume belongs to another member or another cluster"),
        8 => (Cause::DiskFailed, "its disk fails, or is full: see its log, and spec.storage.size"),
        10 => {
            let message = "the others have another history than its volume, which may hold acknowledged writes that they have lost: \
                           keep the volume, and see its log";
            (Cause::Contradicted, message)
        }
        7 | 11 => (Cause::SecondProcess, "another process runs as this member: end it, wherever it runs"),
        _ if pod.trouble.as_deref() == Some("CrashLoopBackOff") => {
            return Some((Cause::CrashLoop, format!("its node ends with code {}: see its log", exit.code)));
        }
        _ => return None,
    };
    Some((cause, message.to_owned()))
}

/// What Kubernetes waits for before it starts the pod.
fn waits(pod: &PodState) -> Option<(Cause, String)> {
    let trouble = pod.trouble.as_deref()?;
    Some(match trouble {
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => (
            Cause::Image,
            format!("its image cannot be had ({trouble}): check spec.image and spec.imagePullSecrets"),
        ),
        "CrashLoopBackOff" => (Cause::CrashLoop, "its node ends again and again: see its log".to_owned()),
        _ if pod.unscheduled => (Cause::Unschedulable, trouble.to_owned()),
        _ => (Cause::NotStarted, trouble.to_owned()),
    })
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
        troubles(seen, |_, _| Duration::ZERO).first().map(|trouble| trouble.cause)
    }

    #[test]
    fn every_failure_has_a_cause_of_its_own() {
        let on = |machine: &str| PodState { machine: Some(machine.to_owned()), ..PodState::default() };
        let exits = |code: i32, reason: &str| PodState {
            exit: Some(Exit { code, reason: reason.to_owned() }),
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
            (waits("ImagePullBackOff", false), Some(Cause::Image)),
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
    fn a_volume_that_is_bound_to_a_machine_goes_with_it() {
        let mut local = seen(PodState {
            pending: true,
            unscheduled: true,
            trouble: Some("affinity".to_owned()),
            ..PodState::default()
        });
        local.claims.get_mut(&0).expect("a claim").machine = Some("gone".to_owned());
        assert_eq!(cause_of(&local), Some(Cause::NodeGone));
        local.claims.get_mut(&0).expect("a claim").lost = Some(Duration::ZERO);
        assert_eq!(cause_of(&local), Some(Cause::VolumeMissing));
    }

    #[test]
    fn pods_that_are_refused_say_so_in_the_words_of_the_api_server() {
        let mut refused = seen(PodState::default());
        refused.pods.clear();
        assert_eq!(cause_of(&refused), None, "it is being made");
        refused.refused = Some("pods \"demo-0\" is forbidden: exceeded quota".to_owned());
        let found = troubles(&refused, |_, _| Duration::ZERO);
        assert_eq!(
            (found[0].cause, found[0].message.as_str()),
            (Cause::Refused, refused.refused.as_deref().unwrap_or_default())
        );
    }
}
