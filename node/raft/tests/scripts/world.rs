//! The commands of scripts. `N` names a member by its number; what is in brackets may be left out.
//!
//! | Command | What it does |
//! |---|---|
//! | `settings name=value ..`, `settings name=N:value ..` | `election`, `start`, `heartbeat`, `disk`, `lease` in ticks, `append`, `inflight` in bytes, `priority`, `promised`: of the members that follow; of N among them |
//! | `cluster voters=N,.. [learners=N,..]` | members whose logs hold that configuration, committed, as 1.1 |
//! | `founder N`, `empty N` | a member with the log of a founder; one with nothing |
//! | `log N T,T,.. [term]` | before anything happens: entries of these terms (or `-`) follow 1.1 on N's disk, which knows the term |
//! | `tick N [times]` | time passes at N |
//! | `oversleep N times` | time passes in which N does not run |
//! | `live N times` | time passes at N, and everything arrives and becomes durable after each tick |
//! | `timeout N` | time passes at N until it loses patience, and no longer |
//! | `deliver [A->B\|A->*\|*->B] [count]` | messages on their way arrive, in order; those that they cause do not |
//! | `drop [A->B ..] [count]`, `double [A->B ..]`, `delay [A->B ..]` | they are lost, doubled, or put behind all others |
//! | `cut A B`, `mend` | messages between A and B are lost from now on; no more |
//! | `persist N [count]` | the oldest writes of N become durable |
//! | `stabilize [N ..]` | everything (among these members) arrives and becomes durable, until nothing moves |
//! | `propose N command ..` | each of them, or `size*count` for commands of that size |
//! | `read N` | a linearizable read at N |
//! | `change N voters=.. [learners=..] [from=T.I] [homeless=N]` | a change of membership |
//! | `transfer N [target]`, `disconnected N peer` | |
//! | `compact N index [keep]` | N makes a snapshot of its state there; its log up to `keep` (else all of that) goes |
//! | `fetch N`, `install N`, `fail N` | the snapshot that N wants becomes durable there; N is told so; N is told that it cannot be had |
//! | `crash N [surviving]`, `start N [name=value ..]` | the process ends (so many writes under way reach the disk), and starts, with other settings |
//! | `damage N index` | N is down; what its disk held after that is damaged, and cut off |
//! | `copy N`, `put-back N` | the disk of N is copied; N is down, and its disk holds again what was copied |
//! | `went-back N term`, `bar N` | N is told that it went back in time, having been in that term; that it is not to lead |
//! | `status [N ..]`, `progress N`, `entries N` | shows it |
//! | `quietly command` | shows nothing of what the command brings about |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Write as _};

use bytes::Bytes;
use quorate_raft::{
    Config, Configuration, Entry, HardState, Lease, LogId, MemberId, Message, Output, Payload, Raft,
    Restored, Snapshot,
};

use crate::harness::Host;
use crate::show;

type Done = Result<(), String>;

/// Members, and the messages between them.
pub(crate) struct World {
    hosts: BTreeMap<MemberId, Host>,
    network: Vec<Message>,
    cut: BTreeSet<(MemberId, MemberId)>,
    settings: Config,
    /// What single members have otherwise.
    own_settings: BTreeMap<MemberId, Vec<(String, u32)>>,
    /// Numbers of forwarded reads, in the order in which they were seen.
    questions: Vec<u64>,
    roles: BTreeMap<MemberId, String>,
    /// Snapshots that members lack, as was shown.
    wants: BTreeMap<MemberId, Snapshot>,
    text: String,
}

impl Default for World {
    fn default() -> Self {
        let settings = Config {
            id: MemberId(0),
            election_ticks: 10,
            start_ticks: 10,
            heartbeat_ticks: 3,
            disk_ticks: 20,
            priority: 0,
            lease: None,
            promised: false,
            max_append_bytes: 1 << 20,
            max_inflight_bytes: 1 << 20,
            seed: 0,
        };
        Self {
            hosts: BTreeMap::new(),
            network: Vec::new(),
            cut: BTreeSet::new(),
            settings,
            own_settings: BTreeMap::new(),
            questions: Vec::new(),
            roles: BTreeMap::new(),
            wants: BTreeMap::new(),
            text: String::new(),
        }
    }
}

