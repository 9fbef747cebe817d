//! The files behind the mount: which number means which, which are open, and what of them is not synced.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileHandle, FileType, INodeNo};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::faults::Faults;
use super::unsynced::Unsynced;

/// All files of one disk.
#[derive(Debug)]
pub(super) struct Files {
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    /// The next number, of a file or a handle. None is used twice: the kernel may remember one for longer than its file lives.
    next: u64,
    paths: BTreeMap<INodeNo, PathBuf>,
    numbers: BTreeMap<PathBuf, INodeNo>,
    open: BTreeMap<u64, Arc<Open>>,
    unsynced: BTreeMap<INodeNo, Arc<Mutex<Unsynced>>>,
}

/// A file that a process has open.
#[derive(Debug)]
pub(super) struct Open {
    number: INodeNo,
    file: File,
    /// The same for all who have it open.
    unsynced: Arc<Mutex<Unsynced>>,
}

impl Files {
    /// Those in `folder`, an absolute path.
    pub(super) fn new(folder: PathBuf) -> Self {
        let table = Table {
            next: INodeNo::ROOT.0 + 1,
            paths: BTreeMap::from([(INodeNo::ROOT, folder.clone())]),
            numbers: BTreeMap::from([(folder, INodeNo::ROOT)]),
            open: BTreeMap::new(),
            unsynced: BTreeMap::new(),
        };
        Self { table: Mutex::new(table) }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        locked(&self.table)
    }

    pub(super) fn path(&self, number: INodeNo) -> io::Result<PathBuf> {
        self.table().paths.get(&number).cloned().ok_or_else(|| Errno::NOENT.into())
    }

    /// The path of a name in a directory.
    fn within(&self, directory: INodeNo, name: &OsStr) -> io::Result<PathBuf> {
        Ok(self.path(directory)?.join(name))
    }

    pub(super) fn find(&self, directory: INodeNo, name: &OsStr) -> io::Result<FileAttr> {
        let path = self.within(directory, name)?;
        let metadata = path.symlink_metadata()?;
        Ok(attributes(self.table().number(&path), &metadata))
    }

    pub(super) fn attributes(&self, number: INodeNo) -> io::Result<FileAttr> {
        let path = self.path(number);
        // One that was removed lives on while somebody has it open.
        let metadata = match path.and_then(|path| path.symlink_metadata()) {
            Ok(metadata) => metadata,
            Err(gone) => {
                let open = self.table().open.values().find(|open| open.number == number).cloned();
                open.ok_or(gone)?.file.metadata()?
            }
        };
        Ok(attributes(number, &metadata))
    }

    pub(super) fn open(&self, number: INodeNo) -> io::Result<FileHandle> {
        let file = OpenOptions::new().read(true).write(true).open(self.path(number)?)?;
        Ok(self.table().hand_out(number, file))
    }

    pub(super) fn create(
        &self,
        directory: INodeNo,
        name: &OsStr,
        mode: u32,
    ) -> io::Result<(FileAttr, FileHandle)> {
        let path = self.within(directory, name)?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(&path)?;
        let metadata = file.metadata()?;
        let mut table = self.table();
        let number = table.number(&path);
        Ok((attributes(number, &metadata), table.hand_out(number, file)))
    }

    /// What `open` or `create` has answered.
    pub(super) fn opened(&self, handle: FileHandle) -> io::Result<Arc<Open>> {
        self.table().open.get(&handle.0).cloned().ok_or_else(|| Errno::BADF.into())
    }

    pub(super) fn close(&self, handle: FileHandle) {
        self.table().open.remove(&handle.0);
    }

    pub(super) fn make_directory(&self, directory: INodeNo, name: &OsStr, mode: u32) -> io::Result<FileAttr> {
        let path = self.within(directory, name)?;
        DirBuilder::new().mode(mode).create(&path)?;
        self.find(directory, name)
    }

    pub(super) fn remove(&self, directory: INodeNo, name: &OsStr, faults: &Faults) -> io::Result<()> {
        let path = self.within(directory, name)?;
        let freed = path.symlink_metadata()?.len();
        fs::remove_file(&path)?;
        self.table().forget(&path);
        faults.give_room(freed);
        Ok(())
    }

    pub(super) fn remove_directory(&self, directory: INodeNo, name: &OsStr) -> io::Result<()> {
        let path = self.within(directory, name)?;
        fs::remove_dir(&path)?;
        self.table().forget(&path);
        Ok(())
    }

    pub(super) fn rename(
        &self,
        (from_directory, from): (INodeNo, &OsStr),
        (to_directory, to): (INodeNo, &OsStr),
        faults: &Faults,
    ) -> io::Result<()> {
        let (from, to) = (self.within(from_directory, from)?, self.within(to_directory, to)?);
        let replaced = to.symlink_metadata().ok().filter(Metadata::is_file).map_or(0, |file| file.len());
        fs::rename(&from, &to)?;
        self.table().rename(&from, &to);
        faults.give_room(replaced);
        Ok(())
    }

