//! A member's disk: files in memory, in virtual time, that lose and fail as real ones do.
//!
//! The WAL calls it as it calls the machine's file system, and has its answer at once; but every operation takes virtual time, and
//! what was done is remembered until that time has come. So a process can be killed, and the power cut, between any two
//! operations and in the middle of each, although the call has long returned.

mod engine;
mod file;
mod files;
mod latency;

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_node::storage::disk::{Dir, Disk, File};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::io::Errno;

use crate::time::Time;
pub(crate) use engine::{SimEngine, Spoilt};
use file::OpenFile;
use files::{Done, Files, Undo};
pub(crate) use latency::Latency;

/// What happens to the next operation of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A write is done in part, and fails.
    Write,
    /// An fsync fails; what it should have written is forgotten, and looks clean (as Linux does).
    Sync,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    /// It was killed: the system keeps what it has written.
    Killed,
    /// The power went: what was not flushed may be lost, sector by sector.
    PowerCut,
}

/// What a disk held at some time.
#[derive(Debug)]
pub(crate) struct Copied(Files);

/// Clones share the same disk.
#[derive(Debug, Clone)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    files: Files,
    /// What the task under way has done, and when.
    done: Vec<Done>,
    /// When the task's next operation begins.
    clock: Time,
    latency: Latency,
    failure: Option<Failure>,
    /// The most bytes that all files may have, and until when.
    capacity: Option<(u64, Time)>,
    /// Whether its file system can reserve blocks that read as zeros.
    reserves: bool,
    /// How often it has.
    reserved: u64,
    /// Until then nothing can be opened: the process has no descriptor left.
    no_descriptors_until: Time,
    random: ChaCha8Rng,
}

impl SimDisk {
    pub(crate) fn new(latency: Latency, reserves: bool, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            files: Files::default(),
            done: Vec::new(),
            clock: 0,
            latency,
            failure: None,
            capacity: None,
            reserves,
            reserved: 0,
            no_descriptors_until: 0,
            random: ChaCha8Rng::seed_from_u64(seed),
        })))
    }

    /// A task begins: its first operation begins now.
    pub(crate) fn begin(&self, now: Time) {
        let mut state = self.0.lock();
        assert!(state.done.is_empty(), "one task at a time");
        state.clock = now;
    }

    /// When the task's last operation ends.
    pub(crate) fn ends(&self) -> Time {
        self.0.lock().clock
    }

    /// The task's time is over: what it did can no longer be undone.
    pub(crate) fn finish(&self) {
        self.0.lock().done.clear();
    }

    /// The process ends now, perhaps in the middle of a task.
    pub(crate) fn crash(&self, now: Time, crash: Crash) {
        let State { files, done, random, .. } = &mut *self.0.lock();
        for done in std::mem::take(done).into_iter().rev().take_while(|done| done.end > now) {
            let half_done = done.begin < now;
            files.take_back(done.undo, half_done, crash, random);
        }
        if crash == Crash::PowerCut {
            files.lose_power(random);
        }
    }

    /// The next operation of its kind fails.
    pub(crate) fn fail_next(&self, failure: Failure) {
        self.0.lock().failure = Some(failure);
    }

    /// How fast it is.
    pub(crate) fn latency<T>(&self, change: impl FnOnce(&mut Latency) -> T) -> T {
        change(&mut self.0.lock().latency)
    }

    /// Leaves room for `room` more bytes for a while.
    pub(crate) fn fill(&self, room: u64, until: Time) {
        let mut state = self.0.lock();
        state.capacity = Some((state.files.bytes() + room, until));
    }

    /// Nothing can be opened for a while.
    pub(crate) fn take_descriptors(&self, until: Time) {
        self.0.lock().no_descriptors_until = until;
    }

    /// A copy of all its files, as they are between two tasks. None within one.
    pub(crate) fn copy(&self) -> Option<Copied> {
        let state = self.0.lock();
        state.done.is_empty().then(|| Copied(state.files.copy()))
    }

    /// It holds what was copied again, and nothing else. Its process is down.
    pub(crate) fn put_back(&self, Copied(files): Copied) {
        self.0.lock().files = files;
    }

    /// How many files there are.
    pub(crate) fn files(&self) -> usize {
        self.0.lock().files.names().len()
    }

    /// How often blocks were reserved.
    pub(crate) fn reserved(&self) -> u64 {
        self.0.lock().reserved
    }

    /// Turns over one bit of what is durable, in a sector that holds more than a few. Says where.
    pub(crate) fn flip(&self, random: &mut ChaCha8Rng) -> Option<String> {
        self.0.lock().files.flip(random)
    }

    /// All trouble is over, but for what has happened.
    pub(crate) fn heal(&self) {
        let mut state = self.0.lock();
        state.failure = None;
        state.capacity = None;
        state.no_descriptors_until = 0;
        state.latency.heal();
    }
}

