//! A new member with much data: how long until it counts, and what the clients notice.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_api::etcdserverpb::cluster_client::ClusterClient;
use quorate_api::etcdserverpb::{Member, MemberAddRequest, MemberListRequest, MemberPromoteRequest};
use tokio::time::sleep;

use crate::client::{Connection, origin};
use crate::cluster::{Cluster, Product};
use crate::load::{self, Clients, VALUE, WARM_UP, key, largest};
use crate::report::Run;
use crate::restart::first_read;
use crate::row::{Load, Request};
use crate::{data, statistics};

/// Bytes of a value: a gigabyte is to be there in a minute.
const LARGE: usize = 4096;
/// They leave the servers some time for the new member.
const LOAD: Load = Load { request: Request::Put, clients: 16, connections: 4, value: VALUE };
const AGAIN: Duration = Duration::from_millis(20);
const TELL: Duration = Duration::from_secs(5);
/// Whoever has not joined after this long never will.
const LIMIT: Duration = Duration::from_mins(5);

/// Writes `bytes`, then has a fourth node join while clients write.
pub(crate) fn run(
    mut cluster: Cluster,
    bytes: usize,
    duration: Duration,
    threads: usize,
) -> Result<Run, String> {
    let runtime = load::runtime()?;
    let leader = runtime.block_on(cluster.leader())?;
    let mut targets = cluster.clients();
    targets.rotate_left(leader);
    let keys: Vec<Bytes> = (0..bytes / LARGE).map(key).collect();
    let known = keys.first().cloned().ok_or("too small a scale: there is nothing to write")?;
    eprintln!("  writes {} keys of {LARGE} B", keys.len());
    runtime.block_on(data::put_all(targets[0], keys, Bytes::from(vec![b'v'; LARGE])))?;
    load::settle(&cluster)?;

    let before = Clients::start(&targets, &LOAD, threads);
    thread::sleep(WARM_UP);
    before.measure(true);
    thread::sleep(duration);
    let before = before.stop()?;

    let clients = Clients::start(&targets, &LOAD, threads);
    thread::sleep(WARM_UP);
    clients.measure(true);
    eprintln!("  one more node joins");
    let begun = Instant::now();
    runtime.block_on(join(&mut cluster, targets[0], known))?;
    let join_s = begun.elapsed().as_secs_f64();
    let meanwhile = clients.stop()?;
    let p99 = |latencies: &[u32]| f64::from(statistics::percentile(latencies, 99)) / 1e3;
    Ok(Run::Join {
        join_s,
        p99_before_ms: p99(&before.latencies),
        p99_ms: p99(&meanwhile.latencies),
        errors: meanwhile.errors,
        error: meanwhile.error,
        resident_mib: largest(&cluster.processes())?,
    })
}

/// Starts one more node. Returns when it is a voter, and has answered a linearizable read: then it has all there is.
async fn join(cluster: &mut Cluster, leader: SocketAddr, known: Bytes) -> Result<(), String> {
    let begun = Instant::now();
    let (name, peer) = cluster.prepare_another();
    let peer = peer.to_string();
    let uri = origin(leader)?;
    let mut members = ClusterClient::with_origin(Connection::open(leader).await?, uri);
    if cluster.product() == Product::Etcd {
        add(&mut members, &peer, begun).await?;
    }
    let client = cluster.start_another()?;
    let mut told = begun;
    loop {
        let reason = match until_it_votes(&mut members, cluster.product(), &peer).await {
            Ok(()) => break,
            Err(reason) => reason,
        };
        cluster.assert_alive()?;
        if begun.elapsed() > LIMIT {
            return Err(format!("{name} has not joined after {LIMIT:?}: {reason}"));
        }
        if told.elapsed() > TELL {
            told = Instant::now();
            eprintln!("  not a voter after {:.0} s: {reason}", begun.elapsed().as_secs_f64());
        }
        sleep(AGAIN).await;
    }
    first_read(client, known, begun).await.map(drop)
}

/// Tells etcd that a member will come. It may think for some seconds that the others are not well.
async fn add(members: &mut ClusterClient<Connection>, peer: &str, begun: Instant) -> Result<(), String> {
    let peer_ur_ls = vec![format!("http://{peer}")];
    let request = MemberAddRequest { peer_ur_ls, is_learner: true };
    loop {
        match members.member_add(request.clone()).await {
            Ok(_) => return Ok(()),
            Err(status) if begun.elapsed() > LIMIT => return Err(format!("it is not let in: {status}")),
            Err(_) => sleep(AGAIN).await,
        }
    }
}

/// Ours becomes a voter by itself; etcd wants to be asked, and says no until it has caught up.
async fn until_it_votes(
    members: &mut ClusterClient<Connection>,
    product: Product,
    peer: &str,
) -> Result<(), String> {
    let list = members.member_list(MemberListRequest { linearizable: false }).await;
    let list = list.map_err(|status| status.to_string())?.into_inner().members;
    match list.into_iter().find(|member| member.peer_ur_ls.iter().any(|url| url.ends_with(peer))) {
        Some(Member { is_learner: false, .. }) => Ok(()),
        Some(Member { id, .. }) if product == Product::Etcd => {
            let promoted = members.member_promote(MemberPromoteRequest { id }).await;
            promoted.map(drop).map_err(|status| status.message().to_owned())
        }
        Some(_) => Err("it learns".to_owned()),
        None => Err("it is no member".to_owned()),
    }
}
