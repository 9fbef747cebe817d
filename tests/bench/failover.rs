//! kill -9 of the leader: how long until the next write is acknowledged?

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use quorate_api::etcdserverpb::PutRequest;
use tokio::sync::mpsc;

use crate::client::Connection;
use crate::cluster::Cluster;
use crate::load::{self, largest};
use crate::report::Run;

/// How often each survivor is asked to write: the grain of what is measured.
const EVERY: Duration = Duration::from_millis(5);
/// No write after this long is an error.
const LIMIT: Duration = Duration::from_mins(1);

/// Kills the leader `kills` times, and starts it again each time.
pub(crate) fn run(mut cluster: Cluster, kills: usize) -> Result<Run, String> {
    let mut gaps_ms = Vec::new();
    for _ in 0..kills {
        gaps_ms.push(gap(&mut cluster)?.as_secs_f64() * 1e3);
    }
    Ok(Run::Failover { gaps_ms, resident_mib: largest(&cluster.processes())? })
}

fn gap(cluster: &mut Cluster) -> Result<Duration, String> {
    let runtime = load::runtime()?;
    let leader = runtime.block_on(cluster.leader())?;
    let mut survivors = cluster.clients();
    survivors.remove(leader);
    let gap = runtime.block_on(async {
        let mut connections = Vec::new();
        for survivor in survivors {
            connections.push((survivor, Connection::open(survivor).await?));
        }
        cluster.kill(leader)?;
        first_write(connections).await
    })?;
    cluster.restart(leader)?;
    cluster.wait_until_it_serves()?;
    Ok(gap)
}

/// Sends writes to both survivors, a new one each time without waiting for the last, and times the first that is acknowledged.
async fn first_write(connections: Vec<(SocketAddr, Connection)>) -> Result<Duration, String> {
    let killed = Instant::now();
    let (done, mut first) = mpsc::channel(1);
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            gap = first.recv() => return gap.ok_or_else(|| "no writer is left".to_owned()),
            _ = ticks.tick() => {}
        }
        if killed.elapsed() > LIMIT {
            return Err(format!("no write was acknowledged within {LIMIT:?}"));
        }
        for (address, connection) in &connections {
            let (address, connection, done) = (*address, connection.clone(), done.clone());
            tokio::spawn(async move {
                if write(address, connection).await.is_ok() {
                    // Only the first counts: there is place for one.
                    let _ = done.try_send(killed.elapsed());
                }
            });
        }
    }
}

async fn write(address: SocketAddr, connection: Connection) -> Result<(), String> {
    let origin = format!("http://{address}").parse().map_err(|_| "no URL")?;
    let mut kv = quorate_api::etcdserverpb::kv_client::KvClient::with_origin(connection, origin);
    let request = PutRequest { key: "failover".into(), value: "yes".into(), ..PutRequest::default() };
    kv.put(request).await.map(drop).map_err(|status| status.to_string())
}
