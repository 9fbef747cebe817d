//! The links between nodes: each node is reached through a door of its own, which knows who comes in.
//!
//! Nodes advertise the door's address, so every connection between two of them passes one. The one who dials is known by the hello
//! that it says; what is not peer traffic (a node that asks to be let in) passes unhindered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::hello::Listener;

/// The number of a node in its cluster.
pub(crate) type Number = usize;

/// What happens to bytes on their way from one node to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Connections break, and new ones do not last.
    Cut,
    /// Nothing passes, and nobody is told; it comes later, when the link is healed.
    Stall,
    /// Everything comes later by so much, as from far away: what follows need not wait for that.
    Delay(Duration),
}

/// How many reads of a connection are on their way at once: 16 MiB at most.
const UNDER_WAY: usize = 256;

#[derive(Debug, Clone, Default)]
struct State {
    faults: BTreeMap<(Number, Number), Fault>,
    /// Which node has which member ID.
    members: BTreeMap<u64, Number>,
}

/// All links. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    state: Arc<watch::Sender<State>>,
}

impl Network {
    /// A network without faults.
    pub(crate) fn new() -> Self {
        Self { state: Arc::new(watch::Sender::new(State::default())) }
    }

    /// Opens a door to the peer port of `node`, and returns its address.
    pub(crate) async fn door(&self, node: Number, port: SocketAddr) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let network = self.clone();
        tokio::spawn(async move {
            while let Ok((dialler, _)) = listener.accept().await {
                tokio::spawn(network.clone().connection(node, dialler, port));
            }
        });
        Ok(address)
    }

    /// From now on member `id` is known as `node`.
    pub(crate) fn introduce(&self, id: u64, node: Number) {
        self.state.send_modify(|state| _ = state.members.insert(id, node));
    }

    /// Breaks the way from one node to another; not the way back.
    pub(crate) fn fault(&self, from: Number, to: Number, fault: Fault) {
        self.state.send_modify(|state| _ = state.faults.insert((from, to), fault));
    }

    /// Breaks all ways between two groups.
    pub(crate) fn part(&self, one: &[Number], other: &[Number], fault: Fault) {
        for &a in one {
            for &b in other {
                self.fault(a, b, fault);
                self.fault(b, a, fault);
            }
        }
    }

    /// Mends everything.
    pub(crate) fn heal(&self) {
        self.state.send_modify(|state| state.faults.clear());
    }

    async fn connection(self, to: Number, dialler: TcpStream, port: SocketAddr) {
        // Nobody is at home: the dialler sees its connection end.
        let Ok(node) = TcpStream::connect(port).await else { return };
        let _ = (dialler.set_nodelay(true), node.set_nodelay(true));
        let (dialler_reads, dialler_writes) = dialler.into_split();
        let (node_reads, node_writes) = node.into_split();
        let (from, known) = watch::channel(None);
        let there = Way { network: self.clone(), to, from: known.clone(), forth: true };
        let back = Way { network: self, to, from: known, forth: false };
        // When one way ends, both do: everything is dropped.
        tokio::select! {
            () = there.carry(dialler_reads, node_writes, Some(from)) => {}
            () = back.carry(node_reads, dialler_writes, None) => {}
        }
    }
}

/// One direction of one connection.
struct Way {
    network: Network,
    /// Whose door it is.
    to: Number,
    /// Who came in, once that is known.
    from: watch::Receiver<Option<Number>>,
    /// From the one who came in, or back.
    forth: bool,
}

impl Way {
    async fn carry(
        self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        names: Option<watch::Sender<Option<Number>>>,
    ) {
        let (queue, mut under_way) = mpsc::channel(UNDER_WAY);
        let way = &self;
        let reads = async move {
            let mut listener = Listener::default();
            loop {
                let mut buffer = vec![0; 64 * 1024];
                let read = tokio::select! {
                    read = from.read(&mut buffer) => read,
                    () = way.wait_until(|fault| fault == Some(Fault::Cut)) => return,
                };
                let Ok(length @ 1..) = read else { return };
                buffer.truncate(length);
                if let Some(names) = &names
                    && names.borrow().is_none()
                    && let Some(hello) = listener.hear(&buffer)
                {
                    let number = way.network.state.borrow().members.get(&hello.from).copied();
                    names.send_replace(number);
                }
                if queue.send((Instant::now() + way.delay(), buffer)).await.is_err() {
                    return;
                }
            }
        };
        let writes = async {
            while let Some((due, bytes)) = under_way.recv().await {
                tokio::time::sleep_until(due).await;
                if !way.passes().await || to.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        };
        let mut writes = pin!(writes);
        // What was read before the end still arrives.
        tokio::select! {
            () = &mut writes => return,
            () = reads => {}
        }
        writes.await;
    }

    fn delay(&self) -> Duration {
        match self.fault() {
            Some(Fault::Delay(delay)) => delay,
            Some(Fault::Cut | Fault::Stall) | None => Duration::ZERO,
        }
    }

    /// Waits for as long as the link wants. False if it is cut.
    async fn passes(&self) -> bool {
        match self.fault() {
            Some(Fault::Stall) => self.wait_until(|fault| fault != Some(Fault::Stall)).await,
            Some(Fault::Cut | Fault::Delay(_)) | None => {}
        }
        self.fault() != Some(Fault::Cut)
    }

    fn fault(&self) -> Option<Fault> {
        let from = (*self.from.borrow())?;
        let link = if self.forth { (from, self.to) } else { (self.to, from) };
        self.network.state.borrow().faults.get(&link).copied()
    }

    async fn wait_until(&self, condition: impl Fn(Option<Fault>) -> bool) {
        let (mut state, mut from) = (self.network.state.subscribe(), self.from.clone());
        while !condition(self.fault()) {
            let changed = tokio::select! {
                changed = state.changed() => changed,
                changed = from.changed() => changed,
            };
            if changed.is_err() {
                // The other way has ended, and this one with it.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// All but one of the numbers below `count`.
pub(crate) fn others(count: usize, of: Number) -> Vec<Number> {
    (0..count).filter(|number| *number != of).collect::<BTreeSet<_>>().into_iter().collect()
}
