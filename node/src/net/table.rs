//! The connections of one port: what each of them does, and which one goes when there are too many.
//!
//! A connection goes through these states, each worth more than the one before: it is *silent* until it has spoken the port's
//! protocol, *new* until its first request, and then *busy* while it has requests and *idle* between them; one whose requests are all
//! streams that go on *listens*. When the table is full, a place is made for one more by the silent one that has waited longest, or else
//! the new one, or the idle one, or the one that listens. Busy ones stay: where all are busy, it is the one more that is turned away.
//!
//! Some places may be kept for members. As long as members do not have them, others do, busy or not; but these go for a new one before it is
//! turned away, for it may be a member.
//!
//! Those that have only just come are not worth less than those that are idle: in the time of a handshake the next ones would cut them
//! off. They stay, unless there is a crowd of them.
//!
//! Deadlines are kept by [`Connections::sweep`], which looks at all places now and then: ten thousand connections need no ten thousand timers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::caller::Caller;

/// How many that have been told to go may still be there, beyond the limit. When there are more, the next one waits to be accepted.
pub(crate) const LEAVING: usize = 16;

/// How much longer than its grace one may take that began a request just before it was told to go.
const LAST_REQUEST: Duration = Duration::from_secs(5);

/// For how long one that has not asked yet is left in peace: a handshake from far away, and the first request.
const ARRIVING: Duration = Duration::from_secs(2);

/// The part of all places that may be taken by those that are left in peace: one of so many.
const CROWD: usize = 8;

/// How often deadlines are looked at.
const SWEEP: Duration = Duration::from_millis(500);

/// What a port puts up with.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Of the port, for messages.
    pub(crate) port: &'static str,
    /// The flag that sets [`Self::most`]; none where it is fixed.
    pub(crate) flag: Option<&'static str>,
    /// Connections at a time.
    pub(crate) most: usize,
    /// How many of these places are kept for members ([`Caller::is_member`]): all others together get no more than the rest.
    pub(crate) members: usize,
    /// Requests at a time, of all connections together.
    pub(crate) requests: usize,
    /// How long a connection may be silent.
    pub(crate) silence: Duration,
    /// How long an answer that is ready may wait until more of it is read.
    pub(crate) unread: Duration,
    /// The same while others are refused for what such answers hold ([`Slot::watches`]).
    pub(crate) unread_when_full: Duration,
    /// How long one that was told to go, and has nothing to finish, may take.
    pub(crate) grace: Duration,
    /// How long a connection may last. None: for ever.
    pub(crate) life: Option<Duration>,
}

/// The connections of one port. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limits: Limits,
    begun: Instant,
    places: Mutex<Places>,
    /// Requests under way.
    requests: AtomicUsize,
    /// A place has become free.
    freed: Notify,
    /// Nobody is admitted any more.
    closing: watch::Sender<bool>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Places {
    /// By the order of their arrival.
    taken: BTreeMap<u64, Arc<Place>>,
    next: u64,
    /// Of those that are taken: told to go.
    leaving: usize,
    closed: bool,
}

/// What has become of connections since the start.
#[derive(Debug, Default)]
struct Counts {
    evicted: AtomicU64,
    refused: AtomicU64,
    cut: AtomicU64,
}

/// [`Connections::counts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Count {
    /// Open now.
    pub(crate) open: usize,
    /// Idle ones that were told to go for others, since the start.
    pub(crate) evicted: u64,
    /// Turned away because all others were busy.
    pub(crate) refused: u64,
    /// Cut off by a deadline.
    pub(crate) cut: u64,
}

/// What a connection is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// Go on.
    Stay,
    /// Finish what is under way, begin nothing more, and go.
    Leave,
    /// Go at once.
    Cut,
}

/// One connection's place.
#[derive(Debug)]
struct Place {
    since: u64,
    spoke: AtomicBool,
    /// Requests since its beginning, and those under way: those that end, and streams that go on.
    asked: AtomicU64,
    requests: AtomicU32,
    streams: AtomicU32,
    /// The end of the last request; before that of the first words.
    idle_since: AtomicU64,
    /// Since when each part of an answer waits to be read, by its number. The oldest is not always the first.
    unread: Mutex<Vec<(u64, u64)>>,
    parts: AtomicU64,
    /// Counts those that were refused for what answers hold, and how many there were at the last look.
    refused: OnceLock<Arc<AtomicU64>>,
    known: AtomicU64,
    /// The other side, once it has agreed on TLS.
    caller: OnceLock<Caller>,
    /// [`Word`], and the time by which it is to be gone once it was told to.
    word: AtomicU8,
    gone_by: AtomicU64,
    told: Notify,
}

