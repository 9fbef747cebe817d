//! Fetches the snapshot that this member lacks: its manifest, and then its pieces, some megabytes of them at a time, from whoever has them.
//!
//! Every member's snapshot at an entry is the same bytes, so a source that falls silent, or has another file in its place, is left
//! for the next one, and what has come stays. Those that follow are asked before the leader: it has enough to do.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use quorate_raft::{LogId, MemberId, Snapshot, Status};

use super::Message;
use crate::snapshots::{Found, Job, Manifest, Part, SnapshotError};

/// What is asked for and has not come, in bytes: a source that is 50 ms away, and answers 100 ms later, sends 80 MB in a second.
const ASKED_BYTES: usize = 8 << 20;

/// The same together with what has come and is not written yet: what a transfer holds in memory here.
const WINDOW_BYTES: usize = 16 << 20;

/// How long the first source is given for the manifest, in ticks; the next one twice as long, up to the patience. A question may be lost
/// because the connection is only being made, or the source may not have heard of this member. The answer of any that was asked is
/// taken.
const FIRST_QUESTION: u64 = 5;

/// How often every source may say that it does not have it, or send something else, in a row, before the snapshot is given up: then
/// what the leader offers next is wanted. Silence does not count: what has come stays while this member is cut off.
const ROUNDS: usize = 3;

/// For how often the patience with a source nothing is tried again after a failure of this member's own.
const REST: u64 = 4;

/// The snapshot that is being fetched, if any.
#[derive(Debug)]
pub(super) struct Fetcher {
    me: MemberId,
    /// For how long nothing may come of what was asked for, in ticks.
    patience: u64,
    fetch: Option<Fetch>,
    /// Nothing is begun before: the last one failed here, and would fail again.
    rests_until: u64,
    /// What is to be said of it, and done about it.
    pub(super) messages: Vec<Message>,
    pub(super) jobs: Vec<Job>,
    /// Parts that did not match their hashes.
    pub(super) refused: u64,
}

#[derive(Debug)]
struct Fetch {
    snapshot: Snapshot,
    sources: Vec<MemberId>,
    /// Which of them is asked.
    source: usize,
    /// Sources that had nothing, or something wrong, since something right came last.
    failures: usize,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The manifest was asked for at this tick, and the answer may take so long.
    Manifest(u64, u64),
    Pieces {
        manifest: Box<Manifest>,
        /// Not asked for yet, or in vain.
        missing: VecDeque<u32>,
        /// Asked for, and not here yet.
        asked: BTreeSet<u32>,
        /// When the last one came, or the first of them was asked for: a source is given up when nothing comes of it, however much was
        /// asked for at once.
        heard: u64,
        /// Those that have come, and are being written.
        writing: usize,
    },
    /// All pieces are written. The state is being restored.
    Restoring,
}

impl Fetcher {
    pub(super) fn new(me: MemberId, patience: u64) -> Self {
        Self { me, patience, fetch: None, rests_until: 0, messages: Vec::new(), jobs: Vec::new(), refused: 0 }
    }

    /// What the protocol wants now. A fetch that is of no use any more is given up.
    pub(super) fn follow(&mut self, wanted: Option<Snapshot>, status: &Status, now: u64) {
        let wanted_id = wanted.as_ref().map(|snapshot| snapshot.id);
        if self.id() == wanted_id {
            return;
        }
        if self.fetch.take().is_some() {
            self.jobs.push(Job::Abandon);
        }
        let Some(snapshot) = wanted.filter(|_| now >= self.rests_until) else { return };
        tracing::info!(
            index = snapshot.id.index,
            term = snapshot.id.term,
            "fetches a snapshot: the log it needs is gone"
        );
        let sources = self.sources(&snapshot, status);
        let stage = Stage::Manifest(now, 0);
        self.fetch = Some(Fetch { snapshot, sources, source: 0, failures: 0, stage });
        self.ask_manifest(now);
    }

