//! Reads the state from its copy.

use bytes::BytesMut;
use prost::Message as _;
use quorate_raft::{LogId, MemberId};

use super::engine::{Engine, EngineError};
use super::{block, wire};
use crate::kv::{Rebuild, RebuildError, Store, records};

/// Why a copy cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum Doubt {
    /// The engine does not give it back.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// It is another member's.
    #[error("it is the copy of member {0}")]
    Foreign(MemberId),
    /// A part of it is gone, or is not what was written.
    #[error("{0} is missing or damaged")]
    Damaged(&'static str),
    /// It makes no state.
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
}

/// The state that `engine` holds; none if it holds nothing.
pub fn load(engine: &dyn Engine, member: MemberId) -> Result<Option<Store>, Doubt> {
    let Some(sealed) = engine.head()? else { return Ok(None) };
    let head = block::open(u64::MAX, &sealed).ok_or(Doubt::Damaged("its head"))?;
    let head = wire::Head::decode(head).map_err(|_| Doubt::Damaged("its head"))?;
    if head.member != member.0 {
        return Err(Doubt::Foreign(MemberId(head.member)));
    }
    let mut rebuild = Rebuild::default();
    let mut stream = BytesMut::new();
    for number in 0..head.blocks {
        let sealed = engine.block(number)?.ok_or(Doubt::Damaged("a block"))?;
        stream.extend_from_slice(block::open(number, &sealed).ok_or(Doubt::Damaged("a block"))?);
        take(&mut stream, &mut rebuild)?;
    }
    if !stream.is_empty() || rebuild.versions() != head.versions {
        return Err(Doubt::Damaged("a record"));
    }
    let state = head.state.ok_or(Doubt::Damaged("its head"))?;
    Ok(Some(rebuild.finish(&state, LogId { term: head.term, index: head.index })?))
}

/// Takes whole records off the stream.
fn take(stream: &mut BytesMut, rebuild: &mut Rebuild) -> Result<(), Doubt> {
    while let Some(record) = records::take(stream).map_err(|_| Doubt::Damaged("a record"))? {
        let version = prost::Message::decode(record).map_err(|_| Doubt::Damaged("a record"))?;
        rebuild.push(&version)?;
    }
    Ok(())
}
