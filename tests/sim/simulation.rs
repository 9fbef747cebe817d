//! One run, from its seed to its outcome.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use crate::coverage::Coverage;
use crate::diary::Diary;
use crate::schedule::Plan;
use crate::time::Time;
use crate::world::World;

/// What a run that held was like.
#[derive(Debug, Clone)]
pub(crate) struct Summary {
    /// Virtual time, and that of all members together.
    pub(crate) time: Time,
    pub(crate) events: u64,
    pub(crate) operations: usize,
    pub(crate) coverage: Coverage,
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// Two runs of the same seed have the same.
    pub(crate) digest: u64,
}

/// What broke.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) what: String,
}

thread_local! {
    /// What the last panic of this thread said, and where.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `seed`, with all its faults or only `kept`.
pub(crate) fn run(seed: u64, kept: Option<&BTreeSet<usize>>, diary: &Diary) -> Result<Summary, Failure> {
    listen();
    let plan = Plan::draw(seed);
    let plan = match kept {
        Some(kept) => plan.with_only(kept),
        None => plan,
    };
    let diary = diary.clone();
    let run = AssertUnwindSafe(|| {
        let mut world = World::new(plan, diary);
        world.run();
        summary(&world)
    });
    panic::catch_unwind(run).map_err(|_| Failure { what: SAID.take() })
}

fn summary(world: &World) -> Summary {
    let mut hasher = DefaultHasher::new();
    let (history, stale) = world.clients.histories();
    for operation in history.iter().chain(&stale) {
        let revision = operation.output.as_ref().map(|output| output.revision);
        (operation.client, operation.invoked, operation.returned, revision).hash(&mut hasher);
    }
    (world.agenda.count(), world.now()).hash(&mut hasher);
    Summary {
        time: world.now(),
        events: world.agenda.count(),
        operations: world.clients.count(),
        coverage: world.coverage.clone(),
        faults: world.struck.clone(),
        digest: hasher.finish(),
    }
}

/// A run that breaks says so by a panic, of an invariant here or an assertion of the code under test: it is kept, not printed.
fn listen() {
    static LISTENS: Once = Once::new();
    LISTENS.call_once(|| {
        panic::set_hook(Box::new(|info| {
            let what = info.payload_as_str().unwrap_or("a panic that says nothing").to_owned();
            let place =
                info.location().map(|at| format!(" ({}:{})", at.file(), at.line())).unwrap_or_default();
            SAID.replace(what + &place);
        }));
    });
}
