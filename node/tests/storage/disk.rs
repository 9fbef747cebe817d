//! A disk in memory that keeps what a power cut may leave, and fails on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use quorate_node::storage::disk::{Dir, Disk, File};

pub(crate) const SECTOR: usize = 512;
/// Where frames start, and the segments' headers end.
pub(crate) const BLOCK: usize = 4096;

/// What happens to the operation that is to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not done, and says so; a sync also forgets what it should have written, as Linux does.
    Error(ErrorKind),
    /// The power goes in the middle of it. Everything after it fails, until [`MemDisk::power_cut`].
    Crash,
}

/// Clones share the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    names: Names,
    durable_names: Names,
    /// How many operations have changed something.
    operations: u64,
    fault: Option<(u64, Fault)>,
    off: bool,
    /// How many bytes all files may have.
    capacity: Option<usize>,
    /// Nothing can be opened: the process has no descriptor left.
    no_descriptors: bool,
    /// Blocks that read as zeros can be reserved.
    reserves: bool,
}

/// Files by path; directories have no inode.
type Names = BTreeMap<PathBuf, Option<usize>>;

#[derive(Debug, Default)]
struct Inode {
    contents: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that the next sync writes.
    dirty: BTreeSet<usize>,
    /// Blocks of 4 KiB that cannot be read, until they are written.
    unreadable: BTreeSet<usize>,
}

impl MemDisk {
    /// An empty one, which can reserve blocks or cannot.
    pub(crate) fn new(reserves: bool) -> Self {
        Self(Arc::new(Mutex::new(State { reserves, ..State::default() })))
    }

    /// The operation after `operations` more ones meets `fault`.
    pub(crate) fn fail_after(&self, operations: u64, fault: Fault) {
        let mut state = self.state();
        state.fault = Some((state.operations + operations, fault));
    }

    /// Whether the fault has happened.
    pub(crate) fn failed(&self) -> bool {
        self.state().fault.is_none()
    }

    /// The process that met [`Fault::Crash`] was only killed: the machine goes on.
    pub(crate) fn power_on(&self) {
        let mut state = self.state();
        state.off = false;
        state.fault = None;
    }

    /// Whether the process has no descriptor left.
    pub(crate) fn take_descriptors(&self, taken: bool) {
        self.state().no_descriptors = taken;
    }

    pub(crate) fn set_capacity(&self, bytes: Option<usize>) {
        self.state().capacity = bytes;
    }

    /// The power is cut, and comes back: of what was not synced, what `keep` says survives, sector by sector.
    pub(crate) fn power_cut(&self, mut keep: impl FnMut() -> bool) {
        let mut state = self.state();
        for inode in &mut state.inodes {
            if inode.contents.len() > inode.durable.len() && keep() {
                inode.durable.resize(inode.contents.len(), 0);
            }
            let dirty: Vec<usize> = std::mem::take(&mut inode.dirty).into_iter().filter(|_| keep()).collect();
            for sector in dirty {
                inode.settle(sector);
            }
            inode.contents = inode.durable.clone();
        }
        let directories: BTreeSet<PathBuf> = state
            .names
            .keys()
            .chain(state.durable_names.keys())
            .filter_map(|p| p.parent())
            .map(Path::to_owned)
            .collect();
        for dir in directories {
            if keep() {
                state.sync_names(&dir);
            }
        }
        // A file is lost with its directory.
        let durable = state.durable_names.clone();
        state.durable_names.retain(|path, _| {
            path.parent().is_none_or(|dir| dir.parent().is_none() || durable.contains_key(dir))
        });
        state.names = state.durable_names.clone();
        state.off = false;
        state.fault = None;
    }

    /// The bytes of a file, to be changed behind the back of who uses it; durable at once.
    pub(crate) fn tamper<T>(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let mut state = self.state();
        let inode = state.names.get(path).copied().flatten().expect("the file exists");
        let inode = &mut state.inodes[inode];
        let result = change(&mut inode.contents);
        inode.durable = inode.contents.clone();
        result
    }

    /// The device cannot read these blocks of 4 KiB of a file any more.
    pub(crate) fn spoil(&self, path: &Path, blocks: impl IntoIterator<Item = usize>) {
        let mut state = self.state();
        let inode = state.names.get(path).copied().flatten().expect("the file exists");
        state.inodes[inode].unreadable.extend(blocks);
    }

