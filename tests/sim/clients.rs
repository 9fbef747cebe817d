//! Clients that write and read through all members, and write down what they see.

use std::collections::BTreeMap;

use quorate_api::etcdserverpb::alarm_request::AlarmAction;
use quorate_api::etcdserverpb::{AlarmRequest, AlarmType, CompactionRequest};
use quorate_api::log::command::Operation as Applied;
use quorate_node::kv::{self, ReadTxn, Response, Store};
use quorate_node::replica::{Client as Waiter, Command, Replica};
use quorate_raft::MemberId;
use quorate_tests::linearizability::kv::{Input, Key, Output, Value};
use quorate_tests::linearizability::{History, Operation};
use quorate_tests::requests::{self, Request};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::forms::{self, Form};
use crate::schedule::{Plan, stream};
use crate::time::{MILLI, SECOND, Time};
use crate::world::{Event, World};

/// How many keys they share: few, so that they meet.
const KEYS: u32 = 6;

/// How long a client waits for an answer: less than a member waits for its own.
const PATIENCE: Time = 2 * SECOND;

/// The most that a client rests when it is to be seen that the cluster works again.
const CALM_REST: Time = 50 * MILLI;

/// What a member is asked.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) client: usize,
    pub(crate) token: u64,
    pub(crate) input: Input,
    /// The answer may be from the past.
    pub(crate) stale: bool,
}

/// What a client is told.
#[derive(Debug)]
pub(crate) enum Reply {
    Done(Output),
    /// It was not done, and never will be.
    NotDone,
    /// Nobody knows.
    Unknown,
}

type Recorded = Vec<Option<Operation<Input, Output>>>;

#[derive(Debug)]
pub(crate) struct Clients {
    all: Vec<Client>,
    rest: Time,
    values: u64,
    history: Recorded,
    stale: Recorded,
    stopped: bool,
    /// How many answers came from each member.
    pub(crate) answers: BTreeMap<MemberId, u64>,
}

#[derive(Debug)]
struct Client {
    random: ChaCha8Rng,
    /// Counts what it does: what is about something earlier is late.
    token: u64,
    current: Option<Current>,
    /// What it saw last of each key.
    seen: BTreeMap<Key, Option<Value>>,
}

/// An operation under way.
#[derive(Debug)]
struct Current {
    at: MemberId,
    place: usize,
    stale: bool,
}

impl Clients {
    pub(crate) fn new(plan: &Plan) -> Self {
        let client = |number| Client {
            random: stream(plan.seed, "client", number),
            token: 0,
            current: None,
            seen: BTreeMap::new(),
        };
        Self {
            all: (0..plan.clients as u64).map(client).collect(),
            rest: plan.rest,
            values: 0,
            history: Vec::new(),
            stale: Vec::new(),
            stopped: false,
            answers: BTreeMap::new(),
        }
    }

    /// From now on they begin nothing more.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    /// What was written and read, and what was read that may be stale.
    pub(crate) fn histories(&self) -> (History<Input, Output>, History<Input, Output>) {
        let of = |recorded: &Recorded| recorded.iter().flatten().cloned().collect();
        (of(&self.history), of(&self.stale))
    }

    /// How many operations are recorded.
    pub(crate) fn count(&self) -> usize {
        self.history.len() + self.stale.len()
    }

    fn choose(&mut self, client: usize) -> Input {
        let Client { random, seen, .. } = &mut self.all[client];
        let key = Key(random.random_range(0..KEYS));
        // Operations on two keys are always on the same two, so that the other keys stay separate.
        let pair = || vec![Key(0), Key(1)];
        let what = random.random_range(0..100);
        if what >= 34 {
            self.values += 1;
        }
        let value = Value(self.values);
        match what {
            0..30 => Input::Get(vec![key]),
            30..34 => Input::Get(pair()),
            34..66 => Input::Put(vec![key], value),
            66..70 => Input::Put(pair(), value),
            70..74 => Input::Delete(key),
            _ => Input::Swap { key, expected: seen.get(&key).copied().flatten(), new: value },
        }
    }
}

impl World {
    /// A client does its next operation; one that is under way has taken too long.
    pub(crate) fn on_client(&mut self, client: usize, token: u64) {
        if self.clients.all[client].token != token || self.clients.stopped {
            return;
        }
        let members = self.members_to_ask();
        let number = &mut self.clients.all[client];
        number.token += 1;
        let token = number.token;
        let at = members[number.random.random_range(0..members.len())];
        let stale = number.random.random_range(0..20) == 0;
        let input = if stale {
            Input::Get(vec![Key(number.random.random_range(0..KEYS))])
        } else {
            self.clients.choose(client)
        };
        let invoked = self.now();
        let operation =
            Operation { client: client as u32, input: input.clone(), output: None, invoked, returned: None };
        let history = if stale { &mut self.clients.stale } else { &mut self.clients.history };
        history.push(Some(operation));
        self.clients.all[client].current = Some(Current { at, place: history.len() - 1, stale });
        let latency = self.plan.latency;
        self.agenda.after(latency, Event::Request(Asked { client, token, input, stale }, at));
        self.agenda.after(PATIENCE, Event::Client(client, token));
    }

