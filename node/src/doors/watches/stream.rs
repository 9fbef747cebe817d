//! The watches of one stream: where each of them is, and what is to be told next.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::task::Waker;

use parking_lot::RwLock;

use super::filter::Filter;
use super::group::{Draft, Events, Group};
use super::ranges::GroupId;
use crate::doors::gateway::RequestError;
use crate::kv::{Changes, Interrupted, Store};

/// Steps under one hold of the state's lock, for a watch that is behind.
const STEPS: usize = 2048;

/// As many bytes are enough for one answer, in whole revisions.
const ENOUGH: usize = 64 << 10;

/// What a client asks a watch for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Which changes.
    pub filter: Filter,
    /// From which revision on; 0 for the next.
    pub start: i64,
    /// The ID that it is to have; 0 for any.
    pub id: i64,
    /// Now and then it is told how far it is.
    pub progress: bool,
    /// Large answers may be divided.
    pub fragment: bool,
}

/// Why there is no such watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotCreated {
    /// It begins before any revision.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// No key can be meant.
    #[error("mvcc: watcher range is empty")]
    EmptyRange,
    /// The stream has another of this ID.
    #[error("mvcc: duplicate watch ID provided on the WatchStream")]
    Duplicate,
    /// There are too many.
    #[error("etcdserver: too many requests")]
    TooMany,
}

/// What a stream has to tell.
#[derive(Debug, Clone)]
pub enum Told {
    /// A watch begins, or does not; the revision of the state.
    Created(Result<i64, NotCreated>, i64),
    /// A watch was ended by its client; the revision of the state.
    Cancelled(i64, i64),
    /// A watch wants what has been compacted, up to this revision, and has ended.
    Compacted(i64, i64),
    /// A watch wants changes of one revision that take more memory than there is, and has ended.
    TooLarge(i64, i64),
    /// All up to this revision has been told: to this watch, or to all of the stream.
    Progress(Option<i64>, i64),
    /// Changes.
    Events {
        /// Of which watch.
        id: i64,
        /// All up to this revision has been told to it then.
        revision: i64,
        /// In order, each whole revisions.
        events: Vec<Events>,
        /// They may be divided.
        fragment: bool,
    },
    /// The end.
    End(RequestError),
}

/// A stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) watches: BTreeMap<i64, Watch>,
    /// The IDs of those that could not go on: as in etcd they are in use until the client ends them.
    pub(super) stopped: BTreeSet<i64>,
    /// Those that may have something to tell.
    queue: VecDeque<i64>,
    /// What goes before that.
    pub(super) control: VecDeque<Told>,
    waker: Option<Waker>,
    pub(super) next_id: i64,
    /// It ends when no leader is known.
    pub(super) requires_leader: bool,
    /// Its client has asked how far it has been told.
    pub(super) asks: bool,
    /// It is to know when all up to this revision has been told.
    progress: Option<i64>,
    /// The watches before this one have been told all that.
    checked: i64,
    /// The newest revision that was told: progress does not go back behind it.
    pub(super) told: i64,
    /// It is to end.
    pub(super) has_ended: bool,
}

/// A watch: a place in the history.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) group: GroupId,
    /// The revision that it was to begin with; 0 for the next.
    start: i64,
    /// The first revision that it has not been told of.
    pub(super) next: i64,
    pub(super) place: Place,
    /// It stands in the queue.
    is_queued: bool,
    pub(super) progress: Pace,
    pub(super) fragment: bool,
}

/// Whether a watch is told next time how far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// Its client does not want it.
    Never,
    Due,
    /// Something else was told since.
    Told,
}

/// Where a watch reads.
#[derive(Debug)]
pub(super) enum Place {
    /// At the batches of its group: the number of the next one.
    Group(u64),
    /// In the history.
    History(Box<Behind>),
}

/// A watch that reads the history.
#[derive(Debug)]
pub(super) struct Behind {
    changes: Changes,
    draft: Draft,
}

/// What reading has brought.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// What is to be told.
    pub(super) events: Vec<Events>,
    /// There may be more.
    pub(super) more: bool,
    /// It holds what is not enough for an answer yet.
    pub(super) holds: bool,
}

/// Why a watch cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// What it is to read has been compacted, up to this revision.
    Compacted(i64),
    /// One revision changes more than there is memory for.
    TooLarge,
}

impl Stream {
    /// Adds a watch, whose ID is free. It begins at revision `next`: in its group's batches from number `place` on, or in the history.
    pub(super) fn add(&mut self, id: i64, group: GroupId, wanted: &Wanted, next: i64, place: Option<u64>) {
        let watch = Watch {
            group,
            start: wanted.start,
            next,
            place: place.map_or_else(|| Place::history(next), Place::Group),
            is_queued: false,
            progress: if wanted.progress { Pace::Due } else { Pace::Never },
            fragment: wanted.fragment,
        };
        self.watches.insert(id, watch);
        self.has_news(id);
    }

    /// Watch `id` may have something to tell.
    pub(super) fn has_news(&mut self, id: i64) {
        let Some(watch) = self.watches.get_mut(&id) else { return };
        if !std::mem::replace(&mut watch.is_queued, true) {
            self.queue.push_back(id);
        }
        self.wake();
    }

    /// Watch `id` comes next: it holds something.
    pub(super) fn goes_on_with(&mut self, id: i64) {
        if let Some(watch) = self.watches.get_mut(&id)
            && !std::mem::replace(&mut watch.is_queued, true)
        {
            self.queue.push_front(id);
        }
    }

    /// Says `told` before any change.
    pub(super) fn say(&mut self, told: Told) {
        self.control.push_back(told);
        self.wake();
    }

