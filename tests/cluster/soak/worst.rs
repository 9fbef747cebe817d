//! What a client can do to a node that it was not made for. Each way is a loop of its own; whatever the node answers is right, but for
//! an answer that says that it has ended.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use hyper::body::{Body, Frame};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use quorate_api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_api::etcdserverpb::kv_client::KvClient;
use quorate_api::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_api::etcdserverpb::request_op::Request;
use quorate_api::etcdserverpb::{
    AlarmMember, AlarmRequest, CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest,
    RequestOp, TxnRequest, alarm_request,
};
use quorate_tests::clients::endpoint;
use rand::{Rng as _, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::cluster::Cluster;

/// For how long one attempt may last: then the next begins.
const ATTEMPT: Duration = Duration::from_secs(20);
/// Keys that only these clients know.
const PREFIX: &str = "worst/";
/// How many connections a client of one kind holds at one node.
const CONNECTIONS: usize = 400;

/// A way to be a burden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Abuse {
    /// Connections that say nothing.
    Silent,
    /// Connections that speak HTTP/2 and ask for nothing.
    Idle,
    /// Requests whose body never ends.
    Endless,
    /// Large answers that are not read.
    Unread,
    /// Tens of thousands of ranges in one transaction.
    Nested,
    /// Range compares that look at every key, at every member.
    Compares,
    /// Many small keys, deleted at once.
    Deletions,
    /// Large values, until there is no room, and then its cure.
    Large,
    /// One key, written all the time, and read as it was long ago.
    Versions,
    /// Connections to the HTTP port that are kept, and ask for more than they read.
    Scrapes,
    /// Anything at all, on every port.
    Noise,
}

const ALL: [Abuse; 11] = [
    Abuse::Silent,
    Abuse::Idle,
    Abuse::Endless,
    Abuse::Unread,
    Abuse::Nested,
    Abuse::Compares,
    Abuse::Deletions,
    Abuse::Large,
    Abuse::Versions,
    Abuse::Scrapes,
    Abuse::Noise,
];

/// The ports of a node.
#[derive(Debug, Clone, Copy)]
struct Target {
    client: SocketAddr,
    peer: SocketAddr,
    http: SocketAddr,
}

/// Clients at work.
#[derive(Debug)]
pub(super) struct Abuses {
    stop: Arc<AtomicBool>,
    counts: Arc<BTreeMap<Abuse, AtomicU64>>,
    tasks: JoinSet<()>,
}

impl Abuses {
    /// Starts one client of each kind.
    pub(super) fn start(cluster: &Cluster, random: &mut ChaCha8Rng) -> Self {
        let settings = cluster.members.iter().map(|member| &member.settings);
        let targets: Arc<[Target]> =
            settings.map(|s| Target { client: s.client, peer: s.peer, http: s.http }).collect();
        let counts: Arc<BTreeMap<_, _>> = Arc::new(ALL.map(|abuse| (abuse, AtomicU64::new(0))).into());
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for abuse in ALL {
            let (targets, counts, stop) = (Arc::clone(&targets), Arc::clone(&counts), Arc::clone(&stop));
            let mut random = ChaCha8Rng::from_rng(random);
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    // An attempt that is refused, or cut short, is as good as any other.
                    let _ = tokio::time::timeout(ATTEMPT, abuse.attempt(&targets, &mut random)).await;
                    counts[&abuse].fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(random.random_range(Duration::ZERO..Duration::from_millis(500))).await;
                }
            });
        }
        Self { stop, counts, tasks }
    }

    /// How often each was done.
    pub(super) fn counts(&self) -> String {
        let count =
            |(abuse, count): (&Abuse, &AtomicU64)| format!("{abuse:?} {}", count.load(Ordering::Relaxed));
        self.counts.iter().map(count).collect::<Vec<_>>().join(", ")
    }

    /// Ends all of them.
    pub(super) async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Abuse {
    async fn attempt(self, targets: &[Target], random: &mut ChaCha8Rng) -> Result<(), Failed> {
        let target = targets[random.random_range(0..targets.len())];
        match self {
            Abuse::Silent => silent(target, random).await,
            Abuse::Idle => idle(target, random).await,
            Abuse::Endless => endless(target).await,
            Abuse::Unread => unread(target).await,
            Abuse::Nested => kv(target).txn(nested()).await.map(drop).map_err(Failed::from),
            Abuse::Compares => compares(targets).await,
            Abuse::Deletions => deletions(target, random).await,
            Abuse::Large => large(target, random).await,
            Abuse::Versions => versions(target, random).await,
            Abuse::Scrapes => scrapes(target).await,
            Abuse::Noise => noise(target, random).await,
        }
    }
}

