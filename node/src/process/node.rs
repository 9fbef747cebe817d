//! A node's life: what is put together at its start, and taken apart in order at its end.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use quorate_api::log;
use quorate_raft::{Config, Lease, MemberId, Restored};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::addresses::{Advertised, Ports, listen};
use super::ask::Asker;
use super::clients::{self, ClientPort, Clients};
use super::disks::Disks;
use super::error::RunError;
use super::handover::hand_over;
use super::join::{Join, JoinError};
use super::members::Members;
use super::memory::Kernel;
use super::notify::Notify;
use super::peer_port;
use super::runtime::PortsRuntime;
use super::stop::{Stop, end_at_once};
use crate::cli::{Cli, QuotaBytes};
use crate::doors::event::Event;
use crate::doors::gateway::{Gateway, Numbers};
use crate::doors::health::Health;
use crate::doors::mailbox::{Mailbox, Receiver, mailbox};
use crate::doors::members::members;
use crate::doors::view::{NodeStatus, NodeView, Unready, VERSION};
use crate::http::{self, Reading, Shown};
use crate::kv::{SnapshotPolicy, Store};
use crate::level::Levels;
use crate::metrics::Metrics;
use crate::net::{Bound, Connections, Listeners, descriptors};
use crate::peer::{OwnProcess, Peers};
use crate::replica::{Client, Options};
use crate::retention::Retention;
use crate::rpc::PeerScheme;
use crate::server::apply_thread::ApplyThread;
use crate::server::auto_compaction::AutoCompaction;
use crate::server::copy_thread::CopyThread;
use crate::server::data_dir::DataDir;
use crate::server::driver::{self, Driver, End};
use crate::server::lease_clock::LeaseClock;
use crate::server::log_thread::LogThread;
use crate::server::snapshot_thread::SnapshotThread;
use crate::server::start::{self, CopyFound};
use crate::server::status_view::StatusView;
use crate::server::timing::{
    DISK_DEADLINE, ELECTION, HEARTBEAT, KEPT_LOG_BYTES, LEASE, REQUEST_TIMEOUT, START, ticks,
};
use crate::snapshots::{Archive, Corrupt, Manifest, Worker};
use crate::storage::disk::OsDisk;
use crate::storage::identity::{self, Identity};
use crate::storage::{DirLock, OPEN_FILES, Wal};
use crate::tls::{Dialer, Tls, TlsError};

// Of what a long log needs clients get nothing.
const _: () = assert!(OPEN_FILES <= descriptors::LOG);

/// What the thread of the protocol has for its stack, in bytes: as much as the first thread of a process.
const STACK: usize = 8 << 20;

/// Runs a node until it is told to stop (SIGTERM, SIGINT), or cannot go on.
///
/// All of it runs on another thread than the first one, which only waits: the system hands that one the signals, and one that waits for a disk
/// takes none.
pub fn run(cli: &Cli) -> Result<(), RunError> {
    std::thread::scope(|threads| {
        let node = std::thread::Builder::new().name("node".into()).stack_size(STACK);
        node.spawn_scoped(threads, || run_here(cli))?.join().map_err(|_| RunError::Lost)?
    })
}

fn run_here(cli: &Cli) -> Result<(), RunError> {
    peer_port::warn_if_open(cli);
    loop {
        match live_once(cli)? {
            Lived::Stopped => return Ok(()),
            Lived::StartsAnew => {}
            Lived::BecomesAnother(member) => {
                identity::take_id(&OsDisk, &cli.data_dir, member)?;
                tracing::info!(%member, "has taken the ID that was registered for its address");
            }
        }
    }
}

/// One life of the node, on a runtime of its own: with that all connections end that are left.
fn live_once(cli: &Cli) -> Result<Lived, RunError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let stop = Stop::listen()?;
        Node::start(cli)?.live(stop, Duration::from_secs(cli.stop_delay.into())).await
    });
    // The look-up of a name may take the resolver a minute: nothing waits for it any more.
    runtime.shutdown_background();
    ended
}

/// The part of the memory that the state may take: beside it there are the log behind the newest snapshot, requests and answers under way,
/// and what allocators leave.
const QUOTA_PERCENT: u64 = 60;

/// Answers may hold this part of that once more.
const ANSWERS: u64 = 8;

