//! An application that uses the store at localhost: each visit of port 8080 is counted, whichever pod is visited.

use std::error::Error;

use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::kv_client::KvClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const STORE: &str = "http://127.0.0.1:2379";
const VISITS: &str = "visits";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let visitors = TcpListener::bind("[::]:8080").await?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            visitor = visitors.accept() => {
                let (visitor, _) = visitor?;
                tokio::spawn(async move {
                    if let Err(error) = receive(visitor).await {
                        eprintln!("a visitor has gone: {error}");
                    }
                });
            }
        }
    }
}

async fn receive(mut visitor: TcpStream) -> std::io::Result<()> {
    let mut asked = [0; 512];
    let length = visitor.read(&mut asked).await?;
    let (code, text) = if asked[..length].starts_with(b"GET /ready ") {
        ("200 OK", "ready".to_owned())
    } else {
        match count().await {
            Ok(visits) => ("200 OK", format!("visit {visits}")),
            Err(error) => ("503 Service Unavailable", error.to_string()),
        }
    };
    let answer = format!(
        "HTTP/1.1 {code}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
        text.len()
    );
    visitor.write_all(answer.as_bytes()).await
}

/// Counts one visit, together with those of the other pods.
async fn count() -> Result<u64, Box<dyn Error + Send + Sync>> {
    let mut store = KvClient::connect(STORE).await?;
    loop {
        let range = pb::RangeRequest { key: VISITS.into(), ..Default::default() };
        let found = store.range(range).await?.into_inner().kvs.into_iter().next();
        let before = found.as_ref().and_then(|found| std::str::from_utf8(&found.value).ok()?.parse().ok());
        let visits: u64 = before.unwrap_or(0) + 1;
        let unchanged = pb::Compare {
            key: VISITS.into(),
            target: pb::compare::CompareTarget::Mod.into(),
            result: pb::compare::CompareResult::Equal.into(),
            // Zero for a key that does not exist.
            target_union: Some(pb::compare::TargetUnion::ModRevision(
                found.map_or(0, |found| found.mod_revision),
            )),
            ..Default::default()
        };
        let put =
            pb::PutRequest { key: VISITS.into(), value: visits.to_string().into(), ..Default::default() };
        let put = pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) };
        let transaction =
            pb::TxnRequest { compare: vec![unchanged], success: vec![put], ..Default::default() };
        if store.txn(transaction).await?.into_inner().succeeded {
            return Ok(visits);
        }
    }
}
