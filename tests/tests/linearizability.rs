//! The checker against histories that are right, histories that are wrong, and a checker that tries everything.

use quorate_tests::linearizability::check::check_within;
use quorate_tests::linearizability::kv::{Cell, Input, Key, Kv, Output, Value};
use quorate_tests::linearizability::{History, Model, Operation, Recorder, Time, Verdict, check};
use quorate_tests::linearizability::{revisions, unanswered};
use quorate_tests::seed;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

type Op = Operation<Input, Output>;

const K: Key = Key(0);
const L: Key = Key(1);

fn cell(value: u64) -> Cell {
    Cell { value: Value(value), create_revision: 2, mod_revision: 2, version: 1 }
}

/// An operation from `invoked` to `returned` that saw `seen`.
fn op(client: u32, input: Input, invoked: Time, returned: Time, seen: &[Option<u64>]) -> Op {
    let seen: Vec<_> = seen.iter().map(|value| value.map(cell)).collect();
    let done = match &input {
        Input::Swap { expected, .. } => seen.first().copied().flatten().map(|cell| cell.value) == *expected,
        Input::Get(_) | Input::Put(..) | Input::Delete(_) => true,
    };
    Operation {
        client,
        input,
        output: Some(Output { revision: 2, seen, done }),
        invoked,
        returned: Some(returned),
    }
}

fn unanswered_op(client: u32, input: Input, invoked: Time) -> Op {
    Operation { client, input, output: None, invoked, returned: None }
}

fn get(key: Key) -> Input {
    Input::Get(vec![key])
}

fn put(key: Key, value: u64) -> Input {
    Input::Put(vec![key], Value(value))
}

fn swap(key: Key, expected: Option<u64>, new: u64) -> Input {
    Input::Swap { key, expected: expected.map(Value), new: Value(new) }
}

#[track_caller]
fn right(history: &[Op]) {
    let history = history.to_vec();
    check(&Kv, &history).assert_linearizable();
    check(&Kv, &unanswered::tighten(&history)).assert_linearizable();
    assert!(everything(&history), "the checker that tries everything disagrees");
}

#[track_caller]
fn wrong(history: &[Op]) -> String {
    let history = history.to_vec();
    assert!(!everything(&history), "the checker that tries everything disagrees");
    let tight = check(&Kv, &unanswered::tighten(&history));
    assert!(matches!(tight, Verdict::Violated(_)), "after bounding: {tight}");
    let verdict = check(&Kv, &history);
    assert!(matches!(verdict, Verdict::Violated(_)), "{verdict}");
    verdict.to_string()
}

#[test]
fn one_after_another() {
    right(&[op(1, put(K, 1), 0, 10, &[None]), op(2, get(K), 20, 30, &[Some(1)])]);
}

#[test]
fn during_a_write_both_values_may_be_read() {
    let write = op(1, put(K, 1), 0, 100, &[None]);
    right(&[write.clone(), op(2, get(K), 10, 20, &[None]), op(2, get(K), 30, 40, &[Some(1)])]);
    right(&[write.clone(), op(2, get(K), 10, 50, &[Some(1)]), op(3, get(K), 20, 60, &[None])]);
}

#[test]
fn a_stale_read() {
    let told = wrong(&[
        op(1, put(K, 1), 0, 10, &[None]),
        op(1, put(K, 2), 20, 30, &[Some(1)]),
        op(2, get(K), 40, 50, &[Some(1)]),
        op(2, get(L), 60, 70, &[None]),
    ]);
    assert!(told.contains("keys k0;"), "{told}");
    assert!(
        told.contains("cannot be explained:\n    client  2       0.000 to      0.000 ms  get k0 -> saw v1"),
        "{told}"
    );
}

#[test]
fn a_lost_write() {
    wrong(&[op(1, put(K, 1), 0, 10, &[None]), op(2, get(K), 20, 30, &[None])]);
    wrong(&[op(1, put(K, 1), 0, 10, &[None]), op(2, put(K, 2), 20, 30, &[None])]);
}

#[test]
fn a_write_done_twice() {
    wrong(&[
        op(1, put(K, 1), 0, 10, &[None]),
        op(2, put(K, 2), 20, 30, &[Some(1)]),
        op(2, get(K), 40, 50, &[Some(2)]),
        op(2, get(K), 60, 70, &[Some(1)]),
    ]);
    wrong(&[
        op(1, swap(K, None, 1), 0, 10, &[None]),
        op(2, Input::Delete(K), 20, 30, &[Some(1)]),
        op(2, get(K), 40, 50, &[Some(1)]),
    ]);
}