/// The same where nothing says how much memory there is: etcd's default.
const UNKNOWN_QUOTA: u64 = 2 << 30;

/// The part of the memory that the requests of one client thread may hold, and so may each of what they become: entries that are not
/// committed, entries that are not applied. At least 64 MiB and at most 1 GiB.
const WAITING: u64 = 32;

/// The certificates of a node.
#[derive(Debug)]
struct Certificates {
    client: Option<Tls>,
    peer: Option<Tls>,
}

impl Certificates {
    fn load(cli: &Cli) -> Result<Self, TlsError> {
        Ok(Certificates {
            client: cli.client_tls().map(Tls::load).transpose()?,
            peer: cli.peer_tls().map(Tls::load_mutual).transpose()?,
        })
    }
}

/// A running node.
#[derive(Debug)]
struct Node {
    view: NodeView,
    mailbox: Mailbox,
    peers: Peers,
    clients: Clients,
    join: Join,
    end: oneshot::Receiver<End>,
    ports: PortsRuntime,
    notify: Notify,
    _lock: DirLock,
}

/// How a node's life has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lived {
    /// It was told to stop.
    Stopped,
    /// It is to be put together once more, from what its directory holds by now.
    StartsAnew,
    /// The same, as this member.
    BecomesAnother(MemberId),
}

/// What a member that has begun nothing yet says of itself.
fn first_status(me: &log::Member, cluster_id: u64, levels: Levels, quota: Option<u64>) -> NodeStatus {
    NodeStatus {
        cluster_id,
        member_id: me.id,
        name: me.name.clone(),
        peer_address: me.peer_address.clone(),
        client_urls: me.client_urls.clone(),
        unready: Some(Unready::Waiting),
        levels,
        quota,
        ..NodeStatus::default()
    }
}

impl Node {
    /// Puts everything together. Inside the runtime that is to carry it.
    fn start(cli: &Cli) -> Result<Self, RunError> {
        let levels = cli.levels();
        let (descriptors, memory) = (raise_descriptors(), Kernel::default().memory());
        let certificates = Certificates::load(cli)?;
        let taken = Ports::bind(cli)?;
        let advertised = Advertised::new(cli, &taken)?;
        let addresses = [&taken.client, &taken.peer, &taken.http].map(Bound::address);
        let ports = PortsRuntime::start()?;
        let notify = Notify::from_environment();
        let while_it_starts = while_it_starts(&ports, &notify);
        let tables = Tables::new(descriptors::clients(descriptors, memory, cli.max_client_connections));
        let shown = Shown {
            health: Health::default(),
            scrape: Arc::default(),
            reading: Reading::of(cli.data_dir.clone()),
        };
        // Before the log is read: that may take minutes, and whoever asks must not take it for a process that hangs.
        serve_http(listen(taken.http)?, &tables.http, shown.clone(), &ports);

        let mut disks = Disks::open(&cli.data_dir, cli.state_copy)?;
        let me = advertised.member(cli.name.clone(), &disks.identity);
        if cli.bootstrap && cli.join.is_empty() {
            disks.bootstrap(&me, levels)?;
        }
        let (quota, waiting) = (quota(cli, memory), waiting_bytes(memory));
        let lease_reads = cli.lease_reads && disks.allow_leases()?;
        let start = disks.count_start()?;
        let nonce = getrandom::u64().map_err(io::Error::other)?;
        let process = Arc::new(OwnProcess::new(start, nonce, disks.wal.sequence()));
        let view = NodeView::new(first_status(&me, disks.identity.cluster, levels, quota));
        let dialer = Dialer::new(certificates.peer.clone());
        let (mailbox, events) = mailbox();
        let peers = Peers::new(view.clone(), mailbox.clone(), dialer.clone(), Handle::current(), process);
        let store = Arc::new(RwLock::new(Store::new()));
        let gateways = gateways(&me, &store, &mailbox, waiting)?;
        let cluster = disks.identity.cluster;

        let metrics = Metrics::default();
        let Disks { lock, dir, identity, wal, archive, found, corrupt, state, copy } = disks;
        *store.write() = state;
        let data_dir = (dir, identity);
        let wishes = Wishes::of(cli, quota, waiting, lease_reads);
        let health = shown.health.clone();
        let start = Start {
            found,
            wal,
            archive,
            copy,
            data_dir,
            wishes,
            store,
            health,
            metrics: metrics.clone(),
            levels,
            corrupt,
        };
        let end = start.replica(&me, &view, &peers, &gateways, (mailbox.clone(), events))?;

        shown.health.shows(view.clone());
        let (peer, admin) = peer_port::services(cli, &view, &mailbox, &peers, certificates.peer.as_ref());
        // The state holds by now what was committed when the process ended: from here on there is something to tell.
        peer_port::serve(
            listen(taken.peer)?,
            tables.peer.clone(),
            certificates.peer.clone(),
            (peer, admin),
            ports.handle(),
        );
        let peer_scheme = if certificates.peer.is_some() { PeerScheme::Https } else { PeerScheme::Http };
        let (members, asked) = members();
        let asks = Asker { dialer };
        ports.handle().spawn(Members { view: view.clone(), asks: asks.clone() }.serve(asked));
        let port = ClientPort {
            view: view.clone(),
            members,
            tls: certificates.client.clone(),
            peer_scheme,
            connections: tables.client.clone(),
            streams: cli.max_concurrent_streams,
            answering: answering(quota),
            progress: cli.watch_progress_notify_interval,
            arriving: usize::try_from(waiting).unwrap_or(usize::MAX),
        };
        let clients = Clients::start(listen(taken.client)?, &port, gateways, ports.handle())?;
        let peer_tls = certificates.peer.clone();
        for tls in [certificates.client, certificates.peer].into_iter().flatten() {
            ports.handle().spawn(tls.watch());
        }
        shown.scrape.shows(metrics.registry(view.clone(), tables.all(), peer_tls));
        // Once all ports are open: this line tells people, and programs that read it, where to connect.
        say_hello(&me, addresses, cluster);
        shown.health.serves();
        while_it_starts.iter().for_each(AbortHandle::abort);
        notify.ready();

        let join = cli.join.iter().map(ToString::to_string).collect();
        let join = Join {
            view: view.clone(),
            asks,
            me,
            join,
            founds: cli.bootstrap,
            peers: peers.clone(),
            mailbox: mailbox.clone(),
            let_in: false,
        };
        Ok(Node { view, mailbox, peers, clients, join, end, ports, notify, _lock: lock })
    }