    pub(crate) fn on_answer(&mut self, client: usize, token: u64, reply: Reply) {
        let now = self.now();
        let clients = &mut self.clients;
        let one = &mut clients.all[client];
        if one.token != token {
            return;
        }
        let Some(Current { at, place, stale }) = one.current.take() else { return };
        let history = if stale { &mut clients.stale } else { &mut clients.history };
        match reply {
            Reply::Done(output) => {
                *clients.answers.entry(at).or_default() += 1;
                let operation = history[place].as_mut().expect("it is under way");
                if !stale {
                    one.seen.extend(operation.input.keys().iter().copied().zip(output.values()));
                }
                operation.output = Some(output);
                operation.returned = Some(now);
            }
            Reply::NotDone => history[place] = None,
            Reply::Unknown => {}
        }
        one.token += 1;
        let rest = one.random.random_range(0..=if self.calm { CALM_REST } else { clients.rest });
        self.agenda.after(rest, Event::Client(client, one.token));
    }

    /// Whom clients ask: anyone that is not lost, and at the end the members.
    fn members_to_ask(&self) -> Vec<MemberId> {
        let mut all: Vec<MemberId> =
            self.hosts.values().filter(|host| !host.lost).map(|host| host.id).collect();
        if self.calm
            && let Some(process) = self.leader().and_then(|leader| self.hosts[&leader].process())
        {
            let configuration = process.replica.status().configuration;
            all.retain(|id| configuration.members().contains(id));
        }
        all
    }
}

/// Hands a request to a replica.
pub(crate) fn submit(replica: &mut Replica, origin: MemberId, number: u64, input: &Input, form: Form) {
    let waiter = Waiter::default();
    if form != Form::Usual
        && let Some(operation) = forms::operation(input, form)
    {
        return replica.write(waiter, vec![encode(origin, number, operation)]);
    }
    let operation = match requests::request(input, false) {
        Request::Put(put) => Applied::Put(put),
        Request::Delete(delete) => Applied::DeleteRange(delete),
        Request::Txn(txn) if !matches!(input, Input::Get(_)) => Applied::Txn(txn),
        Request::Range(_) | Request::Txn(_) => return replica.read(waiter, number),
    };
    replica.write(waiter, vec![encode(origin, number, operation)]);
}

/// Asks a replica for a compaction.
pub(crate) fn compact(replica: &mut Replica, origin: MemberId, number: u64, revision: i64) {
    let operation = Applied::Compact(CompactionRequest { revision, physical: false });
    replica.write(Waiter::default(), vec![encode(origin, number, operation)]);
}

/// Asks a replica to raise an alarm of a member, or to disarm it.
pub(crate) fn alarm(
    replica: &mut Replica,
    origin: MemberId,
    number: u64,
    (member_id, alarm, raises): (u64, AlarmType, bool),
) {
    let action = if raises { AlarmAction::Activate } else { AlarmAction::Deactivate };
    let operation = Applied::Alarm(AlarmRequest { action: action.into(), member_id, alarm: alarm.into() });
    replica.write(Waiter::default(), vec![encode(origin, number, operation)]);
}

fn encode(origin: MemberId, number: u64, operation: Applied) -> Command {
    Command::new(origin.0, number, operation)
}

/// What the reply to an applied command tells, with what has to be read for it.
pub(crate) fn output(store: &Store, mut reply: kv::Reply) -> Output {
    while !reply.advance(store, 1).expect("it has just been applied here") {}
    let output = match reply.finish() {
        Response::Put(put) => requests::written(put),
        Response::DeleteRange(deleted) => requests::deleted(deleted),
        Response::Txn(txn) => requests::transacted(txn),
        Response::Compact(_)
        | Response::Alarm(_)
        | Response::LeaseGrant(_)
        | Response::LeaseRevoke(_)
        | Response::RaiseLevel(_) => {
            unreachable!("clients do not ask for it")
        }
    };
    output.expect("a response that fits its request")
}

/// Reads from a state.
pub(crate) fn read(store: &Store, input: &Input) -> Output {
    let output = match requests::request(input, true) {
        Request::Range(range) => requests::ranged(store.range(&range).expect("the newest can be read")),
        Request::Txn(txn) => requests::transacted(ReadTxn::run(store, &txn).expect("the newest can be read")),
        Request::Put(_) | Request::Delete(_) => unreachable!("a read"),
    };
    output.expect("a response that fits its request")
}
