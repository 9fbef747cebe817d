//! A node's life: what is put together at its start, and taken apart in order at its end.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use quorate_api::log;
use quorate_raft::{Config, Lease, LogId, Restored};
use tokio::runtime::{Builder, Handle};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tonic::transport::Server;

use super::archivist::Archivist;
use super::clients::{self, ClientPort, Clients};
use super::connection;
use super::copyist::Copyist;
use super::disk::Disk;
use super::driver::{self, Driver, End, TICK};
use super::enrolment::{EnrolError, Enrolment};
use super::event::{ClusterError, Event};
use super::gateway::{Gateway, Numbers};
use super::home::Home;
use super::lease_clock::LeaseClock;
use super::mailbox::{Mailbox, Receiver, mailbox};
use super::publisher::Publisher;
use super::start::{self, CopyFound, Found, StartError};
use super::view::{NodeStatus, NodeView, Role, Unready};
use crate::admin::AdminService;
use crate::cli::Cli;
use crate::copy::{self, Engine};
use crate::http;
use crate::kv::{SnapshotPolicy, Store};
use crate::metrics::Metrics;
use crate::peer::{PeerService, Peers, WINDOW_BYTES};
use crate::replica::{Client, Options};
use crate::rpc::PeerScheme;
use crate::snapshots::{Archive, Manifest, SnapshotError, Worker};
use crate::storage::disk::OsDisk;
use crate::storage::identity::{Identity, random_member};
use crate::storage::{self, DirLock, OpenError, Wal, WalError, WalOptions};
use crate::tls::{Dialer, Tls, TlsError};

/// How long a request waits for its answer: as in etcd, five seconds and an election.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);

/// A leader is heard this often.
const HEARTBEAT: Duration = Duration::from_millis(100);

/// A follower campaigns after one to two of these in silence. A machine that is busy for less does not cause an election.
const ELECTION: Duration = Duration::from_millis(500);

/// The same the first time after a start. A leader that lives may need longer to reach it again: then it asks in vain, and harms nobody.
const START: Duration = Duration::from_millis(100);

/// How long a leader reads by itself once others have promised not to elect another for [`ELECTION`]. Both count ticks, and may be one
/// off: a clock may be faster than another by the ratio of 24 to 13 ticks.
const LEASE: Duration = Duration::from_millis(240);

/// A leader whose disk completes no write for this long steps down: longer than a healthy disk is ever busy with one fsync.
const DISK_DEADLINE: Duration = Duration::from_secs(1);

/// How many bytes of the log are kept behind a snapshot, for members that are a little behind.
const KEPT_LOG_BYTES: u64 = 16 << 20;

/// How often a silent connection from another member is asked whether somebody is there, and how long the answer may take.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// How long handing over leadership may take at the end.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a node does not start, or does not go on. One line that says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address that is missing or no address.
    #[error("{0}")]
    Usage(String),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address that cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The data directory.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The snapshots in it.
    #[error("cannot use the snapshots in the data directory: {0}")]
    Snapshots(#[from] SnapshotError),
    /// The first entry of a new cluster.
    #[error("cannot found a cluster: {0}")]
    Found(#[from] WalError),
    /// A data directory that belongs elsewhere.
    #[error("{0}")]
    Cluster(#[from] ClusterError),
    /// A membership that cannot be.
    #[error("{0}")]
    Enrol(String),
    /// The system denies threads, randomness or signals.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// The log cannot be written any more.
    #[error("the log cannot be written, so this node cannot go on: {0}")]
    DiskFailed(String),
    /// A broken invariant.
    #[error("the replica has ended by itself: this is a bug")]
    Lost,
}

impl From<StartError> for RunError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Log(error) => Self::Open(error),
            StartError::Snapshots(error) => Self::Snapshots(error),
        }
    }
}

impl RunError {
    /// What the process exits with.
    pub fn code(&self) -> u8 {
        match self {
            RunError::Usage(_) => 2,
            _ => 1,
        }
    }
}

/// Runs a node until it is told to stop (SIGTERM, SIGINT), or cannot go on.
pub fn run(cli: Cli) -> Result<(), RunError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let node = Node::start(cli)?;
        node.live().await
    })
}