impl World {
    /// Runs one command. Returns what it put out.
    pub(crate) fn run(&mut self, line: &str) -> String {
        let (quietly, line) = line.strip_prefix("quietly ").map_or((false, line), |rest| (true, rest));
        let words: Vec<&str> = line.split_whitespace().collect();
        let done = self.command(words[0], &words[1..]);
        let text = std::mem::take(&mut self.text);
        match done {
            Err(error) => format!("{text}cannot do `{line}`: {error}\n"),
            Ok(()) if quietly => String::new(),
            Ok(()) => text,
        }
    }

    fn command(&mut self, command: &str, words: &[&str]) -> Done {
        match command {
            "settings" => self.settings(words),
            "cluster" => self.cluster(words),
            "founder" => {
                let id = member(words.first())?;
                self.add(id, Raft::founding(id, address(id)))
            }
            "empty" => self.add(member(words.first())?, Restored::default()),
            "log" => self.log(words),
            "tick" => self.tick(member(words.first())?, number(words.get(1))?.unwrap_or(1)),
            "oversleep" => {
                let id = member(words.first())?;
                let ticks = number(words.get(1))?.ok_or("for how long?")?;
                self.raft(id)?.overslept(ticks as u64);
                self.settle(id)
            }
            "live" => {
                let id = member(words.first())?;
                for _ in 0..number(words.get(1))?.ok_or("for how long?")? {
                    self.tick(id, 1)?;
                    self.stabilize(&[])?;
                }
                Ok(())
            }
            "timeout" => self.timeout(member(words.first())?),
            "deliver" => self.deliver(words),
            "drop" => self.pick(words).map(|_| ()),
            "double" => {
                let picked = self.pick(words)?;
                self.network.splice(0..0, picked.iter().chain(&picked).cloned());
                Ok(())
            }
            "delay" => {
                let picked = self.pick(words)?;
                self.network.extend(picked);
                Ok(())
            }
            "cut" => {
                let (a, b) = (member(words.first())?, member(words.get(1))?);
                self.cut.extend([(a, b), (b, a)]);
                Ok(())
            }
            "mend" => {
                self.cut.clear();
                Ok(())
            }
            "persist" => self.persist(member(words.first())?, number(words.get(1))?),
            "stabilize" => self.stabilize(words),
            "propose" => self.propose(words),
            "read" => self.read(member(words.first())?),
            "change" => self.change(words),
            "transfer" => self.transfer(words),
            "compact" => self.compact(words),
            "fetch" => self.fetch(member(words.first())?),
            "install" => self.install(member(words.first())?),
            "fail" => self.fail(member(words.first())?),
            "disconnected" => {
                let (id, peer) = (member(words.first())?, member(words.get(1))?);
                self.raft(id)?.disconnected(peer);
                self.settle(id)
            }
            "crash" => self.crash(member(words.first())?, number(words.get(1))?),
            "damage" => self.damage(words),
            "copy" => {
                self.hosts.get_mut(&member(words.first())?).ok_or("no such member")?.copy_disk();
                Ok(())
            }
            "put-back" => self.put_back(member(words.first())?),
            "went-back" => {
                let term = number(words.get(1))?.ok_or("to which term?")? as u64;
                let id = member(words.first())?;
                self.raft(id)?.went_back(term);
                self.settle(id)
            }
            "bar" => {
                let id = member(words.first())?;
                self.raft(id)?.bar();
                self.settle(id)
            }
            "start" => self.start(member(words.first())?, words.get(1..).unwrap_or_default()),
            "status" => self.status(words),
            "progress" => self.progress(member(words.first())?),
            "entries" => self.entries(member(words.first())?),
            other => Err(format!("no such command: {other}")),
        }
    }

