//! Breadth-first search over all states of a world.
//!
//! A state of the world is: each member with its disk, the messages that were sent, the votes and leaders that showed in them, what
//! was ever known to be committed, and what is left of the bounds. Messages stay on the network once they are sent. So one can come
//! never, once, again, late, in any order: loss, duplication and reordering need no actions of their own. Only those go that can
//! change nothing any more: see [`View::is_deaf_to`].
//!
//! Members, messages and the rest are few, and many states are made of them. So each is stored once and named by a number, and what
//! an input makes of a member is worked out once. A state is a short list of numbers. Of the states that were seen only fingerprints of
//! 128 bits are kept. Two states that differ and have the same one would hide what follows from the second. With n states the odds of
//! that happening at all are below n²/2^129: for a hundred million states, one in 10^22.
//!
//! Nothing uses the symmetry between members: it would be wrong as soon as a change of membership names some of them.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use quorate_raft::{Body, Configuration, Index, MemberId, Message};

use crate::harness::at;
use crate::member::{Input, Member, View};
use crate::names::{Mixed, Names};
use crate::properties::{self, Committed, Sign};
use crate::state::State;
use crate::world::{Bounds, World};

/// What was found.
#[derive(Debug)]
pub(crate) struct Explored {
    pub(crate) states: u64,
    /// The newest entry that was ever known to be committed.
    pub(crate) furthest: Index,
    pub(crate) violation: Option<Violation>,
}

/// A property that does not hold, and the shortest way there.
#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) what: String,
    pub(crate) trace: Vec<String>,
}

/// What an input makes of a member, and the messages that it sends. None: nothing.
type Outcome = Option<(u32, Box<[u32]>)>;

pub(crate) struct Search<'w> {
    world: &'w World,
    members: Names<Member>,
    views: Vec<View>,
    messages: Names<Message>,
    /// Of each message: the position of its receiver, and the number of its delivery.
    deliveries: Vec<(u32, u32)>,
    signs: Names<Vec<Sign>>,
    inputs: Names<Input>,
    committed: Names<Committed>,
    outcomes: HashMap<(u32, u32), Outcome, Mixed>,
    pairs: HashSet<(u32, u32), Mixed>,
    seen: HashSet<u128, Mixed>,
    /// Of each level and state: the state before, at the level before, and what happened to whom.
    origins: Vec<Vec<(u32, u32, u32)>>,
    transitions: u64,
}

type Step = Result<Option<State>, String>;

impl<'w> Search<'w> {
    pub(crate) fn new(world: &'w World) -> Self {
        Self {
            world,
            members: Names::new(),
            views: Vec::new(),
            messages: Names::new(),
            deliveries: Vec::new(),
            signs: Names::new(),
            inputs: Names::new(),
            committed: Names::new(),
            outcomes: HashMap::default(),
            pairs: HashSet::default(),
            seen: HashSet::default(),
            origins: Vec::new(),
            transitions: 0,
        }
    }

    /// Goes through all states, level by level, until there is none that was not seen; or until a property does not hold.
    pub(crate) fn run(mut self) -> Explored {
        let first = self.first();
        self.seen.insert(first.fingerprint());
        self.origins.push(vec![(0, 0, 0)]);
        let mut level = vec![first];
        while !level.is_empty() {
            let mut next = Vec::new();
            self.origins.push(Vec::new());
            for (at, state) in level.iter().enumerate() {
                for (who, input) in self.choices(state) {
                    self.transitions += 1;
                    let step = self.step(state, who, input);
                    let origin = (u32::try_from(at).expect("a level fits into memory"), who, input);
                    match step {
                        Ok(Some(state)) => {
                            if self.seen.insert(state.fingerprint()) {
                                self.newest_origins().push(origin);
                                if let Err(what) = self.check(&state) {
                                    return self.end(Some(what));
                                }
                                next.push(state);
                            }
                        }
                        Ok(None) => {}
                        Err(what) => {
                            self.newest_origins().push(origin);
                            return self.end(Some(what));
                        }
                    }
                }
            }
            level = next;
            self.show_progress(level.len());
        }
        self.origins.pop();
        self.end(None)
    }

