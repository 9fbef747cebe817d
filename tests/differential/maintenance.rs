//! Maintenance, of a real etcd and of a real node of ours: after the same changes both hash every revision alike, and send the same versions in their
//! snapshots.
//!
//! What is left out: the hash of a revision that was compacted, which etcd tells as it was before the compaction until it starts again. What differs, and has
//! to: an etcd of one member finds that it may go back to 3.6, and a cluster here never does by such a request.
//! `QUORATE_SEED=n cargo test -p quorate-tests --test differential hash` replays a sequence.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::downgrade_request::DowngradeAction;
use quorate_api::etcdserverpb::kv_client::KvClient;
use quorate_api::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_api::etcdserverpb::request_op::Request as Op;
use quorate_node::bolt::Database;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::quota::{start_etcd, start_node};

/// Sequences in one run: each with servers of its own, for their revisions are compared as they are.
const SEQUENCES: u64 = 3;

/// Changes in one.
const STEPS: usize = 150;

/// Bytes of a database in an answer.
const BLOB: usize = 32 << 10;

/// A server that is asked.
struct Server {
    kv: KvClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
    _process: quorate_tests::process::Process,
}

/// An etcd, and a node.
fn both(directory: &TempDir, runtime: &Runtime) -> [Server; 2] {
    [start_etcd(directory), start_node(directory)].map(|(process, client)| {
        let channel = {
            let _context = runtime.enter();
            Endpoint::from_shared(client).expect("a URL").connect_lazy()
        };
        let (kv, maintenance) = (KvClient::new(channel.clone()), MaintenanceClient::new(channel));
        let mut server = Server { kv, maintenance, _process: process };
        runtime.block_on(server.wait());
        server
    })
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// What is told of a revision: its hash, what was compacted, what was hashed, and the revision that is current; or the error.
type Hashed = Result<(u32, i64, i64, i64), (Code, String)>;

impl Server {
    async fn wait(&mut self) {
        let end = Instant::now() + Duration::from_mins(1);
        loop {
            match self.maintenance.status(pb::StatusRequest {}).await {
                Ok(status) if status.get_ref().leader != 0 => return,
                other => assert!(Instant::now() < end, "it does not come up: {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn change(&mut self, change: &Change) {
        let kv = &mut self.kv;
        let done = match change.clone() {
            Change::Put(put) => kv.put(put).await.map(drop),
            Change::Delete(delete) => kv.delete_range(delete).await.map(drop),
            Change::Txn(txn) => kv.txn(txn).await.map(drop),
            Change::Compact(revision) => {
                kv.compact(pb::CompactionRequest { revision, physical: true }).await.map(drop)
            }
        };
        assert!(done.is_ok(), "{change:?}: {done:?}");
    }

    async fn hash(&mut self, revision: i64) -> Hashed {
        let hashed = self.maintenance.hash_kv(pb::HashKvRequest { revision }).await;
        let hashed = hashed.map_err(|status| told(&status))?.into_inner();
        let current = hashed.header.map_or(0, |header| header.revision);
        Ok((hashed.hash, hashed.compact_revision, hashed.hash_revision, current))
    }

    /// The database that a snapshot is, after its answers were found to be such as etcd sends them.
    async fn snapshot(&mut self) -> Vec<u8> {
        let mut answers =
            self.maintenance.snapshot(pb::SnapshotRequest {}).await.expect("a snapshot").into_inner();
        let (mut blobs, mut left) = (Vec::<Bytes>::new(), None);
        while let Some(answer) = answers.next().await {
            let pb::SnapshotResponse { blob, remaining_bytes, version, .. } = answer.expect("an answer");
            assert_eq!(version, "3.7.0");
            let has_hash = left == Some(0);
            assert!(left.is_none_or(|left| has_hash || left == remaining_bytes + blob.len() as u64));
            left = Some(remaining_bytes);
            blobs.push(blob);
        }
        let hash = blobs.pop().expect("the hash");
        let sizes: Vec<usize> = blobs.iter().map(Bytes::len).collect();
        let (last, others) = sizes.split_last().expect("a database");
        assert!(others.iter().all(|size| *size == BLOB) && *last <= BLOB, "{sizes:?}");
        let database = blobs.concat();
        assert_eq!(hash.len(), 32);
        assert!(database.len() % 4096 == 0, "{}", database.len());
        database
    }

    async fn error<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<(), (Code, String)> {
        answer.await.map(drop).map_err(|status| told(&status))
    }

    /// What is answered to requests that change nothing, or nothing for long.
    async fn answers(&mut self) -> Vec<(String, Result<(), (Code, String)>)> {
        let mut answers = Vec::new();
        let own = self.maintenance.status(pb::StatusRequest {}).await.expect("a status").into_inner().leader;
        for (name, target_id) in [("another", 77), ("itself", own)] {
            let answer = self.maintenance.move_leader(pb::MoveLeaderRequest { target_id });
            answers.push((format!("move the leader to {name}"), Self::error(answer).await));
        }
        for (action, version) in [
            (DowngradeAction::Validate, "3.5.0"),
            (DowngradeAction::Validate, "3.7"),
            (DowngradeAction::Validate, "next"),
            (DowngradeAction::Enable, "3.5"),
            (DowngradeAction::Enable, ""),
            (DowngradeAction::Cancel, ""),
        ] {
            let request = pb::DowngradeRequest { action: action.into(), version: version.to_owned() };
            let answer = Self::error(self.maintenance.downgrade(request)).await;
            answers.push((format!("{action:?} {version}"), answer));
        }
        let request = pb::DowngradeRequest { action: 9, version: "3.6.0".to_owned() };
        answers.push((
            "an action that is none".to_owned(),
            Self::error(self.maintenance.downgrade(request)).await,
        ));
        answers
    }
}

fn told(status: &Status) -> (Code, String) {
    (status.code(), status.message().to_owned())
}

#[derive(Debug, Clone)]
enum Change {
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(i64),
}

fn put(random: &mut ChaCha8Rng, key: u8) -> pb::PutRequest {
    let value = match random.random_range(0..20) {
        0 => vec![key; random.random_range(4000..20_000)],
        _ => vec![key; random.random_range(0..200)],
    };
    pb::PutRequest { key: vec![b'a' + key].into(), value: value.into(), ..pb::PutRequest::default() }
}

fn change(random: &mut ChaCha8Rng, revision: i64, compacted: i64) -> Change {
    let key = random.random_range(0..12_u8);
    let delete = |key: u8, to: u8| pb::DeleteRangeRequest {
        key: vec![b'a' + key].into(),
        range_end: vec![b'a' + to].into(),
        ..pb::DeleteRangeRequest::default()
    };
    let op = |request| pb::RequestOp { request: Some(request) };
    match random.random_range(0..20) {
        0..9 => Change::Put(put(random, key)),
        9..12 => Change::Delete(delete(key, key + 1)),
        // Sometimes nothing is left.
        12 => Change::Delete(delete(0, random.random_range(4..=14))),
        13..18 => {
            let success = vec![
                op(Op::RequestPut(put(random, key))),
                op(Op::RequestDeleteRange(delete(key + 1, key + 4))),
                op(Op::RequestPut(put(random, key + 5))),
            ];
            Change::Txn(pb::TxnRequest { success, ..pb::TxnRequest::default() })
        }
        _ if compacted + 1 < revision => {
            Change::Compact(random.random_range(compacted.max(0) + 1..=revision))
        }
        _ => Change::Put(put(random, key)),
    }
}

#[test]
fn equal_histories_have_equal_hashes_and_snapshots() {
    let runtime = runtime();
    let seeds = crate::seeds(SEQUENCES);
    println!("{} sequences from seed {}", seeds.len(), seeds[0]);
    for seed in seeds {
        let directory = tempfile::tempdir().expect("a directory");
        let servers = both(&directory, &runtime);
        runtime.block_on(compare(servers, seed));
    }
}

async fn compare([mut theirs, mut ours]: [Server; 2], seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (mut revision, mut compacted) = (1, BTreeSet::from([-1]));
    let last = |compacted: &BTreeSet<i64>| compacted.last().copied().unwrap_or(-1);
    let mut changes = Vec::new();
    for _ in 0..STEPS {
        let change = change(&mut random, revision, last(&compacted));
        changes.push(change.clone());
        futures::join!(theirs.change(&change), ours.change(&change));
        if let Change::Compact(revision) = change {
            compacted.insert(revision);
        }
        let asked = [0, random.random_range(last(&compacted).max(3) - 3..=revision + 2), -1];
        for asked in asked {
            // etcd remembers what the hash of a compacted revision was before the compaction.
            let is_remembered = |asked| compacted.contains(&asked) && asked >= 0;
            if is_remembered(asked)
                || asked == 0 && is_remembered(theirs.hash(0).await.map_or(0, |told| told.3))
            {
                continue;
            }
            let told = [theirs.hash(asked).await, ours.hash(asked).await];
            assert_eq!(
                told[0], told[1],
                "revision {asked}; etcd's is first. QUORATE_SEED={seed}: {changes:?}"
            );
            if let Ok((.., current)) = told[0] {
                revision = current;
            }
        }
    }
    let databases = [theirs.snapshot().await, ours.snapshot().await];
    let [theirs, ours] = databases.each_ref().map(|bytes| versions(bytes));
    assert!(theirs == ours, "the snapshots hold other versions. QUORATE_SEED={seed}: {changes:?}");
}

/// The versions in a database, and what it says of compaction.
fn versions(bytes: &[u8]) -> Vec<(Bytes, Bytes)> {
    let database = Database::open(bytes, bytes.len() as u64).expect("a database");
    let mut found = Vec::new();
    for (name, bucket) in database.buckets().expect("buckets") {
        let mut entries = database.entries(&bucket);
        while let Some((key, value)) = entries.next().expect("it is whole") {
            let is_compaction = name == "meta" && key.ends_with(b"CompactRev");
            if name == "key" || is_compaction {
                found.push((key, value));
            }
        }
    }
    found
}

#[test]
fn what_cannot_be_is_refused_as_etcd_refuses_it() {
    let runtime = runtime();
    let directory = tempfile::tempdir().expect("a directory");
    let [mut theirs, mut ours] = both(&directory, &runtime);
    let answers = runtime.block_on(async { [theirs.answers().await, ours.answers().await] });
    assert_eq!(answers[0], answers[1]);
}

/// The hash of all is that of what a snapshot holds.
#[test]
fn the_hash_of_everything_is_of_what_a_snapshot_holds() {
    let runtime = runtime();
    let directory = tempfile::tempdir().expect("a directory");
    for mut server in both(&directory, &runtime) {
        runtime.block_on(async {
            for key in 0..200_u8 {
                let key = vec![b'k', key].into();
                let put = pb::PutRequest { key, value: vec![7; 300].into(), ..pb::PutRequest::default() };
                server.kv.put(put).await.expect("a put");
            }
            let hash = server.maintenance.hash(pb::HashRequest {}).await.expect("a hash").into_inner();
            assert_eq!(hash.header.expect("a header").revision, 201);
            assert_eq!(hash.hash, hash_of(&server.snapshot().await));
        });
    }
}

fn hash_of(bytes: &[u8]) -> u32 {
    let database = Database::open(bytes, bytes.len() as u64).expect("a database");
    let mut hash = 0;
    for (name, bucket) in database.buckets().expect("buckets") {
        hash = crc32c::crc32c_append(hash, &name);
        let mut entries = database.entries(&bucket);
        while let Some((key, value)) = entries.next().expect("it is whole") {
            let moves = [&b"consistent_index"[..], b"term", b"storageVersion"].contains(&&key[..]);
            if name != "meta" || !moves {
                hash = crc32c::crc32c_append(hash, &key);
                hash = crc32c::crc32c_append(hash, &value);
            }
        }
    }
    hash
}
