//! The segment after the active one, made ready ahead of need.
//!
//! A write into space that is zero already touches no metadata: it costs two thirds of one that extends the file. And zeros
//! ahead of the log's end are what recovery tells a torn frame from a damaged one by. So a segment is zeroed before it is
//! used, a released one as well as a new one, in pieces between the log's own writes; then it gets its header, is made
//! durable, and only then its name. From that moment it is an empty segment like any other.
//!
//! Zeros that are written take as much of the disk's bandwidth as the log itself. Most file systems can reserve blocks that read as
//! zeros without writing them, at the price of a little metadata with the first write into each. To large groups that is nothing: while
//! the log is written in those, its next segment is reserved, and what is not zeroed by then stays so.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_raft::MemberId;

use super::disk::{Dir, Disk, File};
use super::segment::{self, Segment};
use super::{Context, WalError};

/// What is zeroed at a time between the log's writes. The log waits no longer than this takes.
pub(super) const PIECE: u64 = 512 * 1024;

/// What is zeroed at a time when the log has to wait for more than that.
const LARGE_PIECE: u64 = 8 << 20;

/// The name of a file that is on its way to become a segment.
const SUFFIX: &str = ".free";

/// Makes segments.
#[derive(Debug)]
pub(super) struct Preparer {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// The same, open for as long as the log is: a name is made durable without a descriptor more.
    directory: Box<dyn Dir>,
    member: MemberId,
    segment_bytes: u64,
    /// Files to be used again.
    free: Vec<Free>,
    filling: Option<Filling>,
    ready: Option<Segment>,
}

/// A file to be used again. One that was a segment not long ago is still open: it is taken without a descriptor more.
#[derive(Debug)]
struct Free {
    path: PathBuf,
    file: Option<Box<dyn File>>,
}

/// A file that is being zeroed.
#[derive(Debug)]
struct Filling {
    file: Box<dyn File>,
    path: PathBuf,
    filled: u64,
    /// Whether all of it reads as zeros already, and its blocks are there; none before that was tried.
    reserved: Option<bool>,
}

/// Whether a file's name says that it can be used for a segment.
pub(super) fn is_free(name: &str) -> bool {
    name.ends_with(SUFFIX)
}

