//! The protocol's entries and configurations, to and from their wire form.
//!
//! The same form stands in WAL frames and in messages between peers. What is decoded here may be damaged or foreign: it is
//! checked, and an error is all that it can cause. A command's bytes are shared with the buffer that they came in.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message as _;
use quorate_api::log;
use quorate_raft::{Configuration, Entry, Index, MemberId, Payload};

use crate::level::{FIRST, Level, NEWEST, REGISTRATIONS};

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Not a protobuf of the kind expected.
    #[error("malformed message: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// An entry that a newer version has written. It must be neither skipped nor taken for damaged: see [`crate::level`].
    #[error("entry {index} is of a kind that this version does not know")]
    Newer {
        /// Where.
        index: Index,
        /// The level that it needs, if it says so.
        needs: Option<Level>,
    },
    /// Indices do not fit into 64 bits.
    #[error("an entry's index overflows")]
    IndexOverflow,
    /// Terms never fall along a log.
    #[error("entry {index} has term {term}, less than its predecessor's {previous}")]
    TermFalls {
        /// Where.
        index: Index,
        /// Its term.
        term: u64,
        /// The term of the entry before it.
        previous: u64,
    },
    /// A configuration that cannot be.
    #[error("impossible configuration: {0}")]
    Configuration(String),
}

/// An entry's wire form. Its index is known from where it stands.
pub fn entry_to_wire(entry: &Entry) -> log::Entry {
    let payload = match &entry.payload {
        Payload::Noop => log::entry::Payload::Noop(log::Noop {}),
        Payload::Command(bytes) => log::entry::Payload::Command(bytes.clone()),
        Payload::Configuration(c) => log::entry::Payload::Configuration(configuration_to_wire(c)),
    };
    // What the first level reads says nothing of a format.
    let format = match &payload {
        log::entry::Payload::Configuration(wire) if needs(wire) > FIRST => needs(wire),
        _ => 0,
    };
    log::Entry { term: entry.term, payload: Some(payload), format }
}

/// The least level that reads a configuration.
pub fn needs(wire: &log::Configuration) -> Level {
    let is_registered = |member: &log::Member| member.registered != 0 || member.volume != 0;
    if wire.members.iter().any(is_registered) { REGISTRATIONS } else { FIRST }
}

/// The entry at `index` from its wire form.
pub fn entry_from_wire(index: Index, wire: log::Entry) -> Result<Entry, CodecError> {
    if wire.format > NEWEST {
        return Err(CodecError::Newer { index, needs: Some(wire.format) });
    }
    let payload = match wire.payload.ok_or(CodecError::Newer { index, needs: None })? {
        log::entry::Payload::Noop(log::Noop {}) => Payload::Noop,
        log::entry::Payload::Command(bytes) => Payload::Command(own(&bytes)),
        log::entry::Payload::Configuration(c) => {
            Payload::Configuration(Box::new(configuration_from_wire(c)?))
        }
    };
    Ok(Entry { term: wire.term, index, payload })
}

/// A command in a buffer of its own. What it puts shares that buffer for as long as it is kept; if it shared the frame that many commands
/// came in, one of them would keep all.
pub fn own(command: &Bytes) -> Bytes {
    Bytes::copy_from_slice(command)
}

/// Consecutive entries, the first one at index `first`. Their terms must not fall.
pub fn entries_from_wire(
    first: Index,
    wire: impl IntoIterator<Item = log::Entry>,
) -> Result<Vec<Entry>, CodecError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut next = Some(first);
    for entry in wire {
        let index = next.ok_or(CodecError::IndexOverflow)?;
        let entry = entry_from_wire(index, entry)?;
        let previous = entries.last().map_or(0, |e| e.term);
        if entry.term < previous {
            return Err(CodecError::TermFalls { index, term: entry.term, previous });
        }
        entries.push(entry);
        next = index.checked_add(1);
    }
    Ok(entries)
}

/// A configuration's wire form.
///
/// # Panics
/// When an address was not made by [`address`]: the protocol hands on what it was given, so that is a broken invariant.
pub fn configuration_to_wire(configuration: &Configuration) -> log::Configuration {
    let ids = |set: &BTreeSet<MemberId>| set.iter().map(|id| id.0).collect();
    log::Configuration {
        voters: ids(&configuration.voters),
        outgoing: ids(&configuration.outgoing),
        learners: ids(&configuration.learners),
        members: configuration
            .addresses
            .iter()
            .map(|(id, bytes)| log::Member {
                id: id.0,
                ..member(bytes).expect("a configuration's addresses are encoded members")
            })
            .collect(),
    }
}

/// A configuration from its wire form.
pub fn configuration_from_wire(wire: log::Configuration) -> Result<Configuration, CodecError> {
    let voters = members("voters", wire.voters)?;
    let outgoing = members("outgoing", wire.outgoing)?;
    let learners = members("learners", wire.learners)?;
    if let Some(id) = learners.iter().find(|id| voters.contains(id) || outgoing.contains(id)) {
        return Err(CodecError::Configuration(format!("{id} is both voter and learner")));
    }
    let mut addresses = BTreeMap::new();
    for member in wire.members {
        let id = member_id("members", member.id)?;
        if addresses.insert(id, address(&member)).is_some() {
            return Err(CodecError::Configuration(format!("{id} stands twice in members")));
        }
    }
    Ok(Configuration { voters, outgoing, learners, addresses })
}

