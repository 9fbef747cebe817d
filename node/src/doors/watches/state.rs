//! All watches of one client runtime, and how far they have been told of what changes.

use std::collections::{BTreeMap, HashMap, VecDeque};

use parking_lot::RwLock;

use super::filter::Filter;
use super::group::{Draft, Group, StreamId};
use super::ranges::{GroupId, Ranges};
use super::stream::{Ended, NotCreated, Pace, Read, Stream, Told, Wanted};
use crate::doors::gateway::RequestError;
use crate::kv::{BYTES_OF_A_STEP, Changes, Interrupted, Store};

/// Steps under one hold of the state's lock.
const STEPS: usize = 4096;

/// What batches may take, in bytes. Whoever is behind them reads the history.
const MOST_HELD: usize = 8 << 20;

/// A batch that is larger is not laid down: each watch reads it from the history.
const LARGEST: usize = 1 << 20;

/// Changes that are laid down under one hold of the state's lock, each counted for every group that wants it. One version goes beyond it by as many as there
/// are groups.
const LAID_AT_ONCE: usize = 4096;

/// From how many batches on it is looked which of them have gone with their groups.
const RECENT: usize = 4096;

/// What there is to tell at a time: changes, while others of the thread have their turn.
pub(super) enum Turn {
    /// This.
    Told(Told),
    /// Nothing, until there is news.
    Nothing,
    /// It goes on after others.
    Later,
}

/// The watches.
#[derive(Debug)]
pub(super) struct State {
    pub(super) streams: HashMap<StreamId, Stream>,
    groups: HashMap<GroupId, Group>,
    by_filter: HashMap<Filter, GroupId>,
    ranges: Ranges,
    /// Where the groups are.
    changes: Changes,
    /// What groups are to be told when a revision has been read to its end.
    drafts: BTreeMap<GroupId, Laid>,
    /// What those take, in bytes.
    drafted: usize,
    /// All up to this revision has been handed to the groups.
    handed: i64,
    /// All batches, oldest first: some have gone with their groups.
    recent: VecDeque<(GroupId, u64)>,
    /// How many there may be until it is looked which have gone.
    most_recent: usize,
    /// What they take, in bytes.
    held: usize,
    next_stream: StreamId,
    next_group: GroupId,
    /// What one answer may take at most, in bytes.
    most: usize,
    /// Under one hold of the state's lock.
    steps: usize,
}

/// What is laid down for a group, since which revision; none if it is too large.
#[derive(Debug)]
struct Laid {
    first: i64,
    draft: Option<Draft>,
}

impl State {
    pub(super) fn new(most: usize) -> Self {
        Self {
            streams: HashMap::new(),
            groups: HashMap::new(),
            by_filter: HashMap::new(),
            ranges: Ranges::default(),
            changes: Changes::since(0),
            drafts: BTreeMap::new(),
            drafted: 0,
            handed: 0,
            recent: VecDeque::new(),
            most_recent: RECENT,
            held: 0,
            next_stream: 0,
            next_group: 0,
            most,
            steps: STEPS,
        }
    }

    /// The groups go on behind `revision`: nobody has wanted to know what lies before.
    fn begin_behind(&mut self, revision: i64) {
        self.changes = Changes::kept_since(revision + 1);
        self.handed = revision;
    }

    /// The first revision of which the groups have read nothing.
    fn unread(&self) -> i64 {
        self.changes.next() + i64::from(self.changes.is_within())
    }

    /// The same, with less under one hold of the state's lock.
    #[cfg(test)]
    pub(super) fn in_steps(self, steps: usize) -> Self {
        Self { steps, ..self }
    }

    /// What is laid down takes so many bytes.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// A stream more.
    pub(super) fn open(&mut self, requires_leader: bool) -> StreamId {
        self.next_stream += 1;
        let stream = self.streams.entry(self.next_stream).or_default();
        stream.requires_leader = requires_leader;
        self.next_stream
    }

    /// The stream has gone.
    pub(super) fn close(&mut self, id: StreamId) {
        let Some(stream) = self.streams.remove(&id) else { return };
        for (watch, of) in stream.watches {
            self.leave(of.group, id, watch);
        }
    }

