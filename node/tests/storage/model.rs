//! Random histories against a model: a vector of entries.

use proptest::prelude::*;
use quorate_node::storage::{Recovered, Wal};
use quorate_raft::{Entry, HardState, Index, LogId, MemberId, Write};

use crate::disk::{Fault, MemDisk};
use crate::{command, open, write};

/// What the log should hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Model {
    pub(crate) hard_state: HardState,
    /// The log begins after this entry.
    pub(crate) base: LogId,
    pub(crate) last: Index,
    pub(crate) entries: Vec<Entry>,
}

impl Model {
    pub(crate) fn append(&mut self, batch: &[Write]) {
        for write in batch {
            self.hard_state = write.hard_state.unwrap_or(self.hard_state);
            if let Some(base) = write.reset {
                self.entries.clear();
                self.base = base;
                self.last = base.index;
            }
            if let (Some(first), Some(last)) = (write.entries.first(), write.entries.last()) {
                self.entries.retain(|e| e.index < first.index);
                self.entries.extend(write.entries.iter().cloned());
                self.last = last.index;
            }
        }
    }

    pub(crate) fn release(&mut self, index: Index) {
        if let Some(last) = self.entries.iter().rfind(|e| e.index < index) {
            self.base = last.id();
        }
        self.entries.retain(|e| e.index >= index);
    }

    /// The end of the log.
    pub(crate) fn end(&self) -> LogId {
        self.entries.last().map_or(self.base, Entry::id)
    }

    pub(crate) fn is(&self, recovered: &Recovered) -> bool {
        recovered.lost.is_none()
            && (self.hard_state, self.base) == (recovered.hard_state, recovered.base)
            && self.entries == recovered.entries
    }
}

/// One thing that happens. The numbers are taken modulo what is possible.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Append(Vec<Group>),
    Prepare,
    Release(u64),
    Reset(Reset),
    /// The process ends, the machine goes on.
    Reopen,
    /// The power goes between two operations.
    PowerCut {
        keep: u64,
    },
    /// It goes, or the process is killed, within an append, a release or a reset.
    Dies {
        within: u8,
        doing: Doing,
        keep: Option<u64>,
    },
}

#[derive(Debug, Clone)]
pub(crate) enum Doing {
    Append(Group),
    Release(u64),
    Reset(Reset),
}

/// A snapshot was installed: the log begins anew so many entries after what is committed, in one of some terms, and goes on at once.
#[derive(Debug, Clone)]
pub(crate) struct Reset {
    ahead: u64,
    new_term: bool,
    lengths: Vec<usize>,
}

#[derive(Debug, Clone)]
pub(crate) struct Group {
    /// How far before the end the first entry stands.
    back: u64,
    lengths: Vec<usize>,
    new_term: bool,
    commit: u64,
}

fn group() -> impl Strategy<Value = Group> {
    let length = prop_oneof![8 => 0..600_usize, 2 => 600..9_000_usize, 1 => 20_000..80_000_usize];
    let back = prop_oneof![3 => Just(0), 1 => 0..20_u64];
    (back, prop::collection::vec(length, 0..4), any::<bool>(), any::<u64>())
        .prop_map(|(back, lengths, new_term, commit)| Group { back, lengths, new_term, commit })
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => prop::collection::vec(group(), 1..4).prop_map(Step::Append),
        4 => Just(Step::Prepare),
        1 => any::<u64>().prop_map(Step::Release),
        1 => Just(Step::Reopen),
        1 => any::<u64>().prop_map(|keep| Step::PowerCut { keep }),
        1 => reset().prop_map(Step::Reset),
        3 => (0..12_u8, doing(), any::<Option<u64>>())
            .prop_map(|(within, doing, keep)| Step::Dies { within, doing, keep }),
    ]
}

fn doing() -> impl Strategy<Value = Doing> {
    prop_oneof![
        3 => group().prop_map(Doing::Append),
        1 => any::<u64>().prop_map(Doing::Release),
        1 => reset().prop_map(Doing::Reset),
    ]
}

fn reset() -> impl Strategy<Value = Reset> {
    (1..30_u64, any::<bool>(), prop::collection::vec(0..9_000_usize, 0..3))
        .prop_map(|(ahead, new_term, lengths)| Reset { ahead, new_term, lengths })
}

/// The log with its disk and what it should hold.
pub(crate) struct World {
    pub(crate) disk: MemDisk,
    pub(crate) wal: Wal,
    pub(crate) model: Model,
}

impl World {
    pub(crate) fn new(disk: MemDisk) -> Self {
        let (wal, recovered) = open(&disk).expect("an empty disk opens");
        assert!(Model::default().is(&recovered));
        Self { disk, wal, model: Model::default() }
    }

