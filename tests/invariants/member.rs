//! What an observer knows of one member: its log, and how much of it is on its disk.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use quorate_raft::{Configuration, Entry, HardState, Index, LogId, Payload, Term, Write, WriteId};

/// An entry: its term, and a fingerprint of what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) term: Term,
    pub(crate) fingerprint: u64,
}

impl Name {
    pub(crate) fn of(entry: &Entry) -> Self {
        let mut hasher = DefaultHasher::new();
        match &entry.payload {
            Payload::Noop => 0u8.hash(&mut hasher),
            Payload::Command(bytes) => bytes.hash(&mut hasher),
            Payload::Configuration(c) => {
                (&c.voters, &c.outgoing, &c.learners, &c.addresses).hash(&mut hasher);
            }
        }
        Self { term: entry.term, fingerprint: hasher.finish() }
    }
}

/// A write that was handed to the disk, and has not come back.
#[derive(Debug)]
pub(crate) struct UnderWay {
    pub(crate) id: WriteId,
    /// The log begins anew, with this in the place of what it held: the part of the log that a snapshot covers.
    pub(crate) anew: Option<Vec<Name>>,
    pub(crate) first: Index,
    pub(crate) entries: Vec<Name>,
    pub(crate) hard_state: Option<HardState>,
}

impl UnderWay {
    /// The steps in which it may have reached the disk: up to its first entry as one, and then entry by entry.
    pub(crate) fn steps(mut self) -> Vec<Self> {
        let (id, next, rest) = (self.id, self.first + 1, self.entries.split_off(self.entries.len().min(1)));
        let step = |(first, name)| Self { id, anew: None, first, entries: vec![name], hard_state: None };
        std::iter::once(self).chain((next..).zip(rest).map(step)).collect()
    }
}

/// What a snapshot stands for: the log up to its last entry, and the configurations in that.
pub(crate) type Covered = (Vec<Name>, Vec<(LogId, Configuration)>);

/// One member.
#[derive(Debug, Default)]
pub(crate) struct Member {
    /// The log as the member has it in memory, what it has given up behind a snapshot included; entry 1 first.
    pub(crate) log: Vec<Name>,
    /// The configurations in it.
    pub(crate) configurations: Vec<(LogId, Configuration)>,
    /// What its disk is known to hold.
    pub(crate) durable: Vec<Name>,
    pub(crate) durable_state: HardState,
    /// What it held before damage took some of that, and the newest entry that it lost.
    before_damage: Option<(Vec<Name>, LogId)>,
    pub(crate) under_way: VecDeque<UnderWay>,
    /// What a durable snapshot of its own covers.
    pub(crate) covered: Index,
    pub(crate) applied: Index,
    pub(crate) term: Term,
    pub(crate) commit: Index,
}

