//! A copy of the applied state in an embedded engine, so that a start has little of the log to apply again. For nodes that are asked to
//! keep one.
//!
//! It is disposable. Only the log and the snapshots are authoritative; the copy is written behind them, in the background, and counts
//! as far as its newest [`wire::Head`] says and everything fits: the member, the checksum of each block, their number, the log's entry
//! at its index. Whatever is doubtful about it makes it go: then the state comes from the newest snapshot and the log, as if there had
//! been no copy, and a new one is begun.
//!
//! What it holds is the history of the state as a stream of records, cut into blocks: revisions are only ever appended, so nothing is
//! written twice. When more than half of it was compacted it is begun anew.

mod block;
mod engine;
mod guard;
mod keeper;
mod load;
mod sled;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use quorate_api::copy as wire;
use quorate_raft::{LogId, MemberId};

pub use engine::{Engine, EngineError};
pub use guard::{Panicked, guarded, is_the_engines};
pub use keeper::{Keeper, Kept};
pub use load::{Doubt, load};

use self::sled::Sled;
use crate::kv::Store;

/// The folder of the copy in a data directory.
const DIR: &str = "copy";

/// A file beside the copy from when it is opened until something was written to it: an engine that ends the process over what it finds
/// does so once.
const OPENING: &str = "copy.opening";

/// Opens the copy in data directory `dir`, and reads the state from it, if there is one that can be trusted. `is_known` says whether
/// the log holds an entry, or its snapshot covers it. When something was written to the engine, say so by [`settled`].
pub fn open(
    dir: &Path,
    member: MemberId,
    is_known: impl Fn(LogId) -> bool,
) -> Result<(Box<dyn Engine>, Option<Store>), EngineError> {
    let (path, marker) = (dir.join(DIR), dir.join(OPENING));
    if marker.exists() {
        tracing::warn!(copy = %path.display(), "the last process ended before the copy of the state was of use: it is begun anew");
        remove(&path)?;
    }
    fs::write(&marker, []).map_err(|error| EngineError::new("create", &marker, &error))?;
    let mut engine = open_marked(&path)?;
    let state = read(&mut engine, member, is_known)?;
    Ok((Box::new(engine), state))
}

/// Reads the state from `engine`, if there is one that can be trusted; anything else that it holds is removed. For `is_known` see [`open`].
pub fn read(
    engine: &mut dyn Engine,
    member: MemberId,
    is_known: impl Fn(LogId) -> bool,
) -> Result<Option<Store>, EngineError> {
    match load(engine, member) {
        Ok(Some(state)) if is_known(state.applied()) => return Ok(Some(state)),
        Ok(None) => return Ok(None),
        Ok(Some(_)) => tracing::warn!("the copy of the state is not of this log: it is begun anew"),
        Err(doubt) => tracing::warn!(%doubt, "the copy of the state cannot be trusted: it is begun anew"),
    }
    engine.wipe()?;
    Ok(None)
}

/// The engine in data directory `dir` works: what is in it can be used by the next start.
pub fn settled(dir: &Path) -> Result<(), EngineError> {
    let marker = dir.join(OPENING);
    match fs::remove_file(&marker) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(EngineError::new("remove", &marker, &error)),
        _ => Ok(()),
    }
}

/// Removes the copy in data directory `dir`, if there is one.
pub fn discard(dir: &Path) -> Result<(), EngineError> {
    remove(&dir.join(DIR))?;
    settled(dir)
}

/// An engine that does not open is removed, and another one begun.
fn open_marked(path: &Path) -> Result<Sled, EngineError> {
    Sled::open(path).or_else(|error| {
        tracing::warn!(%error, "the copy of the state does not open: it is begun anew");
        remove(path)?;
        Sled::open(path)
    })
}

fn remove(path: &Path) -> Result<(), EngineError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(EngineError::new("remove", path, &error)),
        _ => Ok(()),
    }
}
