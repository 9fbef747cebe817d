//! Whatever is written, compacted and replaced, and however slowly watches are asked: each tells each change once, in order, or that it is compacted.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::RwLock;
use proptest::prelude::*;
use prost::Message as _;
use quorate_api::etcdserverpb as pb;
use quorate_api::log::RaiseLevel;
use quorate_api::log::command::Operation;
use quorate_api::mvccpb::Event;

use super::state::{State, Turn};
use super::stream::Place;
use super::*;
use crate::kv::Store;
use crate::level::Level;

/// The most bytes of an answer in these tests.
const MOST: usize = 8 << 20;

fn filter(start: &str, end: End) -> Filter {
    Filter {
        start: Bytes::copy_from_slice(start.as_bytes()),
        end,
        puts: true,
        deletions: true,
        previous: true,
    }
}

fn wanted(filter: Filter, start: i64) -> Wanted {
    Wanted { filter, start, id: 0, progress: false, fragment: false }
}

fn store_at(level: Level) -> Store {
    let mut store = Store::new();
    store.apply(&Operation::RaiseLevel(RaiseLevel { to: level })).unwrap();
    store
}

fn put(store: &RwLock<Store>, key: &str, value: &str) {
    let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
    let put = pb::PutRequest { key, value, ..pb::PutRequest::default() };
    store.write().apply(&Operation::Put(put)).unwrap();
}

fn delete(store: &RwLock<Store>, key: &str, end: &str) {
    let (key, range_end) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(end.as_bytes()));
    let deletion = pb::DeleteRangeRequest { key, range_end, ..pb::DeleteRangeRequest::default() };
    store.write().apply(&Operation::DeleteRange(deletion)).unwrap();
}

fn compact(store: &RwLock<Store>, revision: i64) -> bool {
    let compaction = pb::CompactionRequest { revision, physical: true };
    let done = store.write().apply(&Operation::Compact(compaction)).is_ok();
    store.write().collect(usize::MAX);
    done
}

/// The events of an answer.
fn read(events: &[Events]) -> Vec<Event> {
    let fields: Vec<u8> = events.iter().flat_map(|events| events.fields.to_vec()).collect();
    pb::WatchResponse::decode(&fields[..]).unwrap().events
}

/// All that a stream tells until there is nothing.
fn drain(state: &mut State, stream: StreamId, store: &RwLock<Store>) -> Vec<Told> {
    let mut all = Vec::new();
    loop {
        match state.turn(stream, store) {
            Turn::Told(told) => all.push(told),
            Turn::Later => {}
            Turn::Nothing => return all,
        }
    }
}

/// Which key, what happened, in which revision, and what it held before.
type Seen = (String, Option<String>, i64, Option<String>);

