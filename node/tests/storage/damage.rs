//! A log that is damaged goes on: what is missing is known at every start until the leader has sent it again.

use proptest::prelude::*;
use quorate_node::storage::disk::Disk as _;
use quorate_node::storage::{OpenError, Recovered, Wal, WalOptions};
use quorate_raft::{Configuration, Entry, HardState, Index, LogId, Payload, Snapshot, Write};

use crate::MEMBER;
use crate::disk::{BLOCK, MemDisk};
use crate::flips::{Verdict, judge};
use crate::model::{Model, Step, World, coin, step};
use crate::{brief, command, dir, noise, one, open, options, segment_path, write};

fn id(term: u64, index: Index) -> LogId {
    LogId { term, index }
}

/// A log of so many entries, each in a frame of its own: frame `n` is at block `n`, seven to a segment.
fn log(last: Index) -> (MemDisk, Model) {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk).unwrap();
    let mut model = Model::default();
    for index in 1..=last {
        append(&mut wal, &mut model, one(index, 1000));
    }
    (disk, model)
}

fn append(wal: &mut Wal, model: &mut Model, write: Write) {
    wal.append(std::slice::from_ref(&write)).unwrap();
    model.append(&[write]);
}

/// Makes noise of a part of the frame of entry `index` in such a log.
fn scribble(disk: &MemDisk, index: Index, part: std::ops::Range<usize>) {
    let (segment, block) = ((index - 1) / 7 + 1, (index as usize - 1) % 7 + 1);
    let place = block * BLOCK + part.start..block * BLOCK + part.end;
    disk.tamper(&segment_path(segment), |bytes| bytes[place.clone()].copy_from_slice(&noise(3, place.len())));
}

fn payload(disk: &MemDisk, index: Index) {
    scribble(disk, index, 200..300);
}

fn header(disk: &MemDisk, index: Index) {
    scribble(disk, index, 0..100);
}

/// What is there, and what is missing.
fn state(recovered: &Recovered) -> (usize, Option<LogId>) {
    (recovered.entries.len(), recovered.lost)
}

fn committed(term: u64, index: Index) -> HardState {
    HardState { term, vote: None, commit: index }
}

/// The leader sends what is missing. The member may stop at any time, and knows what it owes until it has it.
#[test]
fn a_hole_is_repaired() {
    for damage in [payload, header] {
        let (disk, model) = log(20);
        damage(&disk, 9);
        damage(&disk, 15);
        for index in 9..20_usize {
            let (mut wal, recovered) = open(&disk).unwrap();
            assert_eq!(state(&recovered), (index - 1, Some(id(1, 20))));
            wal.append(&[write(None, vec![model.entries[index - 1].clone()])]).unwrap();
            assert_eq!(state(&open(&disk).unwrap().1), (index, Some(id(1, 20))));
        }
        open(&disk).unwrap().0.append(&[one(20, 1000)]).unwrap();
        let (_, recovered) = open(&disk).unwrap();
        assert!(model.is(&recovered) && recovered.damage.len() == 2, "{}", brief(&recovered));
    }
}

/// Its log may have become another one meanwhile. What a later leader has makes good what was never committed.
#[test]
fn a_later_leader_makes_it_good() {
    let (disk, _) = log(20);
    payload(&disk, 9);
    let (mut wal, _) = open(&disk).unwrap();
    wal.append(&[write(Some(crate::term(2)), vec![command(1, 9, 10)])]).unwrap();
    let (mut wal, recovered) = open(&disk).unwrap();
    assert_eq!(state(&recovered), (9, Some(id(1, 20))), "nothing of the later term is there");
    wal.append(&[write(Some(committed(2, 9)), vec![])]).unwrap();
    let (mut wal, recovered) = open(&disk).unwrap();
    assert_eq!(state(&recovered), (9, Some(id(1, 20))), "what is committed is older");
    wal.append(&[write(None, vec![command(2, 10, 10)])]).unwrap();
    assert_eq!(state(&open(&disk).unwrap().1), (10, None));
}

/// What was lost is remembered by later frames too, should nothing be left of the one that spoke of it.
#[test]
fn what_is_lost_is_not_forgotten() {
    let (disk, _) = log(6);
    payload(&disk, 5);
    let (mut wal, recovered) = open(&disk).unwrap();
    assert_eq!(state(&recovered), (4, Some(id(1, 6))));
    wal.append(&[one(5, 10)]).unwrap();
    header(&disk, 5);
    header(&disk, 6);
    let (mut wal, recovered) = open(&disk).unwrap();
    assert_eq!(state(&recovered), (5, Some(id(1, 6))));
    wal.append(&[write(Some(committed(2, 5)), vec![command(2, 6, 10)])]).unwrap();
    assert_eq!(state(&open(&disk).unwrap().1), (6, None));
}