    fn newest_origins(&mut self) -> &mut Vec<(u32, u32, u32)> {
        self.origins.last_mut().expect("a level is being made")
    }

    /// Long work shows that it goes on.
    fn show_progress(&self, newest: usize) {
        if newest > 100_000 {
            let depth = self.origins.len() - 1;
            eprintln!(
                "{}: {newest} new states at depth {depth}, {} so far",
                self.world.name,
                self.seen.len()
            );
        }
    }

    fn end(self, violation: Option<String>) -> Explored {
        let violation = violation.map(|what| Violation { what, trace: self.trace() });
        let states = self.seen.len() as u64;
        eprintln!(
            "{}: {states} states, {} transitions, depth {}, {} members, {} messages",
            self.world.name,
            self.transitions,
            self.origins.len() - 1,
            self.members.count(),
            self.messages.count(),
        );
        let committed = self.committed.iter().filter_map(|known| known.last());
        let furthest = committed.map(|(id, _)| id.index).max().unwrap_or_default();
        Explored { states, furthest, violation }
    }

    /// How the newest state came about.
    fn trace(&self) -> Vec<String> {
        let mut trace = Vec::new();
        let mut at = None;
        for level in self.origins[1..].iter().rev() {
            let (before, who, input) = level[at.unwrap_or(level.len() - 1)];
            let id = self.world.members[who as usize].0;
            trace.push(format!("{id}: {:?}", self.inputs.get(input)));
            at = Some(before as usize);
        }
        trace.reverse();
        trace
    }

    fn first(&mut self) -> State {
        let world = self.world;
        let (committed, _) = self.committed.name(Committed::new());
        let (signs, _) = self.signs.name(Vec::new());
        let members = world.members.iter().map(|(id, disk)| self.name_member(Member::new(*id, disk.clone())));
        let members = members.collect::<Vec<_>>().into();
        let mut state = State { members, network: Box::new([]), signs, committed, left: world.bounds };
        for (id, input) in &world.prelude {
            let (input, _) = self.inputs.name(input.clone());
            let who = self.position(*id).expect("it is in the world");
            state = self.step(&state, who, input).expect("it is sound").expect("it has an effect");
            state = self.calm(state);
        }
        state.left = world.bounds;
        state
    }

    /// Everything arrives once, in order, and becomes durable; and nothing of it comes again.
    fn calm(&mut self, mut state: State) -> State {
        loop {
            let persist = self.inputs.name(Input::Persist).0;
            let writing = (0..).zip(&state.members).find(|(_, number)| self.views[**number as usize].writes);
            let (who, input) = if let Some((who, _)) = writing {
                (who, persist)
            } else if let Some((message, rest)) = state.network.clone().split_first() {
                state.network = rest.into();
                self.delivery(*message)
            } else {
                return state;
            };
            if let Some(next) = self.step(&state, who, input).expect("it is sound") {
                state = next;
            }
        }
    }

    /// All that can happen in `state`, by the member's position and the input's number.
    fn choices(&mut self, state: &State) -> Vec<(u32, u32)> {
        let mut choices = Vec::new();
        for (who, number) in (0..).zip(&state.members) {
            let View { term, leads, writes, .. } = self.views[*number as usize];
            let left = state.left;
            let change = self.next_change(left).filter(|_| leads);
            let possible = [
                (writes, Input::Persist),
                (left.ticks > 0 && left.outages == 0 && term < self.world.terms, Input::Tick),
                (left.restarts > 0, Input::Restart),
                (left.damages > 0, Input::RestartDamaged),
                (left.proposals > 0 && leads, Input::Propose(left.proposals)),
                (left.reads > 0 && leads, Input::Read),
            ];
            let change = change.map(|wanted| Input::Change(Box::new(wanted.clone())));
            let possible = possible.into_iter().filter_map(|(can, input)| can.then_some(input)).chain(change);
            choices.extend(possible.map(|input| (who, self.inputs.name(input).0)));
        }
        if state.left.outages > 0 {
            choices.push((0, self.inputs.name(Input::Outage).0));
        }
        choices.extend(state.network.iter().map(|number| self.delivery(*number)));
        choices
    }