    /// Something may have changed for watch `id` from revision `first` on: it is batch `number` of its group, or was not laid down.
    pub(super) fn follows_from(&mut self, id: i64, number: u64, first: i64) {
        if let Some(watch) = self.watches.get_mut(&id)
            && matches!(watch.place, Place::Group(at) if at == number)
        {
            // It has been told of all before. Should it have to read that from the history, it begins here.
            watch.next = watch.next.max(first);
        }
        self.has_news(id);
    }

    /// To be woken when there is something to tell.
    pub(super) fn waits(&mut self, waker: &Waker) {
        if self.waker.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }

    /// It is to be asked what it has to tell.
    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The watch that may have something to tell, next in turn.
    pub(super) fn next_in_turn(&mut self) -> Option<i64> {
        while let Some(id) = self.queue.pop_front() {
            if let Some(watch) = self.watches.get_mut(&id)
                && std::mem::take(&mut watch.is_queued)
            {
                return Some(id);
            }
        }
        None
    }

    /// The revision up to which its client wants to know that all has been told, if it has been. All up to `handed` is with the groups.
    pub(super) fn told_progress(&mut self, groups: &HashMap<GroupId, Group>, handed: i64) -> Option<i64> {
        if std::mem::take(&mut self.asks)
            && self.progress.is_none()
            && !self.watches.is_empty()
            && self.watches.values().all(|watch| watch.follows(handed))
        {
            (self.progress, self.checked) = (Some(handed), i64::MIN);
        }
        let mut revision = self.progress?;
        if revision < self.told {
            // It would go back behind what was told meanwhile.
            if handed < self.told {
                self.asks = true;
                return None;
            }
            revision = handed;
            (self.progress, self.checked) = (Some(revision), i64::MIN);
        }
        let has_told = |watch: &Watch| watch.has_told(revision, &groups[&watch.group]);
        match self.watches.range(self.checked..).find(|(_, watch)| !has_told(watch)) {
            Some((id, _)) => {
                self.checked = *id;
                None
            }
            None => self.progress.take(),
        }
    }
}

impl Place {
    fn history(next: i64) -> Self {
        Self::History(Box::new(Behind { changes: Changes::since(next), draft: Draft::default() }))
    }
}

impl Watch {
    /// Whether it has begun by revision `seen`, and follows its group.
    pub(super) fn follows(&self, seen: i64) -> bool {
        matches!(self.place, Place::Group(_)) && self.start <= seen
    }

    /// Whether all changes up to `revision`, which its group has seen, have been told.
    pub(super) fn has_told(&self, revision: i64, group: &Group) -> bool {
        match &self.place {
            Place::Group(number) if *number == group.next() => true,
            Place::Group(number) => group.batch(*number).is_some_and(|batch| batch.first() > revision),
            Place::History(_) => self.next > revision,
        }
    }

    /// Reads what there is to tell: some of it. The groups have read nothing of revision `unread`, nor behind it; no answer takes more than `most` bytes.
    pub(super) fn read(
        &mut self,
        group: &Group,
        store: &RwLock<Store>,
        unread: i64,
        most: usize,
    ) -> Result<Read, Ended> {
        match &mut self.place {
            Place::Group(number) => {
                let mut read = Read::default();
                let mut bytes = 0;
                while *number < group.next() && bytes < ENOUGH {
                    let Some(batch) = group.batch(*number) else {
                        self.place = Place::history(self.next);
                        return Ok(Read { more: true, ..read });
                    };
                    *number += 1;
                    if batch.last() >= self.next {
                        let some = batch.since(self.next);
                        bytes += some.fields.len();
                        read.events.push(some);
                        self.next = batch.last() + 1;
                    }
                }
                read.more = *number < group.next();
                Ok(read)
            }
            Place::History(behind) => {
                let read = behind.read(&store.read(), &group.filter, most)?;
                if !behind.changes.is_within() && (behind.draft.bytes() == 0 || !read.events.is_empty()) {
                    self.next = behind.changes.next();
                }
                // What the groups have not begun to read comes as a batch. What they have read before may be in none that this one gets.
                let is_there = self.next >= unread;
                if is_there {
                    self.place = Place::Group(group.next());
                }
                Ok(Read { more: !is_there, holds: read.holds && !is_there, ..read })
            }
        }
    }
}

impl Behind {
    /// Reads some of the history. What it finds is told when it is enough, or all that there is.
    fn read(&mut self, store: &Store, filter: &Filter, most: usize) -> Result<Read, Ended> {
        let Self { changes, draft } = self;
        let at_end = changes.advance(store, STEPS, |change| {
            let revision = change.revision();
            if draft.bytes() >= ENOUGH && draft.last() != Some(revision) {
                return false;
            }
            if filter.covers(change.key()) && filter.wants(change.is_deletion()) {
                draft.add(revision, &change.event(filter.previous));
            }
            draft.bytes() <= most
        });
        let at_end = match at_end {
            Ok(at_end) => at_end,
            Err(Interrupted::Compacted(revision)) => return Err(Ended::Compacted(revision)),
            Err(Interrupted::Replaced) => {
                draft.forget(changes.next());
                false
            }
        };
        if draft.bytes() > most {
            return Err(Ended::TooLarge);
        }
        let is_enough = at_end || (draft.bytes() >= ENOUGH && !changes.is_within());
        let events = (is_enough && draft.bytes() > 0).then(|| draft.finish().since(0));
        Ok(Read { events: events.into_iter().collect(), more: true, holds: draft.bytes() > 0 })
    }
}
