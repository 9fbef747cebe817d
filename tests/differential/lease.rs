//! Leases, of a real etcd and of a real node of ours: the same random requests to both, and the same answers, but for the time that has passed and the
//! IDs that servers choose.
//!
//! `QUORATE_SEED=n cargo test -p quorate-tests --test differential leases` replays a sequence.

use std::fmt::Debug;

use futures::StreamExt as _;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_api::etcdserverpb::kv_client::KvClient;
use quorate_api::etcdserverpb::lease_client::LeaseClient;
use quorate_api::etcdserverpb::request_op::Request as Op;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::runtime::Builder;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status, Streaming};

use crate::quota::{start_etcd, start_node};
use crate::watch::wait;

/// Sequences in one run.
const SEQUENCES: u64 = 40;

/// Steps of one.
const STEPS: usize = 60;

/// Leases and keys of one sequence: few, so that they meet.
const IDS: i64 = 4;
const KEYS: u8 = 4;

/// Times to live: none that is granted ends while a sequence is run.
const TIMES: [i64; 6] = [60, 3600, 120, 9_000_000_000, 9_000_000_001, i64::MAX];

/// Those that would: what is granted for them.
const SHORT: [i64; 6] = [i64::MIN, -1, 0, 1, 2, 3];

#[derive(Debug, Clone)]
enum Step {
    Grant { id: i64, ttl: i64 },
    Revoke(i64),
    KeepAlive(i64),
    TimeToLive(i64, bool),
    Leases,
    Put(pb::PutRequest),
    Txn(pb::TxnRequest),
    Delete(u8, u8),
    Range,
}

#[test]
fn leases_are_answered_as_etcd_answers_them() {
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
        for seed in seeds {
            compare(&channels, seed).await;
        }
    });
}

async fn compare(channels: &[Channel; 2], seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut theirs = Client::open(&channels[0], seed).await;
    let mut ours = Client::open(&channels[1], seed).await;
    for ttl in SHORT {
        let step = Step::Grant { id: 0, ttl };
        let (expected, answered) = futures::join!(theirs.perform(step.clone()), ours.perform(step));
        assert_eq!(expected, answered, "for {ttl} s; etcd is on the left");
    }
    let mut steps = Vec::new();
    for _ in 0..STEPS {
        let step = step(&mut random, seed);
        steps.push(step.clone());
        let (expected, answered) = futures::join!(theirs.perform(step.clone()), ours.perform(step));
        assert_eq!(expected, answered, "etcd is on the left. QUORATE_SEED={seed} replays this: {steps:#?}");
    }
    futures::join!(theirs.clear(), ours.clear());
}

/// IDs of this sequence alone; 0 now and then.
fn id(random: &mut ChaCha8Rng, seed: u64) -> i64 {
    if random.random_bool(0.05) {
        return 0;
    }
    let id = seed.cast_signed() * 10 + random.random_range(1..=IDS);
    if id % 2 == 0 { id } else { -id }
}

fn key(seed: u64, number: u8) -> Vec<u8> {
    format!("{seed}/{number}").into()
}

fn put(random: &mut ChaCha8Rng, seed: u64, number: u8) -> pb::PutRequest {
    pb::PutRequest {
        key: key(seed, number).into(),
        value: vec![random.random_range(b'a'..b'e')].into(),
        lease: if random.random_bool(0.7) { id(random, seed) } else { 0 },
        prev_kv: random.random(),
        ignore_lease: random.random_bool(0.15),
        ignore_value: false,
    }
}

fn step(random: &mut ChaCha8Rng, seed: u64) -> Step {
    match random.random_range(0..24) {
        0..5 => Step::Grant { id: id(random, seed), ttl: TIMES[random.random_range(0..TIMES.len())] },
        5..7 => Step::Revoke(id(random, seed)),
        7..9 => Step::KeepAlive(id(random, seed)),
        9..13 => Step::TimeToLive(id(random, seed), random.random()),
        13 => Step::Leases,
        14..18 => {
            let number = random.random_range(0..KEYS);
            Step::Put(put(random, seed, number))
        }
        18..20 => Step::Txn(txn(random, seed)),
        20..22 => Step::Delete(random.random_range(0..KEYS), random.random_range(0..=KEYS)),
        _ => Step::Range,
    }
}

/// Puts of different keys, by the lease of one of them.
fn txn(random: &mut ChaCha8Rng, seed: u64) -> pb::TxnRequest {
    let compare = pb::Compare {
        key: key(seed, random.random_range(0..KEYS)).into(),
        target: CompareTarget::Lease.into(),
        result: CompareResult::Equal.into(),
        target_union: Some(TargetUnion::Lease(id(random, seed))),
        ..Default::default()
    };
    let mut ops = || {
        let numbers: Vec<u8> = (0..KEYS).filter(|_| random.random_bool(0.4)).collect();
        let puts = numbers.into_iter().map(|number| Op::RequestPut(put(random, seed, number)));
        puts.map(|request| pb::RequestOp { request: Some(request) }).collect()
    };
    pb::TxnRequest { compare: vec![compare], success: ops(), failure: ops() }
}

