//! The copy of a member's state: how it is read when a process starts, and written behind the state, as the server's thread does it.
//!
//! What is left out is the file that tells of an engine that ends its process: the simulated one does not.

use std::cell::Cell;

use quorate_node::copy::{self, Engine, EngineError, Kept};
use quorate_node::kv::Store;
use quorate_node::replica::Room;
use quorate_node::server::start::Found;
use quorate_raft::{LogId, MemberId};

use crate::disk::Spoilt;
use crate::host::{Host, name};
use crate::schedule::Copying;
use crate::time::{MILLI, Time};
use crate::world::{Event, World};

/// A rest between two steps.
const REST: Time = 4 * MILLI;

/// How long it leaves an engine alone that has failed, in times that it is written.
const PAUSE: u64 = 3;

/// What a process has seen of the copy when it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// What had happened to it.
    pub(crate) spoilt: Option<Spoilt>,
    judgement: Judgement,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Judgement {
    #[default]
    None,
    Failed,
    Empty,
    Damaged,
    /// The state after this entry is not one to start from.
    Unfit(LogId),
    Used(LogId),
}

/// The engine, and what could be read from it.
type Opened = (Box<dyn Engine>, Option<Store>);

impl Host {
    /// Opens the copy, and reads what is in it.
    pub(crate) fn open_copy(&self, is_known: &dyn Fn(LogId) -> bool, seen: &mut Seen) -> Option<Opened> {
        let mut engine = self.engine.clone()?;
        let was_empty = engine.is_empty();
        let asked = Cell::new(None);
        let read = copy::read(&mut engine, self.id, |id| {
            asked.set(Some(id));
            is_known(id)
        });
        seen.judgement = match (&read, asked.get()) {
            (Err(_), _) => Judgement::Failed,
            (Ok(Some(state)), _) => Judgement::Used(state.applied()),
            (Ok(None), Some(id)) => Judgement::Unfit(id),
            (Ok(None), None) if was_empty => Judgement::Empty,
            (Ok(None), None) => Judgement::Damaged,
        };
        Some((Box::new(engine), read.ok()?))
    }
}

impl World {
    /// A process has started, with or without the copy.
    pub(crate) fn note_copy(&mut self, id: MemberId, seen: Seen, found: &Found) {
        let spoilt = seen.spoilt.map(|spoilt| match spoilt {
            Spoilt::Gone => "starts on a copy that was lost",
            Spoilt::Older => "starts on an older copy",
            Spoilt::Flipped => "starts on a copy with a flipped bit",
        });
        let covered = found.archive.newest().map_or(0, |manifest| manifest.id().index);
        let judged = match seen.judgement {
            Judgement::None => None,
            Judgement::Failed => Some("starts without a copy: the engine fails"),
            Judgement::Empty => Some("starts on an empty copy"),
            Judgement::Damaged => Some("starts on a copy that is damaged"),
            Judgement::Unfit(at) if at.index < covered => Some("starts on a copy behind the snapshot"),
            Judgement::Unfit(_) => Some("starts on a copy that is not of the log"),
            Judgement::Used(_) => Some("starts from the copy"),
        };
        spoilt.into_iter().chain(judged).for_each(|reached| self.coverage.count(reached));
        if let Judgement::Used(at) = seen.judgement
            && at.index > found.restored.hard_state.commit
        {
            self.coverage.count("starts from the copy ahead of what is known to be committed");
        }
        self.say(|| format!("{} looks at its copy: {seen:?}", name(id)));
    }

    /// A process writes its copy: a step, if there is something to write.
    pub(crate) fn on_keep(&mut self, id: MemberId, life: u32) {
        let now = self.now();
        let Some(Copying { every, .. }) = self.plan.copying else { return };
        let Some(host) = self.hosts.get_mut(&id).filter(|host| host.life == life) else { return };
        host.engine.iter().for_each(|engine| engine.begin(now));
        let Some(process) = host.process_mut() else { return };
        let Some(keeper) = &mut process.keeper else { return };
        if process.replica.room() != Room::Enough {
            let _ = keeper.give_up();
            self.coverage.count("copies given up: no room");
            return self.agenda.after(every, Event::Keep(id, life));
        }
        let (lag, continues) = (keeper.lag(), std::mem::take(&mut process.copy_continues));
        if lag == 0 && !continues {
            return self.agenda.after(every, Event::Keep(id, life));
        }
        let kept = keeper.step();
        process.copy_continues = matches!(kept, Ok(Kept::More));
        if lag == u64::MAX && kept.is_ok() {
            self.coverage.count("copies begun anew");
        }
        self.kept(id, life, every, &kept);
    }

    /// A step was made: when the next one is.
    fn kept(&mut self, id: MemberId, life: u32, every: Time, kept: &Result<Kept, EngineError>) {
        let (reached, rest) = match kept {
            Ok(Kept::All) => ("copies brought up to date", every),
            Ok(Kept::More) => ("copies written in several steps", REST),
            Err(_) => ("copies that failed", PAUSE * every),
        };
        self.coverage.count(reached);
        self.say(|| format!("{} writes its copy: {kept:?}", name(id)));
        self.agenda.after(rest, Event::Keep(id, life));
    }
}
