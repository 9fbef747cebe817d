//! Reads the log back, and finds its end and what is damaged.
//!
//! A frame is written only after the one before it is durable. So whatever does not verify and has a frame behind it was durable
//! once: that is damage. With nothing behind it, the frame itself tells whether it was written in full (see
//! [`super::record`]): if so it may have been acknowledged, and is damage too; if not it was never acknowledged, and is cut.
//!
//! Damage is never cut away. What it has taken is reported, and the log goes on behind it. But when the newest frame's header is
//! gone, term and vote are: nothing makes that good, and it is an error. Everything is read and judged before anything is
//! changed.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use quorate_raft::{LogId, MemberId};

use super::disk::{Disk, File};
use super::record::{self, BLOCK, Defect, Frame};
use super::replay::{Log, Replay};
use super::segment::{self, Segment};
use super::{Context, Damage, OpenError, prepare};
use crate::level::{Levels, Subject};

/// What is taken for a block that cannot be read: nothing that is written looks like it.
const UNREADABLE: u8 = 0xff;

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
    pub(super) damage: Vec<Damage>,
    /// What was not written in full, and is cut when the log is opened.
    pub(super) torn: Vec<Damage>,
}

/// A segment that was read.
#[derive(Debug)]
struct Scanned {
    segment: Segment,
    /// Where frames with an intact header start, and what they are.
    frames: Vec<(usize, Frame)>,
    /// What stands behind the last of them.
    defect: Defect,
    /// Behind this nothing but zeros.
    dirty: usize,
}

/// Something that is wrong with a segment's file.
#[derive(Debug)]
struct Flaw {
    damage: Damage,
    /// It can be borne when there are frames in this or a later one of the segments: else the newest frame may be gone.
    borne_by: usize,
}

/// Where the log's newest frame is.
#[derive(Debug)]
struct Newest {
    segment: usize,
    offset: usize,
    bytes: usize,
    checksum: u32,
    intact: bool,
}

/// A log as it was read and judged, before anything is done about it.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) found: Found,
    /// What has to be zero again: in which segment, from where to where.
    torn: Vec<(usize, u64, u64)>,
    newest: Option<Newest>,
}

/// Reads the log of `member` in `dir`, and mends a torn end. What `covered` names, and all before it, is not missed.
pub(super) fn recover(
    disk: &dyn Disk,
    dir: &Path,
    member: MemberId,
    covered: Option<LogId>,
) -> Result<Found, OpenError> {
    read_log(disk, dir, member, covered)?.repair()
}

/// Reads the log of `member` in `dir`, and changes nothing.
pub(super) fn read_log(
    disk: &dyn Disk,
    dir: &Path,
    member: MemberId,
    covered: Option<LogId>,
) -> Result<Reading, OpenError> {
    let (numbers, free) = list(disk, dir)?;
    let Some(oldest) = numbers.first() else {
        return Ok(Reading { found: Found { free, ..Found::default() }, ..Reading::default() });
    };
    let mut flaws = missing(dir, &numbers);
    let mut scanned = Vec::with_capacity(numbers.len());
    // One buffer for all segments: the system would give the memory of each page by page.
    let mut contents = Vec::new();
    for (place, number) in numbers.iter().enumerate() {
        let segment = read(disk, dir, member, *number, place, &mut contents, &mut flaws)?;
        let segment = scan(segment, &contents);
        refuse_newer(&segment)?;
        scanned.push(segment);
    }
    drop(contents);
    take_torn_frame(&mut scanned);
    let newest = newest(&scanned);
    check_end(&scanned, newest.as_ref(), flaws.iter(), *oldest)?;

    let mut damage: Vec<Damage> = flaws.into_iter().map(|flaw| flaw.damage).collect();
    let replay = if *oldest > 1 { Replay::headless() } else { Replay::from_the_beginning() };
    let log = replay_all(&mut scanned, replay, covered, &mut damage)?;
    Ok(reading(scanned, newest, Found { free, log, damage, ..Found::default() }))
}

