//! The door between the requests of one client runtime (one thread) and the replica's loop on another.
//!
//! Requests that arrive together go to the replica as one event, and are answered as one batch: one lock and one wake-up for
//! many requests.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use quorate_api::log::command::Operation;
use quorate_raft::{MemberId, ProposeError, TransferError};
use tokio::sync::{Notify, oneshot};

use super::event::Event;
use super::mailbox::{Mailbox, Refused};
use crate::kv::{KvError, Reply, Store};
use crate::replica::{Answer, Client, Command, Failure, Outcome, Question, TimeLeft};

/// The most requests of one client runtime that wait for their answer.
const MAX_WAITING: usize = 1 << 17;

/// One client runtime's door. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gateway {
    store: Arc<RwLock<Store>>,
    shared: Arc<Shared>,
}

/// Why a request has no answer from the state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The state refuses it.
    #[error(transparent)]
    Refused(#[from] KvError),
    /// No leader is known.
    #[error("no leader")]
    NoLeader,
    /// No answer in time; whether it was done is not known.
    #[error("timed out")]
    TimedOut,
    /// Too much is waiting already.
    #[error("too many requests")]
    Overloaded,
    /// The node is stopping.
    #[error("stopping")]
    Stopping,
    /// The disk is full.
    #[error("the disk is full")]
    NoSpace,
    /// The state has reached the quota.
    #[error("the state has reached the quota")]
    OverQuota,
    /// There is no descriptor for the next file of the log.
    #[error("too many open files")]
    NoDescriptors,
    /// The cluster's level does not allow it yet.
    #[error("not supported by the level of the cluster")]
    Unsupported,
    /// The node belongs to no cluster yet, or no longer.
    #[error("not a member of a cluster")]
    NotAMember,
    /// The state of the node is not that of a majority, or there is none.
    #[error("corrupt cluster")]
    Corrupt,
}

impl From<Failure> for RequestError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NoLeader => RequestError::NoLeader,
            Failure::TimedOut => RequestError::TimedOut,
            Failure::NotAMember => RequestError::NotAMember,
            Failure::NoSpace => RequestError::NoSpace,
            Failure::OverQuota => RequestError::OverQuota,
            Failure::NoDescriptors => RequestError::NoDescriptors,
            Failure::Unsupported => RequestError::Unsupported,
            Failure::TooFarBehind => RequestError::Overloaded,
            Failure::Corrupt => RequestError::Corrupt,
        }
    }
}

/// Gives every command of one client runtime its number.
///
/// They start anywhere in 63 bits, so that the numbers of two lives of a member do not meet, and the remainder by the count of runtimes
/// is the runtime: whoever has an answer knows from its number alone where it belongs.
#[derive(Debug)]
pub(crate) struct Numbers {
    origin: u64,
    next: AtomicU64,
    runtimes: u64,
}

impl Numbers {
    /// For `client`, one of so many `runtimes` of the member `origin`; `start` is the same for all of them.
    pub(crate) fn new(origin: u64, start: u64, client: Client, runtimes: usize) -> Self {
        let (start, runtimes) = (start >> 1, runtimes as u64);
        let next = AtomicU64::new(start - start % runtimes + client.0 as u64);
        Numbers { origin, next, runtimes }
    }

    /// The client whose command has this number.
    pub(crate) fn client(number: u64, runtimes: usize) -> Client {
        Client((number % runtimes as u64) as usize)
    }

    fn take(&self, count: usize) -> impl Iterator<Item = u64> + use<> {
        let step = self.runtimes;
        let first = self.next.fetch_add(count as u64 * step, Ordering::Relaxed);
        (0..count as u64).map(move |place| first + place * step)
    }
}

#[derive(Debug)]
struct Shared {
    client: Client,
    mailbox: Mailbox,
    numbers: Numbers,
    /// The most bytes of commands that wait for their answer.
    most_bytes: u64,
    /// Only the runtime's own thread takes this lock: it is never waited for.
    requests: Mutex<Requests>,
    arrived: Notify,
    answers: Answers,
}

/// The other side of a gateway: where the replica and the applier leave answers. A request may be answered twice, when it is given up
/// just before it is applied: the first answer counts.
#[derive(Debug, Clone)]
pub(crate) struct Answers {
    shared: Arc<(Mutex<Vec<Answer>>, Notify)>,
}

impl Answers {
    /// Leaves `answers`, and wakes the runtime once.
    pub(crate) fn post(&self, answers: &mut Vec<Answer>) {
        let (waiting, arrived) = &*self.shared;
        waiting.lock().append(answers);
        arrived.notify_one();
    }
}

type WriteReply = oneshot::Sender<Result<Reply, RequestError>>;
type ReadReply = oneshot::Sender<Result<(), RequestError>>;
type LeaseReply = oneshot::Sender<Result<TimeLeft, RequestError>>;

