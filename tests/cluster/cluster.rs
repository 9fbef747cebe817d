//! Some nodes, the network between them, and waiting for what they are to become.

use std::fmt::Display;
use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use quorate_api::admin::{Role, StatusResponse};
use quorate_tests::faulty_disk::FaultyDisk;
use quorate_tests::limits::Limits;
use quorate_tests::process::Process;
use tempfile::TempDir;

use crate::admin;
use crate::network::{Network, Number};
use crate::node::{Settings, Version};

/// How long anything may take that must happen. It is reached only when it never will.
pub(crate) const DEADLINE: Duration = Duration::from_mins(5);
/// How long a node may take to say how it is; one that stands still does not.
const ANSWER: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How much of each node's log a failed test shows.
const LINES: usize = 40;

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) settings: Settings,
    /// None while it is down.
    pub(crate) process: Option<Process>,
    /// Its member ID, once it has been asked.
    pub(crate) id: u64,
    /// It is being removed from the cluster, and may end by itself with a word about that.
    pub(crate) leaves: bool,
    /// Its disk fails, and it may end by itself with a word about that.
    pub(crate) fails: bool,
    /// Its data, where the disk is one that can fail. The process goes first.
    pub(crate) disk: Option<FaultyDisk>,
}

/// What a node runs on and under, where that is not the usual.
#[derive(Debug, Default)]
struct Place {
    disk: Option<FaultyDisk>,
    limits: Option<Limits>,
    version: Option<Version>,
}

#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    pub(crate) network: Network,
    folder: Option<TempDir>,
    /// Of every node that is added.
    flags: Vec<String>,
}

impl Cluster {
    /// A cluster of `count` voters, each started with these flags: the first one founds it, the others join.
    pub(crate) async fn start_with(count: usize, flags: &[&str]) -> Self {
        Self::start_on((0..count).map(|_| Place::default()).collect(), folder(), flags).await
    }

    /// A cluster of one voter for each of `limits`, under which it runs.
    pub(crate) async fn start_limited(limits: Vec<Limits>) -> Self {
        let limited = |limits| Place { limits: Some(limits), ..Place::default() };
        Self::start_on(limits.into_iter().map(limited).collect(), folder(), &[]).await
    }

    /// A cluster of `count` voters of `version`.
    pub(crate) async fn start_as(count: usize, version: &Version) -> Self {
        let places = (0..count).map(|_| Place { version: Some(version.clone()), ..Place::default() });
        Self::start_on(places.collect(), folder(), &[]).await
    }

    /// The same, each node with a disk that can fail; none where there are no such disks, and need not be.
    pub(crate) async fn start_on_faulty_disks(count: usize, flags: &[&str]) -> Option<Self> {
        let folder = folder();
        let disks: Option<Vec<_>> = (0..count).map(|number| faulty_disk(folder.path(), number)).collect();
        let on = |disk| Place { disk: Some(disk), ..Place::default() };
        Some(Self::start_on(disks?.into_iter().map(on).collect(), folder, flags).await)
    }

    async fn start_on(places: Vec<Place>, folder: TempDir, flags: &[&str]) -> Self {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut cluster = Self { members: Vec::new(), network: Network::new(), folder: Some(folder), flags };
        let count = places.len();
        for place in places {
            cluster.add_on(place).await;
        }
        cluster.wait_for_voters(count).await;
        cluster
    }

    /// Starts one more node, which joins by itself if it is not the first.
    pub(crate) async fn add(&mut self) -> Number {
        self.add_on(Place::default()).await
    }

    async fn add_on(&mut self, place: Place) -> Number {
        let (settings, disk) = self.prepare(place).await;
        self.launch(settings, disk).await
    }

    /// One more node, which would join by itself and is not started: its addresses are known.
    pub(crate) async fn reserve(&mut self) -> Settings {
        self.prepare(Place::default()).await.0
    }

    /// Starts a node that was reserved.
    pub(crate) async fn launch_reserved(&mut self, settings: Settings) -> Number {
        self.launch(settings, None).await
    }

