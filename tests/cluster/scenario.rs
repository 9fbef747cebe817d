//! What all scenarios have in common: a cluster, clients at work, faults, and the check at the end.

use std::sync::Arc;
use std::time::Duration;

use quorate_tests::limits::Limits;
use quorate_tests::linearizability::kv::{Input, Key, Kv, Output};
use quorate_tests::linearizability::{Verdict, check, revisions, unanswered};
use quorate_tests::seed;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::sync::{Mutex, MutexGuard};

use crate::cluster::Cluster;
use crate::node::Version;
use quorate_api::etcdserverpb::kv_client::KvClient;
use quorate_tests::clients::{Client, Clients, KEYS, Notes, Pace, endpoint, send};

/// Busy, on few keys.
const PACE: Pace = Pace { clients: 8, rest: Duration::from_millis(12) };
/// Answers that prove that the cluster works again.
const PROGRESS: usize = 40;

/// One scenario at a time: each has three processes and their clients, and the machine may have two cores.
static TURN: Mutex<()> = Mutex::const_new(());

pub(crate) struct Scenario {
    pub(crate) cluster: Cluster,
    pub(crate) random: ChaCha8Rng,
    clients: Option<Clients>,
    _turn: MutexGuard<'static, ()>,
}

impl Scenario {
    /// Three nodes, and clients that have begun to work on them.
    pub(crate) async fn start(name: &str) -> Self {
        Self::start_with(name, &[]).await
    }

    /// Three nodes without clients, for what does not end with a history.
    pub(crate) async fn start_idle(name: &str) -> Self {
        let turn = TURN.lock().await;
        let random = seed::random(name);
        let cluster = Cluster::start_with(3, &[]).await;
        Self { cluster, random, clients: None, _turn: turn }
    }

    /// The same, each node with these flags.
    pub(crate) async fn start_with(name: &str, flags: &[&str]) -> Self {
        let turn = TURN.lock().await;
        let random = seed::random(name);
        Self::start_on(Cluster::start_with(3, flags).await, random, turn).await
    }

    /// The same of another version.
    pub(crate) async fn start_as(name: &str, version: &Version) -> Self {
        let turn = TURN.lock().await;
        let random = seed::random(name);
        Self::start_on(Cluster::start_as(3, version).await, random, turn).await
    }

    /// The same on disks that can fail; none where there are no such disks, and need not be.
    pub(crate) async fn start_on_faulty_disks(name: &str) -> Option<Self> {
        Self::start_on_faulty_disks_with(name, &[]).await
    }

    /// The same, each node with these flags.
    pub(crate) async fn start_on_faulty_disks_with(name: &str, flags: &[&str]) -> Option<Self> {
        let turn = TURN.lock().await;
        let random = seed::random(name);
        Some(Self::start_on(Cluster::start_on_faulty_disks(3, flags).await?, random, turn).await)
    }

    /// A node for each of `limits`, which it runs under, and clients of this pace.
    pub(crate) async fn start_limited(name: &str, limits: Vec<Limits>, pace: Pace) -> Self {
        let turn = TURN.lock().await;
        let random = seed::random(name);
        Self::start_at_pace(Cluster::start_limited(limits).await, random, turn, pace).await
    }

    async fn start_on(cluster: Cluster, random: ChaCha8Rng, turn: MutexGuard<'static, ()>) -> Self {
        Self::start_at_pace(cluster, random, turn, PACE).await
    }

    async fn start_at_pace(
        cluster: Cluster,
        mut random: ChaCha8Rng,
        turn: MutexGuard<'static, ()>,
        pace: Pace,
    ) -> Self {
        let clients = Some(Clients::start(&cluster.clients(), &mut random, pace));
        let mut scenario = Self { cluster, random, clients, _turn: turn };
        scenario.progress().await;
        scenario
    }