#[derive(Debug, Default)]
struct Requests {
    /// Not yet handed to the replica.
    writes: Vec<(Operation, usize, WriteReply)>,
    reads: Vec<ReadReply>,
    /// Of which lease, and whether it is to live on.
    questions: Vec<(i64, bool, LeaseReply)>,
    /// With the replica.
    pending_writes: HashMap<u64, (WriteReply, usize)>,
    pending_reads: HashMap<u64, Vec<ReadReply>>,
    pending_questions: HashMap<u64, LeaseReply>,
    next_read: u64,
    waiting: usize,
    waiting_bytes: usize,
    stopped: bool,
}

impl Gateway {
    /// The door of the runtime `client`, whose commands may hold `most_bytes` while they wait for their answer. [`Gateway::run`] must be
    /// spawned there.
    pub(crate) fn new(
        client: Client,
        store: Arc<RwLock<Store>>,
        mailbox: Mailbox,
        numbers: Numbers,
        most_bytes: u64,
    ) -> Self {
        let shared = Shared {
            client,
            mailbox,
            numbers,
            most_bytes,
            requests: Mutex::default(),
            arrived: Notify::new(),
            answers: Answers { shared: Arc::default() },
        };
        Gateway { store, shared: Arc::new(shared) }
    }

    /// Has `operation` committed and applied, and returns the state's answer, as far as applying tells it.
    pub async fn propose(&self, operation: Operation) -> Result<Reply, RequestError> {
        let (reply, answer) = oneshot::channel();
        let bytes = operation.encoded_len();
        self.shared.arrive(bytes, |requests| requests.writes.push((operation, bytes, reply)))?;
        answer.await.unwrap_or(Err(RequestError::Stopping))
    }

    /// Waits until the local state holds everything that was acknowledged, anywhere, before this call (ReadIndex).
    pub async fn read_barrier(&self) -> Result<(), RequestError> {
        let (reply, answer) = oneshot::channel();
        self.shared.arrive(0, |requests| requests.reads.push(reply))?;
        answer.await.unwrap_or(Err(RequestError::Stopping))
    }

    /// What is left of lease `id`, which lives for its whole time again if that is wanted. The answer is of a leader that was confirmed after
    /// this call, and needs no entry of the log.
    pub async fn lease_time(&self, id: i64, renews: bool) -> Result<TimeLeft, RequestError> {
        let (reply, answer) = oneshot::channel();
        self.shared.arrive(0, |requests| requests.questions.push((id, renews, reply)))?;
        answer.await.unwrap_or(Err(RequestError::Stopping))
    }

    /// Begins to hand leadership over to `target`, or to the voter that is furthest. Whether it takes over is not waited for.
    pub async fn transfer(&self, target: Option<MemberId>) -> Result<MemberId, TransferError> {
        let busy = || TransferError::NotNow(ProposeError::NotLeader { leader: None });
        let (reply, answer) = oneshot::channel();
        self.shared.mailbox.send(Event::Transfer { target, reply }).map_err(|_| busy())?;
        answer.await.unwrap_or_else(|_| Err(busy()))
    }

    /// The local state. Locks are held for microseconds: never across an await.
    pub fn store(&self) -> &RwLock<Store> {
        &self.store
    }

    /// Where the replica leaves the answers.
    pub(crate) fn answers(&self) -> Answers {
        self.shared.answers.clone()
    }

    /// Carries requests in and answers out, on the runtime's own thread, for as long as that lives.
    pub(crate) async fn run(self) {
        let shared = &self.shared;
        loop {
            tokio::select! {
                () = shared.arrived.notified() => {
                    // Let every connection that is readable now be read first: what they bring goes along.
                    tokio::task::yield_now().await;
                    shared.hand_over();
                }
                () = shared.answers.shared.1.notified() => shared.resolve(),
            }
        }
    }
}

