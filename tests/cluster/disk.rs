//! Nodes whose disks fail: switching the faults, and what a node may do then.

use quorate_tests::faulty_disk::{Faults, FaultyDisk};

use crate::cluster::{Cluster, Member};
use crate::filler;
use crate::network::Number;

impl Member {
    fn faulty_disk(&self) -> &FaultyDisk {
        self.disk.as_ref().expect("the scenario was started on disks that can fail")
    }
}

impl Cluster {
    /// What goes wrong with the disk of `node`.
    pub(crate) fn faults(&self, node: Number) -> &Faults {
        self.members[node].faulty_disk().faults()
    }

    /// From now on `node` may end by itself: what its disk does to it leaves it no choice.
    pub(crate) fn may_end(&mut self, node: Number) {
        self.members[node].fails = true;
    }

    /// The disks of these work again. Those that have ended, or are about to, are started again; none may end any more.
    pub(crate) async fn mend(&mut self, nodes: &[Number]) {
        for &node in nodes {
            self.faults(node).heal();
        }
        for &node in nodes {
            // Acknowledged, it is in the node's own log: what had failed before cannot end it any more.
            self.wait(&format!("a write through node-{node}"), async |cluster: &mut Self| {
                // All of them, for one alone is no majority: two may have ended.
                cluster.restart_those_that_ended(nodes);
                filler::put(cluster, node, 1).await
            })
            .await;
            self.members[node].fails = false;
        }
    }

    fn restart_those_that_ended(&mut self, nodes: &[Number]) {
        for &node in nodes {
            if let Some(words) = self.last_words(node) {
                eprintln!("node-{node} has ended: {words}");
            }
            if self.members[node].process.is_none() {
                self.restart(node);
            }
        }
    }

    /// What a node that has ended had to say: one clear line, and an exit code that is not zero. None if it runs, or was killed.
    pub(crate) fn last_words(&mut self, node: Number) -> Option<String> {
        let process = self.members[node].process.as_mut()?;
        let status = process.ended().expect("a child can be asked")?;
        let output = process.output();
        self.members[node].process = None;
        let words = output.lines().last().unwrap_or_default().to_owned();
        let clear = words.starts_with("quorate-node: ") && status.code().is_some_and(|code| code != 0);
        assert!(clear, "node-{node} ended with {status}, and said at last: {words}");
        Some(words)
    }

    /// Waits until `node` has ended because of its disk.
    pub(crate) async fn wait_for_end(&mut self, node: Number) -> String {
        self.wait(&format!("node-{node} to end"), async |cluster: &mut Self| {
            cluster.last_words(node).ok_or("it still runs")
        })
        .await
    }

    /// The power of `node` fails: it ends at once, and what it has not synced is gone. Its disk must not stand still.
    pub(crate) fn lose_power(&mut self, node: Number) {
        self.kill(node);
        self.members[node].faulty_disk().lose_power().expect("the folder behind the disk can be written");
    }
}
