//! Watches, of a real etcd and of a real node of ours: the same random requests and writes to both, and the same told by each watch.
//!
//! How changes are divided into answers is left to the server; what each watch is told, in which order, is not. A request for progress is answered when all
//! watches of the stream have been told everything, by both: that is how a step waits for the one before.
//! `QUORATE_SEED=n cargo test -p quorate-tests --test differential watches` replays a sequence.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt as _;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::kv_client::KvClient;
use quorate_api::etcdserverpb::request_op::Request as Op;
use quorate_api::etcdserverpb::watch_client::WatchClient;
use quorate_api::etcdserverpb::watch_request::RequestUnion;
use quorate_api::mvccpb::Event;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::runtime::Builder;
use tokio::time::{Instant, timeout};
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use crate::quota::{start_etcd, start_node};

/// Sequences in one run.
const SEQUENCES: u64 = 25;

/// Steps of one.
const STEPS: usize = 30;

/// How long an answer may take that has to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often progress is asked for.
const ASKED_EVERY: Duration = Duration::from_millis(20);

/// When nothing has come for so long, all has, where progress is not told: etcd looks at watches that are behind ten times a second.
const LATER: Duration = Duration::from_millis(150);

/// The ID of the watch that each stream begins with.
const FIRST: i64 = 777;

/// Keys of one sequence: few, so that watches meet.
const KEYS: u8 = 5;

#[derive(Debug, Clone)]
enum Step {
    Watch(pb::WatchCreateRequest),
    /// The one with this ID.
    Cancel(i64),
    Put(u8, u8),
    Delete(u8, u8),
    /// Puts and a deletion in one revision.
    Txn(Vec<u8>, u8),
    /// So many revisions back.
    Compact(i64),
}

#[test]
fn watches_are_told_what_etcds_are_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let servers = [start_etcd(&directory), start_node(&directory)];
    let channels = servers.each_ref().map(|(_, client)| {
        let _context = runtime.enter();
        Endpoint::from_shared(client.clone()).expect("a URL").connect_lazy()
    });
    let seeds = crate::seeds(SEQUENCES);
    println!("{} sequences from seed {}", seeds.len(), seeds[0]);
    runtime.block_on(async {
        for channel in &channels {
            wait(channel).await;
        }
        let mut told = 0;
        for seed in seeds {
            told += compare(&channels, seed).await;
        }
        println!("{told} answers and changes were equal");
    });
}

/// Waits until a server answers.
pub(crate) async fn wait(channel: &Channel) {
    let mut kv = KvClient::new(channel.clone());
    let end = Instant::now() + Duration::from_mins(1);
    let range = || pb::RangeRequest { key: "?".into(), ..pb::RangeRequest::default() };
    while let Err(error) = kv.range(range()).await {
        assert!(Instant::now() < end, "it does not come up: {error}");
        tokio::time::sleep(ASKED_EVERY).await;
    }
}

/// Runs one sequence. How much was told.
async fn compare(channels: &[Channel; 2], seed: u64) -> usize {
    let [mut theirs, mut ours] =
        [Client::open(&channels[0], seed).await, Client::open(&channels[1], seed).await];
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut steps = Vec::new();
    for _ in 0..STEPS {
        let step = step(&mut random, ours.revision, seed);
        steps.push(step.clone());
        // What one does the other does, too: they are at the same revision.
        let done = futures::join!(theirs.perform(step.clone()), ours.perform(step));
        assert_eq!(done.0, done.1, "QUORATE_SEED={seed} replays this: {steps:#?}");
        futures::join!(theirs.settle(), ours.settle());
    }
    // What begins in the future keeps either from telling progress.
    for _ in 0..100 {
        if theirs.told == ours.told {
            break;
        }
        theirs.next(ASKED_EVERY).await;
        ours.next(ASKED_EVERY).await;
    }
    let ids: BTreeSet<i64> = theirs.told.keys().chain(ours.told.keys()).copied().collect();
    for id in ids {
        let (theirs, ours) = (theirs.told.get(&id), ours.told.get(&id));
        assert_eq!(
            theirs, ours,
            "watch {id}; etcd is on the left. QUORATE_SEED={seed} replays this: {steps:?}"
        );
    }
    ours.told.values().map(Vec::len).sum()
}

fn key(seed: u64, number: u8) -> Vec<u8> {
    format!("{seed}/{number}").into()
}

