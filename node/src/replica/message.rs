//! What replicas say to one another: the protocol's messages, and commands on their way to the leader.

use bytes::Bytes;
use quorate_raft::{self as raft, LogId, MemberId, Term};

use super::{Build, Failure, Question, Room, TimeLeft};
use crate::snapshots::{Digest, Manifest, Part};

/// A message from one replica to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The protocol's own.
    Raft(raft::Message),
    /// Commands of the sender's clients, for the leader of `term` and no other to append.
    ///
    /// The term makes their fate known: once an entry of a later term is applied, a command that was not applied before it
    /// never will be.
    Forward {
        /// Whose clients.
        from: MemberId,
        /// The leader of `term`.
        to: MemberId,
        /// The term that they may be appended in.
        term: Term,
        /// Encoded [`quorate_api::log::Command`]s.
        commands: Vec<Bytes>,
    },
    /// The sender did not append these, and will not.
    ForwardRejected {
        /// Who was to append them.
        from: MemberId,
        /// Whose clients.
        to: MemberId,
        /// The term that they were forwarded in: an answer that comes late says nothing of a later attempt.
        term: Term,
        /// The commands' numbers.
        numbers: Vec<u64>,
        /// Why not.
        reason: Rejection,
    },
    /// The sender lacks a snapshot, and asks for a part of it.
    SnapshotRequest {
        /// Who lacks it.
        from: MemberId,
        /// Who may have it.
        to: MemberId,
        /// Which snapshot.
        id: LogId,
        /// Which part of it.
        part: Part,
    },
    /// What the snapshot is that was asked for.
    SnapshotManifest {
        /// Who has it.
        from: MemberId,
        /// Who asked.
        to: MemberId,
        /// Its identity, and how to know its pieces.
        manifest: Box<Manifest>,
    },
    /// A piece of a snapshot.
    SnapshotPiece {
        /// Who has it.
        from: MemberId,
        /// Who asked.
        to: MemberId,
        /// Of which snapshot.
        id: LogId,
        /// Which piece, counted from 0.
        number: u32,
        /// The piece.
        bytes: Bytes,
    },
    /// The sender does not have the snapshot, or the part of it, that was asked for.
    SnapshotMissing {
        /// Who was asked.
        from: MemberId,
        /// Who asked.
        to: MemberId,
        /// For which snapshot.
        id: LogId,
    },
    /// What the sender supports, how much its memory takes, and whether it applies. Said to the leader now and then.
    Supports {
        /// Whose build.
        from: MemberId,
        /// The leader.
        to: MemberId,
        /// The build.
        build: Build,
        /// The most bytes that its state may take; none for no limit.
        quota: Option<u64>,
        /// Its applier stands still, though entries wait for it.
        stands_still: bool,
    },
    /// What the sender's newest snapshots are. Said when there is one more, and now and then.
    Holds {
        /// Whose.
        from: MemberId,
        /// Another member.
        to: MemberId,
        /// Of its newest snapshots, as far as they count.
        digests: Vec<Digest>,
        /// It has found out that its state is not that of a majority.
        is_corrupt: bool,
    },
    /// Clients of the sender ask something of leases, of the leader of `term` and no other.
    LeaseQuestions {
        /// Whose clients.
        from: MemberId,
        /// The leader of `term`.
        to: MemberId,
        /// The term.
        term: Term,
        /// The questions.
        questions: Vec<Question>,
    },
    /// What is left of those leases, by the numbers of the questions.
    LeaseAnswers {
        /// Who led.
        from: MemberId,
        /// Whose clients.
        to: MemberId,
        /// The answers.
        times: Vec<(u64, TimeLeft)>,
    },
    /// The sender's disk has so much room. Said now and then for as long as that is not enough; that it is enough again is
    /// said once, and found out from the silence if that is lost.
    Room {
        /// Whose disk.
        from: MemberId,
        /// Who leads.
        to: MemberId,
        /// How much.
        room: Room,
    },
}

/// Why forwarded commands are not appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rejection {
    /// The member that they were forwarded to does not lead, or not in that term: whoever leads next may.
    NotLeader,
    /// There is no room for them on disks: it is of no use to try again.
    NoSpace,
    /// The leader does not read them, or the cluster's level does not allow them: the same.
    Unsupported,
    /// The leader is too far behind with applying to answer in time.
    TooFarBehind,
    /// The state has reached the quota: the same.
    OverQuota,
    /// The leader, or too many others, have no descriptor for the next file of the log: the same.
    NoDescriptors,
    /// The leader's state is not that of a majority, or the members are divided.
    Corrupt,
}

impl Rejection {
    /// The same to a client that gets no other answer; none if another member may append it.
    pub(super) fn failure(self) -> Option<Failure> {
        match self {
            Rejection::NotLeader => None,
            Rejection::NoSpace => Some(Failure::NoSpace),
            Rejection::Unsupported => Some(Failure::Unsupported),
            Rejection::TooFarBehind => Some(Failure::TooFarBehind),
            Rejection::OverQuota => Some(Failure::OverQuota),
            Rejection::NoDescriptors => Some(Failure::NoDescriptors),
            Rejection::Corrupt => Some(Failure::Corrupt),
        }
    }
}

impl Message {
    /// Whether it carries what clients ask for: who sends it is told when it is lost.
    pub fn is_of_clients(&self) -> bool {
        matches!(self, Message::Forward { .. } | Message::LeaseQuestions { .. })
    }

    /// To whom it is addressed.
    pub fn to(&self) -> MemberId {
        match self {
            Message::Raft(message) => message.to,
            Message::Forward { to, .. }
            | Message::ForwardRejected { to, .. }
            | Message::SnapshotRequest { to, .. }
            | Message::SnapshotManifest { to, .. }
            | Message::SnapshotPiece { to, .. }
            | Message::SnapshotMissing { to, .. }
            | Message::Supports { to, .. }
            | Message::Holds { to, .. }
            | Message::LeaseQuestions { to, .. }
            | Message::LeaseAnswers { to, .. }
            | Message::Room { to, .. } => *to,
        }
    }
}
