//! Random histories against a model: a vector of entries.

use proptest::prelude::*;
use quorate_node::storage::{Recovered, Wal};
use quorate_raft::{Entry, HardState, Index, MemberId, Write};

use crate::disk::{Fault, MemDisk};
use crate::{command, open, write};

/// What the log should hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Model {
    pub(crate) hard_state: HardState,
    pub(crate) floor: Index,
    pub(crate) last: Index,
    /// From the floor on.
    pub(crate) entries: Vec<Entry>,
}

impl Model {
    pub(crate) fn append(&mut self, batch: &[Write]) {
        for write in batch {
            self.hard_state = write.hard_state.unwrap_or(self.hard_state);
            if let (Some(first), Some(last)) = (write.entries.first(), write.entries.last()) {
                self.entries.retain(|e| e.index < first.index);
                self.entries.extend(write.entries.iter().cloned());
                self.last = last.index;
            }
        }
    }

    pub(crate) fn release(&mut self, index: Index) {
        self.floor = self.floor.max(index);
        let floor = self.floor;
        self.entries.retain(|e| e.index >= floor);
    }

    pub(crate) fn is(&self, recovered: &Recovered) -> bool {
        self.hard_state == recovered.hard_state && self.entries == recovered.entries
    }
}

/// One thing that happens. The numbers are taken modulo what is possible.
#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Group>),
    Prepare,
    Release(u64),
    /// The process ends, the machine goes on.
    Reopen,
    /// The power goes between two operations.
    PowerCut {
        keep: u64,
    },
    /// It goes, or the process is killed, within an append or a release.
    Dies {
        within: u8,
        release: bool,
        group: Group,
        keep: Option<u64>,
    },
}

#[derive(Debug, Clone)]
struct Group {
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

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => prop::collection::vec(group(), 1..4).prop_map(Step::Append),
        4 => Just(Step::Prepare),
        1 => any::<u64>().prop_map(Step::Release),
        1 => Just(Step::Reopen),
        1 => any::<u64>().prop_map(|keep| Step::PowerCut { keep }),
        2 => (0..12_u8, prop::bool::weighted(0.2), group(), any::<Option<u64>>())
            .prop_map(|(within, release, group, keep)| Step::Dies { within, release, group, keep }),
    ]
}

/// The log with its disk and what it should hold.
struct World {
    disk: MemDisk,
    wal: Wal,
    model: Model,
}

impl World {
    fn new() -> Self {
        let disk = MemDisk::default();
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
            let term = (hard_state.term + u64::from(group.new_term)).max(1);
            // What is committed, or released, is never replaced.
            let end = after.last + 1;
            let fixed = (hard_state.commit + 1).max(after.floor);
            let first = end.saturating_sub(group.back).max(fixed).min(end);
            let entries: Vec<Entry> = group
                .lengths
                .iter()
                .zip(first..)
                .map(|(length, index)| command(term, index, *length))
                .collect();
            let last = entries.last().map_or(after.last, |e| e.index);
            let commit = hard_state.commit + group.commit % (last - hard_state.commit + 1);
            let vote = group.new_term.then_some(MemberId(term)).or(hard_state.vote);
            let write = write(Some(HardState { term, vote, commit }), entries);
            after.append(std::slice::from_ref(&write));
            batch.push(write);
        }
        batch
    }

    fn release_index(&self, number: u64) -> Index {
        1 + number % (self.model.hard_state.commit + 1)
    }

    fn run(&mut self, step: &Step) {
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
            Step::Reopen => self.recover_as_it_was(),
            Step::PowerCut { keep } => {
                self.disk.power_cut(coin(*keep));
                self.recover_as_it_was();
            }
            Step::Dies { within, release, group, keep } => self.die(*within, *release, group, *keep),
        }
    }

    /// Either state is right: the one before, and the one with what was not acknowledged.
    fn die(&mut self, within: u8, release: bool, group: &Group, keep: Option<u64>) {
        let mut after = self.model.clone();
        self.disk.fail_after(within.into(), Fault::Crash);
        let done = if release {
            let index = self.release_index(group.commit);
            after.release(index);
            self.wal.release_before(index)
        } else {
            let batch = self.writes(std::slice::from_ref(group));
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
    fn what_is_acknowledged_is_recovered(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
        }
        world.run(&Step::Reopen);
    }
}