    /// The snapshot that is being fetched.
    pub(super) fn id(&self) -> Option<LogId> {
        self.fetch.as_ref().map(|fetch| fetch.snapshot.id)
    }

    /// How many pieces have come, of how many.
    pub(super) fn progress(&self) -> Option<(u32, u32)> {
        match &self.fetch.as_ref()?.stage {
            Stage::Manifest(..) | Stage::Restoring => None,
            Stage::Pieces { manifest, missing, asked, .. } => {
                let left = (missing.len() + asked.len()) as u32;
                Some((manifest.pieces() - left, manifest.pieces()))
            }
        }
    }

    /// Whoever may have it: those that follow, and then the leader.
    fn sources(&self, snapshot: &Snapshot, status: &Status) -> Vec<MemberId> {
        let mut members = snapshot.configuration.members();
        members.extend(status.configuration.members());
        members.remove(&self.me);
        let leader = status.leader.filter(|leader| *leader != self.me);
        members.into_iter().filter(|id| Some(*id) != leader).chain(leader).collect()
    }

    /// A manifest has come.
    pub(super) fn manifest(&mut self, from: MemberId, manifest: Manifest, now: u64) {
        let Some(fetch) = &mut self.fetch else { return };
        if !matches!(fetch.stage, Stage::Manifest(..)) || manifest.id() != fetch.snapshot.id {
            return;
        }
        if manifest.snapshot != fetch.snapshot {
            tracing::warn!(%from, "a member's snapshot has another configuration than the leader's: refused");
            self.refused += 1;
            fetch.failures += 1;
            return self.next_source(now);
        }
        tracing::info!(
            bytes = manifest.bytes(),
            pieces = manifest.pieces(),
            "fetches the pieces of a snapshot"
        );
        fetch.failures = 0;
        self.jobs.push(Job::Receive(manifest.clone()));
        let missing = (0..manifest.pieces()).collect();
        let manifest = Box::new(manifest);
        fetch.stage = Stage::Pieces { manifest, missing, asked: BTreeSet::new(), heard: now, writing: 0 };
        self.ask_pieces(now);
    }

    /// A piece has come.
    pub(super) fn piece(&mut self, from: MemberId, id: LogId, number: u32, bytes: Bytes, now: u64) {
        let Some(fetch) = self.fetch.as_mut().filter(|fetch| fetch.snapshot.id == id) else { return };
        let Stage::Pieces { manifest, missing, asked, heard, writing } = &mut fetch.stage else { return };
        if !asked.remove(&number) {
            return;
        }
        if !manifest.fits(number, &bytes) {
            tracing::warn!(%from, number, "a piece of a snapshot does not match its hash: refused");
            missing.push_front(number);
            self.refused += 1;
            fetch.failures += 1;
            return self.next_source(now);
        }
        *writing += 1;
        *heard = now;
        fetch.failures = 0;
        self.jobs.push(Job::Write(id, number, bytes));
        self.ask_pieces(now);
    }

    /// A source does not have it.
    pub(super) fn missing(&mut self, from: MemberId, id: LogId, now: u64) {
        let Some(fetch) = self.fetch.as_mut().filter(|fetch| fetch.snapshot.id == id) else { return };
        if fetch.sources.get(fetch.source) == Some(&from) {
            fetch.failures += 1;
            self.next_source(now);
        }
    }

    /// A source has another than what others hold. Once that is so of all of them nothing is begun for a while: nobody can tell which one is right.
    /// Whether it was given up.
    pub(super) fn contradicted(&mut self, from: MemberId, id: LogId, now: u64) -> bool {
        let Some(fetch) = self.fetch.as_mut().filter(|fetch| fetch.snapshot.id == id) else { return false };
        if !matches!(fetch.stage, Stage::Manifest(..)) {
            return false;
        }
        self.refused += 1;
        fetch.failures += 1;
        if fetch.failures >= fetch.sources.len() {
            return self.failed(id, now);
        }
        if fetch.sources.get(fetch.source) == Some(&from) {
            self.next_source(now);
        }
        false
    }

