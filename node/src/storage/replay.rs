//! What the frames say together: the log, with holes where damage has taken something.
//!
//! Every frame says which entry its own ones follow, so they find their place also behind a hole. A header that is intact over a
//! damaged payload leaves a hole of known extent. Where a whole frame is gone, so is what it said: it may have replaced the
//! tail. What is certain then is what was committed, and what the next frame's entries have before them: logs that have an entry
//! in common have the same before it, and the entries of one term stand in one leader's log, which never changes.
//!
//! What is lost is said by the newest entry that a header at or behind the first damage speaks of, and by the newest header itself, which
//! repeats what earlier processes have found to be lost and was not made good when it was written. It is made good as soon as
//! the log that is left ends with one at least as new, by term and index. Then it has everything that this member ever
//! acknowledged and that is committed: of the same term, because one leader's log has both; of an earlier one, because the leader
//! of the log's last term has all that was committed before (Leader Completeness, to which a member that lacks something adds no
//! vote).

use quorate_raft::{Entry, HardState, Index, LogId};

use super::record::{Defect, Frame, Header};

/// What the frames say, up to one of them.
#[derive(Debug)]
pub(super) struct Replay {
    /// Of the newest frame; 0 before the first.
    sequence: u64,
    checksum: u32,
    hard_state: HardState,
    base: LogId,
    /// In order, with a hole before each but the first. The last one ends where the log ends. None as long as nothing is known.
    runs: Vec<Run>,
    damaged: bool,
    /// The newest entry that a frame at or behind the first damage speaks of.
    lost: LogId,
    /// What the newest frame says to be lost: by damage that was found before, or because the member went back in time.
    told: LogId,
    /// The newest one that any does.
    newest: LogId,
}

/// The log of a member, as far as it is intact.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Of the newest frame; 0 before the first.
    pub(super) sequence: u64,
    pub(super) checksum: u32,
    pub(super) hard_state: HardState,
    pub(super) base: LogId,
    /// From behind `base` on.
    pub(super) entries: Vec<Entry>,
    pub(super) lost: Option<LogId>,
}

/// What turns out to be damaged when a frame is taken in.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Frames before it are gone.
    pub(super) gap: Option<String>,
    /// Its entries are.
    pub(super) hole: Option<String>,
}

/// Consecutive entries.
#[derive(Debug)]
struct Run {
    after: LogId,
    entries: Vec<Entry>,
}

impl Replay {
    /// Of a log whose oldest segments were released: what stood before its first frame is not known.
    pub(super) fn headless() -> Self {
        let hard_state = HardState::default();
        let (base, lost, told, newest) = Default::default();
        Self { sequence: 0, checksum: 0, hard_state, base, runs: vec![], damaged: false, lost, told, newest }
    }

    /// Of a log from its beginning.
    pub(super) fn from_the_beginning() -> Self {
        Self { runs: vec![Run::after(LogId::default())], ..Self::headless() }
    }

    /// Takes in a frame that stands behind all others so far. Returns what turns out to be damaged; an error when it cannot
    /// belong to this log.
    pub(super) fn take(&mut self, frame: Frame) -> Result<Taken, &'static str> {
        let Frame { header, entries, checksum, .. } = frame;
        let mut taken = Taken::default();
        let begun = !self.runs.is_empty();
        if begun && !self.precedes(&header)? {
            taken.gap = Some(format!("frames {} to {} are gone", self.sequence + 1, header.sequence - 1));
            self.doubt(header.before);
        }
        if header.reset {
            self.runs = vec![Run::after(header.base)];
        }
        self.cut_behind(header.before);
        if self.contradicts(header.base) {
            return Err("a frame begins the log after an entry that is another one in it");
        }
        match entries {
            Ok(entries) => self.extend(entries),
            Err(Defect::Damaged(what)) => taken.hole = Some(self.hole(&header, &what)),
            Err(Defect::Torn | Defect::Absent | Defect::Newer(..)) => {
                taken.hole = Some(self.hole(&header, "sectors of a frame are blank"));
            }
        }

