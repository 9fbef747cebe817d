//! What a disk holds, what of it is durable, and how to take back what was done last.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Crash, some};
use crate::time::Time;

/// What a device writes whole or not at all.
const SECTOR: usize = 512;

/// Files by path; directories have no inode.
pub(super) type Names = BTreeMap<PathBuf, Option<usize>>;

#[derive(Debug, Clone, Default)]
pub(super) struct Files {
    inodes: Vec<Inode>,
    names: Names,
    durable_names: Names,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    contents: Vec<u8>,
    durable_length: usize,
    /// Sectors whose newest contents are not durable.
    unsettled: BTreeMap<usize, Unsettled>,
}

/// A sector that was written and not flushed.
#[derive(Debug, Clone)]
pub(super) struct Unsettled {
    durable: Box<[u8; SECTOR]>,
    /// The next fsync writes it. One that an fsync has failed to write looks clean, and is not.
    dirty: bool,
}

/// An operation, and how to take it back.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) begin: Time,
    pub(super) end: Time,
    pub(super) undo: Undo,
}

#[derive(Debug)]
pub(super) enum Undo {
    Write {
        inode: usize,
        offset: usize,
        before: Vec<u8>,
        length: usize,
        sectors: Vec<(usize, Option<Unsettled>)>,
    },
    Sync {
        inode: usize,
        settled: Vec<(usize, Box<[u8; SECTOR]>)>,
        length: usize,
    },
    Names(Names),
    DurableNames(Names),
}

