//! What members say to one another.

use crate::{Entry, Index, LogId, MemberId, Snapshot, Term};

/// A message from one member to another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Message {
    /// Who says it.
    pub from: MemberId,
    /// To whom.
    pub to: MemberId,
    /// The sender's term; in a pre-vote the term that it would campaign in.
    pub term: Term,
    /// What.
    pub body: Body,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Body {
    /// Replicates entries, or probes with none (Raft paper, 5.3).
    AppendEntries {
        /// The entry just before the first of `entries`.
        previous: LogId,
        /// Consecutive entries from `previous.index + 1` on.
        entries: Vec<Entry>,
        /// The leader's commit index.
        commit: Index,
    },
    /// The follower's log agrees with the leader's up to `matched`, durably.
    AppendAccepted {
        /// The verified and durable index.
        matched: Index,
    },
    /// The follower has no entry `previous`.
    AppendRejected {
        /// The `previous.index` that did not match.
        rejected: Index,
        /// Where the logs may agree.
        hint: LogId,
        /// The follower has lost entries that it may have acknowledged to this very leader: no acceptance from before says
        /// that it has anything after `hint`.
        lost: bool,
    },
    /// The leader does not hold the follower's next entry any more, and offers a snapshot (Raft paper, section 7). Only its
    /// identity: the contents can be fetched from anyone. Answered by [`Body::AppendAccepted`] once the follower holds what
    /// the leader's log begins with, and not before.
    InstallSnapshot {
        /// The leader's newest. Boxed: offers are few, and messages many.
        snapshot: Box<Snapshot>,
        /// The entry that the leader's log begins after: an older snapshot will do, if it goes that far.
        base: LogId,
    },
    /// Tells that the leader is alive, and asks for the confirmation of reads.
    Heartbeat {
        /// What the follower may commit: never beyond what is verified there.
        commit: Index,
        /// The term of the leader's entry there: 0 if its log does not go back to it, none from a build that does not tell.
        commit_term: Option<Term>,
        /// The newest round of reads that waits for a quorum.
        round: u64,
    },
    /// Answers a heartbeat.
    HeartbeatAck {
        /// The heartbeat's round.
        round: u64,
        /// How much the follower is to lead: its [`crate::Config::priority`], 0 while it cannot.
        priority: u32,
        /// For how many ticks the follower, since it got the heartbeat, votes for nobody whom the leader did not ask.
        promise: u32,
    },
    /// Asks for a vote, or whether one would be given (dissertation, 9.6).
    RequestVote {
        /// Only asking.
        pre_vote: bool,
        /// The end of the candidate's log.
        last: LogId,
        /// The leader asked for this election: stickiness does not hold it up.
        transfer: bool,
    },
    /// Answers a request for a vote.
    Vote {
        /// To a pre-vote.
        pre_vote: bool,
        /// Yes or no.
        granted: bool,
    },
    /// A follower's clients want to read: from which index on? (dissertation, 6.4)
    ReadIndex {
        /// The follower's number for the batch of reads.
        id: u64,
    },
    /// Answers it.
    ReadIndexReply {
        /// The number that was asked with.
        id: u64,
        /// What must be applied before reading; none when the receiver does not lead.
        index: Option<Index>,
    },
    /// The leader hands over: campaign now (dissertation, 3.10).
    TimeoutNow,
    /// The sender has lost what it acknowledged, and cannot tell how much: where does the leader's log end? See [`crate::repair`].
    AskEnd {
        /// Drawn at random in each life of the sender: tells the answer from one to an earlier life.
        id: u64,
    },
    /// Answers it, after the question: nothing that the asker lost is behind this entry.
    End {
        /// The number that was asked with.
        id: u64,
        /// The end of the leader's log.
        last: Index,
    },
}

/// What a message states about its sender that has to survive the sender's crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Nothing: it asks, or answers a question that binds nobody.
    Nothing,
    /// The sender's term, and whom it voted for in it.
    Term,
    /// The term, and the log up to now.
    Log,
}

impl Body {
    /// Whether this is said to somebody who leads, campaigns or serves by somebody who only answers or asks: not by one that
    /// leads or campaigns in the message's term.
    pub(crate) fn is_answer(&self) -> bool {
        match self {
            Self::AppendAccepted { .. }
            | Self::AppendRejected { .. }
            | Self::HeartbeatAck { .. }
            | Self::Vote { .. }
            | Self::ReadIndex { .. }
            | Self::ReadIndexReply { .. }
            | Self::AskEnd { .. } => true,
            Self::AppendEntries { .. }
            | Self::InstallSnapshot { .. }
            | Self::Heartbeat { .. }
            | Self::RequestVote { .. }
            | Self::TimeoutNow
            | Self::End { .. } => false,
        }
    }

    /// What has to be durable before this is sent.
    ///
    /// A leader's term has been durable since before it was elected, so what it sends goes out at once; its own disk works
    /// at the same time as the followers' (dissertation, 10.2.1). Members that have just learned of a term answer once that
    /// is durable. A candidate asks for votes once its own is: otherwise it could vote for another after a crash.
    pub(crate) fn claim(&self) -> Claim {
        match self {
            Self::RequestVote { pre_vote: true, .. } | Self::Vote { pre_vote: true, granted: true } => {
                Claim::Nothing
            }
            Self::AppendAccepted { .. } => Claim::Log,
            Self::AppendEntries { .. }
            | Self::AppendRejected { .. }
            | Self::InstallSnapshot { .. }
            | Self::Heartbeat { .. }
            | Self::HeartbeatAck { .. }
            | Self::RequestVote { pre_vote: false, .. }
            | Self::Vote { .. }
            | Self::ReadIndex { .. }
            | Self::ReadIndexReply { .. }
            | Self::AskEnd { .. }
            | Self::End { .. }
            | Self::TimeoutNow => Claim::Term,
        }
    }
}