#[test]
fn a_read_from_the_future() {
    wrong(&[op(2, get(K), 0, 10, &[Some(1)]), op(1, put(K, 1), 20, 30, &[None])]);
    wrong(&[op(2, get(K), 0, 10, &[Some(1)]), unanswered_op(1, put(K, 1), 20)]);
}

#[test]
fn a_value_that_nobody_wrote() {
    wrong(&[op(1, put(K, 1), 0, 10, &[None]), op(2, get(K), 20, 30, &[Some(7)])]);
}

#[test]
fn reads_that_go_back() {
    let write = op(1, put(K, 1), 0, 100, &[None]);
    wrong(&[write, op(2, get(K), 10, 20, &[Some(1)]), op(3, get(K), 30, 40, &[None])]);
}

#[test]
fn two_swaps_that_both_win() {
    wrong(&[op(1, swap(K, None, 1), 0, 50, &[None]), op(2, swap(K, None, 2), 10, 60, &[None])]);
    right(&[op(1, swap(K, None, 1), 0, 50, &[None]), op(2, swap(K, None, 2), 10, 60, &[Some(1)])]);
}

#[test]
fn without_an_answer_a_write_is_done_late_or_never() {
    let lost = unanswered_op(1, put(K, 1), 0);
    let first = op(2, put(K, 2), 10, 20, &[None]);
    let plain = op(2, get(K), 30, 40, &[Some(2)]);
    right(&[lost.clone(), first.clone(), plain.clone()]);
    right(&[lost.clone(), first.clone(), plain.clone(), op(2, get(K), 50, 60, &[Some(1)])]);
    let once = op(2, get(K), 50, 60, &[Some(1)]);
    let again = op(2, put(K, 3), 70, 80, &[Some(1)]);
    wrong(&[lost, first, plain, once, again, op(2, get(K), 90, 95, &[Some(1)])]);
}

#[test]
fn operations_on_several_keys_happen_at_one_moment() {
    let both = Input::Put(vec![K, L], Value(1));
    let read = Input::Get(vec![K, L]);
    right(&[op(1, both.clone(), 0, 50, &[None, None]), op(2, read.clone(), 10, 20, &[Some(1), Some(1)])]);
    wrong(&[op(1, both.clone(), 0, 50, &[None, None]), op(2, read, 10, 20, &[Some(1), None])]);
    // Each key by itself would be in order.
    wrong(&[
        op(1, both, 0, 50, &[None, None]),
        op(2, get(K), 10, 20, &[Some(1)]),
        op(2, get(L), 30, 40, &[None]),
    ]);
}

#[test]
fn the_shortest_wrong_beginning_is_shown() {
    let mut history: Vec<_> =
        (0..50).map(|n| op(1, put(K, n + 1), n * 20, n * 20 + 10, &[(n > 0).then_some(n)])).collect();
    history[20].output = Some(Output { revision: 2, seen: vec![Some(cell(3))], done: true });
    let Verdict::Violated(violation) = check(&Kv, &history) else { panic!("it is wrong") };
    assert_eq!(violation.history.len(), 21);
    assert_eq!(violation.longest, (0..20).collect::<Vec<_>>());
}

#[test]
fn a_small_budget_gives_no_answer() {
    let mut history: Vec<_> = (0..20).map(|n| op(n, put(K, u64::from(n) + 1), 0, 100, &[])).collect();
    for operation in &mut history {
        operation.output = None;
    }
    history.push(op(99, get(K), 200, 300, &[Some(77)]));
    assert!(matches!(check_within(&Kv, &history, 10_000), Verdict::Undecided(_)));
}

#[test]
fn long_histories_take_little_time() {
    let mut random = seed::random("long_histories_take_little_time");
    let history =
        simulate(&mut random, &World { operations: 20_000, clients: 12, keys: 3, silence: 0.05, wrong: 0.0 });
    check(&Kv, &unanswered::tighten(&history)).assert_linearizable();
}

