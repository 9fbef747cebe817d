//! The write-ahead log: one frame, one write and one fdatasync for each group.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use quorate_raft::{Entry, HardState, Index, LogId, MemberId, Restored, Snapshot, Write};

use super::disk::{Disk, OsDisk};
use super::prepare::{PIECE, Preparer};
use super::record::{self, BLOCK, Header};
use super::recovery::{self, Found};
use super::replay::Log;
use super::segment::Segment;
use super::terms::Terms;
use super::{Context, Damage, OpenError, WAL_DIR, WalError};

/// A buffer that a large group has made larger than this is given back.
const KEPT_BUFFER: usize = 4 << 20;

/// What a group weighs at most: 80 ms of a disk that writes 50 MB/s, and as much again when it has to be zeroed first.
const MOST_GROUP: usize = 4 << 20;

/// A group of so many bytes is large, as is one that takes a quarter of a segment: a disk that writes 50 MB/s takes 20 ms for it, and a few
/// for the metadata of reserved blocks.
const LARGE_GROUP: u64 = 1 << 20;

/// For the sake of what is left of a segment no group is made smaller than this: a sync more costs more than the room.
const LEAST_GROUP: usize = 256 << 10;

/// How many of the newest segments stay open; the others are of no use but to be given up. With these, what is to follow them and the directory
/// a log has [`OPEN_FILES`] files open, however long it is.
const OPEN_SEGMENTS: usize = 4;

/// The most files that a log has open: its newest segments, the next one, one to be used again, and the directory.
pub(crate) const OPEN_FILES: usize = OPEN_SEGMENTS + 3;

/// How a log is kept.
#[derive(Debug, Clone)]
pub struct WalOptions {
    /// Whose log it is; another's is refused.
    pub member: MemberId,
    /// The size of a segment in bytes, a multiple of 4096. May change from one start to the next.
    pub segment_bytes: u64,
    /// Where it is kept.
    pub disk: Arc<dyn Disk>,
    /// The last entry that the newest whole snapshot of the member covers: up to there nothing that is damaged is missed.
    pub covered: Option<LogId>,
}

impl WalOptions {
    /// Segments of 64 MiB on the machine's file system.
    pub fn new(member: MemberId) -> Self {
        Self { member, segment_bytes: 64 << 20, disk: Arc::new(OsDisk), covered: None }
    }
}

/// What was durable.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// Term, vote and commit; the latter not beyond the entries that are there.
    pub hard_state: HardState,
    /// The entry that the log begins after: (0, 0), or what the last reset or [`Wal::release_before`] says, or
    /// [`WalOptions::covered`] when what stands before that is damaged. A snapshot that covers it has to be there: without one,
    /// something is lost.
    pub base: LogId,
    /// The log, from the entry after `base` on, up to the first one that is damaged.
    pub entries: Vec<Entry>,
    /// A frame that was not written in full was cut. It was never acknowledged, unless the device has turned whole sectors
    /// of a durable frame to zeros: that cannot be told apart.
    pub uncertain_tail: bool,
    /// Entries are missing, and none that is there is as new as this one, which the log has held. Until it is made good the
    /// member must not take part in elections. At each start this is found again, until the log ends with an entry at least as
    /// new.
    pub lost: Option<LogId>,
    /// What is damaged, whether or not it has taken anything that is needed.
    pub damage: Vec<Damage>,
}

impl Recovered {
    /// What the protocol starts from, with the newest snapshot. For errors see [`Self::check`].
    pub fn restore(self, member: MemberId, snapshot: Option<Snapshot>) -> Result<Restored, OpenError> {
        self.check(member, snapshot.as_ref())?;
        Ok(self.with(snapshot))
    }

    /// Whether `member` can start from this. An error when the log begins after an entry that the snapshot does not cover, and when
    /// something is lost that nobody can make good: `member` is the only voter.
    pub fn check(&self, member: MemberId, snapshot: Option<&Snapshot>) -> Result<(), OpenError> {
        let covered = snapshot.map_or(0, |snapshot| snapshot.id.index);
        if covered < self.base.index {
            return Err(OpenError::NoSnapshot { base: self.base.index, covered });
        }
        if self.lost.is_some() && self.clone().with(snapshot.cloned()).is_beyond_repair(member) {
            return Err(OpenError::OnlyVoter(self.worst()));
        }
        Ok(())
    }

