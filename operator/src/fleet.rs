//! How many clusters are upgraded at a time, over all that the operator looks after, and the stop at the first that fails.
//!
//! Which upgrades have begun stands in the status of the clusters, and is written there before a pod is touched: an operator that starts anew finds
//! them in its cache. What it has begun itself, and does not find there yet, it remembers.

use std::collections::{BTreeMap, HashMap, VecDeque};

use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::Mutex;
use quorate_crds::UpgradeState;

use crate::controller::Guarded;

/// How many of those that wait are told when a turn is free: some of them may not be able to take it.
const TOLD: usize = 4;

/// The chart's word on upgrades.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The clusters that are upgraded at a time. Zero: none.
    pub at_once: u32,
    /// While the upgrade of one has failed, no other begins.
    pub stop_at_failure: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { at_once: 1, stop_at_failure: true }
    }
}

/// The upgrades of all clusters.
pub struct Fleet {
    rules: Rules,
    /// What this process knows of each cluster, which is newer than what its cache may hold. None: no upgrade is under way.
    known: Mutex<HashMap<ObjectRef<Guarded>, Option<UpgradeState>>>,
    clusters: Mutex<Vec<Store<Guarded>>>,
    /// Those that have asked for a turn in vain, the first one first.
    waiting: Mutex<VecDeque<ObjectRef<Guarded>>>,
}

impl Fleet {
    /// A fleet by these rules.
    pub fn new(rules: Rules) -> Self {
        Self { rules, known: Mutex::default(), clusters: Mutex::default(), waiting: Mutex::default() }
    }

    /// Where clusters are found: those of one namespace, or all.
    pub fn find_in(&self, clusters: Store<Guarded>) {
        self.clusters.lock().push(clusters);
    }

    /// Takes a turn for a cluster, or says what it waits for. A turn that is taken is noted as one of an upgrade that has begun.
    pub fn take_turn(&self, cluster: &ObjectRef<Guarded>) -> Result<(), String> {
        let mut known = self.known.lock();
        let others = self.begun(&known, cluster);
        let mut waiting = self.waiting.lock();
        if let Err(waits_for) = may_begin(self.rules, &others) {
            if !waiting.contains(cluster) {
                waiting.push_back(cluster.clone());
            }
            return Err(waits_for);
        }
        waiting.retain(|other| other != cluster);
        known.insert(cluster.clone(), Some(UpgradeState::Rolling));
        Ok(())
    }

    /// What has become of the upgrade of a cluster, as its status says now.
    pub fn note(&self, cluster: &ObjectRef<Guarded>, upgrade: Option<UpgradeState>) {
        self.known.lock().insert(cluster.clone(), upgrade);
    }

    /// Forgets a cluster that is gone. Returns whether its upgrade had begun: its turn is free.
    pub fn forget(&self, cluster: &ObjectRef<Guarded>) -> bool {
        self.waiting.lock().retain(|other| other != cluster);
        let known = self.known.lock().remove(cluster).flatten();
        known.is_some_and(|state| state != UpgradeState::Available)
    }

    /// A turn is free: those that are to ask for it again.
    pub fn next(&self) -> Vec<ObjectRef<Guarded>> {
        let mut waiting = self.waiting.lock();
        let told = waiting.len().min(TOLD);
        waiting.drain(..told).collect()
    }

    /// The upgrades of other clusters that have begun, by `NAMESPACE/NAME`.
    fn begun(
        &self,
        known: &HashMap<ObjectRef<Guarded>, Option<UpgradeState>>,
        but: &ObjectRef<Guarded>,
    ) -> BTreeMap<String, UpgradeState> {
        let cached: Vec<_> = self.clusters.lock().iter().flat_map(Store::state).collect();
        let cached = cached.iter().filter_map(|cluster| {
            let state = cluster.0.as_ref().ok()?.status.as_ref()?.upgrade.as_ref()?.state;
            let reference = ObjectRef::from_obj(&**cluster);
            (!known.contains_key(&reference)).then_some((reference, state))
        });
        let remembered = known.iter().filter_map(|(cluster, state)| Some((cluster.clone(), (*state)?)));
        cached
            .chain(remembered)
            .filter(|(cluster, state)| cluster != but && *state != UpgradeState::Available)
            .map(|(cluster, state)| {
                (format!("{}/{}", cluster.namespace.as_deref().unwrap_or_default(), cluster.name), state)
            })
            .collect()
    }
}