/// Puts together what was found.
fn reading(scanned: Vec<Scanned>, newest: Option<Newest>, found: Found) -> Reading {
    let (active, end) = newest.as_ref().map_or((0, BLOCK), |n| (n.segment, n.offset + n.bytes));
    let mut torn = Vec::new();
    for (place, Scanned { dirty, .. }) in scanned.iter().enumerate().skip(active) {
        let end = if place == active { end } else { BLOCK };
        if *dirty > end {
            torn.push((place, end as u64, *dirty as u64));
        }
    }
    let mut segments: VecDeque<Segment> = scanned.into_iter().map(|scanned| scanned.segment).collect();
    let cut = |(place, from, to): &(usize, u64, u64)| Damage {
        path: segments[*place].path.clone(),
        offset: *from,
        what: format!("{} bytes of a group that was not written in full", to - from),
    };
    let cut = torn.iter().map(cut).collect();
    let spare = (segments.len() > active + 1).then(|| segments.pop_back()).flatten();
    let found = Found { segments, spare, position: end as u64, torn: cut, ..found };
    Reading { found, torn, newest }
}

impl Reading {
    fn repair(self) -> Result<Found, OpenError> {
        let Self { found, torn, newest } = self;
        let segments: Vec<&Segment> = found.segments.iter().chain(&found.spare).collect();
        for (segment, from, to) in torn {
            clear(segments[segment], from, to)?;
        }
        if let Some(active) = found.segments.back() {
            settle(active, newest.as_ref())?;
        }
        Ok(found)
    }
}

/// The numbers of the segments, in order, and the files to be used again.
fn list(disk: &dyn Disk, dir: &Path) -> Result<(Vec<u64>, Vec<PathBuf>), OpenError> {
    let names = disk.list(dir).on("list", dir)?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::number_of(name)).collect();
    numbers.sort_unstable();
    let mut free: Vec<PathBuf> =
        names.iter().filter(|name| prepare::is_free(name)).map(|n| dir.join(n)).collect();
    free.sort_unstable();
    Ok((numbers, free))
}

/// The segments that should be there between those that are.
fn missing(dir: &Path, numbers: &[u64]) -> Vec<Flaw> {
    let gaps = numbers.windows(2).enumerate().filter(|(_, pair)| pair[0] + 1 != pair[1]);
    let flaw = |(place, pair): (usize, &[u64])| {
        let (first, last) = (pair[0] + 1, pair[1] - 1);
        let more = if first == last { String::new() } else { format!(", with all up to {last:016x}") };
        let what = format!("the segment is missing{more}");
        Flaw { damage: Damage { path: segment::path(dir, first), offset: 0, what }, borne_by: place + 1 }
    };
    gaps.map(flaw).collect()
}

/// Opens a segment, verifies its header and reads it whole into `contents`. What is wrong with it comes to `flaws`.
fn read(
    disk: &dyn Disk,
    dir: &Path,
    member: MemberId,
    number: u64,
    place: usize,
    contents: &mut Vec<u8>,
    flaws: &mut Vec<Flaw>,
) -> Result<Segment, OpenError> {
    let path = segment::path(dir, number);
    let file = disk.open(&path).on("open", &path)?;
    let unreadable = read_all(file.as_ref(), &path, contents)?;
    flaws.extend(unreadable.map(|damage| Flaw { damage, borne_by: 0 }));
    let bytes = match segment::check_header(contents, &path, member, number) {
        Ok(bytes) => bytes as usize,
        // Its frames name their segment too. But where they end does not stand anywhere else: it must not be the newest.
        Err(OpenError::Damaged(damage)) => {
            flaws.push(Flaw { damage, borne_by: place + 1 });
            contents.len()
        }
        Err(other) => return Err(other),
    };
    contents.truncate(bytes / BLOCK * BLOCK);
    Ok(Segment { file: Some(file), path, number, bytes: contents.len() as u64, highest: 0 })
}