    /// How many faults to make: `QUORATE_ROUNDS`, or `usual`.
    pub(crate) fn rounds(usual: usize) -> usize {
        std::env::var("QUORATE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(usual)
    }

    /// Lets the clients work undisturbed for a random while.
    pub(crate) async fn a_while(&mut self) {
        let while_ = self.random.random_range(Duration::from_millis(50)..Duration::from_millis(800));
        tokio::time::sleep(while_).await;
    }

    /// Kills or pauses whoever leads, so many times, and brings it back once the others have gone on.
    pub(crate) async fn trouble_leaders(&mut self, times: usize) {
        for _ in 0..times {
            self.a_while().await;
            let (leader, _) = self.cluster.wait_for_leader().await;
            if self.random.random() {
                self.cluster.kill(leader);
                self.progress().await;
                self.cluster.restart(leader);
            } else {
                self.cluster.pause(leader);
                self.progress().await;
                self.cluster.resume(leader);
            }
            self.progress().await;
        }
    }

    /// Waits until the clients get answers.
    pub(crate) async fn progress(&mut self) {
        let notes = Arc::clone(self.notes());
        let before = notes.history.answers();
        self.cluster
            .wait("progress of the clients", async |_: &mut Cluster| {
                let answers = notes.history.answers() - before;
                if answers >= PROGRESS { Ok(()) } else { Err(format!("{answers} answers")) }
            })
            .await;
    }

    fn notes(&self) -> &Arc<Notes> {
        &self.clients.as_ref().expect("they work until the end").notes
    }

    /// Heals everything, and checks all that was seen.
    pub(crate) async fn finish(mut self) {
        self.cluster.network.heal();
        for node in 0..self.cluster.members.len() {
            if self.cluster.members[node].process.is_none() {
                self.cluster.restart(node);
            }
        }
        self.finish_with_those_up().await;
    }

    /// The same without nodes that were removed.
    pub(crate) async fn finish_with_those_up(mut self) {
        self.cluster.wait_for_leader().await;
        self.progress().await;
        let notes = self.clients.take().expect("they work until the end").stop().await;
        self.read_everything(&notes).await;
        self.same_everywhere().await;
        let (history, stale) = (notes.history.history(), notes.stale.history());
        eprintln!(
            "checks {} operations, {} without an answer",
            history.len(),
            history.len() - notes.history.answers()
        );
        let revisions = revisions::check(&history, &stale).err().map(|broken| broken.to_string());
        let order = match check(&Kv, &unanswered::tighten(&history)) {
            Verdict::Linearizable => None,
            verdict => Some(verdict.to_string()),
        };
        let wrong: Vec<_> = revisions.into_iter().chain(order).collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    /// Reads every key on every node, as part of the history: a lost write would show.
    async fn read_everything(&mut self, notes: &Arc<Notes>) {
        let clients = self.cluster.clients();
        let random = self.random.clone();
        let mut reader = Client::new(u32::MAX, &clients, random, Arc::clone(notes));
        for node in self.cluster.up() {
            for key in (0..KEYS).map(Key) {
                self.cluster
                    .wait(&format!("a read of {key} on node-{node}"), async |_: &mut Cluster| {
                        reader.operate(node, Input::Get(vec![key])).await.then_some(()).ok_or("no answer")
                    })
                    .await;
            }
        }
    }

    /// All nodes come to hold the same, down to every revision.
    async fn same_everywhere(&mut self) {
        self.cluster
            .wait("the same data on every node", async |cluster: &mut Cluster| {
                let mut held: Vec<(usize, Vec<Output>)> = Vec::new();
                for node in cluster.up() {
                    held.push((node, contents(cluster, node).await?));
                }
                match held.iter().find(|(_, data)| *data != held[0].1) {
                    None => Ok(()),
                    Some((node, data)) => {
                        Err(format!("node-{node} holds {data:?}, node-{} {:?}", held[0].0, held[0].1))
                    }
                }
            })
            .await;
    }
}

/// What the node holds itself.
async fn contents(cluster: &Cluster, node: usize) -> Result<Vec<Output>, String> {
    let mut kv = KvClient::new(endpoint(cluster.members[node].settings.client).connect_lazy());
    let mut contents = Vec::new();
    for key in (0..KEYS).map(Key) {
        contents
            .push(send(&mut kv, &Input::Get(vec![key]), true).await.map_err(|status| status.to_string())?);
    }
    Ok(contents)
}