    /// Lives until the end.
    async fn live(self, mut stop: Stop, stop_delay: Duration) -> Result<Lived, RunError> {
        let Node { view, mailbox, peers, clients, join, mut end, ports, notify, _lock } = self;
        let mut enrolled = tokio::spawn(join.run());
        let mut settled = false;
        loop {
            tokio::select! {
                ended = &mut end => {
                    let next = match ended {
                        Ok(End::StartsAnew) => Lived::StartsAnew,
                        Ok(End::BecomesAnother(member)) => Lived::BecomesAnother(member),
                        ended => return Err(fatal(ended)),
                    };
                    clients.stop().await;
                    peers.leave().await;
                    // Its ports are bound again at once.
                    ports.end();
                    let told = stop.told_again_within(Duration::ZERO).await;
                    return Ok(if told { Lived::Stopped } else { next });
                }
                result = &mut enrolled, if !settled => {
                    settled = true;
                    if let Ok(Err(error)) = result {
                        return Err(join_error(error));
                    }
                }
                () = stop.told() => break,
            }
        }
        tracing::info!("stopping");
        notify.stopping();
        mailbox.post(Event::Stopping);
        hand_over(&view, &mailbox).await;
        if stop.told_again_within(stop_delay).await {
            tracing::info!("stopping at once");
        }
        // From here on this thread may wait for clients, for other members, or for a disk that hangs.
        ports.handle().spawn(end_at_once("told to stop again: ends before it has finished"));
        // It may have been elected once more.
        hand_over(&view, &mailbox).await;
        clients.stop().await;
        // The loop's end holds up this thread: what is to be said to the others is said before.
        peers.leave().await;
        mailbox.post(Event::Stop);
        match end.await {
            Ok(End::Stopped | End::StartsAnew | End::BecomesAnother(_)) => Ok(Lived::Stopped),
            ended => Err(fatal(ended)),
        }
    }
}

