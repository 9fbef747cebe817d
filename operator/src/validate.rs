//! The spec, checked: pure. Most of what cannot work is refused by the schema's rules before it is ever stored; this catches
//! what those rules cannot see, and a CRD that is older than the operator.

use quorate_crds::{
    DeletionPolicy, Disruptions, MAX_NAME_LENGTH, MAX_REPLICAS, RaftCluster, RaftClusterSpec, Recover,
    is_for_users,
};
use tracing_subscriber::EnvFilter;

use crate::observed::Observed;
use crate::plan::{self, Wanted};
use crate::resources::{GRACE_PERIOD_SECONDS, NODE};
use crate::{duration, quantity, upgrade};

/// A spec that can be worked on.
#[derive(Clone, Debug, PartialEq)]
pub struct Valid {
    /// What the plan has to know.
    pub wanted: Wanted,
    /// What becomes of the volumes with the cluster.
    pub deletion_policy: DeletionPolicy,
    /// What people should know about a spec that is accepted.
    pub advice: Option<Advice>,
}

/// Said of a spec that works, and is not what most people want, or not all of which can be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// For programs.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// Why nothing can be done with a spec. The cluster goes on as it is.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Invalid {
    /// Outside 1 to 9.
    #[error("spec.replicas is {0}: it must be between 1 and {MAX_REPLICAS}. The cluster goes on as it is")]
    Replicas(i32),
    /// The names made from it would be too long.
    #[error(
        "metadata.name has {0} characters: at most {MAX_NAME_LENGTH} are possible. Create the cluster under a shorter name"
    )]
    Name(usize),
    /// The nodes would not start with it.
    #[error(
        "spec.log.filter {filter:?} is no filter: {error}. Write one such as info, or info,quorate_node=debug"
    )]
    LogFilter {
        /// What the spec says.
        filter: String,
        /// What is wrong with it.
        error: String,
    },
    /// The nodes would not start with it.
    #[error("spec.quota {0:?} is no number of bytes: write one such as 2Gi, or none")]
    Quota(String),
    /// There is no certificate for the client port.
    #[error("{what}. The cluster goes on as it is")]
    ClientSecret {
        /// For programs.
        reason: &'static str,
        /// What is wrong, and what to do.
        what: String,
    },
    /// Its nodes could not read the data.
    #[error("spec.image needs {0}. The cluster goes on as it is")]
    ImageTooOld(String),
}

impl Invalid {
    /// For programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Replicas(_) => "InvalidReplicas",
            Self::Name(_) => "NameTooLong",
            Self::LogFilter { .. } => "InvalidLogFilter",
            Self::Quota(_) => "InvalidQuota",
            Self::ClientSecret { reason, .. } => reason,
            Self::ImageTooOld(_) => "ImageTooOld",
        }
    }
}

/// Checks a cluster's spec.
pub fn validate(cluster: &RaftCluster, seen: &Observed) -> Result<Valid, Invalid> {
    let spec = &cluster.spec;
    let replicas = u32::try_from(spec.replicas).ok().filter(|_| (1..=MAX_REPLICAS).contains(&spec.replicas));
    let replicas = replicas.ok_or(Invalid::Replicas(spec.replicas))?;
    if seen.name.len() > MAX_NAME_LENGTH {
        return Err(Invalid::Name(seen.name.len()));
    }
    if let Err(error) = EnvFilter::try_new(&spec.log.filter) {
        let (filter, error) = (spec.log.filter.clone(), error.to_string());
        return Err(Invalid::LogFilter { filter, error });
    }
    if let Some(quota) = spec.quota.as_ref().filter(|quota| *quota != "none") {
        quantity::bytes(quota).ok_or_else(|| Invalid::Quota(quota.clone()))?;
    }
    let level = cluster.status.as_ref().and_then(|status| status.level.as_ref()).map_or(0, |l| l.current);
    if let Some(needs) = spec.image.as_ref().and_then(|image| upgrade::too_old(image, level)) {
        return Err(Invalid::ImageTooOld(needs));
    }
    Ok(Valid {
        wanted: Wanted {
            replicas,
            when_scaled: spec.storage.when_scaled,
            paused: spec.paused,
            hibernate: spec.hibernate,
            disruptions: spec.disruptions,
            replacement: plan::Replacement {
                automatic: spec.replacement.automatic.iter().copied().collect(),
                patience: duration::parse(&spec.replacement.patience),
            },
            recover: spec.recover.as_ref().and_then(request),
            volume_size: quantity::bytes(&spec.storage.size),
            finalize_after: duration::parse(&spec.upgrade.finalize_after),
        },
        deletion_policy: spec.deletion_policy,
        advice: advice(spec),
    })
}

/// What is asked for; the schema refuses what is no number.
fn request(recover: &Recover) -> Option<plan::Request> {
    let id = |text: &str| u64::from_str_radix(text, 16).ok();
    let (cluster, member) = (id(&recover.cluster)?, id(&recover.member)?);
    Some(plan::Request { cluster, pod: recover.pod.clone(), member })
}

/// The first thing to say: what is done otherwise than the spec asks comes before what could be better.
fn advice(spec: &RaftClusterSpec) -> Option<Advice> {
    ignored_variables(spec)
        .or_else(|| short_grace_period(spec))
        .or_else(|| outages_allowed(spec))
        .or_else(|| even_replicas(spec.replicas))
}

fn ignored_variables(spec: &RaftClusterSpec) -> Option<Advice> {
    let names = spec.env.iter().map(|variable| variable.name.as_str()).filter(|name| !is_for_users(name));
    let names: Vec<_> = names.collect();
    (!names.is_empty()).then(|| Advice {
        reason: "VariablesIgnored",
        message: format!(
            "spec.env holds variables that the operator sets, or that have fields of their own, and that are left out: {}. Remove them",
            names.join(", ")
        ),
    })
}

