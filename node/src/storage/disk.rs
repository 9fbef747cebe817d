//! The little that the storage asks of a file system.
//!
//! A simulator and fault tests stand in for it. What holds of the real thing is assumed of them too: what was written is
//! durable when `sync` has returned, and a name when its directory was synced; until then a crash may keep any part.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, OFlags};

/// What a device wants its memory, offsets and lengths to be multiples of.
const ALIGNMENT: usize = 4096;

/// A file system.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Makes a directory. Its name is durable when its parent was synced.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// The names of the files in a directory, in no particular order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Opens a file that exists, to be read and written.
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Makes a new, empty file; fails when the name is taken.
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Makes a new file that is written once, in multiples of 4 KiB at multiples of 4 KiB, and read by whoever opens it again: where
    /// that can be, past the page cache.
    fn create_streamed(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.create(path)
    }
    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Opens a directory whose names are to be made durable again and again. One that is open is synced also when the process
    /// has no descriptor left.
    fn open_dir(&self, dir: &Path) -> io::Result<Box<dyn Dir>>;
    /// Makes the names in a directory durable, once.
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.open_dir(dir)?.sync()
    }
    /// How much room there is where `dir` is, if that can be known.
    fn space(&self, _dir: &Path) -> io::Result<Option<Space>> {
        Ok(None)
    }
}

/// The room of a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// For this process.
    pub available: u64,
    /// In all.
    pub total: u64,
}

/// An open file.
pub trait File: fmt::Debug + Send {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether it holds nothing.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills `buffer` from `offset` on; an error when the file ends before.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written durable, the file's length with it (fdatasync).
    fn sync(&self) -> io::Result<()>;
    /// Writes zeros durably, beside the log's own writes and in their way as little as possible. Offset and length are
    /// multiples of 4 KiB.
    fn zero(&self, offset: u64, length: u64) -> io::Result<()> {
        self.write_at(&vec![0; usize::try_from(length).map_err(io::Error::other)?], offset)?;
        self.sync()
    }
    /// Makes the first `length` bytes zeros, durably, and their blocks the file's, without writing them. False, and nothing has changed,
    /// if the file system cannot do that.
    fn reserve(&self, _length: u64) -> io::Result<bool> {
        Ok(false)
    }
}

/// An open directory.
pub trait Dir: fmt::Debug + Send {
    /// Makes the names in it durable.
    fn sync(&self) -> io::Result<()>;
}

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsDisk;

impl Disk for OsDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().mode(super::lock::PRIVATE).create(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        // A name that is not UTF-8 is none of ours.
        let names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(fs::OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?))
    }

    fn create_streamed(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        match options.clone().custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path) {
            Ok(file) => Ok(Box::new(DirectFile(file))),
            // The file system has no such way; it may have made the file all the same.
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                Ok(Box::new(options.create_new(false).create(true).open(path)?))
            }
            Err(error) => Err(error),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn open_dir(&self, dir: &Path) -> io::Result<Box<dyn Dir>> {
        Ok(Box::new(fs::File::open(dir)?))
    }

    fn space(&self, dir: &Path) -> io::Result<Option<Space>> {
        super::space(dir).map(Some)
    }
}

impl File for fs::File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    /// From memory that is there. What was only just allocated is not, until it is read: a file system in user space then gets each page for itself, and
    /// takes ten times as long.
    fn zero(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = offset + length;
        for at in (offset..end).step_by(ZEROS.len()) {
            let piece = usize::try_from(end - at).unwrap_or(usize::MAX).min(ZEROS.len());
            self.write_all_at(&ZEROS[..piece], at)?;
        }
        self.sync_data()
    }

    fn reserve(&self, length: u64) -> io::Result<bool> {
        use rustix::io::{Errno, retry_on_intr};
        match retry_on_intr(|| rustix::fs::fallocate(self, FallocateFlags::ZERO_RANGE, 0, length)) {
            // The extents too: they are what makes the zeros.
            Ok(()) => self.sync_all().map(|()| true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

impl Dir for fs::File {
    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }
}

/// A file that is written past the page cache, from memory that is aligned as the device wants it.
#[derive(Debug)]
struct DirectFile(fs::File);

impl File for DirectFile {
    fn len(&self) -> io::Result<u64> {
        File::len(&self.0)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let length = buffer.len().next_multiple_of(ALIGNMENT);
        let mut aligned = vec![0; length + ALIGNMENT];
        let start = aligned.as_ptr().align_offset(ALIGNMENT);
        self.0.read_exact_at(&mut aligned[start..start + length], offset)?;
        buffer.copy_from_slice(&aligned[start..start + buffer.len()]);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut aligned = vec![0; bytes.len() + ALIGNMENT];
        let start = aligned.as_ptr().align_offset(ALIGNMENT);
        aligned[start..start + bytes.len()].copy_from_slice(bytes);
        self.0.write_all_at(&aligned[start..start + bytes.len()], offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

/// Whether a file was not opened because the process, or the machine, has no descriptor left. That says nothing of the disk:
/// nothing was read or written.
pub fn lacks_descriptors(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    matches!(code, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE))
}

/// Whether the disk, or this user's share of it, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}