    /// Adds a watch to a stream, or says there why not. Its ID. The state is at `revision`.
    pub(super) fn create(&mut self, id: StreamId, wanted: &Wanted, revision: i64) -> Option<i64> {
        if self.groups.is_empty() {
            self.begin_behind(revision);
        }
        let stream = self.streams.get_mut(&id)?;
        let watch = match stream.id_for(wanted) {
            Ok(watch) => watch,
            Err(refused) => {
                stream.say(Told::Created(Err(refused), revision));
                return None;
            }
        };
        stream.say(Told::Created(Ok(watch), revision));
        stream.told = stream.told.max(revision);
        let next = if wanted.start == 0 { revision + 1 } else { wanted.start };
        let group = self.by_filter.get(&wanted.filter).copied().unwrap_or_else(|| {
            self.next_group += 1;
            self.ranges.insert(&wanted.filter, self.next_group);
            self.by_filter.insert(wanted.filter.clone(), self.next_group);
            self.groups.insert(self.next_group, Group::new(wanted.filter.clone()));
            self.next_group
        });
        // What the groups have begun to read may lie behind it: whoever is new reads that by itself.
        let is_there = next >= self.unread();
        let of = self.groups.get_mut(&group)?;
        of.members.insert((id, watch));
        let place = is_there.then(|| of.next());
        self.streams.get_mut(&id)?.add(watch, group, wanted, next, place);
        Some(watch)
    }

    /// Ends a watch at the wish of its client. There may be none. The state is at `revision`.
    pub(super) fn cancel(&mut self, id: StreamId, watch: i64, revision: i64) {
        let is_there = self.remove(id, watch);
        if let Some(stream) = self.streams.get_mut(&id)
            && (is_there || stream.stopped.remove(&watch))
        {
            stream.say(Told::Cancelled(watch, revision));
        }
    }