fn step(random: &mut ChaCha8Rng, revision: i64, seed: u64) -> Step {
    let number = |random: &mut ChaCha8Rng| random.random_range(0..KEYS);
    match random.random_range(0..20) {
        0..6 => Step::Watch(watch(random, revision, seed)),
        6..8 => Step::Cancel(random.random_range(0..8)),
        8..13 => Step::Put(number(random), random.random()),
        13..16 => Step::Delete(number(random), random.random_range(0..=KEYS)),
        16..19 => {
            let mut keys: Vec<u8> = (0..KEYS).filter(|_| random.random_bool(0.5)).collect();
            let deleted = keys.pop().unwrap_or(0);
            Step::Txn(keys, deleted)
        }
        _ => Step::Compact(random.random_range(0..6)),
    }
}

fn watch(random: &mut ChaCha8Rng, revision: i64, seed: u64) -> pb::WatchCreateRequest {
    let range_end: Vec<u8> = match random.random_range(0..10) {
        0..4 => Vec::new(),
        4..8 => key(seed, random.random_range(0..=KEYS)),
        // Nobody else writes behind these keys meanwhile.
        8 => vec![0],
        _ => key(seed, 0),
    };
    let start_revision = match random.random_range(0..12) {
        0..5 => 0,
        5..10 => (revision - random.random_range(0..12)).max(1),
        10 if random.random_bool(0.2) => revision + random.random_range(1..4),
        10 => 1,
        _ => -random.random_range(1..3_i64),
    };
    let start = if random.random_bool(0.95) { key(seed, random.random_range(0..KEYS)) } else { Vec::new() };
    let mut filter = |kind: i32| random.random_bool(0.2).then_some(kind);
    let filters = [filter(1), filter(0)];
    pb::WatchCreateRequest {
        key: start.into(),
        range_end: range_end.into(),
        start_revision,
        progress_notify: random.random(),
        filters: filters.into_iter().flatten().collect(),
        prev_kv: random.random(),
        watch_id: if random.random_bool(0.8) { 0 } else { random.random_range(1..6) },
        fragment: random.random(),
    }
}

/// What was told.
#[derive(Debug, Clone, PartialEq)]
enum Item {
    /// Any answer that has no changes: the revision in its header, and what it says.
    Answer {
        revision: i64,
        created: bool,
        canceled: bool,
        compact_revision: i64,
        reason: String,
    },
    Change(Box<Event>),
}

/// A stream of watches of one server.
struct Client {
    kv: KvClient<Channel>,
    requests: UnboundedSender<pb::WatchRequest>,
    answers: Streaming<pb::WatchResponse>,
    /// Each watch's, by its ID. -1 has those that were refused.
    told: BTreeMap<i64, Vec<Item>>,
    /// The watches, with whether they begin in the future.
    watches: BTreeMap<i64, bool>,
    /// Answers to requests that have not come yet.
    awaited: usize,
    revision: i64,
    seed: u64,
    /// Up to which revision progress was told last.
    progress: i64,
}