/// A member that went back in time owes all of a term at first, and less once it knows how much there was.
#[test]
fn what_a_member_owes_is_kept_until_the_log_has_it() {
    let owes = |lost| Write { lost: Some(lost), ..write(None, Vec::new()) };
    let (disk, _) = log(6);
    let (mut wal, _) = open(&disk).unwrap();
    wal.append(&[owes(id(1, u64::MAX))]).unwrap();
    wal.append(&[one(7, 10)]).unwrap();
    let (mut wal, recovered) = open(&disk).unwrap();
    assert_eq!(state(&recovered), (7, Some(id(1, u64::MAX))));
    // Of two that are written together the later one counts.
    wal.append(&[owes(id(1, 20)), owes(id(1, 9))]).unwrap();
    wal.append(&[one(8, 10)]).unwrap();
    let (mut wal, recovered) = open(&disk).unwrap();
    assert_eq!(state(&recovered), (8, Some(id(1, 9))));
    wal.append(&[one(9, 10)]).unwrap();
    let (mut wal, recovered) = open(&disk).unwrap();
    assert_eq!(state(&recovered), (9, None));
    // An entry of a later term makes good whatever there was.
    wal.append(&[owes(id(1, u64::MAX))]).unwrap();
    wal.append(&[write(Some(committed(2, 9)), vec![command(2, 10, 10)])]).unwrap();
    assert_eq!(state(&open(&disk).unwrap().1), (10, None));
}

/// Frames that are gone may have replaced the tail: what comes after them need not belong to what came before.
#[test]
fn a_tail_that_was_replaced_by_what_is_gone() {
    for (commit, certain) in [(0, 0), (2, 2), (3, 3)] {
        let (disk, _) = log(4);
        let (mut wal, _) = open(&disk).unwrap();
        wal.append(&[write(Some(committed(2, commit)), vec![])]).unwrap();
        wal.append(&[write(Some(committed(2, 3)), vec![command(2, 4, 10), command(2, 5, 10)])]).unwrap();
        wal.append(&[write(None, vec![command(2, 6, 10)])]).unwrap();
        header(&disk, 6);
        // Not entry 4 of term 1, and of those before only what was known to be committed by then.
        let (mut wal, recovered) = open(&disk).unwrap();
        assert_eq!(state(&recovered), (certain, Some(id(2, 6))));
        wal.append(&[write(Some(committed(3, certain as u64)), vec![])]).unwrap();
        assert_eq!(state(&open(&disk).unwrap().1), (certain, Some(id(2, 6))));
    }
}

/// A frame without entries is gone: the next one's follow upon what is there, so nothing is missing.
#[test]
fn frames_that_held_nothing() {
    let (disk, mut model) = log(3);
    let (mut wal, _) = open(&disk).unwrap();
    append(&mut wal, &mut model, write(Some(committed(2, 3)), vec![]));
    append(&mut wal, &mut model, write(Some(HardState { term: 3, vote: None, commit: 3 }), vec![]));
    append(&mut wal, &mut model, write(None, vec![command(3, 4, 10)]));
    header(&disk, 4);
    assert_eq!(judge(&disk, &model), Verdict::Harmless);
    header(&disk, 5);
    assert_eq!(judge(&disk, &model), Verdict::Harmless);
}

/// The newest frame was torn, and the one before it is damaged: it was durable, and is not cut with the other.
#[test]
fn a_torn_frame_behind_a_damaged_one() {
    let (disk, _) = log(3);
    header(&disk, 2);
    disk.tamper(&segment_path(1), |bytes| bytes[3 * BLOCK + 512..3 * BLOCK + 1024].fill(0));
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(state(&recovered), (1, Some(id(1, 3))));
    let before = disk.files();
    open(&disk).unwrap();
    assert_eq!(disk.files(), before);
}

fn with_snapshot(disk: &MemDisk, covered: LogId) -> Recovered {
    let options = WalOptions { covered: Some(covered), ..options(disk) };
    Wal::open(&dir(), options).unwrap().1
}