    /// What `state` becomes. None if nothing changes, or a bound is passed.
    fn step(&mut self, state: &State, who: u32, input: u32) -> Step {
        if matches!(self.inputs.get(input), Input::Outage) {
            return self.outage(state, input);
        }
        let member = state.members[who as usize];
        let Some((next, sent)) = self.outcome(member, input)? else { return Ok(None) };
        if *next == member && sent.iter().all(|message| state.holds(*message)) {
            return Ok(None);
        }
        let (next, sent) = (*next, sent.clone());
        let mut state = state.clone();
        if self.is_gap(member, input) && !take_one(&mut state.left.gaps) {
            return Ok(None);
        }
        state.members[who as usize] = next;
        self.send(&mut state, who, &sent)?;
        self.note_committed(&mut state, next);
        let left = &mut state.left;
        match self.inputs.get(input) {
            Input::Deliver(_) | Input::Persist | Input::Outage => {}
            Input::Restart => left.restarts = left.restarts.saturating_sub(1),
            Input::RestartDamaged => left.damages = left.damages.saturating_sub(1),
            Input::Tick => left.ticks = left.ticks.saturating_sub(1),
            Input::Propose(_) => left.proposals = left.proposals.saturating_sub(1),
            Input::Change(_) => left.changes = left.changes.saturating_sub(1),
            Input::Read => left.reads = left.reads.saturating_sub(1),
        }
        Ok(Some(state))
    }

    fn outage(&mut self, state: &State, input: u32) -> Step {
        let mut state = state.clone();
        state.network = Box::new([]);
        state.left.outages -= 1;
        for member in &mut state.members {
            *member = self.outcome(*member, input)?.as_ref().expect("it comes up").0;
        }
        Ok(Some(state))
    }

    /// What `input` makes of a member: worked out once. An assertion of the core is a violation too.
    fn outcome(&mut self, member: u32, input: u32) -> Result<&Outcome, String> {
        let key = (member, input);
        if !self.outcomes.contains_key(&key) {
            let (before, what) = (self.members.get(member), self.inputs.get(input));
            let fault = self.world.fault;
            let after = catch_unwind(AssertUnwindSafe(|| before.after(what, fault)));
            let after = after.map_err(|_| format!("an assertion stops {before:?} at {what:?}"))?;
            let within = after.filter(|(member, _)| member.view().term <= self.world.terms);
            let outcome = within.map(|(member, mut messages)| {
                messages.retain(|message| self.position(message.to).is_some());
                let sent = messages.into_iter().map(|message| self.name_message(message)).collect();
                (self.name_member(member), sent)
            });
            self.outcomes.insert(key, outcome);
        }
        Ok(&self.outcomes[&key])
    }

    fn name_member(&mut self, member: Member) -> u32 {
        let view = member.view();
        let (number, is_new) = self.members.name(member);
        if is_new {
            self.views.push(view);
        }
        number
    }

    fn name_message(&mut self, message: Message) -> u32 {
        let (number, is_new) = self.messages.name(message.clone());
        if is_new {
            let who = self.receiver(&message);
            self.deliveries.push((who, self.inputs.name(Input::Deliver(message)).0));
        }
        number
    }

    /// To whom a message goes, by position, and the number of the input that it is there.
    fn delivery(&self, message: u32) -> (u32, u32) {
        self.deliveries[message as usize]
    }

    /// The change that a caller may want next: each once, and none after an outage.
    fn next_change(&self, left: Bounds) -> Option<&Configuration> {
        let bounds = self.world.bounds;
        let begun = usize::from(bounds.changes - left.changes);
        self.world.changes.get(begun).filter(|_| left.changes > 0 && left.outages == bounds.outages)
    }