impl Client {
    async fn open(channel: &Channel, seed: u64) -> Self {
        let (requests, received) = unbounded();
        // etcd begins its answer when it has something to tell.
        let first =
            pb::WatchCreateRequest { key: key(seed, 0).into(), watch_id: FIRST, ..Default::default() };
        let first = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(first)) };
        requests.unbounded_send(first).expect("it is open");
        let answers = WatchClient::new(channel.clone()).watch(received).await.expect("a stream").into_inner();
        let mut kv = KvClient::new(channel.clone());
        let range = pb::RangeRequest { key: "?".into(), ..pb::RangeRequest::default() };
        let header = kv.range(range).await.expect("an answer").into_inner().header.expect("a header");
        let (told, watches, revision) =
            (BTreeMap::new(), BTreeMap::from([(i64::MAX, false)]), header.revision);
        let mut client =
            Self { kv, requests, answers, told, watches, awaited: 1, revision, seed, progress: 0 };
        client.listen_for_answers().await;
        client
    }

    fn ask(&self, request: RequestUnion) {
        let request = pb::WatchRequest { request_union: Some(request) };
        self.requests.unbounded_send(request).expect("the stream is open");
    }

    /// Does a step. The revision afterwards, or the error.
    async fn perform(&mut self, step: Step) -> Result<i64, String> {
        let key = |number| key(self.seed, number).into();
        let put = |number, value: u8| pb::PutRequest {
            key: key(number),
            value: vec![value].into(),
            ..Default::default()
        };
        let header = match step {
            Step::Watch(request) => {
                self.awaited += 1;
                self.watches.insert(i64::MAX, request.start_revision > self.revision);
                self.ask(RequestUnion::CreateRequest(request));
                self.listen_for_answers().await;
                return Ok(self.revision);
            }
            Step::Cancel(watch_id) => {
                self.awaited += usize::from(self.watches.contains_key(&watch_id));
                self.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id }));
                self.listen_for_answers().await;
                return Ok(self.revision);
            }
            Step::Put(number, value) => {
                self.kv.put(put(number, value)).await.map(|answer| answer.into_inner().header)
            }
            Step::Delete(start, end) => {
                let deletion =
                    pb::DeleteRangeRequest { key: key(start), range_end: key(end), ..Default::default() };
                self.kv.delete_range(deletion).await.map(|answer| answer.into_inner().header)
            }
            Step::Txn(puts, deleted) => {
                let deletion = pb::DeleteRangeRequest { key: key(deleted), ..Default::default() };
                let puts = puts.into_iter().filter(|number| *number != deleted);
                let ops = puts
                    .map(|number| Op::RequestPut(put(number, number)))
                    .chain([Op::RequestDeleteRange(deletion)]);
                let success = ops.map(|request| pb::RequestOp { request: Some(request) }).collect();
                let txn = pb::TxnRequest { success, ..Default::default() };
                self.kv.txn(txn).await.map(|answer| answer.into_inner().header)
            }
            Step::Compact(back) => {
                let compaction = pb::CompactionRequest { revision: self.revision - back, physical: true };
                self.kv.compact(compaction).await.map(|answer| answer.into_inner().header)
            }
        };
        self.revision = header.map_err(|status| status.message().to_owned())?.expect("a header").revision;
        Ok(self.revision)
    }

    /// Waits until requests are answered.
    async fn listen_for_answers(&mut self) {
        while self.awaited > 0 {
            assert!(self.next(PATIENCE).await, "a request is not answered: {:?}", self.told);
        }
    }

    /// Waits until all watches have been told everything.
    async fn settle(&mut self) {
        // What was told before is of an earlier revision.
        let put = pb::PutRequest { key: "~".into(), ..Default::default() };
        let header = self.kv.put(put).await.expect("an answer").into_inner().header;
        self.revision = header.expect("a header").revision;
        if self.watches.values().any(|is_later| *is_later) {
            while self.next(LATER).await {}
            return;
        }
        let end = Instant::now() + PATIENCE;
        loop {
            assert!(
                Instant::now() < end,
                "progress is not told: {:?} of {}: {:?}",
                self.progress,
                self.revision,
                self.told
            );
            if self.progress >= self.revision && self.awaited == 0 {
                return;
            }
            self.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
            while self.next(ASKED_EVERY).await && self.progress < self.revision {}
        }
    }

    /// Takes an answer, if one comes within this time.
    async fn next(&mut self, time: Duration) -> bool {
        let Ok(answer) = timeout(time, self.answers.next()).await else { return false };
        self.take(answer.expect("the stream goes on").expect("an answer"));
        true
    }

    fn take(&mut self, answer: pb::WatchResponse) {
        let revision = answer.header.as_ref().expect("a header").revision;
        let is_progress = !answer.created && !answer.canceled && answer.events.is_empty();
        if is_progress {
            assert_eq!(answer.watch_id, -1, "the time for any other is far away");
            self.progress = revision;
            return;
        }
        if answer.created {
            self.awaited -= 1;
            let (_, is_later) = self.watches.pop_last().expect("one was asked for");
            if !answer.canceled {
                self.watches.insert(answer.watch_id, is_later);
            }
        } else if answer.canceled {
            self.watches.remove(&answer.watch_id);
            if answer.compact_revision == 0 {
                self.awaited -= 1;
            } else {
                // As long as its client has not ended it, etcd tells no progress.
                self.awaited += 1;
                self.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: answer.watch_id }));
            }
        }
        let told = self.told.entry(answer.watch_id).or_default();
        told.extend(answer.events.into_iter().map(|event| Item::Change(Box::new(event))));
        if answer.created || answer.canceled {
            let (created, canceled, compact_revision) =
                (answer.created, answer.canceled, answer.compact_revision);
            told.push(Item::Answer {
                revision,
                created,
                canceled,
                compact_revision,
                reason: answer.cancel_reason,
            });
        }
    }
}