    /// The client of a stream wants to know how far it has been told. Where a watch is behind, or begins later, it is told nothing.
    pub(super) fn ask_progress(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.asks = true;
            stream.wake();
        }
    }

    /// Tells those watches how far they are that want it and were told nothing since this was done last.
    pub(super) fn tell_progress(&mut self) {
        let seen = self.handed;
        // Who has not taken what was told before is told no more.
        for stream in self.streams.values_mut().filter(|stream| stream.control.is_empty()) {
            let mut told = Vec::new();
            for (id, watch) in stream.watches.iter_mut().filter(|(_, watch)| watch.progress != Pace::Never) {
                let is_due = std::mem::replace(&mut watch.progress, Pace::Due) == Pace::Due;
                if is_due && watch.follows(seen) && watch.has_told(seen, &self.groups[&watch.group]) {
                    told.push(Told::Progress(Some(*id), seen));
                }
            }
            for told in told {
                stream.say(told);
            }
        }
    }

    /// Ends all streams that `refused` says something of.
    pub(super) fn end(&mut self, refused: impl Fn(&Stream) -> Option<RequestError>) {
        for stream in self.streams.values_mut() {
            if let Some(error) = refused(stream)
                && !std::mem::replace(&mut stream.has_ended, true)
            {
                stream.say(Told::End(error));
            }
        }
    }

    /// Lays down some of what has changed, for all groups. Whether there is more.
    pub(super) fn advance(&mut self, store: &Store) -> bool {
        if self.groups.is_empty() {
            self.begin_behind(store.revision());
            return false;
        }
        match self.lay_down(store) {
            Ok(at_end) => {
                if !self.changes.is_within() {
                    self.hand_out();
                }
                !at_end
            }
            Err(Interrupted::Replaced) => {
                let next = self.changes.next();
                for draft in self.drafts.values_mut().filter_map(|laid| laid.draft.as_mut()) {
                    self.drafted -= draft.bytes();
                    draft.forget(next);
                    self.drafted += draft.bytes();
                }
                true
            }
            Err(Interrupted::Compacted(_)) => {
                // Memory was short. Each watch finds out by itself whether that concerns it.
                let first = self.changes.next();
                self.drafts = self.groups.keys().map(|id| (*id, Laid { first, draft: None })).collect();
                self.begin_behind(store.revision());
                self.hand_out();
                false
            }
        }
    }

    fn lay_down(&mut self, store: &Store) -> Result<bool, Interrupted> {
        let Self { changes, ranges, groups, drafts, drafted, steps, .. } = self;
        let (mut found, mut laid_down) = (Vec::new(), 0);
        changes.advance(store, *steps, |change| {
            if laid_down > LAID_AT_ONCE {
                return false;
            }
            ranges.of(change.key(), &mut found);
            laid_down += found.len();
            let (revision, is_deletion) = (change.revision(), change.is_deletion());
            for id in &found {
                let filter = &groups[id].filter;
                if !filter.wants(is_deletion) {
                    continue;
                }
                let new = || Laid { first: revision, draft: Some(Draft::default()) };
                let laid = drafts.entry(*id).or_insert_with(new);
                let Some(draft) = &mut laid.draft else { continue };
                let before = draft.bytes();
                if before > LARGEST || *drafted > MOST_HELD {
                    *drafted -= before;
                    laid.draft = None;
                    continue;
                }
                draft.add(revision, &change.event(filter.previous));
                let added = draft.bytes() - before;
                *drafted += added;
                laid_down += added / BYTES_OF_A_STEP;
            }
            true
        })
    }

    /// Gives what was laid down to the groups: each is whole revisions.
    fn hand_out(&mut self) {
        self.handed = self.changes.next() - 1;
        self.drafted = 0;
        for (id, Laid { first, draft }) in std::mem::take(&mut self.drafts) {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let number = group.next();
            match draft {
                Some(mut draft) if draft.bytes() > 0 => {
                    let batch = draft.finish();
                    self.held += batch.bytes();
                    group.push(batch);
                    self.recent.push_back((id, number));
                }
                Some(_) => continue,
                None => self.held -= group.skip(),
            }
            for (stream, watch) in &group.members {
                if let Some(stream) = self.streams.get_mut(stream) {
                    stream.follows_from(*watch, number, first);
                }
            }
        }
        while self.held > MOST_HELD
            && let Some((group, number)) = self.recent.pop_front()
        {
            self.held -= self.groups.get_mut(&group).map_or(0, |group| group.drop_batch(number));
        }
        if self.recent.len() > self.most_recent {
            let Self { recent, groups, .. } = self;
            recent.retain(|(id, number)| groups.get(id).is_some_and(|group| group.batch(*number).is_some()));
            self.most_recent = RECENT.max(2 * recent.len());
        }
    }

    /// What the stream `id` has to tell next.
    pub(super) fn turn(&mut self, id: StreamId, store: &RwLock<Store>) -> Turn {
        let (unread, handed) = (self.unread(), self.handed);
        let Self { streams, groups, most, .. } = self;
        let Some(stream) = streams.get_mut(&id) else {
            return Turn::Told(Told::End(RequestError::Stopping));
        };
        if let Some(told) = stream.control.pop_front() {
            return Turn::Told(told);
        }
        if let Some(revision) = stream.told_progress(groups, handed) {
            return Turn::Told(Told::Progress(None, revision));
        }
        let Some(number) = stream.next_in_turn() else {
            return if stream.asks { Turn::Later } else { Turn::Nothing };
        };
        let Some(watch) = stream.watches.get_mut(&number) else { return Turn::Later };
        let Read { events, more, holds } = match watch.read(&groups[&watch.group], store, unread, *most) {
            Ok(read) => read,
            Err(ended) => {
                stream.stopped.insert(number);
                self.remove(id, number);
                return Turn::Told(match ended {
                    Ended::Compacted(revision) => Told::Compacted(number, revision),
                    Ended::TooLarge => Told::TooLarge(number, handed),
                });
            }
        };
        let fragment = watch.fragment;
        let revision = if more { watch.next - 1 } else { handed.max(watch.next - 1) };
        if !events.is_empty() {
            stream.told = stream.told.max(watch.next - 1);
            if watch.progress == Pace::Due {
                watch.progress = Pace::Told;
            }
        }
        if holds {
            stream.goes_on_with(number);
        } else if more {
            stream.has_news(number);
        }
        if events.is_empty() {
            return Turn::Later;
        }
        Turn::Told(Told::Events { id: number, revision, events, fragment })
    }

    /// Removes a watch. False if there is none.
    fn remove(&mut self, id: StreamId, watch: i64) -> bool {
        let removed = self.streams.get_mut(&id).and_then(|stream| stream.watches.remove(&watch));
        let group = removed.map(|watch| watch.group);
        group.inspect(|group| self.leave(*group, id, watch)).is_some()
    }

    /// A watch of a group has gone.
    fn leave(&mut self, id: GroupId, stream: StreamId, watch: i64) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.members.remove(&(stream, watch));
        if group.members.is_empty()
            && let Some(group) = self.groups.remove(&id)
        {
            self.ranges.remove(&group.filter, id);
            self.by_filter.remove(&group.filter);
            let draft = self.drafts.remove(&id).and_then(|laid| laid.draft);
            self.drafted -= draft.map_or(0, |draft| draft.bytes());
            self.held -= group.bytes();
        }
        if self.groups.is_empty() {
            // Nothing is kept for nobody.
            self.changes = Changes::since(0);
        }
    }
}

impl Stream {
    /// The ID that a watch gets.
    fn id_for(&mut self, wanted: &Wanted) -> Result<i64, NotCreated> {
        if wanted.start < 0 {
            return Err(NotCreated::Compacted);
        }
        if wanted.filter.is_empty() {
            return Err(NotCreated::EmptyRange);
        }
        if wanted.id != 0 {
            return if self.has(wanted.id) { Err(NotCreated::Duplicate) } else { Ok(wanted.id) };
        }
        while self.has(self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        Ok(self.next_id - 1)
    }

    /// Whether an ID is in use.
    fn has(&self, id: i64) -> bool {
        self.watches.contains_key(&id) || self.stopped.contains(&id)
    }
}
