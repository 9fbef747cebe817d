//! What a snapshot is, and how to know its pieces.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use quorate_api::snapshot as wire;
use quorate_raft::{LogId, Snapshot};
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::digest::Hash;
use super::file::BLOCK;
use crate::codec::{self, CodecError};
use crate::level::{Level, Levels};

/// A piece has to fit into a message.
const MOST_PIECE_BYTES: u32 = 4 << 20;

/// A snapshot's identity, length and the hash of each of its pieces. The same on every member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What the protocol knows it by.
    pub snapshot: Snapshot,
    bytes: u64,
    /// Of each piece but the last.
    piece_bytes: u32,
    /// The SHA-256 of each piece, one behind the other.
    hashes: Bytes,
    level: Level,
}

/// Why bytes are no manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Its configuration is bad.
    #[error(transparent)]
    Configuration(#[from] CodecError),
    /// A version from before the first level has made it, or one that is newer than this.
    #[error("a manifest of level {0}")]
    Level(Level),
    /// It does not agree with itself.
    #[error("{hashes} hashes for {bytes} bytes in pieces of {piece_bytes}")]
    Hashes {
        /// How many there are.
        hashes: usize,
        /// The length of all pieces.
        bytes: u64,
        /// The length of one.
        piece_bytes: u32,
    },
}

impl Manifest {
    /// Which snapshot.
    pub fn id(&self) -> LogId {
        self.snapshot.id
    }

    /// The level of the state: the format of the manifest, and of the pieces.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Stands for all that it says.
    pub fn hash(&self) -> Hash {
        Hash::of(&self.to_wire().encode_to_vec())
    }

    /// The length of all pieces.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many pieces there are. Never none.
    pub fn pieces(&self) -> u32 {
        (self.hashes.len() / SHA256_OUTPUT_LEN) as u32
    }

    /// The length of piece `number`, counted from 0.
    pub fn piece_bytes(&self, number: u32) -> usize {
        self.bytes.saturating_sub(self.offset(number)).min(self.piece_bytes.into()) as usize
    }

    /// Where piece `number` begins.
    pub(super) fn offset(&self, number: u32) -> u64 {
        u64::from(number) * u64::from(self.piece_bytes)
    }

    /// Whether `bytes` are piece `number`.
    pub fn fits(&self, number: u32, bytes: &[u8]) -> bool {
        let start = number as usize * SHA256_OUTPUT_LEN;
        let hash = self.hashes.get(start..start + SHA256_OUTPUT_LEN);
        bytes.len() == self.piece_bytes(number) && hash == Some(digest(&SHA256, bytes).as_ref())
    }

    /// On the wire, and at the end of a file.
    pub fn to_wire(&self) -> wire::Manifest {
        let Snapshot { id, configuration, configuration_id } = &self.snapshot;
        wire::Manifest {
            index: id.index,
            term: id.term,
            configuration: Some(codec::configuration_to_wire(configuration)),
            configuration_index: configuration_id.index,
            configuration_term: configuration_id.term,
            bytes: self.bytes,
            hashes: self.hashes.clone(),
            piece_bytes: self.piece_bytes,
            level: self.level,
        }
    }

    /// The manifest that was sent or stored.
    pub fn from_wire(wire: wire::Manifest) -> Result<Self, ManifestError> {
        let wire::Manifest { bytes, hashes, piece_bytes, level, .. } = wire;
        if !Levels::ALL.contains(level) {
            return Err(ManifestError::Level(level));
        }
        let configuration = codec::configuration_from_wire(wire.configuration.unwrap_or_default())?;
        let snapshot = Snapshot {
            id: LogId { term: wire.term, index: wire.index },
            configuration,
            configuration_id: LogId { term: wire.configuration_term, index: wire.configuration_index },
        };
        let wanted = bytes.div_ceil(u64::from(piece_bytes).max(1));
        let agrees = wanted > 0
            && u32::try_from(wanted).is_ok()
            && (1..=MOST_PIECE_BYTES).contains(&piece_bytes)
            && piece_bytes.is_multiple_of(BLOCK as u32)
            && hashes.len() as u64 == wanted.saturating_mul(SHA256_OUTPUT_LEN as u64);
        if !agrees {
            let hashes = hashes.len() / SHA256_OUTPUT_LEN;
            return Err(ManifestError::Hashes { hashes, bytes, piece_bytes });
        }
        Ok(Self { snapshot, bytes, piece_bytes, hashes, level })
    }
}

/// The manifest of a snapshot whose pieces come one by one.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    bytes: u64,
    hashes: BytesMut,
}

impl Draft {
    /// Takes note of the next piece.
    pub(crate) fn add(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        self.hashes.put_slice(digest(&SHA256, piece).as_ref());
    }

    /// The manifest of `snapshot`, which has these pieces, of so many bytes each, of a state of `level`.
    pub(crate) fn finish(self, snapshot: Snapshot, piece_bytes: u32, level: Level) -> Manifest {
        Manifest { snapshot, bytes: self.bytes, piece_bytes, hashes: self.hashes.freeze(), level }
    }
}
