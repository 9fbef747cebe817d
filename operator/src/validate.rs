//! The spec, checked: pure. Most of what cannot work is refused by the schema's rules before it is ever stored; this catches
//! what those rules cannot see, and a CRD that is older than the operator.

use quorate_crds::{DeletionPolicy, MAX_NAME_LENGTH, MAX_REPLICAS, RaftCluster, RaftClusterSpec};

use crate::observed::Observed;
use crate::plan::Wanted;

/// A spec that can be worked on.
#[derive(Clone, Debug, PartialEq)]
pub struct Valid {
    /// What the plan has to know.
    pub wanted: Wanted,
    /// What becomes of the volumes with the cluster.
    pub deletion_policy: DeletionPolicy,
    /// The image of the node.
    pub image: String,
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
}

impl Invalid {
    /// For programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Replicas(_) => "InvalidReplicas",
            Self::Name(_) => "NameTooLong",
        }
    }
}

/// Checks a cluster's spec. `default_image` is used where the spec names none.
pub fn validate(cluster: &RaftCluster, seen: &Observed, default_image: &str) -> Result<Valid, Invalid> {
    let spec = &cluster.spec;
    let replicas = u32::try_from(spec.replicas).ok().filter(|_| (1..=MAX_REPLICAS).contains(&spec.replicas));
    let replicas = replicas.ok_or(Invalid::Replicas(spec.replicas))?;
    if seen.name.len() > MAX_NAME_LENGTH {
        return Err(Invalid::Name(seen.name.len()));
    }
    Ok(Valid {
        wanted: Wanted { replicas, when_scaled: spec.storage.when_scaled, paused: spec.paused },
        deletion_policy: spec.deletion_policy,
        image: spec.image.clone().unwrap_or_else(|| default_image.to_owned()),
        advice: advice(spec),
    })
}

fn advice(spec: &RaftClusterSpec) -> Option<Advice> {
    let replicas = spec.replicas;
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
            let found = validate(&cluster(replicas), &seen("demo"), "image");
            assert_eq!(found, Err(Invalid::Replicas(replicas)));
        }
    }

    #[test]
    fn an_even_number_is_accepted_and_explained() {
        for replicas in 1..=9 {
            let valid = validate(&cluster(replicas), &seen("demo"), "image").expect("a valid number");
            assert_eq!(valid.advice.is_some(), replicas % 2 == 0, "{replicas}");
        }
        let four = validate(&cluster(4), &seen("demo"), "image").expect("a valid number");
        let message = four.advice.expect("advice on an even number").message;
        assert!(message.starts_with("4 voters survive the loss of 1, no more than 3 would"), "{message}");
    }

    #[test]
    fn names_that_make_names_too_long_are_refused() {
        assert!(validate(&cluster(3), &seen(&"a".repeat(52)), "image").is_ok());
        assert_eq!(validate(&cluster(3), &seen(&"a".repeat(53)), "image"), Err(Invalid::Name(53)));
    }

    #[test]
    fn the_image_is_the_specs_or_the_default() {
        let mut cluster = cluster(3);
        assert_eq!(
            validate(&cluster, &seen("demo"), "default").map(|valid| valid.image),
            Ok("default".to_owned())
        );
        cluster.spec.image = Some("mine:1".to_owned());
        assert_eq!(
            validate(&cluster, &seen("demo"), "default").map(|valid| valid.image),
            Ok("mine:1".to_owned())
        );
    }
}
