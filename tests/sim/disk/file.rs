//! An open file.

use std::io;

use quorate_node::storage::disk::File;

use super::SimDisk;

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
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        self.disk.0.lock().write(self.inode, bytes, offset, bytes.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.0.lock().sync(self.inode)
    }

    /// No bytes go to the device, but until it is durable any part of it may be lost.
    fn reserve(&self, length: u64) -> io::Result<bool> {
        let mut state = self.disk.0.lock();
        if !state.reserves {
            return Ok(false);
        }
        let zeros = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        state.write(self.inode, &zeros, 0, 0)?;
        state.sync(self.inode)?;
        state.reserved += 1;
        Ok(true)
    }
}
