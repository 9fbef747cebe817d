//! Who a member is: an ID drawn at random when its data directory was first used, and the cluster that it belongs to.
//!
//! An ID lives and dies with its data directory. (Before it belongs to a cluster a directory may be given another: one that a client has registered for its
//! address, and the log for this directory alone, by the ID that it had.) It is never given to an empty one: a member that has lost its log would vote
//! again where it has voted already, and take back what it has acknowledged.
//!
//! The file `identity` is text:
//!
//! ```text
//! quorate identity 1
//! member 00f1e2d3c4b5a697
//! cluster 0000000000000000
//! crc32c 89abcdef
//! ```
//!
//! A cluster of zeros is none yet. A member that was removed from its cluster has a line before the
//! last, `removed` with the index of the entry that did it. One that was started with leases has a line `leases` before these, and
//! format 2: a version that knows nothing of promises must not start on it. The checksum is of all lines before it. The file is replaced as a whole, atomically.

use std::io;
use std::path::{Path, PathBuf};

use quorate_raft::{Index, MemberId};

use super::disk::Disk;
use super::{Context, Damage, OpenError, WAL_DIR, replace_file, segment};

/// The file.
pub(super) const NAME: &str = "identity";
const FIRST_LINE: &str = "quorate identity ";
/// The newest format.
const NEWEST: u32 = 2;

/// A member's identity, as it stands in its data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// This member. Never zero.
    pub member: MemberId,
    /// Its cluster; zero while it belongs to none.
    pub cluster: u64,
    /// The entry of the log by which its cluster has removed it; 0 for none. The log may not tell any more: what it says of the member may
    /// be behind a snapshot.
    pub removed: Index,
    /// It was started with leases once: an earlier process may have made promises that hold still
    /// ([`quorate_raft::Config::promised`]).
    pub leases: bool,
}

/// An ID for a new member, from the system's randomness.
pub fn random_member() -> io::Result<MemberId> {
    loop {
        let id = getrandom::u64().map_err(io::Error::other)?;
        if id != 0 {
            return Ok(MemberId(id));
        }
    }
}

impl Identity {
    /// A member of `cluster` that nothing has happened to yet.
    pub(crate) fn of(member: MemberId, cluster: u64) -> Self {
        Self { member, cluster, removed: 0, leases: false }
    }

    /// Reads the identity in data directory `dir`. None if there is none.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, OpenError> {
        let path = dir.join(NAME);
        let file = match disk.open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.on("open", &path)?,
        };
        let length = file.len().on("read", &path)?.min(4096);
        let mut bytes = vec![0; length as usize];
        file.read_at(&mut bytes, 0).on("read", &path)?;
        parse(&path, &bytes).map(Some)
    }

    /// Reads the identity in data directory `dir`, or gives a directory that is new the identity `fresh`. To be called
    /// before the log is opened.
    ///
    /// A directory that has a log and no identity, or an identity with a cluster and no log, has lost something: it is refused.
    pub fn open(disk: &dyn Disk, dir: &Path, fresh: MemberId) -> Result<Self, OpenError> {
        let identity = Self::read(disk, dir)?;
        check_log(disk, dir, identity.as_ref())?;
        if let Some(identity) = identity {
            return Ok(identity);
        }
        let identity = Self::of(fresh, 0);
        identity.save(disk, dir)?;
        Ok(identity)
    }

    /// Makes the member belong to `cluster`, durably and for good. Saying it again is harmless; another cluster is refused.
    /// To be called when the log exists.
    pub fn join(&mut self, disk: &dyn Disk, dir: &Path, cluster: u64) -> Result<(), OpenError> {
        assert!(cluster != 0, "zero is no cluster");
        if self.cluster == cluster {
            return Ok(());
        }
        if self.cluster != 0 {
            let what =
                format!("the directory belongs to cluster {:016x}, not to {cluster:016x}", self.cluster);
            return Err(OpenError::Foreign { path: dir.to_owned(), what });
        }
        let joined = Self { cluster, ..*self };
        joined.save(disk, dir)?;
        *self = joined;
        Ok(())
    }

    /// Remembers, durably, that entry `removed` has removed the member from its cluster; 0 that none has.
    pub fn set_removed(&mut self, disk: &dyn Disk, dir: &Path, removed: Index) -> Result<(), OpenError> {
        if self.removed != removed {
            let marked = Self { removed, ..*self };
            marked.save(disk, dir)?;
            *self = marked;
        }
        Ok(())
    }

    /// Remembers, durably and for good, that the member makes promises. To be called before it makes the first.
    pub fn set_leases(&mut self, disk: &dyn Disk, dir: &Path) -> Result<(), OpenError> {
        if !self.leases {
            let marked = Self { leases: true, ..*self };
            marked.save(disk, dir)?;
            *self = marked;
        }
        Ok(())
    }

    /// Stores it, durably, in the place of what there is.
    pub(crate) fn save(&self, disk: &dyn Disk, dir: &Path) -> Result<(), OpenError> {
        replace_file(disk, dir, NAME, self.text().as_bytes())
    }

    fn text(&self) -> String {
        let removed = Some(self.removed).filter(|at| *at != 0).map(|at| format!("removed {at:016x}\n"));
        let removed = removed.unwrap_or_default();
        let (format, leases) = if self.leases { (2, "leases\n") } else { (1, "") };
        let Self { member: MemberId(member), cluster, .. } = self;
        let lines =
            format!("{FIRST_LINE}{format}\nmember {member:016x}\ncluster {cluster:016x}\n{leases}{removed}");
        let checksum = crc32c::crc32c(lines.as_bytes());
        format!("{lines}crc32c {checksum:08x}\n")
    }
}

