//! Levels: how what the members of a cluster do alike is changed, without dividing their state.
//!
//! A level is a number. It stands for everything that members must read and do alike: the kinds and fields of entries and commands, what a
//! command does to the state, the bytes of a snapshot, the entries at which one is due. The level of a cluster is part of the
//! replicated state ([`crate::kv::Store::level`]); a command raises it, and nothing lowers it.
//!
//! A build supports a range of levels. Whatever an older build would read differently belongs to the next level:
//!
//! - It names that level as its format ([`crate::command`], [`crate::codec`], [`crate::snapshots::Manifest`]), so that a build that lacks the
//!   level refuses it instead of dropping what it does not know.
//! - It is used only once the state has that level. A build that lacks it meets the command that raises the level first, and ends before it
//!   applies anything that it would misread.
//!
//! | level | what it has beside the one below |
//! |---|---|
//! | 1 | |
//! | 2 | A deletion at exactly the compacted revision is kept. Compares of a writing transaction look at a bounded number of keys. Alarms (etcd's `AlarmRequest`), a bounded number of each kind, NOSPACE by the size of the state among them: then nothing is put. Leases. Configurations say whom clients have registered (etcd's `MemberAdd`). |
//!
//! A build does as its cluster's level says, also where it knows better: until the level is raised, every step of an upgrade can be
//! taken back.

use std::fmt;

/// A level, from [`FIRST`]. 0 is what builds from before the first level leave behind.
pub type Level = u32;

/// The level of a state that was never raised.
pub const FIRST: Level = 1;

/// From this level on the state keeps alarms (etcd's `AlarmRequest`).
pub const ALARMS: Level = 2;

/// From this level on there are leases.
pub const LEASES: Level = 2;

/// From this level on configurations say whom clients have registered, before it has come (etcd's `MemberAdd`).
pub const REGISTRATIONS: Level = 2;

/// The newest level that this build supports.
pub const NEWEST: Level = 2;

/// The product's version, `X.Y.Z`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The levels that a process supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Levels {
    /// The oldest of them.
    pub oldest: Level,
    /// The newest of them.
    pub newest: Level,
}

impl Levels {
    /// All that this build supports.
    pub const ALL: Levels = Levels { oldest: FIRST, newest: NEWEST };

    /// None above `newest`: the process does as a build of that level does. None if this build supports none of these.
    pub fn up_to(newest: Level) -> Option<Self> {
        let levels = Levels { newest: newest.min(Self::ALL.newest), ..Self::ALL };
        (levels.newest >= levels.oldest).then_some(levels)
    }

    /// Whether `level` is one of them.
    pub fn contains(self, level: Level) -> bool {
        (self.oldest..=self.newest).contains(&level)
    }

    /// An error unless `level`, which `what` needs, is one of them.
    pub fn check(self, what: Subject, level: Level) -> Result<(), Unsupported> {
        if self.contains(level) { Ok(()) } else { Err(self.lacks(what, Some(level))) }
    }

    /// The error that `what` needs a level that is not one of them.
    pub fn lacks(self, what: Subject, needs: Option<Level>) -> Unsupported {
        Unsupported { what, needs, supported: self }
    }
}

impl Default for Levels {
    fn default() -> Self {
        Self::ALL
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.oldest == self.newest {
            return write!(f, "level {}", self.newest);
        }
        write!(f, "levels {} to {}", self.oldest, self.newest)
    }
}

/// What needs a level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// An entry of the log.
    Entry(u64),
    /// A snapshot of the state after an entry.
    Snapshot(u64),
    /// The state that a process has found.
    State,
    /// The cluster that a node is to join, or that another member speaks for.
    Cluster,
    /// A file of the data directory.
    File(std::path::PathBuf),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Entry(index) => write!(f, "entry {index} of the log"),
            Subject::Snapshot(index) => write!(f, "the snapshot at entry {index}"),
            Subject::State => f.write_str("the state in the data directory"),
            Subject::Cluster => f.write_str("the cluster"),
            Subject::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A process must not go on: it does not support the level that something needs. Nothing of that was applied, and nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Unsupported {
    /// What needs it.
    pub what: Subject,
    /// The level. None where it holds something that this build does not know, and does not say since when there is such a thing.
    pub needs: Option<Level>,
    /// What the process supports.
    pub supported: Levels,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, needs, supported } = self;
        match needs {
            Some(0) => write!(f, "{what} was written by a version from before the first level")?,
            Some(level) => write!(f, "{what} needs level {level}")?,
            None => write!(f, "{what} holds something that only a newer version knows")?,
        }
        write!(f, ", and this version of quorate-node ({VERSION}) supports {supported}: ")?;
        match needs {
            Some(0) => f.write_str("start with an empty data directory")?,
            Some(level) if *level < supported.oldest => f.write_str("take an older version")?,
            // `--max-level` keeps it from what it could do.
            Some(level) if Levels::ALL.contains(*level) => f.write_str("allow it that level")?,
            Some(_) | None => f.write_str("upgrade it")?,
        }
        f.write_str(". Nothing was changed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do() {
        let old = Levels { oldest: 2, newest: 3 };
        let says = |needs| old.lacks(Subject::Entry(7), needs).to_string();
        assert!(
            says(Some(NEWEST + 5)).starts_with(&format!("entry 7 of the log needs level {}", NEWEST + 5))
        );
        assert!(says(Some(NEWEST + 5)).contains("supports levels 2 to 3: upgrade it"));
        assert!(says(None).contains("only a newer version knows"));
        assert!(says(Some(0)).contains("start with an empty data directory"));
        assert!(old.check(Subject::State, 2).is_ok() && old.check(Subject::State, 4).is_err());
    }

    #[test]
    fn the_range_is_never_empty() {
        assert_eq!(Levels::up_to(NEWEST + 1), Some(Levels::ALL));
        assert_eq!(Levels::up_to(0), None);
    }
}
