//! What would be lost if a file's next sync failed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// How to undo what was done to a file since its last sync.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    changes: Vec<Change>,
}

/// What a file was like before a change.
#[derive(Debug)]
struct Change {
    length: u64,
    offset: u64,
    /// Only what was within the length.
    bytes: Vec<u8>,
}

impl Unsynced {
    /// Remembers the bytes from `offset` up to `end`, which are about to be changed.
    pub(super) fn remember(&mut self, file: &File, offset: u64, end: u64) -> io::Result<()> {
        let length = file.metadata()?.len();
        let kept = end.min(length).saturating_sub(offset);
        let mut bytes = vec![0; usize::try_from(kept).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, offset)?;
        self.changes.push(Change { length, offset, bytes });
        Ok(())
    }

    /// Puts the file back to where it was.
    pub(super) fn undo(self, file: &File) -> io::Result<()> {
        for change in self.changes.into_iter().rev() {
            file.write_all_at(&change.bytes, change.offset)?;
            file.set_len(change.length)?;
        }
        Ok(())
    }
}