        self.damaged |= taken.gap.is_some() || taken.hole.is_some();
        self.newest = self.newest.max(header.last);
        if self.damaged {
            self.lost = self.lost.max(header.last);
        }
        self.told = header.lost.unwrap_or_default();
        self.sequence = header.sequence;
        self.checksum = checksum;
        self.hard_state = header.hard_state;
        self.base = header.base;
        assert_eq!(
            self.runs.last().map(Run::last),
            Some(header.last),
            "the last run ends where the log ends"
        );
        Ok(taken)
    }

    /// Whether `next` is the frame that was written after the newest one; if not, some in between are gone.
    fn precedes(&self, next: &Header) -> Result<bool, &'static str> {
        let follows = next.sequence.checked_sub(1) == Some(self.sequence);
        if next.sequence <= self.sequence
            || next.sequence == u64::MAX
            || (follows && next.previous != self.checksum)
        {
            return Err("a frame does not follow upon the one before it");
        }
        if next.hard_state.term < self.hard_state.term || next.base.index < self.base.index {
            return Err("a frame takes back what an earlier one says");
        }
        let end = self.runs.last().map_or(0, |run| run.last().index);
        if follows && !next.reset && (next.before.index > end || self.contradicts(next.before)) {
            return Err("a frame's entries do not follow upon those before them");
        }
        Ok(follows)
    }

    /// Frames are gone, and the next one's entries follow `before`: keeps what is certain all the same.
    fn doubt(&mut self, before: LogId) {
        let of_its_term = self.runs.iter().filter_map(|run| run.newest_of(before)).max();
        let certain = self.hard_state.commit.max(of_its_term.unwrap_or(0));
        self.runs.retain(|run| run.after.index <= certain);
        self.runs.iter_mut().for_each(|run| run.cut_behind(certain));
    }

    /// Whether another entry is known to stand in the place of `id`.
    fn contradicts(&self, id: LogId) -> bool {
        let other = |run: &Run| run.id_at(id.index).is_some_and(|known| known != id);
        self.runs.iter().any(other)
    }

    /// Takes back what stands behind `id`, and goes on there.
    fn cut_behind(&mut self, id: LogId) {
        self.runs.retain(|run| run.after.index <= id.index);
        self.runs.iter_mut().for_each(|run| run.cut_behind(id.index));
        if self.runs.last().is_none_or(|run| run.last() != id) {
            self.runs.push(Run::after(id));
        }
    }

    fn extend(&mut self, entries: Vec<Entry>) {
        let end = self.runs.last_mut().expect("there is one behind which it goes on");
        end.entries.extend(entries);
    }

    /// The frame's entries are gone. The log goes on behind them. Says so.
    fn hole(&mut self, header: &Header, what: &str) -> String {
        if header.last != header.before {
            self.runs.push(Run::after(header.last));
        }
        format!("{what}; it held {}", describe(header.before.index + 1, header.last.index))
    }

    /// The log, from what it begins after or from a snapshot of the caller's that covers everything up to `covered`; up to the
    /// first entry that is missing then. Also says what else turns out to be damaged.
    pub(super) fn finish(mut self, covered: Option<LogId>) -> (Log, Option<String>) {
        let mut damage = None;
        if self.sequence > 0 && !self.runs.iter().any(|run| run.holds(self.base)) {
            let first = self.runs.first().map_or(0, |run| run.after.index);
            damage = Some(format!("{} before it are gone", describe(self.base.index + 1, first)));
            self.lost = self.lost.max(self.newest);
            self.runs.insert(0, Run::after(self.base));
        }
        let covered = covered.filter(|covered| covered.index >= self.base.index);
        let at = |id: LogId| self.runs.iter().position(|run| run.holds(id));
        let of_base = at(self.base).unwrap_or(0);
        let of_snapshot = covered.and_then(at).filter(|run| *run != of_base);
        if let (Some(_), Some(covered)) = (of_snapshot, covered) {
            self.base = covered;
        }
        let chosen = of_snapshot.unwrap_or(of_base);
        if chosen + 1 < self.runs.len() {
            self.lost = self.lost.max(self.newest);
        }
        let run = self.runs.swap_remove(chosen);
        let Self { sequence, checksum, mut hard_state, base, .. } = self;
        // It says what is known to be committed, and is written with what it may run ahead of; damage may have taken that.
        hard_state.commit = hard_state.commit.min(run.last().index);
        let has = covered.unwrap_or_default().max(run.last());
        let lost = Some(self.lost.max(self.told)).filter(|lost| *lost > has);
        let Run { mut entries, .. } = run;
        entries.drain(..entries.partition_point(|entry| entry.index <= base.index));
        (Log { sequence, checksum, hard_state, base, entries, lost }, damage)
    }
}

impl Run {
    fn after(after: LogId) -> Self {
        Self { after, entries: Vec::new() }
    }

    fn last(&self) -> LogId {
        self.entries.last().map_or(self.after, Entry::id)
    }

    /// The entry at `index`, or the one that it begins after.
    fn id_at(&self, index: Index) -> Option<LogId> {
        match index.checked_sub(self.after.index)? {
            0 => Some(self.after),
            place => self.entries.get(place as usize - 1).map(Entry::id),
        }
    }

    fn holds(&self, id: LogId) -> bool {
        self.id_at(id.index) == Some(id)
    }

    fn cut_behind(&mut self, index: Index) {
        self.entries.truncate(self.entries.partition_point(|entry| entry.index <= index));
    }

    /// The last entry up to `id` that is of its term.
    fn newest_of(&self, id: LogId) -> Option<Index> {
        let up_to = self.entries.partition_point(|entry| entry.id() <= id);
        let newest = self.entries[..up_to].last().map_or(self.after, Entry::id);
        (newest.term == id.term && newest.index <= id.index).then_some(newest.index)
    }
}

/// "entries 3 to 5", "no entries".
fn describe(first: Index, last: Index) -> String {
    match last.checked_sub(first) {
        None => "no entries".to_owned(),
        Some(0) => format!("entry {first}"),
        Some(_) => format!("entries {first} to {last}"),
    }
}