/// What a snapshot covers is not missed, and the log goes on behind the hole.
#[test]
fn a_snapshot_covers_it() {
    let (disk, model) = log(20);
    payload(&disk, 9);
    header(&disk, 11);
    assert_eq!(state(&with_snapshot(&disk.fork(), id(1, 8))), (8, Some(id(1, 20))));
    assert_eq!(state(&with_snapshot(&disk.fork(), id(1, 9))), (1, Some(id(1, 20))), "entry 10 and no more");
    for covered in [11, 12, 20] {
        let disk = disk.fork();
        let recovered = with_snapshot(&disk, id(1, covered));
        assert_eq!((recovered.base, recovered.lost), (id(1, covered), None));
        assert_eq!(recovered.entries, model.entries[covered as usize..]);
    }
    let beyond = with_snapshot(&disk.fork(), id(3, 50));
    assert_eq!((beyond.entries.len(), beyond.lost), (8, None), "the log is not needed at all");

    // It goes on there for good.
    let options = WalOptions { covered: Some(id(1, 12)), ..options(&disk) };
    Wal::open(&dir(), options).unwrap().0.append(&[one(21, 10)]).unwrap();
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!((recovered.base, recovered.entries.len(), recovered.lost), (id(1, 12), 9, None));
    let snapshot =
        |id| Snapshot { id, configuration: Configuration::default(), configuration_id: LogId::default() };
    assert!(recovered.clone().restore(MEMBER, Some(snapshot(id(1, 12)))).is_ok());
    let error = recovered.restore(MEMBER, Some(snapshot(id(1, 11)))).unwrap_err();
    assert!(error.to_string().contains("the log begins after entry 12"), "{error}");
}

/// What is damaged and was released already is not missed either.
#[test]
fn released_entries_are_not_missed() {
    let (disk, mut model) = log(20);
    open(&disk).unwrap().0.release_before(11).unwrap();
    model.release(11);
    for index in 8..=10 {
        for damage in [payload, header] {
            let disk = disk.fork();
            damage(&disk, index);
            assert!(matches!(judge(&disk, &model), Verdict::Harmless | Verdict::Unseen));
        }
    }
    payload(&disk, 11);
    assert_eq!(judge(&disk, &model), Verdict::Lost);
}

/// Who cannot wait for a leader gets words that tell what to do.
#[test]
fn words() {
    let (disk, _) = log(5);
    payload(&disk, 3);
    let (_, recovered) = open(&disk).unwrap();
    let configuration = Configuration { voters: [MEMBER].into(), ..Configuration::default() };
    let snapshot = Snapshot { id: id(1, 1), configuration, configuration_id: id(1, 1) };
    let only = recovered.restore(MEMBER, Some(snapshot)).unwrap_err().to_string();
    for part in [
        "0000000000000001.wal is damaged at byte 12288",
        "it held entry 3",
        "up to entry 2",
        "the only voter",
    ] {
        assert!(only.contains(part), "{only}");
    }
}

/// A value that looks like a frame is not taken for one when its frame's header is gone.
#[test]
fn a_forged_frame() {
    let other = MemDisk::default();
    let (mut wal, _) = open(&other).unwrap();
    for index in 1..=3 {
        wal.append(&[write(Some(crate::term(9)), vec![command(9, index, 100)])]).unwrap();
    }
    let frame = other.files()[&segment_path(1)][3 * BLOCK..4 * BLOCK].to_vec();
    // Wherever it comes to stand: once it is where a block begins.
    for shift in 0..8 {
        let disk = MemDisk::default();
        let (mut wal, _) = open(&disk).unwrap();
        let mut model = Model::default();
        append(&mut wal, &mut model, one(1, 10));
        let value = [&vec![7; BLOCK - 144 + shift], &frame[..]].concat();
        let forged = Entry { term: 1, index: 2, payload: Payload::Command(value.into()) };
        append(&mut wal, &mut model, write(None, vec![forged]));
        assert_eq!(judge(&disk, &model), Verdict::Unseen);
        disk.tamper(&segment_path(1), |bytes| bytes[2 * BLOCK..2 * BLOCK + 132].fill(0xee));
        assert_eq!(judge(&disk, &model), Verdict::Refused);
    }
}

/// How a disk fails.
#[derive(Debug, Clone)]
enum Rot {
    Flip { bit: u64 },
    Scribble { at: u64, length: usize, seed: u64 },
    Unreadable { block: u64 },
    Missing,
}

fn rot() -> impl Strategy<Value = (u64, Rot)> {
    let rot = prop_oneof![
        4 => any::<u64>().prop_map(|bit| Rot::Flip { bit }),
        4 => (any::<u64>(), 1..9000_usize, any::<u64>())
            .prop_map(|(at, length, seed)| Rot::Scribble { at, length, seed }),
        2 => any::<u64>().prop_map(|block| Rot::Unreadable { block }),
        1 => Just(Rot::Missing),
    ];
    (any::<u64>(), rot)
}