/// Gives data directory `dir`, which belongs to no cluster and so has promised nothing, another ID, durably. Its log, in which nothing counts, goes
/// first: it is that of the ID that it had. Cut short between the two, the directory is as good as new, with the old ID.
pub fn take_id(disk: &dyn Disk, dir: &Path, member: MemberId) -> Result<(), OpenError> {
    let foreign = |what: String| OpenError::Foreign { path: dir.to_owned(), what };
    let identity =
        Identity::read(disk, dir)?.ok_or_else(|| foreign("the directory has no identity".into()))?;
    if identity.cluster != 0 {
        let what =
            format!("the directory belongs to cluster {:016x}, as {}", identity.cluster, identity.member);
        return Err(foreign(what));
    }
    let wal = dir.join(WAL_DIR);
    for name in disk.list(&wal).on("list", &wal)? {
        let path = wal.join(name);
        disk.remove(&path).on("remove", &path)?;
    }
    disk.sync_dir(&wal).on("sync", &wal)?;
    Identity { member, ..identity }.save(disk, dir)
}

/// Reads what [`Identity::text`] writes; anything else is damage.
fn parse(path: &Path, bytes: &[u8]) -> Result<Identity, OpenError> {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let version = text.lines().next().and_then(|line| line.strip_prefix(FIRST_LINE));
    if let Some(version) = version.and_then(|v| v.parse::<u32>().ok()).filter(|v| *v > NEWEST) {
        let what = format!("written in format {version}; this version reads formats up to {NEWEST}");
        return Err(OpenError::Foreign { path: path.to_owned(), what });
    }
    let number = |name: &str| {
        let digits = text.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(digits, 16).ok()
    };
    let removed = number("removed ").unwrap_or(0);
    let leases = text.lines().any(|line| line == "leases");
    let identity = number("member ").zip(number("cluster ")).map(|(member, cluster)| Identity {
        member: MemberId(member),
        cluster,
        removed,
        leases,
    });
    // Writing it again must give the same bytes: that covers the checksum and everything else.
    identity.filter(|id| id.member.0 != 0 && id.text().as_bytes() == bytes).ok_or_else(|| {
        let what = "the identity does not match its checksum".to_owned();
        Damage { path: path.to_owned(), offset: 0, what }.into()
    })
}

/// Whether there is a log where there should be one, and only there.
pub(super) fn check_log(disk: &dyn Disk, dir: &Path, identity: Option<&Identity>) -> Result<(), OpenError> {
    let has_log = has_log(disk, dir)?;
    match identity {
        None if has_log => {
            let what = "the identity is missing beside a log".to_owned();
            Err(Damage { path: dir.join(NAME), offset: 0, what }.into())
        }
        Some(identity) if identity.cluster != 0 && !has_log => {
            let what = format!("the log of {} is gone", identity.member);
            Err(Damage { path: dir.join(WAL_DIR), offset: 0, what }.into())
        }
        _ => Ok(()),
    }
}

/// Whether there are segments of a log.
fn has_log(disk: &dyn Disk, dir: &Path) -> Result<bool, OpenError> {
    let wal: PathBuf = dir.join(WAL_DIR);
    match disk.list(&wal) {
        Ok(names) => Ok(names.iter().any(|name| segment::number_of(name).is_some())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(source).on("list", &wal),
    }
}
