//! Work on snapshots, a piece at a time.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use quorate_raft::{LogId, MemberId, Snapshot};

use super::SnapshotError;
use super::archive::Archive;
use super::file;
use super::manifest::{Draft, Manifest};
use crate::kv::Store;
use crate::kv::snapshot::{Restore, SnapshotSource};
use crate::storage::disk::File;

/// Something to be done.
#[derive(Debug)]
pub enum Job {
    /// Write a snapshot of the state. Ends with [`Report::Taken`] or [`Report::NotTaken`]. One at a time.
    Take(Snapshot, SnapshotSource),
    /// Begin to receive a snapshot; what was received of another one is given up. Ends, when all its pieces have come, with
    /// [`Report::Received`], or at any time with [`Report::NotReceived`].
    Receive(Manifest),
    /// A verified piece of the snapshot that is being received. Answered by [`Report::Written`], unless that has ended.
    Write(LogId, u32, Bytes),
    /// Give up what is being received.
    Abandon,
    /// Read a part of a snapshot for another member. Answered by [`Report::Read`].
    Read(MemberId, LogId, Part),
    /// Remove what is kept only for members that may be fetching it: the room is needed.
    Tidy,
    /// Remove the snapshots that are older than this one, which another member made and whose state has taken the place of this member's: they are of
    /// a state that is not its own any more, and the log does not go on from them.
    Outdate(LogId),
    /// Let a state go that nobody needs: that takes a while.
    Discard(Box<Store>),
}

/// A part of a snapshot that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What it is.
    Manifest,
    /// A piece, counted from 0.
    Piece(u32),
}

/// What has come of jobs.
#[derive(Debug)]
pub enum Report {
    /// A snapshot of the state is durable.
    Taken(Manifest),
    /// None was written.
    NotTaken(LogId, SnapshotError),
    /// A piece that was received is written.
    Written(LogId, u32),
    /// A snapshot has come as a whole, is durable and verified, and makes this state.
    Received(Manifest, Box<Store>),
    /// It has come as a whole, is durable and verified, and there is no room for its state beside the present one. A process that starts anew
    /// finds it.
    Whole(Manifest),
    /// It has not.
    NotReceived(LogId, SnapshotError),
    /// A part for another member; none if there is no such snapshot, or no such part of it.
    Read(MemberId, LogId, Part, Option<Found>),
}

/// What was found where a part should be.
#[derive(Debug)]
pub enum Found {
    /// The snapshot is damaged, or cannot be read: it is of no use to others.
    Damaged,
    /// The manifest.
    Manifest(Manifest),
    /// The piece that was asked for.
    Piece(Bytes),
}

/// Does jobs, a piece at a time.
#[derive(Debug)]
pub struct Worker {
    archive: Archive,
    /// What snapshots are taken of.
    state: Arc<RwLock<Store>>,
    /// The most bytes that may be accounted to the state, and to one that is being made of a snapshot, together. None for no limit.
    room: Option<u64>,
    /// Of others than [`Self::taking`], in the order that they came.
    jobs: VecDeque<Job>,
    taking: Option<Taking>,
    receiving: Option<Receiving>,
    /// Whose turn is next: jobs, or what goes on beside them.
    jobs_next: bool,
}

#[derive(Debug)]
struct Taking {
    snapshot: Snapshot,
    source: SnapshotSource,
    draft: Draft,
    /// Bytes.
    written: u64,
    part: Option<file::Part>,
}

/// A snapshot that comes from other members.
#[derive(Debug)]
enum Receiving {
    /// Its pieces are coming.
    Pieces {
        manifest: Box<Manifest>,
        part: file::Part,
        /// Which have not come.
        missing: Vec<bool>,
        /// How many those are.
        left: u32,
        back: ReadBack,
    },
    /// It is read back to its end.
    Restoring { id: LogId, back: ReadBack },
}

/// What has come is read back, and makes the state piece by piece, while others are still on their way. What is restored is what the
/// disk has, and not what the network has brought.
#[derive(Debug)]
struct ReadBack {
    /// The piece that is next: they make a state in order only.
    next: u32,
    /// None once there was no room for what it makes: then what comes is only verified.
    restore: Option<Restore>,
}

impl Default for ReadBack {
    fn default() -> Self {
        Self { next: 0, restore: Some(Restore::new()) }
    }
}

impl Worker {
    /// Works on `archive`, and takes snapshots of `state`.
    pub fn new(archive: Archive, state: Arc<RwLock<Store>>) -> Self {
        let (jobs, room, taking, receiving) = Default::default();
        Self { archive, state, room, jobs, taking, receiving, jobs_next: true }
    }

    /// The same, with so much room for two states: what has come that does not fit in beside the present one is [`Report::Whole`].
    #[must_use]
    pub fn with_room(self, room: Option<u64>) -> Self {
        Self { room, ..self }
    }

