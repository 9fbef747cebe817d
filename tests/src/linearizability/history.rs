//! What clients did and saw, and when.

use std::fmt;
use std::sync::Mutex;
use std::time::Instant;

/// Nanoseconds since the recorder was made.
pub type Time = u64;

/// One operation of one client.
///
/// | `output` | `returned` | meaning |
/// |---|---|---|
/// | some | some | it was answered |
/// | none | some | it took effect before `returned`; its answer is not known |
/// | none | none | it may take effect at any time after its invocation, or never |
#[derive(Debug, Clone)]
pub struct Operation<I, O> {
    /// Which client; one client does one operation after another.
    pub client: u32,
    /// What was asked.
    pub input: I,
    /// What was answered.
    pub output: Option<O>,
    /// Just before the request was sent.
    pub invoked: Time,
    /// Just after the answer came.
    pub returned: Option<Time>,
}

impl<I: fmt::Display, O: fmt::Display> fmt::Display for Operation<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = milliseconds(self.invoked);
        write!(f, "client {:>2}  ", self.client)?;
        match self.returned {
            Some(returned) => write!(f, "{from:>10.3} to {:>10.3} ms  ", milliseconds(returned))?,
            None => write!(f, "{from:>10.3} to        ... ms  ")?,
        }
        match &self.output {
            Some(output) => write!(f, "{} -> {output}", self.input),
            None => write!(f, "{} -> no answer", self.input),
        }
    }
}

fn milliseconds(time: Time) -> f64 {
    time as f64 / 1e6
}

/// Everything that the clients did, in order of invocation.
pub type History<I, O> = Vec<Operation<I, O>>;

/// Records the operations of all clients of one process, on one monotonic clock.
///
/// An operation that is begun and never ended stays in the history without an answer: a client that is dropped in the middle of
/// a request is recorded rightly.
#[derive(Debug)]
pub struct Recorder<I, O> {
    start: Instant,
    operations: Mutex<Vec<Option<Operation<I, O>>>>,
}

/// An operation that has begun. Dropping it leaves the operation without an answer.
#[derive(Debug)]
#[must_use]
pub struct Begun(usize);

impl<I, O> Default for Recorder<I, O> {
    fn default() -> Self {
        Self { start: Instant::now(), operations: Mutex::new(Vec::new()) }
    }
}

impl<I: Clone, O: Clone> Recorder<I, O> {
    /// The time since the recorder was made.
    pub fn now(&self) -> Time {
        // Five centuries fit.
        self.start.elapsed().as_nanos() as Time
    }

    /// Call this before the request is sent.
    pub fn begin(&self, client: u32, input: I) -> Begun {
        let mut operations = self.lock();
        // Under the lock: the history is in order of invocation.
        let invoked = self.now();
        operations.push(Some(Operation { client, input, output: None, invoked, returned: None }));
        Begun(operations.len() - 1)
    }

    /// The answer has come.
    pub fn answered(&self, Begun(at): Begun, output: O) {
        let returned = self.now();
        if let Some(operation) = self.lock()[at].as_mut() {
            operation.output = Some(output);
            operation.returned = Some(returned);
        }
    }

    /// It is certain that the operation had no effect and never will: it is struck from the history.
    pub fn refused(&self, Begun(at): Begun) {
        self.lock()[at] = None;
    }

    /// The history so far.
    pub fn history(&self) -> History<I, O> {
        self.lock().iter().flatten().cloned().collect()
    }

    /// How many operations were answered so far.
    pub fn answers(&self) -> usize {
        self.lock().iter().flatten().filter(|operation| operation.output.is_some()).count()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Option<Operation<I, O>>>> {
        self.operations.lock().expect("no client panics while it records")
    }
}