    /// A piece that has come is written.
    pub(super) fn written(&mut self, id: LogId, now: u64) {
        let Some(fetch) = self.fetch.as_mut().filter(|fetch| fetch.snapshot.id == id) else { return };
        let Stage::Pieces { missing, asked, writing, .. } = &mut fetch.stage else { return };
        *writing = writing.saturating_sub(1);
        if missing.is_empty() && asked.is_empty() && *writing == 0 {
            fetch.stage = Stage::Restoring;
        } else {
            self.ask_pieces(now);
        }
    }

    /// The snapshot `id` is here, or cannot be had. Whether that is the one that was being fetched.
    pub(super) fn ended(&mut self, id: LogId) -> bool {
        self.fetch.take_if(|fetch| fetch.snapshot.id == id).is_some()
    }

    /// The same; it failed here. The disk is full, perhaps: it is given some time.
    pub(super) fn failed(&mut self, id: LogId, now: u64) -> bool {
        self.rests_until = now + REST * self.patience;
        self.ended(id)
    }

    /// Time passes. What has not come is asked for again, elsewhere. Returns the snapshot that nobody seems to have.
    pub(super) fn tick(&mut self, now: u64) -> Option<LogId> {
        let fetch = self.fetch.as_mut()?;
        let is_late = match &fetch.stage {
            Stage::Manifest(asked, patience) => now >= asked + patience,
            Stage::Pieces { asked, heard, .. } => !asked.is_empty() && now >= heard + self.patience,
            Stage::Restoring => false,
        };
        if is_late {
            self.next_source(now);
        }
        let fetch = self.fetch.as_ref()?;
        (fetch.failures > ROUNDS * fetch.sources.len()).then_some(fetch.snapshot.id)
    }

    fn next_source(&mut self, now: u64) {
        let Some(fetch) = &mut self.fetch else { return };
        fetch.source = (fetch.source + 1) % fetch.sources.len().max(1);
        match &mut fetch.stage {
            Stage::Manifest(..) => self.ask_manifest(now),
            Stage::Pieces { missing, asked, heard, .. } => {
                // They were asked of the other one.
                std::mem::take(asked).into_iter().rev().for_each(|number| missing.push_front(number));
                *heard = now;
                self.ask_pieces(now);
            }
            Stage::Restoring => {}
        }
    }

    fn ask_manifest(&mut self, now: u64) {
        let Some(fetch) = &mut self.fetch else { return };
        let Stage::Manifest(_, before) = fetch.stage else { return };
        let patience = (2 * before).max(FIRST_QUESTION).min(self.patience);
        fetch.stage = Stage::Manifest(now, patience);
        let id = fetch.snapshot.id;
        self.ask(id, Part::Manifest);
    }

    fn ask_pieces(&mut self, now: u64) {
        let Some(Fetch {
            snapshot, stage: Stage::Pieces { manifest, missing, asked, heard, writing }, ..
        }) = &mut self.fetch
        else {
            return;
        };
        let (id, mut numbers) = (snapshot.id, Vec::new());
        let (most_asked, most) = (pieces_of(manifest, ASKED_BYTES), pieces_of(manifest, WINDOW_BYTES));
        if asked.is_empty() {
            *heard = now;
        }
        while asked.len() < most_asked
            && asked.len() + *writing < most
            && let Some(number) = missing.pop_front()
        {
            asked.insert(number);
            numbers.push(number);
        }
        for number in numbers {
            self.ask(id, Part::Piece(number));
        }
    }

    fn ask(&mut self, id: LogId, part: Part) {
        let Some(fetch) = &self.fetch else { return };
        if let Some(to) = fetch.sources.get(fetch.source) {
            self.messages.push(Message::SnapshotRequest { from: self.me, to: *to, id, part });
        }
    }
}

/// How many pieces so many bytes are; at least one.
fn pieces_of(manifest: &Manifest, bytes: usize) -> usize {
    (bytes / manifest.piece_bytes(0).max(1)).max(1)
}

