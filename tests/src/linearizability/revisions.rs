//! What etcd's revisions promise beside linearizability.
//!
//! Revisions number the writes of the whole store, over all keys. So they show, in one pass, what the search for an order may take
//! for a coincidence: a write that was done twice, an answer about another moment than its header says, time that runs backwards.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::history::{History, Operation, Time};
use super::kv::{Cell, Input, Key, Output, Value};

type Recorded = Operation<Input, Output>;

/// A broken promise, with the operations that show it.
#[derive(Debug, Clone)]
pub struct Broken {
    promise: &'static str,
    witnesses: Vec<Recorded>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.promise)?;
        self.witnesses.iter().try_for_each(|witness| write!(f, "\n    {witness}"))
    }
}

/// Checks the revisions in a history of linearizable operations, and those in reads that were allowed to be stale
/// (serializable): a stale read shows the past, but a past that existed.
pub fn check(history: &History<Input, Output>, stale: &History<Input, Output>) -> Result<(), Broken> {
    let answered: Vec<Answer<'_>> = history.iter().filter_map(Answer::of).collect();
    let stale: Vec<Answer<'_>> = stale.iter().filter_map(Answer::of).collect();
    forward_in_time(&answered)?;
    let writes = writes(&answered)?;
    let all = || answered.iter().chain(&stale);
    one_write_for_each_value(&writes, all())?;
    versions_count_writes(all())?;
    let deletes = unanswered_deletes(history);
    all().try_for_each(|answer| as_of_its_revision(&writes, &deletes, answer))
}

/// An operation that was answered.
#[derive(Clone, Copy)]
struct Answer<'a> {
    operation: &'a Recorded,
    output: &'a Output,
    returned: Time,
}

impl<'a> Answer<'a> {
    fn of(operation: &'a Recorded) -> Option<Self> {
        let output = operation.output.as_ref()?;
        Some(Self { operation, output, returned: operation.returned? })
    }

    /// Whether it made a revision.
    fn wrote(&self) -> bool {
        match self.operation.input {
            Input::Get(_) => false,
            Input::Put(..) | Input::Swap { .. } => self.output.done,
            Input::Delete(_) => self.output.seen.iter().any(Option::is_some),
        }
    }

    /// The last revision that it saw.
    fn as_of(&self) -> i64 {
        self.output.revision - i64::from(self.wrote())
    }

    fn seen(&self) -> impl Iterator<Item = (Key, Option<Cell>)> + use<'a> {
        self.operation.input.keys().iter().copied().zip(self.output.seen.iter().copied())
    }

    fn breaks(&self, promise: &'static str, other: &Answer<'_>) -> Broken {
        Broken { promise, witnesses: vec![other.operation.clone(), self.operation.clone()] }
    }

    fn breaks_alone(&self, promise: &'static str) -> Broken {
        Broken { promise, witnesses: vec![self.operation.clone()] }
    }
}

/// What begins after an answer came has no lower revision than that answer; a write has a higher one.
fn forward_in_time(answered: &[Answer<'_>]) -> Result<(), Broken> {
    let mut by_return: Vec<_> = answered.iter().collect();
    by_return.sort_by_key(|answer| answer.returned);
    let mut by_begin: Vec<_> = answered.iter().collect();
    by_begin.sort_by_key(|answer| answer.operation.invoked);
    let mut returned = by_return.into_iter().peekable();
    let mut newest: Option<&Answer<'_>> = None;
    for answer in by_begin {
        while let Some(earlier) = returned.next_if(|earlier| earlier.returned < answer.operation.invoked) {
            if newest.is_none_or(|newest| newest.output.revision < earlier.output.revision) {
                newest = Some(earlier);
            }
        }
        if let Some(earlier) = newest
            && answer.as_of() < earlier.output.revision
        {
            return Err(answer.breaks("the revision went back between these answers", earlier));
        }
    }
    Ok(())
}

/// The answered writes of each key by revision. A revision belongs to one write.
fn writes<'a>(answered: &[Answer<'a>]) -> Result<HashMap<Key, BTreeMap<i64, Answer<'a>>>, Broken> {
    let mut by_revision: HashMap<i64, &Answer<'_>> = HashMap::new();
    let mut by_key: HashMap<Key, BTreeMap<i64, Answer<'_>>> = HashMap::new();
    for answer in answered.iter().filter(|answer| answer.wrote()) {
        if let Some(other) = by_revision.insert(answer.output.revision, answer) {
            return Err(answer.breaks("two writes have one revision", other));
        }
        for key in answer.operation.input.keys() {
            by_key.entry(*key).or_default().insert(answer.output.revision, *answer);
        }
    }
    Ok(by_key)
}