/// Thousands of small histories, most of them wrong in some way: both checkers agree on each.
#[test]
fn random_histories_against_a_checker_that_tries_everything() {
    let mut random = seed::random("random_histories_against_a_checker_that_tries_everything");
    let (mut right, mut wrong) = (0, 0);
    for _ in 0..8_000 {
        let world = World { operations: 6, clients: 4, keys: 2, silence: 0.25, wrong: 0.15 };
        let history = simulate(&mut random, &world);
        let expected = everything(&history);
        for history in [&history, &unanswered::tighten(&history)] {
            let verdict = check(&Kv, history);
            let agrees = matches!(verdict, Verdict::Linearizable) == expected
                && !matches!(verdict, Verdict::Undecided(_));
            assert!(agrees, "{verdict}, but trying everything says {expected}: {history:#?}");
        }
        *if expected { &mut right } else { &mut wrong } += 1;
    }
    assert!(right > 800 && wrong > 800, "the histories are too much alike: {right} right, {wrong} wrong");
}

/// What the random histories are like.
struct World {
    operations: usize,
    clients: u32,
    keys: u32,
    /// The part of operations without an answer.
    silence: f64,
    /// The part of answers that are made up.
    wrong: f64,
}

/// Clients that do random operations on one copy of the data, each at some moment between its begin and its end.
fn simulate(random: &mut ChaCha8Rng, world: &World) -> History<Input, Output> {
    let mut free = vec![0; world.clients as usize];
    let mut moments = Vec::new();
    for value in 0..world.operations as u64 {
        let client = random.random_range(0..world.clients);
        let invoked = free[client as usize] + random.random_range(1..20);
        let moment = invoked + random.random_range(0..30);
        let returned = moment + random.random_range(0..30);
        free[client as usize] = returned + 1;
        moments.push((moment, client, invoked, returned, random_input(random, world, value + 1)));
    }
    moments.sort_by_key(|moment| moment.0);
    let mut state = Kv.initial();
    let mut history = Vec::new();
    for (_, client, invoked, returned, input) in moments {
        let seen: Vec<_> = input.keys().iter().map(|key| state.get(key).map(|value| value.0)).collect();
        if random.random_bool(world.silence) {
            if random.random_bool(0.5) {
                state = Kv.step(&state, &input, None).expect("without an answer there is a state");
            }
            history.push(unanswered_op(client, input, invoked));
            continue;
        }
        let mut operation = op(client, input, invoked, returned, &seen);
        state =
            Kv.step(&state, &operation.input, operation.output.as_ref()).expect("the answer is the model's");
        if random.random_bool(world.wrong) {
            let made_up = random.random_bool(0.7).then(|| random.random_range(1..=world.operations as u64));
            operation = op(client, operation.input, invoked, returned, &vec![made_up; seen.len()]);
        }
        history.push(operation);
    }
    history.sort_by_key(|operation| operation.invoked);
    history
}

fn random_input(random: &mut ChaCha8Rng, world: &World, value: u64) -> Input {
    let key = Key(random.random_range(0..world.keys));
    let both = || (0..world.keys).map(Key).collect::<Vec<_>>();
    match random.random_range(0..20) {
        0..7 => get(key),
        7 if world.operations < 100 => Input::Get(both()),
        8 if world.operations < 100 => Input::Put(both(), Value(value)),
        7..13 => put(key, value),
        13..15 => Input::Delete(key),
        _ => {
            let expected = random.random_bool(0.7).then(|| random.random_range(1..=value));
            swap(key, expected, value)
        }
    }
}

/// Tries every order of every choice of operations: slow, and simple enough to be right.
fn everything(history: &[Op]) -> bool {
    fn further(history: &[Op], done: &mut Vec<bool>, state: &<Kv as Model>::State) -> bool {
        let left = |at: usize, done: &[bool]| !done[at];
        if history.iter().enumerate().all(|(at, op)| done[at] || op.returned.is_none()) {
            return true;
        }
        for at in 0..history.len() {
            let waits = |other: &Op| other.returned.is_some_and(|returned| returned < history[at].invoked);
            let early =
                (0..history.len()).any(|other| left(other, done) && other != at && waits(&history[other]));
            if done[at] || early {
                continue;
            }
            let Some(next) = Kv.step(state, &history[at].input, history[at].output.as_ref()) else {
                continue;
            };
            done[at] = true;
            let found = further(history, done, &next);
            done[at] = false;
            if found {
                return true;
            }
        }
        false
    }
    further(history, &mut vec![false; history.len()], &Kv.initial())
}