/// What the person who starts it wishes of this member.
struct Wishes {
    priority: u32,
    lease_reads: bool,
    quota: Option<u64>,
    waiting_bytes: u64,
    retention: Option<Retention>,
}

impl Wishes {
    fn of(cli: &Cli, quota: Option<u64>, waiting_bytes: u64, lease_reads: bool) -> Self {
        // What makes no sense was refused with the command line.
        let retention = cli.retention().unwrap_or_default();
        Wishes { priority: cli.priority, lease_reads, quota, waiting_bytes, retention }
    }
}

/// What the replica's loop starts from.
struct Start {
    found: Restored,
    wal: Wal,
    archive: Archive,
    copy: Option<CopyFound>,
    data_dir: (PathBuf, Identity),
    wishes: Wishes,
    store: Arc<RwLock<Store>>,
    metrics: Metrics,
    levels: Levels,
    corrupt: Option<Corrupt>,
    health: Health,
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
        let (dir, identity) = self.data_dir;
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
            ticks_per_second: ticks(Duration::from_secs(1)),
            waiting_bytes: self.wishes.waiting_bytes,
            snapshots: SnapshotPolicy::default(),
            kept_log_bytes: KEPT_LOG_BYTES,
            removed,
            levels: self.levels,
            quota: self.wishes.quota,
            corrupt: self.corrupt,
        };
        let path = dir.clone();
        let snapshot_bytes = self.archive.newest().map_or(0, Manifest::bytes);
        let mut data_dir = DataDir::new(dir, identity, &self.found);
        // A log without a cluster was begun by a founding that was cut short: nothing was promised, and nothing counts.
        let restored = if data_dir.cluster() == 0 { Restored::default() } else { self.found };
        let mut status_view = StatusView::new(view.clone(), self.metrics.clone());
        let held: Vec<Manifest> = self.archive.manifests().cloned().collect();
        // The engine of a copy gives its files back only with the process.
        let room =
            self.wishes.quota.filter(|_| self.copy.is_none()).map(|quota| quota.saturating_add(quota / 2));
        let worker = Worker::new(self.archive, Arc::clone(&self.store)).with_room(room);
        let keeper = self.copy.map(|copy| copy.keeper(options.raft.id, Arc::clone(&self.store)));
        let (mut replica, applier) = start::member(options.clone(), restored, self.store)?;
        replica.holds(&held);
        data_dir.set_removed(replica.removed())?;
        status_view.publish(&replica, data_dir.cluster());
        let state = Arc::clone(applier.store());
        let revision = state.read().revision();
        view.publish_applied(state.read().applied().index, revision);
        view.publish_state_bytes(replica.usage().bytes);
        let compaction =
            self.wishes.retention.map(|retention| AutoCompaction::new(retention, Duration::ZERO, revision));
        peers.configure(status_view.members());
        let driver = Driver {
            options,
            replica,
            data_dir,
            snapshot_thread: SnapshotThread::start(worker, mailbox.clone(), self.metrics.clone())?,
            copy_thread: keeper.map(|keeper| CopyThread::start(keeper, path.clone())).transpose()?,
            apply_thread: ApplyThread::start(
                applier,
                gateways.iter().map(Gateway::answers).collect(),
                view.clone(),
                mailbox.clone(),
            )?,
            log_thread: LogThread::start(
                self.wal,
                path,
                mailbox,
                self.metrics.clone(),
                Arc::clone(peers.own_process()),
            )?,
            peers: peers.clone(),
            clock: LeaseClock::start(),
            gateways: gateways.iter().map(|gateway| driver::Gateway::new(gateway.answers())).collect(),
            status_view,
            health: self.health,
            metrics: self.metrics,
            member: me.clone(),
            founding: None,
            compaction: compaction.map(|compaction| (Instant::now(), compaction)),
            forgotten: None,
            reads: false,
        };
        driver.log_thread.next_snapshot(snapshot_bytes);
        let (ended, end) = oneshot::channel();
        tokio::spawn(async move {
            let _ = ended.send(driver.run(events).await);
        });
        Ok(end)
    }
}

