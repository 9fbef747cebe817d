//! How a run ends: the faults are over, the cluster has to work again within a stated time, and what the clients saw is checked.

use std::collections::BTreeSet;

use quorate_api::etcdserverpb::RangeRequest;
use quorate_raft::{Index, MemberId};
use quorate_tests::linearizability::check::check_within;
use quorate_tests::linearizability::kv::Kv;
use quorate_tests::linearizability::{Verdict, revisions, unanswered};

use crate::disk::SimEngine;
use crate::host::{Stage, name};
use crate::time::{MILLI, SECOND, Time};
use crate::world::{Event, World};

/// Liveness: so long after the last fault is over every member answers its clients again. An election takes one to two timeouts of half
/// a second; there is time for several, for those who lost their disks to be removed, and for everyone to catch up.
const RECOVERY: Time = 20 * SECOND;

/// So long after the last request every member has applied everything.
const REST: Time = 5 * SECOND;

/// Where two voters hold different states, and a third lacks the snapshot of either, it takes none: only after a minute they are divided, and people
/// replace the one that differs.
const UNDECIDED: Time = 80 * SECOND;

/// So long after the last was heard of it every lease has ended.
const ENDS: Time = 20 * SECOND;

/// Steps of the checker for each key.
const BUDGET: u64 = 200_000;

/// What every member has to answer.
const ANSWERS: u64 = 2;

impl World {
    /// The whole run.
    pub(crate) fn run(&mut self) {
        self.run_until(self.plan.duration);
        self.nobody_was_deposed_by_applying();
        let over = self.heal();
        self.run_until(over);
        if self.plan.quota.is_some() {
            self.wait(self.patience(RECOVERY / 2), |world| world.members().map(drop));
            self.leader().and_then(|leader| self.make_room_through(leader));
        }
        self.clients.answers.clear();
        self.wait(self.patience(RECOVERY), Self::is_well);
        self.clients.stop();
        self.holders.stop();
        self.wait(self.patience(ENDS), Self::has_no_leases);
        self.wait(self.patience(REST), Self::is_at_rest);
        let files: usize = self.hosts.values().map(|host| host.disk.files()).sum();
        self.coverage.add("files on disks at the end", files as u64);
        self.coverage.add("segments reserved", self.hosts.values().map(|host| host.disk.reserved()).sum());
        self.same_everywhere();
        self.check_histories();
    }

    /// `time`, and what it takes until people act, if a state differs and nobody has found out.
    fn patience(&self, time: Time) -> Time {
        let is_undecided = self.hosts.values().any(|host| host.differs && host.corrupt.is_none());
        if is_undecided { time + UNDECIDED } else { time }
    }

    /// No election comes of applying alone, however slow it is, unless a leader hands over whose applier stands still.
    fn nobody_was_deposed_by_applying(&mut self) {
        // A leader whose disk hangs gives up: that is no matter of applying.
        if self.disk_hung
            || self.plan.faults.is_empty()
            || !self.plan.faults.iter().all(|fault| fault.kind.is_of_applying())
        {
            return;
        }
        self.coverage.count("runs in which nothing but applying was slow");
        assert_eq!(
            self.late_leaders,
            0,
            "ELECTION: a leader was elected while nothing but applying was slow\n{}",
            self.describe()
        );
    }

    /// All faults are over. When the last of their effects is: a disk that hangs, a process that is paused.
    fn heal(&mut self) -> Time {
        self.say(|| "all faults are over".into());
        self.calm = true;
        self.network.heal();
        self.mark_trouble = None;
        self.stop_copies();
        let mut over = self.now();
        for host in self.hosts.values_mut() {
            host.disk.heal();
            host.engine.iter().for_each(SimEngine::heal);
            host.clock.heal();
            host.pace.heal();
            // Whatever its applier is at is done now.
            self.agenda.after(0, Event::Apply(host.id, host.life));
            host.killed_when_it_writes = false;
            host.killed_when_it_starts = false;
            over = over.max(host.paused_until).max(host.disk.ends());
            if matches!(host.stage, Stage::Down) && !host.lost {
                self.agenda.after(0, Event::Start(host.id));
            }
        }
        self.repair();
        over
    }

