//! What is asked of an engine: blocks by number, and a head that is replaced together with them.

use std::fmt;
use std::path::Path;

/// Why the engine does not do what it was asked to. The copy is begun anew, or done without.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot {action} the copy of the state in {place}: {reason}")]
pub struct EngineError {
    action: &'static str,
    place: String,
    reason: String,
}

impl EngineError {
    /// It cannot `action` what is at `path`.
    pub fn new(action: &'static str, path: &Path, reason: &dyn fmt::Display) -> Self {
        Self { action, place: path.display().to_string(), reason: reason.to_string() }
    }
}

/// An embedded engine.
pub trait Engine: fmt::Debug + Send {
    /// What was stored last as the head.
    fn head(&self) -> Result<Option<Vec<u8>>, EngineError>;
    /// The block `number`.
    fn block(&self, number: u64) -> Result<Option<Vec<u8>>, EngineError>;
    /// Stores blocks from number `first` on, and a new head with them if there is one: all of it or nothing.
    fn append(&mut self, first: u64, blocks: Vec<Vec<u8>>, head: Option<Vec<u8>>) -> Result<(), EngineError>;
    /// Makes everything durable.
    fn sync(&mut self) -> Result<(), EngineError>;
    /// Removes everything.
    fn wipe(&mut self) -> Result<(), EngineError>;
}
