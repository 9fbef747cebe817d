//! Reads the log back, and finds its end.
//!
//! A frame is written only after the one before it is durable. So whatever does not verify and has an intact frame behind
//! it was durable once: that is damage, and is never cut. With nothing intact behind it, the frame itself tells whether it
//! was written in full (see [`super::record`]): if so it may have been acknowledged, and is damage too; if not it was never
//! acknowledged, and is cut. Everything is read and judged before anything is changed.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use quorate_raft::{Entry, HardState, Index, LogId, MemberId};

use super::disk::Disk;
use super::record::{self, BLOCK, Defect, Frame};
use super::segment::{self, Segment};
use super::{Context, OpenError, prepare};

/// What stands in a log's directory.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Oldest first. The log ends in the last one. None before the first start.
    pub(super) segments: VecDeque<Segment>,
    /// A segment that was prepared and not used yet.
    pub(super) spare: Option<Segment>,
    /// Files to be used again.
    pub(super) free: Vec<PathBuf>,
    /// Where the next frame goes, in the last segment.
    pub(super) position: u64,
    pub(super) log: Log,
    /// A torn frame was found and cut.
    pub(super) cut: bool,
}

/// What the frames say, up to one of them.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Of the newest frame; 0 before the first.
    pub(super) sequence: u64,
    pub(super) checksum: u32,
    pub(super) hard_state: HardState,
    pub(super) base: LogId,
    pub(super) last: Index,
    pub(super) entries: Vec<Entry>,
    /// Older segments were released: what stood before the first frame is not known.
    headless: bool,
}

/// A place where the log may end.
#[derive(Debug)]
struct End {
    /// Which of the segments.
    segment: usize,
    offset: usize,
    defect: Defect,
    /// From the offset up to here something is not zero.
    dirty: usize,
}

/// A log as it was read and judged, before anything is done about it.
#[derive(Debug, Default)]
pub(super) struct Reading {
    found: Found,
    /// What has to be zero again: in which segment, from where to where.
    torn: Vec<(usize, u64, u64)>,
    /// The bytes of the newest frame.
    newest_frame: Vec<u8>,
}

/// Reads the log of `member` in `dir`, and mends a torn end.
pub(super) fn recover(disk: &dyn Disk, dir: &Path, member: MemberId) -> Result<Found, OpenError> {
    read_log(disk, dir, member)?.repair()
}

/// Reads the log of `member` in `dir`, and changes nothing.
pub(super) fn read_log(disk: &dyn Disk, dir: &Path, member: MemberId) -> Result<Reading, OpenError> {
    let (numbers, free) = list(disk, dir)?;
    let Some(oldest) = numbers.first() else {
        return Ok(Reading { found: Found { free, ..Found::default() }, ..Reading::default() });
    };
    let mut log = Log { headless: *oldest > 1, ..Log::default() };
    let mut segments = VecDeque::with_capacity(numbers.len());
    let mut ends: Vec<End> = Vec::new();
    let mut newest_frame = Vec::new();
    for (place, number) in numbers.iter().enumerate() {
        let (segment, contents) = read(disk, dir, member, *number)?;
        segments.push_back(segment);
        walk(place, &mut segments, &contents, &mut log, &mut ends, &mut newest_frame)?;
    }
    log.complete().map_err(|what| damaged(&segments[0], BLOCK, what))?;

    let end = ends.first().expect("the last segment has an end");
    let (active, position) = (end.segment, end.offset as u64);
    if segments.len() > active + 2 {
        return Err(damaged(&segments[active + 1], BLOCK, "no frames, with more segments behind"));
    }
    for end in &ends {
        if let Defect::Damaged(what) = &end.defect {
            return Err(damaged(&segments[end.segment], end.offset, what));
        }
    }

    let torn = ends.iter().filter(|end| end.dirty > end.offset);
    let torn: Vec<_> = torn.map(|end| (end.segment, end.offset as u64, end.dirty as u64)).collect();
    let spare = (segments.len() > active + 1).then(|| segments.pop_back()).flatten();
    let found = Found { cut: !torn.is_empty(), segments, spare, free, position, log };
    Ok(Reading { found, torn, newest_frame })
}