    /// Lets everything happen until `done`, which has to be in time.
    fn wait(&mut self, limit: Time, done: impl Fn(&Self) -> Result<(), String>) {
        let end = self.now() + limit;
        loop {
            self.run_until(self.now() + 20 * MILLI);
            let Err(reason) = done(self) else { return };
            assert!(
                self.now() < end,
                "LIVENESS: {} ms after the last fault: {reason}\n{}",
                limit / MILLI,
                self.describe()
            );
        }
    }

    /// Those who belong to the cluster, as its leader says.
    pub(crate) fn members(&self) -> Result<BTreeSet<MemberId>, String> {
        let leader = self.leader().ok_or("nobody leads")?;
        let status = self.hosts[&leader].process().expect("it leads").replica.status();
        if status.configuration.is_joint() || status.configuration_id.index > status.commit {
            return Err(format!("a change is not finished: {:?}", status.configuration));
        }
        let members = status.configuration.members();
        match members.iter().find(|id| self.hosts[id].lost) {
            Some(lost) => Err(format!("{} is lost, and still a member", name(*lost))),
            None => Ok(members),
        }
    }

    /// Everyone answers.
    fn is_well(&self) -> Result<(), String> {
        for id in self.members()? {
            let answers = self.clients.answers.get(&id).copied().unwrap_or(0);
            if answers < ANSWERS {
                return Err(format!("{} has answered {answers} requests", name(id)));
            }
        }
        Ok(())
    }

    /// Everyone has applied everything, and knows of its state what can be known.
    fn is_at_rest(&self) -> Result<(), String> {
        let members = self.members()?;
        let leader = self.leader().and_then(|leader| self.hosts[&leader].process()).ok_or("nobody leads")?;
        let configuration = leader.replica.status().configuration;
        if let Some(id) = members.iter().find(|id| self.is_to_find_out(**id, &configuration)) {
            return Err(format!(
                "the state of {} differs from that of a quorum, and it does not know",
                name(*id)
            ));
        }
        let ends: BTreeSet<(Index, Index)> = members
            .iter()
            .map(|id| {
                self.hosts[id].process().map_or((0, 0), |p| (p.replica.status().last.index, p.applied()))
            })
            .collect();
        match ends.first() {
            Some((last, applied)) if ends.len() == 1 && last == applied => Ok(()),
            _ => Err(format!("ends of logs, and what is applied: {ends:?}")),
        }
    }

    /// Every member holds the same, down to every revision.
    fn same_everywhere(&mut self) {
        let mut members = self.members().expect("the cluster is at rest");
        members.retain(|id| !self.may_differ(*id));
        let all = RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..RangeRequest::default() };
        let mut held = members.iter().filter_map(|id| {
            let state = self.hosts[id].process()?.applier.store().read();
            Some((id, (state.range(&all), state.level(), state.alarms(), state.size_in_use())))
        });
        let Some((first, one)) = held.next() else { return };
        for (id, other) in held {
            assert_eq!(
                one,
                other,
                "STATE MACHINE SAFETY: {} and {} hold different states",
                name(*first),
                name(*id)
            );
        }
    }

    fn check_histories(&mut self) {
        let (history, stale) = self.clients.histories();
        if let Err(broken) = revisions::check(&history, &stale) {
            panic!("REVISIONS: {broken}");
        }
        match check_within(&Kv, &unanswered::tighten(&history), BUDGET) {
            Verdict::Linearizable => self.coverage.count("histories checked"),
            Verdict::Undecided(_) => self.coverage.count("histories not decided"),
            violated @ Verdict::Violated(_) => panic!("LINEARIZABILITY: {violated}"),
        }
    }

    /// How everybody stands.
    fn describe(&self) -> String {
        let mut lines = Vec::new();
        for host in self.hosts.values() {
            let stage = match &host.stage {
                Stage::Down if host.lost => "lost".to_owned(),
                Stage::Down => "down".to_owned(),
                Stage::Starting(_) => "starting".to_owned(),
                Stage::Up(process) => {
                    let status = process.replica.status();
                    format!(
                        "{:?} in term {}, leader {:?}, log {:?}, commit {}, applied {}, progress {:?}, {:?}",
                        status.role,
                        status.term,
                        status.leader.map(name),
                        status.last,
                        status.commit,
                        process.applied(),
                        process.replica.progress(),
                        process.replica.agreement()
                    )
                }
            };
            lines.push(format!("  {}: {stage}", name(host.id)));
        }
        lines.join("\n")
    }
}
