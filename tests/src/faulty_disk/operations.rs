//! What the kernel asks, and who waits with the answer.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::OFlags;

use super::faults::{Access, Faults};
use super::files::Files;

/// The kernel remembers no attributes: a file may be put back to where it was behind its back.
const NOT_REMEMBERED: Duration = Duration::ZERO;
const GENERATION: Generation = Generation(0);

/// The file system as the kernel sees it.
#[derive(Debug)]
pub(super) struct Operations {
    files: Arc<Files>,
    faults: Arc<Faults>,
}

impl Operations {
    pub(super) fn new(files: Arc<Files>, faults: Arc<Faults>) -> Self {
        Self { files, faults }
    }

    /// Does what touches the disk, when the disk is willing. Whoever must wait does so on a thread of its own, and holds up nobody else.
    fn when_willing(&self, access: Access, work: impl FnOnce(&Files, &Faults) + Send + 'static) {
        if !self.faults.hold_up(access) {
            return work(&self.files, &self.faults);
        }
        let (files, faults) = (Arc::clone(&self.files), Arc::clone(&self.faults));
        thread::spawn(move || {
            faults.wait(access);
            work(&files, &faults);
        });
    }
}

/// Answers with what came of it.
macro_rules! answer {
    ($reply:ident, $result:expr, $value:pat => $answer:expr) => {
        match $result {
            Ok($value) => $answer,
            Err(error) => $reply.error(errno(&error)),
        }
    };
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_i32)
}

/// Whether each write is to be durable before it is answered.
fn writes_through(flags: OpenFlags) -> bool {
    OFlags::from_bits_retain(flags.0.cast_unsigned()).intersects(OFlags::DSYNC)
}

impl Filesystem for Operations {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer!(reply, self.files.find(parent, name), found => reply.entry(&NOT_REMEMBERED, &found, GENERATION));
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer!(reply, self.files.attributes(number), found => reply.attr(&NOT_REMEMBERED, &found));
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _created: Option<SystemTime>,
        _changed: Option<SystemTime>,
        _backed_up: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let access = Access::Write(0);
        self.when_willing(access, move |files, faults| {
            let change = || {
                if let Some(mode) = mode {
                    fs::set_permissions(files.path(number)?, fs::Permissions::from_mode(mode & 0o7777))?;
                }
                if let Some(size) = size {
                    resize(files, faults, number, handle, size)?;
                }
                files.attributes(number)
            };
            answer!(reply, change(), found => reply.attr(&NOT_REMEMBERED, &found));
        });
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let found = self.files.make_directory(parent, name, mode & !umask);
        answer!(reply, found, found => reply.entry(&NOT_REMEMBERED, &found, GENERATION));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.files.remove(parent, name, &self.faults), () => reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.files.remove_directory(parent, name), () => reply.ok());
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let renamed = self.files.rename((parent, name), (new_parent, new_name), &self.faults);
        answer!(reply, renamed, () => reply.ok());
    }

    fn open(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let opened = self.faults.opens().and_then(|()| self.files.open(number));
        answer!(reply, opened, handle => reply.opened(handle, FopenFlags::empty()));
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        answer!(reply, self.faults.opens(), () => reply.opened(FileHandle(0), FopenFlags::empty()));
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let created = self.faults.opens().and_then(|()| self.files.create(parent, name, mode & !umask));
        answer!(reply, created, (found, handle) => {
            reply.created(&NOT_REMEMBERED, &found, GENERATION, handle, FopenFlags::empty());
        });
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self.files.opened(handle).and_then(|open| open.read(offset, size as usize));
        answer!(reply, read, bytes => reply.data(&bytes));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        bytes: &[u8],
        _how: WriteFlags,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let bytes = bytes.to_vec();
        let through = writes_through(flags);
        let access = if through { Access::Sync } else { Access::Write(bytes.len()) };
        self.when_willing(access, move |files, faults| {
            let write = || {
                let open = files.opened(handle)?;
                open.write(offset, &bytes, faults)?;
                if through { open.sync(faults) } else { Ok(()) }
            };
            answer!(reply, write(), () => reply.written(bytes.len() as u32));
        });
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.when_willing(Access::Write(0), move |files, faults| {
            let allocated = files.opened(handle).and_then(|open| open.allocate(offset, length, mode, faults));
            answer!(reply, allocated, () => reply.ok());
        });
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        self.when_willing(Access::Sync, move |files, faults| {
            answer!(reply, files.opened(handle).and_then(|open| open.sync(faults)), () => reply.ok());
        });
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        self.when_willing(Access::Sync, move |files, faults| {
            answer!(reply, files.sync_directory(number, faults), () => reply.ok());
        });
    }

    /// Nothing is kept back until a file is closed.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.files.close(handle);
        reply.ok();
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let list = match self.files.list(number) {
            Ok(list) => list,
            Err(error) => return reply.error(errno(&error)),
        };
        // The number in a list is for show; a lookup tells the real one.
        let places = (1..).zip(list).skip(usize::try_from(offset).unwrap_or(usize::MAX));
        for (place, (name, kind)) in places {
            if reply.add(number, place, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, number: INodeNo, reply: ReplyStatfs) {
        let found = self.files.path(number).and_then(|path| Ok(rustix::fs::statvfs(path)?));
        answer!(reply, found, disk => {
            let room = self.faults.room().map_or(disk.f_bavail, |room| disk.f_bavail.min(room / disk.f_frsize));
            let (size, part) = (disk.f_bsize as u32, disk.f_frsize as u32);
            reply.statfs(disk.f_blocks, room, room, disk.f_files, disk.f_ffree, size, disk.f_namemax as u32, part);
        });
    }
}

/// Through the handle, if there is one: the file may have been removed.
fn resize(
    files: &Files,
    faults: &Faults,
    number: INodeNo,
    handle: Option<FileHandle>,
    size: u64,
) -> io::Result<()> {
    let (handle, ours) = match handle {
        Some(handle) => (handle, false),
        None => (files.open(number)?, true),
    };
    let resized = files.opened(handle).and_then(|open| open.resize(size, faults));
    if ours {
        files.close(handle);
    }
    resized
}