/// A connection's place in its table, for as long as it lasts.
#[derive(Debug)]
pub(crate) struct Slot {
    number: u64,
    place: Arc<Place>,
    table: Arc<Shared>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// All are busy.
    Busy,
    /// The port is closed.
    Closed,
}

impl Connections {
    /// No connections yet. [`Self::sweep`] must be run beside them.
    pub(crate) fn new(limits: Limits) -> Self {
        let shared = Shared {
            limits,
            begun: Instant::now(),
            places: Mutex::default(),
            requests: AtomicUsize::new(0),
            freed: Notify::new(),
            closing: watch::Sender::new(false),
            counts: Counts::default(),
        };
        Connections { shared: Arc::new(shared) }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// Takes a place for a connection that was just accepted. When there is none free, tells another one to go. When [`LEAVING`] others are on
    /// their way out already, cuts one of them off, and waits until that has gone.
    pub(crate) async fn admit(&self) -> Result<Slot, NoPlace> {
        loop {
            let freed = self.shared.freed.notified();
            if let Some(result) = self.shared.try_admit() {
                return result;
            }
            freed.await;
        }
    }

    /// Waits until a connection has ended, or a moment: for a process that has run out of descriptors. Tells the one to go that would make
    /// place for another.
    pub(crate) async fn make_room(&self) {
        let freed = self.shared.freed.notified();
        {
            let mut places = self.shared.places.lock();
            if places.leaving < LEAVING {
                self.shared.evict(&mut places);
            }
        }
        let _ = tokio::time::timeout(SWEEP, freed).await;
    }

    /// Keeps the deadlines, for ever.
    pub(crate) async fn sweep(self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.shared.sweep();
        }
    }

    /// From now on nobody is admitted, and all are told to leave. Returns when they have, or are cut off after `patience`. False in the
    /// latter case.
    pub(crate) async fn close(&self, patience: Duration) -> bool {
        self.shared.places.lock().closed = true;
        self.shared.closing.send_replace(true);
        self.shared.freed.notify_waiters();
        // Who has nothing under way gets no more than its grace; the patience is for requests.
        self.shared.tell_all(Word::Leave, self.shared.limits.grace);
        let in_time = tokio::time::timeout(patience, self.emptied()).await.is_ok();
        if !in_time {
            self.shared.tell_all(Word::Cut, Duration::ZERO);
        }
        in_time
    }

    /// Waits until nobody is admitted any more.
    pub(crate) async fn closed(&self) {
        let _ = self.shared.closing.subscribe().wait_for(|closing| *closing).await;
    }

    async fn emptied(&self) {
        loop {
            let freed = self.shared.freed.notified();
            if self.shared.places.lock().taken.is_empty() {
                return;
            }
            freed.await;
        }
    }

    pub(crate) fn counts(&self) -> Count {
        let Counts { evicted, refused, cut } = &self.shared.counts;
        Count {
            open: self.shared.places.lock().taken.len(),
            evicted: evicted.load(Ordering::Relaxed),
            refused: refused.load(Ordering::Relaxed),
            cut: cut.load(Ordering::Relaxed),
        }
    }
}

