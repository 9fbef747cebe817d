//! A state of the world, by numbers.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::world::Bounds;

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) members: Box<[u32]>,
    /// In ascending order.
    pub(crate) network: Box<[u32]>,
    pub(crate) signs: u32,
    pub(crate) committed: u32,
    pub(crate) left: Bounds,
}

impl State {
    pub(crate) fn fingerprint(&self) -> u128 {
        let half = |salt: u64| {
            let mut hasher = DefaultHasher::new();
            salt.hash(&mut hasher);
            self.hash(&mut hasher);
            u128::from(hasher.finish())
        };
        half(0) << 64 | half(0x9E37_79B9_7F4A_7C15)
    }

    pub(crate) fn holds(&self, message: u32) -> bool {
        self.network.binary_search(&message).is_ok()
    }
}
