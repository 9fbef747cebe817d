//! People who change the membership and hand over leadership, whatever else goes on.

use std::collections::BTreeSet;

use quorate_raft::{ChangeError, Configuration, LogId, MemberId, ProposeError, Status, Term};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Kind;
use crate::host::{name, names};
use crate::time::{MILLI, SECOND, Time};
use crate::world::{Event, World, address};

/// For how long somebody tries.
const PATIENCE: Time = 15 * SECOND;

/// The most voters, and the most members that there ever are.
const MOST_VOTERS: usize = 7;
const MOST_HOSTS: usize = 16;

/// Somebody on the way to a goal.
#[derive(Debug)]
pub(crate) struct Errand {
    goal: Goal,
    until: Time,
    random: ChaCha8Rng,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Goal {
    /// A new member, as a learner.
    Learner(MemberId),
    /// A new member, as a voter, in the place of another.
    Voter(MemberId, Option<MemberId>),
    /// A member less.
    Without(MemberId),
    /// These members, as far as they have caught up.
    Shape(BTreeSet<MemberId>),
    /// Leadership was handed over by the leader of this term: is it gone?
    Handed(MemberId, Term),
    /// Nobody who is lost.
    Repaired,
}

impl World {
    pub(super) fn begin_errand(&mut self, kind: Kind, random: &mut ChaCha8Rng) -> Option<String> {
        let leader = self.would_be_leader(random)?;
        let status = self.hosts[&leader].process()?.replica.status();
        let members: Vec<MemberId> = status.configuration.members().into_iter().collect();
        let any =
            |random: &mut ChaCha8Rng| members.get(random.random_range(0..members.len().max(1))).copied();
        let goal = match kind {
            Kind::Grow | Kind::AddLearner | Kind::Replace if self.hosts.len() >= MOST_HOSTS => return None,
            Kind::Grow => Goal::Voter(self.add_host(), None),
            Kind::AddLearner => Goal::Learner(self.add_host()),
            Kind::Replace => {
                let lost = members.iter().copied().find(|id| self.is_gone(*id));
                Goal::Voter(self.add_host(), lost.or_else(|| any(random)))
            }
            Kind::Shrink => Goal::Without(any(random)?),
            Kind::Reshape => {
                let known = self.members_hosts().map(|host| host.id).filter(|id| !self.is_gone(*id));
                Goal::Shape(known.filter(|_| random.random()).collect())
            }
            Kind::Transfer => return self.hand_over(leader, &status, random),
            _ => return self.ask_the_impossible(leader, &status, random),
        };
        let words = format!("{goal:?}");
        self.set_out(goal, random.random());
        Some(words)
    }

    /// At the end: lost members go.
    pub(crate) fn repair(&mut self) {
        self.errands.clear();
        self.set_out(Goal::Repaired, 0);
    }

    fn set_out(&mut self, goal: Goal, seed: u64) {
        let until = self.now() + PATIENCE;
        self.errands.push(Errand { goal, until, random: ChaCha8Rng::seed_from_u64(seed) });
        self.agenda.after(0, Event::Errand(self.errands.len() - 1));
    }

    pub(crate) fn on_errand(&mut self, number: usize) {
        let now = self.now();
        let Some(errand) = self.errands.get_mut(number) else { return };
        if now > errand.until && errand.goal != Goal::Repaired {
            return;
        }
        let delay = errand.random.random_range(50 * MILLI..500 * MILLI);
        let mut random = ChaCha8Rng::from_rng(&mut errand.random);
        let goal = errand.goal.clone();
        if self.pursue(&goal, &mut random) {
            self.agenda.after(delay, Event::Errand(number));
        }
    }

    /// Does what can be done now. Whether to go on.
    fn pursue(&mut self, goal: &Goal, random: &mut ChaCha8Rng) -> bool {
        if let Goal::Handed(leader, term) = goal {
            if self.hosts[leader].process().is_some_and(|p| p.shown == (quorate_raft::Role::Leader, *term)) {
                self.coverage.count("transfers given up");
            }
            return false;
        }
        let Some(leader) = self.would_be_leader(random) else { return true };
        let status = self.hosts[&leader].process().expect("it leads").replica.status();
        let mut wanted = Configuration { outgoing: BTreeSet::new(), ..status.configuration.clone() };
        self.approach(goal, &mut wanted);
        if wanted == status.configuration {
            return !self.is_reached(goal, &status.configuration);
        }
        // Once nothing goes wrong any more it is enough that all are up: a disk that may be damaged is not read again.
        let are_up = *goal == Goal::Repaired && wanted.voters.iter().all(|id| self.is_up(*id));
        let survives = are_up || self.survives(&wanted, None);
        // Nobody keeps those alone that serve nothing.
        let survives = survives && wanted.voters.iter().any(|id| !self.is_to_be_replaced(*id));
        let fits = survives && (*goal == Goal::Repaired || self.may_shape(&wanted));
        if wanted.voters.is_empty() || wanted.voters.len() > MOST_VOTERS || !fits {
            return *goal == Goal::Repaired;
        }
        wanted.addresses = wanted.members().into_iter().map(|id| (id, address(id))).collect();
        let stale = random.random_bool(0.05);
        let expected =
            LogId { index: status.configuration_id.index + u64::from(stale), ..status.configuration_id };
        self.change(leader, expected, wanted);
        true
    }