/// The most bytes that the state may take. None for no limit.
fn quota(cli: &Cli, memory: Option<u64>) -> Option<u64> {
    let quota = match (cli.quota_bytes, memory) {
        (Some(QuotaBytes::Most(quota)), _) => Some(quota),
        (Some(QuotaBytes::None), _) => None,
        (None, Some(memory)) => Some(memory / 100 * QUOTA_PERCENT),
        (None, None) => Some(UNKNOWN_QUOTA),
    };
    if let Some(quota) = quota {
        tracing::info!(quota, memory, "the state may take so many bytes (--quota-bytes)");
    } else {
        tracing::warn!(memory, "the state may take all memory there is (--quota-bytes none)");
    }
    quota
}

/// What goes on until everything is read.
fn while_it_starts(ports: &PortsRuntime, notify: &Notify) -> [AbortHandle; 2] {
    let early = end_at_once("stopping before everything was read");
    let asks = notify.clone().more_time();
    [ports.handle().spawn(asks).abort_handle(), ports.handle().spawn(early).abort_handle()]
}

/// What answers may hold of the memory, in bytes.
fn answering(quota: Option<u64>) -> usize {
    quota.map_or(0, |quota| usize::try_from(quota / ANSWERS).unwrap_or(usize::MAX))
}

/// What the requests of one client thread may hold of the memory, in bytes.
fn waiting_bytes(memory: Option<u64>) -> u64 {
    (memory.unwrap_or(0) / WAITING).clamp(64 << 20, 1 << 30)
}

fn gateways(
    me: &log::Member,
    store: &Arc<RwLock<Store>>,
    mailbox: &Mailbox,
    waiting: u64,
) -> io::Result<Vec<Gateway>> {
    let (start, runtimes) = (getrandom::u64().map_err(io::Error::other)?, clients::runtimes());
    let gateway = |client| {
        let numbers = Numbers::new(me.id, start, Client(client), runtimes);
        Gateway::new(Client(client), Arc::clone(store), mailbox.clone(), numbers, waiting)
    };
    Ok((0..runtimes).map(gateway).collect())
}

/// The connections of each port.
#[derive(Debug)]
struct Tables {
    client: Connections,
    peer: Connections,
    http: Connections,
}

impl Tables {
    fn new(clients: usize) -> Self {
        Tables {
            client: Connections::new(clients::limits(clients)),
            peer: Connections::new(peer_port::limits()),
            http: Connections::new(http::limits()),
        }
    }

    fn all(&self) -> Vec<Connections> {
        vec![self.client.clone(), self.peer.clone(), self.http.clone()]
    }
}

/// Serves health checks and metrics.
fn serve_http(listeners: Listeners, connections: &Connections, shown: Shown, ports: &PortsRuntime) {
    let connections = connections.clone();
    ports.handle().spawn(async move {
        if let Err(error) = http::serve(listeners, connections, shown).await {
            tracing::error!(%error, "the HTTP port is closed");
        }
    });
}

/// Gives the process as many file descriptors as it may have: the limit.
fn raise_descriptors() -> usize {
    let before = descriptors::limit();
    match descriptors::raise_limit() {
        Ok(limit) if limit == before => {}
        Ok(limit) => tracing::info!(before, limit, "raised the limit on open files"),
        Err(error) => tracing::warn!(before, %error, "cannot raise the limit on open files"),
    }
    descriptors::limit()
}

fn say_hello(me: &log::Member, [client, peer, http]: [SocketAddr; 3], cluster: u64) {
    tracing::info!(
        member = format_args!("{:016x}", me.id),
        cluster = format_args!("{cluster:016x}"),
        name = me.name,
        %client,
        %peer,
        %http,
        "quorate-node {}",
        VERSION
    );
}

fn fatal(ended: Result<End, oneshot::error::RecvError>) -> RunError {
    match ended {
        Ok(End::DiskFailed(reason)) => RunError::DiskFailed(reason),
        Ok(End::Unsupported(unsupported)) => RunError::Unsupported(unsupported),
        Ok(End::Contradiction(reason)) => RunError::Contradiction(reason),
        Ok(End::Conflict(reason)) => RunError::Conflict(reason),
        Ok(End::Stopped | End::StartsAnew | End::BecomesAnother(_)) | Err(_) => RunError::Lost,
    }
}

fn join_error(error: JoinError) -> RunError {
    match error {
        JoinError::Unsupported(unsupported) => RunError::Unsupported(unsupported),
        error => RunError::Join(error),
    }
}