impl State {
    /// An operation begins: when it ends.
    fn operate(&mut self, bytes: usize, sync: bool) -> (Time, Time) {
        let begin = self.clock;
        self.clock = self.latency.end(begin, bytes, sync, &mut self.random);
        (begin, self.clock)
    }

    fn did(&mut self, (begin, end): (Time, Time), undo: Undo) {
        self.done.push(Done { begin, end, undo });
    }

    /// Writes as a system call does: whole, or up to where the device reports an error. It takes the time of `moved` bytes.
    fn write(&mut self, inode: usize, bytes: &[u8], offset: usize, moved: usize) -> io::Result<()> {
        let time = self.operate(moved, false);
        let growth = (offset + bytes.len()).saturating_sub(self.files.length(inode)) as u64;
        if self.is_full(growth) {
            return Err(ErrorKind::StorageFull.into());
        }
        let failed = self.fails(Failure::Write);
        let written = if failed { &bytes[..bytes.len() / 2 / 512 * 512] } else { bytes };
        let undo = self.files.write(inode, written, offset);
        self.did(time, undo);
        if failed { Err(io::Error::other("the device reports an error")) } else { Ok(()) }
    }

    fn sync(&mut self, inode: usize) -> io::Result<()> {
        let time = self.operate(0, true);
        if self.fails(Failure::Sync) {
            self.files.forget(inode);
            return Err(io::Error::other("the device reports an error"));
        }
        let undo = self.files.sync(inode);
        self.did(time, undo);
        Ok(())
    }

    /// Whether there is no room for `growth` more bytes.
    fn is_full(&self, growth: u64) -> bool {
        let limit = self.capacity.filter(|(_, until)| self.clock < *until);
        growth > 0 && limit.is_some_and(|(capacity, _)| self.files.bytes() + growth > capacity)
    }

    /// Takes a descriptor, if there is one.
    fn opens(&self) -> io::Result<()> {
        if self.clock < self.no_descriptors_until { Err(Errno::MFILE.into()) } else { Ok(()) }
    }

    /// Whether the operation fails.
    fn fails(&mut self, failure: Failure) -> bool {
        self.failure.take_if(|waits| *waits == failure).is_some()
    }

    /// Does something to the names of files.
    fn rename(&mut self, change: impl FnOnce(&mut Files) -> io::Result<()>) -> io::Result<()> {
        let time = self.operate(0, false);
        let before = self.files.names().clone();
        change(&mut self.files)?;
        self.did(time, Undo::Names(before));
        Ok(())
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.lock().rename(|files| files.create_dir(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.0.lock();
        state.opens()?;
        state.files.list(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let state = self.0.lock();
        state.opens()?;
        let inode = state.files.find(path)?;
        Ok(Box::new(OpenFile::new(self.clone(), inode)))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut inode = 0;
        let mut state = self.0.lock();
        state.opens()?;
        state.rename(|files| {
            inode = files.create(path)?;
            Ok(())
        })?;
        Ok(Box::new(OpenFile::new(self.clone(), inode)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.lock().rename(|files| files.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.lock().rename(|files| files.remove(path))
    }

    fn open_dir(&self, dir: &Path) -> io::Result<Box<dyn Dir>> {
        self.0.lock().opens()?;
        Ok(Box::new(OpenDir { disk: self.clone(), path: dir.to_owned() }))
    }
}

/// An open directory.
#[derive(Debug)]
struct OpenDir {
    disk: SimDisk,
    path: PathBuf,
}

impl Dir for OpenDir {
    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let time = state.operate(0, true);
        if state.fails(Failure::Sync) {
            return Err(ErrorKind::Other.into());
        }
        let undo = state.files.sync_names(&self.path);
        state.did(time, undo);
        Ok(())
    }
}

/// A part of a task's work that was under way when its process ended: some of it was done.
fn some(random: &mut ChaCha8Rng) -> impl FnMut() -> bool {
    let share = random.random_range(0.0..=1.0);
    move || random.random_bool(share)
}