    /// Adds a job.
    pub fn push(&mut self, job: Job) {
        match job {
            Job::Take(snapshot, source) => {
                // One that is still there is of a state that was replaced.
                if let Some(part) = self.taking.take().and_then(|stale| stale.part) {
                    self.archive.abandon(part);
                }
                self.taking =
                    Some(Taking { snapshot, source, draft: Draft::default(), written: 0, part: None });
            }
            job => self.jobs.push_back(job),
        }
    }

    /// What the state takes that is being made.
    #[cfg(test)]
    pub(super) fn making(&self) -> u64 {
        match &self.receiving {
            Some(Receiving::Pieces { back, .. } | Receiving::Restoring { back, .. }) => back.made(),
            None => 0,
        }
    }

    /// Whether there is something to do.
    pub fn is_busy(&self) -> bool {
        !self.jobs.is_empty()
            || self.taking.is_some()
            || self.receiving.as_ref().is_some_and(Receiving::restores)
    }

    /// Does a piece of what there is to do: at most about a piece is written or read. Jobs, which others wait for, and what takes long
    /// have turns.
    pub fn step(&mut self) -> Option<Report> {
        let restores = self.receiving.as_ref().is_some_and(Receiving::restores);
        let alone = !restores && self.taking.is_none();
        let jobs_now = self.jobs_next || alone;
        self.jobs_next = !self.jobs_next;
        match self.jobs.pop_front_if(|_| jobs_now) {
            Some(job) => self.perform(job),
            None if restores => self.restore(),
            None if self.taking.is_some() => self.take(),
            None => self.jobs.pop_front().and_then(|job| self.perform(job)),
        }
    }

    fn perform(&mut self, job: Job) -> Option<Report> {
        match job {
            Job::Take(..) => unreachable!("it is not in the queue"),
            Job::Receive(manifest) => self.receive(manifest),
            Job::Write(id, number, piece) => self.write(id, number, &piece),
            Job::Abandon => {
                self.abandon();
                None
            }
            Job::Read(to, id, part) => Some(Report::Read(to, id, part, self.read(id, part))),
            Job::Tidy => {
                self.archive.tidy();
                None
            }
            Job::Outdate(id) => {
                self.archive.outdate(id);
                None
            }
            Job::Discard(store) => {
                drop(store);
                None
            }
        }
    }

    /// Writes the next piece of the snapshot that is being taken, or ends it.
    fn take(&mut self) -> Option<Report> {
        let mut taking = self.taking.take()?;
        let next = match taking.source.next_piece(&self.state) {
            Ok(next) => next,
            Err(error) => return Some(self.not_taken(taking, error.into())),
        };
        let Some(piece) = next else { return Some(self.end_taking(taking)) };
        if let Err(error) = taking.write(&self.archive, &piece) {
            return Some(self.not_taken(taking, error));
        }
        self.taking = Some(taking);
        None
    }

    fn end_taking(&mut self, mut taking: Taking) -> Report {
        let id = taking.snapshot.id;
        let part = taking.part.take().expect("a snapshot has at least one piece");
        let (piece_bytes, level) = (taking.source.piece_bytes() as u32, taking.source.level());
        let manifest = taking.draft.finish(taking.snapshot, piece_bytes, level);
        match self.archive.keep(part, manifest.clone()) {
            Ok(()) => Report::Taken(manifest),
            Err(error) => Report::NotTaken(id, error),
        }
    }

    fn not_taken(&mut self, taking: Taking, error: SnapshotError) -> Report {
        // There may have been no room for it.
        self.archive.tidy();
        if let Some(part) = taking.part {
            self.archive.abandon(part);
        }
        Report::NotTaken(taking.snapshot.id, error)
    }

    fn receive(&mut self, manifest: Manifest) -> Option<Report> {
        self.abandon();
        let id = manifest.id();
        if self.archive.find(id).is_some() {
            // It came, or was taken, before.
            self.receiving = Some(Receiving::Restoring { id, back: ReadBack::default() });
            return None;
        }
        match self.archive.begin_received(id) {
            Ok(part) => {
                let left = manifest.pieces();
                let missing = vec![true; left as usize];
                let (manifest, back) = (Box::new(manifest), ReadBack::default());
                self.receiving = Some(Receiving::Pieces { manifest, part, missing, left, back });
                None
            }
            Err(error) => Some(Report::NotReceived(id, error)),
        }
    }

    fn write(&mut self, id: LogId, number: u32, piece: &[u8]) -> Option<Report> {
        let Some(Receiving::Pieces { manifest, part, missing, left, .. }) = &mut self.receiving else {
            return None;
        };
        if manifest.id() != id || !missing.get(number as usize).is_some_and(|missing| *missing) {
            return None;
        }
        if let Err(error) = part.write_piece(manifest.offset(number), piece) {
            self.abandon();
            return Some(Report::NotReceived(id, error));
        }
        missing[number as usize] = false;
        *left -= 1;
        if *left > 0 {
            return Some(Report::Written(id, number));
        }
        self.end_receiving(id, number)
    }

