//! Ranges that are answered in chunks, by a real etcd and by a real node of ours: the same keys, count and revision, however they are divided.
//!
//! `QUORATE_SEED=n cargo test -p quorate-tests --test differential ranges_in_chunks` replays a sequence.

use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::kv_client::KvClient;
use quorate_api::mvccpb::KeyValue;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::runtime::Builder;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::quota::{start_etcd, start_node};
use crate::watch::wait;

/// Sequences in one run.
const SEQUENCES: u64 = 20;

/// Keys of one, and ranges of them.
const KEYS: u32 = 60;
const RANGES: usize = 25;

#[test]
fn ranges_in_chunks_have_what_etcds_have() {
    let directory = tempfile::tempdir().expect("a directory");
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let servers = [start_etcd(&directory), start_node(&directory)];
    let clients = servers.each_ref().map(|(_, client)| {
        let _context = runtime.enter();
        Endpoint::from_shared(client.clone()).expect("a URL").connect_lazy()
    });
    let seeds = crate::seeds(SEQUENCES);
    println!("{} sequences from seed {}", seeds.len(), seeds[0]);
    runtime.block_on(async {
        for channel in &clients {
            wait(channel).await;
        }
        let mut clients = clients.map(KvClient::new);
        for seed in seeds {
            compare(&mut clients, seed).await;
        }
    });
}

async fn compare([theirs, ours]: &mut [KvClient<Channel>; 2], seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut revision = 0;
    for _ in 0..KEYS {
        let bytes = if random.random_bool(0.1) { 200_000 } else { 100 };
        let put = pb::PutRequest {
            key: key(&mut random, seed).into(),
            value: vec![b'v'; random.random_range(0..bytes)].into(),
            ..Default::default()
        };
        let done = futures::join!(theirs.put(put.clone()), ours.put(put));
        let revisions =
            [done.0, done.1].map(|done| done.expect("a put").into_inner().header.map(|h| h.revision));
        assert_eq!(revisions[0], revisions[1]);
        revision = revisions[0].expect("a header");
    }
    for _ in 0..RANGES {
        let range = range(&mut random, seed, revision);
        let (expected, answered) = futures::join!(read(theirs, range.clone()), read(ours, range.clone()));
        assert_eq!(expected, answered, "etcd is on the left. QUORATE_SEED={seed} replays this: {range:?}");
    }
}

fn key(random: &mut ChaCha8Rng, seed: u64) -> Vec<u8> {
    format!("{seed}/{:02}", random.random_range(0..KEYS)).into()
}

fn range(random: &mut ChaCha8Rng, seed: u64, revision: i64) -> pb::RangeRequest {
    pb::RangeRequest {
        key: if random.random_bool(0.95) { key(random, seed).into() } else { Vec::new().into() },
        range_end: match random.random_range(0..8) {
            0 => Vec::new().into(),
            1 => key(random, seed).into(),
            _ => format!("{seed}0").into(),
        },
        limit: if random.random() { 0 } else { random.random_range(-1..40) },
        revision: if random.random() { 0 } else { revision - random.random_range(-2..40) },
        keys_only: random.random_bool(0.3),
        count_only: random.random_bool(0.1),
        serializable: random.random(),
        sort_order: if random.random_bool(0.8) { 0 } else { random.random_range(0..4) },
        min_mod_revision: i64::from(random.random_bool(0.05)),
        ..Default::default()
    }
}

/// What a stream tells, as one answer.
#[derive(Debug, PartialEq)]
struct Told {
    keys: Vec<KeyValue>,
    revision: i64,
    count: i64,
    more: bool,
}

async fn read(client: &mut KvClient<Channel>, range: pb::RangeRequest) -> Result<Told, String> {
    let words = |status: Status| format!("{:?}: {}", status.code(), status.message());
    let mut stream = client.range_stream(range).await.map_err(words)?.into_inner();
    let (mut keys, mut last) = (Vec::new(), None);
    while let Some(chunk) = stream.message().await.map_err(words)? {
        assert_eq!(last, None, "the chunk with a header is the last one");
        let mut range = chunk.range_response.expect("every chunk is one");
        keys.append(&mut range.kvs);
        last = range.header.map(|header| (header.revision, range.count, range.more));
    }
    let (revision, count, more) = last.expect("the last chunk has a header");
    Ok(Told { keys, revision, count, more })
}