    fn with(self, snapshot: Option<Snapshot>) -> Restored {
        let Self { hard_state, entries, lost, .. } = self;
        Restored { hard_state, snapshot, entries, lost }
    }

    /// The first damage, with what is missing for it.
    pub(super) fn worst(&self) -> Damage {
        let Some(worst) = self.damage.first().cloned() else {
            let what = "what earlier damage has taken was not made good yet".to_owned();
            return Damage { path: WAL_DIR.into(), offset: 0, what };
        };
        let first = self.entries.last().map_or(self.base.index, |entry| entry.index) + 1;
        let what = format!("{}; the log is whole up to entry {}", worst.what, first - 1);
        Damage { what, ..worst }
    }

    /// Says what is damaged, once at each start.
    fn warn(&self) {
        let whole_to = self.entries.last().map_or(self.base, Entry::id).index;
        for Damage { path, offset, what } in &self.damage {
            tracing::warn!(file = %path.display(), offset, what, "the log is damaged");
        }
        if let Some(lost) = self.lost {
            tracing::warn!(
                whole_to,
                held_to = lost.index,
                term = lost.term,
                "entries are missing from the log: the leader is to send them again, and this member does not vote before"
            );
        } else if !self.damage.is_empty() {
            tracing::warn!(whole_to, "nothing that is needed is missing from the log");
        }
    }
}

/// The log of one member. One writer; every call may block on the disk.
#[derive(Debug)]
pub struct Wal {
    preparer: Preparer,
    /// Oldest first; the last one is written to. Never empty.
    segments: VecDeque<Segment>,
    /// Where the next frame goes.
    position: u64,
    /// Of the newest frame.
    sequence: u64,
    checksum: u32,
    hard_state: HardState,
    base: LogId,
    last: LogId,
    /// What damage has taken, or the member has forgotten, until it is made good.
    lost: Option<LogId>,
    terms: Terms,
    buffer: Vec<u8>,
    bytes_written: u64,
    /// How much more of the next segment is zeroed than the log's own writes call for.
    ahead: u64,
    lacks: Option<Lack>,
    poisoned: Option<String>,
}

/// How much room a log has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// For frames in the active segment, in bytes. A frame takes whole blocks of 4096.
    pub active: u64,
    /// The next segment is there.
    pub spare: bool,
    /// Why there was no next segment when it was tried last. [`Wal::prepare`] tries it again.
    pub lacks: Option<Lack>,
}

/// What the next segment cannot be made without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// Room on the disk.
    Space,
    /// A descriptor: of the process or the machine.
    Descriptors,
}