    /// All pieces are there: from here on the snapshot is one of this member's own.
    fn end_receiving(&mut self, id: LogId, number: u32) -> Option<Report> {
        let Some(Receiving::Pieces { manifest, part, back, .. }) = self.receiving.take() else { return None };
        if let Err(error) = self.archive.keep(part, *manifest) {
            return Some(Report::NotReceived(id, error));
        }
        self.receiving = Some(Receiving::Restoring { id, back });
        Some(Report::Written(id, number))
    }

    /// Reads the next piece back.
    fn restore(&mut self) -> Option<Report> {
        match self.receiving.take()? {
            Receiving::Restoring { id, back } => self.restore_kept(id, back),
            Receiving::Pieces { manifest, part, missing, left, mut back } => {
                let id = manifest.id();
                if let Err(error) = back.take(&manifest, part.file.as_ref(), &part.path) {
                    self.archive.abandon(part);
                    return Some(Report::NotReceived(id, error));
                }
                self.bound(&mut back);
                self.receiving = Some(Receiving::Pieces { manifest, part, missing, left, back });
                None
            }
        }
    }

    /// Reads the next piece back of a snapshot that is kept, or ends.
    fn restore_kept(&mut self, id: LogId, mut back: ReadBack) -> Option<Report> {
        let Some(kept) = self.archive.find(id) else {
            // Newer ones that were taken here have pushed it out.
            return Some(Report::NotReceived(id, SnapshotError::Superseded));
        };
        if back.next < kept.manifest.pieces() {
            if let Err(error) = back.take(&kept.manifest, kept.file.as_ref(), &kept.path) {
                self.give_up(id, &error);
                return Some(Report::NotReceived(id, error));
            }
            self.bound(&mut back);
            self.receiving = Some(Receiving::Restoring { id, back });
            return None;
        }
        let manifest = kept.manifest.clone();
        let Some(restore) = back.restore else { return Some(Report::Whole(manifest)) };
        match restore.finish() {
            Ok(mut store) => {
                store.applied_up_to(id);
                Some(Report::Received(manifest, Box::new(store)))
            }
            Err(source) => {
                let error = SnapshotError::restoring(&kept.path, id.index, source);
                self.give_up(id, &error);
                Some(Report::NotReceived(id, error))
            }
        }
    }

    /// Lets the state go that is being made, if there is no room for it.
    fn bound(&self, back: &mut ReadBack) {
        if self.room.is_some_and(|room| self.state.read().size() + back.made() > room) {
            back.restore = None;
        }
    }

    /// A snapshot that came cannot be restored.
    fn give_up(&mut self, id: LogId, error: &SnapshotError) {
        if !error.is_of_another_version() {
            self.archive.discard(id);
        }
    }

    fn abandon(&mut self) {
        if let Some(Receiving::Pieces { part, .. }) = self.receiving.take() {
            self.archive.abandon(part);
        }
    }

    fn read(&mut self, id: LogId, part: Part) -> Option<Found> {
        let kept = self.archive.find_for_another(id)?;
        match part {
            Part::Manifest => Some(Found::Manifest(kept.manifest.clone())),
            Part::Piece(number) if number < kept.manifest.pieces() => match kept.verified_piece(number) {
                Ok(piece) => Some(Found::Piece(piece)),
                Err(error) => {
                    tracing::warn!(%error, "cannot read a snapshot for another member");
                    self.archive.forget(id);
                    Some(Found::Damaged)
                }
            },
            Part::Piece(_) => None,
        }
    }
}

impl Taking {
    fn write(&mut self, archive: &Archive, piece: &[u8]) -> Result<(), SnapshotError> {
        if self.part.is_none() {
            self.part = Some(archive.begin(self.snapshot.id)?);
        }
        let part = self.part.as_ref().expect("it was begun");
        part.write_piece(self.written, piece)?;
        self.draft.add(piece);
        self.written += piece.len() as u64;
        Ok(())
    }
}

impl Receiving {
    /// Whether something that is written is to be read back.
    fn restores(&self) -> bool {
        match self {
            // The last one comes with the file's name.
            Self::Pieces { missing, back, .. } => missing.get(back.next as usize) == Some(&false),
            Self::Restoring { .. } => true,
        }
    }
}

impl ReadBack {
    /// What the state takes that it makes.
    fn made(&self) -> u64 {
        self.restore.as_ref().map_or(0, Restore::size)
    }

    /// Takes the next piece in, from the file that it was written to.
    fn take(&mut self, manifest: &Manifest, file: &dyn File, path: &Path) -> Result<(), SnapshotError> {
        let piece = file::verified_piece(manifest, file, path, self.next)?;
        let failed = |source| SnapshotError::restoring(path, manifest.id().index, source);
        if let Some(restore) = &mut self.restore {
            restore.push(&piece).map_err(failed)?;
        }
        self.next += 1;
        Ok(())
    }
}