/// The answer to a member that asked for a part.
pub(super) fn answer(from: MemberId, to: MemberId, id: LogId, part: Part, found: Option<Found>) -> Message {
    match (found, part) {
        (Some(Found::Manifest(manifest)), _) => {
            Message::SnapshotManifest { from, to, manifest: Box::new(manifest) }
        }
        (Some(Found::Piece(bytes)), Part::Piece(number)) => {
            Message::SnapshotPiece { from, to, id, number, bytes }
        }
        (Some(Found::Piece(_) | Found::Damaged) | None, _) => Message::SnapshotMissing { from, to, id },
    }
}

/// Says why a snapshot did not come.
pub(super) fn complain(id: LogId, error: &SnapshotError) {
    tracing::warn!(index = id.index, %error, "a snapshot was not received; it will be tried again");
}

#[cfg(test)]
mod tests {
    use quorate_api::snapshot as wire;
    use quorate_raft::Role;

    use super::*;

    const ID: LogId = LogId { term: 2, index: 7 };

    fn snapshot() -> Snapshot {
        let configuration_id = LogId { term: 1, index: 1 };
        let voters = [1, 2, 3].map(MemberId).into();
        let configuration = quorate_raft::Configuration { voters, ..Default::default() };
        Snapshot { id: ID, configuration, configuration_id }
    }

