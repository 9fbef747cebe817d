//! Judges how much room the disk has.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::replica::Room;
use crate::storage::disk::{Disk, OsDisk, Space};
use crate::storage::{self, Lack};

/// How often the file system is asked.
const EVERY: Duration = Duration::from_secs(1);

/// What the log may need beyond the segments that it has, while data is deleted: two segments; of a small disk an eighth.
const RESERVE: u64 = 128 << 20;

/// Without a spare segment, so little in the active one is for what keeps the member alive. Several times what a leader has on its way
/// to a follower, which may come as one group.
const LAST: u64 = 32 << 20;

/// What was found last.
#[derive(Debug)]
pub(super) struct DiskSpace {
    dir: PathBuf,
    room: Room,
    space: Option<Space>,
    asked: Option<Instant>,
}

impl DiskSpace {
    /// Of the file system that data directory `dir` is on.
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, room: Room::Enough, space: None, asked: None }
    }

    /// How much room there is, if that has changed. The next snapshot is going to need `snapshot` bytes.
    pub(super) fn read(&mut self, log: storage::Room, snapshot: u64) -> Option<Room> {
        if self.asked.is_none_or(|asked| asked.elapsed() >= EVERY) {
            self.asked = Some(Instant::now());
            // Who cannot say how much there is has the log's own word.
            self.space = OsDisk.space(&self.dir).ok().flatten();
        }
        let reserve = RESERVE.min(self.space.map_or(RESERVE, |space| space.total / 8)) + snapshot;
        let room = judge(self.room, log, self.space.map(|space| space.available), reserve);
        let changed = std::mem::replace(&mut self.room, room) != room;
        if changed {
            self.tell(room);
        }
        changed.then_some(room)
    }

    fn tell(&self, room: Room) {
        let (dir, available) = (self.dir.display(), self.space.map(|space| space.available));
        match room {
            Room::NoDescriptors => tracing::error!(
                %dir,
                "too many open files: the log has no file for what comes next. Takes nothing: raise the limit (ulimit -n)"
            ),
            Room::Enough => tracing::info!(%dir, available, "the disk has room again: takes writes"),
            Room::Low => tracing::warn!(
                %dir, available,
                "NOSPACE: the disk is nearly full. Takes deletions and compactions only: delete data and compact, or make the volume larger"
            ),
            Room::Out => tracing::error!(
                %dir, available,
                "NOSPACE: the disk is full. Takes nothing: make the volume larger, or free some of it"
            ),
        }
    }
}

/// What is low comes back only when there is a little more, so that it does not change with every write. A lack of descriptors passes by
/// itself, and costs nothing before the active segment is nearly full.
fn judge(before: Room, log: storage::Room, available: Option<u64>, reserve: u64) -> Room {
    let wanted = if before == Room::Enough { reserve } else { reserve + reserve / 4 };
    let low = log.lacks == Some(Lack::Space) || available.is_some_and(|available| available < wanted);
    let ends_soon = !log.spare && log.active < LAST;
    match low {
        _ if ends_soon && (low || log.lacks == Some(Lack::Space)) => Room::Out,
        _ if ends_soon && log.lacks == Some(Lack::Descriptors) => Room::NoDescriptors,
        true => Room::Low,
        false => Room::Enough,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn log(active: u64, spare: bool, out_of_space: bool) -> storage::Room {
        storage::Room { active: active * MIB, spare, lacks: out_of_space.then_some(Lack::Space) }
    }

    #[test]
    fn room_is_judged_by_what_the_log_and_a_snapshot_need() {
        let judged = |before, log, available: u64| judge(before, log, Some(available * MIB), 200 * MIB);
        assert_eq!(judged(Room::Enough, log(10, true, false), 200), Room::Enough);
        assert_eq!(judged(Room::Enough, log(10, true, false), 199), Room::Low);
        assert_eq!(judged(Room::Low, log(10, true, false), 230), Room::Low, "it has to be a little more");
        assert_eq!(judged(Room::Low, log(10, true, false), 250), Room::Enough);
        assert_eq!(judged(Room::Low, log(10, false, true), 10), Room::Out);
        assert_eq!(judged(Room::Low, log(40, false, true), 10), Room::Low);
        assert_eq!(
            judge(Room::Enough, log(60, false, true), None, 0),
            Room::Low,
            "the log's word counts too"
        );
        assert_eq!(
            judge(Room::Enough, log(1, false, false), None, 0),
            Room::Enough,
            "the next segment is on its way"
        );
    }

    #[test]
    fn a_lack_of_descriptors_refuses_writes_only_when_the_active_segment_ends() {
        let log =
            |active| storage::Room { active: active * MIB, spare: false, lacks: Some(Lack::Descriptors) };
        assert_eq!(judge(Room::Enough, log(40), Some(1000 * MIB), 200 * MIB), Room::Enough);
        assert_eq!(judge(Room::Enough, log(10), Some(1000 * MIB), 200 * MIB), Room::NoDescriptors);
        assert_eq!(judge(Room::NoDescriptors, log(10), Some(MIB), 200 * MIB), Room::Out);
        assert_eq!(judge(Room::NoDescriptors, log(40), Some(1000 * MIB), 200 * MIB), Room::Enough);
    }
}
