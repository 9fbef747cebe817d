//! The leader is lost: for how long is no write acknowledged?

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
/// A leader whose disk stands still may go on for a while before it gives up: so long it is watched.
const WATCHED: Duration = Duration::from_secs(5);
/// No write after this long is an error.
const LIMIT: Duration = Duration::from_mins(1);

/// How the leader is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// kill -9.
    Killed,
    /// It runs, and its disk stands still.
    Stalled,
}

/// Loses the leader `times` times, and has it come back each time.
pub(crate) fn run(mut cluster: Cluster, loss: Loss, times: usize) -> Result<Run, String> {
    let mut gaps_ms = Vec::new();
    for _ in 0..times {
        gaps_ms.push(gap(&mut cluster, loss)?.as_secs_f64() * 1e3);
    }
    Ok(Run::Failover { gaps_ms, resident_mib: largest(&cluster.processes())? })
}

fn gap(cluster: &mut Cluster, loss: Loss) -> Result<Duration, String> {
    let runtime = load::runtime()?;
    let leader = runtime.block_on(cluster.leader())?;
    let mut survivors = cluster.clients();
    survivors.remove(leader);
    let gap = runtime.block_on(async {
        let mut connections = Vec::new();
        for survivor in survivors {
            connections.push((survivor, Connection::open(survivor).await?));
        }
        let watched = match loss {
            Loss::Killed => {
                cluster.kill(leader)?;
                Duration::ZERO
            }
            Loss::Stalled => {
                cluster.faults(leader).stall();
                WATCHED
            }
        };
        longest_gap(connections, watched).await
    })?;
    match loss {
        Loss::Killed => cluster.restart(leader)?,
        Loss::Stalled => cluster.faults(leader).heal(),
    }
    cluster.wait_until_it_serves()?;
    Ok(gap)
}

/// Sends writes to both survivors, a new one each time without waiting for the last. Returns the longest time between two
/// answers, from now on to the first one that comes after `watched`.
async fn longest_gap(
    connections: Vec<(SocketAddr, Connection)>,
    watched: Duration,
) -> Result<Duration, String> {
    let lost = Instant::now();
    let (mut newest, mut longest) = (Duration::ZERO, Duration::ZERO);
    let (done, mut answers) = mpsc::unbounded_channel();
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            answer = answers.recv() => {
                let answer: Duration = answer.ok_or("no writer is left")?;
                longest = longest.max(answer.saturating_sub(newest));
                newest = answer;
                if newest >= watched {
                    return Ok(longest);
                }
                continue;
            }
            _ = ticks.tick() => {}
        }
        if lost.elapsed() > newest + LIMIT {
            return Err(format!("no write was acknowledged within {LIMIT:?}"));
        }
        for (address, connection) in &connections {
            let (address, connection, done) = (*address, connection.clone(), done.clone());
            tokio::spawn(async move {
                if write(address, connection).await.is_ok() {
                    // Nobody listens any more once all was seen.
                    let _ = done.send(lost.elapsed());
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
