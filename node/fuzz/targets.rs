//! What is fed with anything at all, and must not panic: a log's recovery, the commands of the log, the messages of peers, snapshots and
//! their manifests, files of etcd's.
//!
//! Both the fuzzers and the test that replays what they have found (`node/tests/found.rs`) use this file.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::RwLock;
use prost::Message as _;
use quorate_api::{etcdserverpb as pb, log, peer, snapshot};
use quorate_node::backup::{self, Backup, Cluster};
use quorate_node::bolt::Database;
use quorate_node::command::{self, Command};
use quorate_node::kv::Store;
use quorate_node::kv::snapshot::Restore;
use quorate_node::level::{self, Levels};
use quorate_node::snapshots::Manifest;
use quorate_node::storage::disk::Disk as _;
use quorate_node::storage::{Recovered, Wal, WalOptions};
use quorate_raft::{Entry, HardState, LogId, MemberId, Payload, Write, WriteId};

#[path = "../tests/storage/disk.rs"]
mod disk;

use disk::{BLOCK, MemDisk};

const MEMBER: MemberId = MemberId(7);
const SEGMENT: u64 = 32 * 1024;
/// Of a frame and of a segment: which bytes a checksum at byte 4, or 8, is of.
const FRAME: (usize, std::ops::Range<usize>) = (4, 8..132);
const HEADER: (usize, std::ops::Range<usize>) = (8, 12..40);

/// Something to be fed.
pub struct Target {
    /// The name of the fuzzer, and of the folder of what it has found.
    pub name: &'static str,
    /// Takes anything.
    pub run: fn(&[u8]),
    /// What a fuzzer begins with.
    pub seeds: Vec<Vec<u8>>,
}

/// All of them.
pub fn targets() -> [Target; 6] {
    [
        Target { name: "wal_recovery", run: wal_recovery, seeds: damages() },
        Target { name: "log_command", run: log_command, seeds: commands() },
        Target { name: "peer_message", run: peer_message, seeds: messages() },
        Target { name: "snapshot_state", run: snapshot_state, seeds: states() },
        Target { name: "snapshot_manifest", run: snapshot_manifest, seeds: manifests() },
        Target { name: "etcd_database", run: etcd_database, seeds: databases() },
    ]
}

/// Commands' bytes, as they stand in the log. What an older build reads, a newer one reads alike.
pub fn log_command(mut data: &[u8]) {
    let mut store = Store::new();
    let older = Levels::up_to(level::FIRST).expect("there is a first level");
    while !data.is_empty() {
        let Ok(length) = prost::decode_length_delimiter(&mut data) else { return };
        let (bytes, rest) = data.split_at(length.min(data.len()));
        data = rest;
        let bytes = Bytes::copy_from_slice(bytes);
        let command = command::read(bytes.clone(), Levels::ALL);
        if let Ok(read) = command::read(bytes, older) {
            assert!(command.as_ref().is_ok_and(|newer| *newer == read), "{read:?} is read as {command:?}");
        }
        if let Ok(Command { operation, .. }) = command {
            let _ = store.apply(&operation);
            store.collect(10);
        }
    }
}

/// What a peer sends.
pub fn peer_message(data: &[u8]) {
    quorate_node::is_message(data);
}

/// A snapshot's bytes, with hashes that fit. What becomes a state is written as a snapshot that becomes the same.
pub fn snapshot_state(data: &[u8]) {
    let restored = |bytes: &[u8]| {
        let mut restore = Restore::new();
        bytes.chunks(1000).try_for_each(|piece| restore.push(piece))?;
        restore.finish()
    };
    if let Ok(store) = restored(data) {
        let bytes = state(store);
        let again = restored(&bytes).expect("what was written is a state");
        assert!(state(again) == bytes, "it is another one");
    }
}

fn state(mut store: Store) -> Vec<u8> {
    let mut source = store.snapshot(4096).expect("no other is taken");
    let store = RwLock::new(store);
    let pieces = std::iter::from_fn(|| source.next_piece(&store).expect("the state is not replaced"));
    pieces.collect::<Vec<_>>().concat()
}

/// A database that a real etcd has made.
const OF_ETCD: &[u8] = include_bytes!("../tests/fixtures/etcd-3.7.3.snapshot");

/// Where a meta stands in its page, and where its checksum.
const META: std::ops::Range<usize> = 16..72;

