//! Which keys a request means by `key` and `range_end`.

/// The keys that a request names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys<'a> {
    /// One key.
    One(&'a [u8]),
    /// This key and all after it.
    From(&'a [u8]),
    /// From the first, included, to the second, excluded. Empty if the second is not after the first.
    Between(&'a [u8], &'a [u8]),
}

impl<'a> Keys<'a> {
    /// Reads the two fields of a request as etcd does: no `range_end` means the one key, a single zero byte means all from
    /// the key on.
    pub(super) fn new(key: &'a [u8], range_end: &'a [u8]) -> Self {
        match range_end {
            [] => Self::One(key),
            [0] => Self::From(key),
            end => Self::Between(key, end),
        }
    }

    /// The first key that may be meant.
    pub(super) fn start(&self) -> &'a [u8] {
        match *self {
            Self::One(key) | Self::From(key) | Self::Between(key, _) => key,
        }
    }
}
