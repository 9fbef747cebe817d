//! One client asks for what costs much, again and again: what do the others notice?

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use quorate_api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_api::etcdserverpb::kv_client::KvClient;
use quorate_api::etcdserverpb::request_op::Request as Operation;
use quorate_api::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use tonic::Status;

use crate::client::Connection;
use crate::cluster::Cluster;
use crate::load::{self, Clients, VALUE, WARM_UP, largest};
use crate::report::Run;
use crate::row::{Load, Request, Row};
use crate::{data, statistics};

/// They leave the servers some time for what else is asked.
const LOAD: Load = Load { request: Request::Put, clients: 16, connections: 4, value: VALUE };
/// The keys that it is about begin with this, and end before what follows it.
const FROM: &[u8] = b"large/";
const TO: &[u8] = b"large0";
/// Compares in one transaction: as many as are allowed.
const COMPARES: usize = 128;
/// Keys that have many versions each.
const OLD_KEYS: u8 = 64;

/// What costs much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disturbance {
    Compares,
    Ranges,
    Deletions,
    Versions,
}

impl Disturbance {
    /// That of a row, if it is about one.
    pub(crate) fn of(row: Row) -> Option<Self> {
        match row {
            Row::Compares => Some(Self::Compares),
            Row::Ranges => Some(Self::Ranges),
            Row::Deletions => Some(Self::Deletions),
            Row::Versions => Some(Self::Versions),
            _ => None,
        }
    }

    /// The keys to begin with, `count` of them: all different, or the same few again and again.
    fn keys(self, count: usize) -> Vec<Bytes> {
        let number = |n: usize| if self == Self::Versions { n % usize::from(OLD_KEYS) } else { n };
        (0..count).map(|n| Bytes::from(format!("large/{:08}", number(n)))).collect()
    }
}

/// Clients put, for a while by themselves and then beside the disturbance.
pub(crate) fn run(
    cluster: &Cluster,
    disturbance: Disturbance,
    keys: usize,
    duration: Duration,
    threads: usize,
) -> Result<Run, String> {
    let runtime = load::runtime()?;
    let leader = runtime.block_on(cluster.leader())?;
    let mut targets = cluster.clients();
    targets.rotate_left(leader);
    let keys = disturbance.keys(keys);
    runtime.block_on(data::put_all(targets[0], keys.clone(), Bytes::from(vec![b'v'; VALUE])))?;
    load::settle(cluster)?;

    let clients = Clients::start(&targets, &LOAD, threads);
    thread::sleep(WARM_UP);
    clients.measure(true);
    thread::sleep(duration);
    let before = clients.stop()?;

    let (clients, terms) = (Clients::start(&targets, &LOAD, threads), cluster.term()?);
    let stopping = Arc::new(AtomicBool::new(false));
    let disturber = {
        let (stopping, target) = (Arc::clone(&stopping), targets[0]);
        thread::spawn(move || disturb(target, disturbance, &keys, &stopping))
    };
    thread::sleep(WARM_UP);
    clients.measure(true);
    thread::sleep(duration);
    let meanwhile = clients.stop()?;
    stopping.store(true, Ordering::Relaxed);
    let Disturbed { done, refused, refusal } =
        disturber.join().map_err(|_| "the disturber has panicked")??;
    let p99 = |latencies: &[u32]| f64::from(statistics::percentile(latencies, 99)) / 1e3;
    Ok(Run::Disturbed {
        p99_before_ms: p99(&before.latencies),
        p99_ms: p99(&meanwhile.latencies),
        silence_ms: meanwhile.silence_ms(),
        terms: cluster.term()?.saturating_sub(terms),
        done,
        refused,
        refusal,
        errors: meanwhile.errors,
        resident_mib: largest(&cluster.processes())?,
    })
}

/// What has come of it.
#[derive(Debug, Default)]
struct Disturbed {
    done: usize,
    refused: usize,
    /// What the last refusal was.
    refusal: Option<String>,
}

fn disturb(
    target: SocketAddr,
    disturbance: Disturbance,
    keys: &[Bytes],
    stopping: &AtomicBool,
) -> Result<Disturbed, String> {
    load::runtime()?.block_on(async {
        let mut seen = Disturbed::default();
        let mut kv = Connection::kv(target).await?.max_decoding_message_size(usize::MAX);
        while !stopping.load(Ordering::Relaxed) {
            match ask(&mut kv, disturbance).await {
                Ok(()) => seen.done += 1,
                Err(status) => {
                    seen.refused += 1;
                    seen.refusal = Some(status.message().to_owned());
                    // A server that refuses at once is not to be hammered.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            if disturbance == Disturbance::Deletions {
                data::put_all(target, keys.to_vec(), Bytes::from(vec![b'v'; VALUE])).await?;
            }
        }
        Ok(seen)
    })
}

async fn ask(kv: &mut KvClient<Connection>, disturbance: Disturbance) -> Result<(), Status> {
    let all = || RangeRequest { key: FROM.into(), range_end: TO.into(), ..RangeRequest::default() };
    match disturbance {
        Disturbance::Compares => {
            let holds = Compare {
                key: FROM.into(),
                range_end: TO.into(),
                result: CompareResult::Greater.into(),
                target: CompareTarget::Version.into(),
                target_union: Some(TargetUnion::Version(0)),
            };
            let read = Operation::RequestRange(RangeRequest { key: FROM.into(), ..RangeRequest::default() });
            let success = vec![RequestOp { request: Some(read) }];
            kv.txn(TxnRequest { compare: vec![holds; COMPARES], success, ..TxnRequest::default() }).await?;
        }
        Disturbance::Ranges => {
            let put = PutRequest { key: "beside".into(), ..PutRequest::default() };
            let operations = [Operation::RequestPut(put), Operation::RequestRange(all())];
            let success = operations.map(|request| RequestOp { request: Some(request) }).into();
            kv.txn(TxnRequest { success, ..TxnRequest::default() }).await?;
        }
        Disturbance::Deletions => {
            let (key, range_end) = (FROM.into(), TO.into());
            kv.delete_range(DeleteRangeRequest { key, range_end, ..DeleteRangeRequest::default() }).await?;
        }
        Disturbance::Versions => {
            // The first revision at which all of them are there: the furthest in the past.
            let revision = 2 + i64::from(OLD_KEYS);
            kv.range(RangeRequest { revision, count_only: true, ..all() }).await?;
        }
    }
    Ok(())
}