/// A client of one server.
struct Client {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    renewals: UnboundedSender<pb::LeaseKeepAliveRequest>,
    /// Once there is a first renewal: etcd begins its answer then.
    renewed: Option<Streaming<pb::LeaseKeepAliveResponse>>,
    /// Those that the server has chosen the IDs of.
    chosen: Vec<i64>,
    seed: u64,
}

impl Client {
    async fn open(channel: &Channel, seed: u64) -> Self {
        let (renewals, received) = unbounded();
        let mut lease = LeaseClient::new(channel.clone());
        let first = pb::LeaseKeepAliveRequest { id: i64::MAX };
        renewals.unbounded_send(first).expect("it is open");
        let mut renewed = lease.lease_keep_alive(received).await.expect("a stream").into_inner();
        renewed.next().await.expect("an answer").expect("there is no such lease, which is no error");
        let (kv, renewed) = (KvClient::new(channel.clone()), Some(renewed));
        Self { kv, lease, renewals, renewed, chosen: Vec::new(), seed }
    }

    /// Does a step, and tells the answer without what may differ.
    async fn perform(&mut self, step: Step) -> String {
        let key = |number| key(self.seed, number).into();
        match step {
            Step::Grant { id, ttl } => {
                let granted = self.lease.lease_grant(pb::LeaseGrantRequest { ttl, id }).await;
                if let (0, Ok(answer)) = (id, &granted) {
                    self.chosen.push(answer.get_ref().id);
                }
                told(granted, |answer| {
                    plain(&mut answer.header);
                    if id == 0 {
                        answer.id = 0;
                    }
                })
            }
            Step::Revoke(id) => {
                let revoked = self.lease.lease_revoke(pb::LeaseRevokeRequest { id }).await;
                told(revoked, |answer| plain(&mut answer.header))
            }
            Step::KeepAlive(id) => {
                self.renewals.unbounded_send(pb::LeaseKeepAliveRequest { id }).expect("it is open");
                let renewed = self.renewed.as_mut().expect("it has begun").next().await;
                told(renewed.expect("an answer").map(Response::new), |answer| plain(&mut answer.header))
            }
            Step::TimeToLive(id, keys) => {
                let asked = pb::LeaseTimeToLiveRequest { id, keys };
                told(self.lease.lease_time_to_live(asked).await, |answer| {
                    plain(&mut answer.header);
                    answer.keys.sort();
                    // A second may have begun, or not.
                    if (answer.granted_ttl - 30..=answer.granted_ttl).contains(&answer.ttl) {
                        answer.ttl = answer.granted_ttl;
                    }
                })
            }
            Step::Leases => {
                let chosen = &self.chosen;
                told(self.lease.lease_leases(pb::LeaseLeasesRequest {}).await, |answer| {
                    plain(&mut answer.header);
                    // etcd has them by when they end.
                    answer.leases.sort_by_key(|lease| lease.id);
                    answer.leases.retain(|lease| !chosen.contains(&lease.id));
                })
            }
            Step::Put(request) => told(self.kv.put(request).await, |answer| plain(&mut answer.header)),
            Step::Txn(request) => told(self.kv.txn(request).await, |answer| plain(&mut answer.header)),
            Step::Delete(start, end) => {
                let deletion = pb::DeleteRangeRequest { key: key(start), range_end: key(end), prev_kv: true };
                told(self.kv.delete_range(deletion).await, |answer| plain(&mut answer.header))
            }
            Step::Range => {
                let all = pb::RangeRequest {
                    key: key(0),
                    range_end: format!("{}0", self.seed).into_bytes().into(),
                    ..Default::default()
                };
                told(self.kv.range(all).await, |answer| plain(&mut answer.header))
            }
        }
    }

    /// Ends the leases of this sequence.
    async fn clear(&mut self) {
        let leases = self.lease.lease_leases(pb::LeaseLeasesRequest {}).await.expect("an answer");
        for pb::LeaseStatus { id } in leases.into_inner().leases {
            // It may have ended by itself.
            let _ = self.lease.lease_revoke(pb::LeaseRevokeRequest { id }).await;
        }
    }
}

/// Without what differs between clusters.
fn plain(header: &mut Option<pb::ResponseHeader>) {
    let header = header.as_mut().expect("every answer has one");
    *header = pb::ResponseHeader { revision: header.revision, ..Default::default() };
}

fn told<A: Debug>(answer: Result<Response<A>, Status>, plain: impl FnOnce(&mut A)) -> String {
    match answer {
        Ok(answer) => {
            let mut answer = answer.into_inner();
            plain(&mut answer);
            format!("{answer:?}")
        }
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}
