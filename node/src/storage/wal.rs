//! The write-ahead log: one frame, one write and one fdatasync for each group.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use quorate_raft::{Entry, HardState, Index, MemberId, Restored, Write};

use super::disk::{Disk, OsDisk};
use super::prepare::Preparer;
use super::record::{self, BLOCK, Header};
use super::recovery::{self, Found};
use super::segment::Segment;
use super::{Context, OpenError, WAL_DIR, WalError};

/// A buffer that a large group has made larger than this is given back.
const KEPT_BUFFER: usize = 4 << 20;

/// How a log is kept.
#[derive(Debug, Clone)]
pub struct WalOptions {
    /// Whose log it is; another's is refused.
    pub member: MemberId,
    /// The size of a segment in bytes, a multiple of 4096. May change from one start to the next.
    pub segment_bytes: u64,
    /// Where it is kept.
    pub disk: Arc<dyn Disk>,
}

impl WalOptions {
    /// Segments of 64 MiB on the machine's file system.
    pub fn new(member: MemberId) -> Self {
        Self { member, segment_bytes: 64 << 20, disk: Arc::new(OsDisk) }
    }
}

/// What was durable.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// Term, vote and commit.
    pub hard_state: HardState,
    /// The log: from index 1, or from the index that was given to [`Wal::release_before`].
    pub entries: Vec<Entry>,
    /// A frame that was not written in full was cut. It was never acknowledged, unless the device has turned whole sectors
    /// of a durable frame to zeros: that cannot be told apart.
    pub uncertain_tail: bool,
}

impl From<Recovered> for Restored {
    fn from(recovered: Recovered) -> Self {
        Self { hard_state: recovered.hard_state, snapshot: None, entries: recovered.entries }
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
    floor: Index,
    last: Index,
    buffer: Vec<u8>,
    bytes_written: u64,
    full: bool,
    poisoned: Option<String>,
}

impl Wal {
    /// Opens the log in data directory `dir`, or begins one. A torn tail is cut; damage is an error, and nothing is changed.
    ///
    /// # Panics
    /// When the size of a segment is not a multiple of 4096, or has no room for a frame.
    pub fn open(dir: &Path, options: WalOptions) -> Result<(Self, Recovered), OpenError> {
        let WalOptions { member, segment_bytes, disk } = options;
        let block = BLOCK as u64;
        assert!(segment_bytes.is_multiple_of(block) && segment_bytes > block, "a bad segment size");
        let wal_dir = dir.join(WAL_DIR);
        match disk.create_dir(&wal_dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).on("create", &wal_dir);
            }
            _ => disk.sync_dir(dir).on("sync", dir)?,
        }
        disk.sync_dir(&wal_dir).on("sync", &wal_dir)?;