    fn manifest_of(pieces: &[&[u8]]) -> Manifest {
        let hashes: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| ring::digest::digest(&ring::digest::SHA256, piece).as_ref().to_vec())
            .collect();
        let wire = wire::Manifest {
            index: ID.index,
            term: ID.term,
            configuration: Some(crate::codec::configuration_to_wire(&snapshot().configuration)),
            configuration_index: 1,
            configuration_term: 1,
            bytes: pieces.iter().map(|piece| piece.len() as u64).sum(),
            hashes: hashes.into(),
            piece_bytes: pieces[0].len().next_multiple_of(4096) as u32,
            level: crate::level::FIRST,
        };
        Manifest::from_wire(wire).unwrap()
    }

    fn fetcher() -> Fetcher {
        let status = Status {
            id: MemberId(1),
            role: Role::Follower,
            term: 2,
            leader: Some(MemberId(2)),
            last: LogId::default(),
            commit: 0,
            configuration: snapshot().configuration,
            configuration_id: LogId::default(),
            disk_hangs: false,
            repairing: false,
            contradiction: None,
        };
        let mut fetcher = Fetcher::new(MemberId(1), 10);
        fetcher.follow(Some(snapshot()), &status, 0);
        fetcher
    }

    /// Whom it asks, for what.
    fn asked(fetcher: &mut Fetcher) -> Vec<(u64, Part)> {
        let asked = |message| match message {
            Message::SnapshotRequest { to, part, .. } => (to.0, part),
            other => panic!("{other:?}"),
        };
        fetcher.messages.drain(..).map(asked).collect()
    }

    #[test]
    fn a_follower_is_asked_before_the_leader() {
        let mut fetcher = fetcher();
        assert_eq!(asked(&mut fetcher), [(3, Part::Manifest)]);
        fetcher.missing(MemberId(3), ID, 1);
        assert_eq!(asked(&mut fetcher), [(2, Part::Manifest)]);
    }

    #[test]
    fn so_many_bytes_are_under_way_and_wrong_pieces_come_from_elsewhere() {
        let pieces: Vec<Vec<u8>> = (0..24).map(|n| vec![n; 1 << 20]).collect();
        let pieces: Vec<&[u8]> = pieces.iter().map(|piece| &piece[..]).collect();
        let mut fetcher = fetcher();
        asked(&mut fetcher);
        fetcher.manifest(MemberId(3), manifest_of(&pieces), 1);
        assert!(matches!(fetcher.jobs[..], [Job::Receive(_)]));
        assert_eq!(asked(&mut fetcher), [0, 1, 2, 3, 4, 5, 6, 7].map(|n| (3, Part::Piece(n))));
        // While some are written others are asked for, up to twice as many in all.
        for number in 0..8 {
            fetcher.piece(MemberId(3), ID, number, pieces[number as usize].to_vec().into(), 2);
            assert_eq!(asked(&mut fetcher), [(3, Part::Piece(8 + number))]);
        }
        fetcher.piece(MemberId(3), ID, 8, pieces[8].to_vec().into(), 2);
        assert!(asked(&mut fetcher).is_empty(), "none is written yet");
        fetcher.written(ID, 2);
        assert_eq!(asked(&mut fetcher), [(3, Part::Piece(16))]);
        // Another piece in its place: all that is under way is asked of the other one.
        fetcher.piece(MemberId(3), ID, 9, pieces[2].to_vec().into(), 3);
        assert_eq!(fetcher.refused, 1);
        assert_eq!(asked(&mut fetcher), [10, 11, 12, 13, 14, 15, 16, 9].map(|n| (2, Part::Piece(n))));
    }

    #[test]
    fn a_source_is_left_when_nothing_comes_not_when_much_takes_long() {
        let pieces: Vec<Vec<u8>> = (0..8).map(|n| vec![n; 4096]).collect();
        let pieces: Vec<&[u8]> = pieces.iter().map(|piece| &piece[..]).collect();
        let mut fetcher = fetcher();
        asked(&mut fetcher);
        fetcher.manifest(MemberId(3), manifest_of(&pieces), 0);
        asked(&mut fetcher);
        let mut now = 0;
        for number in 0..6 {
            now += 8;
            assert_eq!(fetcher.tick(now), None);
            assert!(asked(&mut fetcher).is_empty(), "it sends");
            fetcher.piece(MemberId(3), ID, number, pieces[number as usize].to_vec().into(), now);
            fetcher.written(ID, now);
        }
        fetcher.tick(now + 10);
        assert_eq!(asked(&mut fetcher), [6, 7].map(|n| (2, Part::Piece(n))));
    }

    #[test]
    fn the_manifest_is_soon_asked_of_the_next_and_taken_from_any() {
        let mut fetcher = fetcher();
        let mut at = Vec::new();
        for now in 0..40 {
            fetcher.tick(now);
            at.extend(asked(&mut fetcher).into_iter().map(|(to, _)| (now, to)));
        }
        assert_eq!(at, [(0, 3), (5, 2), (15, 3), (25, 2), (35, 3)]);
        fetcher.manifest(MemberId(2), manifest_of(&[b"x"]), 40);
        assert!(matches!(fetcher.jobs[..], [Job::Receive(_)]));
    }

    #[test]
    fn a_manifest_with_another_configuration_is_refused() {
        let mut fetcher = fetcher();
        asked(&mut fetcher);
        let mut other = manifest_of(&[b"x"]);
        other.snapshot.configuration.voters.insert(MemberId(4));
        fetcher.manifest(MemberId(3), other.clone(), 1);
        assert_eq!((fetcher.refused, fetcher.jobs.len()), (1, 0));
        assert_eq!(asked(&mut fetcher), [(2, Part::Manifest)]);
        let given_up = (2..20).find_map(|now| {
            fetcher.manifest(MemberId(2), other.clone(), now);
            fetcher.tick(now)
        });
        assert_eq!(given_up, Some(ID), "nobody has anything else");
    }

    #[test]
    fn a_source_that_is_silent_is_left_and_what_nobody_has_is_given_up() {
        let mut fetcher = fetcher();
        asked(&mut fetcher);
        let mut sources = Vec::new();
        for now in 1..200 {
            assert_eq!(fetcher.tick(now), None, "it may be cut off");
            sources.extend(asked(&mut fetcher));
        }
        assert!(sources.len() >= 10 && sources.windows(2).all(|pair| pair[0].0 != pair[1].0), "{sources:?}");
        let given_up = (200..300).find_map(|now| {
            (2..4).for_each(|source| fetcher.missing(MemberId(source), ID, now));
            fetcher.tick(now)
        });
        assert_eq!(given_up, Some(ID));
    }
}
