//! A job that runs beside every node, and works only where the member leads.
//!
//! `/leader` of the node says who leads. A leader that has been deposed may not know it yet, so the work is written together with a comparison: nothing
//! that belongs to an earlier term is written once a later one has begun.

use std::error::Error;
use std::time::Duration;

use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::kv_client::KvClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::Channel;

const NODE: &str = "127.0.0.1:2381";
const STORE: &str = "http://127.0.0.1:2379";
/// The term of the last that worked: 20 digits, so that terms compare as their texts do.
const TERM: &str = "leader-job/term";
/// How often it has worked.
const RUNS: &str = "leader-job/runs";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        match leads().await {
            Ok(Some(term)) => match work(term).await {
                Ok(Some(runs)) => println!("term {term}: run {runs}"),
                Ok(None) => println!("term {term}: another one has worked meanwhile"),
                Err(error) => eprintln!("term {term}: {error}"),
            },
            Ok(None) => {}
            Err(error) => eprintln!("{NODE}: {error}"),
        }
    }
}

/// The term in which the member of this pod leads, if it does.
async fn leads() -> Result<Option<u64>, Box<dyn Error>> {
    let mut node = TcpStream::connect(NODE).await?;
    node.write_all(b"GET /leader HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    node.read_to_string(&mut answer).await?;
    let head = answer.split("\r\n\r\n").next().unwrap_or_default().to_ascii_lowercase();
    let term = head.lines().find_map(|line| line.strip_prefix("quorate-term:")?.trim().parse().ok());
    Ok(term.filter(|_| head.starts_with("http/1.1 200")))
}

/// Does the work, as the leader of a term: what it writes, and that nobody of a later term was here. Returns how often it was done; none if it was
/// somebody else's turn.
async fn work(term: u64) -> Result<Option<u64>, Box<dyn Error>> {
    let mut store = KvClient::connect(STORE).await?;
    let before = get(&mut store, TERM).await?;
    if before.as_ref().is_some_and(|(last, _)| *last > text(term)) {
        return Ok(None);
    }
    let runs = get(&mut store, RUNS).await?;
    let next = runs.as_ref().and_then(|(runs, _)| runs.parse::<u64>().ok()).unwrap_or(0) + 1;
    let unchanged = |key: &str, found: Option<&(String, i64)>| pb::Compare {
        key: key.to_owned().into(),
        target: pb::compare::CompareTarget::Mod.into(),
        result: pb::compare::CompareResult::Equal.into(),
        // Zero for a key that does not exist.
        target_union: Some(pb::compare::TargetUnion::ModRevision(found.map_or(0, |(_, revision)| *revision))),
        ..Default::default()
    };
    let transaction = pb::TxnRequest {
        compare: vec![unchanged(TERM, before.as_ref()), unchanged(RUNS, runs.as_ref())],
        success: vec![put(TERM, text(term)), put(RUNS, next.to_string())],
        ..Default::default()
    };
    let done = store.txn(transaction).await?.into_inner().succeeded;
    Ok(done.then_some(next))
}

fn text(term: u64) -> String {
    format!("{term:020}")
}

/// A key's value, and the revision of its last change.
async fn get(store: &mut KvClient<Channel>, key: &str) -> Result<Option<(String, i64)>, tonic::Status> {
    let range = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
    let found = store.range(range).await?.into_inner().kvs.into_iter().next();
    Ok(found.map(|found| (String::from_utf8_lossy(&found.value).into_owned(), found.mod_revision)))
}

fn put(key: &str, value: String) -> pb::RequestOp {
    let request = pb::PutRequest { key: key.to_owned().into(), value: value.into(), ..Default::default() };
    pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(request)) }
}