impl Wal {
    /// Opens the log in data directory `dir`, or begins one. A torn tail is cut. Damage stays where it is, and is told with what it
    /// has taken: the log goes on from what is whole before. It is an error when term or vote are gone.
    ///
    /// # Panics
    /// When the size of a segment is not a multiple of 4096, or has no room for a frame.
    pub fn open(dir: &Path, options: WalOptions) -> Result<(Self, Recovered), OpenError> {
        let WalOptions { member, segment_bytes, disk, covered } = options;
        let block = BLOCK as u64;
        assert!(segment_bytes.is_multiple_of(block) && segment_bytes > block, "a bad segment size");
        let wal_dir = dir.join(WAL_DIR);
        match disk.create_dir(&wal_dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).on("create", &wal_dir);
            }
            _ => disk.sync_dir(dir).on("sync", dir)?,
        }
        let directory = disk.open_dir(&wal_dir).on("open", &wal_dir)?;
        directory.sync().on("sync", &wal_dir)?;

        let found = recovery::recover(disk.as_ref(), &wal_dir, member, covered)?;
        let Found { mut segments, spare, free, mut position, log, damage, torn } = found;
        let mut preparer = Preparer::new(disk, (wal_dir, directory), member, segment_bytes, free, spare);
        if segments.is_empty() {
            segments.push_back(preparer.take(1, 0)?);
            position = block;
        }
        let mut wal = Self {
            preparer,
            segments,
            position,
            sequence: log.sequence,
            checksum: log.checksum,
            hard_state: log.hard_state,
            base: log.base,
            last: log.entries.last().map_or(log.base, Entry::id),
            lost: log.lost,
            terms: Terms::new(log.base, &log.entries),
            buffer: Vec::new(),
            bytes_written: 0,
            ahead: 0,
            lacks: None,
            poisoned: None,
        };
        let Log { hard_state, base, entries, lost, .. } = log;
        let uncertain_tail = !torn.is_empty();
        let recovered = Recovered { hard_state, base, entries, uncertain_tail, lost, damage };
        recovered.warn();
        wal.close_full_segments();
        Ok((wal, recovered))
    }

    /// The number of the newest group that is durable: it counts up over the life of the volume.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Makes `batch` durable, in order and as one unit. An entry that is not beyond the end replaces the tail from its index on; a
    /// reset replaces the whole log, durably, together with what follows it. An error is final but for one: see [`WalError`].
    ///
    /// # Panics
    /// When the entries leave a gap, or are of a term above the hard state's, or when a reset goes back behind the beginning of
    /// the log: the protocol never asks for that.
    pub fn append(&mut self, batch: &[Write]) -> Result<(), WalError> {
        let group = merge(batch);
        let says_nothing = group.hard_state.is_none() && group.reset.is_none() && group.lost.is_none();
        if says_nothing && group.entries.is_empty() {
            return Ok(());
        }
        self.guarded(|wal| {
            let frame = wal.frame(group);
            wal.write_frame(&frame)?;
            if frame.reset { wal.recycle_all() } else { Ok(()) }
        })
    }

    /// What a group asks for, checked against the log.
    fn frame<'w>(&self, group: Group<'w>) -> Frame<'w> {
        let Group { hard_state, reset, lost, entries } = group;
        let hard_state = hard_state.unwrap_or(self.hard_state);
        let base = reset.unwrap_or(self.base);
        assert!(base.index >= self.base.index, "reset to {base:?}, but {:?} is gone already", self.base);
        let end = reset.unwrap_or(self.last);
        if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
            assert!(first.index <= end.index + 1, "entries {}.. leave a gap behind {end:?}", first.index);
            assert!(first.index > base.index, "entry {} was released already", first.index);
            assert!(last.term <= hard_state.term, "an entry of term {} before the term", last.term);
        }
        let before = match entries.first() {
            Some(first) if first.index <= end.index => self.terms.id_at(first.index - 1),
            Some(_) | None => end,
        };
        let last = entries.last().map_or(end, |entry| entry.id());
        let owed = lost.or(self.lost);
        Frame { hard_state, base, reset: reset.is_some(), before, last, lost: owed, entries }
    }

    /// Does a piece of background work: makes the next segment ready. Returns whether more is to do. To be called when there is
    /// nothing to append; a piece takes a millisecond or so.
    ///
    /// A full disk is no error, nor is a lack of descriptors: [`Wal::room`] tells of it. Then this is to be called again now and
    /// then: when there is room, the work goes on.
    pub fn prepare(&mut self) -> Result<bool, WalError> {
        self.guarded(|wal| wal.prepare_piece(PIECE))
    }

    /// What the entries of one group are to weigh at most, in bytes: no more than what a slow disk writes in a fraction of the time after
    /// which it is taken for one that hangs, nor than what is left of the active segment, so that this is used up.
    pub fn group_bytes(&self) -> usize {
        match usize::try_from(self.room().active) {
            Ok(left) if left >= LEAST_GROUP => left.min(MOST_GROUP),
            _ => MOST_GROUP,
        }
    }

    /// How much room there is. Without a spare segment, what does not fit into the active one is lost on a full disk, and the
    /// process with it: who writes should stop in time.
    pub fn room(&self) -> Room {
        let active = self.segments.back().map_or(0, |active| active.bytes - self.position);
        Room { active, spare: self.preparer.is_ready(), lacks: self.lacks }
    }

    /// Gives up the entries before `index`: a snapshot covers them. Their space is used again.
    ///
    /// # Panics
    /// When `index` is beyond the end of the log.
    pub fn release_before(&mut self, index: Index) -> Result<(), WalError> {
        assert!(
            index <= self.last.index + 1,
            "cannot release before {index}: the log ends at {:?}",
            self.last
        );
        self.guarded(|wal| {
            if index <= wal.base.index + 1 {
                return Ok(());
            }
            let base = wal.terms.id_at(index - 1);
            let Self { hard_state, last, lost, .. } = *wal;
            // First that they may be gone, durably; then they go, oldest first.
            let (reset, before, entries) = (false, last, Vec::new());
            wal.write_frame(&Frame { hard_state, base, reset, before, last, lost, entries })?;
            while wal.segments.len() > 1 && wal.segments[0].highest < index {
                wal.recycle_oldest()?;
            }
            Ok(())
        })
    }

    /// How many bytes of frames this process has written.
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    /// The latch: what fails once fails for good. Without a descriptor nothing was tried on the disk, so that does not count.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, WalError>) -> Result<T, WalError> {
        if let Some(reason) = &self.poisoned {
            return Err(WalError::Poisoned(reason.clone()));
        }
        work(self).inspect_err(|error| {
            if !matches!(error, WalError::NoDescriptors { .. }) {
                self.poisoned = Some(error.to_string());
            }
        })
    }

    fn active(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("there is always an active segment")
    }

    /// Writes one frame and makes it durable.
    fn write_frame(&mut self, frame: &Frame<'_>) -> Result<(), WalError> {
        let Frame { hard_state, base, reset, before, last, lost, ref entries } = *frame;
        let mut header = Header {
            segment: self.active().number,
            sequence: self.sequence + 1,
            previous: self.checksum,
            hard_state,
            base,
            reset,
            before,
            last,
            lost,
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        let too_large = |_| WalError::TooLarge;
        let mut checksum = record::encode(&mut buffer, &header, entries).map_err(too_large)?;
        self.pay_debt(buffer.len() as u64)?;
        if self.position + buffer.len() as u64 > self.active().bytes {
            self.roll(buffer.len() as u64)?;
            header.segment = self.active().number;
            checksum = record::encode(&mut buffer, &header, entries).map_err(too_large)?;
        }

        let position = self.position;
        let active = self.active();
        active.file().write_at(&buffer, position).during("write", &active.path)?;
        active.file().sync().during("sync", &active.path)?;

        if reset || !entries.is_empty() {
            active.highest = if reset { last.index } else { active.highest.max(last.index) };
        }
        self.position += buffer.len() as u64;
        self.bytes_written += buffer.len() as u64;
        self.sequence = header.sequence;
        self.checksum = checksum;
        self.hard_state = hard_state;
        if reset {
            self.terms = Terms::new(base, []);
        } else if base != self.base {
            self.terms.release(base);
        }
        self.terms.append(entries.iter().copied());
        self.base = base;
        self.last = last;
        // Made good: frames need not speak of it any more.
        self.lost = lost.filter(|lost| last < *lost);
        buffer.shrink_to(KEPT_BUFFER);
        self.buffer = buffer;
        Ok(())
    }

    /// Gives up every segment but the active one: no entry in them belongs to the log any more.
    fn recycle_all(&mut self) -> Result<(), WalError> {
        while self.segments.len() > 1 {
            self.recycle_oldest()?;
        }
        Ok(())
    }

    fn recycle_oldest(&mut self) -> Result<(), WalError> {
        let segment = self.segments.pop_front().expect("there is more than one");
        self.preparer.recycle(segment)
    }

    /// Goes on in the next segment.
    fn roll(&mut self, room: u64) -> Result<(), WalError> {
        let number = self.active().number + 1;
        let next = self.preparer.take(number, room)?;
        self.segments.push_back(next);
        self.close_full_segments();
        self.position = BLOCK as u64;
        self.ahead = 0;
        Ok(())
    }

    /// Closes all but the newest segments: they are durable.
    fn close_full_segments(&mut self) {
        let full = self.segments.len().saturating_sub(OPEN_SEGMENTS);
        self.segments.iter_mut().take(full).for_each(|segment| segment.file = None);
    }

    /// Under a load that leaves no idle time, appends do the preparing, so that the next segment is there when this one is full:
    /// of what is still to be zeroed each does the part that its `bytes` are of the room that is left. Of groups of a block,
    /// fewer than one in a hundred waits for a piece. Where blocks can be reserved no group does more than it writes itself, and large
    /// ones nothing.
    fn pay_debt(&mut self, bytes: u64) -> Result<(), WalError> {
        if !self.preparer.is_begun() && self.lacks.is_none() {
            self.begin_next()?;
        }
        let room = (self.active().bytes - self.position).max(1);
        let mut due = self.preparer.to_do() * bytes.min(room) / room;
        if self.preparer.is_reserved() {
            let is_large = bytes >= LARGE_GROUP.min(self.active().bytes / 4);
            due = due.min(if is_large { 0 } else { bytes });
        }
        while due > self.ahead {
            due -= std::mem::take(&mut self.ahead);
            let to_do = self.preparer.to_do();
            let more = self.prepare_piece(due)?;
            // What could not be had is tried again after as much as a piece is for.
            self.ahead = if self.lacks.is_some() { PIECE + due } else { to_do - self.preparer.to_do() };
            if !more {
                break;
            }
        }
        self.ahead = self.ahead.saturating_sub(due);
        Ok(())
    }

    fn prepare_piece(&mut self, wanted: u64) -> Result<bool, WalError> {
        let number = self.active().number + 1;
        let done = self.preparer.step(number, wanted);
        self.prepared(done)
    }

    fn begin_next(&mut self) -> Result<bool, WalError> {
        let number = self.active().number + 1;
        let done = self.preparer.begin(number).map(|()| true);
        self.prepared(done)
    }

    /// A full disk, or a lack of descriptors, is no failure yet: there is room in the active segment.
    fn prepared(&mut self, done: Result<bool, WalError>) -> Result<bool, WalError> {
        let left = self.room().active;
        let lacks = match &done {
            Err(WalError::NoSpace { .. }) => Some(Lack::Space),
            Err(WalError::NoDescriptors { .. }) => Some(Lack::Descriptors),
            _ => None,
        };
        let before = std::mem::replace(&mut self.lacks, lacks);
        match done {
            Err(error) if lacks.is_some() => {
                if before != lacks {
                    tracing::warn!(%error, left, "the log cannot make its next segment: this is tried again");
                }
                Ok(false)
            }
            done => {
                if before.is_some() && done.is_ok() {
                    tracing::info!(left, "the log can make its next segment again");
                }
                done
            }
        }
    }
}