impl Preparer {
    /// Starts from the files and the unused segment that were found.
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        (dir, directory): (PathBuf, Box<dyn Dir>),
        member: MemberId,
        segment_bytes: u64,
        free: Vec<PathBuf>,
        ready: Option<Segment>,
    ) -> Self {
        let free = free.into_iter().map(|path| Free { path, file: None }).collect();
        Self { disk, dir, directory, member, segment_bytes, free, filling: None, ready }
    }

    /// Whether the next segment can be taken without waiting.
    pub(super) fn is_ready(&self) -> bool {
        self.ready.is_some()
    }

    /// How much of the next segment is still to be zeroed, in bytes.
    pub(super) fn to_do(&self) -> u64 {
        let filled = self.filling.as_ref().map_or(0, |filling| filling.filled);
        if self.is_ready() { 0 } else { self.segment_bytes - filled }
    }

    /// Whether the next segment is begun: its file is there, and it is known whether blocks can be reserved in it.
    pub(super) fn is_begun(&self) -> bool {
        self.is_ready() || self.filling.as_ref().is_some_and(|filling| filling.reserved.is_some())
    }

    /// Whether the next segment could be used without more zeros.
    pub(super) fn is_reserved(&self) -> bool {
        self.filling.as_ref().is_some_and(|filling| filling.reserved == Some(true))
    }

    /// Begins segment `number`, without zeros.
    pub(super) fn begin(&mut self, number: u64) -> Result<(), WalError> {
        self.work(number, |_, _| Ok(false)).map(drop)
    }

    /// Does a piece of the work on segment `number`: as much as is `wanted`, in whole pieces, or less. Returns whether more is to
    /// do.
    pub(super) fn step(&mut self, number: u64, wanted: u64) -> Result<bool, WalError> {
        let piece = wanted.max(1).next_multiple_of(PIECE).min(LARGE_PIECE);
        self.work(number, |filling, size| filling.zero(piece, size))
    }

    /// Does some `work` on the file of segment `number`, which says whether the file can be used then. Returns whether more is to do.
    fn work(
        &mut self,
        number: u64,
        work: impl FnOnce(&mut Filling, u64) -> Result<bool, WalError>,
    ) -> Result<bool, WalError> {
        if self.ready.is_some() {
            return Ok(false);
        }
        let mut filling = match self.filling.take() {
            Some(filling) => filling,
            None => self.open(number)?,
        };
        let done = filling.reserve(self.segment_bytes).and_then(|()| work(&mut filling, self.segment_bytes));
        let named = match done {
            Ok(true) => self.name(&mut filling, number).map(Some),
            Ok(false) => Ok(None),
            Err(error) => Err(error),
        };
        match named {
            Ok(Some(path)) => {
                let file = Some(filling.file);
                self.ready = Some(Segment { file, path, number, bytes: self.segment_bytes, highest: 0 });
                Ok(false)
            }
            // A full disk may have room again later: then the work goes on from here.
            unfinished => {
                self.filling = Some(filling);
                unfinished.map(|_| true)
            }
        }
    }

    /// The next segment, `number`, with room for at least `room` bytes of frames.
    pub(super) fn take(&mut self, number: u64, room: u64) -> Result<Segment, WalError> {
        // What is reserved is used as it is: who waits here has written large groups.
        let wait = |filling: &mut Filling, size| match filling.reserved {
            Some(true) => Ok(true),
            _ => filling.zero(LARGE_PIECE, size),
        };
        while self.work(number, wait)? {}
        let mut segment = self.ready.take().expect("the work is done");
        let wanted = room + super::record::BLOCK as u64;
        if segment.bytes < wanted {
            self.grow(&mut segment, wanted)?;
        }
        Ok(segment)
    }

    /// Takes back the file of a segment that is not needed any more.
    pub(super) fn recycle(&mut self, segment: Segment) -> Result<(), WalError> {
        let Segment { file, path, bytes, .. } = segment;
        if self.free.is_empty() && bytes == self.segment_bytes {
            let free = path.with_extension(&SUFFIX[1..]);
            self.disk.rename(&path, &free).during("rename", &path)?;
            self.free.push(Free { path: free, file });
        } else {
            drop(file);
            self.disk.remove(&path).during("remove", &path)?;
        }
        self.directory.sync().during("sync", &self.dir)
    }

    /// The file of segment `number`, open. Without a free descriptor nothing has changed.
    fn open(&mut self, number: u64) -> Result<Filling, WalError> {
        if let Some(Free { path, file }) = self.free.last_mut() {
            let file = match file.take() {
                Some(file) => file,
                None => self.disk.open(path).during("open", path)?,
            };
            let path = std::mem::take(path);
            self.free.pop();
            return Ok(Filling { file, path, filled: 0, reserved: None });
        }
        let path = segment::path(&self.dir, number).with_extension(&SUFFIX[1..]);
        let file = self.disk.create(&path).during("create", &path)?;
        Ok(Filling { file, path, filled: 0, reserved: None })
    }

    /// Zeros are durable: the header, and then the name. Where that fails it goes on from where it was.
    fn name(&self, filling: &mut Filling, number: u64) -> Result<PathBuf, WalError> {
        let path = segment::path(&self.dir, number);
        if filling.path != path {
            write_header(filling.file.as_ref(), &filling.path, self.member, number, self.segment_bytes)?;
            self.disk.rename(&filling.path, &path).during("rename", &filling.path)?;
            filling.path.clone_from(&path);
        }
        self.directory.sync().during("sync", &self.dir)?;
        Ok(path)
    }

    /// Makes room for a group that is larger than a segment. The header, which is one sector, changes when the zeros are there.
    fn grow(&self, segment: &mut Segment, wanted: u64) -> Result<(), WalError> {
        while segment.bytes < wanted {
            let piece = LARGE_PIECE.min(wanted - segment.bytes);
            segment.file().zero(segment.bytes, piece).during("write zeros to", &segment.path)?;
            segment.bytes += piece;
        }
        write_header(segment.file(), &segment.path, self.member, segment.number, segment.bytes)
    }
}

impl Filling {
    /// Has `size` bytes read as zeros, if the file system can do that without writing them.
    fn reserve(&mut self, size: u64) -> Result<(), WalError> {
        if self.reserved.is_none() {
            self.reserved = Some(self.file.reserve(size).during("reserve room in", &self.path)?);
        }
        Ok(())
    }

    /// Zeros one more `piece` of `size` bytes in all. Returns whether that was the last.
    fn zero(&mut self, piece: u64, size: u64) -> Result<bool, WalError> {
        let piece = piece.min(size - self.filled);
        self.file.zero(self.filled, piece).during("write zeros to", &self.path)?;
        self.filled += piece;
        Ok(self.filled == size)
    }
}

fn write_header(
    file: &dyn File,
    path: &Path,
    member: MemberId,
    number: u64,
    bytes: u64,
) -> Result<(), WalError> {
    let header = segment::encode_header(member, number, bytes);
    file.write_at(&header, 0).during("write", path)?;
    file.sync().during("sync", path)
}