/// An attempt did not get as far as it wanted. Nobody minds; the words are for whoever looks with a debugger.
#[derive(Debug)]
struct Failed(#[allow(dead_code, reason = "it is read in a debugger")] String);

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Failed(error.to_string())
    }
}

fn kv(target: Target) -> KvClient<Channel> {
    KvClient::new(endpoint(target.client).timeout(ATTEMPT).connect_lazy()).max_decoding_message_size(1 << 30)
}

async fn hold(random: &mut ChaCha8Rng) {
    tokio::time::sleep(random.random_range(Duration::from_millis(100)..Duration::from_secs(8))).await;
}

async fn silent(target: Target, random: &mut ChaCha8Rng) -> Result<(), Failed> {
    let mut sockets = Vec::new();
    for number in 0..CONNECTIONS {
        let port = [target.client, target.client, target.client, target.peer, target.http][number % 5];
        sockets.push(TcpStream::connect(port).await?);
    }
    hold(random).await;
    Ok(())
}

async fn idle(target: Target, random: &mut ChaCha8Rng) -> Result<(), Failed> {
    let mut senders = Vec::new();
    for _ in 0..CONNECTIONS {
        let socket = TcpStream::connect(target.client).await?;
        let (sender, connection) =
            http2::handshake::<_, _, NeverEnds>(TokioExecutor::new(), TokioIo::new(socket)).await?;
        tokio::spawn(async move { drop(connection.await) });
        senders.push(sender);
    }
    hold(random).await;
    Ok(())
}

/// The beginning of a body, and then nothing.
#[derive(Debug)]
struct NeverEnds(Option<Bytes>);

impl Body for NeverEnds {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.take().map_or(Poll::Pending, |bytes| Poll::Ready(Some(Ok(Frame::data(bytes)))))
    }
}

fn call(target: Target, path: &str, body: NeverEnds) -> Result<http::Request<NeverEnds>, Failed> {
    let request = http::Request::post(format!("http://{}{path}", target.client));
    Ok(request.header("content-type", "application/grpc").header("te", "trailers").body(body)?)
}

/// A message of gRPC that says that it is `length` long.
fn framed(length: u32, bytes: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + bytes.len());
    frame.put_u8(0);
    frame.put_u32(length);
    frame.put_slice(bytes);
    frame.freeze()
}

async fn endless(target: Target) -> Result<(), Failed> {
    let socket = TcpStream::connect(target.client).await?;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await?;
    tokio::spawn(async move { drop(connection.await) });
    let half = framed(1_500_000, &vec![7; 700_000]);
    let mut answers = Vec::new();
    for _ in 0..200 {
        let request = call(target, "/etcdserverpb.KV/Put", NeverEnds(Some(half.clone())))?;
        sender.ready().await?;
        answers.push(sender.send_request(request));
    }
    for answer in answers {
        let _ = tokio::time::timeout(Duration::from_millis(100), answer).await;
    }
    Ok(())
}