/// Whether one more upgrade may begin beside those that have.
fn may_begin(rules: Rules, begun: &BTreeMap<String, UpgradeState>) -> Result<(), String> {
    let failed = begun.iter().find(|(_, state)| **state == UpgradeState::Failed);
    if let Some((cluster, _)) = failed.filter(|_| rules.stop_at_failure) {
        return Err(format!("the upgrade of {cluster} to be mended or taken back: it has failed"));
    }
    if begun.len() < rules.at_once as usize {
        return Ok(());
    }
    let names: Vec<_> = begun.keys().take(3).cloned().collect();
    Err(match names.as_slice() {
        [] => {
            "the operator to let clusters be upgraded: upgrades.clustersAtOnce of its chart is 0".to_owned()
        }
        names => format!("the upgrade of {} to be finished", names.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(name: &str) -> ObjectRef<Guarded> {
        ObjectRef::new(name).within("ns")
    }

    #[test]
    fn clusters_go_so_many_at_a_time_and_stop_at_the_first_that_fails() {
        let fleet = Fleet::new(Rules { at_once: 2, stop_at_failure: true });
        assert_eq!(fleet.take_turn(&cluster("a")), Ok(()));
        assert_eq!(fleet.take_turn(&cluster("b")), Ok(()));
        let waits = fleet.take_turn(&cluster("c")).expect_err("two are under way");
        assert!(waits.contains("ns/a, ns/b"), "{waits}");
        assert_eq!(fleet.take_turn(&cluster("a")), Ok(()), "its own turn is no other's");

        fleet.note(&cluster("a"), None);
        fleet.note(&cluster("b"), Some(UpgradeState::Failed));
        let stopped = fleet.take_turn(&cluster("c")).expect_err("one has failed");
        assert!(stopped.contains("ns/b"), "{stopped}");
        assert_eq!(fleet.next(), [cluster("c")], "it has asked before");
        assert!(fleet.take_turn(&cluster("c")).is_err());
        assert!(fleet.forget(&cluster("b")), "its turn is free");
        assert_eq!(fleet.take_turn(&cluster("c")), Ok(()));
        assert_eq!(fleet.next(), []);
    }

    #[test]
    fn upgrade_begun_by_an_earlier_process_counts() {
        let (store, mut writer) = kube::runtime::reflector::store::<Guarded>();
        let rolling: Guarded = serde_json::from_value(serde_json::json!({
            "apiVersion": "quorate.dev/v1alpha1", "kind": "RaftCluster",
            "metadata": {"name": "a", "namespace": "ns"}, "spec": {},
            "status": {"upgrade": {"state": "Rolling", "to": "1.0.0", "fromImage": "a", "toImage": "b"}},
        }))
        .expect("the guard takes anything with metadata");
        writer.apply_watcher_event(&kube::runtime::watcher::Event::Apply(rolling));
        let fleet = Fleet::new(Rules::default());
        fleet.find_in(store);
        assert!(fleet.take_turn(&cluster("b")).is_err());
        fleet.note(&cluster("a"), None);
        assert_eq!(fleet.take_turn(&cluster("b")), Ok(()));
    }

    #[test]
    fn no_cluster_is_upgraded_where_the_chart_says_so() {
        let fleet = Fleet::new(Rules { at_once: 0, stop_at_failure: false });
        let waits = fleet.take_turn(&cluster("a")).expect_err("none may");
        assert!(waits.contains("clustersAtOnce"), "{waits}");
    }
}
