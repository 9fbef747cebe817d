//! One change of one key, in few bytes.

use bytes::Bytes;
use quorate_api::mvccpb::KeyValue;

use super::history::Position;
use super::revision::Revision;
use super::steps::looks;

/// What the state accounts for each version beside its key and value, in bytes. A part of the protocol: the size of the state
/// decides where snapshots are taken, so it must be the same on all members. It does not follow what a version takes here.
pub(super) const VERSION_BYTES: u64 = 112;
const _: () = assert!(
    size_of::<Option<Version>>() as u64 <= VERSION_BYTES,
    "a version takes more than it is accounted"
);

/// A version shares the buffer of the message that brought it only if that is at most so many times as large as its key and value: else
/// one that stays would keep what the state does not account for.
const MOST_SHARED: usize = 2;

/// The most changes of a key that are counted. At a million a second they take a thousand years.
pub(super) const MAX_NUMBER: i64 = (1 << 55) - 1;

/// One change of one key. A version never changes; where its key's earlier versions lie may be forgotten once they are removed.
#[derive(Debug)]
pub(super) struct Version {
    /// The key, then the value. Something may lie between them.
    data: Bytes,
    key_bytes: u32,
    /// Where the value begins in `data`. It ends with it.
    value_at: u32,
    main: i64,
    sub: u32,
    /// How many positions lie between this version and the one of its key that [`Self::jump`] leads to; 0 if that is the previous one.
    jump: u32,
    /// The main revision that made the key; 0 in a tombstone.
    pub(super) created: i64,
    /// Changes of the key since it was made, from 1, and 0 in a tombstone; in the lowest byte the level of the jump.
    number_level: u64,
    /// The lease that the key hangs on; 0 for none.
    pub(super) lease: i64,
    /// The key's version before this one.
    pub(super) previous: Option<Position>,
}

/// What a version says beside key and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) modified: Revision,
    /// The main revision that made the key; 0 in a tombstone.
    pub(super) created: i64,
    /// Changes of the key since it was made, from 1; 0 in a tombstone.
    pub(super) number: i64,
    /// The lease that the key hangs on; 0 for none.
    pub(super) lease: i64,
}

/// How a version leads back to older ones of its key: see [`super::history`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Links {
    /// The version before.
    pub(super) previous: Option<Position>,
    /// How many positions back the jump leads; 0 if that is the previous version.
    pub(super) jump: u32,
    /// The jump leads over `2^level - 1` versions of the key; 0 for none.
    pub(super) level: u8,
}

impl Version {
    /// A version with a buffer of its own. Its links are set when it is appended to the history.
    pub(super) fn new(key: &[u8], value: &[u8], record: Record) -> Self {
        let data = Bytes::from([key, value].concat());
        looks::copy(data.len());
        Self::of(data, key.len(), key.len(), record)
    }

    /// A version whose key and value lie in `message`, which it shares if most of that is its own.
    pub(super) fn sharing(message: &Bytes, key: &Bytes, value: &Bytes, record: Record) -> Self {
        let shared = || {
            if message.len() > MOST_SHARED * (key.len() + value.len()) {
                return None;
            }
            let (key_at, value_at) = (place(message, key)?, place(message, value)?);
            let value_in = value_at.checked_sub(key_at).filter(|at| *at > key.len())?;
            Some((message.slice(key_at..value_at + value.len()), value_in))
        };
        match shared() {
            Some((data, value_in)) => Self::of(data, key.len(), value_in, record),
            None => Self::new(key, value, record),
        }
    }

    /// A version with the key and the value of `previous`, whose buffer it shares. It is accounted like any other.
    pub(super) fn keeping(previous: &Self, record: Record) -> Self {
        Self::of(previous.data.clone(), previous.key_bytes as usize, previous.value_at as usize, record)
    }

    fn of(data: Bytes, key_bytes: usize, value_at: usize, record: Record) -> Self {
        let Record { modified, created, number, lease } = record;
        debug_assert!((0..=MAX_NUMBER).contains(&number));
        Self {
            data,
            key_bytes: u32::try_from(key_bytes).expect("requests are far smaller"),
            value_at: u32::try_from(value_at).expect("requests are far smaller"),
            main: modified.main,
            sub: modified.sub,
            jump: 0,
            created,
            number_level: number.cast_unsigned() << 8,
            lease,
            previous: None,
        }
    }

    /// The key.
    pub(super) fn key(&self) -> &[u8] {
        &self.data[..self.key_bytes as usize]
    }

    /// The value; empty in a tombstone.
    pub(super) fn value(&self) -> &[u8] {
        &self.data[self.value_at as usize..]
    }

    /// The same, shared.
    pub(super) fn shared_key(&self) -> Bytes {
        self.data.slice(..self.key_bytes as usize)
    }

