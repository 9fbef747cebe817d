//! Virtual time, and what is to happen in it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Nanoseconds since the beginning of the run: what histories are written in.
pub(crate) type Time = u64;

pub(crate) const MICRO: Time = 1_000;
pub(crate) const MILLI: Time = 1_000 * MICRO;
pub(crate) const SECOND: Time = 1_000 * MILLI;

/// Events in order of time; those of one moment in the order in which they were put in.
#[derive(Debug)]
pub(crate) struct Agenda<E> {
    heap: BinaryHeap<Reverse<Item<E>>>,
    number: u64,
    now: Time,
}

#[derive(Debug)]
struct Item<E> {
    at: Time,
    number: u64,
    event: E,
}

impl<E> Agenda<E> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), number: 0, now: 0 }
    }

    /// The time of the newest event that was taken.
    pub(crate) fn now(&self) -> Time {
        self.now
    }

    /// How many events there have been.
    pub(crate) fn count(&self) -> u64 {
        self.number
    }

    /// `event` is to happen in `delay` from now.
    pub(crate) fn after(&mut self, delay: Time, event: E) {
        self.at(self.now + delay, event);
    }

    /// `event` is to happen at `at`, or now if that is past.
    pub(crate) fn at(&mut self, at: Time, event: E) {
        self.number += 1;
        self.heap.push(Reverse(Item { at: at.max(self.now), number: self.number, event }));
    }

    /// The next event; time moves to it.
    pub(crate) fn next(&mut self) -> Option<E> {
        let Reverse(item) = self.heap.pop()?;
        self.now = item.at;
        Some(item.event)
    }
}

impl<E> Ord for Item<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<E> PartialOrd for Item<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Item<E> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<E> Eq for Item<E> {}
