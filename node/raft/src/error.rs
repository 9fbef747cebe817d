//! Why a request is refused. All of these go back to whoever asked; none of them changes the state.

use crate::{LogId, MemberId};

/// Why a proposal is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Only the leader appends.
    #[error("this member does not lead{}", leader.map(|l| format!(": {l} does")).unwrap_or_default())]
    NotLeader {
        /// Who does, if known.
        leader: Option<MemberId>,
    },
    /// The leader is handing over.
    #[error("leadership is being handed to {target}")]
    Transferring {
        /// To whom.
        target: MemberId,
    },
}

/// Why a change of membership is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Not the leader, or handing over.
    #[error(transparent)]
    NotNow(#[from] ProposeError),
    /// The configuration has moved on since the request was made.
    #[error("the configuration is {current:?} by now, not {expected:?}: read it again")]
    Stale {
        /// What the request started from.
        expected: LogId,
        /// What stands in the log.
        current: LogId,
    },
    /// An earlier change is not finished, or this leader has not committed an entry of its term yet.
    #[error("an earlier change is not finished")]
    InProgress,
    /// A new voter is too far behind: the majority it becomes part of would have to wait for it. Ask again later.
    #[error("{0} has not caught up with the log yet: ask again when it has")]
    Lagging(MemberId),
    /// No majority of the voters wanted has answered lately, or it lacks what it acknowledged: the change could not be finished, nor anything else
    /// that is asked behind it. Ask again when more of them are up.
    #[error(
        "too few of the voters that are to be answer this leader: the change could not be finished. Ask again when more of them are up"
    )]
    TooFewAnswer,
    /// The configuration wanted cannot be.
    #[error("{0}")]
    Invalid(String),
}

/// Why leadership is not handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Not the leader, or already handing over to another.
    #[error(transparent)]
    NotNow(#[from] ProposeError),
    /// Not a voter of the configuration, or this member itself.
    #[error("{0} is not another voter")]
    NotAVoter(MemberId),
}
