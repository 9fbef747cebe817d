//! The pace of rounds: those of one cluster begin a second apart, however many things change at once.

use std::collections::HashMap;
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::controller::Guarded;

/// The least time between the beginnings of two rounds of one cluster. The first after a rest begins at once: a new leader is told within it.
const PACE: Duration = Duration::from_secs(1);

/// When the last round of each cluster began.
#[derive(Default)]
pub struct Pace {
    begun: Mutex<HashMap<ObjectRef<Guarded>, Instant>>,
}

impl Pace {
    /// Begins a round, or says for how long it has to wait.
    pub fn begin(&self, cluster: &ObjectRef<Guarded>) -> Result<(), Duration> {
        let now = Instant::now();
        let mut begun = self.begun.lock();
        let since = begun.get(cluster).map(|last| now.duration_since(*last));
        if let Some(since) = since.filter(|since| *since < PACE) {
            return Err(PACE.saturating_sub(since));
        }
        begun.insert(cluster.clone(), now);
        Ok(())
    }

    /// Forgets a cluster that is gone.
    pub fn forget(&self, cluster: &ObjectRef<Guarded>) {
        self.begun.lock().remove(cluster);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rounds_of_a_cluster_begin_a_second_apart_and_the_first_at_once() {
        let pace = Pace::default();
        let cluster = |name: &str| ObjectRef::new(name).within("ns");
        assert_eq!(pace.begin(&cluster("a")), Ok(()));
        assert_eq!(pace.begin(&cluster("b")), Ok(()), "another cluster has its own pace");
        tokio::time::advance(Duration::from_millis(300)).await;
        assert_eq!(pace.begin(&cluster("a")), Err(Duration::from_millis(700)));
        tokio::time::advance(Duration::from_millis(700)).await;
        assert_eq!(pace.begin(&cluster("a")), Ok(()));
    }
}