impl Files {
    /// A copy of what the system shows now, all of it durable.
    pub(super) fn copy(&self) -> Self {
        let mut copy = self.clone();
        copy.durable_names = copy.names.clone();
        for file in &mut copy.inodes {
            file.unsettled.clear();
            file.durable_length = file.contents.len();
        }
        copy
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    pub(super) fn bytes(&self) -> u64 {
        self.names.values().flatten().map(|inode| self.inodes[*inode].contents.len() as u64).sum()
    }

    pub(super) fn length(&self, inode: usize) -> usize {
        self.inodes[inode].contents.len()
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().flatten().ok_or_else(|| ErrorKind::NotFound.into())
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        if dir.parent().is_some() && !self.names.contains_key(dir) {
            return Err(ErrorKind::NotFound.into());
        }
        let files = self.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(files.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        self.add(path, None)
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<usize> {
        let inode = self.inodes.len();
        self.add(path, Some(inode))?;
        self.inodes.push(Inode::default());
        Ok(inode)
    }

    fn add(&mut self, path: &Path, inode: Option<usize>) -> io::Result<()> {
        if self.names.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.names.insert(path.to_owned(), inode);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.names.remove(from).ok_or(ErrorKind::NotFound)?;
        self.names.insert(to.to_owned(), inode);
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.names.remove(path).map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    pub(super) fn sync_names(&mut self, dir: &Path) -> Undo {
        let before = self.durable_names.clone();
        self.durable_names.retain(|path, _| path.parent() != Some(dir));
        let names = self.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        self.durable_names.extend(names.map(|(path, inode)| (path.clone(), *inode)));
        Undo::DurableNames(before)
    }

    pub(super) fn read(&self, inode: usize, buffer: &mut [u8], offset: usize) -> io::Result<()> {
        let bytes = self.inodes[inode].contents.get(offset..offset + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    pub(super) fn write(&mut self, inode: usize, bytes: &[u8], offset: usize) -> Undo {
        let file = &mut self.inodes[inode];
        let (length, end) = (file.contents.len(), offset + bytes.len());
        let before = file.contents.get(offset..end.min(length)).unwrap_or_default().to_vec();
        let mut sectors = Vec::new();
        for sector in offset / SECTOR..end.div_ceil(SECTOR) {
            let known = file.unsettled.get(&sector).cloned();
            let durable = known.as_ref().map_or_else(|| file.sector(sector), |known| known.durable.clone());
            sectors.push((sector, known));
            file.unsettled.insert(sector, Unsettled { durable, dirty: true });
        }
        if length < end {
            file.contents.resize(end, 0);
        }
        file.contents[offset..end].copy_from_slice(bytes);
        Undo::Write { inode, offset, before, length, sectors }
    }

    pub(super) fn sync(&mut self, inode: usize) -> Undo {
        let file = &mut self.inodes[inode];
        let length = std::mem::replace(&mut file.durable_length, file.contents.len());
        let dirty = file.unsettled.extract_if(.., |_, sector| sector.dirty);
        Undo::Sync { inode, settled: dirty.map(|(at, sector)| (at, sector.durable)).collect(), length }
    }

    /// An fsync fails: the system forgets that there was something to write.
    pub(super) fn forget(&mut self, inode: usize) {
        self.inodes[inode].unsettled.values_mut().for_each(|sector| sector.dirty = false);
    }

    /// Takes an operation back; if it was half done, only in part.
    pub(super) fn take_back(&mut self, undo: Undo, half_done: bool, crash: Crash, random: &mut ChaCha8Rng) {
        match undo {
            Undo::Write { inode, offset, before, length, sectors } => {
                let file = &mut self.inodes[inode];
                let written = if half_done { file.contents.clone() } else { Vec::new() };
                file.contents.truncate(length);
                file.contents[offset.min(length)..][..before.len()].copy_from_slice(&before);
                for (sector, known) in sectors.iter().cloned() {
                    match known {
                        Some(known) => file.unsettled.insert(sector, known),
                        None => file.unsettled.remove(&sector),
                    };
                }
                if half_done {
                    self.write_some(inode, &written, sectors.iter().map(|(at, _)| *at), crash, random);
                }
            }
            Undo::Sync { inode, settled, length } => {
                let file = &mut self.inodes[inode];
                file.durable_length = length;
                let mut reached = some(random);
                for (sector, durable) in settled {
                    if !(half_done && reached()) {
                        file.unsettled.insert(sector, Unsettled { durable, dirty: true });
                    }
                }
            }
            Undo::Names(before) if !half_done || random.random() => self.names = before,
            Undo::DurableNames(before) if !half_done || random.random() => self.durable_names = before,
            Undo::Names(_) | Undo::DurableNames(_) => {}
        }
    }

    /// Some sectors of a write were written when its process ended: if that was killed, the first ones.
    fn write_some(
        &mut self,
        inode: usize,
        written: &[u8],
        sectors: impl ExactSizeIterator<Item = usize>,
        crash: Crash,
        random: &mut ChaCha8Rng,
    ) {
        let first = random.random_range(0..=sectors.len());
        let mut reached = some(random);
        for (count, sector) in sectors.enumerate() {
            let done = if crash == Crash::Killed { count < first } else { reached() };
            let end = ((sector + 1) * SECTOR).min(written.len());
            if done {
                self.write(inode, &written[sector * SECTOR..end], sector * SECTOR);
            }
        }
    }

    /// The power goes: of what is not durable, sectors, lengths and names are kept or lost, each for itself.
    pub(super) fn lose_power(&mut self, random: &mut ChaCha8Rng) {
        let mut kept = some(random);
        for file in &mut self.inodes {
            if file.contents.len() > file.durable_length && !kept() {
                file.contents.truncate(file.durable_length);
            }
            for (sector, unsettled) in std::mem::take(&mut file.unsettled) {
                let start = sector * SECTOR;
                let end = (start + SECTOR).min(file.contents.len());
                if start < end && !kept() {
                    file.contents[start..end].copy_from_slice(&unsettled.durable[..end - start]);
                }
            }
            file.durable_length = file.contents.len();
        }
        let paths = self.names.keys().chain(self.durable_names.keys());
        let dirs: BTreeSet<PathBuf> = paths.filter_map(|path| path.parent()).map(Path::to_owned).collect();
        for dir in dirs {
            if kept() {
                self.sync_names(&dir);
            }
        }
        // A file is lost with its directory.
        let durable = self.durable_names.clone();
        self.durable_names.retain(|path, _| {
            path.parent().is_some_and(|dir| dir.parent().is_none() || durable.contains_key(dir))
        });
        self.names = self.durable_names.clone();
    }

    pub(super) fn flip(&mut self, random: &mut ChaCha8Rng) -> Option<String> {
        let files: Vec<_> = self.names.iter().filter_map(|(path, inode)| Some((path, (*inode)?))).collect();
        let (path, inode) = *files.get(random.random_range(0..files.len().max(1)))?;
        let file = &mut self.inodes[inode];
        let full = |sector: &[u8]| sector.iter().map(|byte| byte.count_ones()).sum::<u32>() > 8;
        let sectors: Vec<usize> =
            file.contents.chunks(SECTOR).enumerate().filter(|(_, s)| full(s)).map(|(at, _)| at).collect();
        let sector = *sectors.get(random.random_range(0..sectors.len().max(1)))?;
        let end = ((sector + 1) * SECTOR).min(file.contents.len());
        let mut places: Vec<usize> = (sector * SECTOR..end).collect();
        // Mostly where something is: zeros behind a frame are looked at by nobody.
        if random.random_bool(0.9) {
            places.retain(|at| file.contents[*at] != 0);
        }
        let at = *places.get(random.random_range(0..places.len().max(1)))?;
        file.contents[at] ^= 1 << random.random_range(0..8);
        Some(format!("byte {at} of {}", path.display()))
    }
}

impl Inode {
    fn sector(&self, sector: usize) -> Box<[u8; SECTOR]> {
        let mut bytes = Box::new([0; SECTOR]);
        let start = (sector * SECTOR).min(self.contents.len());
        let held = &self.contents[start..(start + SECTOR).min(self.contents.len())];
        bytes[..held.len()].copy_from_slice(held);
        bytes
    }
}