    async fn prepare(&mut self, Place { disk, limits, version }: Place) -> (Settings, Option<FaultyDisk>) {
        let number = self.members.len();
        let folder = self.folder.as_ref().expect("it is there until the end").path();
        let mut settings = Settings { limits, ..Settings::new(folder, &format!("node-{number}")) };
        if let Some(disk) = &disk {
            settings.data = disk.path().join("data");
        }
        if let Some(version) = version {
            settings.version = version;
        }
        settings.advertised_peer =
            self.network.door(number, settings.peer).await.expect("loopback has free ports");
        settings = match self.members.first() {
            None => settings.with("--bootstrap"),
            Some(_) => settings.with(format!("--join={}", self.leader_door().await)),
        };
        settings.more.extend(self.flags.iter().cloned());
        (settings, disk)
    }

    async fn launch(&mut self, settings: Settings, disk: Option<FaultyDisk>) -> Number {
        let number = self.members.len();
        let process = Some(settings.start());
        self.members.push(Member { settings, process, id: 0, leaves: false, fails: false, disk });
        self.wait(&format!("node-{number} to answer"), async |cluster: &mut Self| {
            let status = cluster.status(number).await?;
            cluster.members[number].id = status.member_id;
            cluster.network.introduce(status.member_id, number);
            Ok::<_, String>(())
        })
        .await;
        number
    }

    async fn leader_door(&mut self) -> SocketAddr {
        let (leader, _) = self.wait_for_leader().await;
        self.members[leader].settings.advertised_peer
    }