    /// All files with what they hold.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.state();
        let files = state.names.iter().filter_map(|(path, inode)| Some((path, (*inode)?)));
        files.map(|(path, inode)| (path.clone(), state.inodes[inode].contents.clone())).collect()
    }

    /// A copy that shares nothing, with the same contents, durable, and no fault.
    pub(crate) fn fork(&self) -> Self {
        let names = self.state().names.clone();
        let mut fork = State { names, reserves: self.state().reserves, ..State::default() };
        fork.durable_names = fork.names.clone();
        fork.inodes = self
            .state()
            .inodes
            .iter()
            .map(|i| Inode {
                contents: i.contents.clone(),
                durable: i.contents.clone(),
                dirty: BTreeSet::new(),
                unreadable: i.unreadable.clone(),
            })
            .collect();
        Self(Arc::new(Mutex::new(fork)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics within")
    }
}

impl State {
    /// Takes a descriptor, if there is one.
    fn opens(&self) -> io::Result<()> {
        const EMFILE: i32 = 24;
        if self.no_descriptors { Err(io::Error::from_raw_os_error(EMFILE)) } else { Ok(()) }
    }

    /// Counts an operation; an error if it is the one to fail. The flag says whether part of it is to be done all the same.
    fn begin(&mut self) -> Result<(), (io::Error, bool)> {
        if self.off {
            return Err((io::Error::other("the power is off"), false));
        }
        let number = self.operations;
        self.operations += 1;
        match self.fault {
            Some((at, fault)) if at == number => {
                self.fault = None;
                self.off = fault == Fault::Crash;
                match fault {
                    Fault::Crash => Err((io::Error::other("the power goes"), true)),
                    Fault::Error(kind) => Err((kind.into(), false)),
                }
            }
            _ => Ok(()),
        }
    }

    fn sync_names(&mut self, dir: &Path) {
        self.durable_names.retain(|path, _| path.parent() != Some(dir));
        let names = self.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        self.durable_names.extend(names.map(|(path, inode)| (path.clone(), *inode)));
    }
}

impl Inode {
    fn settle(&mut self, sector: usize) {
        let start = sector * SECTOR;
        let end = (start + SECTOR).min(self.contents.len());
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.durable[start..end].copy_from_slice(&self.contents[start..end]);
    }
}

impl Disk for MemDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.names.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        state.begin().map_err(|e| e.0)?;
        state.names.insert(path.to_owned(), None);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        state.opens()?;
        if dir.parent().is_some_and(|p| p.parent().is_some()) && !state.names.contains_key(dir) {
            return Err(ErrorKind::NotFound.into());
        }
        let files = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(files.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let state = self.state();
        state.opens()?;
        let inode = state.names.get(path).copied().flatten().ok_or(ErrorKind::NotFound)?;
        Ok(Box::new(MemFile { disk: self.clone(), inode }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut state = self.state();
        state.opens()?;
        if state.names.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        state.begin().map_err(|e| e.0)?;
        state.inodes.push(Inode::default());
        let inode = state.inodes.len() - 1;
        state.names.insert(path.to_owned(), Some(inode));
        Ok(Box::new(MemFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin().map_err(|e| e.0)?;
        let inode = state.names.remove(from).ok_or(ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), inode);
        // A directory takes along what is in it.
        let within: Vec<PathBuf> =
            state.names.keys().filter(|path| path.starts_with(from)).cloned().collect();
        for path in within {
            let inode = state.names.remove(&path).flatten();
            let rest = path.strip_prefix(from).expect("it is within");
            state.names.insert(to.join(rest), inode);
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.names.contains_key(path) {
            return Err(ErrorKind::NotFound.into());
        }
        state.begin().map_err(|e| e.0)?;
        state.names.remove(path);
        Ok(())
    }

    fn open_dir(&self, dir: &Path) -> io::Result<Box<dyn Dir>> {
        self.state().opens()?;
        Ok(Box::new(MemDir { disk: self.clone(), path: dir.to_owned() }))
    }
}

#[derive(Debug)]
struct MemDir {
    disk: MemDisk,
    path: PathBuf,
}

impl Dir for MemDir {
    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.begin().map_err(|e| e.0)?;
        state.sync_names(&self.path);
        Ok(())
    }
}

#[derive(Debug)]
struct MemFile {
    disk: MemDisk,
    inode: usize,
}

impl File for MemFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().inodes[self.inode].contents.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.state();
        let contents = &state.inodes[self.inode].contents;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = contents.get(start..start + buffer.len()).ok_or(ErrorKind::UnexpectedEof)?;
        let blocks = start / BLOCK..(start + buffer.len()).div_ceil(BLOCK);
        if state.inodes[self.inode].unreadable.range(blocks).next().is_some() {
            return Err(io::Error::other("the device cannot read this"));
        }
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let outcome = state.begin();
        if matches!(outcome, Err((_, false))) {
            return outcome.map_err(|e| e.0);
        }
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start + bytes.len();
        let used: usize = state.inodes.iter().map(|i| i.contents.len()).sum();
        let growth = end.saturating_sub(state.inodes[self.inode].contents.len());
        if state.capacity.is_some_and(|capacity| growth > 0 && used + growth > capacity) {
            return Err(ErrorKind::StorageFull.into());
        }
        let inode = &mut state.inodes[self.inode];
        if inode.contents.len() < end {
            inode.contents.resize(end, 0);
        }
        inode.contents[start..end].copy_from_slice(bytes);
        inode.unreadable.retain(|block| !(start / BLOCK..end.div_ceil(BLOCK)).contains(block));
        inode.dirty.extend(start / SECTOR..end.div_ceil(SECTOR));
        outcome.map_err(|e| e.0)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let outcome = state.begin();
        let inode = &mut state.inodes[self.inode];
        match outcome {
            Ok(()) => {
                for sector in std::mem::take(&mut inode.dirty) {
                    inode.settle(sector);
                }
                Ok(())
            }
            Err((error, crash)) => {
                if !crash {
                    inode.dirty.clear();
                }
                Err(error)
            }
        }
    }
    /// Not at once: some of it may be there before the rest.
    fn reserve(&self, length: u64) -> io::Result<bool> {
        if !self.disk.state().reserves {
            return Ok(false);
        }
        self.zero(0, length)?;
        Ok(true)
    }
}
