//! Commands: what a client asked to be done to the state, as it stands in an entry of the log.
//!
//! A command names the least level that reads it ([`crate::level`]). What it says must be all that it holds: protobuf drops unknown fields
//! without a word, so the bytes are compared in length with those that this build would write. A member that reads a command in part would
//! do something else than the others.

use bytes::Bytes;
use prost::Message as _;
use quorate_api::log;
use quorate_api::log::command::Operation;

use crate::level::{ALARMS, FIRST, LEASES, Level, Levels};

/// A command that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// The member that took the request from its client, and answers it.
    pub origin: u64,
    /// That member's number for the request.
    pub request: u64,
    /// What is to be done.
    pub operation: Operation,
}

/// A command cannot be read as a whole: the level that it needs, if it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unread(pub Option<Level>);

/// The bytes of a command.
pub fn encode(origin: u64, request: u64, operation: Operation) -> Bytes {
    // What the first level reads says nothing: two bytes in every entry less.
    let format = Some(needs(&operation)).filter(|level| *level > FIRST).unwrap_or(0);
    let command = log::Command { origin, request, operation: Some(operation), format };
    command.encode_to_vec().into()
}

/// The command in `bytes`, whose keys and values share the buffer. An error if it needs another level than those that are `supported`,
/// or holds anything that this build does not know.
pub fn read(bytes: Bytes, supported: Levels) -> Result<Command, Unread> {
    let length = bytes.len();
    let command = log::Command::decode(bytes).map_err(|_| Unread(None))?;
    let format = command.format.max(FIRST);
    if !supported.contains(format) {
        return Err(Unread(Some(format)));
    }
    if command.encoded_len() != length {
        return Err(Unread(None));
    }
    match command {
        log::Command { origin, request, operation: Some(operation), .. } if needs(&operation) <= format => {
            Ok(Command { origin, request, operation })
        }
        _ => Err(Unread(None)),
    }
}

/// The least level that reads `operation`, and at which it may be used. Raise it for what is new about an operation, be it a field.
pub fn needs(operation: &Operation) -> Level {
    match operation {
        Operation::Put(_) | Operation::DeleteRange(_) | Operation::Txn(_) | Operation::Compact(_) => FIRST,
        Operation::Alarm(_) | Operation::CheckQuota(_) => ALARMS,
        Operation::LeaseGrant(_) | Operation::LeaseRevoke(_) | Operation::ExpireLease(_) => LEASES,
        // So a build that lacks the level ends here, before anything that is of that level.
        Operation::RaiseLevel(raise) => raise.to.max(FIRST),
    }
}

/// The numbers of encoded commands, also of those that cannot be read as a whole.
pub fn numbers(commands: impl IntoIterator<Item = Bytes>) -> Vec<u64> {
    let decoded = commands.into_iter().filter_map(|bytes| log::Command::decode(bytes).ok());
    decoded.map(|command| command.request).collect()
}

#[cfg(test)]
mod tests {
    use quorate_api::etcdserverpb::PutRequest;

    use super::*;
    use crate::level::NEWEST;

    fn put() -> Operation {
        Operation::Put(PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() })
    }

    fn with(bytes: &Bytes, more: &[u8]) -> Bytes {
        [&bytes[..], more].concat().into()
    }

    #[test]
    fn what_is_encoded_is_read() {
        let bytes = encode(7, 9, put());
        let read = read(bytes.clone(), Levels::ALL).unwrap();
        assert_eq!(read, Command { origin: 7, request: 9, operation: put() });
        let Operation::Put(PutRequest { value, .. }) = read.operation else { panic!("not a put") };
        assert!(bytes.as_ptr_range().contains(&value.as_ptr()), "it shares the buffer");
    }

    #[test]
    fn what_another_version_has_added_is_never_dropped() {
        let known = encode(7, 9, put());
        // Field 100 of the command itself.
        assert_eq!(read(with(&known, &[0xa0, 0x06, 1]), Levels::ALL), Err(Unread(None)));
        // Field 15 of the put in it, which is one byte longer by the value 1.
        let mut inner =
            PutRequest { key: "k".into(), value: "v".into(), ..Default::default() }.encode_to_vec();
        inner.extend([0x78, 1]);
        let mut outer = log::Command { origin: 7, request: 9, ..Default::default() }.encode_to_vec();
        outer.extend([0x1a, inner.len() as u8]);
        outer.extend(inner);
        assert!(log::Command::decode(&outer[..]).unwrap().operation.is_some(), "protobuf drops it");
        assert_eq!(read(outer.into(), Levels::ALL), Err(Unread(None)));
        // An operation that is not known.
        let unknown = log::Command { origin: 7, request: 9, ..Default::default() }.encode_to_vec();
        assert_eq!(read(unknown.clone().into(), Levels::ALL), Err(Unread(None)));
        assert_eq!(read(with(&unknown.into(), &[0xfa, 0x06, 0]), Levels::ALL), Err(Unread(None)));
        assert_eq!(read(Bytes::from_static(b"\xff"), Levels::ALL), Err(Unread(None)));
    }

    #[test]
    fn a_format_above_what_is_supported_is_refused_by_its_number() {
        let raise = |to| encode(1, 1, Operation::RaiseLevel(log::RaiseLevel { to }));
        assert!(read(raise(NEWEST), Levels::ALL).is_ok());
        assert_eq!(read(raise(NEWEST + 1), Levels::ALL), Err(Unread(Some(NEWEST + 1))));
        let old = Levels { oldest: FIRST, newest: FIRST };
        assert_eq!(read(raise(FIRST + 1), old), Err(Unread(Some(FIRST + 1))));
        // One that says less than it needs was made by no version.
        let understated = log::Command {
            operation: Some(Operation::RaiseLevel(log::RaiseLevel { to: FIRST + 1 })),
            ..log::Command::default()
        };
        assert_eq!(
            read(understated.encode_to_vec().into(), Levels { oldest: 1, newest: 9 }),
            Err(Unread(None))
        );
    }
}