fn seen(event: Event) -> Seen {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let kv = event.kv.unwrap();
    let value = (event.r#type == 0).then(|| text(&kv.value));
    (text(&kv.key), value, kv.mod_revision, event.prev_kv.map(|before| text(&before.value)))
}

fn told(all: Vec<Told>) -> Vec<Seen> {
    let events = all.into_iter().filter_map(|told| match told {
        Told::Events { events, .. } => Some(read(&events)),
        _ => None,
    });
    events.flatten().map(seen).collect()
}

#[test]
fn a_watch_tells_what_comes_and_what_has_been_the_same() {
    let (store, mut state) = (RwLock::new(Store::new()), State::new(MOST));
    let stream = state.open(false);
    put(&store, "a", "1");
    state.create(stream, &wanted(filter("a", End::Before("c".into())), 0), 2);
    put(&store, "b", "2");
    put(&store, "c", "3");
    put(&store, "a", "4");
    delete(&store, "a", "");
    assert!(!state.advance(&store.read()));
    let live = told(drain(&mut state, stream, &store));
    let some = |key: &str, value: Option<&str>, revision, before: Option<&str>| {
        (key.to_owned(), value.map(str::to_owned), revision, before.map(str::to_owned))
    };
    let expected =
        [some("b", Some("2"), 3, None), some("a", Some("4"), 5, Some("1")), some("a", None, 6, Some("4"))];
    assert_eq!(live, expected);
    state.create(stream, &wanted(filter("a", End::Before("c".into())), 3), 6);
    assert_eq!(told(drain(&mut state, stream, &store)), expected);
}

#[test]
fn watches_that_want_the_same_share_what_is_told() {
    let (store, mut state) = (RwLock::new(Store::new()), State::new(MOST));
    let streams: Vec<_> = (0..3).map(|_| state.open(false)).collect();
    for stream in &streams {
        state.create(*stream, &wanted(filter("a", End::Never), 0), 1);
    }
    put(&store, "a", &"x".repeat(1000));
    state.advance(&store.read());
    let buffers: Vec<_> = streams
        .iter()
        .flat_map(|stream| drain(&mut state, *stream, &store))
        .filter_map(|told| match told {
            Told::Events { events, .. } => Some(events[0].fields.as_ptr()),
            _ => None,
        })
        .collect();
    assert_eq!(buffers.len(), 3);
    assert!(buffers.iter().all(|buffer| *buffer == buffers[0]), "{buffers:?}");
}

#[test]
fn who_does_not_read_holds_nothing_and_is_told_all_the_same() {
    let (store, mut state) = (RwLock::new(Store::new()), State::new(MOST));
    let (slow, other) = (state.open(false), state.open(false));
    for stream in [slow, other] {
        state.create(stream, &wanted(filter("k", End::Never), 0), 1);
    }
    drain(&mut state, slow, &store);
    for n in 0..300 {
        put(&store, &format!("k{n:03}"), &"x".repeat(64 << 10));
        state.advance(&store.read());
        assert_eq!(told(drain(&mut state, other, &store)).len(), 1);
        assert!(state.held() <= 9 << 20);
    }
    let all = told(drain(&mut state, slow, &store));
    assert_eq!(all.iter().map(|seen| seen.2).collect::<Vec<_>>(), (2..302).collect::<Vec<_>>());
}

/// A watch that has been told of all there was is not held to be behind by a compaction.
#[test]
fn who_waits_for_changes_is_not_ended_by_a_compaction() {
    let (store, mut state) = (RwLock::new(Store::new()), State::new(MOST));
    let stream = state.open(false);
    state.create(stream, &wanted(filter("a", End::One), 0), 1);
    for n in 0..200 {
        put(&store, "b", &n.to_string());
        state.advance(&store.read());
    }
    let revision = store.read().revision();
    assert!(compact(&store, revision));
    // Too much to be laid down: it reads that from the history.
    for _ in 0..3 {
        put(&store, "a", &"x".repeat(500 << 10));
    }
    assert!(!state.advance(&store.read()));
    let all = drain(&mut state, stream, &store);
    assert!(!all.iter().any(|told| matches!(told, Told::Compacted(..))), "{all:?}");
    assert_eq!(
        told(all).iter().map(|seen| seen.2).collect::<Vec<_>>(),
        [revision + 1, revision + 2, revision + 3]
    );
}

#[test]
fn who_wants_what_is_compacted_is_told_so_and_ends() {
    let (store, mut state) = (RwLock::new(store_at(2)), State::new(MOST));
    for n in 0..9 {
        put(&store, "a", &n.to_string());
    }
    assert!(compact(&store, 5));
    let stream = state.open(false);
    state.create(stream, &wanted(filter("a", End::One), 4), 10);
    state.create(stream, &wanted(filter("a", End::One), 5), 10);
    let all = drain(&mut state, stream, &store);
    assert!(all.iter().any(|told| matches!(told, Told::Compacted(0, 5))), "{all:?}");
    assert_eq!(told(all).iter().map(|seen| seen.2).collect::<Vec<_>>(), [5, 6, 7, 8, 9, 10]);
}

#[test]
fn a_revision_is_told_as_a_whole_and_one_that_is_too_large_ends_the_watch() {
    let (store, mut state) = (RwLock::new(Store::new()), State::new(1 << 20));
    for n in 0..40_000 {
        put(&store, &format!("k{n:05}"), "");
    }
    let (live, late) = (state.open(false), state.open(false));
    let only_deletions = Filter { puts: false, previous: false, ..filter("k", End::Never) };
    let revision = store.read().revision();
    state.create(live, &wanted(only_deletions.clone(), 0), revision);
    delete(&store, "k", "k2");
    state.create(late, &wanted(only_deletions.clone(), revision + 1), revision + 1);
    while state.advance(&store.read()) {}
    for stream in [live, late] {
        let all = drain(&mut state, stream, &store);
        let sizes = all.iter().filter_map(|told| match told {
            Told::Events { events, .. } => Some(events.iter().map(|events| events.ends.len()).sum::<usize>()),
            _ => None,
        });
        assert_eq!(sizes.collect::<Vec<_>>(), [20_000]);
    }
    delete(&store, "k", "l");
    put(&store, "k", "");
    delete(&store, "k", "");
    while state.advance(&store.read()) {}
    assert_eq!(told(drain(&mut state, live, &store)).len(), 20_001);
    let mut small = State::new(64 << 10);
    let stream = small.open(false);
    small.create(stream, &wanted(only_deletions, revision + 1), revision + 4);
    assert!(matches!(drain(&mut small, stream, &store)[1], Told::TooLarge(0, _)));
    assert!(drain(&mut small, stream, &store).is_empty(), "it has ended");
}

#[test]
fn progress_is_told_when_all_before_it_has_been() {
    let (store, mut state) = (RwLock::new(Store::new()), State::new(MOST));
    let stream = state.open(false);
    state.ask_progress(stream);
    state.create(stream, &wanted(filter("a", End::One), 0), 1);
    state.create(stream, &wanted(filter("b", End::One), 0), 1);
    put(&store, "a", "1");
    state.advance(&store.read());
    state.ask_progress(stream);
    let all = drain(&mut state, stream, &store);
    let [
        Told::Created(Ok(0), 1),
        Told::Created(Ok(1), 1),
        Told::Events { id: 0, .. },
        Told::Progress(None, 2),
    ] = all[..]
    else {
        panic!("{all:?}")
    };
    state.create(stream, &wanted(filter("c", End::One), 9), 2);
    state.ask_progress(stream);
    let all = drain(&mut state, stream, &store);
    assert!(matches!(all[..], [Told::Created(Ok(2), 2)]), "one begins later: {all:?}");
}

/// The groups may not have read yet what the answer to a new watch has told.
#[test]
fn progress_does_not_go_back_behind_what_a_new_watch_was_told() {
    let (store, mut state) = (RwLock::new(Store::new()), State::new(MOST));
    let stream = state.open(false);
    state.create(stream, &wanted(filter("a", End::One), 0), 1);
    put(&store, "c", "1");
    state.create(stream, &wanted(filter("b", End::One), 0), 2);
    state.ask_progress(stream);
    let before: Vec<_> = (0..9).map(|_| state.turn(stream, &store)).collect();
    let is_progress = |turn: &Turn| matches!(turn, Turn::Told(Told::Progress(..)));
    assert!(!before.iter().any(is_progress));
    state.advance(&store.read());
    let all = drain(&mut state, stream, &store);
    assert!(matches!(all[..], [Told::Progress(None, 2)]), "{all:?}");
}

#[test]
fn ids_are_what_was_asked_for_or_the_next_that_is_free() {
    let (store, mut state) = (RwLock::new(Store::new()), State::new(MOST));
    let stream = state.open(false);
    let one = || wanted(filter("a", End::One), 0);
    let mut create = |wanted: Wanted| {
        state.create(stream, &wanted, 1);
        match drain(&mut state, stream, &store)[..] {
            [Told::Created(created, 1)] => created,
            ref other => panic!("{other:?}"),
        }
    };
    assert_eq!(create(Wanted { id: 1, ..one() }), Ok(1));
    assert_eq!(create(one()), Ok(0));
    assert_eq!(create(one()), Ok(2));
    assert_eq!(create(Wanted { id: 2, ..one() }), Err(NotCreated::Duplicate));
    assert_eq!(create(wanted(filter("b", End::Before("b".into())), 0)), Err(NotCreated::EmptyRange));
    assert_eq!(create(wanted(filter("b", End::One), -1)), Err(NotCreated::Compacted));
}

/// What is done in a run.
#[derive(Debug, Clone)]
enum Step {
    Put(u8, usize),
    Delete(u8, u8),
    /// So far behind the newest revision.
    Compact(i64),
    Create {
        start: u8,
        end: u8,
        puts: bool,
        deletions: bool,
        ago: Option<i64>,
    },
    Cancel(usize),
    Advance,
    Turns(usize),
    AskProgress,
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![9 => 0..20_usize, 1 => Just(40 << 10), 1 => Just(1 << 20)];
    prop_oneof![
        8 => (0..8_u8, size).prop_map(|(key, size)| Step::Put(key, size)),
        2 => (0..8_u8, 0..9_u8).prop_map(|(key, end)| Step::Delete(key, end)),
        1 => (0..12_i64).prop_map(Step::Compact),
        2 => (0..8_u8, 0..10_u8, any::<bool>(), any::<bool>(), prop::option::of(-2..30_i64))
            .prop_map(|(start, end, puts, deletions, ago)| Step::Create { start, end, puts, deletions, ago }),
        1 => (0..9_usize).prop_map(Step::Cancel),
        4 => Just(Step::Advance),
        6 => (0..9_usize).prop_map(Step::Turns),
        1 => Just(Step::AskProgress),
    ]
}

/// What one watch is to tell, and has told.
#[derive(Debug)]
struct Expected {
    filter: Filter,
    start: i64,
    seen: Vec<Seen>,
    compacted: Option<i64>,
}

fn key(number: u8) -> String {
    format!("k{number}")
}

/// A run: the state, its watches, and all that ever happened.
struct Run {
    store: RwLock<Store>,
    state: State,
    stream: StreamId,
    watches: BTreeMap<i64, Expected>,
    cancelled: Vec<Expected>,
    happened: Vec<Seen>,
    now: BTreeMap<String, String>,
}

impl Run {
    fn happens(&mut self, key: &str, value: Option<String>) {
        let before = match &value {
            Some(value) => self.now.insert(key.to_owned(), value.clone()),
            None => self.now.remove(key),
        };
        self.happened.push((key.to_owned(), value, self.store.read().revision(), before));
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Put(number, size) => {
                let (key, value) = (key(number), "x".repeat(size));
                put(&self.store, &key, &value);
                self.happens(&key, Some(value));
            }
            Step::Delete(start, end) => {
                let (start, end) = (key(start), key(end));
                delete(&self.store, &start, &end);
                let keys: Vec<_> =
                    self.now.keys().filter(|key| (&start..&end).contains(key)).cloned().collect();
                for key in keys {
                    self.happens(&key, None);
                }
            }
            Step::Compact(ago) => {
                let revision = self.store.read().revision() - ago;
                compact(&self.store, revision);
            }
            Step::Create { start, end, puts, deletions, ago } => {
                let revision = self.store.read().revision();
                let end = if end == 9 { End::Never } else { End::Before(key(end).into()) };
                let filter = Filter { puts, deletions, ..filter(&key(start), end) };
                let start = ago.map_or(0, |ago| (revision - ago).max(1));
                if let Some(id) = self.state.create(self.stream, &wanted(filter.clone(), start), revision) {
                    let start = if start == 0 { revision + 1 } else { start };
                    self.watches.insert(id, Expected { filter, start, seen: Vec::new(), compacted: None });
                }
            }
            Step::Cancel(at) => {
                let Some(id) = self.watches.keys().nth(at).copied() else { return };
                self.state.cancel(self.stream, id, 0);
                self.cancelled.extend(self.watches.remove(&id));
            }
            Step::Advance => {
                self.state.advance(&self.store.read());
            }
            Step::AskProgress => self.state.ask_progress(self.stream),
            Step::Turns(turns) => {
                let _ = (0..turns).take_while(|_| self.turn()).count();
            }
        }
    }

    /// Whether there may be more.
    fn turn(&mut self) -> bool {
        match self.state.turn(self.stream, &self.store) {
            Turn::Nothing => return false,
            Turn::Told(Told::Events { id, revision, events, .. }) => {
                let watch = self.watches.get_mut(&id).expect("no watch tells anything after its end");
                watch.seen.extend(read(&events).into_iter().map(seen));
                let last = watch.seen.last().map(|seen| seen.2);
                assert!(last <= Some(revision), "{last:?} {revision}");
            }
            Turn::Told(Told::Compacted(id, revision)) => {
                let mut watch = self.watches.remove(&id).expect("it is there");
                watch.compacted = Some(revision);
                self.cancelled.push(watch);
            }
            Turn::Told(Told::Progress(None, revision)) => self.progress(revision),
            Turn::Later | Turn::Told(_) => {}
        }
        true
    }

    /// All up to `revision` is said to have been told, and nothing behind it.
    fn progress(&self, revision: i64) {
        for watch in self.watches.values() {
            let wants = |(key, value, made, _): &&Seen| {
                *made >= watch.start
                    && *made <= revision
                    && watch.filter.covers(key.as_bytes())
                    && watch.filter.wants(value.is_none())
            };
            assert_eq!(self.happened.iter().filter(wants).count(), watch.seen.len(), "up to {revision}");
        }
    }

    fn check(&self, watch: &Expected, is_whole: bool) {
        let wants = |(key, value, revision, _): &&Seen| {
            *revision >= watch.start
                && watch.filter.covers(key.as_bytes())
                && watch.filter.wants(value.is_none())
        };
        let mut expected = self.happened.iter().filter(wants);
        for (key, value, revision, before) in &watch.seen {
            let next = expected.next().expect("nothing is made up");
            assert_eq!((&next.0, &next.1, next.2), (key, value, *revision), "in order, none left out");
            // What it held before may have been compacted.
            assert!(before == &next.3 || before.is_none(), "{key} at {revision}");
        }
        if is_whole {
            assert_eq!(expected.count(), 0, "all is told");
        }
        if let Some(compacted) = watch.compacted {
            let next = watch.seen.last().map_or(watch.start, |seen| seen.2 + 1);
            assert!(next < compacted, "{next} is not compacted by {compacted}");
        }
    }
}

proptest! {
    #[test]
    fn each_change_is_told_once_and_in_order(level in 1..=2_u32, small in any::<bool>(), steps in prop::collection::vec(step(), 0..200)) {
        // Pieces end within revisions.
        let mut state = if small { State::new(MOST).in_steps(3) } else { State::new(MOST) };
        let stream = state.open(false);
        let mut run = Run {
            store: RwLock::new(store_at(level)),
            state,
            stream,
            watches: BTreeMap::new(),
            cancelled: Vec::new(),
            happened: Vec::new(),
            now: BTreeMap::new(),
        };
        for step in &steps {
            run.step(step);
        }
        while run.state.advance(&run.store.read()) {}
        while run.turn() {}
        run.watches.values().for_each(|watch| run.check(watch, true));
        run.cancelled.iter().for_each(|watch| run.check(watch, false));
        // All are where their groups are.
        for watch in run.state.streams[&stream].watches.values() {
            prop_assert!(matches!(watch.place, Place::Group(_)));
        }
    }
}