    fn settings(&mut self, words: &[&str]) -> Done {
        for word in words {
            let (name, value) = word.split_once('=').ok_or("settings are name=value")?;
            let parse = |value: &str| value.parse().map_err(|_| format!("not a number: {value}"));
            match value.split_once(':') {
                Some((id, value)) => {
                    let own = self.own_settings.entry(member(Some(&id))?).or_default();
                    own.push((name.to_owned(), parse(value)?));
                }
                None => set(&mut self.settings, name, parse(value)?)?,
            }
        }
        Ok(())
    }

    fn cluster(&mut self, words: &[&str]) -> Done {
        let configuration = configuration(words)?;
        let members = configuration.members();
        let entry = Entry { term: 1, index: 1, payload: Payload::Configuration(Box::new(configuration)) };
        for id in members {
            let hard_state = HardState { term: 1, vote: None, commit: 1 };
            self.add(id, Restored { hard_state, entries: vec![entry.clone()], ..Restored::default() })?;
        }
        Ok(())
    }

    fn add(&mut self, id: MemberId, disk: Restored) -> Done {
        let mut config = Config { id, seed: id.0, ..self.settings.clone() };
        for (name, value) in self.own_settings.get(&id).into_iter().flatten() {
            set(&mut config, name, *value)?;
        }
        self.hosts.insert(id, Host::new(config, disk));
        self.roles.insert(id, String::new());
        self.settle(id)
    }

    fn log(&mut self, words: &[&str]) -> Done {
        let id = member(words.first())?;
        let host = self.hosts.get_mut(&id).ok_or("no such member")?;
        for term in words.get(1).ok_or("which terms?")?.split(',').filter(|term| *term != "-") {
            let term = term.parse().map_err(|_| format!("not a term: {term}"))?;
            let index = host.disk.entries.len() as u64 + 1;
            host.disk.entries.push(Entry { term, index, payload: Payload::Noop });
            host.disk.hard_state.term = term;
        }
        if let Some(term) = number(words.get(2))? {
            host.disk.hard_state.term = term as u64;
        }
        host.start();
        self.settle(id)
    }

    fn tick(&mut self, id: MemberId, times: usize) -> Done {
        for _ in 0..times {
            self.raft(id)?.tick();
            self.settle(id)?;
        }
        Ok(())
    }

    fn timeout(&mut self, id: MemberId) -> Done {
        for _ in 0..2 * self.settings.election_ticks {
            let before = self.text.len();
            self.tick(id, 1)?;
            if self.text.len() > before {
                return Ok(());
            }
        }
        Err(format!("{id} has endless patience"))
    }

    fn deliver(&mut self, words: &[&str]) -> Done {
        for message in self.pick(words)? {
            self.arrive(message)?;
        }
        Ok(())
    }

    fn arrive(&mut self, message: Message) -> Done {
        let to = message.to;
        if self.hosts.get(&to).is_some_and(Host::is_up) && !self.cut.contains(&(message.from, to)) {
            self.raft(to)?.step(message);
            self.settle(to)?;
        }
        Ok(())
    }

    /// Takes the messages that are meant off the network: all, those of some links, or the first few of them.
    fn pick(&mut self, words: &[&str]) -> Result<Vec<Message>, String> {
        let mut links = Vec::new();
        let mut count = usize::MAX;
        for word in words {
            match word.split_once("->") {
                Some(ends) => links.push(ends),
                None => count = word.parse().map_err(|_| format!("neither a link nor a number: {word}"))?,
            }
        }
        let matches = |end: &str, id: MemberId| end == "*" || end == id.0.to_string();
        let picked = self.network.extract_if(.., |message| {
            let on = |(from, to): &(&str, &str)| matches(from, message.from) && matches(to, message.to);
            let meant = count > 0 && (links.is_empty() || links.iter().any(on));
            count -= usize::from(meant);
            meant
        });
        Ok(picked.collect())
    }