    /// Whether a member finds at this input that it lacks what precedes a leader's entries: see [`crate::world::Bounds::gaps`].
    fn is_gap(&self, member: u32, input: u32) -> bool {
        let Input::Deliver(Message { term, body: Body::AppendEntries { previous, .. }, .. }) =
            self.inputs.get(input)
        else {
            return false;
        };
        let entry = at(&self.members.get(member).log, previous.index);
        *term >= self.views[member as usize].term && entry.is_none_or(|entry| entry.id() != *previous)
    }

    /// The network, after `who` has changed and has sent these.
    fn send(&mut self, state: &mut State, who: u32, sent: &[u32]) -> Result<(), String> {
        let mut network = state.network.to_vec();
        let id = self.world.members[who as usize].0;
        let view = &self.views[state.members[who as usize] as usize];
        network.retain(|number| {
            let message = self.messages.get(*number);
            message.to != id || !view.is_deaf_to(message)
        });
        for number in sent {
            let message = self.messages.get(*number);
            if let Some(sign) = Sign::of(message) {
                state.signs = note_sign(&mut self.signs, state.signs, sign)?;
            }
            let receiver = state.members[self.receiver(message) as usize];
            if let Err(place) = network.binary_search(number)
                && !self.views[receiver as usize].is_deaf_to(message)
            {
                network.insert(place, *number);
            }
        }
        state.network = network.into();
        Ok(())
    }

    fn note_committed(&mut self, state: &mut State, member: u32) {
        let View { committed: id, term, .. } = self.views[member as usize];
        let known = self.committed.get(state.committed);
        if known.last().is_some_and(|(newest, _)| newest.index >= id.index) {
            return;
        }
        let mut known = known.clone();
        // Who hears of it in a later term hears of it late.
        known.retain(|(_, known_in)| *known_in != term);
        known.push((id, term));
        state.committed = self.committed.name(known).0;
    }

    fn check(&mut self, state: &State) -> Result<(), String> {
        for (at, one) in state.members.iter().enumerate() {
            for other in &state.members[at..] {
                self.check_pair(*one, *other)?;
            }
        }
        let of = |number: &u32| (self.members.get(*number), &self.views[*number as usize]);
        let members: Vec<(&Member, &View)> = state.members.iter().map(of).collect();
        properties::all(&members, self.committed.get(state.committed))
    }

    fn check_pair(&mut self, one: u32, other: u32) -> Result<(), String> {
        if !self.pairs.insert((one, other)) {
            return Ok(());
        }
        let of = |number: u32| (self.members.get(number), &self.views[number as usize]);
        if one == other { properties::alone(of(one).0) } else { properties::together(of(one), of(other)) }
    }

    /// None: a member that is lost.
    fn position(&self, id: MemberId) -> Option<u32> {
        let found = (0..).zip(&self.world.members).find(|(_, (member, _))| *member == id);
        found.map(|(position, _)| position)
    }

    fn receiver(&self, message: &Message) -> u32 {
        self.position(message.to).expect("what goes to others is not kept")
    }
}

/// Whether there was one left, if they are counted.
fn take_one(left: &mut Option<u8>) -> bool {
    let Some(counted) = left else { return true };
    let less = counted.checked_sub(1);
    *counted = less.unwrap_or_default();
    less.is_some()
}

/// The name of `signs` with one more, which does not contradict them.
fn note_sign(names: &mut Names<Vec<Sign>>, signs: u32, sign: Sign) -> Result<u32, String> {
    let known = names.get(signs);
    if let Some(other) = known.iter().find(|other| sign.contradicts(**other)) {
        return Err(format!("{sign:?} after {other:?}"));
    }
    let Err(place) = known.binary_search(&sign) else { return Ok(signs) };
    let mut known = known.clone();
    known.insert(place, sign);
    Ok(names.name(known).0)
}
