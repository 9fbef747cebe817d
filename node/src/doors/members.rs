//! The door for changes of membership that clients ask for. Whoever serves it asks the leader, wherever that is.
//!
//! They are made one at a time. A few wait; what comes beyond is refused.

use quorate_api::log;
use tokio::sync::{mpsc, oneshot};

/// The most that wait.
const WAITING: usize = 16;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Register the member that will come from this peer address: as a learner, or to be a voter once it has caught up.
    Add {
        /// `host:port`.
        peer_address: String,
        /// It stays a learner.
        learner: bool,
    },
    /// Remove a member.
    Remove(u64),
    /// Look for a member at another peer address.
    Update(u64, String),
    /// Make a voter of a learner.
    Promote(u64),
}

/// Why a change is not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// With it those that have ever come would be no majority.
    NotEnoughStarted,
    /// Voters are not heard that it takes.
    Unhealthy,
    /// A member has this peer address.
    AddressExists,
    /// There is no such member.
    NotFound,
    /// The member votes already.
    NotALearner,
    /// The learner has not caught up.
    LearnerNotReady,
    /// There are as many learners as there may be.
    TooManyLearners,
    /// The cluster's level is too low for it.
    Unsupported,
    /// Members are not allowed to change the cluster (`--admin-allowed-names`).
    NotAllowed,
    /// Too many changes wait.
    TooMany,
    /// It was not made in time, as far as is known.
    TimedOut,
    /// The leader refuses it, and says why.
    Invalid(String),
    /// The node is stopping.
    Stopping,
}

/// A change that was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    /// The member that it was about.
    pub member: u64,
    /// The configuration that came of it, which is committed.
    pub configuration: log::Configuration,
}

/// The door. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Members(mpsc::Sender<Asked>);

/// A change that waits.
#[derive(Debug)]
pub struct Asked {
    /// Which.
    pub change: Change,
    /// Told what has come of it.
    pub reply: oneshot::Sender<Result<Changed, Refusal>>,
}

/// The door, and who serves it.
pub fn members() -> (Members, mpsc::Receiver<Asked>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Members(sender), receiver)
}

impl Members {
    /// Asks for a change, and waits for it.
    pub async fn ask(&self, change: Change) -> Result<Changed, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(Asked { change, reply }).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => Refusal::TooMany,
            mpsc::error::TrySendError::Closed(_) => Refusal::Stopping,
        })?;
        answer.await.unwrap_or(Err(Refusal::Stopping))
    }
}

/// Whether a member has ever come: who is only registered has no name.
pub fn has_come(member: &log::Member) -> bool {
    !member.name.is_empty()
}

/// Whether a member counts as a voter for those who ask: also one that was registered to be one and has not come.
pub fn is_shown_as_voter(configuration: &log::Configuration, member: &log::Member) -> bool {
    configuration.voters.contains(&member.id)
        || (!has_come(member) && member.registered() == log::Registration::Voter)
}