    fn persist(&mut self, id: MemberId, count: Option<usize>) -> Done {
        let host = self.hosts.get_mut(&id).ok_or("no such member")?;
        let count = count.unwrap_or(host.writing.len());
        if host.persist(count).is_none() {
            return Err(format!("{id} has nothing to write"));
        }
        self.settle(id)
    }

    /// Disks first, then messages in order, until nothing moves.
    fn stabilize(&mut self, words: &[&str]) -> Done {
        let mut among: BTreeSet<MemberId> =
            words.iter().map(|word| member(Some(word))).collect::<Result<_, _>>()?;
        if among.is_empty() {
            among.extend(self.hosts.keys());
        }
        for _ in 0..1000 {
            let meant = |m: &mut Message| among.contains(&m.from) && among.contains(&m.to);
            let messages: Vec<Message> = self.network.extract_if(.., meant).collect();
            let mut moved = !messages.is_empty();
            for message in messages {
                self.arrive(message)?;
            }
            for id in &among {
                if self.hosts.get(id).is_some_and(|host| host.is_up() && !host.writing.is_empty()) {
                    self.persist(*id, None)?;
                    moved = true;
                }
            }
            if !moved {
                return Ok(());
            }
        }
        Err("it never settles".into())
    }

    fn propose(&mut self, words: &[&str]) -> Done {
        let id = member(words.first())?;
        let mut commands = Vec::new();
        for word in &words[1..] {
            match word.split_once('*') {
                Some((size, count)) => {
                    let size = size.parse().map_err(|_| "size*count")?;
                    let count = count.parse().map_err(|_| "size*count")?;
                    commands.extend(std::iter::repeat_n(Bytes::from(vec![b'.'; size]), count));
                }
                None => commands.push(Bytes::copy_from_slice(word.as_bytes())),
            }
        }
        let answer = self.raft(id)?.propose(commands).map(|(index, term)| format!("from {term}.{index} on"));
        self.answer(answer);
        self.settle(id)
    }

    fn read(&mut self, id: MemberId) -> Done {
        let number = self.raft(id)?.read_index();
        self.line(&format!("{} takes read {number}", show::member(id)));
        self.settle(id)
    }

    fn change(&mut self, words: &[&str]) -> Done {
        let id = member(words.first())?;
        let status = self.raft(id)?.status();
        let mut wanted = configuration(&words[1..])?;
        let mut expected = status.configuration_id;
        for (name, value) in words.iter().filter_map(|word| word.split_once('=')) {
            match name {
                "from" => expected = log_id(value)?,
                "homeless" => drop(wanted.addresses.remove(&member(Some(&value))?)),
                _ => {}
            }
        }
        let answer =
            self.raft(id)?.change_membership(expected, wanted).map(|id| format!("as {}", show::log_id(id)));
        self.answer(answer);
        self.settle(id)
    }

    fn transfer(&mut self, words: &[&str]) -> Done {
        let id = member(words.first())?;
        let target = words.get(1).map(|word| member(Some(word))).transpose()?;
        let answer = self.raft(id)?.transfer(target).map(|target| format!("to {}", show::member(target)));
        self.answer(answer);
        self.settle(id)
    }

    fn compact(&mut self, words: &[&str]) -> Done {
        let id = member(words.first())?;
        let index = number(words.get(1))?.ok_or("up to which entry?")? as u64;
        let keep_after = number(words.get(2))?.map_or(index, |index| index as u64);
        self.raft(id)?;
        let host = self.hosts.get_mut(&id).ok_or("no such member")?;
        let snapshot = host.compact(index, keep_after).ok_or("there is nothing to make it from")?;
        self.line(&format!("{} has snapshot {}", show::member(id), show::snapshot(&snapshot)));
        self.settle(id)
    }

    /// The contents come: all that `N` lacks, or nothing.
    fn fetch(&mut self, id: MemberId) -> Done {
        self.raft(id)?;
        let wanted = self.wants.get(&id).cloned().ok_or("it wants none")?;
        let has = |host: &Host| host.disk.snapshot.as_ref() == Some(&wanted);
        if !self.hosts.values().any(has) {
            return Err("nobody has it".into());
        }
        self.hosts.get_mut(&id).ok_or("no such member")?.fetch(wanted);
        Ok(())
    }

