//! The search for an order (Wing and Gong) with a memory (Lowe).
//!
//! Operations that took effect are *required*; those without an answer are *optional*. An optional operation is put in just before
//! the required one that needs it, and only when nothing else fits.

use std::collections::{HashMap, VecDeque};

use super::history::{Operation, Time};
use super::model::Model;

/// What the search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// An order that explains every answer, as positions in the history.
    Order(Vec<usize>),
    /// There is none. The longest order that explains its own answers comes with it.
    Impossible(Vec<usize>),
    /// Not known within the budget of steps.
    OutOfBudget,
}

/// Searches for an order of `history`, which must be sorted by invocation.
///
/// `budget` bounds the steps of the model, and with them the memory: a step remembers at most one state and the operations that
/// led to it.
pub fn search<M: Model>(model: &M, history: &[Operation<M::Input, M::Output>], budget: u64) -> Outcome {
    debug_assert!(history.is_sorted_by_key(|operation| operation.invoked));
    let mut search = Search::new(model, history);
    while search.steps < budget {
        let Some(top) = search.stack.last() else { return Outcome::Impossible(search.longest) };
        if top.place.done.settled as usize == search.required.len() {
            return Outcome::Order(search.order());
        }
        match search.next() {
            Some(next) => search.enter(next),
            None => search.go_back(),
        }
    }
    Outcome::OutOfBudget
}

/// Which required operations are done. Operations end soon after they begin, so all but a few of those that are done come before
/// the first that is not: the set is small, and cheap to compare.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Done {
    /// All required operations before this one are done.
    settled: u32,
    /// Those beyond that are done; sorted.
    beyond: Vec<u32>,
}

/// Numbers of optional operations that are done; sorted.
type Used = Vec<u32>;

/// Where an order has led.
#[derive(Clone)]
struct Place<S> {
    state: S,
    done: Done,
    used: Used,
}

/// One more required operation, after the optional ones that it needs.
struct Next<S> {
    place: Place<S>,
    by: Vec<usize>,
}

struct Frame<S> {
    place: Place<S>,
    /// The operations that led here from the frame below, as positions in the history.
    by: Vec<usize>,
    /// Required operations that may come next, best last.
    untried: Vec<u32>,
    /// What fits after optional operations; none as long as that was not looked for.
    detours: Option<Vec<Next<S>>>,
}