    pub(crate) fn clients(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.settings.client).collect()
    }

    pub(crate) async fn status(&self, node: Number) -> Result<StatusResponse, String> {
        let status = tokio::time::timeout(ANSWER, admin::status(self.members[node].settings.peer)).await;
        let status = status.unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no answer")));
        status.map_err(|status| format!("{}: {}", self.members[node].settings.name, status.message()))
    }

    /// Nodes that are up.
    pub(crate) fn up(&self) -> Vec<Number> {
        (0..self.members.len()).filter(|&node| self.members[node].process.is_some()).collect()
    }

    pub(crate) fn kill(&mut self, node: Number) {
        if let Some(mut process) = self.members[node].process.take() {
            let status = process.kill().expect("a child can be killed");
            let removed = self.members[node].leaves && process.output().contains("was removed from");
            // SIGKILL leaves no code: a code means that it had ended by itself.
            let ended = status.code().is_some() && !removed && !self.members[node].fails;
            assert!(!ended, "node-{node} had ended by itself:\n{}", process.last_output(LINES));
        }
    }

    pub(crate) fn restart(&mut self, node: Number) {
        let member = &mut self.members[node];
        assert!(member.process.is_none(), "node-{node} is running");
        member.process = Some(member.settings.start());
    }

    fn process(&mut self, node: Number) -> &mut Process {
        self.members[node].process.as_mut().expect("it is up")
    }

    pub(crate) fn pause(&mut self, node: Number) {
        self.process(node).pause().expect("a child can be stopped");
    }

    pub(crate) fn resume(&mut self, node: Number) {
        self.process(node).resume().expect("a child can go on");
    }

    pub(crate) async fn terminate(&mut self, node: Number) {
        let mut process = self.members[node].process.take().expect("it is up");
        process.terminate().expect("a child can be asked to stop");
        let status = process.wait(DEADLINE).await.expect("it stops when asked");
        assert!(status.success(), "node-{node}: {status} after SIGTERM:\n{}", process.last_output(LINES));
    }

    /// The leader of the newest term that anyone knows, and its status.
    pub(crate) async fn wait_for_leader(&mut self) -> (Number, StatusResponse) {
        self.wait("a leader", async |cluster: &mut Self| cluster.newest_leader().await).await
    }

    /// A leader of this term or a later one: the others have noticed that theirs is gone.
    pub(crate) async fn wait_for_term(&mut self, term: u64) {
        self.wait(&format!("a leader of term {term}"), async |cluster: &mut Self| {
            let (leader, status) = cluster.newest_leader().await?;
            if status.term >= term {
                Ok(())
            } else {
                Err(format!("node-{leader} leads in term {}", status.term))
            }
        })
        .await;
    }

    /// This node leads.
    pub(crate) async fn wait_for_lead_of(&mut self, node: Number) {
        self.wait(&format!("node-{node} to lead"), async |cluster: &mut Self| {
            let (leader, status) = cluster.newest_leader().await?;
            (leader == node).then_some(()).ok_or(format!("node-{leader} leads in term {}", status.term))
        })
        .await;
    }

    /// A configuration of `count` voters that is finished and committed, as the leader has it.
    pub(crate) async fn wait_for_voters(&mut self, count: usize) -> (Number, StatusResponse) {
        self.wait(&format!("{count} voters"), async |cluster: &mut Self| {
            let (leader, status) = cluster.newest_leader().await?;
            let configuration = status.configuration.clone().unwrap_or_default();
            let voters = configuration.configuration.unwrap_or_default();
            let finished =
                configuration.committed && voters.outgoing.is_empty() && voters.learners.is_empty();
            if finished && voters.voters.len() == count {
                Ok((leader, status))
            } else {
                Err(format!("{voters:?}"))
            }
        })
        .await
    }

    async fn newest_leader(&self) -> Result<(Number, StatusResponse), String> {
        let mut newest: Option<(Number, StatusResponse)> = None;
        for node in self.up() {
            if let Ok(status) = self.status(node).await
                && status.role() == Role::Leader
                && newest.as_ref().is_none_or(|(_, other)| other.term < status.term)
            {
                newest = Some((node, status));
            }
        }
        newest.ok_or_else(|| "nobody leads".to_owned())
    }

    /// Waits until `condition` answers. Fails with its last reason after [`DEADLINE`], or when a node has ended by itself.
    pub(crate) async fn wait<T, E: Display>(
        &mut self,
        what: &str,
        mut condition: impl AsyncFnMut(&mut Self) -> Result<T, E>,
    ) -> T {
        let end = Instant::now() + DEADLINE;
        loop {
            self.assert_alive();
            match condition(self).await {
                Ok(result) => return result,
                Err(reason) => {
                    assert!(Instant::now() < end, "waited {DEADLINE:?} in vain for {what}: {reason}");
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Nobody ends without being told to, or goes on that is to stand still.
    pub(crate) fn assert_alive(&mut self) {
        for process in self.members.iter().filter_map(|member| member.process.as_ref()) {
            process.hold().expect("a child can be stopped");
        }
        let members = self.members.iter_mut().filter(|member| !member.leaves && !member.fails);
        for process in members.filter_map(|member| member.process.as_mut()) {
            if let Some(status) = process.ended().expect("a child can be asked") {
                panic!("{} has ended by itself: {status}\n{}", process.name(), process.last_output(LINES));
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A process that waits for its disk cannot end.
        for disk in self.members.iter().filter_map(|member| member.disk.as_ref()) {
            disk.faults().heal();
        }
        if !std::thread::panicking() {
            return;
        }
        for member in &self.members {
            let log = fs::read_to_string(&member.settings.log).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("the end of {}'s log:", member.settings.name);
            lines[lines.len().saturating_sub(LINES)..].iter().for_each(|line| eprintln!("    {line}"));
        }
        if let Some(folder) = self.folder.take() {
            eprintln!("logs and data are kept in {}", folder.keep().display());
        }
    }
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("quorate-").tempdir().expect("there is a place for temporary files")
}

fn faulty_disk(folder: &Path, number: Number) -> Option<FaultyDisk> {
    let files = folder.join(format!("disk-{number}"));
    fs::create_dir(&files).expect("the folder takes another");
    FaultyDisk::mount_unless_excused(&files).unwrap_or_else(|reason| panic!("{reason}"))
}

/// Waits until `condition` holds; for what needs no cluster.
pub(crate) async fn eventually<T, E: Display, F: Future<Output = Result<T, E>>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        match condition().await {
            Ok(result) => return result,
            Err(reason) => assert!(Instant::now() < end, "waited {DEADLINE:?} in vain for {what}: {reason}"),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
