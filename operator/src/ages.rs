//! How long something has lasted, as this process has seen it.
//!
//! No clock but the monotonic one of this process is trusted: those of the API server and of the machines may be minutes away. An
//! operator that starts begins to count anew, so it waits longer, never shorter.

use std::collections::HashMap;
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::controller::Guarded;

/// What lasts, by cluster.
#[derive(Default)]
pub struct Ages {
    clusters: Mutex<HashMap<ObjectRef<Guarded>, HashMap<String, Instant>>>,
}

/// One look at a cluster: what is not seen in it has ended.
pub struct Look<'a> {
    ages: &'a Ages,
    cluster: ObjectRef<Guarded>,
    now: Instant,
    before: HashMap<String, Instant>,
    seen: HashMap<String, Instant>,
}

impl Ages {
    /// Begins a look at a cluster. What is seen counts when the look is finished; one that is dropped changes nothing.
    pub fn look(&self, cluster: &ObjectRef<Guarded>) -> Look<'_> {
        let before = self.clusters.lock().get(cluster).cloned().unwrap_or_default();
        Look { ages: self, cluster: cluster.clone(), now: Instant::now(), before, seen: HashMap::new() }
    }

    /// Forgets a cluster that is gone.
    pub fn forget(&self, cluster: &ObjectRef<Guarded>) {
        self.clusters.lock().remove(cluster);
    }
}

impl Look<'_> {
    /// For how long this has been seen in every look; zero when it is new. `what` names it among all that lasts in the cluster.
    pub fn lasting(&mut self, what: String) -> Duration {
        let since = self.before.get(&what).copied().unwrap_or(self.now);
        self.seen.insert(what, since);
        self.now.duration_since(since)
    }

    /// Whether this had been seen in the look before.
    pub fn was_seen(&self, what: &str) -> bool {
        self.before.contains_key(what)
    }

    /// Ends the look.
    pub fn finish(self) {
        self.ages.clusters.lock().insert(self.cluster, self.seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_lasts_is_counted_from_when_it_was_first_seen_and_forgotten_when_it_ends() {
        let ages = Ages::default();
        let cluster = ObjectRef::new("demo").within("ns");
        let see = |what: &str| {
            let mut look = ages.look(&cluster);
            let lasting = look.lasting(what.to_owned());
            look.finish();
            lasting
        };
        assert_eq!(see("lost"), Duration::ZERO);
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(see("lost"), Duration::from_secs(7));
        assert_eq!(see("stuck"), Duration::ZERO);
        assert_eq!(see("lost"), Duration::ZERO, "it had ended");
        ages.look(&cluster).lasting("other".to_owned());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(see("lost"), Duration::from_secs(1), "a look that is not finished changes nothing");
    }
}
