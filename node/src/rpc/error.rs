//! Every error that clients get from here: etcd's code and text for it.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::backup::BackupError;
use crate::doors::gateway::RequestError;
use crate::doors::members::Refusal;
use crate::kv::KvError;
use crate::kv::check::Invalid;

impl From<Invalid> for Status {
    fn from(error: Invalid) -> Self {
        let text = match error {
            Invalid::EmptyKey => "etcdserver: key is not provided",
            Invalid::ValueProvided => "etcdserver: value is provided",
            Invalid::LeaseProvided => "etcdserver: lease is provided",
            Invalid::SortOption => "etcdserver: invalid sort option",
            Invalid::EmptyOperation => "etcdserver: key not found",
            Invalid::TooManyOperations => "etcdserver: too many operations in txn request",
            Invalid::DuplicateKey => "etcdserver: duplicate key given in txn request",
            Invalid::TooLarge => "etcdserver: request is too large",
        };
        Status::new(Code::InvalidArgument, text)
    }
}

impl From<KvError> for Status {
    fn from(error: KvError) -> Self {
        let (code, text) = match error {
            KvError::Compacted => {
                (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted")
            }
            KvError::FutureRevision => {
                (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision")
            }
            KvError::NoSpace => return over_quota(),
            KvError::KeyNotFound => (Code::InvalidArgument, "etcdserver: key not found"),
            KvError::TooManyCompared => {
                (Code::InvalidArgument, "etcdserver: too many operations in txn request")
            }
            // etcd has no bound, and no text.
            KvError::TooManyAlarms => {
                (Code::ResourceExhausted, "etcdserver: too many alarms are raised: disarm some")
            }
            KvError::LeaseExists => (Code::FailedPrecondition, "etcdserver: lease already exists"),
            KvError::LeaseNotFound => (Code::NotFound, "etcdserver: requested lease not found"),
        };
        Status::new(code, text)
    }
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Self {
        let (code, text) = match error {
            RequestError::Refused(error) => return error.into(),
            // A node without a cluster has no leader either; clients try their next endpoint on this text.
            RequestError::NoLeader | RequestError::NotAMember => (Code::Unavailable, "etcdserver: no leader"),
            RequestError::TimedOut => (Code::Unavailable, "etcdserver: request timed out"),
            RequestError::Overloaded => (Code::ResourceExhausted, "etcdserver: too many requests"),
            RequestError::OverQuota => return over_quota(),
            RequestError::NoSpace => return no_space(DISK_FULL),
            RequestError::NoDescriptors => (Code::ResourceExhausted, NO_DESCRIPTORS),
            RequestError::Unsupported => (Code::FailedPrecondition, "etcdserver: not capable"),
            RequestError::Corrupt => (Code::DataLoss, "etcdserver: corrupt cluster"),
            RequestError::Stopping => (Code::Unavailable, "etcdserver: server stopped"),
        };
        Status::new(code, text)
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let (code, text) = match refusal {
            // etcd has a code for this, and does not use it.
            Refusal::NotEnoughStarted => {
                (Code::Unknown, "etcdserver: re-configuration failed due to not enough started members")
            }
            Refusal::Unhealthy => (Code::Unavailable, "etcdserver: unhealthy cluster"),
            Refusal::AddressExists => (Code::FailedPrecondition, "etcdserver: Peer URLs already exists"),
            Refusal::NotFound => return member_not_found(),
            Refusal::NotALearner => {
                (Code::FailedPrecondition, "etcdserver: can only promote a learner member")
            }
            Refusal::LearnerNotReady => (
                Code::FailedPrecondition,
                "etcdserver: can only promote a learner member which is in sync with leader",
            ),
            Refusal::TooManyLearners => {
                (Code::FailedPrecondition, "etcdserver: too many learner members in cluster")
            }
            Refusal::Unsupported => return RequestError::Unsupported.into(),
            Refusal::NotAllowed => (Code::PermissionDenied, "etcdserver: permission denied"),
            Refusal::TooMany => return too_many_requests(),
            Refusal::TimedOut => return RequestError::TimedOut.into(),
            Refusal::Stopping => return RequestError::Stopping.into(),
            // etcd has no text for what its configurations allow.
            Refusal::Invalid(reason) => {
                return Status::new(Code::InvalidArgument, format!("etcdserver: {reason}"));
            }
        };
        Status::new(code, text)
    }
}

/// The URLs of a member are no peer URLs.
pub(super) fn bad_member_urls() -> Status {
    Status::new(Code::InvalidArgument, "etcdserver: given member URLs are invalid")
}

/// Where an answer says more than etcd's text does, which clients compare.
const REASON: &str = "quorate-reason";

const OVER_QUOTA: &str =
    "the state has reached the quota (--quota-bytes): delete, compact, and disarm the alarm NOSPACE";

const DISK_FULL: &str = "the disk of the member, of the leader or of too many others is full: make the volume larger, or delete and compact";

/// etcd ends without descriptors, and has no text for it.
const NO_DESCRIPTORS: &str = "etcdserver: too many open files: the log has none for what comes next. Raise the limit of the leader (ulimit -n)";

/// etcd's quota, and its text.
fn over_quota() -> Status {
    no_space(OVER_QUOTA)
}

/// What etcd says when there is no room, with what is full in the metadata.
fn no_space(reason: &'static str) -> Status {
    let text = "etcdserver: mvcc: database space exceeded";
    Status::with_metadata(Code::ResourceExhausted, text, with_reason(reason))
}

fn with_reason(reason: &'static str) -> MetadataMap {
    let (name, value) = (HeaderName::from_static(REASON), HeaderValue::from_static(reason));
    MetadataMap::from_headers(HeaderMap::from_iter([(name, value)]))
}

/// A command was applied, and what its answer was to tell cannot be read any more: another state has taken the place of the one that it
/// was applied to. Clients know this text as "it may have been done".
pub(super) fn answer_lost(error: KvError) -> Status {
    tracing::warn!(%error, "a transaction was applied, and the point of the history at which it was to read is gone");
    RequestError::TimedOut.into()
}

/// A copy of the state cannot be sent, or hashed, to its end.
pub(super) fn state_gone(error: BackupError) -> Status {
    Status::new(Code::Unavailable, format!("etcdserver: {error}; ask again"))
}

/// Only the leader does what was asked.
pub(super) fn not_leader() -> Status {
    Status::new(Code::FailedPrecondition, "etcdserver: not leader")
}

/// No voter has the ID that leadership is to be handed over to.
pub(super) fn bad_transferee() -> Status {
    Status::new(Code::FailedPrecondition, "etcdserver: bad leader transferee")
}

/// It did not take over in time.
pub(super) fn transfer_too_slow() -> Status {
    Status::new(Code::Unknown, "etcdserver: request timed out, leader transfer took too long")
}

/// What is named as a version is none.
pub(super) fn wrong_version_format() -> Status {
    Status::new(Code::InvalidArgument, "etcdserver: wrong downgrade target version format")
}

/// A cluster cannot go back to this version, for a reason where there is more to say than that.
pub(super) fn invalid_downgrade(reason: Option<&'static str>) -> Status {
    let text = "etcdserver: invalid downgrade target version";
    match reason {
        Some(reason) => Status::with_metadata(Code::InvalidArgument, text, with_reason(reason)),
        None => Status::new(Code::InvalidArgument, text),
    }
}

/// There is no such action.
pub(super) fn unknown_method() -> Status {
    Status::new(Code::Unknown, "etcdserver: unknown method")
}

/// No member has the ID that was named.
pub(super) fn member_not_found() -> Status {
    Status::new(Code::NotFound, "etcdserver: member not found")
}

/// A learner was asked for more than it answers.
pub(super) fn not_for_learners() -> Status {
    Status::new(Code::FailedPrecondition, "etcdserver: rpc not supported for learner")
}

/// The method exists in etcd, or nowhere, but not here.
pub(super) fn unimplemented(method: &str) -> Status {
    Status::new(Code::Unimplemented, format!("{method} is not served by this version of Quorate"))
}

/// The state answered something else than what was asked.
pub(super) fn mismatched() -> Status {
    Status::new(Code::Internal, "the answer does not belong to the request: this is a defect of the server")
}

/// Too much is under way already.
pub(super) fn too_many_requests() -> Status {
    RequestError::Overloaded.into()
}

/// A message is larger than any request may be: what etcd's gRPC library says of it.
pub(super) fn message_too_large(bytes: usize, most: usize) -> Status {
    Status::new(
        Code::ResourceExhausted,
        format!("grpc: received message larger than max ({bytes} vs. {most})"),
    )
}

/// An answer is larger than any message may be: the same.
pub(super) fn answer_too_large(bytes: usize, most: usize) -> Status {
    let text = format!("grpc: trying to send message larger than max ({bytes} vs. {most})");
    Status::new(Code::ResourceExhausted, text)
}

/// An answer takes more memory than there is for all of them.
pub(super) fn answer_too_heavy(most: usize) -> Status {
    let text = format!(
        "etcdserver: the answer needs more memory than this member has for answers ({most} bytes): ask for fewer keys at a time (limit)"
    );
    Status::new(Code::ResourceExhausted, text)
}

/// A command was applied, and its answer is refused. Clients know this text as "it may have been done".
pub(super) fn answer_refused(refusal: &Status) -> Status {
    tracing::debug!(%refusal, "a transaction was applied, and its answer is not told");
    RequestError::TimedOut.into()
}

/// A request was begun and not finished.
pub(super) fn message_too_slow(limit: Duration) -> Status {
    Status::new(
        Code::DeadlineExceeded,
        format!("the request's message did not arrive within {} s", limit.as_secs()),
    )
}

/// A request ended before its message did.
pub(super) fn no_message() -> Status {
    Status::new(Code::Internal, "Missing request message.")
}

/// A call that takes one message was sent more.
pub(super) fn more_than_one_message() -> Status {
    Status::new(Code::Internal, "a request of one message has more than one")
}

/// A message is compressed, and the request does not say how.
pub(super) fn compression_flag() -> Status {
    let text = "protocol error: received message with compressed-flag but no grpc-encoding was specified";
    Status::new(Code::Internal, text)
}

/// A request is compressed: this is what clients learn from that its server does not do it.
pub(super) fn compressed(encoding: &HeaderValue) -> Status {
    let encoding = encoding.to_str().unwrap_or("?");
    let text = format!("grpc: Decompressor is not installed for grpc-encoding \"{encoding}\"");
    let accepted = [(HeaderName::from_static("grpc-accept-encoding"), HeaderValue::from_static("identity"))];
    let metadata = MetadataMap::from_headers(HeaderMap::from_iter(accepted));
    Status::with_metadata(Code::Unimplemented, text, metadata)
}

/// The time that the client gave its request is over.
pub(super) fn deadline_exceeded() -> Status {
    Status::new(Code::DeadlineExceeded, "context deadline exceeded")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that compares etcd's text finds it, and whoever looks closer finds what is full and what helps.
    #[test]
    fn what_is_full_is_told_apart() {
        let reason = |status: &Status| {
            let reason = status.metadata().get(REASON).and_then(|reason| reason.to_str().ok());
            reason.unwrap_or_default().to_owned()
        };
        let over_quota = [Status::from(KvError::NoSpace), RequestError::OverQuota.into()];
        for status in &over_quota {
            assert_eq!(status.message(), "etcdserver: mvcc: database space exceeded");
            assert!(reason(status).contains("--quota-bytes"), "{status:?}");
        }
        let disk = Status::from(RequestError::NoSpace);
        assert_eq!(disk.message(), over_quota[0].message());
        assert!(reason(&disk).contains("disk") && !reason(&disk).contains("quota"), "{disk:?}");
        let descriptors = Status::from(RequestError::NoDescriptors);
        assert!(descriptors.message().contains("too many open files"), "{descriptors:?}");
        assert!([&over_quota[0], &disk, &descriptors].iter().all(|s| s.code() == Code::ResourceExhausted));
    }
}