/// What writes ask for together.
#[derive(Debug, Default)]
struct Group<'w> {
    hard_state: Option<HardState>,
    reset: Option<LogId>,
    lost: Option<LogId>,
    entries: Vec<&'w Entry>,
}

/// What a frame is to say.
#[derive(Debug)]
struct Frame<'w> {
    hard_state: HardState,
    base: LogId,
    reset: bool,
    before: LogId,
    last: LogId,
    lost: Option<LogId>,
    entries: Vec<&'w Entry>,
}

/// One group of the writes: the newest hard state, the newest reset, and the entries that are left when each has replaced the tail
/// before it.
fn merge(batch: &[Write]) -> Group<'_> {
    let mut group = Group::default();
    group.entries.reserve(batch.iter().map(|write| write.entries.len()).sum());
    for write in batch {
        let Group { hard_state, reset, lost, entries } = &mut group;
        *hard_state = write.hard_state.or(*hard_state);
        *lost = write.lost.or(*lost);
        if write.reset.is_some() {
            *reset = write.reset;
            entries.clear();
        }
        if let Some(first) = write.entries.first() {
            entries.truncate(entries.partition_point(|entry| entry.index < first.index));
            entries.extend(&write.entries);
        }
    }
    let consecutive = |pair: &[&Entry]| pair[0].index + 1 == pair[1].index;
    assert!(group.entries.windows(2).all(consecutive), "entries with a gap");
    group
}
