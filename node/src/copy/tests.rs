//! The copy gives back the state, or nothing.

use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;
use proptest::prelude::*;
use quorate_api::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest,
};
use quorate_api::log::RaiseLevel;
use quorate_api::log::command::Operation;
use quorate_raft::{LogId, MemberId};

use super::engine::Engine;
use super::sled::Sled;
use super::{Keeper, Kept, load, open, settled};
use crate::kv::Store;

const MEMBER: MemberId = MemberId(7);

#[derive(Debug, Clone)]
enum Step {
    Put(u8, usize),
    Delete(u8),
    /// A lease is granted, or ends.
    Lease(i64, bool),
    /// A key is put that hangs on a lease, if there is one.
    Hang(u8, i64),
    Compact(i64),
    /// Some of what was compacted is removed.
    Collect(usize),
    /// The copy is brought up to date.
    Keep,
    /// The process ends, and the next one reads the copy.
    Restart,
    /// A snapshot takes the place of the state.
    Replace,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (any::<u8>(), prop_oneof![9 => 0..300_usize, 1 => 100_000..400_000_usize]).prop_map(|(k, n)| Step::Put(k % 20, n)),
        2 => any::<u8>().prop_map(|k| Step::Delete(k % 20)),
        2 => (1..4_i64, any::<bool>()).prop_map(|(id, ends)| Step::Lease(id, ends)),
        2 => (any::<u8>(), 0..4_i64).prop_map(|(k, id)| Step::Hang(k % 20, id)),
        1 => (0..10_i64).prop_map(Step::Compact),
        1 => (0..30_usize).prop_map(Step::Collect),
        2 => Just(Step::Keep),
        1 => Just(Step::Restart),
        1 => Just(Step::Replace),
    ]
}

/// A state that can have leases.
fn level_two() -> Store {
    let mut state = Store::new();
    state.apply(&Operation::RaiseLevel(RaiseLevel { to: 2 })).expect("it is never refused");
    state
}

fn bytes_of(state: &RwLock<Store>) -> Vec<u8> {
    let mut source = state.write().snapshot(4096).expect("no other is under way");
    std::iter::from_fn(|| source.next_piece(state).expect("it is not replaced")).flatten().collect()
}

fn keep(keeper: &mut Keeper) {
    while keeper.step().expect("the disk works") == Kept::More {}
    assert_eq!(keeper.lag(), 0);
}

fn apply(state: &RwLock<Store>, index: &mut u64, operation: &Operation) {
    let mut state = state.write();
    let _ = state.apply(operation);
    *index += 1;
    state.applied_up_to(LogId { term: 1, index: *index });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn what_was_kept_is_what_is_read(steps in prop::collection::vec(step(), 1..60)) {
        let mut dir = tempfile::tempdir().unwrap();
        let mut state = Arc::new(RwLock::new(level_two()));
        let (engine, found) = open(dir.path(), MEMBER, |_| true).unwrap();
        prop_assert!(found.is_none());
        let mut keeper = Keeper::new(engine, MEMBER, Arc::clone(&state));
        let mut index = 0;
        let mut kept = None;
        for step in steps {
            match step {
                Step::Put(key, bytes) => {
                    let put = PutRequest { key: vec![key].into(), value: vec![key; bytes].into(), ..Default::default() };
                    apply(&state, &mut index, &Operation::Put(put));
                }
                Step::Delete(key) => {
                    let delete = DeleteRangeRequest { key: vec![key].into(), ..Default::default() };
                    apply(&state, &mut index, &Operation::DeleteRange(delete));
                }
                Step::Lease(id, ends) => {
                    let operation = if ends {
                        Operation::LeaseRevoke(LeaseRevokeRequest { id })
                    } else {
                        Operation::LeaseGrant(LeaseGrantRequest { id, ttl: 60 })
                    };
                    apply(&state, &mut index, &operation);
                }
                Step::Hang(key, lease) => {
                    let put = PutRequest { key: vec![key].into(), lease, ..Default::default() };
                    apply(&state, &mut index, &Operation::Put(put));
                }
                Step::Compact(back) => {
                    let revision = state.read().revision() - back;
                    apply(&state, &mut index, &Operation::Compact(CompactionRequest { revision, physical: false }));
                }
                Step::Collect(budget) => { state.write().collect(budget); }
                Step::Keep => {
                    keep(&mut keeper);
                    settled(dir.path()).unwrap();
                    kept = Some((index, bytes_of(&state)));
                }
                Step::Replace => {
                    let mut other = level_two();
                    let put = PutRequest { key: "other".into(), ..Default::default() };
                    other.apply(&Operation::Put(put)).unwrap();
                    index += 100;
                    other.applied_up_to(LogId { term: 1, index });
                    *state.write() = other;
                }
                Step::Restart => {
                    // Elsewhere: in one process the engine may not let go of its files at once.
                    let next = tempfile::tempdir().unwrap();
                    copy_files(dir.path(), next.path());
                    dir = next;
                    let (engine, found) = open(dir.path(), MEMBER, |_| true).unwrap();
                    settled(dir.path()).unwrap();
                    prop_assert_eq!(found.is_some(), kept.is_some());
                    if let (Some(found), Some((at, bytes))) = (found, &kept) {
                        // It may be newer than when it was kept: the last step of a process may have ended.
                        index = found.applied().index;
                        prop_assert_eq!(index, *at);
                        state = Arc::new(RwLock::new(found));
                        prop_assert_eq!(&bytes_of(&state), bytes);
                        keeper = Keeper::resume(engine, MEMBER, Arc::clone(&state));
                    } else {
                        index = 0;
                        state = Arc::new(RwLock::new(level_two()));
                        keeper = Keeper::new(engine, MEMBER, Arc::clone(&state));
                    }
                }
            }
        }
    }
}