/// The sockets that a node listens on.
#[derive(Debug)]
struct Listeners {
    client: TcpListener,
    peer: TcpListener,
    http: TcpListener,
}

impl Listeners {
    fn open(cli: &Cli) -> Result<Self, RunError> {
        Ok(Listeners {
            client: listen(&cli.listen_client)?,
            peer: listen(&cli.listen_peer)?,
            http: listen(&cli.listen_http)?,
        })
    }
}

fn listen(address: &str) -> Result<TcpListener, RunError> {
    let open = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    open().map_err(|source| RunError::Listen { address: address.to_owned(), source })
}

/// The certificates of a node.
#[derive(Debug)]
struct Certificates {
    client: Option<Tls>,
    peer: Option<Tls>,
}

impl Certificates {
    fn load(cli: &Cli) -> Result<Self, TlsError> {
        let load = |files: Option<_>| files.map(Tls::load).transpose();
        Ok(Certificates { client: load(cli.client_tls())?, peer: load(cli.peer_tls())? })
    }
}

/// What the data directory holds.
#[derive(Debug)]
struct Disks {
    lock: DirLock,
    dir: PathBuf,
    identity: Identity,
    wal: Wal,
    archive: Archive,
    /// What the log holds, and the newest snapshot's identity.
    found: Restored,
    /// The state: that of the snapshot, or a later one from its copy.
    state: Store,
    copy: Option<CopyFound>,
}

impl Disks {
    fn open(dir: &Path, with_copy: bool) -> Result<Self, RunError> {
        let lock = storage::lock(dir)?;
        let identity = Identity::open(&OsDisk, dir, random_member()?)?;
        let found = start::read(dir, &WalOptions::new(identity.member), |is_known| {
            with_copy.then(|| open_copy(dir, &identity, is_known)).flatten()
        })?;
        if !with_copy {
            discard_copy(dir);
        }
        if found.uncertain_tail {
            tracing::warn!("the log ended in a write that was not finished; it was cut off");
        }
        let Found { wal, archive, restored, state, copy, .. } = found;
        Ok(Disks { lock, dir: dir.to_owned(), identity, wal, archive, found: restored, state, copy })
    }

    /// Founds a cluster, unless there is one already.
    fn bootstrap(&mut self, me: &log::Member) -> Result<(), RunError> {
        match self.identity.cluster {
            0 => {}
            cluster if self.found.entries.is_empty() && self.found.snapshot.is_none() => {
                return Err(ClusterError::NotFounder(cluster).into());
            }
            _ => return Ok(()),
        }
        let (log, write) = driver::founding_log(me);
        self.wal.append(&[write])?;
        let cluster = getrandom::u64().map_err(io::Error::other)?.max(1);
        self.identity.join(&OsDisk, &self.dir, cluster)?;
        self.found = log;
        tracing::info!(cluster = format_args!("{cluster:016x}"), "founded a cluster");
        Ok(())
    }
}

/// Opens the copy of the state. A node does without it where it cannot be had.
fn open_copy(
    dir: &Path,
    identity: &Identity,
    is_known: &dyn Fn(LogId) -> bool,
) -> Option<(Box<dyn Engine>, Option<Store>)> {
    let opened = copy::guarded(|| copy::open(dir, identity.member, is_known));
    let reason = match opened {
        Ok(Ok((engine, state))) => {
            if let Some(state) = &state {
                tracing::info!(index = state.applied().index, "starts from the copy of the state");
            }
            return Some((engine, state));
        }
        Ok(Err(error)) => error.to_string(),
        Err(panicked) => panicked.to_string(),
    };
    tracing::warn!(reason, "goes on without a copy of the state");
    None
}

/// What an earlier process copied takes room, and is of no use once there is something else to start from.
fn discard_copy(dir: &Path) {
    if let Err(error) = copy::discard(dir) {
        tracing::warn!(%error, "the copy of the state that an earlier process has made stays where it is");
    }
}

/// A running node.
#[derive(Debug)]
struct Node {
    view: NodeView,
    mailbox: Mailbox,
    peers: Peers,
    clients: Clients,
    enrolment: Enrolment,
    end: oneshot::Receiver<End>,
    _lock: DirLock,
}

