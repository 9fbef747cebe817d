//! Messages between replicas, to and from their wire form.

use prost::Message as _;
use quorate_api::peer::{self as pb, forward_rejected::Reason, message::Body as Wire, room::Level};
use quorate_raft::{self as raft, Body, Entry, Index, LogId, MemberId, Payload, Snapshot};

use super::registry::{Incarnation, Memory};
use crate::codec::{self, CodecError};
use crate::level::{Levels, Subject, Unsupported};
use crate::replica::{Build, Message, Question, Rejection, Room, TimeLeft};
use crate::snapshots::{Digest, Hash, Manifest, ManifestError, Part};

/// Why a message is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    /// It says nothing, or something that a newer version introduced.
    #[error("a message that this version does not know")]
    Unknown,
    /// A part is missing.
    #[error("a message without its {0}")]
    Missing(&'static str),
    /// Its entries are bad.
    #[error(transparent)]
    Entries(#[from] CodecError),
    /// Its manifest, of the snapshot at this entry, is none.
    #[error("{1}")]
    Manifest(Index, ManifestError),
}

impl WireError {
    /// What the message needs, if it is a newer version's: it is neither passed over nor taken for nonsense.
    pub(super) fn unsupported(&self) -> Option<Unsupported> {
        let (what, needs) = match self {
            Self::Entries(CodecError::Newer { index, needs }) => (Subject::Entry(*index), *needs),
            Self::Manifest(index, ManifestError::Level(level)) => (Subject::Snapshot(*index), Some(*level)),
            _ => return None,
        };
        Some(Levels::ALL.lacks(what, needs))
    }
}

/// About how many bytes a message has.
pub(super) fn size(message: &Message) -> usize {
    const FRAME: usize = 64;
    match message {
        Message::Raft(raft::Message { body: Body::AppendEntries { entries, .. }, .. }) => {
            FRAME + entries.iter().map(|entry| 16 + payload_size(&entry.payload)).sum::<usize>()
        }
        Message::Raft(_)
        | Message::SnapshotRequest { .. }
        | Message::SnapshotMissing { .. }
        | Message::Supports { .. }
        | Message::Room { .. } => FRAME,
        Message::Holds { digests, .. } => FRAME + 64 * digests.len(),
        Message::LeaseQuestions { questions, .. } => FRAME + 28 * questions.len(),
        Message::LeaseAnswers { times, .. } => FRAME + 28 * times.len(),
        Message::Forward { commands, .. } => {
            FRAME + commands.iter().map(|bytes| 8 + bytes.len()).sum::<usize>()
        }
        Message::ForwardRejected { numbers, .. } => FRAME + 10 * numbers.len(),
        // A hash for each.
        Message::SnapshotManifest { manifest, .. } => FRAME + 32 * manifest.pieces() as usize,
        Message::SnapshotPiece { bytes, .. } => FRAME + bytes.len(),
    }
}

fn payload_size(payload: &Payload) -> usize {
    match payload {
        Payload::Noop => 0,
        Payload::Command(bytes) => bytes.len(),
        Payload::Configuration(configuration) => configuration.addresses.values().map(|a| a.len() + 32).sum(),
    }
}

/// A message's wire form. Sender and receiver are known from the stream.
pub(super) fn to_wire(message: Message) -> pb::Message {
    match message {
        Message::Raft(message) => pb::Message { term: message.term, body: Some(body_to_wire(message.body)) },
        Message::Forward { term, commands, .. } => {
            pb::Message { term, body: Some(Wire::Forward(pb::Forward { commands })) }
        }
        Message::ForwardRejected { term, numbers: requests, reason, .. } => {
            let rejected = pb::ForwardRejected { requests, reason: reason_to_wire(reason).into() };
            pb::Message { term, body: Some(Wire::ForwardRejected(rejected)) }
        }
        Message::SnapshotRequest { id, part, .. } => {
            let piece = match part {
                Part::Manifest => None,
                Part::Piece(number) => Some(number),
            };
            timeless(Wire::SnapshotRequest(pb::SnapshotRequest { id: Some(id_to_wire(id)), piece }))
        }
        Message::SnapshotManifest { manifest, .. } => timeless(Wire::SnapshotManifest(manifest.to_wire())),
        Message::SnapshotPiece { id, number, bytes: data, .. } => {
            timeless(Wire::SnapshotPiece(pb::SnapshotPiece { id: Some(id_to_wire(id)), number, data }))
        }
        Message::SnapshotMissing { id, .. } => {
            timeless(Wire::SnapshotMissing(pb::SnapshotMissing { id: Some(id_to_wire(id)) }))
        }
        Message::Room { room, .. } => timeless(Wire::Room(room_to_wire(room))),
        Message::Holds { digests, is_corrupt, .. } => {
            let digests = digests.into_iter().map(digest_to_wire).collect();
            timeless(Wire::Holds(pb::Holds { digests, is_corrupt }))
        }
        Message::LeaseQuestions { term, questions, .. } => {
            let question = |Question { number, id, renews }| pb::LeaseQuestion { number, id, renews };
            let questions = questions.into_iter().map(question).collect();
            pb::Message { term, body: Some(Wire::LeaseQuestions(pb::LeaseQuestions { questions })) }
        }
        Message::LeaseAnswers { times, .. } => {
            let answer = |(number, TimeLeft { ttl, left })| pb::LeaseAnswer { number, ttl, left };
            let answers = times.into_iter().map(answer).collect();
            timeless(Wire::LeaseAnswers(pb::LeaseAnswers { answers }))
        }
        Message::Supports { build: Build { version, levels }, quota, stands_still, .. } => {
            timeless(Wire::Supports(pb::Supports {
                version,
                oldest_level: levels.oldest,
                newest_level: levels.newest,
                quota,
                stands_still,
            }))
        }
    }
}

/// A message whose truth is of no term.
fn timeless(body: Wire) -> pb::Message {
    pb::Message { term: 0, body: Some(body) }
}

fn body_to_wire(body: Body) -> Wire {
    match body {
        Body::AppendEntries { previous, entries, commit } => Wire::AppendEntries(pb::AppendEntries {
            previous: Some(id_to_wire(previous)),
            entries: entries.iter().map(codec::entry_to_wire).collect(),
            commit,
        }),
        Body::AppendAccepted { matched } => Wire::AppendAccepted(pb::AppendAccepted { r#match: matched }),
        Body::AppendRejected { rejected, hint, lost } => {
            Wire::AppendRejected(pb::AppendRejected { rejected, hint: Some(id_to_wire(hint)), lost })
        }
        Body::InstallSnapshot { snapshot, base } => Wire::InstallSnapshot(pb::InstallSnapshot {
            id: Some(id_to_wire(snapshot.id)),
            configuration: Some(codec::configuration_to_wire(&snapshot.configuration)),
            configuration_id: Some(id_to_wire(snapshot.configuration_id)),
            base: Some(id_to_wire(base)),
        }),
        Body::Heartbeat { commit, commit_term, round } => {
            Wire::Heartbeat(pb::Heartbeat { commit, commit_term, round })
        }
        Body::HeartbeatAck { round, priority, promise } => {
            Wire::HeartbeatAck(pb::HeartbeatAck { round, priority, promise })
        }
        Body::RequestVote { pre_vote, last, transfer } => {
            Wire::RequestVote(pb::RequestVote { pre_vote, last: Some(id_to_wire(last)), transfer })
        }
        Body::Vote { pre_vote, granted } => Wire::Vote(pb::Vote { pre_vote, granted }),
        Body::ReadIndex { id } => Wire::ReadIndex(pb::ReadIndex { id }),
        // The first entry has index 1: no read waits for 0.
        Body::ReadIndexReply { id, index } => {
            Wire::ReadIndexReply(pb::ReadIndexReply { id, index: index.unwrap_or(0) })
        }
        Body::TimeoutNow => Wire::TimeoutNow(pb::TimeoutNow {}),
        Body::AskEnd { id } => Wire::AskEnd(pb::AskEnd { id }),
        Body::End { id, last } => Wire::End(pb::End { id, last }),
    }
}

/// The messages that `from` has sent to `to`. A kind that this version does not know is as good as lost: newer versions can do without.
pub(super) fn received(
    from: MemberId,
    to: MemberId,
    messages: Vec<pb::Message>,
) -> Result<Vec<Message>, WireError> {
    let understood = messages.into_iter().map(|message| from_wire(from, to, message));
    understood.filter(|message| *message != Err(WireError::Unknown)).collect()
}

/// The message that `from` has sent to `to`.
pub(super) fn from_wire(from: MemberId, to: MemberId, message: pb::Message) -> Result<Message, WireError> {
    let term = message.term;
    let body = match message.body.ok_or(WireError::Unknown)? {
        Wire::Forward(pb::Forward { commands }) => {
            let commands = commands.iter().map(codec::own).collect();
            return Ok(Message::Forward { from, to, term, commands });
        }
        Wire::ForwardRejected(rejected) => {
            let reason = reason_from_wire(&rejected);
            return Ok(Message::ForwardRejected { from, to, term, numbers: rejected.requests, reason });
        }
        Wire::SnapshotRequest(pb::SnapshotRequest { id, piece }) => {
            let id = id_from_wire(id, "snapshot")?;
            let part = piece.map_or(Part::Manifest, Part::Piece);
            return Ok(Message::SnapshotRequest { from, to, id, part });
        }
        Wire::SnapshotManifest(manifest) => {
            let index = manifest.index;
            let manifest =
                Manifest::from_wire(manifest).map_err(|error| WireError::Manifest(index, error))?;
            let manifest = Box::new(manifest);
            return Ok(Message::SnapshotManifest { from, to, manifest });
        }
        Wire::SnapshotPiece(pb::SnapshotPiece { id, number, data: bytes }) => {
            let id = id_from_wire(id, "snapshot")?;
            return Ok(Message::SnapshotPiece { from, to, id, number, bytes });
        }
        Wire::SnapshotMissing(pb::SnapshotMissing { id }) => {
            return Ok(Message::SnapshotMissing { from, to, id: id_from_wire(id, "snapshot")? });
        }
        Wire::Supports(pb::Supports { version, oldest_level, newest_level, quota, stands_still }) => {
            let levels = Levels { oldest: oldest_level, newest: newest_level };
            return Ok(Message::Supports { from, to, build: Build { version, levels }, quota, stands_still });
        }
        Wire::Holds(pb::Holds { digests, is_corrupt }) => {
            let digests = digests.iter().map(digest_from_wire).collect::<Result<_, _>>()?;
            return Ok(Message::Holds { from, to, digests, is_corrupt });
        }
        Wire::LeaseQuestions(pb::LeaseQuestions { questions }) => {
            let question = |pb::LeaseQuestion { number, id, renews }| Question { number, id, renews };
            let questions = questions.into_iter().map(question).collect();
            return Ok(Message::LeaseQuestions { from, to, term, questions });
        }
        Wire::LeaseAnswers(pb::LeaseAnswers { answers }) => {
            let time = |pb::LeaseAnswer { number, ttl, left }| (number, TimeLeft { ttl, left });
            return Ok(Message::LeaseAnswers { from, to, times: answers.into_iter().map(time).collect() });
        }
        Wire::Room(room) => return Ok(Message::Room { from, to, room: room_from_wire(room) }),
        Wire::AppendEntries(append) => {
            let previous = id_from_wire(append.previous, "previous entry")?;
            let entries = entries_after(previous, append.entries)?;
            Body::AppendEntries { previous, entries, commit: append.commit }
        }
        Wire::AppendAccepted(accepted) => Body::AppendAccepted { matched: accepted.r#match },
        Wire::AppendRejected(rejected) => Body::AppendRejected {
            rejected: rejected.rejected,
            hint: id_from_wire(rejected.hint, "hint")?,
            lost: rejected.lost,
        },
        Wire::InstallSnapshot(offer) => {
            let configuration = offer.configuration.ok_or(WireError::Missing("configuration"))?;
            Body::InstallSnapshot {
                snapshot: Box::new(Snapshot {
                    id: id_from_wire(offer.id, "snapshot")?,
                    configuration: codec::configuration_from_wire(configuration)?,
                    configuration_id: id_from_wire(offer.configuration_id, "configuration's entry")?,
                }),
                base: id_from_wire(offer.base, "base")?,
            }
        }
        Wire::Heartbeat(pb::Heartbeat { commit, commit_term, round }) => {
            Body::Heartbeat { commit, commit_term, round }
        }
        Wire::HeartbeatAck(pb::HeartbeatAck { round, priority, promise }) => {
            Body::HeartbeatAck { round, priority, promise }
        }
        Wire::RequestVote(request) => Body::RequestVote {
            pre_vote: request.pre_vote,
            last: id_from_wire(request.last, "last entry")?,
            transfer: request.transfer,
        },
        Wire::Vote(pb::Vote { pre_vote, granted }) => Body::Vote { pre_vote, granted },
        Wire::ReadIndex(pb::ReadIndex { id }) => Body::ReadIndex { id },
        Wire::ReadIndexReply(pb::ReadIndexReply { id, index }) => {
            Body::ReadIndexReply { id, index: (index != 0).then_some(index) }
        }
        Wire::TimeoutNow(pb::TimeoutNow {}) => Body::TimeoutNow,
        Wire::AskEnd(pb::AskEnd { id }) => Body::AskEnd { id },
        Wire::End(pb::End { id, last }) => Body::End { id, last },
    };
    Ok(Message::Raft(raft::Message { from, to, term, body }))
}

/// What is remembered, as the details of a refusal.
pub(super) fn memory_to_wire(memory: &Memory) -> Vec<u8> {
    let Memory { incarnation: Incarnation { start, nonce }, durable, term, is_heard } = *memory;
    pb::Memory { start, nonce, durable, term, is_heard }.encode_to_vec()
}

/// What is remembered, if these are the details of a refusal for it.
pub(super) fn memory(details: &[u8]) -> Option<Memory> {
    let memory = pb::Memory::decode(details).ok().filter(|memory| memory.start != 0)?;
    let pb::Memory { start, nonce, durable, term, is_heard } = memory;
    Some(Memory { incarnation: Incarnation { start, nonce }, durable, term, is_heard })
}

fn entries_after(previous: LogId, entries: Vec<quorate_api::log::Entry>) -> Result<Vec<Entry>, WireError> {
    let first = previous.index.checked_add(1).ok_or(CodecError::IndexOverflow)?;
    Ok(codec::entries_from_wire(first, entries)?)
}

fn reason_to_wire(reason: Rejection) -> Reason {
    match reason {
        Rejection::NotLeader => Reason::NotLeader,
        Rejection::NoSpace => Reason::NoSpace,
        Rejection::Unsupported => Reason::Unsupported,
        Rejection::TooFarBehind => Reason::TooFarBehind,
        Rejection::OverQuota => Reason::OverQuota,
        Rejection::NoDescriptors => Reason::NoDescriptors,
        Rejection::Corrupt => Reason::Corrupt,
    }
}

fn reason_from_wire(rejected: &pb::ForwardRejected) -> Rejection {
    match Reason::try_from(rejected.reason) {
        Ok(Reason::NotLeader) => Rejection::NotLeader,
        Ok(Reason::NoSpace) => Rejection::NoSpace,
        Ok(Reason::TooFarBehind) => Rejection::TooFarBehind,
        Ok(Reason::OverQuota) => Rejection::OverQuota,
        Ok(Reason::NoDescriptors) => Rejection::NoDescriptors,
        Ok(Reason::Corrupt) => Rejection::Corrupt,
        Ok(Reason::Unsupported) | Err(_) => Rejection::Unsupported,
    }
}

fn digest_to_wire(Digest { id, level, hash }: Digest) -> pb::Digest {
    pb::Digest { id: Some(id_to_wire(id)), level, hash: hash.0.to_vec().into() }
}

fn digest_from_wire(wire: &pb::Digest) -> Result<Digest, WireError> {
    let hash = Hash::from_bytes(&wire.hash).ok_or(WireError::Missing("hash"))?;
    Ok(Digest { id: id_from_wire(wire.id, "snapshot")?, level: wire.level, hash })
}

fn room_to_wire(room: Room) -> pb::Room {
    let level = match room {
        Room::Enough => Level::Enough,
        Room::Low => Level::Low,
        Room::Out => Level::Out,
        Room::NoDescriptors => Level::NoDescriptors,
    };
    pb::Room { level: level.into() }
}

fn room_from_wire(room: pb::Room) -> Room {
    match Level::try_from(room.level) {
        Ok(Level::Enough) => Room::Enough,
        Ok(Level::Low) => Room::Low,
        Ok(Level::NoDescriptors) => Room::NoDescriptors,
        Ok(Level::Out) | Err(_) => Room::Out,
    }
}

fn id_to_wire(id: LogId) -> pb::LogId {
    pb::LogId { term: id.term, index: id.index }
}

fn id_from_wire(id: Option<pb::LogId>, what: &'static str) -> Result<LogId, WireError> {
    let id = id.ok_or(WireError::Missing(what))?;
    Ok(LogId { term: id.term, index: id.index })
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft::Configuration;

    #[test]
    fn what_is_sent_is_received() {
        let (from, to) = (MemberId(1), MemberId(2));
        let id = LogId { term: 3, index: 8 };
        let entry = Entry { term: 4, index: 9, payload: Payload::Command("x".into()) };
        let bodies = [
            Body::AppendEntries { previous: id, entries: vec![entry], commit: 7 },
            Body::AppendAccepted { matched: 9 },
            Body::AppendRejected { rejected: 8, hint: id, lost: true },
            Body::InstallSnapshot {
                snapshot: Box::new(Snapshot {
                    id,
                    configuration: Configuration::default(),
                    configuration_id: id,
                }),
                base: LogId { term: 2, index: 3 },
            },
            Body::Heartbeat { commit: 5, commit_term: Some(2), round: 6 },
            Body::Heartbeat { commit: 5, commit_term: None, round: 6 },
            Body::HeartbeatAck { round: 6, priority: 7, promise: 8 },
            Body::RequestVote { pre_vote: true, last: id, transfer: false },
            Body::Vote { pre_vote: false, granted: true },
            Body::ReadIndex { id: 4 },
            Body::ReadIndexReply { id: 4, index: None },
            Body::ReadIndexReply { id: 4, index: Some(2) },
            Body::TimeoutNow,
            Body::AskEnd { id: 3 },
            Body::End { id: 3, last: 9 },
        ];
        let raft = bodies.map(|body| Message::Raft(raft::Message { from, to, term: 5, body }));
        let forwards = [
            Message::Forward { from, to, term: 5, commands: vec!["a".into(), "b".into()] },
            Message::ForwardRejected {
                from,
                to,
                term: 5,
                numbers: vec![u64::MAX],
                reason: Rejection::NotLeader,
            },
            Message::ForwardRejected { from, to, term: 5, numbers: vec![1, 2], reason: Rejection::NoSpace },
            Message::ForwardRejected { from, to, term: 5, numbers: vec![], reason: Rejection::Unsupported },
            Message::ForwardRejected { from, to, term: 5, numbers: vec![], reason: Rejection::TooFarBehind },
            Message::SnapshotRequest { from, to, id, part: Part::Manifest },
            Message::SnapshotRequest { from, to, id, part: Part::Piece(0) },
            Message::SnapshotManifest { from, to, manifest: Box::new(manifest()) },
            Message::SnapshotPiece { from, to, id, number: 2, bytes: "piece".into() },
            Message::SnapshotMissing { from, to, id },
            Message::Supports {
                from,
                to,
                build: Build { version: "1.2.3".into(), levels: Levels::ALL },
                quota: Some(7),
                stands_still: true,
            },
            Message::ForwardRejected { from, to, term: 5, numbers: vec![3], reason: Rejection::OverQuota },
            Message::ForwardRejected {
                from,
                to,
                term: 5,
                numbers: vec![4],
                reason: Rejection::NoDescriptors,
            },
            Message::Room { from, to, room: Room::NoDescriptors },
            Message::ForwardRejected { from, to, term: 5, numbers: vec![], reason: Rejection::Corrupt },
            Message::Holds { from, to, digests: vec![Digest::of(&manifest())], is_corrupt: false },
            Message::Holds { from, to, digests: vec![], is_corrupt: true },
            Message::LeaseQuestions {
                from,
                to,
                term: 3,
                questions: vec![Question { number: 9, id: -1, renews: true }],
            },
            Message::LeaseAnswers { from, to, times: vec![(9, TimeLeft { ttl: 60, left: 59 })] },
            Message::Room { from, to, room: Room::Enough },
            Message::Room { from, to, room: Room::Low },
            Message::Room { from, to, room: Room::Out },
        ];
        for message in raft.into_iter().chain(forwards) {
            assert_eq!(from_wire(from, to, to_wire(message.clone())), Ok(message));
        }
    }

    fn manifest() -> Manifest {
        let wire = quorate_api::snapshot::Manifest {
            index: 8,
            term: 3,
            configuration: Some(codec::configuration_to_wire(&Configuration::default())),
            bytes: 5,
            hashes: vec![7; 32].into(),
            piece_bytes: 4096,
            level: crate::level::FIRST,
            ..Default::default()
        };
        Manifest::from_wire(wire).unwrap()
    }

    #[test]
    fn what_newer_versions_say_beside_the_rest_is_passed_over() {
        let (from, to) = (MemberId(1), MemberId(2));
        let known = Message::Raft(raft::Message { from, to, term: 5, body: Body::TimeoutNow });
        // An unknown field is all that is left of a kind of message that is not known.
        let frame = vec![pb::Message { term: 5, body: None }, to_wire(known.clone())];
        assert_eq!(received(from, to, frame), Ok(vec![known]));
        let bad = Wire::AppendEntries(pb::AppendEntries::default());
        assert!(received(from, to, vec![pb::Message { term: 5, body: Some(bad) }]).is_err());
    }

    #[test]
    fn nonsense_is_an_error() {
        let refused = |body| from_wire(MemberId(1), MemberId(2), pb::Message { term: 1, body });
        assert_eq!(refused(None), Err(WireError::Unknown));
        assert_eq!(
            refused(Some(Wire::AppendEntries(pb::AppendEntries::default()))),
            Err(WireError::Missing("previous entry"))
        );
        let last = Some(pb::LogId { term: 1, index: u64::MAX });
        let append = pb::AppendEntries { previous: last, ..Default::default() };
        assert!(matches!(refused(Some(Wire::AppendEntries(append))), Err(WireError::Entries(_))));
    }
}