        let found = recovery::recover(disk.as_ref(), &wal_dir, member)?;
        let Found { mut segments, spare, free, mut position, log, cut } = found;
        let mut preparer = Preparer::new(disk, wal_dir, member, segment_bytes, free, spare);
        if segments.is_empty() {
            segments.push_back(preparer.take(1, 0)?);
            position = block;
        }
        let wal = Self {
            preparer,
            segments,
            position,
            sequence: log.sequence,
            checksum: log.checksum,
            hard_state: log.hard_state,
            floor: log.floor,
            last: log.last,
            buffer: Vec::new(),
            bytes_written: 0,
            full: false,
            poisoned: None,
        };
        Ok((wal, Recovered { hard_state: log.hard_state, entries: log.entries, uncertain_tail: cut }))
    }

    /// Makes `batch` durable, in order and as one unit. An entry that is not beyond the end replaces the tail from its index on.
    /// An error is final: see [`WalError`].
    ///
    /// # Panics
    /// When the entries leave a gap, or are of a term above the hard state's: the protocol never asks for that.
    pub fn append(&mut self, batch: &[Write]) -> Result<(), WalError> {
        let (hard_state, entries) = merge(batch);
        if hard_state.is_none() && entries.is_empty() {
            return Ok(());
        }
        let hard_state = hard_state.unwrap_or(self.hard_state);
        if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
            assert!(
                first.index <= self.last + 1,
                "entries {}.. leave a gap behind {}",
                first.index,
                self.last
            );
            assert!(first.index >= self.floor, "entry {} was released already", first.index);
            assert!(last.term <= hard_state.term, "an entry of term {} before the term", last.term);
        }
        self.guarded(|wal| {
            wal.pay_debt()?;
            wal.write_frame(hard_state, wal.floor, &entries)
        })
    }

    /// Does a piece of background work: makes the next segment ready. Returns whether more is to do. To be called when there is
    /// nothing to append; a piece takes a millisecond or so.
    pub fn prepare(&mut self) -> Result<bool, WalError> {
        self.guarded(Self::prepare_piece)
    }

    /// Gives up the entries before `index`: a snapshot covers them. Their space is used again.
    ///
    /// # Panics
    /// When `index` is beyond the end of the log.
    pub fn release_before(&mut self, index: Index) -> Result<(), WalError> {
        assert!(index <= self.last + 1, "cannot release before {index}: the log ends at {}", self.last);
        if index <= self.floor {
            return Ok(());
        }
        self.guarded(|wal| {
            // First that they may be gone, durably; then they go, oldest first.
            wal.write_frame(wal.hard_state, index, &[])?;
            while wal.segments.len() > 1 && wal.segments[0].highest < index {
                let segment = wal.segments.pop_front().expect("there is more than one");
                wal.preparer.recycle(segment)?;
            }
            Ok(())
        })
    }

    /// How many bytes of frames this process has written.
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    /// The latch: what fails once fails for good.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, WalError>) -> Result<T, WalError> {
        if let Some(reason) = &self.poisoned {
            return Err(WalError::Poisoned(reason.clone()));
        }
        work(self).inspect_err(|error| self.poisoned = Some(error.to_string()))
    }

    fn active(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("there is always an active segment")
    }

    /// Writes one frame and makes it durable.
    fn write_frame(
        &mut self,
        hard_state: HardState,
        floor: Index,
        entries: &[&Entry],
    ) -> Result<(), WalError> {
        let last = entries.last().map_or(self.last, |entry| entry.index);
        let mut header = Header {
            segment: self.active().number,
            sequence: self.sequence + 1,
            previous: self.checksum,
            hard_state,
            floor,
            last,
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        let too_large = |_| WalError::TooLarge;
        let mut checksum = record::encode(&mut buffer, &header, entries).map_err(too_large)?;
        if self.position + buffer.len() as u64 > self.active().bytes {
            self.roll(buffer.len() as u64)?;
            header.segment = self.active().number;
            checksum = record::encode(&mut buffer, &header, entries).map_err(too_large)?;
        }

        let position = self.position;
        let active = self.active();
        active.file.write_at(&buffer, position).during("write", &active.path)?;
        active.file.sync().during("sync", &active.path)?;

        if !entries.is_empty() {
            active.highest = active.highest.max(last);
        }
        self.position += buffer.len() as u64;
        self.bytes_written += buffer.len() as u64;
        self.sequence = header.sequence;
        self.checksum = checksum;
        self.hard_state = hard_state;
        self.floor = floor;
        self.last = last;
        buffer.shrink_to(KEPT_BUFFER);
        self.buffer = buffer;
        Ok(())
    }

    /// Goes on in the next segment.
    fn roll(&mut self, room: u64) -> Result<(), WalError> {
        let number = self.active().number + 1;
        let next = self.preparer.take(number, room)?;
        self.segments.push_back(next);
        self.position = BLOCK as u64;
        Ok(())
    }

    /// Under a load that leaves no idle time, appends do the preparing, at the pace of the log itself, so that the next segment is
    /// there when this one is full. Of groups of a block, fewer than one in a hundred waits for a piece.
    fn pay_debt(&mut self) -> Result<(), WalError> {
        if self.preparer.filled() < self.position.saturating_sub(BLOCK as u64) {
            self.prepare_piece()?;
        }
        Ok(())
    }

    /// A full disk is no failure yet: there is room in the active segment.
    fn prepare_piece(&mut self) -> Result<bool, WalError> {
        let number = self.active().number + 1;
        match self.preparer.step(number) {
            Err(error @ WalError::NoSpace { .. }) => {
                if !self.full {
                    let left = self.active().bytes - self.position;
                    tracing::warn!(%error, left, "the log has no room for its next segment");
                }
                self.full = true;
                Ok(false)
            }
            other => {
                self.full = false;
                other
            }
        }
    }
}

/// One group of the writes: the newest hard state, and the entries that are left when each has replaced the tail before it.
fn merge(batch: &[Write]) -> (Option<HardState>, Vec<&Entry>) {
    let mut hard_state = None;
    let mut entries: Vec<&Entry> = Vec::with_capacity(batch.iter().map(|w| w.entries.len()).sum());
    for write in batch {
        hard_state = write.hard_state.or(hard_state);
        if let Some(first) = write.entries.first() {
            entries.truncate(entries.partition_point(|e| e.index < first.index));
            entries.extend(&write.entries);
        }
    }
    assert!(entries.windows(2).all(|pair| pair[0].index + 1 == pair[1].index), "entries with a gap");
    (hard_state, entries)
}