    /// The same, shared.
    pub(super) fn shared_value(&self) -> Bytes {
        self.data.slice(self.value_at as usize..)
    }

    /// The revision that made it.
    pub(super) fn modified(&self) -> Revision {
        Revision { main: self.main, sub: self.sub }
    }

    /// Changes of the key since it was made, from 1; 0 in a tombstone.
    pub(super) fn number(&self) -> i64 {
        (self.number_level >> 8).cast_signed()
    }

    /// How it leads back.
    pub(super) fn links(&self) -> Links {
        Links { previous: self.previous, jump: self.jump, level: self.number_level as u8 }
    }

    /// Sets how it leads back: nothing else of a version changes.
    pub(super) fn set_links(&mut self, links: Links) {
        self.previous = links.previous;
        self.jump = links.jump;
        self.number_level = (self.number_level & !0xff) | u64::from(links.level);
    }

    /// What the state accounts for it, in bytes.
    pub(super) fn size(&self) -> u64 {
        (self.key().len() + self.value().len()) as u64 + VERSION_BYTES
    }

    /// Whether this version is the key's deletion.
    pub(super) fn is_tombstone(&self) -> bool {
        self.number() == 0
    }

    /// As clients see it. Key and value are shared, not copied.
    pub(super) fn key_value(&self) -> KeyValue {
        KeyValue { value: self.shared_value(), lease: self.lease, ..self.key_only() }
    }

    /// As clients see it that ask for keys only: without value and without lease, as in etcd from 3.7 on.
    pub(super) fn key_only(&self) -> KeyValue {
        KeyValue {
            key: self.shared_key(),
            create_revision: self.created,
            mod_revision: self.main,
            version: self.number(),
            value: Bytes::new(),
            lease: 0,
        }
    }

    /// How many bytes were copied to make it, unless it keeps the value of another: none if it shares a message.
    pub(super) fn copied_bytes(&self) -> usize {
        // In a message the value has its length before it.
        if self.value_at == self.key_bytes { self.data.len() } else { 0 }
    }

    /// Gives the version a buffer of its own: once others of the message that brought it are removed, it would keep them. Returns how many
    /// bytes were copied.
    pub(super) fn own_bytes(&mut self) -> usize {
        if self.value_at == self.key_bytes {
            return 0;
        }
        let own = Bytes::from([self.key(), self.value()].concat());
        looks::copy(own.len());
        self.value_at = self.key_bytes;
        self.data = own;
        self.data.len()
    }
}

/// Where `part` lies in `whole`; none if it lies elsewhere.
fn place(whole: &Bytes, part: &Bytes) -> Option<usize> {
    let at = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    (at + part.len() <= whole.len()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: Record =
        Record { modified: Revision { main: 3, sub: 1 }, created: 2, number: MAX_NUMBER, lease: -7 };

    #[test]
    fn a_version_is_what_was_put_into_it() {
        let mut version = Version::new(b"key", b"value", RECORD);
        version.set_links(Links { previous: Position::new(9), jump: 4, level: 31 });
        assert_eq!((version.key(), version.value()), (&b"key"[..], &b"value"[..]));
        assert_eq!((version.modified(), version.created), (RECORD.modified, RECORD.created));
        assert_eq!((version.number(), version.lease), (RECORD.number, RECORD.lease));
        assert_eq!(version.links(), Links { previous: Position::new(9), jump: 4, level: 31 });
        assert_eq!(version.size(), 8 + VERSION_BYTES);
        assert_eq!(size_of::<Option<Version>>(), 88);
    }

    #[test]
    fn a_message_is_shared_only_if_most_of_it_is_the_version() {
        let shares = |before: usize, between: usize| {
            let message = Bytes::from([&vec![1; before][..], b"key", &vec![2; between], b"value"].concat());
            let key = message.slice(before..before + 3);
            let value = message.slice(before + 3 + between..);
            let version = Version::sharing(&message, &key, &value, RECORD);
            assert_eq!((version.key(), version.value()), (&b"key"[..], &b"value"[..]));
            place(&message, &version.shared_key()).is_some()
        };
        assert!(shares(0, 1) && shares(3, 5));
        assert!(!shares(5, 4), "17 bytes for 8");
        let elsewhere = Version::sharing(&Bytes::from("keyvalue"), &"key".into(), &"value".into(), RECORD);
        assert_eq!((elsewhere.key(), elsewhere.value()), (&b"key"[..], &b"value"[..]));
        let message = Bytes::from_static(b"valuekey");
        let reversed = Version::sharing(&message, &message.slice(5..), &message.slice(..5), RECORD);
        assert_eq!((reversed.key(), reversed.value()), (&b"key"[..], &b"value"[..]));
    }
}