async fn unread(target: Target) -> Result<(), Failed> {
    let socket = TcpStream::connect(target.client).await?;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await?;
    tokio::spawn(async move { drop(connection.await) });
    let range = everything().encode_to_vec();
    let body = framed(range.len() as u32, &range);
    let mut answers = Vec::new();
    for _ in 0..8 {
        let request = call(target, "/etcdserverpb.KV/Range", NeverEnds(Some(body.clone())))?;
        sender.ready().await?;
        answers.push(sender.send_request(request).await?);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    Ok(())
}

fn everything() -> RangeRequest {
    RangeRequest { key: "\0".into(), range_end: "\0".into(), serializable: true, ..RangeRequest::default() }
}

fn operation(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// 77,658 ranges over everything in less than a megabyte.
fn nested() -> TxnRequest {
    let range = operation(Request::RequestRange(RangeRequest { count_only: true, ..everything() }));
    let nest = |inner: &RequestOp, times| {
        operation(Request::RequestTxn(TxnRequest {
            success: vec![inner.clone(); times],
            ..TxnRequest::default()
        }))
    };
    TxnRequest { success: vec![nest(&nest(&range, 43), 43); 42], ..TxnRequest::default() }
}

async fn compares(targets: &[Target]) -> Result<(), Failed> {
    let compare = Compare {
        key: "\0".into(),
        range_end: "\0".into(),
        target: CompareTarget::Mod as i32,
        result: CompareResult::Greater as i32,
        target_union: Some(TargetUnion::ModRevision(0)),
    };
    let range = operation(Request::RequestRange(RangeRequest { count_only: true, ..everything() }));
    let txn = TxnRequest { compare: vec![compare; 128], success: vec![range], ..TxnRequest::default() };
    let all = targets.iter().map(|target| {
        let (mut kv, txn) = (kv(*target), txn.clone());
        async move { kv.txn(txn).await.map(drop) }
    });
    for result in futures::future::join_all(all).await {
        result?;
    }
    Ok(())
}

async fn deletions(target: Target, random: &mut ChaCha8Rng) -> Result<(), Failed> {
    let mut kv = kv(target);
    let folder = format!("{PREFIX}many/{:x}/", random.random::<u16>());
    for batch in 0..100 {
        let put = |number: u32| {
            operation(Request::RequestPut(PutRequest {
                key: format!("{folder}{batch}/{number}").into(),
                ..PutRequest::default()
            }))
        };
        kv.txn(TxnRequest { success: (0..128).map(put).collect(), ..TxnRequest::default() }).await?;
    }
    delete(&mut kv, &format!("{PREFIX}many/")).await
}

async fn delete(kv: &mut KvClient<Channel>, prefix: &str) -> Result<(), Failed> {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().expect("a prefix is not empty") += 1;
    let request = DeleteRangeRequest { key: prefix.to_owned().into(), range_end: end.into(), prev_kv: true };
    kv.delete_range(request).await?;
    Ok(())
}

async fn large(target: Target, random: &mut ChaCha8Rng) -> Result<(), Failed> {
    let mut kv = kv(target);
    for _ in 0..20 {
        let mut value = vec![0; random.random_range(1..1_400_000)];
        random.fill_bytes(&mut value);
        let key = format!("{PREFIX}large/{}", random.random_range(0..50));
        let put = PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() };
        if let Err(status) = kv.put(put).await {
            if is_full(&status) {
                return make_room(target).await;
            }
            return Err(status.into());
        }
    }
    Ok(())
}

fn is_full(status: &Status) -> bool {
    status.code() == Code::ResourceExhausted && status.message().contains("space")
}

/// What an administrator does about NOSPACE.
async fn make_room(target: Target) -> Result<(), Failed> {
    let mut kv = kv(target);
    delete(&mut kv, &format!("{PREFIX}large/")).await?;
    let newest = kv.range(RangeRequest { key: "\0".into(), ..RangeRequest::default() }).await?.into_inner();
    let revision = newest.header.unwrap_or_default().revision;
    kv.compact(CompactionRequest { revision, physical: false }).await?;
    let mut maintenance = MaintenanceClient::new(endpoint(target.client).connect_lazy());
    // As etcdctl does: each by its name.
    let raised = maintenance.alarm(AlarmRequest::default()).await?.into_inner().alarms;
    for AlarmMember { member_id, alarm } in raised {
        let action = alarm_request::AlarmAction::Deactivate.into();
        maintenance.alarm(AlarmRequest { action, member_id, alarm }).await?;
    }
    Ok(())
}

async fn versions(target: Target, random: &mut ChaCha8Rng) -> Result<(), Failed> {
    let mut kv = kv(target);
    let key = format!("{PREFIX}one");
    let mut first = 0;
    for number in 0..2000_u32 {
        let value = number.to_string();
        let put = PutRequest { key: key.clone().into(), value: value.into(), ..PutRequest::default() };
        let header = kv.put(put).await?.into_inner().header.unwrap_or_default();
        first = if first == 0 { header.revision } else { first };
    }
    let old = RangeRequest { key: key.into(), revision: first, ..RangeRequest::default() };
    for _ in 0..random.random_range(1..50) {
        kv.range(old.clone()).await?;
    }
    Ok(())
}

async fn scrapes(target: Target) -> Result<(), Failed> {
    let mut sockets = Vec::new();
    for _ in 0..80 {
        let mut socket = TcpStream::connect(target.http).await?;
        let pipeline = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".repeat(50);
        let _ = tokio::time::timeout(Duration::from_millis(50), socket.write_all(pipeline.as_bytes())).await;
        sockets.push(socket);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    Ok(())
}

async fn noise(target: Target, random: &mut ChaCha8Rng) -> Result<(), Failed> {
    for port in [target.client, target.peer, target.http] {
        let mut socket = TcpStream::connect(port).await?;
        let mut bytes = vec![0; random.random_range(1..100_000)];
        random.fill_bytes(&mut bytes);
        if random.random() {
            socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
        }
        let _ = tokio::time::timeout(Duration::from_millis(200), socket.write_all(&bytes)).await;
        let mut answer = [0; 1024];
        let _ = tokio::time::timeout(Duration::from_millis(200), socket.read(&mut answer)).await;
    }
    Ok(())
}