/// A database of etcd's, or changes of one: four bytes each. What becomes a state is one that a member can write and read, and is written as
/// a database that becomes the same.
pub fn etcd_database(data: &[u8]) {
    let changed;
    let database = if data.len() < 4096 {
        changed = changed_database(data);
        &changed[..]
    } else {
        data
    };
    let Some(store) = restored(database) else { return };
    let (revision, compacted) = (store.revision(), store.compacted());
    let mut restore = Restore::new();
    restore.push(&state(store)).expect("a member writes what it reads");
    let store = RwLock::new(restore.finish().expect("a member writes what it reads"));
    let mut backup = Backup::new(&mut store.write(), &Cluster::default());
    let mut bytes = Vec::new();
    while backup.advance(&store).expect("the state is not replaced") {
        bytes.extend(backup.take(usize::MAX));
    }
    bytes.extend(backup.take(usize::MAX));
    let again = restored(&bytes).expect("what was written is a state");
    assert_eq!((again.revision(), again.compacted()), (revision, compacted));
    assert!(state(again) == state(store.into_inner()), "it is another one");
}

fn restored(database: &[u8]) -> Option<Store> {
    let database = Database::open(database, database.len() as u64).ok()?;
    backup::restore(&database).ok().map(|contained| contained.store)
}

/// Where, counted from a page's begin or not, and with what; an odd number more has the checksums right again.
fn changed_database(changes: &[u8]) -> Vec<u8> {
    let mut bytes = OF_ETCD[..OF_ETCD.len() - backup::HASH_BYTES as usize].to_vec();
    let pages = bytes.len() / 4096;
    for change in changes.chunks_exact(4).take(64) {
        let [low, high, value, kind] = [0, 1, 2, 3].map(|at| usize::from(change[at]));
        // Most of a page is empty: its begin, or its end.
        let place = if kind & 2 == 0 { low * 2 + kind / 128 } else { 4095 - low * 2 };
        let at = high % pages * 4096 + place;
        bytes[at] = value as u8;
        if kind & 1 == 1 {
            for page in [0, 4096] {
                let checksum = fnv1a(&bytes[page + META.start..page + META.end]).to_le_bytes();
                put(&mut bytes[page..], META.end, &checksum);
            }
        }
    }
    bytes
}

fn fnv1a(bytes: &[u8]) -> u64 {
    let add = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, add)
}

fn databases() -> Vec<Vec<u8>> {
    let whole = changed_database(&[]);
    assert!(restored(&whole).is_some(), "a real etcd has made it");
    let changes =
        (0..16_u8).map(|number| vec![number * 16, number, number, number.wrapping_mul(37), 40, 3, 255, 1]);
    changes.chain([whole]).collect()
}

/// What a peer offers, or a file ends with. What is a manifest is written as what is the same.
pub fn snapshot_manifest(data: &[u8]) {
    let read = |bytes| Manifest::from_wire(snapshot::Manifest::decode(bytes).ok()?).ok();
    if let Some(manifest) = read(data) {
        let bytes = manifest.to_wire().encode_to_vec();
        assert_eq!(read(&bytes[..]).as_ref(), Some(&manifest));
        let lengths = (0..manifest.pieces().min(1000)).map(|number| manifest.piece_bytes(number));
        assert!(lengths.fold(0, |all, bytes| all + bytes as u64) <= manifest.bytes());
        assert!(!manifest.fits(manifest.pieces(), b"beyond its end"));
    }
}

/// A log that is damaged as the bytes say: eight for each change, with checksums that are right again where that is asked for.
/// It opens or does not; if it does, it goes on, and what is appended then is there the next time.
pub fn wal_recovery(data: &[u8]) {
    let disk = log().fork();
    for change in data.chunks_exact(8).take(16) {
        damage(&disk, change);
    }
    let Ok((mut wal, recovered)) = open(&disk) else { return };
    check(&recovered);
    let last = recovered.entries.last().map_or(recovered.base, Entry::id);
    let term = recovered.hard_state.term.max(last.term);
    let mut entries = recovered.entries;
    for index in last.index + 1..(last.index + 4).min(u64::MAX - 1) {
        let entry = Entry { term, index, payload: Payload::Command(vec![9; 5000].into()) };
        let hard_state = Some(HardState { term, ..recovered.hard_state });
        let write =
            Write { id: WriteId(0), hard_state, reset: None, lost: None, entries: vec![entry.clone()] };
        wal.append(&[write]).expect("the disk is well");
        entries.push(entry);
    }
    drop(wal);
    let (_, again) = open(&disk).expect("what could be opened once");
    check(&again);
    assert!(again.entries == entries, "{} entries, not {}", again.entries.len(), entries.len());
    assert!(again.lost <= recovered.lost.max(entries.last().map(Entry::id)), "{:?}", again.lost);
}

