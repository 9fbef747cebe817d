//! A key-value store as a model: get, put, delete, compare-and-swap, and reads and writes of several keys at once.
//!
//! Every answer says what the keys held just before the operation (etcd: `prev_kv`, and a range in the other branch of a
//! transaction): so every operation is also a read. Every value is written by one operation only.

use std::collections::BTreeMap;
use std::fmt;

use super::model::Model;

/// A key, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u32);

/// A value, by number: unique to the operation that writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(pub u64);

/// What clients ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Reads the keys, at one moment.
    Get(Vec<Key>),
    /// Writes one value to all the keys, at one moment.
    Put(Vec<Key>, Value),
    /// Deletes the key.
    Delete(Key),
    /// Writes `new` if the key holds `expected` (`None`: if it is not there).
    Swap {
        /// The key.
        key: Key,
        /// What it must hold.
        expected: Option<Value>,
        /// What it holds then.
        new: Value,
    },
}

/// What they are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The store's revision in the answer's header. The model does not look at it, [`super::revisions`] does.
    pub revision: i64,
    /// What each key of the input held before, in its order.
    pub seen: Vec<Option<Cell>>,
    /// Whether a swap was done. True for everything else.
    pub done: bool,
}

/// What a key held. The model looks at the value only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// The value.
    pub value: Value,
    /// The revision that made the key.
    pub create_revision: i64,
    /// The revision that wrote the value.
    pub mod_revision: i64,
    /// How many times the key has been written since it was made.
    pub version: i64,
}

impl Input {
    /// The keys that it reads.
    pub fn keys(&self) -> &[Key] {
        match self {
            Self::Get(keys) | Self::Put(keys, _) => keys,
            Self::Delete(key) | Self::Swap { key, .. } => std::slice::from_ref(key),
        }
    }

    /// The value that it writes, if it writes one.
    pub fn writes(&self) -> Option<Value> {
        match self {
            Self::Put(_, value) | Self::Swap { new: value, .. } => Some(*value),
            Self::Get(_) | Self::Delete(_) => None,
        }
    }
}

impl Output {
    /// The values seen.
    pub fn values(&self) -> impl Iterator<Item = Option<Value>> {
        self.seen.iter().map(|cell| cell.map(|cell| cell.value))
    }
}

/// The model.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kv;

impl Model for Kv {
    type State = BTreeMap<Key, Value>;
    type Input = Input;
    type Output = Output;
    type Key = Key;

    fn initial(&self) -> Self::State {
        BTreeMap::new()
    }

    fn keys(&self, input: &Input) -> Vec<Key> {
        input.keys().to_vec()
    }

    fn step(&self, state: &Self::State, input: &Input, output: Option<&Output>) -> Option<Self::State> {
        let swapped = match input {
            Input::Swap { key, expected, .. } => state.get(key) == expected.as_ref(),
            Input::Get(_) | Input::Put(..) | Input::Delete(_) => true,
        };
        if let Some(output) = output {
            let holds = input.keys().iter().map(|key| state.get(key).copied());
            if output.done != swapped || !holds.eq(output.values()) {
                return None;
            }
        }
        let mut next = state.clone();
        match input {
            Input::Put(keys, value) => next.extend(keys.iter().map(|key| (*key, *value))),
            Input::Delete(key) => drop(next.remove(key)),
            Input::Swap { key, new, .. } if swapped => drop(next.insert(*key, *new)),
            Input::Get(_) | Input::Swap { .. } => {}
        }
        Some(next)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "k{}", self.0)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

/// A value, or that there is none.
struct Held(Option<Value>);

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("nothing"),
        }
    }
}

fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get(keys) => write!(f, "get {}", list(keys)),
            Self::Put(keys, value) => write!(f, "put {} = {value}", list(keys)),
            Self::Delete(key) => write!(f, "delete {key}"),
            Self::Swap { key, expected, new } => write!(f, "swap {key} from {} to {new}", Held(*expected)),
        }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.done {
            f.write_str("not done, ")?;
        }
        write!(f, "saw {} (revision {})", list(self.values().map(Held)), self.revision)
    }
}
