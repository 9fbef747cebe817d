//! Values that are stored once and named by numbers.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::rc::Rc;

/// For keys that are numbers: quicker than the standard library's, which defends against keys that somebody chose.
pub(crate) type Mixed = BuildHasherDefault<Mix>;

#[derive(Default)]
pub(crate) struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(26) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    /// Fingerprints are mixed already: a half says as much.
    fn write_u128(&mut self, number: u128) {
        self.write_u64(u64::try_from(number >> 64).expect("a half has 64 bits"));
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

/// Numbers for values, each stored once.
pub(crate) struct Names<T> {
    numbers: HashMap<Rc<T>, u32>,
    values: Vec<Rc<T>>,
}

impl<T: Eq + Hash> Names<T> {
    pub(crate) fn new() -> Self {
        Self { numbers: HashMap::new(), values: Vec::new() }
    }

    /// The value's number, and whether it is new.
    pub(crate) fn name(&mut self, value: T) -> (u32, bool) {
        if let Some(number) = self.numbers.get(&value) {
            return (*number, false);
        }
        let value = Rc::new(value);
        let number = u32::try_from(self.values.len()).expect("no more than fit into memory");
        self.values.push(value.clone());
        self.numbers.insert(value, number);
        (number, true)
    }

    pub(crate) fn get(&self, number: u32) -> &T {
        &self.values[number as usize]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.values.iter().map(|value| &**value)
    }

    pub(crate) fn count(&self) -> usize {
        self.values.len()
    }
}
