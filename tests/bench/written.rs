//! What a load has had written, for each byte that was meant to be kept.

use serde::Serialize;

use crate::cluster::Cluster;
use crate::usage;

/// Bytes that were written until some moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    processes: u64,
    /// None if the data is on no disk.
    disk: Option<u64>,
}

/// Bytes written for each byte of keys and values, by all nodes together: with three nodes at least three.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Amplification {
    /// That the processes are charged with, in whole pages: see [`usage::dirtied`].
    pub(crate) processes: f64,
    /// That reached the disk, whoever wrote them.
    pub(crate) disk: Option<f64>,
}

impl Written {
    pub(crate) fn now(cluster: &Cluster) -> Result<Self, String> {
        let processes = usage::dirtied(&cluster.processes())?;
        Ok(Self { processes, disk: usage::written(cluster.folder()) })
    }

    /// What was written after `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let disk = self.disk.zip(before.disk).map(|(after, before)| after - before);
        Self { processes: self.processes - before.processes, disk }
    }

    pub(crate) fn for_each(&self, bytes: f64) -> Amplification {
        Amplification {
            processes: self.processes as f64 / bytes,
            disk: self.disk.map(|disk| disk as f64 / bytes),
        }
    }
}