/// In an engine of its own: what `state` is after a start from its copy.
fn read_back(engine: &dyn Engine) -> RwLock<Store> {
    RwLock::new(load(engine, MEMBER).unwrap().expect("it was kept"))
}

/// The deletion of a key that is in the copy, and the compaction that takes both, come between two writes of it: what it leaves in the
/// copy has no place in the state that is read from it. Compactions, and snapshots, have to pass there.
#[test]
fn what_was_deleted_and_compacted_between_two_writes_is_in_no_ones_way() {
    let dir = tempfile::tempdir().unwrap();
    let state = Arc::new(RwLock::new(Store::new()));
    let mut keeper = Keeper::new(Box::new(Sled::open(dir.path()).unwrap()), MEMBER, Arc::clone(&state));
    let mut index = 0;
    let put = |key: &'static str| {
        Operation::Put(PutRequest { key: key.into(), value: vec![1; 100].into(), ..Default::default() })
    };
    let mut apply = |operation: &Operation| apply(&state, &mut index, operation);
    apply(&put("gone"));
    apply(&put("kept"));
    keep(&mut keeper);
    apply(&Operation::DeleteRange(DeleteRangeRequest { key: "gone".into(), ..Default::default() }));
    apply(&put("kept"));
    let revision = state.read().revision();
    apply(&Operation::Compact(CompactionRequest { revision, physical: false }));
    state.write().collect(100);
    apply(&put("other"));
    keep(&mut keeper);
    drop(keeper);
    let elsewhere = tempfile::tempdir().unwrap();
    copy_files(dir.path(), elsewhere.path());
    let copied = read_back(&Sled::open(elsewhere.path()).unwrap());
    assert_eq!(bytes_of(&copied), bytes_of(&state));
    assert_eq!(copied.read().size(), state.read().size(), "nothing is kept that nobody can reach");
}

fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_files(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A copy, and its folder.
fn copied(versions: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let state = Arc::new(RwLock::new(Store::new()));
    let (engine, _) = open(dir.path(), MEMBER, |_| true).unwrap();
    let mut keeper = Keeper::new(engine, MEMBER, Arc::clone(&state));
    let mut index = 0;
    for number in 0..versions {
        let put =
            PutRequest { key: format!("{number}").into(), value: vec![1; 1000].into(), ..Default::default() };
        apply(&state, &mut index, &Operation::Put(put));
    }
    keep(&mut keeper);
    settled(dir.path()).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    copy_files(dir.path(), elsewhere.path());
    assert!(load(&Sled::open(&elsewhere.path().join("copy")).unwrap(), MEMBER).unwrap().is_some());
    let elsewhere = tempfile::tempdir().unwrap();
    copy_files(dir.path(), elsewhere.path());
    elsewhere
}

#[test]
fn another_members_copy_is_not_taken() {
    let dir = copied(10);
    assert!(open(dir.path(), MemberId(8), |_| true).unwrap().1.is_none());
}

#[test]
fn a_copy_of_another_log_is_not_taken() {
    let dir = copied(10);
    assert!(open(dir.path(), MEMBER, |id| id.index > 10).unwrap().1.is_none());
}

#[test]
fn a_start_that_ended_while_it_read_the_copy_does_not_read_it_again() {
    let dir = copied(10);
    drop(open(dir.path(), MEMBER, |_| true).unwrap().1.expect("it is whole"));
    let next = tempfile::tempdir().unwrap();
    copy_files(dir.path(), next.path());
    let dir = next;
    assert!(open(dir.path(), MEMBER, |_| true).unwrap().1.is_none());
}

#[test]
fn blocks_that_are_gone_or_other_than_they_were_are_noticed() {
    let dir = copied(400);
    let mut engine = Sled::open(&dir.path().join("copy")).unwrap();
    assert!(load(&engine, MEMBER).unwrap().is_some());
    let mut block = engine.block(2).unwrap().expect("there are several blocks");
    block[100] ^= 1;
    engine.append(2, vec![block], None).unwrap();
    assert!(load(&engine, MEMBER).is_err());
    let third = engine.block(3).unwrap().unwrap();
    engine.append(2, vec![third], None).unwrap();
    assert!(load(&engine, MEMBER).is_err(), "a block in another's place");
}

#[test]
fn garbage_in_the_folder_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("copy")).unwrap();
    std::fs::write(dir.path().join("copy/conf"), b"garbage").unwrap();
    std::fs::write(dir.path().join("copy/db"), vec![7; 10_000]).unwrap();
    assert!(open(dir.path(), MEMBER, |_| true).unwrap().1.is_none());
}