fn check(recovered: &Recovered) {
    let mut before: LogId = recovered.base;
    for entry in &recovered.entries {
        assert!(entry.index == before.index + 1 && entry.term >= before.term, "{before:?}, {:?}", entry.id());
        before = entry.id();
    }
    assert!(recovered.hard_state.commit <= before.index);
    assert!(recovered.lost.is_none_or(|lost| lost > before), "{:?} is there", recovered.lost);
}

fn dir() -> PathBuf {
    PathBuf::from("/data")
}

fn open(disk: &MemDisk) -> Result<(Wal, Recovered), quorate_node::storage::OpenError> {
    let options =
        WalOptions { segment_bytes: SEGMENT, disk: Arc::new(disk.clone()), ..WalOptions::new(MEMBER) };
    Wal::open(&dir(), options)
}

/// A log of several segments, with a tail that was replaced, a release and a reset.
fn log() -> &'static MemDisk {
    static LOG: OnceLock<MemDisk> = OnceLock::new();
    LOG.get_or_init(|| {
        let disk = MemDisk::default();
        let (mut wal, _) = open(&disk).expect("an empty disk can be used");
        let mut append = |term, commit, reset, indices: std::ops::Range<u64>| {
            let payload = |index| Payload::Command(vec![index as u8; 900].into());
            let entries = indices.map(|index| Entry { term, index, payload: payload(index) }).collect();
            let hard_state = Some(HardState { term, vote: Some(MEMBER), commit });
            let write = Write { id: WriteId(0), hard_state, reset, lost: None, entries };
            wal.append(&[write]).expect("the disk is well");
        };
        append(1, 0, None, 1..4);
        append(1, 2, None, 4..12);
        append(2, 5, None, 9..10);
        append(3, 20, Some(LogId { term: 3, index: 20 }), 21..23);
        (23..30).for_each(|index| append(3, index - 1, None, index..index + 1));
        append(4, 28, None, 29..31);
        wal.release_before(24).expect("the disk is well");
        disk
    })
}

