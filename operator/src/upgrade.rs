//! What image and what template a cluster gets when the operator has been upgraded: pure.
//!
//! A living cluster keeps both until its spec changes, or until the upgrade is approved and the cluster's turn has come. What the operator made is
//! known by digests on the `StatefulSet`: one of the template, and one of what the spec says of it. Where this operator makes the same
//! template of the same spec, there is nothing to decide. Where the spec has changed, a person wants other pods. Where only the template has,
//! the operator is another one.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use quorate_crds::{Cause, LevelStatus, RaftCluster, UpgradeState, UpgradeStatus, UpgradeStrategy};

use crate::observed::{Observed, PodState};
use crate::plan::{Readiness, readiness};

/// The version of this operator.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The first version of the nodes that supports each level.
const FIRST_VERSIONS: [(u32, &str); 2] = [(1, "0.1.0"), (2, "0.1.0")];

/// What the operator made the pods from, by digests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// Of the template.
    pub template: String,
    /// Of what the spec says of the template, and of the image.
    pub inputs: String,
}

/// What is to become of the image and the template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The image of the nodes.
    pub image: String,
    /// The template stays as it is, whatever this operator would make.
    pub keep_template: bool,
    /// The upgrade that is there, or under way, with the state that it had.
    pub upgrade: Option<UpgradeStatus>,
    /// The upgrade is wanted by the spec, and may begin when it is the cluster's turn.
    pub approved: bool,
    /// What this operator makes with that image.
    pub made: Rendered,
}

/// The image that a cluster runs, without any upgrade. None while it has none.
pub fn current_image(cluster: &RaftCluster, seen: &Observed) -> Option<String> {
    let set = seen.stateful_set.as_ref();
    let status = cluster.status.as_ref();
    let known = status.and_then(|status| status.image.clone());
    // A status that was lost with a backup says nothing; what runs does.
    cluster.spec.image.clone().or(known).or_else(|| set?.image.clone())
}

/// The image that the status speaks of after a round. One that the spec names becomes the cluster's own when all pods run it: taken out of the spec
/// before that, it leaves the cluster with the image of before.
pub fn own_image(
    before: Option<String>,
    decision: &Decision,
    cluster: &RaftCluster,
    seen: &Observed,
) -> String {
    let tried = before.filter(|before| cluster.spec.image.is_some() && *before != decision.image);
    tried.filter(|_| !runs_everywhere(decision, seen)).unwrap_or_else(|| decision.image.clone())
}

/// Whether every pod is as this operator makes them with the image, and ready.
fn runs_everywhere(decision: &Decision, seen: &Observed) -> bool {
    let newest = newest(decision, seen);
    let pods = seen.stateful_set.as_ref().map_or(0, |set| set.replicas);
    let runs = |pod: &PodState| pod.ready && !pod.terminating && pod.revision.as_ref() == newest;
    newest.is_some() && pods > 0 && (0..pods).all(|ordinal| seen.pods.get(&ordinal).is_some_and(runs))
}

/// The revision of the pods that this operator makes, once their controller knows it.
fn newest<'a>(decision: &Decision, seen: &'a Observed) -> Option<&'a String> {
    let set = seen.stateful_set.as_ref().filter(|set| set.rendered.as_ref() == Some(&decision.made))?;
    set.update_revision.as_ref()
}

/// Decides. `newest` is the image of this operator's nodes. `make` says what this operator makes of the spec with an image.
pub fn decide(
    cluster: &RaftCluster,
    seen: &Observed,
    newest: &str,
    make: impl Fn(&str) -> Rendered,
) -> Decision {
    let Some(current) = current_image(cluster, seen) else {
        return render(newest.to_owned(), None, make(newest));
    };
    let before = cluster.status.as_ref().and_then(|status| status.upgrade.clone());
    let begun = before.filter(|before| before.state != UpgradeState::Available && before.to == VERSION);
    let now = make(&current);
    let there = seen.stateful_set.as_ref().and_then(|set| set.rendered.as_ref());
    let other_template =
        there.is_some_and(|there| there.inputs == now.inputs && there.template != now.template);
    let other_image = cluster.spec.image.is_none() && current != newest;
    if let Some(begun) = begun {
        // What runs on after it has begun is finished, whatever the strategy is now. It is taken back with an image.
        return render(current, Some(begun), now);
    }
    if !other_template && !other_image {
        return render(current, None, now);
    }
    let spec = &cluster.spec.upgrade;
    let to_image = if other_image { newest } else { &current };
    let level = cluster.status.as_ref().and_then(|status| status.level.as_ref()).map_or(0, |l| l.current);
    let (approved, message) = match too_old(to_image, level) {
        Some(why) => (false, why),
        None if spec.strategy == UpgradeStrategy::Automatic => (true, "its turn".to_owned()),
        None if spec.approved.as_deref() == Some(VERSION) => (true, "its turn".to_owned()),
        None => (
            false,
            format!("approval: write spec.upgrade.approved: {VERSION}, or spec.upgrade.strategy: Automatic"),
        ),
    };
    Decision {
        upgrade: Some(UpgradeStatus {
            state: UpgradeState::Available,
            to: VERSION.to_owned(),
            from_image: current.clone(),
            to_image: to_image.to_owned(),
            message: Some(message),
        }),
        image: current,
        keep_template: other_template,
        approved,
        made: now,
    }
}