impl Shared {
    /// Takes in a request of so many bytes, and has it handed over soon. It counts from here on.
    fn arrive(&self, bytes: usize, push: impl FnOnce(&mut Requests)) -> Result<(), RequestError> {
        let mut requests = self.requests.lock();
        if requests.stopped {
            return Err(RequestError::Stopping);
        }
        if requests.waiting >= MAX_WAITING || requests.waiting_bytes as u64 >= self.most_bytes {
            return Err(RequestError::Overloaded);
        }
        requests.waiting += 1;
        requests.waiting_bytes += bytes;
        let first = requests.writes.is_empty() && requests.reads.is_empty() && requests.questions.is_empty();
        push(&mut requests);
        drop(requests);
        if first {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Hands everything that has arrived to the replica, as one event.
    fn hand_over(&self) {
        let mut requests = self.requests.lock();
        let writes = self.encode(&mut requests);
        let read = (!requests.reads.is_empty()).then(|| {
            let number = requests.next_read;
            requests.next_read += 1;
            let replies = std::mem::take(&mut requests.reads);
            requests.pending_reads.insert(number, replies);
            number
        });
        let questions = self.number_questions(&mut requests);
        drop(requests);
        if writes.is_empty() && read.is_none() && questions.is_empty() {
            return;
        }
        let numbers: Vec<u64> = writes.iter().map(|command| command.number).collect();
        let asked: Vec<u64> = questions.iter().map(|question| question.number).collect();
        let event = Event::Requests { client: self.client, writes, read, questions };
        if let Err(refused) = self.mailbox.send(event) {
            let stopped = matches!(refused, Refused::Closed);
            self.refuse(
                &numbers,
                read,
                &asked,
                &if stopped { RequestError::Stopping } else { RequestError::Overloaded },
            );
            self.requests.lock().stopped |= stopped;
        }
    }

    /// Numbers and encodes the writes that have arrived, and notes who waits for them.
    fn encode(&self, requests: &mut Requests) -> Vec<Command> {
        let arrived = std::mem::take(&mut requests.writes);
        let mut commands = Vec::with_capacity(arrived.len());
        for (number, (operation, weight, reply)) in self.numbers.take(arrived.len()).zip(arrived) {
            requests.pending_writes.insert(number, (reply, weight));
            commands.push(Command::new(self.numbers.origin, number, operation));
        }
        commands
    }

    /// Numbers the questions that have arrived, and notes who waits for them.
    fn number_questions(&self, requests: &mut Requests) -> Vec<Question> {
        let arrived = std::mem::take(&mut requests.questions);
        let mut questions = Vec::with_capacity(arrived.len());
        for (number, (id, renews, reply)) in self.numbers.take(arrived.len()).zip(arrived) {
            requests.pending_questions.insert(number, reply);
            questions.push(Question { number, id, renews });
        }
        questions
    }

    /// Answers requests that the replica has not taken.
    fn refuse(&self, writes: &[u64], read: Option<u64>, questions: &[u64], error: &RequestError) {
        let mut requests = self.requests.lock();
        for number in writes {
            requests.answer_write(*number, Err(error.clone()));
        }
        if let Some(number) = read {
            requests.answer_reads(number, &Err(error.clone()));
        }
        for number in questions {
            requests.answer_question(*number, Err(error.clone()));
        }
    }

    /// Passes on what the replica has answered.
    fn resolve(&self) {
        let answers = std::mem::take(&mut *self.answers.shared.0.lock());
        let mut requests = self.requests.lock();
        for Answer { number, outcome, .. } in answers {
            match outcome {
                Outcome::Applied(result) => requests.answer_write(number, result.map_err(RequestError::from)),
                Outcome::NotApplied(failure) => requests.answer_write(number, Err(failure.into())),
                Outcome::Readable => requests.answer_reads(number, &Ok(())),
                Outcome::NotReadable(failure) => requests.answer_reads(number, &Err(failure.into())),
                Outcome::Lease(time) => requests.answer_question(number, time.map_err(RequestError::from)),
            }
        }
    }
}

impl Requests {
    fn answer_write(&mut self, number: u64, result: Result<Reply, RequestError>) {
        if let Some((reply, bytes)) = self.pending_writes.remove(&number) {
            self.waiting -= 1;
            self.waiting_bytes -= bytes;
            // A client that has gone away does not want it any more.
            let _ = reply.send(result);
        }
    }

    fn answer_question(&mut self, number: u64, result: Result<TimeLeft, RequestError>) {
        if let Some(reply) = self.pending_questions.remove(&number) {
            self.waiting -= 1;
            let _ = reply.send(result);
        }
    }

    fn answer_reads(&mut self, number: u64, result: &Result<(), RequestError>) {
        for reply in self.pending_reads.remove(&number).into_iter().flatten() {
            self.waiting -= 1;
            let _ = reply.send(result.clone());
        }
    }
}

#[cfg(test)]
mod local {
    use super::*;
    use crate::command;
    use crate::doors::event::Event;
    use crate::doors::mailbox::mailbox;
    use crate::level::Levels;

    impl Gateway {
        /// A door to nothing but `store`: commands are applied as they come. For tests of what stands before the gateway,
        /// inside a runtime.
        pub(crate) fn local(store: Arc<RwLock<Store>>) -> Self {
            let (mailbox, events) = mailbox();
            let gateway = Gateway::new(Client(0), store, mailbox, Numbers::new(1, 2, Client(0), 1), 64 << 20);
            let (store, answers) = (Arc::clone(&gateway.store), gateway.answers());
            tokio::spawn(gateway.clone().run());
            tokio::spawn(async move {
                loop {
                    events.arrived().await;
                    let mut taken = Vec::new();
                    events.take(&mut taken);
                    for event in taken {
                        answer(event, &store, &answers);
                    }
                }
            });
            gateway
        }
    }

    fn answer(event: Event, store: &RwLock<Store>, answers: &Answers) {
        let Event::Requests { client, writes, read, .. } = event else { panic!("{event:?} is no request") };
        let mut batch: Vec<Answer> = writes
            .into_iter()
            .map(|Command { number, bytes, .. }| {
                let operation = command::read(bytes.clone(), Levels::ALL).unwrap().operation;
                let mut applying = crate::kv::Applying::new(operation, &bytes, true);
                let result = loop {
                    if let Some(result) = applying.step(&mut store.write(), 16) {
                        break result;
                    }
                };
                let outcome = Outcome::Applied(result);
                Answer { client, number, outcome }
            })
            .collect();
        batch.extend(read.map(|number| Answer { client, number, outcome: Outcome::Readable }));
        answers.post(&mut batch);
    }
}