/// One change: which file, what is done, where, and with what.
fn damage(disk: &MemDisk, change: &[u8]) {
    let files: Vec<PathBuf> = disk.files().into_keys().collect();
    let Some(path) = files.get(change[0] as usize % files.len().max(1)) else { return };
    let (place, value) = (usize::from(u16::from_le_bytes([change[2], change[3]])), change[4..].to_vec());
    match change[1] % 8 {
        0 => _ = disk.remove(path),
        1 => disk.tamper(path, |bytes| bytes.truncate(place)),
        2 => disk.spoil(path, [place % 16]),
        3 => disk.tamper(path, |bytes| copy_block(bytes, place % 256, place / 256)),
        4 => disk.tamper(path, |bytes| put(bytes, place, &[0; 512])),
        5 => disk.tamper(path, |bytes| put(bytes, place, &value)),
        // In the header of a frame, or of the segment, which matches its checksum again.
        _ => disk.tamper(path, |bytes| {
            let block = place / 256 * BLOCK;
            put(bytes, block + place % 256 % 140, &value[..1 + usize::from(change[1]) / 8 % 4]);
            let (at, range) = if block == 0 { HEADER } else { FRAME };
            if let Some(covered) = bytes.get(block + range.start..block + range.end) {
                let checksum = crc32c::crc32c(covered).to_le_bytes();
                put(bytes, block + at, &checksum);
            }
        }),
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(value) {
        *to = *from;
    }
}

fn copy_block(bytes: &mut [u8], from: usize, to: usize) {
    let blocks = bytes.len() / BLOCK;
    if blocks > 0 {
        let from = from % blocks * BLOCK;
        bytes.copy_within(from..from + BLOCK, to % blocks * BLOCK);
    }
}

fn damages() -> Vec<Vec<u8>> {
    let operations = 0..8_u8;
    operations
        .flat_map(|operation| (0..4).map(move |file| vec![file, operation, 72, 1 + file, 1, 2, 3, 4]))
        .collect()
}

fn commands() -> Vec<Vec<u8>> {
    use log::command::Operation;
    let put = pb::PutRequest { key: "a".into(), value: "1".into(), prev_kv: true, ..Default::default() };
    let delete = pb::DeleteRangeRequest { key: "a".into(), range_end: "c".into(), ..Default::default() };
    let compare = pb::Compare { key: "a".into(), ..Default::default() };
    let request = |request| pb::RequestOp { request: Some(request) };
    let txn = pb::TxnRequest {
        compare: vec![compare],
        success: vec![request(pb::request_op::Request::RequestPut(put.clone()))],
        failure: vec![request(pb::request_op::Request::RequestDeleteRange(delete.clone()))],
    };
    let compact = pb::CompactionRequest { revision: 2, ..Default::default() };
    let operations = [
        Operation::Put(put),
        Operation::DeleteRange(delete),
        Operation::Txn(txn),
        Operation::Compact(compact),
        Operation::RaiseLevel(log::RaiseLevel { to: level::NEWEST }),
        Operation::Alarm(no_space()),
        Operation::CheckQuota(log::CheckQuota { member: 1, quota: 1 << 20, growth: 1 << 10 }),
    ];
    let framed = |operation| {
        let bytes = command::encode(1, 2, operation);
        let mut framed = Vec::new();
        prost::encode_length_delimiter(bytes.len(), &mut framed).expect("a vector has room");
        framed.extend(bytes);
        framed
    };
    let each = operations.map(framed);
    each.iter().cloned().chain([each.concat()]).collect()
}

fn no_space() -> pb::AlarmRequest {
    let activate = pb::alarm_request::AlarmAction::Activate;
    pb::AlarmRequest { action: activate.into(), member_id: 7, alarm: pb::AlarmType::Nospace.into() }
}

fn states() -> Vec<Vec<u8>> {
    use log::command::Operation;
    let mut store = Store::new();
    let mut states = vec![state(Store::new())];
    let put =
        |key: &str| pb::PutRequest { key: key.to_owned().into(), value: "1".into(), ..Default::default() };
    let delete = pb::DeleteRangeRequest { key: "a".into(), range_end: "c".into(), ..Default::default() };
    let operations = [
        Operation::Put(put("a")),
        Operation::Put(put("b")),
        Operation::Put(put("a")),
        Operation::DeleteRange(delete),
        Operation::Compact(pb::CompactionRequest { revision: 4, ..Default::default() }),
        Operation::Put(put("c")),
        Operation::RaiseLevel(log::RaiseLevel { to: level::NEWEST }),
        Operation::Alarm(no_space()),
    ];
    for operation in operations {
        let _ = store.apply(&operation);
        let bytes = state(std::mem::take(&mut store));
        let mut restore = Restore::new();
        restore.push(&bytes).expect("a state");
        store = restore.finish().expect("a state");
        states.push(bytes);
    }
    states
}

fn manifests() -> Vec<Vec<u8>> {
    let configuration = log::Configuration { voters: vec![1, 2], learners: vec![3], ..Default::default() };
    let manifest = |bytes: u64, piece_bytes: u32| snapshot::Manifest {
        index: 8,
        term: 3,
        configuration: Some(configuration.clone()),
        configuration_index: 1,
        configuration_term: 1,
        bytes,
        hashes: vec![7; 32 * bytes.div_ceil(piece_bytes.into()) as usize].into(),
        piece_bytes,
        level: level::NEWEST,
    };
    [manifest(1, 4096), manifest(300_000, 1 << 18)].map(|manifest| manifest.encode_to_vec()).to_vec()
}

fn messages() -> Vec<Vec<u8>> {
    use peer::message::Body;
    let id = Some(peer::LogId { term: 3, index: 8 });
    let payload = log::entry::Payload::Command("x".into());
    let entries = vec![log::Entry { term: 4, payload: Some(payload), format: 0 }];
    let configuration = log::Configuration { voters: vec![1, 2], learners: vec![3], ..Default::default() };
    let bodies = [
        Body::AppendEntries(peer::AppendEntries { previous: id, entries, commit: 7 }),
        Body::Forward(peer::Forward { commands: vec!["a".into()] }),
        Body::InstallSnapshot(peer::InstallSnapshot {
            id,
            configuration: Some(configuration),
            configuration_id: id,
            base: id,
        }),
        Body::TimeoutNow(peer::TimeoutNow {}),
    ];
    bodies.map(|body| peer::Message { term: 5, body: Some(body) }.encode_to_vec()).to_vec()
}