/// Reads a file whole into `contents`. Where the disk reports an error, that is what is taken for them, and said.
fn read_all(file: &dyn File, path: &Path, contents: &mut Vec<u8>) -> Result<Option<Damage>, OpenError> {
    let length = file.len().on("read", path)?;
    contents.resize(usize::try_from(length).map_err(std::io::Error::other).on("read", path)?, 0);
    let Err(error) = file.read_at(contents, 0) else { return Ok(None) };

    let mut unreadable = Vec::new();
    let blocks = contents.chunks_mut(BLOCK);
    let count = blocks.len();
    for (block, offset) in blocks.zip((0..).step_by(BLOCK)) {
        if file.read_at(block, offset).is_err() {
            block.fill(UNREADABLE);
            unreadable.push(offset);
        }
    }
    if unreadable.len() == count {
        return Err(error).on("read", path);
    }
    Ok(unreadable.first().map(|offset| Damage {
        path: path.to_owned(),
        offset: *offset,
        what: format!("{} blocks cannot be read: {error}", unreadable.len()),
    }))
}

/// Finds the frames in a segment.
fn scan(segment: Segment, contents: &[u8]) -> Scanned {
    let mut frames = Vec::new();
    let mut end = BLOCK;
    let mut at = BLOCK;
    let mut defect = Defect::Absent;
    while at < contents.len() {
        match record::decode(&contents[at..], segment.number) {
            Ok(frame) => {
                let next = at + frame.bytes;
                frames.push((at, frame));
                (at, end, defect) = (next, next, Defect::Absent);
            }
            Err(found) => {
                if at == end {
                    defect = found;
                }
                at += BLOCK;
            }
        }
    }
    let blank = |at: &usize| record::is_blank(&contents[*at..*at + BLOCK]);
    let dirty = (BLOCK..contents.len()).step_by(BLOCK).rfind(|at| !blank(at));
    Scanned { segment, frames, defect, dirty: dirty.map_or(BLOCK, |at| at + BLOCK) }
}

/// An error if a newer version has written a frame of a segment: what it holds is neither damaged nor to be missed.
fn refuse_newer(scanned: &Scanned) -> Result<(), OpenError> {
    let newer = |(_, frame): &(usize, Frame)| match frame.entries {
        Err(Defect::Newer(index, needs)) => Some(Levels::ALL.lacks(Subject::Entry(index), needs)),
        _ => None,
    };
    scanned.frames.iter().find_map(newer).map_or(Ok(()), |unsupported| Err(unsupported.into()))
}

/// Takes the newest frame away if it was not written in full. What is left is the log, as long as that frame follows upon it:
/// with one missing in between, its header is the only one that tells term and vote, and it stays.
fn take_torn_frame(scanned: &mut [Scanned]) {
    let mut frames = scanned.iter().flat_map(|s| &s.frames).rev().map(|(_, frame)| frame);
    let Some(Frame { header, entries: Err(Defect::Torn), .. }) = frames.next() else { return };
    let before = frames.next().map_or((0, 0), |frame| (frame.header.sequence, frame.checksum));
    if (header.sequence.checked_sub(1), header.previous) == (Some(before.0), before.1) {
        let last = scanned.iter_mut().rfind(|s| !s.frames.is_empty()).expect("it stands in one of them");
        last.frames.pop();
        last.defect = Defect::Torn;
    }
}

fn newest(scanned: &[Scanned]) -> Option<Newest> {
    let (segment, last) = scanned.iter().enumerate().rfind(|(_, s)| !s.frames.is_empty())?;
    let (offset, Frame { bytes, checksum, ref entries, .. }) = *last.frames.last()?;
    Some(Newest { segment, offset, bytes, checksum, intact: entries.is_ok() })
}