impl Node {
    /// Puts everything together. Inside the runtime that is to carry it.
    fn start(cli: Cli) -> Result<Self, RunError> {
        let certificates = Certificates::load(&cli)?;
        let mut disks = Disks::open(&cli.data_dir, cli.state_copy)?;
        let listeners = Listeners::open(&cli)?;
        let me = describe(&cli, &disks.identity, &listeners, certificates.client.is_some())?;
        if cli.bootstrap {
            disks.bootstrap(&me)?;
        }
        if cli.lease_reads {
            disks.identity.set_leases(&OsDisk, &disks.dir)?;
        }
        let view = NodeView::new(NodeStatus {
            cluster_id: disks.identity.cluster,
            member_id: me.id,
            name: me.name.clone(),
            peer_address: me.peer_address.clone(),
            client_urls: me.client_urls.clone(),
            unready: Some(Unready::Waiting),
            ..NodeStatus::default()
        });
        let dialer = Dialer::new(certificates.peer.clone());
        let peers = Peers::new(view.clone(), dialer.clone(), Handle::current());
        let (mailbox, events) = mailbox();
        let store = Arc::new(RwLock::new(Store::new()));
        let gateways = gateways(&me, &store, &mailbox)?;
        say_hello(&me, &listeners, disks.identity.cluster);

        let metrics = Metrics::default();
        let Disks { lock, dir, identity, wal, archive, found, state, copy } = disks;
        *store.write() = state;
        let home = (dir, identity);
        let wishes = Wishes { priority: cli.priority, lease_reads: cli.lease_reads };
        let start = Start { found, wal, archive, copy, home, wishes, store, metrics: metrics.clone() };
        let end = start.replica(&me, &view, &peers, &gateways, (mailbox.clone(), events))?;

        // The state holds by now what was committed when the process ended: from here on there is something to tell.
        serve_peers(listeners.peer, certificates.peer.clone(), &view, &mailbox, &peers);
        let peer_scheme = if certificates.peer.is_some() { PeerScheme::Https } else { PeerScheme::Http };
        let port = ClientPort { view: view.clone(), tls: certificates.client.clone(), peer_scheme };
        let clients = Clients::start(listeners.client, &port, gateways)?;
        for tls in [certificates.client, certificates.peer].into_iter().flatten() {
            tokio::spawn(tls.watch());
        }
        serve_http(listeners.http, view.clone(), metrics);

        let enrolment = Enrolment { view: view.clone(), dialer, me, join: cli.join, let_in: false };
        Ok(Node { view, mailbox, peers, clients, enrolment, end, _lock: lock })
    }