impl Shared {
    /// Milliseconds since the table was made.
    fn now(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    /// A place, or why there is none. None while it is to be waited for.
    fn try_admit(self: &Arc<Self>) -> Option<Result<Slot, NoPlace>> {
        let mut places = self.places.lock();
        if places.closed {
            return Some(Err(NoPlace::Closed));
        }
        if places.taken.len() - places.leaving >= self.limits.most {
            if places.leaving >= LEAVING {
                // A crowd that is told to go and does not must not hold up the queue behind it.
                self.cut_one(&places);
                return None;
            }
            if !self.evict(&mut places) {
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
                return Some(Err(NoPlace::Busy));
            }
        }
        let number = places.next;
        places.next += 1;
        let now = self.now();
        let place = Arc::new(Place {
            since: now,
            spoke: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            requests: AtomicU32::new(0),
            streams: AtomicU32::new(0),
            idle_since: AtomicU64::new(now),
            unread: Mutex::default(),
            parts: AtomicU64::new(0),
            refused: OnceLock::new(),
            known: AtomicU64::new(0),
            caller: OnceLock::new(),
            word: AtomicU8::new(Word::Stay as u8),
            gone_by: AtomicU64::new(u64::MAX),
            told: Notify::new(),
        });
        places.taken.insert(number, Arc::clone(&place));
        Some(Ok(Slot { number, place, table: Arc::clone(self) }))
    }

    /// Tells the one to go that is worth least. False when all are busy.
    fn evict(&self, places: &mut Places) -> bool {
        let staying = || places.taken.values().filter(|place| place.word() == Word::Stay);
        let arriving = staying().filter(|place| place.asked.load(Ordering::Relaxed) == 0).count();
        // In a crowd nobody is left in peace.
        let quiet = if arriving > self.limits.most / CROWD { Duration::ZERO } else { ARRIVING };
        let come_before = (self.now() + 1).checked_sub(quiet.as_millis() as u64);
        let idle = staying().filter_map(|place| Some((place.worth(come_before.unwrap_or(0))?, place)));
        let idle = idle.min_by_key(|(worth, _)| *worth).map(|(_, place)| place);
        let Some(place) = idle.or_else(|| self.on_a_members_place(places)) else { return false };
        self.counts.evicted.fetch_add(1, Ordering::Relaxed);
        // Who has not spoken yet would not understand a farewell.
        let word = if place.spoke.load(Ordering::Relaxed) { Word::Leave } else { Word::Cut };
        places.leaving += usize::from(self.tell(place, word, self.limits.grace));
        true
    }

    /// Where all are busy: the one that has been there longest of those that are no members, if they have taken places that are kept for
    /// members. Whether the new one is a member shows when it speaks.
    fn on_a_members_place<'p>(&self, places: &'p Places) -> Option<&'p Arc<Place>> {
        let staying = || places.taken.values().filter(|place| place.word() == Word::Stay);
        let others =
            || staying().filter(|place| !place.is_members() && place.asked.load(Ordering::Relaxed) > 0);
        let members = staying().filter(|place| place.is_members()).count();
        if members < self.limits.members { others().next() } else { None }
    }

    /// Cuts off the one that was told to go first and has nothing under way, or else the first one.
    fn cut_one(&self, places: &Places) {
        let leaving = || places.taken.values().filter(|place| place.word() == Word::Leave);
        let idle = leaving().find(|place| place.requests.load(Ordering::Acquire) == 0);
        if let Some(place) = idle.or_else(|| leaving().next()) {
            self.tell(place, Word::Cut, Duration::ZERO);
        }
    }

    /// Gives a connection the word, and so much time. True when it leaves because of this.
    fn tell(&self, place: &Place, word: Word, within: Duration) -> bool {
        let before = place.word.fetch_max(word as u8, Ordering::AcqRel);
        if before >= word as u8 {
            return false;
        }
        place.gone_by.store(self.now() + within.as_millis() as u64, Ordering::Release);
        place.told.notify_one();
        before == Word::Stay as u8
    }

    fn tell_all(&self, word: Word, within: Duration) {
        let mut places = self.places.lock();
        let told = places.taken.values().filter(|place| self.tell(place, word, within)).count();
        places.leaving += told;
    }

    fn sweep(&self) {
        let now = self.now();
        let mut places = self.places.lock();
        let late: Vec<_> = places.taken.values().filter(|place| self.is_late(place, now)).cloned().collect();
        for place in late {
            if place.word() != Word::Cut {
                self.counts.cut.fetch_add(1, Ordering::Relaxed);
            }
            places.leaving += usize::from(self.tell(&place, Word::Cut, Duration::ZERO));
        }
    }

    /// Whether a deadline of it has passed.
    fn is_late(&self, place: &Place, now: u64) -> bool {
        let passed = |since: u64, limit: Duration| now.saturating_sub(since) >= limit.as_millis() as u64;
        let limits = &self.limits;
        let silent = !place.spoke.load(Ordering::Relaxed) && passed(place.since, limits.silence);
        let patience = if place.is_in_the_way() { limits.unread_when_full } else { limits.unread };
        let unread = || place.unread.lock().iter().any(|(_, since)| passed(*since, patience));
        let old = limits.life.is_some_and(|life| passed(place.since, life));
        let more = if place.requests.load(Ordering::Acquire) > 0 { LAST_REQUEST } else { Duration::ZERO };
        let gone_by = place.gone_by.load(Ordering::Acquire).saturating_add(more.as_millis() as u64);
        silent || old || now >= gone_by || unread()
    }
}