impl Rot {
    /// Lets one of the segments rot.
    fn strike(&self, disk: &MemDisk, which: u64) {
        let files = disk.files();
        let segments: Vec<_> =
            files.iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "wal")).collect();
        let (path, contents) = segments[which as usize % segments.len()];
        let length = contents.len();
        match self {
            Rot::Flip { bit } => disk.tamper(path, |bytes| {
                let bit = *bit as usize % (length * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }),
            Rot::Scribble { at, length, seed } => disk.tamper(path, |bytes| {
                let start = *at as usize % bytes.len();
                let end = (start + length).min(bytes.len());
                bytes[start..end].copy_from_slice(&noise(*seed, end - start));
            }),
            Rot::Unreadable { block } => disk.spoil(path, [*block as usize % length.div_ceil(BLOCK)]),
            // Of the newest one nothing would tell that it has been there.
            Rot::Missing if segments.last().is_some_and(|(last, _)| *last != path) => {
                disk.remove(path).unwrap();
            }
            Rot::Missing => {}
        }
    }
}

/// A member whose disk rots again and again, and whose leader sends what is missing, or a part of it, or goes on from there.
fn rots(steps: &[Step], strikes: &[(u64, Rot)], seed: u64) {
    let mut world = World::new(MemDisk::default());
    for step in steps {
        world.run(step);
    }
    let World { disk, mut model, .. } = world;
    let mut coin = coin(seed);
    // What this member has acknowledged and does not have. As long as there is something, this is never forgotten.
    let mut missing: Option<LogId> = None;
    for (which, rot) in strikes {
        rot.strike(&disk, *which);
        let Ok((mut wal, recovered)) = open(&disk) else { return };
        let words = brief(&recovered);
        let whole = recovered.entries.len();
        assert!(recovered.entries == model.entries[..whole], "{words}");
        assert_eq!(recovered.hard_state.term, model.hard_state.term, "{words}");
        if whole < model.entries.len() {
            missing = missing.max(Some(model.end()));
        }
        assert!(recovered.lost >= missing, "{missing:?} was forgotten: {words}");

        let rest = model.entries.split_off(whole);
        let sent = if coin() { rest.len() } else { rest.len() / 2 };
        for entry in &rest[..sent] {
            wal.append(&[write(None, vec![entry.clone()])]).unwrap();
            model.entries.push(entry.clone());
        }
        model.last = model.end().index;
        model.hard_state.commit = recovered.hard_state.commit;
        // Else a later leader, whose log is shorter: what it does not have was never committed.
        if coin() {
            let term = model.hard_state.term + 1;
            let hard_state = HardState { term, vote: None, ..model.hard_state };
            let next = command(term, model.last + 1, 50);
            append(&mut wal, &mut model, write(Some(hard_state), vec![next]));
        }
        missing = missing.filter(|missing| model.end() < *missing);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// After any history, any damage: either it makes no difference, or what is missing is told, or nothing begins.
    #[test]
    fn any_damage_after_any_history(
        steps in prop::collection::vec(step(), 1..20),
        strikes in prop::collection::vec(rot(), 1..3),
    ) {
        let mut world = World::new(MemDisk::default());
        for step in &steps {
            world.run(step);
        }
        drop(world.wal);
        for (which, rot) in &strikes {
            rot.strike(&world.disk, *which);
        }
        match open(&world.disk) {
            Err(OpenError::Damaged(_) | OpenError::Foreign { .. }) => {}
            Err(error) => panic!("{error}"),
            Ok((_, recovered)) if recovered.lost.is_none() => assert!(world.model.is(&recovered), "{}", brief(&recovered)),
            Ok((_, recovered)) => {
                let model = &world.model;
                assert!(recovered.entries == model.entries[..recovered.entries.len()], "{}", brief(&recovered));
                assert!(recovered.lost >= Some(model.end()));
                assert_eq!(recovered.hard_state.term, model.hard_state.term);
                assert_eq!(recovered.hard_state.vote, model.hard_state.vote);
            }
        }
    }

    /// A member whose disk rots again and again, and that is repaired in between, or not.
    #[test]
    fn damage_upon_damage(
        steps in prop::collection::vec(step(), 1..12),
        strikes in prop::collection::vec(rot(), 1..6),
        seed in any::<u64>(),
    ) {
        rots(&steps, &strikes, seed);
    }
}