/// A value is written once: everyone sees it with the revision and version of that one write.
fn one_write_for_each_value<'a>(
    writes: &HashMap<Key, BTreeMap<i64, Answer<'a>>>,
    answers: impl Iterator<Item = &'a Answer<'a>>,
) -> Result<(), Broken> {
    let mut written: HashMap<(Key, Value), (i64, Answer<'_>)> = HashMap::new();
    for (key, writes) in writes {
        for (revision, write) in writes {
            if let Some(value) = write.operation.input.writes() {
                written.insert((*key, value), (*revision, *write));
            }
        }
    }
    let mut shown: HashMap<(Key, Value), (Cell, Answer<'_>)> = HashMap::new();
    for answer in answers {
        for (key, cell) in answer.seen().filter_map(|(key, cell)| Some((key, cell?))) {
            let identity = (key, cell.value);
            if let Some((revision, write)) = written.get(&identity)
                && *revision != cell.mod_revision
            {
                return Err(answer.breaks("a value was seen with a revision that is not its write's", write));
            }
            let (first, by) = shown.entry(identity).or_insert((cell, *answer));
            if *first != cell {
                return Err(answer.breaks("a value was seen with two revisions: it was written twice", by));
            }
        }
    }
    Ok(())
}

/// The version is 1 when the key is made, and grows with every write.
fn versions_count_writes<'a>(answers: impl Iterator<Item = &'a Answer<'a>>) -> Result<(), Broken> {
    let mut lives: HashMap<(Key, i64), BTreeMap<i64, (i64, Answer<'_>)>> = HashMap::new();
    for answer in answers {
        for (key, cell) in answer.seen().filter_map(|(key, cell)| Some((key, cell?))) {
            let first = cell.mod_revision == cell.create_revision;
            if (cell.version == 1) != first || cell.version > 1 + cell.mod_revision - cell.create_revision {
                return Err(answer.breaks_alone("the version does not fit the revisions"));
            }
            lives
                .entry((key, cell.create_revision))
                .or_default()
                .insert(cell.mod_revision, (cell.version, *answer));
        }
    }
    for life in lives.values() {
        for ((_, (earlier, witness)), (_, (later, answer))) in life.iter().zip(life.iter().skip(1)) {
            if earlier >= later {
                return Err(answer.breaks("the version did not grow with a later write", witness));
            }
        }
    }
    Ok(())
}

/// How many deletes of each key got no answer.
fn unanswered_deletes(history: &History<Input, Output>) -> HashMap<Key, usize> {
    let mut deletes = HashMap::new();
    for operation in history.iter().filter(|operation| operation.output.is_none()) {
        if let Input::Delete(key) = operation.input {
            *deletes.entry(key).or_default() += 1;
        }
    }
    deletes
}

/// An answer shows each key as the newest write up to the answer's own revision left it.
fn as_of_its_revision(
    writes: &HashMap<Key, BTreeMap<i64, Answer<'_>>>,
    deletes: &HashMap<Key, usize>,
    answer: &Answer<'_>,
) -> Result<(), Broken> {
    for (key, cell) in answer.seen() {
        if cell.is_some_and(|cell| cell.mod_revision > answer.as_of()) {
            return Err(answer.breaks_alone("an answer shows a later revision than its own"));
        }
        let newest = writes.get(&key).and_then(|writes| writes.range(..=answer.as_of()).next_back());
        let Some((revision, newest)) = newest else { continue };
        let overwritten = match cell {
            Some(cell) => *revision > cell.mod_revision,
            // Nothing is right after a delete, and may be right if a delete got no answer.
            None => newest.operation.input.writes().is_some() && !deletes.contains_key(&key),
        };
        if overwritten {
            return Err(answer.breaks("an answer misses a write that its revision includes", newest));
        }
    }
    Ok(())
}