impl Place {
    fn word(&self) -> Word {
        match self.word.load(Ordering::Acquire) {
            0 => Word::Stay,
            1 => Word::Leave,
            _ => Word::Cut,
        }
    }

    fn is_members(&self) -> bool {
        self.caller.get().is_some_and(Caller::is_member)
    }

    /// Whether others were refused since the last look.
    fn is_in_the_way(&self) -> bool {
        let refused = self.refused.get().map_or(0, |refused| refused.load(Ordering::Relaxed));
        self.known.swap(refused, Ordering::Relaxed) != refused
    }

    /// What it is worth to keep: less is sooner gone. None while it is busy, or has asked nothing yet and did not come before then.
    fn worth(&self, come_before: u64) -> Option<(bool, bool, bool, u64)> {
        let asked = self.asked.load(Ordering::Relaxed) > 0;
        if self.requests.load(Ordering::Acquire) > 0 || (!asked && self.since >= come_before) {
            return None;
        }
        let idle_since = self.idle_since.load(Ordering::Relaxed);
        let listens = self.streams.load(Ordering::Acquire) > 0;
        Some((self.spoke.load(Ordering::Relaxed), asked, listens, idle_since))
    }
}

impl Slot {
    /// It has spoken the port's protocol.
    pub(crate) fn speaks(&self) {
        self.place.idle_since.store(self.table.now(), Ordering::Relaxed);
        self.place.spoke.store(true, Ordering::Relaxed);
    }

    /// The other side is `caller`.
    pub(crate) fn speaks_for(&self, caller: Caller) {
        let _ = self.place.caller.set(caller);
    }

    /// From now on `refused` counts those that are refused for what the answers of this connection, among others, hold: while there are
    /// some it must read on sooner.
    pub(crate) fn watches(&self, refused: &Arc<AtomicU64>) {
        self.place.known.store(refused.load(Ordering::Relaxed), Ordering::Relaxed);
        let _ = self.place.refused.set(Arc::clone(refused));
    }

    /// A request has come: for one answer, or for a stream that goes on. It lasts as long as what is returned. None when the port has as
    /// many as it may have.
    pub(crate) fn asks(&self, is_stream: bool) -> Option<Asked> {
        if self.table.requests.fetch_add(1, Ordering::AcqRel) >= self.table.limits.requests {
            self.table.requests.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        self.place.asked.fetch_add(1, Ordering::Relaxed);
        let asked = Asked { is_stream, place: Arc::clone(&self.place), table: Arc::clone(&self.table) };
        asked.count().fetch_add(1, Ordering::AcqRel);
        Some(asked)
    }

    /// Waits for a word other than `known`.
    pub(crate) async fn told(&self, known: Word) -> Word {
        loop {
            let word = self.place.word();
            if word != known {
                return word;
            }
            self.place.told.notified().await;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut places = self.table.places.lock();
        places.taken.remove(&self.number);
        if self.place.word() != Word::Stay {
            places.leaving -= 1;
        }
        drop(places);
        self.table.freed.notify_waiters();
    }
}

/// A request under way, until the last byte of its answer has been sent.
#[derive(Debug)]
pub(crate) struct Asked {
    is_stream: bool,
    place: Arc<Place>,
    table: Arc<Shared>,
}

impl Asked {
    fn count(&self) -> &AtomicU32 {
        if self.is_stream { &self.place.streams } else { &self.place.requests }
    }

    /// A part of its answer waits to be read, for as long as what is returned lasts. A stream's reader may be as slow as it likes.
    pub(crate) fn waits(self: &Arc<Self>) -> Waiting {
        let part = self.place.parts.fetch_add(1, Ordering::Relaxed);
        if !self.is_stream {
            self.place.unread.lock().push((part, self.table.now()));
        }
        Waiting { part, asked: Arc::clone(self) }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.place.idle_since.store(self.table.now(), Ordering::Relaxed);
        self.count().fetch_sub(1, Ordering::AcqRel);
        self.table.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A part of an answer that was not read yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    part: u64,
    asked: Arc<Asked>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut unread = self.asked.place.unread.lock();
        if let Some(at) = unread.iter().position(|(part, _)| *part == self.part) {
            unread.swap_remove(at);
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