/// The writes of one key, one after another, with etcd's revisions.
fn revised(revisions: &[(i64, i64)]) -> History<Input, Output> {
    let mut before: Option<Cell> = None;
    let mut history = Vec::new();
    for (n, &(revision, version)) in revisions.iter().enumerate() {
        let time = n as Time * 20;
        let output = Output { revision, seen: vec![before], done: true };
        let input = put(K, n as u64 + 1);
        history.push(Operation {
            client: 1,
            input,
            output: Some(output),
            invoked: time,
            returned: Some(time + 10),
        });
        let create_revision =
            if version == 1 { revision } else { before.map_or(revision, |cell| cell.create_revision) };
        before = Some(Cell { value: Value(n as u64 + 1), create_revision, mod_revision: revision, version });
    }
    history
}

#[track_caller]
fn broken(history: &History<Input, Output>, promise: &str) {
    let told = revisions::check(history, &Vec::new()).expect_err("the revisions are wrong").to_string();
    assert!(told.starts_with(promise), "{told}");
}

#[test]
fn revisions_that_are_right() {
    revisions::check(&revised(&[(2, 1), (3, 2), (7, 3), (8, 4)]), &Vec::new()).expect("they are right");
}

#[test]
fn revisions_that_go_back_or_repeat() {
    broken(&revised(&[(2, 1), (5, 2), (4, 3)]), "the revision went back");
    let mut history = revised(&[(2, 1), (3, 2)]);
    history[1].output.as_mut().expect("it was answered").revision = 2;
    history[1].invoked = 5;
    broken(&history, "two writes have one revision");
}

#[test]
fn a_write_done_twice_in_a_row_shows_in_its_revision() {
    let mut history = revised(&[(2, 1), (3, 2)]);
    let twice = Cell { value: Value(2), create_revision: 2, mod_revision: 4, version: 3 };
    let output = Output { revision: 4, seen: vec![Some(twice)], done: true };
    history.push(Operation {
        client: 2,
        input: get(K),
        output: Some(output),
        invoked: 100,
        returned: Some(110),
    });
    // By its values alone the history is in order.
    check(&Kv, &history).assert_linearizable();
    broken(&history, "a value was seen with a revision that is not its write's");
}

#[test]
fn versions_that_do_not_count() {
    broken(&revised(&[(2, 1), (3, 2), (4, 2), (5, 3)]), "the version did not grow");
    broken(&revised(&[(2, 1), (3, 3), (4, 4)]), "the version does not fit");
}

#[test]
fn a_stale_read_shows_a_past_that_existed() {
    let history = revised(&[(2, 1), (3, 2), (4, 3)]);
    let read = |revision, value, mod_revision, version| {
        let cell = Cell { value: Value(value), create_revision: 2, mod_revision, version };
        let output = Output { revision, seen: vec![Some(cell)], done: true };
        vec![Operation { client: 9, input: get(K), output: Some(output), invoked: 500, returned: Some(510) }]
    };
    revisions::check(&history, &read(3, 2, 3, 2)).expect("it was so at revision 3");
    let told = revisions::check(&history, &read(4, 2, 3, 2))
        .expect_err("at revision 4 it was overwritten")
        .to_string();
    assert!(told.starts_with("an answer misses a write"), "{told}");
    let told =
        revisions::check(&history, &read(2, 2, 3, 2)).expect_err("revision 3 is later than 2").to_string();
    assert!(told.starts_with("an answer shows a later revision"), "{told}");
}

#[test]
fn the_recorder_keeps_what_was_not_answered_and_strikes_what_was_refused() {
    let recorder = Recorder::default();
    let first = recorder.begin(1, put(K, 1));
    let refused = recorder.begin(2, put(K, 2));
    drop(recorder.begin(3, put(K, 3)));
    recorder.refused(refused);
    recorder.answered(first, Output { revision: 2, seen: vec![None], done: true });
    let history = recorder.history();
    assert_eq!(history.iter().map(|operation| operation.client).collect::<Vec<_>>(), [1, 3]);
    assert!(history[0].returned >= Some(history[0].invoked) && history[1].returned.is_none());
    assert_eq!(recorder.answers(), 1);
}