struct Search<'a, M: Model> {
    model: &'a M,
    history: &'a [Operation<M::Input, M::Output>],
    /// Positions of the required operations, and of the optional ones.
    required: Vec<usize>,
    optional: Vec<usize>,
    stack: Vec<Frame<M::State>>,
    /// For each state that was reached by the same required operations: which optional ones that took. To have used more of them
    /// can only be worse, because none has to be used.
    seen: HashMap<(Done, M::State), Vec<Used>>,
    longest: Vec<usize>,
    steps: u64,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, history: &'a [Operation<M::Input, M::Output>]) -> Self {
        let (required, optional) = (0..history.len()).partition(|&at| history[at].returned.is_some());
        let (stack, seen, longest) = (Vec::new(), HashMap::new(), Vec::new());
        let mut search = Self { model, history, required, optional, stack, seen, longest, steps: 0 };
        let done = Done { settled: 0, beyond: Vec::new() };
        let place = Place { state: model.initial(), done, used: Vec::new() };
        search.enter(Next { place, by: Vec::new() });
        search
    }

    /// Goes on from a place, unless it is no better than one that was tried.
    fn enter(&mut self, next: Next<M::State>) {
        let Next { place, by } = next;
        let seen = self.seen.entry((place.done.clone(), place.state.clone())).or_default();
        if !seen.iter().any(|used| is_subset(used, &place.used)) {
            seen.push(place.used.clone());
            let untried = self.candidates(&place.done).0;
            self.stack.push(Frame { place, by, untried, detours: None });
        }
    }

    fn go_back(&mut self) {
        let length: usize = self.stack.iter().map(|frame| frame.by.len()).sum();
        if length > self.longest.len() {
            self.longest = self.order();
        }
        self.stack.pop();
    }

    /// The next place after the order so far: by one required operation, or by a detour.
    fn next(&mut self) -> Option<Next<M::State>> {
        while let Some(number) = self.stack.last_mut()?.untried.pop() {
            let place = self.stack.last()?.place.clone();
            if let Some(next) = self.required(&place, number) {
                return Some(next);
            }
        }
        if self.stack.last()?.detours.is_none() {
            let place = self.stack.last()?.place.clone();
            let detours = self.detours(&place);
            self.stack.last_mut()?.detours = Some(detours);
        }
        self.stack.last_mut()?.detours.as_mut()?.pop()
    }

    /// Where required operation `number` leads from `place`, if it fits.
    fn required(&mut self, place: &Place<M::State>, number: u32) -> Option<Next<M::State>> {
        let at = self.required[number as usize];
        let state = self.step(&place.state, at)?;
        let place = Place { state, done: place.done.with(number), used: place.used.clone() };
        Some(Next { place, by: vec![at] })
    }

    /// Every required operation that fits after some optional ones; the fewer of these, the later in the list.
    fn detours(&mut self, from: &Place<M::State>) -> Vec<Next<M::State>> {
        let (candidates, horizon) = self.candidates(&from.done);
        let mut reached: HashMap<M::State, Vec<Used>> =
            HashMap::from([(from.state.clone(), vec![from.used.clone()])]);
        let mut queue = VecDeque::from([(from.clone(), Vec::new())]);
        let mut detours = VecDeque::new();
        while let Some((place, way)) = queue.pop_front() {
            for (number, at) in self.optional_candidates(&place.used, horizon) {
                let Some(state) = self.step(&place.state, at) else { continue };
                let mut used = place.used.clone();
                insert(&mut used, number);
                let before = reached.entry(state.clone()).or_default();
                if before.iter().any(|before| is_subset(before, &used)) {
                    continue;
                }
                before.push(used.clone());
                let place = Place { state, done: from.done.clone(), used };
                let way: Vec<usize> = way.iter().copied().chain([at]).collect();
                for &number in &candidates {
                    if let Some(Next { place, by }) = self.required(&place, number) {
                        detours.push_front(Next { place, by: [way.clone(), by].concat() });
                    }
                }
                queue.push_back((place, way));
            }
        }
        detours.into()
    }

    /// Required operations that may come next, the one that returned first last; and the time by which anything has to be invoked
    /// that may come next: the first return of those that are not done.
    fn candidates(&self, done: &Done) -> (Vec<u32>, Time) {
        let mut horizon = Time::MAX;
        let mut candidates: Vec<(Time, u32)> = Vec::new();
        for number in done.settled..self.required.len() as u32 {
            let operation = &self.history[self.required[number as usize]];
            if operation.invoked > horizon {
                break;
            }
            if done.beyond.binary_search(&number).is_err() {
                let returned = operation.returned.unwrap_or(Time::MAX);
                horizon = horizon.min(returned);
                candidates.push((returned, number));
            }
        }
        candidates.sort_unstable_by(|a, b| b.cmp(a));
        (candidates.into_iter().map(|(_, number)| number).collect(), horizon)
    }

    /// Optional operations that may come next, with their positions. Of those that ask the same the first will do: the others
    /// can come wherever it can from now on.
    fn optional_candidates(&self, used: &Used, horizon: Time) -> Vec<(u32, usize)> {
        let mut candidates = Vec::new();
        let mut inputs: Vec<&M::Input> = Vec::new();
        for (number, &at) in (0..).zip(&self.optional) {
            let operation = &self.history[at];
            if operation.invoked > horizon {
                break;
            }
            if used.binary_search(&number).is_err() && !inputs.contains(&&operation.input) {
                inputs.push(&operation.input);
                candidates.push((number, at));
            }
        }
        candidates
    }

    fn step(&mut self, state: &M::State, at: usize) -> Option<M::State> {
        self.steps += 1;
        let operation = &self.history[at];
        self.model.step(state, &operation.input, operation.output.as_ref())
    }

    fn order(&self) -> Vec<usize> {
        self.stack.iter().flat_map(|frame| frame.by.iter().copied()).collect()
    }
}

impl Done {
    fn with(&self, number: u32) -> Self {
        let mut done = self.clone();
        insert(&mut done.beyond, number);
        let run = done.beyond.iter().zip(done.settled..).take_while(|(have, want)| *have == want).count();
        done.beyond.drain(..run);
        done.settled += run as u32;
        done
    }
}

fn insert(sorted: &mut Vec<u32>, number: u32) {
    let at = sorted.partition_point(|&have| have < number);
    sorted.insert(at, number);
}

fn is_subset(small: &[u32], large: &[u32]) -> bool {
    small.iter().all(|number| large.binary_search(number).is_ok())
}
