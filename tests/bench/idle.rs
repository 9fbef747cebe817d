//! Connections that do nothing: what they cost.

use std::thread;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::client::Connection;
use crate::cluster::Cluster;
use crate::load::{self, largest};
use crate::report::Run;

/// How long they do nothing before the memory is looked at: what a handshake has taken may be given back.
const REST: Duration = Duration::from_secs(3);

/// Opens `count` connections, spread over all nodes, each of which has spoken HTTP/2.
pub(crate) fn run(cluster: &Cluster, count: usize) -> Result<Run, String> {
    raise_limit();
    load::settle(cluster)?;
    let before_mib = largest(&cluster.processes())?;
    let runtime = load::runtime()?;
    let targets = cluster.clients();
    let connections = runtime.block_on(async {
        let mut open = Vec::with_capacity(count);
        for target in targets.iter().cycle().take(count) {
            open.push(Connection::open(*target).await?);
        }
        tokio::time::sleep(REST).await;
        Ok::<_, String>(open)
    })?;
    thread::sleep(REST);
    let resident_mib = largest(&cluster.processes())?;
    Ok(Run::Idle { connections: connections.len(), before_mib, resident_mib })
}

/// As many descriptors as the system allows.
fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        eprintln!("  the limit of open files stays: {error}");
    }
}
