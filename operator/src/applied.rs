//! What has been applied: an object that is as it was applied last, and is to be the same again, is not written.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use quorate_crds::RaftCluster;
use serde::Serialize;

use crate::controller::Guarded;

/// What one process has applied, by cluster, kind and name. After a restart everything is applied once.
#[derive(Default)]
pub struct Applied {
    clusters: Mutex<HashMap<ObjectRef<Guarded>, HashMap<String, Known>>>,
}

/// An object as it was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    /// Of what was asked for.
    digest: u64,
    /// The version of the object that came of it. Whoever has written to it since has given it another one.
    version: String,
}

impl Applied {
    /// Whether applying this would change nothing: the object has the version that the same wish has led to.
    pub fn is_current(
        &self,
        cluster: &RaftCluster,
        name: &str,
        object: &impl Serialize,
        version: Option<&str>,
    ) -> bool {
        let clusters = self.clusters.lock();
        let known = clusters.get(&reference(cluster)).and_then(|objects| objects.get(name));
        known.is_some_and(|known| Some(known.version.as_str()) == version && known.digest == digest(object))
    }

    /// The object has been applied, and has this version now.
    pub fn note(
        &self,
        cluster: &RaftCluster,
        name: String,
        object: &impl Serialize,
        version: Option<String>,
    ) {
        let Some(version) = version else { return };
        let known = Known { digest: digest(object), version };
        self.clusters.lock().entry(reference(cluster)).or_default().insert(name, known);
    }

    /// Forgets a cluster that is gone.
    pub fn forget(&self, cluster: &ObjectRef<Guarded>) {
        self.clusters.lock().remove(cluster);
    }
}

fn reference(cluster: &RaftCluster) -> ObjectRef<Guarded> {
    let name = cluster.metadata.name.clone().unwrap_or_default();
    ObjectRef::new(&name).within(cluster.metadata.namespace.as_deref().unwrap_or_default())
}

/// In this process alone: it is compared with nothing that another one has made.
fn digest(object: &impl Serialize) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(object).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}