fn short_grace_period(spec: &RaftClusterSpec) -> Option<Advice> {
    let template = &spec.pod_template.spec;
    let seconds = template.termination_grace_period_seconds?;
    // Beside other containers it is their time, and the node has its own.
    let alone = template.containers.iter().all(|container| container.name == NODE);
    (alone && seconds < GRACE_PERIOD_SECONDS).then(|| Advice {
        reason: "GracePeriodTooShort",
        message: format!(
            "spec.podTemplate.spec.terminationGracePeriodSeconds is {seconds}, and {GRACE_PERIOD_SECONDS} are used: a node \
             hands its leadership over, and lets its clients go, before it ends. Write {GRACE_PERIOD_SECONDS} or more"
        ),
    })
}

fn outages_allowed(spec: &RaftClusterSpec) -> Option<Advice> {
    let replicas = spec.replicas;
    (spec.disruptions == Disruptions::Allow && replicas < 3).then(|| Advice {
        reason: "OutagesAllowed",
        message: format!(
            "disruptions is Allow, and with {replicas} voters the quorum goes with each: while a drain or a rollout takes a pod, clients \
             wait until it is back. With replicas 3 they would not"
        ),
    })
}

fn even_replicas(replicas: i32) -> Option<Advice> {
    (replicas % 2 == 0).then(|| Advice {
        reason: "EvenReplicas",
        message: format!(
            "{replicas} voters survive the loss of {}, no more than {} would, and every write waits for one more. \
             An odd number is better: {} or {}",
            (replicas - 1) / 2,
            replicas - 1,
            replicas - 1,
            replicas + 1
        ),
    })
}

#[cfg(test)]
mod tests {
    use quorate_crds::{LevelStatus, RaftClusterStatus};

    use super::*;

    fn cluster(replicas: i32) -> RaftCluster {
        RaftCluster::new("demo", RaftClusterSpec { replicas, ..RaftClusterSpec::default() })
    }

    fn seen(name: &str) -> Observed {
        Observed { name: name.to_owned(), ..Observed::default() }
    }

    #[test]
    fn replicas_outside_the_range_are_refused_here_too() {
        for replicas in [0, -1, 10, i32::MIN] {
            let found = validate(&cluster(replicas), &seen("demo"));
            assert_eq!(found, Err(Invalid::Replicas(replicas)));
        }
    }

    #[test]
    fn an_even_number_is_accepted_and_explained() {
        for replicas in 1..=9 {
            let valid = validate(&cluster(replicas), &seen("demo")).expect("a valid number");
            assert_eq!(valid.advice.is_some(), replicas % 2 == 0, "{replicas}");
        }
        let four = validate(&cluster(4), &seen("demo")).expect("a valid number");
        let message = four.advice.expect("advice on an even number").message;
        assert!(message.starts_with("4 voters survive the loss of 1, no more than 3 would"), "{message}");
    }

    #[test]
    fn names_that_make_names_too_long_are_refused() {
        assert!(validate(&cluster(3), &seen(&"a".repeat(52))).is_ok());
        assert_eq!(validate(&cluster(3), &seen(&"a".repeat(53))), Err(Invalid::Name(53)));
    }

    #[test]
    fn image_that_cannot_read_the_data_is_refused() {
        let mut cluster = cluster(3);
        cluster.spec.image = Some("node:0.0.9".to_owned());
        assert!(validate(&cluster, &seen("demo")).is_ok(), "nothing is known of the data");
        let level = Some(LevelStatus { current: 2, raisable_since: None });
        cluster.status = Some(RaftClusterStatus { level, ..RaftClusterStatus::default() });
        let refused = validate(&cluster, &seen("demo")).expect_err("too old");
        assert_eq!(refused.reason(), "ImageTooOld");
        assert!(refused.to_string().starts_with("spec.image needs an image of 0.1.0 or later"), "{refused}");
        cluster.spec.image = Some("node:0.1.0".to_owned());
        assert!(validate(&cluster, &seen("demo")).is_ok());
    }

    #[test]
    fn what_no_node_starts_with_is_refused_and_what_is_left_out_is_said() {
        let check = |change: &dyn Fn(&mut RaftClusterSpec)| {
            let mut cluster = cluster(3);
            change(&mut cluster.spec);
            validate(&cluster, &seen("demo"))
        };
        let filter = check(&|spec| spec.log.filter = "quorate_node=loud".to_owned());
        assert_eq!(filter.map_err(|error| error.reason()), Err("InvalidLogFilter"));
        let quota = check(&|spec| spec.quota = Some("plenty".to_owned()));
        assert_eq!(quota, Err(Invalid::Quota("plenty".to_owned())));
        for fine in ["none", "2Gi", "1.5G"] {
            assert!(check(&|spec| spec.quota = Some(fine.to_owned())).is_ok(), "{fine}");
        }
        let advice = |valid: Result<Valid, Invalid>| valid.expect("a valid spec").advice.expect("advice");
        let name = "QUORATE_LISTEN_CLIENT".to_owned();
        let ignored = advice(check(&|spec| {
            spec.env = vec![k8s_openapi::api::core::v1::EnvVar { name: name.clone(), ..Default::default() }];
        }));
        assert_eq!(ignored.reason, "VariablesIgnored");
        assert!(ignored.message.contains(&name), "{}", ignored.message);
        let short = advice(check(&|spec| {
            spec.pod_template.spec.termination_grace_period_seconds = Some(1);
        }));
        assert_eq!(short.reason, "GracePeriodTooShort");
    }
}