    fn install(&mut self, id: MemberId) -> Done {
        self.raft(id)?;
        let host = self.hosts.get_mut(&id).ok_or("no such member")?;
        let snapshot = host.fetched.take().ok_or("nothing was fetched")?;
        let replaces = host.install(&snapshot);
        let what = if replaces { "takes the state from" } else { "has no use for" };
        self.line(&format!("{} {what} snapshot {}", show::member(id), show::log_id(snapshot.id)));
        self.settle(id)
    }

    fn fail(&mut self, id: MemberId) -> Done {
        let wanted = self.wants.get(&id).ok_or("it wants none")?.id;
        self.raft(id)?.install_failed(wanted);
        self.settle(id)
    }

    fn crash(&mut self, id: MemberId, surviving: Option<usize>) -> Done {
        let host = self.hosts.get_mut(&id).ok_or("no such member")?;
        host.crash(surviving.unwrap_or(0));
        self.network.retain(|message| message.to != id);
        self.wants.remove(&id);
        Ok(())
    }

    fn damage(&mut self, words: &[&str]) -> Done {
        let id = member(words.first())?;
        let keep = number(words.get(1))?.ok_or("after which entry?")? as u64;
        let host = self.hosts.get_mut(&id).ok_or("no such member")?;
        if host.is_up() {
            return Err("its process is up".into());
        }
        host.damage(keep);
        Ok(())
    }

    fn put_back(&mut self, id: MemberId) -> Done {
        let host = self.hosts.get_mut(&id).ok_or("no such member")?;
        if host.is_up() {
            return Err("its process is up".into());
        }
        if host.put_back() { Ok(()) } else { Err("nothing was copied".into()) }
    }

    fn start(&mut self, id: MemberId, settings: &[&str]) -> Done {
        let host = self.hosts.get_mut(&id).ok_or("no such member")?;
        for word in settings {
            let (name, value) = word.split_once('=').ok_or("settings are name=value")?;
            set(&mut host.config, name, value.parse().map_err(|_| format!("not a number: {value}"))?)?;
        }
        if host.disk.is_beyond_repair(id) {
            return Err(format!("{id} is beyond repair"));
        }
        host.start();
        self.roles.insert(id, String::new());
        self.settle(id)
    }

    fn status(&mut self, words: &[&str]) -> Done {
        let mut ids: Vec<MemberId> = words.iter().map(|word| member(Some(word))).collect::<Result<_, _>>()?;
        if ids.is_empty() {
            ids.extend(self.hosts.values().filter(|host| host.is_up()).map(Host::id));
        }
        for id in ids {
            let status = show::status(&self.raft(id)?.status());
            self.line(&status);
        }
        Ok(())
    }

    fn progress(&mut self, id: MemberId) -> Done {
        for progress in self.raft(id)?.progress() {
            self.line(&show::progress(&progress));
        }
        Ok(())
    }

    fn entries(&mut self, id: MemberId) -> Done {
        let host = self.hosts.get(&id).ok_or("no such member")?;
        let line = format!("{}: {}", show::member(id), show::entries(&host.log));
        self.line(&line);
        Ok(())
    }

    /// Takes out and shows what a member puts out.
    fn settle(&mut self, id: MemberId) -> Done {
        while self.raft(id)?.has_output() {
            let output = self.hosts.get_mut(&id).ok_or("no such member")?.output();
            self.show(id, output)?;
        }
        Ok(())
    }