    /// The next step from `wanted` to the goal.
    fn approach(&self, goal: &Goal, wanted: &mut Configuration) {
        let Configuration { voters, learners, .. } = wanted;
        match goal {
            Goal::Learner(id) => {
                if !voters.contains(id) {
                    learners.insert(*id);
                }
            }
            Goal::Voter(id, other) => {
                if learners.remove(id) {
                    voters.insert(*id);
                    if let Some(other) = other {
                        voters.remove(other);
                        learners.remove(other);
                    }
                } else if !voters.contains(id) {
                    learners.insert(*id);
                }
            }
            Goal::Without(id) => {
                voters.remove(id);
                learners.remove(id);
            }
            Goal::Shape(members) => {
                let new: Vec<MemberId> = learners.intersection(members).copied().collect();
                learners.clear();
                voters.retain(|id| members.contains(id));
                voters.extend(new);
                learners.extend(members.difference(&voters.clone()));
            }
            Goal::Repaired => {
                let stays = |id: &MemberId| !self.hosts[id].lost && !self.is_to_be_replaced(*id);
                voters.retain(stays);
                learners.retain(stays);
            }
            Goal::Handed(..) => {}
        }
    }

    fn is_reached(&self, goal: &Goal, now: &Configuration) -> bool {
        let mut next = now.clone();
        self.approach(goal, &mut next);
        next == *now && !now.is_joint() && *goal != Goal::Repaired
    }

    /// Asks a leader for a change.
    fn change(&mut self, leader: MemberId, expected: LogId, wanted: Configuration) {
        let words = (names(&wanted.voters), names(&wanted.learners));
        let host = self.hosts.get_mut(&leader).expect("a member");
        let life = host.life;
        let process = host.process_mut().expect("it leads");
        if process.unstored.is_some() {
            return;
        }
        let answer = process.replica.change_membership(expected, wanted);
        self.say(|| {
            format!("{} is asked for voters {}, learners {}: {answer:?}", name(leader), words.0, words.1)
        });
        match answer {
            // At once: from now on the new configuration may be in force.
            Ok(_) => self.on_act(leader, life),
            Err(error) => self.coverage.count(refusal(&error)),
        }
    }

    fn hand_over(&mut self, leader: MemberId, status: &Status, random: &mut ChaCha8Rng) -> Option<String> {
        let known: Vec<MemberId> = self.members_hosts().map(|host| host.id).collect();
        let target = random.random_bool(0.7).then(|| known[random.random_range(0..known.len())]);
        let process = self.hosts.get_mut(&leader)?.process_mut()?;
        let answer = process.replica.transfer(target);
        self.wake(leader);
        if answer.is_ok() {
            self.coverage.count("transfers begun");
            let seed = random.random();
            let number = self.errands.len();
            let until = self.now() + PATIENCE;
            let goal = Goal::Handed(leader, status.term);
            self.errands.push(Errand { goal, until, random: ChaCha8Rng::seed_from_u64(seed) });
            self.agenda.after(3 * SECOND, Event::Errand(number));
        } else {
            self.coverage.count("transfers refused");
        }
        Some(format!("{} to {target:?}: {answer:?}", name(leader)))
    }

    /// A change that cannot be: it is refused, and changes nothing.
    fn ask_the_impossible(
        &mut self,
        leader: MemberId,
        status: &Status,
        random: &mut ChaCha8Rng,
    ) -> Option<String> {
        let current = &status.configuration;
        let mut wanted = Configuration { outgoing: BTreeSet::new(), ..current.clone() };
        let stranger = MemberId(1000 + random.random_range(0..9));
        match random.random_range(0..5) {
            0 => wanted = Configuration::default(),
            1 => {
                wanted.voters.insert(stranger);
                wanted.addresses.insert(stranger, address(stranger));
            }
            2 => drop(wanted.learners.insert(*current.voters.first()?)),
            3 => drop(wanted.outgoing.insert(*current.voters.first()?)),
            _ => drop(wanted.addresses.insert(stranger, address(stranger))),
        }
        let process = self.hosts.get_mut(&leader)?.process_mut()?;
        let answer = process.replica.change_membership(status.configuration_id, wanted);
        let after = process.replica.status();
        let Err(error) = answer else { panic!("{} was asked for the impossible, and does it", name(leader)) };
        assert_eq!(after, *status, "a refused change changes nothing");
        self.coverage.count(refusal(&error));
        Some(format!("{}: {error}", name(leader)))
    }
}

fn refusal(error: &ChangeError) -> &'static str {
    match error {
        ChangeError::NotNow(ProposeError::NotLeader { .. } | ProposeError::Transferring { .. }) => {
            "changes refused: does not lead"
        }
        ChangeError::Stale { .. } => "changes refused: stale",
        ChangeError::InProgress => "changes refused: in progress",
        ChangeError::Lagging(_) => "changes refused: a new voter lags",
        ChangeError::TooFewAnswer => "changes refused: too few of the new voters answer",
        ChangeError::Invalid(_) => "changes refused: impossible",
    }
}