impl Reading {
    fn repair(self) -> Result<Found, OpenError> {
        let Self { found, torn, newest_frame } = self;
        let segments: Vec<&Segment> = found.segments.iter().chain(&found.spare).collect();
        for (segment, from, to) in torn {
            clear(segments[segment], from, to)?;
        }
        if let Some(active) = found.segments.back() {
            settle(active, found.position, &newest_frame)?;
        }
        Ok(found)
    }
}

/// The numbers of the segments, in order and without a gap, and the files to be used again.
fn list(disk: &dyn Disk, dir: &Path) -> Result<(Vec<u64>, Vec<PathBuf>), OpenError> {
    let names = disk.list(dir).on("list", dir)?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::number_of(name)).collect();
    numbers.sort_unstable();
    for pair in numbers.windows(2) {
        if pair[0] + 1 != pair[1] {
            let path = segment::path(dir, pair[0] + 1);
            return Err(OpenError::Damaged { path, offset: 0, what: "the segment is missing".to_owned() });
        }
    }
    let mut free: Vec<PathBuf> =
        names.iter().filter(|name| prepare::is_free(name)).map(|n| dir.join(n)).collect();
    free.sort_unstable();
    Ok((numbers, free))
}

/// Opens a segment, verifies its header and reads it whole.
fn read(disk: &dyn Disk, dir: &Path, member: MemberId, number: u64) -> Result<(Segment, Vec<u8>), OpenError> {
    let path = segment::path(dir, number);
    let file = disk.open(&path).on("open", &path)?;
    let length = file.len().on("read", &path)?;
    let mut contents = vec![0; length as usize];
    file.read_at(&mut contents, 0).on("read", &path)?;
    let bytes = segment::check_header(&contents, &path, member, number)?;
    contents.truncate(bytes as usize);
    Ok((Segment { file, path, number, bytes, highest: 0 }, contents))
}

/// Takes in the frames of the segment at `place`, whose bytes are `contents`, and notes where they end.
fn walk(
    place: usize,
    segments: &mut VecDeque<Segment>,
    contents: &[u8],
    log: &mut Log,
    ends: &mut Vec<End>,
    newest_frame: &mut Vec<u8>,
) -> Result<(), OpenError> {
    let mut offset = BLOCK;
    let defect = loop {
        if offset >= contents.len() {
            break Defect::Absent;
        }
        let frame = match record::decode(&contents[offset..], segments[place].number) {
            Ok(frame) => frame,
            Err(defect) => break defect,
        };
        if !log.precedes(&frame) {
            let (segment, at) = ends.first().map_or((place, offset), |end| (end.segment, end.offset));
            return Err(damaged(&segments[segment], at, "frames are missing here"));
        }
        // The log did not end before: it went on in this segment.
        ends.clear();
        newest_frame.clear();
        newest_frame.extend_from_slice(&contents[offset..offset + frame.bytes]);
        if frame.header.reset {
            for segment in &mut *segments {
                segment.highest = 0;
            }
        }
        let segment = &mut segments[place];
        if frame.header.reset || !frame.entries.is_empty() {
            segment.highest = segment.highest.max(frame.header.last);
        }
        offset += frame.bytes;
        let start = offset - newest_frame.len();
        log.take(frame).map_err(|what| damaged(segment, start, what))?;
    };

    let behind = offset + contents.get(offset..).and_then(record::extent).unwrap_or(BLOCK);
    if let Some(intact) = find_frame(contents, behind, segments[place].number) {
        let what = match defect {
            Defect::Damaged(what) => what,
            Defect::Absent | Defect::Torn => "a frame is gone, in whole or in part".to_owned(),
        };
        return Err(damaged(
            &segments[place],
            offset,
            format!("{what}, and an intact frame follows at byte {intact}"),
        ));
    }
    let dirty =
        (offset..contents.len()).step_by(BLOCK).rfind(|at| !record::is_blank(&contents[*at..][..BLOCK]));
    let dirty = dirty.map_or(offset, |at| at + BLOCK);
    ends.push(End { segment: place, offset, defect, dirty });
    Ok(())
}

