//! Snapshots as files, on a real disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use quorate_api::etcdserverpb::PutRequest;
use quorate_api::log::command::Operation;
use quorate_raft::{Configuration, LogId, MemberId, Snapshot};
use tempfile::TempDir;

use super::{Archive, Found, Job, Manifest, Part, Report, SnapshotError, Worker, inspect};
use crate::kv::Store;
use crate::storage::disk::OsDisk;

const PIECE: usize = 4096;

/// A member's snapshots, and the state that they are of.
struct Member {
    dir: TempDir,
    state: Arc<RwLock<Store>>,
    worker: Worker,
}

impl Member {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(RwLock::new(Store::new()));
        let worker = Worker::new(open(dir.path()), Arc::clone(&state));
        Self { dir, state, worker }
    }

    fn put(&self, keys: std::ops::Range<u32>) {
        for key in keys {
            let request = PutRequest {
                key: format!("key {key}").into(),
                value: vec![key as u8; 100].into(),
                ..PutRequest::default()
            };
            self.state.write().apply(&Operation::Put(request)).unwrap();
        }
    }

    /// Takes a snapshot as of entry `index`.
    fn take(&mut self, index: u64) -> Manifest {
        let source = self.state.write().snapshot(PIECE).unwrap();
        self.worker.push(Job::Take(identity(index), source));
        match self.report() {
            Report::Taken(manifest) => manifest,
            other => panic!("{other:?}"),
        }
    }

    fn report(&mut self) -> Report {
        while self.worker.is_busy() {
            if let Some(report) = self.worker.step() {
                return report;
            }
        }
        panic!("nothing came of it")
    }

    fn read(&mut self, id: LogId, part: Part) -> Option<Found> {
        self.worker.push(Job::Read(MemberId(9), id, part));
        match self.report() {
            Report::Read(_, _, _, found) => found,
            other => panic!("{other:?}"),
        }
    }

    fn piece(&mut self, id: LogId, number: u32) -> bytes::Bytes {
        match self.read(id, Part::Piece(number)) {
            Some(Found::Piece(piece)) => piece,
            other => panic!("{other:?}"),
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(self.dir.path().join("snapshots"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
    }
}

fn open(dir: &Path) -> Archive {
    Archive::open(Arc::new(OsDisk), dir).unwrap()
}

fn identity(index: u64) -> Snapshot {
    let configuration = Configuration { voters: [MemberId(1)].into(), ..Configuration::default() };
    Snapshot { id: LogId { term: 3, index }, configuration, configuration_id: LogId { term: 1, index: 1 } }
}

/// The state as bytes.
fn bytes_of(state: &RwLock<Store>) -> Vec<u8> {
    let mut source = state.write().snapshot(PIECE).unwrap();
    std::iter::from_fn(|| source.next_piece(state).unwrap()).flatten().collect()
}

#[test]
fn what_was_taken_is_restored() {
    let mut member = Member::new();
    member.put(0..200);
    let manifest = member.take(200);
    assert!(manifest.pieces() > 3, "{manifest:?}");
    let (found, state) = open(member.dir.path()).restore().unwrap().unwrap();
    assert_eq!(found, manifest);
    assert_eq!(bytes_of(&RwLock::new(state)), bytes_of(&member.state));
}

#[test]
fn what_is_received_in_any_order_is_the_same_file() {
    let (mut sender, mut receiver) = (Member::new(), Member::new());
    sender.put(0..200);
    let manifest = sender.take(200);
    let id = manifest.id();
    assert!(matches!(sender.read(id, Part::Manifest), Some(Found::Manifest(found)) if found == manifest));
    receiver.worker.push(Job::Receive(manifest.clone()));
    for number in (0..manifest.pieces()).rev() {
        let piece = sender.piece(id, number);
        assert!(manifest.fits(number, &piece) && !manifest.fits(number + 1, &piece));
        receiver.worker.push(Job::Write(id, number, piece));
        assert!(matches!(receiver.report(), Report::Written(_, written) if written == number));
    }
    let Report::Received(whole, state) = receiver.report() else { panic!("it is not received") };
    assert_eq!(whole, manifest);
    assert_eq!(bytes_of(&RwLock::new(*state)), bytes_of(&sender.state));
    assert_eq!(fs::read(&sender.files()[0]).unwrap(), fs::read(&receiver.files()[0]).unwrap());
    // To receive it again needs no pieces.
    receiver.worker.push(Job::Receive(manifest));
    assert!(matches!(receiver.report(), Report::Received(..)));
}

#[test]
fn a_piece_that_comes_twice_counts_once() {
    let (mut sender, mut receiver) = (Member::new(), Member::new());
    sender.put(0..200);
    let manifest = sender.take(200);
    let id = manifest.id();
    receiver.worker.push(Job::Receive(manifest.clone()));
    for number in 0..manifest.pieces() {
        for again in [0, number] {
            receiver.worker.push(Job::Write(id, again, sender.piece(id, again)));
        }
        assert!(matches!(receiver.report(), Report::Written(_, written) if written == number));
    }
    assert!(matches!(receiver.report(), Report::Received(..)));
}

/// Two states at once may be more than there is memory for: then only the file is there in the end, and a process that starts anew has its state.
#[test]
fn a_snapshot_whose_state_has_no_room_beside_the_present_one_is_kept_as_a_file() {
    let (mut sender, mut receiver) = (Member::new(), Member::new());
    sender.put(0..400);
    receiver.put(1000..1400);
    let (present, manifest) = (receiver.state.read().size(), sender.take(400));
    let id = manifest.id();
    for room in [2 * present + 1, present / 2 * 3, present] {
        receiver.dir = tempfile::tempdir().unwrap();
        receiver.worker =
            Worker::new(open(receiver.dir.path()), Arc::clone(&receiver.state)).with_room(Some(room));
        receiver.worker.push(Job::Receive(manifest.clone()));
        (0..manifest.pieces()).for_each(|n| receiver.worker.push(Job::Write(id, n, sender.piece(id, n))));
        let (mut most, mut last) = (0, None);
        while receiver.worker.is_busy() {
            last = receiver.worker.step();
            most = most.max(present + receiver.worker.making());
        }
        // A piece of its bytes makes some more of those that are accounted.
        assert!(most <= room + 3 * PIECE as u64, "{most} bytes, and room for {room}");
        match last {
            Some(Report::Received(..)) => assert!(room > 2 * present),
            Some(Report::Whole(whole)) => assert!(room < 2 * present && whole == manifest),
            other => panic!("{other:?}"),
        }
        let (found, state) = open(receiver.dir.path()).restore().unwrap().expect("it is there");
        assert_eq!((found, bytes_of(&RwLock::new(state))), (manifest.clone(), bytes_of(&sender.state)));
    }
}

/// A member that fetches a snapshot may come to the entry where it takes the same one itself.
#[test]
fn a_snapshot_that_is_taken_while_it_is_received_is_whole_at_every_step() {
    let (mut sender, mut receiver) = (Member::new(), Member::new());
    sender.put(0..200);
    receiver.put(0..200);
    let manifest = sender.take(200);
    let id = manifest.id();
    receiver.worker.push(Job::Receive(manifest.clone()));
    for number in 0..manifest.pieces() {
        receiver.worker.push(Job::Write(id, number, sender.piece(id, number)));
    }
    let source = receiver.state.write().snapshot(PIECE).unwrap();
    receiver.worker.push(Job::Take(identity(200), source));
    let mut ends = Vec::new();
    while receiver.worker.is_busy() {
        match receiver.worker.step() {
            Some(Report::Written(..)) | None => {}
            Some(end) => ends.push(end),
        }
        // What a process would find that starts now.
        let copy = tempfile::tempdir().unwrap();
        fs::create_dir(copy.path().join("snapshots")).unwrap();
        let mut is_named = false;
        for file in receiver.files() {
            is_named |= file.extension().is_some_and(|extension| extension == "snapshot");
            fs::copy(&file, copy.path().join("snapshots").join(file.file_name().unwrap())).unwrap();
        }
        let found = open(copy.path()).restore().unwrap();
        assert_eq!(found.is_some(), is_named, "a file that has its name is whole");
    }
    assert!(
        matches!(
            &ends[..],
            [Report::Taken(_), Report::Received(..)] | [Report::Received(..), Report::Taken(_)]
        ),
        "{ends:?}"
    );
    assert_eq!(receiver.files().len(), 1);
}

#[test]
fn what_does_not_come_whole_leaves_nothing() {
    let (mut sender, mut receiver) = (Member::new(), Member::new());
    sender.put(0..200);
    let manifest = sender.take(200);
    receiver.worker.push(Job::Receive(manifest.clone()));
    receiver.worker.push(Job::Write(manifest.id(), 0, sender.piece(manifest.id(), 0)));
    receiver.report();
    assert_eq!(receiver.files().len(), 1);
    // A part is left when the process ends.
    assert!(open(receiver.dir.path()).restore().unwrap().is_none());
    assert!(receiver.files().is_empty());
    assert!(sender.read(LogId { term: 9, index: 200 }, Part::Manifest).is_none());
    assert!(sender.read(manifest.id(), Part::Piece(manifest.pieces())).is_none());
}

/// One that is there and damaged is not what is received again and again.
#[test]
fn a_damaged_snapshot_comes_anew() {
    let (mut sender, mut receiver) = (Member::new(), Member::new());
    sender.put(0..200);
    receiver.put(0..200);
    let manifest = sender.take(200);
    receiver.take(200);
    let path = receiver.files().remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[5000] ^= 1;
    fs::write(&path, bytes).unwrap();
    receiver.worker.push(Job::Receive(manifest.clone()));
    assert!(matches!(receiver.report(), Report::NotReceived(..)));
    receiver.worker.push(Job::Receive(manifest.clone()));
    for number in 0..manifest.pieces() {
        receiver.worker.push(Job::Write(manifest.id(), number, sender.piece(manifest.id(), number)));
        assert!(matches!(receiver.report(), Report::Written(..)));
    }
    assert!(matches!(receiver.report(), Report::Received(..)));
}

#[test]
fn two_are_kept() {
    let mut member = Member::new();
    for index in 1..=4 {
        member.put(0..50);
        member.take(index);
    }
    assert_eq!(member.files().len(), 2);
    let kept = inspect(&OsDisk, member.dir.path()).unwrap();
    let kept: Vec<u64> = kept.into_iter().map(|manifest| manifest.unwrap().id().index).collect();
    assert_eq!(kept, [3, 4]);
}

#[test]
fn what_was_taken_before_goes_when_the_state_becomes_another_s() {
    let mut member = Member::new();
    let (older, newer) = (member.take(1), member.take(2));
    member.worker.push(Job::Outdate(newer.id()));
    while member.worker.is_busy() {
        assert!(member.worker.step().is_none());
    }
    assert!(member.read(older.id(), Part::Manifest).is_none());
    assert_eq!(member.files().len(), 1);
    assert_eq!(open(member.dir.path()).manifests().map(Manifest::id).collect::<Vec<_>>(), [newer.id()]);
}

#[test]
fn a_snapshot_of_a_state_that_was_replaced_is_not_taken() {
    let mut member = Member::new();
    member.put(0..200);
    let source = member.state.write().snapshot(PIECE).unwrap();
    member.worker.push(Job::Take(identity(200), source));
    assert!(member.worker.step().is_none());
    *member.state.write() = Store::new();
    assert!(matches!(member.report(), Report::NotTaken(..)));
    assert!(member.files().is_empty());
}

/// Whatever byte of the newest file is another: either nobody reads it, or the one before is used.
#[test]
fn damage_is_never_restored() {
    let mut member = Member::new();
    member.put(0..40);
    member.take(1);
    let older = bytes_of(&member.state);
    member.put(20..60);
    member.take(2);
    let newer = bytes_of(&member.state);
    let path = &member.files()[1];
    let good = fs::read(path).unwrap();
    let mut harmless = 0;
    for at in (0..good.len()).step_by(37) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(path, &bad).unwrap();
        let (manifest, state) = open(member.dir.path()).restore().unwrap().unwrap();
        let found = bytes_of(&RwLock::new(state));
        if manifest.id().index == 1 {
            assert_eq!(found, older);
        } else {
            assert_eq!(found, newer, "byte {at}");
            assert_eq!(good[at], 0, "byte {at} says something");
            harmless += 1;
        }
    }
    assert!(harmless > 0, "padding is read by nobody");
    // A file that is cut short is none either.
    fs::write(path, &good[..good.len() - 1]).unwrap();
    assert_eq!(open(member.dir.path()).restore().unwrap().unwrap().0.id().index, 1);
}

/// Who fetches the oldest need not begin anew with each that is taken meanwhile.
#[test]
fn a_snapshot_stays_while_another_member_fetches_it() {
    let mut member = Member::new();
    member.put(0..100);
    let old = member.take(100).id();
    member.put(100..110);
    for index in [110, 111, 112] {
        assert!(member.read(old, Part::Piece(0)).is_some(), "at {index}");
        member.take(index);
    }
    assert_eq!(member.files().len(), 3);
    member.take(113);
    assert!(member.read(old, Part::Manifest).is_none(), "nobody asks any more");
    assert_eq!(member.files().len(), 2);
}

#[test]
fn a_damaged_snapshot_is_said_to_be_one_and_stays_until_there_is_another() {
    let mut member = Member::new();
    member.put(0..100);
    let id = member.take(100).id();
    let file = member.files().remove(0);
    let mut bytes = fs::read(&file).unwrap();
    bytes[PIECE + 7] ^= 1;
    fs::write(&file, bytes).unwrap();
    assert!(matches!(member.read(id, Part::Piece(0)), Some(Found::Piece(_))));
    assert!(matches!(member.read(id, Part::Piece(1)), Some(Found::Damaged)));
    assert!(member.read(id, Part::Piece(0)).is_none(), "it is offered to nobody");
    assert_eq!(member.files(), std::slice::from_ref(&file), "what else there is is the log");
    member.take(101);
    assert!(!member.files().contains(&file));
}

/// Writes something else into the last block of a snapshot, with the checksum that a version of that number gives it.
fn in_format(file: &Path, version: u8) {
    let mut contents = fs::read(file).unwrap();
    let at = contents.len() - 4096;
    contents[at + 7] = version;
    let first = if version < 2 { 0 } else { crc32c::crc32c(&contents[at..at + 8]) };
    let checksum = crc32c::crc32c_append(first, &contents[at + 12..at + 32]);
    contents[at + 8..at + 12].copy_from_slice(&checksum.to_le_bytes());
    fs::write(file, contents).unwrap();
}

/// It was taken for damaged, and removed with the next snapshot.
#[test]
fn a_snapshot_of_another_version_refuses_the_start_and_stays() {
    for (version, says) in [(1, "before the first level"), (3, "upgrade it")] {
        let mut member = Member::new();
        member.put(0..50);
        member.take(1);
        member.take(2);
        let newest = member.files().pop().unwrap();
        in_format(&newest, version);
        let refused = Archive::open(Arc::new(OsDisk), member.dir.path()).map(drop).unwrap_err();
        assert!(matches!(&refused, SnapshotError::Foreign { what, .. } if what.contains(says)), "{refused}");
        assert!(newest.exists());
    }
}

#[test]
fn a_bit_that_flips_in_the_version_is_damage_like_any_other() {
    let mut member = Member::new();
    member.put(0..50);
    member.take(1);
    let file = member.files().pop().unwrap();
    let whole = fs::read(&file).unwrap();
    for bit in 0..8 {
        let mut contents = whole.clone();
        let at = contents.len() - 4096 + 7;
        contents[at] ^= 1 << bit;
        fs::write(&file, contents).unwrap();
        assert!(open(member.dir.path()).restore().unwrap().is_none());
    }
}
