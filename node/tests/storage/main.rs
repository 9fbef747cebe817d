//! The write-ahead log on disks that lose power, fail, fill up and rot.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod check;
mod damage;
mod disk;
mod faults;
mod flips;
mod identity;
mod kill;
mod model;
mod recover;
mod replacement;
mod reset;
mod room;
mod torn;
mod versions;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use quorate_node::storage::{OpenError, Recovered, Wal, WalOptions};
use quorate_raft::{Entry, HardState, Index, LogId, MemberId, Payload, Term, Write, WriteId};

use disk::MemDisk;

const MEMBER: MemberId = MemberId(7);
/// Small, so that every test meets the end of a segment.
const SEGMENT: u64 = 32 * 1024;

fn dir() -> PathBuf {
    PathBuf::from("/data")
}

fn segment_path(number: u64) -> PathBuf {
    dir().join(format!("wal/{number:016x}.wal"))
}

fn options(disk: &MemDisk) -> WalOptions {
    WalOptions { segment_bytes: SEGMENT, disk: Arc::new(disk.clone()), ..WalOptions::new(MEMBER) }
}

fn open(disk: &MemDisk) -> Result<(Wal, Recovered), OpenError> {
    Wal::open(Path::new(&dir()), options(disk))
}

/// What was recovered, without the entries' bytes.
fn brief(recovered: &Recovered) -> String {
    let Recovered { hard_state, base, entries, uncertain_tail, lost, damage } = recovered;
    let ids: Vec<LogId> = entries.iter().map(Entry::id).collect();
    format!("{hard_state:?} base {base:?} {ids:?} cut {uncertain_tail} lost {lost:?} {damage:#?}")
}

/// Bytes that are the same for the same seed, and never blank for long.
fn noise(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn command(term: Term, index: Index, length: usize) -> Entry {
    Entry { term, index, payload: Payload::Command(noise(term << 32 | index, length)) }
}

fn write(hard_state: Option<HardState>, entries: Vec<Entry>) -> Write {
    Write { id: WriteId(0), hard_state, reset: None, lost: None, entries }
}

fn term(term: Term) -> HardState {
    HardState { term, vote: Some(MEMBER), commit: 0 }
}

/// The write that follows an installed snapshot: the log begins anew after `index`, and goes on with entries of these lengths.
fn reset(term: Term, index: Index, lengths: &[usize]) -> Write {
    let entries = lengths.iter().zip(index + 1..).map(|(length, index)| command(term, index, *length));
    let hard_state = HardState { term, vote: None, commit: index };
    Write { reset: Some(LogId { term, index }), ..write(Some(hard_state), entries.collect()) }
}

/// One write of one entry in term 1.
fn one(index: Index, length: usize) -> Write {
    write(Some(term(1)), vec![command(1, index, length)])
}