    /// The names in a directory, always in the same order.
    pub(super) fn list(&self, directory: INodeNo) -> io::Result<Vec<(PathBuf, FileType)>> {
        let path = self.path(directory)?;
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let kind = FileType::from_std(entry.file_type()?).unwrap_or(FileType::RegularFile);
            names.push((PathBuf::from(entry.file_name()), kind));
        }
        names.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(names)
    }

    /// Makes the names in a directory durable.
    pub(super) fn sync_directory(&self, directory: INodeNo, faults: &Faults) -> io::Result<()> {
        if faults.fails() {
            return Err(Errno::IO.into());
        }
        File::open(self.path(directory)?)?.sync_all()
    }

    pub(super) fn lose_unsynced(&self) -> io::Result<()> {
        let table = self.table();
        for (number, unsynced) in &table.unsynced {
            // One that was removed is lost as it is.
            let Some(path) = table.paths.get(number) else { continue };
            let file = OpenOptions::new().write(true).open(path)?;
            std::mem::take(&mut *locked(unsynced)).undo(&file)?;
        }
        Ok(())
    }
}

impl Table {
    fn new_number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    fn number(&mut self, path: &Path) -> INodeNo {
        if let Some(number) = self.numbers.get(path) {
            return *number;
        }
        let number = INodeNo(self.new_number());
        self.numbers.insert(path.to_owned(), number);
        self.paths.insert(number, path.to_owned());
        number
    }

    fn hand_out(&mut self, number: INodeNo, file: File) -> FileHandle {
        let unsynced = Arc::clone(self.unsynced.entry(number).or_default());
        let handle = self.new_number();
        self.open.insert(handle, Arc::new(Open { number, file, unsynced }));
        FileHandle(handle)
    }

    fn forget(&mut self, path: &Path) {
        if let Some(number) = self.numbers.remove(path) {
            self.paths.remove(&number);
            self.unsynced.remove(&number);
        }
    }

    /// The file, or the directory with all that is in it.
    fn rename(&mut self, from: &Path, to: &Path) {
        self.forget(to);
        let moved = |path: &PathBuf| path.starts_with(from);
        for old in self.numbers.keys().filter(|path| moved(path)).cloned().collect::<Vec<_>>() {
            let (Some(number), Ok(rest)) = (self.numbers.remove(&old), old.strip_prefix(from)) else {
                continue;
            };
            let new = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            self.paths.insert(number, new.clone());
            self.numbers.insert(new, number);
        }
    }
}

impl Open {
    /// As much as there is of `size` bytes.
    pub(super) fn read(&self, offset: u64, size: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; size];
        let mut filled = 0;
        while filled < size {
            match self.file.read_at(&mut bytes[filled..], offset + filled as u64)? {
                0 => break,
                read => filled += read,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8], faults: &Faults) -> io::Result<()> {
        let mut unsynced = locked(&self.unsynced);
        let end = offset + bytes.len() as u64;
        self.claim(end, faults)?;
        unsynced.remember(&self.file, offset, end)?;
        self.file.write_all_at(bytes, offset)
    }

    pub(super) fn resize(&self, length: u64, faults: &Faults) -> io::Result<()> {
        let mut unsynced = locked(&self.unsynced);
        self.claim(length, faults)?;
        let before = self.file.metadata()?.len();
        unsynced.remember(&self.file, length, before)?;
        self.file.set_len(length)?;
        faults.give_room(before.saturating_sub(length));
        Ok(())
    }

    pub(super) fn allocate(&self, offset: u64, length: u64, mode: i32, faults: &Faults) -> io::Result<()> {
        // Not for holes.
        let flags = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        if !(FallocateFlags::KEEP_SIZE | FallocateFlags::ZERO_RANGE).contains(flags) {
            return Err(Errno::OPNOTSUPP.into());
        }
        let mut unsynced = locked(&self.unsynced);
        if !flags.contains(FallocateFlags::KEEP_SIZE) {
            self.claim(offset + length, faults)?;
        }
        let changed = if flags.contains(FallocateFlags::ZERO_RANGE) { length } else { 0 };
        unsynced.remember(&self.file, offset, offset + changed)?;
        Ok(rustix::fs::fallocate(&self.file, flags, offset, length)?)
    }

    /// Makes the file durable. When that fails, what was written since the last time is gone.
    pub(super) fn sync(&self, faults: &Faults) -> io::Result<()> {
        let mut unsynced = locked(&self.unsynced);
        let pending = std::mem::take(&mut *unsynced);
        if faults.fails() {
            pending.undo(&self.file)?;
            return Err(Errno::IO.into());
        }
        self.file.sync_data()
    }

    /// Takes the room for a file that is to reach up to `end`.
    fn claim(&self, end: u64, faults: &Faults) -> io::Result<()> {
        match end.checked_sub(self.file.metadata()?.len()) {
            None | Some(0) => Ok(()),
            Some(growth) => faults.take_room(growth),
        }
    }
}

/// A thread that has panicked with the lock has left nothing half done that a later one could make worse.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn attributes(number: INodeNo, metadata: &Metadata) -> FileAttr {
    let time = |seconds: i64| {
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    };
    FileAttr {
        ino: number,
        size: metadata.len(),
        blocks: metadata.blocks(),
        atime: time(metadata.atime()),
        mtime: time(metadata.mtime()),
        ctime: time(metadata.ctime()),
        crtime: time(metadata.ctime()),
        kind: FileType::from_std(metadata.file_type()).unwrap_or(FileType::RegularFile),
        perm: (metadata.mode() & 0o7777) as u16,
        nlink: metadata.nlink() as u32,
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        blksize: metadata.blksize() as u32,
        flags: 0,
    }
}