/// How to reach a member, in the form that [`Configuration::addresses`] holds.
pub fn address(member: &log::Member) -> Bytes {
    member.encode_to_vec().into()
}

/// How to reach a member, from the form that [`Configuration::addresses`] holds.
pub fn member(address: &Bytes) -> Result<log::Member, CodecError> {
    Ok(log::Member::decode(address.clone())?)
}

fn members(field: &str, wire: Vec<u64>) -> Result<BTreeSet<MemberId>, CodecError> {
    let mut set = BTreeSet::new();
    for id in wire {
        let id = member_id(field, id)?;
        if !set.insert(id) {
            return Err(CodecError::Configuration(format!("{id} stands twice in {field}")));
        }
    }
    Ok(set)
}

/// Zero names nobody: it is what an absent field decodes to.
fn member_id(field: &str, id: u64) -> Result<MemberId, CodecError> {
    if id == 0 {
        return Err(CodecError::Configuration(format!("member 0 in {field}")));
    }
    Ok(MemberId(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn configuration() -> Configuration {
        let at = |id: u64| {
            let member = log::Member {
                id,
                name: format!("n{id}"),
                peer_address: format!("n{id}:2380"),
                client_urls: vec![format!("http://n{id}:2379")],
                ..log::Member::default()
            };
            (MemberId(id), address(&member))
        };
        Configuration {
            voters: [MemberId(1), MemberId(2)].into(),
            outgoing: [MemberId(1)].into(),
            learners: [MemberId(u64::MAX)].into(),
            addresses: [at(1), at(2), at(u64::MAX)].into(),
        }
    }

    fn payload() -> impl Strategy<Value = Payload> {
        prop_oneof![
            Just(Payload::Noop),
            prop::collection::vec(any::<u8>(), 0..64).prop_map(|b| Payload::Command(b.into())),
            Just(Payload::Configuration(Box::new(configuration()))),
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(term in any::<u64>(), index in any::<u64>(), payload in payload()) {
            let entry = Entry { term, index, payload };
            let bytes = Bytes::from(entry_to_wire(&entry).encode_to_vec());
            let wire = log::Entry::decode(bytes).unwrap();
            prop_assert_eq!(entry_from_wire(index, wire), Ok(entry));
        }

        /// Any bytes decode to something or to an error; what decodes can be encoded again.
        #[test]
        fn garbage_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..64), flip in any::<(u16, u8)>()) {
            let mut valid = entry_to_wire(&Entry { term: 3, index: 9, payload: Payload::Configuration(Box::new(configuration())) }).encode_to_vec();
            let at = usize::from(flip.0) % valid.len();
            valid[at] ^= flip.1;
            for input in [std::mem::take(&mut bytes), valid] {
                if let Ok(entry) = log::Entry::decode(Bytes::from(input)).map_err(CodecError::from).and_then(|w| entry_from_wire(9, w)) {
                    entry_to_wire(&entry);
                }
            }
        }
    }

    #[test]
    fn a_command_keeps_no_other_bytes() {
        let entry = Entry { term: 1, index: 1, payload: Payload::Command(vec![7; 100].into()) };
        let buffer = Bytes::from(entry_to_wire(&entry).encode_to_vec());
        let decoded = entry_from_wire(1, log::Entry::decode(buffer.clone()).unwrap()).unwrap();
        assert_eq!(decoded, entry);
        assert!(buffer.is_unique());
    }

    #[test]
    fn impossible_input_is_refused() {
        let refused = |change: fn(&mut log::Configuration)| {
            let mut wire = configuration_to_wire(&configuration());
            change(&mut wire);
            assert!(matches!(configuration_from_wire(wire), Err(CodecError::Configuration(_))));
        };
        refused(|c| c.voters.push(0));
        refused(|c| c.voters.push(1));
        refused(|c| c.learners.push(1));
        refused(|c| c.members.push(log::Member::default()));
        refused(|c| c.members.push(log::Member { id: 1, ..Default::default() }));

        let noop = |term| log::Entry {
            term,
            payload: Some(log::entry::Payload::Noop(log::Noop {})),
            ..log::Entry::default()
        };
        let newer = |needs| Err(CodecError::Newer { index: 4, needs });
        assert_eq!(entry_from_wire(4, log::Entry { term: 1, ..Default::default() }), newer(None));
        let format = NEWEST + 1;
        assert_eq!(entry_from_wire(4, log::Entry { format, ..noop(1) }), newer(Some(format)));
        assert_eq!(
            entries_from_wire(4, [noop(2), noop(1)]),
            Err(CodecError::TermFalls { index: 5, term: 1, previous: 2 })
        );
        assert_eq!(entries_from_wire(u64::MAX, [noop(1), noop(1)]), Err(CodecError::IndexOverflow));
        assert_eq!(entries_from_wire(u64::MAX, [noop(1)]).map(|e| e.len()), Ok(1));
    }
}