    fn show(&mut self, id: MemberId, output: Output) -> Done {
        let name = show::member(id);
        if output.status_changed {
            let status = self.raft(id)?.status();
            let leader = status.leader.filter(|leader| *leader != id);
            let leader = leader.map_or(String::new(), |leader| format!(" of {}", show::member(leader)));
            let repairing = if status.repairing { ", repairing" } else { "" };
            let role = format!("{} in term {}{leader}{repairing}", show::role(status.role), status.term);
            if self.roles.get(&id).is_some_and(|before| !before.is_empty() && *before != role) {
                self.line(&format!("{name} is {role}"));
            }
            self.roles.insert(id, role);
        }
        if output.wanted.as_ref() != self.wants.get(&id) {
            let text = output.wanted.as_ref().map_or("no snapshot any more".into(), |wanted| {
                format!("snapshot {}", show::log_id(wanted.id))
            });
            self.line(&format!("{name} wants {text}"));
            match output.wanted {
                Some(wanted) => self.wants.insert(id, wanted),
                None => self.wants.remove(&id),
            };
        }
        if let Some(write) = &output.write {
            self.line(&format!("{name} {}", show::write(write)));
        }
        for message in output.messages {
            let questions = &mut self.questions;
            let text = show::message(&message, |wire| {
                questions.iter().position(|known| *known == wire).unwrap_or_else(|| {
                    questions.push(wire);
                    questions.len() - 1
                }) + 1
            });
            self.line(&text);
            self.network.push(message);
        }
        for entry in &output.committed {
            self.line(&format!("{name} applies {}", show::entry(entry)));
        }
        for done in &output.reads {
            self.line(&format!("{name} {}", show::read(done)));
        }
        Ok(())
    }

    fn answer(&mut self, answer: Result<String, impl Display>) {
        match answer {
            Ok(text) => self.line(&text),
            Err(error) => self.line(&format!("refused: {error}")),
        }
    }

    fn line(&mut self, line: &str) {
        writeln!(self.text, "{line}").expect("a string takes it");
    }

    fn raft(&mut self, id: MemberId) -> Result<&mut Raft, String> {
        let host = self.hosts.get_mut(&id).ok_or_else(|| format!("no member {id}"))?;
        host.raft.as_mut().ok_or_else(|| format!("{id} is down"))
    }
}

fn set(config: &mut Config, name: &str, value: u32) -> Done {
    match name {
        "election" => config.election_ticks = value,
        "start" => config.start_ticks = value,
        "heartbeat" => config.heartbeat_ticks = value,
        "disk" => config.disk_ticks = value,
        "priority" => config.priority = value,
        "lease" => config.lease = (value > 0).then_some(Lease { ticks: value }),
        "promised" => config.promised = value > 0,
        "append" => config.max_append_bytes = value as usize,
        "inflight" => config.max_inflight_bytes = value as usize,
        other => return Err(format!("no such setting: {other}")),
    }
    Ok(())
}

fn member(word: Option<&&str>) -> Result<MemberId, String> {
    let word = word.ok_or("which member?")?;
    word.parse().map(MemberId).map_err(|_| format!("not a member: {word}"))
}

fn number(word: Option<&&str>) -> Result<Option<usize>, String> {
    word.map(|word| word.parse().map_err(|_| format!("not a number: {word}"))).transpose()
}

fn log_id(word: &str) -> Result<LogId, String> {
    let (term, index) = word.split_once('.').ok_or("an ID is term.index")?;
    let parse = |part: &str| part.parse().map_err(|_| format!("not a number: {part}"));
    Ok(LogId { term: parse(term)?, index: parse(index)? })
}

fn configuration(words: &[&str]) -> Result<Configuration, String> {
    let mut configuration = Configuration::default();
    for (name, list) in words.iter().filter_map(|word| word.split_once('=')) {
        let set = match name {
            "voters" => &mut configuration.voters,
            "learners" => &mut configuration.learners,
            "outgoing" => &mut configuration.outgoing,
            _ => continue,
        };
        for word in list.split(',').filter(|word| !word.is_empty()) {
            set.insert(member(Some(&word))?);
        }
    }
    configuration.addresses = configuration.members().into_iter().map(|id| (id, address(id))).collect();
    Ok(configuration)
}

fn address(id: MemberId) -> Bytes {
    Bytes::from(format!("host-{}", id.0))
}