/// The first intact frame at or behind `offset`.
fn find_frame(contents: &[u8], offset: usize, segment: u64) -> Option<usize> {
    (offset..contents.len()).step_by(BLOCK).find(|at| record::decode(&contents[*at..], segment).is_ok())
}

impl Log {
    /// Whether `frame` is the next one.
    fn precedes(&self, frame: &Frame) -> bool {
        let unknown = self.headless && self.sequence == 0;
        unknown || (frame.header.sequence == self.sequence + 1 && frame.header.previous == self.checksum)
    }

    /// Takes in the next frame.
    fn take(&mut self, frame: Frame) -> Result<(), &'static str> {
        let Frame { header, entries, checksum, .. } = frame;
        if self.sequence == 0 && self.headless {
            self.last = header.last - entries.len() as u64;
        }
        if header.hard_state.term < self.hard_state.term || header.base.index < self.base.index {
            return Err("a frame takes back what an earlier one says");
        }
        if header.reset {
            self.entries.clear();
            self.last = header.base.index;
        }
        match entries.first().map(|e| e.index) {
            Some(first) if first > self.last + 1 => return Err("entries are missing before this frame"),
            None if header.last != self.last => return Err("entries are missing before this frame"),
            Some(first) => {
                let keep = self.entries.partition_point(|e| e.index < first);
                self.entries.truncate(keep);
            }
            None => {}
        }
        self.entries.extend(entries);
        self.sequence = header.sequence;
        self.checksum = checksum;
        self.hard_state = header.hard_state;
        self.base = header.base;
        self.last = header.last;
        Ok(())
    }

    /// Drops what is not needed any more, and verifies that the rest is there.
    fn complete(&mut self) -> Result<(), &'static str> {
        if self.headless && self.sequence == 0 {
            return Err("no frames, and earlier segments are gone");
        }
        let base = self.base.index;
        self.entries.drain(..self.entries.partition_point(|e| e.index <= base));
        let first = self.entries.first().map_or(self.last + 1, |e| e.index);
        if first > base + 1 {
            return Err("the entries before this segment are missing");
        }
        // It says what is known to be committed, and is written with what it may run ahead of.
        self.hard_state.commit = self.hard_state.commit.min(self.last);
        Ok(())
    }
}

/// Cuts a torn frame: what lies ahead of the end is zero again, durably.
fn clear(segment: &Segment, from: u64, to: u64) -> Result<(), OpenError> {
    tracing::warn!(
        file = %segment.path.display(), offset = from, bytes = to - from,
        "cut a group that was not written in full before the last stop; it was never acknowledged"
    );
    let zeros = vec![0; (to - from) as usize];
    segment.file.write_at(&zeros, from).on("write", &segment.path)?;
    segment.file.sync().on("sync", &segment.path)
}

/// Makes the newest frame durable. It may have been written and not synced when the process ended; and after a sync that
/// failed, the page cache shows it as clean although the disk never got it. So it is written again, the same as it is.
fn settle(segment: &Segment, position: u64, newest_frame: &[u8]) -> Result<(), OpenError> {
    if position > BLOCK as u64 {
        let start = position - newest_frame.len() as u64;
        segment.file.write_at(newest_frame, start).on("write", &segment.path)?;
    }
    segment.file.sync().on("sync", &segment.path)
}

fn damaged(segment: &Segment, offset: usize, what: impl Into<String>) -> OpenError {
    OpenError::Damaged { path: segment.path.clone(), offset: offset as u64, what: what.into() }
}
