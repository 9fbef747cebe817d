//! Versions as etcd stores them, in the bucket `key` of its database: in files for etcd, and in the hashes that it tells.
//!
//! The key is the revision: the main one in 8 bytes, the most significant first, `_`, and the place in it in 8 more; behind a deletion's stands
//! a `t`. The value is the `KeyValue` that clients see; of a deletion it has nothing but the key.

use bytes::{BufMut as _, Bytes};
use prost::Message as _;
use quorate_api::mvccpb::KeyValue;
use quorate_api::snapshot as wire;

/// The bucket.
pub const BUCKET: &[u8] = b"key";

/// Bytes of a revision, and of a deletion's.
const REVISION: usize = 17;
const DELETION: usize = 18;

const SEPARATOR: u8 = b'_';
const MARK: u8 = b't';

/// The revision of `version`, as a key.
pub fn revision_key(version: &wire::Version) -> Vec<u8> {
    let mut key = Vec::with_capacity(DELETION);
    key.put_i64(version.revision);
    key.put_u8(SEPARATOR);
    key.put_u64(version.sub.into());
    if is_deletion(version) {
        key.put_u8(MARK);
    }
    key
}

/// A revision that is noted beside the versions: as the key of its first change.
pub fn revision_value(revision: i64) -> Vec<u8> {
    let first = wire::Version { revision, number: 1, ..wire::Version::default() };
    revision_key(&first)
}

/// The same back. None if it is none.
pub fn revision_of(value: &[u8]) -> Option<i64> {
    let (main, rest) = value.split_first_chunk()?;
    let main = i64::from_be_bytes(*main);
    (value.len() == REVISION && rest.first() == Some(&SEPARATOR) && main >= 0).then_some(main)
}

/// What is stored of `version`. Key and value are shared.
pub fn stored(version: &wire::Version) -> KeyValue {
    if is_deletion(version) {
        return KeyValue { key: version.key.clone(), ..KeyValue::default() };
    }
    KeyValue {
        key: version.key.clone(),
        create_revision: version.created,
        mod_revision: version.revision,
        version: version.number,
        value: version.value.clone(),
        lease: version.lease,
    }
}

/// The version of an entry of the bucket. None if it can be none; one without a key is what a restored etcd has put to leave revisions
/// out.
pub fn version_of(key: &[u8], value: Bytes) -> Option<wire::Version> {
    let (revision, mark) = key.split_at_checked(REVISION)?;
    let (main, rest) = revision.split_first_chunk()?;
    let (separator, sub) = rest.split_first_chunk::<1>()?;
    let (main, sub) = (i64::from_be_bytes(*main), u64::from_be_bytes(*sub.first_chunk()?));
    let is_deletion = mark == [MARK];
    let sub = u32::try_from(sub).ok().filter(|_| main > 0 && *separator == [SEPARATOR])?;
    if !is_deletion && !mark.is_empty() {
        return None;
    }
    let kv = KeyValue::decode(value).ok()?;
    let version = wire::Version { key: kv.key, revision: main, sub, ..wire::Version::default() };
    if is_deletion || version.key.is_empty() {
        return Some(version);
    }
    let (created, number, lease) = (kv.create_revision, kv.version, kv.lease);
    (kv.mod_revision == main && number > 0).then_some(wire::Version {
        value: kv.value,
        created,
        number,
        lease,
        ..version
    })
}

/// Whether a version is its key's deletion.
pub fn is_deletion(version: &wire::Version) -> bool {
    version.number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_stored_and_read_back() {
        let put = wire::Version {
            key: "k".into(),
            value: "v".into(),
            revision: 0x0102,
            sub: 3,
            created: 7,
            number: 4,
            lease: 9,
        };
        let deletion = wire::Version { value: Bytes::new(), created: 0, number: 0, lease: 0, ..put.clone() };
        assert_eq!(revision_key(&put), b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03");
        assert_eq!(revision_key(&deletion), b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03t");
        for version in [put, deletion] {
            let value = stored(&version).encode_to_vec();
            assert_eq!(version_of(&revision_key(&version), value.into()), Some(version));
        }
        assert_eq!(revision_of(&revision_value(77)), Some(77));
    }

    #[test]
    fn what_is_no_version_is_none() {
        let put = wire::Version { key: "k".into(), revision: 5, number: 1, ..wire::Version::default() };
        let (key, value) = (revision_key(&put), stored(&put).encode_to_vec());
        let other = |at: usize, byte: u8| {
            let mut key = key.clone();
            key[at] = byte;
            version_of(&key, value.clone().into())
        };
        assert_eq!(other(0, 0x80), None, "a negative revision");
        assert_eq!(other(7, 6), None, "another revision than it says");
        assert_eq!(other(8, b'-'), None);
        assert_eq!(other(9, 1), None, "more changes than there can be");
        assert_eq!(version_of(&key[..16], value.clone().into()), None);
        assert_eq!(version_of(&[&key[..], b"x"].concat(), value.into()), None);
        assert_eq!(version_of(&key, Bytes::from_static(b"\xff")), None);
        assert_eq!(revision_of(b"\0\0"), None);
    }
}