impl Member {
    /// The term of the entry at `index`, in memory.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        self.log.get(usize::try_from(index.checked_sub(1)?).ok()?).map(|name| name.term)
    }

    /// A write was handed out: its entries follow by [`Self::push`].
    ///
    /// If the log begins anew, `covered` is what the snapshot stands for, with the configurations in it.
    pub(crate) fn begin(&mut self, write: &Write, covered: Option<Covered>) {
        let anew = covered.map(|(log, configurations)| {
            self.log.clone_from(&log);
            self.configurations = configurations;
            log
        });
        let first = write.entries.first().map_or(self.log.len() as Index + 1, |entry| entry.index);
        assert!(
            first <= self.log.len() as Index + 1,
            "a write leaves a gap before entry {first}: the log ends at {}",
            self.log.len()
        );
        self.log.truncate(first as usize - 1);
        while self.configurations.pop_if(|(id, _)| id.index >= first).is_some() {}
        let hard_state = write.hard_state;
        self.under_way.push_back(UnderWay { id: write.id, anew, first, entries: Vec::new(), hard_state });
    }

    /// An entry goes to the end of the log.
    pub(crate) fn push(&mut self, entry: &Entry) -> Name {
        assert_eq!(entry.index, self.log.len() as Index + 1, "the log has no gaps");
        let name = Name::of(entry);
        self.log.push(name);
        if let Payload::Configuration(configuration) = &entry.payload {
            self.configurations.push((entry.id(), (**configuration).clone()));
        }
        name
    }

    /// The write that was begun is whole.
    pub(crate) fn end(&mut self) {
        let write = self.under_way.back_mut().expect("a write was begun");
        write.entries = self.log[write.first as usize - 1..].to_vec();
    }

    /// All up to this write is durable.
    pub(crate) fn persisted(&mut self, id: WriteId) {
        while let Some(write) = self.under_way.pop_front_if(|write| write.id <= id) {
            take(&mut self.durable, &mut self.durable_state, &write);
        }
        let last = last(&self.durable);
        self.before_damage.take_if(|(_, lost)| *lost <= last);
    }

    /// All before this write is durable, and its beginning up to this entry.
    pub(crate) fn persisted_part(&mut self, id: WriteId, index: Index) {
        self.persisted(WriteId(id.0 - 1));
        let write = self.under_way.front_mut().filter(|write| write.id == id).expect("it is under way");
        let rest = write.entries.split_off((index + 1 - write.first) as usize);
        take(&mut self.durable, &mut self.durable_state, write);
        (write.anew, write.hard_state) = (None, None);
        (write.first, write.entries) = (index + 1, rest);
        let last = last(&self.durable);
        self.before_damage.take_if(|(_, lost)| *lost <= last);
    }

    /// Damage has taken some of what its disk held, `lost` being the newest. It knows that, and elects nobody before it has again what it
    /// may have acknowledged.
    pub(crate) fn damaged(&mut self, held: &[Name], lost: LogId) {
        assert!(
            last(held) <= lost,
            "RECOVERY: what was lost is taken to end with {lost:?}, and {:?} was durable",
            last(held)
        );
        let before = self.before_damage.take().map_or_else(Vec::new, |(before, _)| before);
        let more = before.into_iter().skip(held.len());
        self.before_damage = Some((held.iter().copied().chain(more).collect(), lost));
    }

    /// Nothing of what its disk held is missed any more.
    pub(crate) fn whole(&mut self) {
        self.before_damage = None;
    }

    /// Whether it misses nothing that its disk held.
    pub(crate) fn is_whole(&self) -> bool {
        self.before_damage.is_none()
    }

    /// Whether its acknowledgement of the entry at `index` holds: its disk has it, or had it, and those whom it elects will.
    pub(crate) fn acknowledges(&self, index: Index, entry: Name) -> bool {
        let at = |log: &[Name]| log.get(index as usize - 1) == Some(&entry);
        index <= self.covered
            || at(&self.durable)
            || self.before_damage.as_ref().is_some_and(|(before, _)| at(before))
    }

    /// Whether its disk has the entries up to `index` as its memory has them: in the log, or in what a snapshot covers.
    pub(crate) fn has_durably(&self, index: Index) -> bool {
        let name = |log: &[Name]| log.get(index as usize - 1).copied();
        index <= self.covered || (name(&self.durable).is_some() && name(&self.durable) == name(&self.log))
    }

    /// Everything that it has is durable, with this hard state.
    pub(crate) fn settle(&mut self, hard_state: HardState) {
        self.under_way.clear();
        self.durable.clone_from(&self.log);
        self.durable_state = hard_state;
    }

    /// The newest configuration at or before `index`, and the newest of all.
    pub(crate) fn configurations_around(&self, index: Index) -> [Option<&Configuration>; 2] {
        let at = self.configurations.iter().rfind(|(id, _)| id.index <= index);
        [at, self.configurations.last()].map(|found| found.map(|(_, configuration)| configuration))
    }
}

/// The newest entry of a log.
fn last(log: &[Name]) -> LogId {
    log.last().map_or_else(LogId::default, |name| LogId { term: name.term, index: log.len() as Index })
}

/// What a write makes of a disk.
pub(crate) fn take(log: &mut Vec<Name>, state: &mut HardState, write: &UnderWay) {
    if let Some(anew) = &write.anew {
        log.clone_from(anew);
    }
    log.truncate(write.first as usize - 1);
    log.extend_from_slice(&write.entries);
    *state = write.hard_state.unwrap_or(*state);
}
