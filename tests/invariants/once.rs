//! A command is committed once at most, however often it was handed over.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message as _;
use quorate_api::log;
use quorate_raft::{LogId, MemberId};

/// Whose command, and its number.
type Command = (MemberId, u64);

#[derive(Debug, Default)]
pub(crate) struct Once {
    commands: HashMap<LogId, Command>,
    places: HashMap<Command, LogId>,
}

impl Once {
    /// A command came into a log for the first time at this place.
    pub(crate) fn appended(&mut self, id: LogId, bytes: &Bytes) {
        let command = log::Command::decode(bytes.clone()).expect("clients send commands");
        self.commands.insert(id, (MemberId(command.origin), command.request));
    }

    /// An entry is committed.
    pub(crate) fn committed(&mut self, id: LogId) {
        let Some(command) = self.commands.get(&id) else { return };
        if let Some(other) = self.places.insert(*command, id) {
            panic!("ONCE: command {} of {} is committed at {other:?} and at {id:?}", command.1, command.0);
        }
    }

    /// Where a command was committed.
    pub(crate) fn place(&self, command: Command) -> Option<LogId> {
        self.places.get(&command).copied()
    }
}
