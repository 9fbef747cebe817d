//! An open file.

use std::io::{self, ErrorKind};

use quorate_node::storage::disk::File;

use super::{Failure, SimDisk};

#[derive(Debug)]
pub(super) struct OpenFile {
    disk: SimDisk,
    inode: usize,
}

impl OpenFile {
    pub(super) fn new(disk: SimDisk, inode: usize) -> Self {
        Self { disk, inode }
    }
}

impl File for OpenFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().files.length(self.inode) as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.operate(buffer.len(), false);
        state.files.read(self.inode, buffer, usize::try_from(offset).map_err(io::Error::other)?)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let time = state.operate(bytes.len(), false);
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let growth = (offset + bytes.len()).saturating_sub(state.files.length(self.inode)) as u64;
        if state.is_full(growth) {
            return Err(ErrorKind::StorageFull.into());
        }
        if state.fails(Failure::Write) {
            let half = bytes.len() / 2 / 512 * 512;
            let undo = state.files.write(self.inode, &bytes[..half], offset);
            state.did(time, undo);
            return Err(io::Error::other("the device reports an error"));
        }
        let undo = state.files.write(self.inode, bytes, offset);
        state.did(time, undo);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let time = state.operate(0, true);
        if state.fails(Failure::Sync) {
            state.files.forget(self.inode);
            return Err(io::Error::other("the device reports an error"));
        }
        let undo = state.files.sync(self.inode);
        state.did(time, undo);
        Ok(())
    }
}