fn render(image: String, upgrade: Option<UpgradeStatus>, made: Rendered) -> Decision {
    Decision { image, keep_template: false, upgrade, approved: false, made }
}

/// The status of the upgrade after a round. One that has begun is over when all pods are as this operator makes them, and ready.
pub fn progress(decision: &Decision, seen: &Observed, replicas: u32) -> Option<UpgradeStatus> {
    let upgrade = decision.upgrade.clone()?;
    if upgrade.state == UpgradeState::Available {
        return Some(upgrade);
    }
    let set = seen.stateful_set.as_ref();
    let newest = newest(decision, seen);
    let is_new = |pod: &PodState| newest.is_some() && pod.revision.as_ref() == newest;
    let new = seen.pods.iter().filter(|(_, pod)| is_new(pod));
    let failed = new.clone().find_map(|(&ordinal, pod)| {
        let trouble = seen.trouble(ordinal);
        let hopeless = trouble.is_some_and(|t| matches!(t.cause, Cause::ImageMissing | Cause::TooOld));
        let message = trouble.map_or("it does not become ready", |trouble| &trouble.message);
        (!pod.ready && (pod.stuck || hopeless)).then(|| format!("{}: {message}", seen.pod_name(ordinal)))
    });
    if let Some(why) = failed {
        let message = format!("{why}. To take it back, write spec.image: {}", upgrade.from_image);
        return Some(UpgradeStatus { state: UpgradeState::Failed, message: Some(message), ..upgrade });
    }
    let done = new.filter(|(ordinal, pod)| **ordinal < replicas && pod.ready && !pod.terminating).count();
    if seen.pods.is_empty() && newest.is_some() && set.is_some_and(|set| set.replicas == 0) {
        // It hibernates: its pods will be new ones.
        return None;
    }
    let message = Some(format!("{done} of {replicas} pods are as they are to be"));
    let rolling = UpgradeStatus { state: UpgradeState::Rolling, message, ..upgrade };
    (done < replicas as usize).then_some(rolling)
}

/// The level of the data after a round: the highest that was ever seen.
pub fn level(before: Option<&LevelStatus>, seen: &Observed, now: Timestamp) -> Option<LevelStatus> {
    let ours = seen.nodes.values().filter(|node| Some(node.cluster_id) == seen.identity);
    let current = ours.map(|node| node.level).max().max(before.map(|before| before.current))?;
    let since = before.and_then(|before| before.raisable_since.clone());
    let raisable_since = match readiness(seen) {
        Readiness::Ready(_) => Some(since.unwrap_or(Time(now))),
        Readiness::Unknown => since,
        Readiness::No => None,
    };
    Some(LevelStatus { current, raisable_since })
}

/// Why an image cannot read data of this level, where its tag says so. One whose tag is no version is tried: its node refuses by itself, and
/// the rollout stops at that pod.
pub fn too_old(image: &str, level: u32) -> Option<String> {
    let needed = FIRST_VERSIONS.iter().find(|(known, _)| *known == level)?.1;
    let version = version_of(image)?;
    (version < parse(needed)?).then(|| {
        format!("an image of {needed} or later: the data has level {level}, which {image} cannot read")
    })
}

/// The version in the tag of an image.
fn version_of(image: &str) -> Option<[u64; 3]> {
    let image = image.split('@').next()?;
    let (_, tag) = image.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'))?;
    parse(tag.strip_prefix('v').unwrap_or(tag))
}