    /// The writes of the groups, which follow one another.
    fn writes(&self, groups: &[Group]) -> Vec<Write> {
        let mut after = self.model.clone();
        let mut batch = Vec::new();
        for group in groups {
            let hard_state = after.hard_state;
            // What is committed, or released, is never replaced; and only by a later leader.
            let end = after.last + 1;
            let fixed = (hard_state.commit + 1).max(after.base.index + 1);
            let first = end.saturating_sub(group.back).max(fixed).min(end);
            let new_term = group.new_term || first < end;
            let term = (hard_state.term + u64::from(new_term)).max(1);
            let entries: Vec<Entry> = group
                .lengths
                .iter()
                .zip(first..)
                .map(|(length, index)| command(term, index, *length))
                .collect();
            let last = entries.last().map_or(after.last, |e| e.index);
            let commit = hard_state.commit + group.commit % (last - hard_state.commit + 1);
            let vote = new_term.then_some(MemberId(term)).or(hard_state.vote);
            let write = write(Some(HardState { term, vote, commit }), entries);
            after.append(std::slice::from_ref(&write));
            batch.push(write);
        }
        batch
    }

    /// The write that follows an installed snapshot.
    fn reset(&self, reset: &Reset) -> Write {
        let HardState { term, vote, commit } = self.model.hard_state;
        // A log that has the snapshot's last entry does not begin anew: here it has another one in its place.
        let index = commit + reset.ahead;
        let new_term = reset.new_term || index <= self.model.last;
        let base = LogId { term: term.max(1) + u64::from(new_term), index };
        let entries = reset.lengths.iter().zip(base.index + 1..);
        let entries = entries.map(|(length, index)| command(base.term, index, *length)).collect();
        let vote = vote.filter(|_| base.term == term);
        let hard_state = Some(HardState { term: base.term, vote, commit: base.index });
        Write { reset: Some(base), ..write(hard_state, entries) }
    }

    fn release_index(&self, number: u64) -> Index {
        1 + number % (self.model.hard_state.commit + 1)
    }

    pub(crate) fn run(&mut self, step: &Step) {
        match step {
            Step::Append(groups) => {
                let batch = self.writes(groups);
                self.wal.append(&batch).expect("the disk is well");
                self.model.append(&batch);
            }
            Step::Prepare => {
                self.wal.prepare().expect("the disk is well");
            }
            Step::Release(number) => {
                let index = self.release_index(*number);
                self.wal.release_before(index).expect("the disk is well");
                self.model.release(index);
            }
            Step::Reset(reset) => {
                let batch = [self.reset(reset)];
                self.wal.append(&batch).expect("the disk is well");
                self.model.append(&batch);
            }
            Step::Reopen => self.recover_as_it_was(),
            Step::PowerCut { keep } => {
                self.disk.power_cut(coin(*keep));
                self.recover_as_it_was();
            }
            Step::Dies { within, doing, keep } => self.die(*within, doing, *keep),
        }
    }

    /// Either state is right: the one before, and the one with what was not acknowledged.
    fn die(&mut self, within: u8, doing: &Doing, keep: Option<u64>) {
        let mut after = self.model.clone();
        self.disk.fail_after(within.into(), Fault::Crash);
        let batch = match doing {
            Doing::Append(group) => self.writes(std::slice::from_ref(group)),
            Doing::Reset(reset) => vec![self.reset(reset)],
            Doing::Release(_) => Vec::new(),
        };
        let done = if let Doing::Release(number) = doing {
            let index = self.release_index(*number);
            after.release(index);
            self.wal.release_before(index)
        } else {
            after.append(&batch);
            self.wal.append(&batch)
        };
        let acknowledged = done.is_ok();
        if let Some(keep) = keep {
            self.disk.power_cut(coin(keep));
        } else {
            // Killed: what was written is there for who comes next, until the power goes.
            self.disk.power_on();
        }
        let before = self.model.clone();
        if acknowledged {
            self.recover(&[after]);
        } else {
            self.recover(&[before, after]);
        }
        // What has been recovered stays, also through a power cut.
        self.disk.power_cut(|| false);
        self.recover_as_it_was();
    }

    fn recover_as_it_was(&mut self) {
        let model = self.model.clone();
        self.recover(&[model]);
    }

    fn recover(&mut self, possible: &[Model]) {
        let (wal, recovered) = open(&self.disk).expect("nothing is damaged");
        let found = possible.iter().find(|model| model.is(&recovered));
        let Some(found) = found else { panic!("recovered {recovered:#?}\npossible {possible:#?}") };
        self.model = found.clone();
        self.wal = wal;
    }
}

/// Coins that fall the same for the same seed.
pub(crate) fn coin(seed: u64) -> impl FnMut() -> bool {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state & 64 == 0
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Whatever happens, what was acknowledged is there, and nothing else but the group in flight.
    #[test]
    fn what_is_acknowledged_is_recovered(
        reserves in any::<bool>(),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut world = World::new(MemDisk::new(reserves));
        for step in &steps {
            world.run(step);
        }
        world.run(&Step::Reopen);
    }
}