    /// Lives until the end.
    async fn live(self) -> Result<(), RunError> {
        let Node { view, mailbox, peers, clients, enrolment, mut end, _lock } = self;
        let mut enrolled = tokio::spawn(enrolment.run());
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut settled = false;
        loop {
            tokio::select! {
                ended = &mut end => return Err(fatal(ended)),
                result = &mut enrolled, if !settled => {
                    settled = true;
                    if let Ok(Err(error)) = result {
                        return Err(enrol_error(&error));
                    }
                }
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
        tracing::info!("stopping");
        mailbox.post(Event::Stopping);
        hand_over(&view, &mailbox).await;
        clients.stop().await;
        peers.close();
        mailbox.post(Event::Stop);
        match end.await {
            Ok(End::Stopped) => Ok(()),
            ended => Err(fatal(ended)),
        }
    }
}

/// What the person who starts it wishes of this member.
struct Wishes {
    priority: u32,
    lease_reads: bool,
}

/// What the replica's loop starts from.
struct Start {
    found: Restored,
    wal: Wal,
    archive: Archive,
    copy: Option<CopyFound>,
    home: (PathBuf, Identity),
    wishes: Wishes,
    store: Arc<RwLock<Store>>,
    metrics: Metrics,
}

impl Start {
    /// Starts the loop, and the thread of the log. What comes out tells how the loop has ended.
    fn replica(
        self,
        me: &log::Member,
        view: &NodeView,
        peers: &Peers,
        gateways: &[Gateway],
        (mailbox, events): (Mailbox, Receiver),
    ) -> Result<oneshot::Receiver<End>, RunError> {
        let (dir, identity) = self.home;
        let removed = identity.removed;
        let options = Options {
            raft: Config {
                id: identity.member,
                election_ticks: ticks(ELECTION) as u32,
                start_ticks: ticks(START) as u32,
                heartbeat_ticks: ticks(HEARTBEAT) as u32,
                disk_ticks: ticks(DISK_DEADLINE) as u32,
                priority: self.wishes.priority,
                lease: self.wishes.lease_reads.then_some(Lease { ticks: ticks(LEASE) as u32 }),
                promised: identity.leases,
                max_append_bytes: 1 << 20,
                max_inflight_bytes: 8 << 20,
                seed: getrandom::u64().map_err(io::Error::other)?,
            },
            request_ticks: ticks(REQUEST_TIMEOUT),
            snapshots: SnapshotPolicy::default(),
            kept_log_bytes: KEPT_LOG_BYTES,
            removed,
        };
        let data_dir = dir.clone();
        let snapshot_bytes = self.archive.newest().map_or(0, Manifest::bytes);
        let mut home = Home::new(dir, identity, &self.found);
        // A log without a cluster was begun by a founding that was cut short: nothing was promised, and nothing counts.
        let restored = if home.cluster() == 0 { Restored::default() } else { self.found };
        let mut publisher = Publisher::new(view.clone(), self.metrics.clone());
        let worker = Worker::new(self.archive, Arc::clone(&self.store));
        let keeper = self.copy.map(|copy| copy.keeper(options.raft.id, Arc::clone(&self.store)));
        let replica = start::replica(options.clone(), restored, self.store);
        home.set_removed(replica.removed())?;
        publisher.publish(&replica, home.cluster());
        peers.configure(publisher.members());
        let driver = Driver {
            options,
            replica,
            home,
            archivist: Archivist::start(worker, mailbox.clone(), self.metrics.clone())?,
            copyist: keeper.map(|keeper| Copyist::start(keeper, data_dir.clone())).transpose()?,
            disk: Disk::start(self.wal, data_dir, mailbox, self.metrics.clone())?,
            peers: peers.clone(),
            clock: LeaseClock::start(),
            gateways: gateways.iter().map(|gateway| driver::Gateway::new(gateway.answers())).collect(),
            publisher,
            metrics: self.metrics,
            member: me.clone(),
            founding: None,
            reads: false,
        };
        driver.disk.next_snapshot(snapshot_bytes);
        let (ended, end) = oneshot::channel();
        tokio::spawn(async move {
            let _ = ended.send(driver.run(events).await);
        });
        Ok(end)
    }
}

fn ticks(time: Duration) -> u64 {
    (time.as_millis() / TICK.as_millis()) as u64
}

fn gateways(me: &log::Member, store: &Arc<RwLock<Store>>, mailbox: &Mailbox) -> io::Result<Vec<Gateway>> {
    let numbers = Numbers::new(me.id, getrandom::u64().map_err(io::Error::other)?);
    let gateway = |client| Gateway::new(Client(client), Arc::clone(store), mailbox.clone(), numbers.clone());
    Ok((0..clients::runtimes()).map(gateway).collect())
}

/// Serves other members and operators.
fn serve_peers(listener: TcpListener, tls: Option<Tls>, view: &NodeView, mailbox: &Mailbox, peers: &Peers) {
    let (sockets, incoming) = connection::lane(tls);
    tokio::spawn(connection::accept(listener, vec![sockets]));
    let router = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .add_service(PeerService::server(view.clone(), mailbox.clone(), peers.clone()))
        .add_service(AdminService::server(view.clone(), mailbox.clone()));
    tokio::spawn(async move {
        if let Err(error) = router.serve_with_incoming(incoming).await {
            tracing::error!(%error, "the peer port is closed");
        }
    });
}

/// Serves health checks and metrics.
fn serve_http(listener: TcpListener, view: NodeView, metrics: Metrics) {
    tokio::spawn(async move {
        if let Err(error) = http::serve(listener, view, &metrics).await {
            tracing::error!(%error, "the HTTP port is closed");
        }
    });
}

/// This node, as configurations are to describe it.
fn describe(
    cli: &Cli,
    identity: &Identity,
    listeners: &Listeners,
    client_tls: bool,
) -> Result<log::Member, RunError> {
    let peer = match &cli.advertise_peer {
        Some(address) => address.clone(),
        None => reachable(&listeners.peer, &cli.listen_peer, "--advertise-peer")?,
    };
    let client = if let Some(url) = &cli.advertise_client {
        url.clone()
    } else {
        let address = reachable(&listeners.client, &cli.listen_client, "--advertise-client")?;
        format!("{}://{address}", if client_tls { "https" } else { "http" })
    };
    if peer.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()) {
        return Err(RunError::Usage(format!("--advertise-peer {peer}: want HOST:PORT")));
    }
    if !client.starts_with("http://") && !client.starts_with("https://") {
        return Err(RunError::Usage(format!(
            "--advertise-client {client}: want http://HOST:PORT or https://HOST:PORT"
        )));
    }
    let name = cli.name.clone().unwrap_or_else(|| identity.member.to_string());
    Ok(log::Member { id: identity.member.0, name, peer_address: peer, client_urls: vec![client] })
}

/// The address of a listener, for others to use.
fn reachable(listener: &TcpListener, given: &str, flag: &str) -> Result<String, RunError> {
    let address: SocketAddr = listener.local_addr()?;
    if address.ip().is_unspecified() {
        let what = format!("{given} is no address that others can reach: say which one is with {flag}");
        return Err(RunError::Usage(what));
    }
    // A name is kept; only the port may have been left to the system.
    let host = given.rsplit_once(':').map_or(given, |(host, _)| host);
    Ok(format!("{host}:{}", address.port()))
}

fn say_hello(me: &log::Member, listeners: &Listeners, cluster: u64) {
    tracing::info!(
        member = format_args!("{:016x}", me.id),
        cluster = format_args!("{cluster:016x}"),
        name = me.name,
        client = listeners.client.local_addr().ok().map(tracing::field::display),
        peer = listeners.peer.local_addr().ok().map(tracing::field::display),
        http = listeners.http.local_addr().ok().map(tracing::field::display),
        "quorate-node {}",
        super::view::VERSION
    );
}

/// Hands leadership over, if this node has it and there is somebody to take it. Tries again while there is time: the protocol
/// gives an attempt up after an election timeout.
async fn hand_over(view: &NodeView, mailbox: &Mailbox) {
    let status = view.status();
    let voters = status.configuration.as_ref().map_or(0, |c| c.configuration.voters.len());
    if status.role != Role::Leader || voters < 2 {
        return;
    }
    let handed = async {
        loop {
            if let Some((leader, term)) = successor(view, mailbox).await {
                return (leader, term);
            }
        }
    };
    if let Ok((leader, term)) = tokio::time::timeout(HANDOVER_TIMEOUT, handed).await {
        tracing::info!(leader = format_args!("{leader:016x}"), term, "handed leadership over");
    } else {
        tracing::warn!("could not hand leadership over; the others will elect a leader");
    }
}

/// One attempt: who leads instead of this node, and in which term.
async fn successor(view: &NodeView, mailbox: &Mailbox) -> Option<(u64, u64)> {
    let mut changes = view.subscribe();
    let (reply, answer) = oneshot::channel();
    mailbox.post(Event::Transfer { target: None, reply });
    let _ = answer.await;
    let other = |status: &Arc<NodeStatus>| status.leader.is_some_and(|leader| leader != status.member_id);
    let status = tokio::time::timeout(ELECTION, changes.wait_for(other)).await.ok()?.ok()?;
    Some((status.leader?, status.term))
}

fn fatal(ended: Result<End, oneshot::error::RecvError>) -> RunError {
    match ended {
        Ok(End::DiskFailed(reason)) => RunError::DiskFailed(reason),
        Ok(End::Stopped) | Err(_) => RunError::Lost,
    }
}

fn enrol_error(error: &EnrolError) -> RunError {
    RunError::Enrol(error.to_string())
}