/// Whether the newest frame that was found is the newest that there was. Without its term and vote nothing can begin.
fn check_end<'f>(
    scanned: &[Scanned],
    newest: Option<&Newest>,
    flaws: impl Iterator<Item = &'f Flaw>,
    oldest: u64,
) -> Result<(), OpenError> {
    let (active, end) = newest.map_or((0, BLOCK), |newest| (newest.segment, newest.offset + newest.bytes));
    for flaw in flaws {
        if newest.is_none() || active < flaw.borne_by {
            return Err(flaw.damage.clone().into());
        }
    }
    if newest.is_none() && oldest > 1 {
        return Err(damage(&scanned[0], BLOCK, "no frames, and earlier segments are gone").into());
    }
    if scanned.len() > active + 2 {
        return Err(damage(&scanned[active + 1], BLOCK, "no frames, with more segments behind").into());
    }
    for (place, segment) in scanned.iter().enumerate().skip(active) {
        if let Defect::Damaged(what) = &segment.defect {
            return Err(damage(segment, if place == active { end } else { BLOCK }, what.as_str()).into());
        }
    }
    Ok(())
}

/// Takes in all frames, in order. What turns out to be gone comes to `damaged`.
fn replay_all(
    scanned: &mut [Scanned],
    mut replay: Replay,
    covered: Option<LogId>,
    damaged: &mut Vec<Damage>,
) -> Result<Log, OpenError> {
    // Where the frame before ends.
    let mut end = (0, BLOCK);
    for place in 0..scanned.len() {
        for (offset, frame) in std::mem::take(&mut scanned[place].frames) {
            let skipped = if end.0 == place { end.1 } else { BLOCK };
            let gap = if offset > skipped { (place, skipped) } else { end };
            end = (place, offset + frame.bytes);
            note_highest(scanned, place, &frame);
            let taken = replay.take(frame).map_err(|what| damage(&scanned[place], offset, what))?;
            let gone = taken.gap.map(|what| damage(&scanned[gap.0], gap.1, what));
            let hole = taken.hole.map(|what| damage(&scanned[place], offset, what));
            damaged.extend(gone.into_iter().chain(hole));
        }
    }
    let (log, what) = replay.finish(covered);
    damaged.extend(what.map(|what| damage(&scanned[0], 0, what)));
    Ok(log)
}

/// A segment is needed as long as the highest entry in it is.
fn note_highest(scanned: &mut [Scanned], place: usize, frame: &Frame) {
    let (before, last) = (frame.header.before.index, frame.header.last.index);
    if frame.header.reset {
        for scanned in &mut *scanned {
            scanned.segment.highest = 0;
        }
    }
    if frame.header.reset || before < last {
        let highest = &mut scanned[place].segment.highest;
        *highest = last.max(*highest);
    }
}

/// Cuts a torn frame: what lies ahead of the end is zero again, durably.
fn clear(segment: &Segment, from: u64, to: u64) -> Result<(), OpenError> {
    tracing::warn!(
        file = %segment.path.display(), offset = from, bytes = to - from,
        "cut a group that was not written in full before the last stop; it was never acknowledged"
    );
    let zeros = vec![0; (to - from) as usize];
    segment.file().write_at(&zeros, from).on("write", &segment.path)?;
    segment.file().sync().on("sync", &segment.path)
}

/// Makes the newest frame durable. It may have been written and not synced when the process ended; and after a sync that
/// failed, the page cache shows it as clean although the disk never got it. So it is written again, the same as it is. A
/// damaged one stays as it is.
fn settle(segment: &Segment, newest: Option<&Newest>) -> Result<(), OpenError> {
    if let Some(Newest { offset, bytes, checksum, intact: true, .. }) = newest {
        let start = *offset as u64;
        let mut frame = vec![0; *bytes];
        segment.file().read_at(&mut frame, start).on("read", &segment.path)?;
        let same = |read: Frame| read.entries.is_ok() && read.checksum == *checksum;
        if !record::decode(&frame, segment.number).is_ok_and(same) {
            let what = "a frame is not the same when it is read again".to_owned();
            return Err(Damage { path: segment.path.clone(), offset: start, what }.into());
        }
        segment.file().write_at(&frame, start).on("write", &segment.path)?;
    }
    segment.file().sync().on("sync", &segment.path)
}

fn damage(scanned: &Scanned, offset: usize, what: impl Into<String>) -> Damage {
    Damage { path: scanned.segment.path.clone(), offset: offset as u64, what: what.into() }
}