fn parse(version: &str) -> Option<[u64; 3]> {
    // What follows a dash is a build of that version.
    let mut parts = version.split(['-', '+']).next()?.split('.').map(|part| part.parse().ok());
    let found = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use quorate_crds::{LevelStatus, RaftClusterSpec, RaftClusterStatus};

    use super::*;
    use crate::observed::StatefulSetState;

    fn living(change: impl FnOnce(&mut RaftCluster)) -> RaftCluster {
        let mut cluster = RaftCluster::new("demo", RaftClusterSpec::default());
        cluster.status =
            Some(RaftClusterStatus { image: Some("node:1".to_owned()), ..RaftClusterStatus::default() });
        change(&mut cluster);
        cluster
    }

    fn rendered(template: &str, inputs: &str) -> Rendered {
        Rendered { template: template.to_owned(), inputs: inputs.to_owned() }
    }

    /// A set that was made as `a` from `spec`.
    fn seen() -> Observed {
        let set = StatefulSetState {
            image: Some("node:1".to_owned()),
            rendered: Some(rendered("a", "spec")),
            ..StatefulSetState::default()
        };
        Observed { stateful_set: Some(set), ..Observed::default() }
    }

    #[test]
    fn new_cluster_gets_newest_image() {
        let cluster = RaftCluster::new("demo", RaftClusterSpec::default());
        let found = decide(&cluster, &Observed::default(), "node:2", |_| rendered("b", "spec"));
        assert_eq!((found.image.as_str(), found.keep_template, found.upgrade), ("node:2", false, None));
    }

    #[test]
    fn living_cluster_keeps_image_and_template_until_approved() {
        let decide = |cluster: &RaftCluster| decide(cluster, &seen(), "node:2", |_| rendered("b", "spec"));
        let found = decide(&living(|_| {}));
        assert_eq!((found.image.as_str(), found.keep_template, found.approved), ("node:1", true, false));
        let message = found.upgrade.and_then(|upgrade| upgrade.message).expect("what to write");
        assert!(message.contains(&format!("spec.upgrade.approved: {VERSION}")), "{message}");

        let another = decide(&living(|cluster| cluster.spec.upgrade.approved = Some("0.0.1".to_owned())));
        assert!(!another.approved, "the approval is of another version");
        let this = decide(&living(|cluster| cluster.spec.upgrade.approved = Some(VERSION.to_owned())));
        assert!(this.approved && this.keep_template, "its turn has to come");
        let automatic = decide(&living(|cluster| cluster.spec.upgrade.strategy = UpgradeStrategy::Automatic));
        assert!(automatic.approved && automatic.keep_template);
    }

    #[test]
    fn image_of_spec_is_taken_at_once() {
        let cluster = living(|cluster| cluster.spec.image = Some("mine:7".to_owned()));
        let found = decide(&cluster, &seen(), "node:2", |_| rendered("b", "another"));
        assert_eq!((found.image.as_str(), found.keep_template, found.upgrade), ("mine:7", false, None));
    }

    #[test]
    fn changed_spec_is_rendered_with_the_image_that_runs() {
        let found = decide(&living(|_| {}), &seen(), "node:2", |_| rendered("b", "other"));
        assert_eq!((found.image.as_str(), found.keep_template), ("node:1", false));
        assert!(found.upgrade.is_some(), "the image is not the newest");
    }

    #[test]
    fn lost_status_changes_no_image() {
        let cluster = RaftCluster::new("demo", RaftClusterSpec::default());
        let found = decide(&cluster, &seen(), "node:2", |_| rendered("a", "spec"));
        assert_eq!(found.image, "node:1");
    }

    #[test]
    fn upgrade_that_has_begun_goes_on() {
        let cluster = living(|cluster| {
            let upgrade = UpgradeStatus {
                state: UpgradeState::Rolling,
                to: VERSION.to_owned(),
                from_image: "node:1".to_owned(),
                to_image: "node:2".to_owned(),
                message: None,
            };
            let status = cluster.status.as_mut().expect("a status");
            (status.image, status.upgrade) = (Some("node:2".to_owned()), Some(upgrade));
        });
        let found = decide(&cluster, &seen(), "node:2", |_| rendered("b", "spec"));
        assert_eq!((found.image.as_str(), found.keep_template), ("node:2", false));
    }

    #[test]
    fn operator_of_an_older_version_takes_no_data_back() {
        let cluster = living(|cluster| {
            cluster.spec.upgrade.strategy = UpgradeStrategy::Automatic;
            let status = cluster.status.as_mut().expect("a status");
            status.level = Some(LevelStatus { current: 2, raisable_since: None });
        });
        let found = decide(&cluster, &seen(), "registry:5000/node:0.0.9", |_| rendered("a", "spec"));
        assert!(!found.approved);
        let message = found.upgrade.and_then(|upgrade| upgrade.message).expect("why");
        assert!(message.contains("0.1.0 or later"), "{message}");
    }

    #[test]
    fn versions_are_read_from_tags() {
        for (image, version) in [
            ("ghcr.io/quorate/quorate-node:0.1.0", Some([0, 1, 0])),
            ("localhost:5000/node:v1.2.3-rc.1@sha256:00", Some([1, 2, 3])),
            ("localhost:5000/node", None),
            ("node:latest", None),
            ("node@sha256:00", None),
            ("node:1.2", None),
        ] {
            assert_eq!(version_of(image), version, "{image}");
        }
    }

    #[test]
    fn every_level_has_its_first_version() {
        let levels: Vec<_> = FIRST_VERSIONS.iter().map(|(level, _)| *level).collect();
        assert!(levels.is_sorted() && FIRST_VERSIONS.iter().all(|(_, version)| parse(version).is_some()));
        assert_eq!(too_old("node:0.0.9", 2).is_some(), parse("0.0.9") < parse(FIRST_VERSIONS[1].1));
        assert_eq!(too_old("node:0.1.0", 2), None);
        assert_eq!(too_old("node:latest", 2), None, "it is tried");
    }
}
