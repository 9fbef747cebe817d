//! What must hold at every step, whatever happens.

use std::collections::BTreeMap;

use quorate_raft::{Body, Entry, LogId, MemberId, Message, Payload, Role, Snapshot, Status, Term};

use crate::harness::{Host, at};

/// What has been seen so far, in the whole cluster.
#[derive(Default)]
pub(crate) struct Seen {
    leaders: BTreeMap<Term, MemberId>,
    votes: BTreeMap<(Term, MemberId), MemberId>,
    entries: BTreeMap<LogId, (Payload, Term)>,
    /// What any member knew to be committed.
    pub(crate) committed: Vec<Entry>,
    /// In which term each of these was first known to be committed: later leaders hold it.
    known_in: Vec<Term>,
}

impl Seen {
    /// What every history begins with.
    pub(crate) fn founded(&mut self, entries: &[Entry]) {
        self.entries_written(entries, entries);
        self.committed.extend_from_slice(entries);
        self.known_in.extend(entries.iter().map(|entry| entry.term));
    }

    /// Log Matching (figure 3): an entry's name stands for one entry, and for what comes before it.
    pub(crate) fn entries_written(&mut self, log: &[Entry], written: &[Entry]) {
        for entry in written {
            let index = entry.index - 1;
            let compacted = || at(&self.committed, index);
            let before = at(log, index).or_else(compacted).map_or(0, |entry| entry.term);
            let value = (entry.payload.clone(), before);
            let known = self.entries.entry(entry.id()).or_insert_with(|| value.clone());
            assert_eq!(*known, value, "log matching at {:?}", entry.id());
        }
    }

    /// Election Safety and Leader Completeness (figure 3).
    pub(crate) fn status(&mut self, host: &Host, status: &Status) {
        if status.role == Role::Leader {
            let known = *self.leaders.entry(status.term).or_insert(status.id);
            assert_eq!(known, status.id, "election safety in term {}", status.term);
            let earlier = self.known_in.partition_point(|term| *term < status.term);
            let newest = at(&self.committed, earlier as u64);
            if let Some(newest) = newest.filter(|newest| newest.index > host.covered().index) {
                assert_eq!(
                    at(&host.log, newest.index),
                    Some(newest),
                    "leader completeness in term {}",
                    status.term
                );
            }
        }
        self.committed_at(host, status);
    }

    /// A message leaves: what it says about its sender is on the sender's disk (failures 2 to 5).
    pub(crate) fn sent(&mut self, host: &Host, message: &Message) {
        let disk = &host.disk.hard_state;
        let speaks_of_next_term = matches!(
            message.body,
            Body::RequestVote { pre_vote: true, .. } | Body::Vote { pre_vote: true, granted: true }
        );
        assert!(
            speaks_of_next_term || message.term <= disk.term,
            "shows a term that is not durable: {message:?}"
        );
        match &message.body {
            Body::AppendAccepted { matched } => {
                assert!(host.durable() >= *matched, "not durable: {message:?}");
            }
            Body::Vote { pre_vote: false, granted: true } => {
                assert_eq!((disk.term, disk.vote), (message.term, Some(message.to)), "vote not durable");
                let voted = *self.votes.entry((message.term, message.from)).or_insert(message.to);
                assert_eq!(voted, message.to, "two votes of {} in term {}", message.from, message.term);
            }
            Body::RequestVote { pre_vote: false, .. } => {
                assert_eq!(
                    (disk.term, disk.vote),
                    (message.term, Some(message.from)),
                    "own vote not durable"
                );
            }
            _ => {}
        }
    }

    /// State Machine Safety (figure 3), and that what is applied is durable here.
    pub(crate) fn applied(&mut self, host: &Host, entries: &[Entry]) {
        for (entry, index) in entries.iter().zip(host.applied + 1..) {
            assert_eq!(entry.index, index, "applied in order");
            assert_eq!(at(&host.disk.entries, index), Some(entry), "applied before it was durable");
            assert_eq!(at(&self.committed, index), Some(entry), "state machine safety at {index}");
        }
    }

    /// A snapshot covers what is committed, with the configuration that counted there (failure 22).
    pub(crate) fn snapshot(&self, snapshot: &Snapshot) {
        let covered = &self.committed[..snapshot.id.index as usize];
        assert_eq!(covered.last().map(Entry::id), Some(snapshot.id), "a snapshot of what is not committed");
        let newest = covered.iter().rev().find_map(|entry| match &entry.payload {
            Payload::Configuration(configuration) => Some((entry.id(), &**configuration)),
            _ => None,
        });
        assert_eq!(newest, Some((snapshot.configuration_id, &snapshot.configuration)));
    }

    /// What `host` takes to be committed is what everyone else does.
    fn committed_at(&mut self, host: &Host, status: &Status) {
        let commit = status.commit;
        let known = self.committed.len() as u64;
        for index in known + 1..=commit {
            self.committed.push(at(&host.log, index).expect("what is committed is in the log").clone());
            self.known_in.push(status.term.max(self.known_in.last().copied().unwrap_or_default()));
        }
        if let Some(newest) = at(&host.log, commit.min(known)) {
            assert_eq!(
                at(&self.committed, newest.index),
                Some(newest),
                "two values committed at {}",
                newest.index
            );
        }
    }
}
