//! The way to one member: a queue, and a task that keeps a stream to it open while there is something to say.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::Stream;
use parking_lot::Mutex;
use quorate_api::peer as pb;
use quorate_api::peer::peer_client::PeerClient;
use quorate_raft::{MemberId, Term};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, Interval, interval};
use tonic::Status;

use super::own_process::{Consequence, OwnProcess};
use super::registry::{MOST_GROUPS, MOST_STARTS, Memory};
use super::{terms, wire};
use crate::doors::event::Event;
use crate::doors::mailbox::Mailbox;
use crate::doors::view::NodeView;
use crate::replica::Message;
use crate::tls::Dialer;

/// How often a peer hears of this process when there is nothing to say: another process of this member is refused while this one is heard
/// ([`super::registry::HEARD`]), and what is durable is told.
const ALIVE: Duration = Duration::from_millis(500);

/// The most bytes that wait for one peer; what does not fit is lost, and the protocol sends it again.
const MAX_QUEUE_BYTES: usize = 64 << 20;

/// A frame takes in messages until it has this many bytes.
const FRAME_BYTES: usize = 1 << 20;

/// How long to wait before another attempt: at first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// A stream that has lasted for so long was a good one.
const STABLE: Duration = Duration::from_secs(2);

/// One peer.
#[derive(Debug)]
pub(super) struct Link {
    peer: MemberId,
    queue: Mutex<Queue>,
    /// The address has changed.
    moved: Notify,
    ended: watch::Sender<bool>,
}

#[derive(Debug)]
struct Queue {
    /// Where the configuration says that it is; of one that is in none, where it said so itself.
    address: String,
    /// Where else it may be, if it does not answer there.
    alternative: Option<String>,
    /// When something was queued last.
    used: Instant,
    /// The configuration names it: a stream to it is kept open, whether or not there is something to say.
    is_member: bool,
    messages: VecDeque<Message>,
    bytes: usize,
    closed: bool,
    /// Whoever waits for a message, or for the end.
    waker: Option<Waker>,
}

impl Queue {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Link {
    pub(super) fn new(peer: MemberId, address: String) -> Self {
        let (messages, used) = (VecDeque::new(), Instant::now());
        let queue = Queue {
            address,
            alternative: None,
            used,
            is_member: false,
            messages,
            bytes: 0,
            closed: false,
            waker: None,
        };
        Link { peer, queue: Mutex::new(queue), moved: Notify::new(), ended: watch::Sender::new(false) }
    }

    /// Queues messages. Returns those for which there is no room.
    pub(super) fn push(&self, messages: Vec<Message>) -> Vec<Message> {
        let mut queue = self.queue.lock();
        queue.used = Instant::now();
        let mut untaken = Vec::new();
        for message in messages {
            let bytes = wire::size(&message);
            if queue.bytes + bytes <= MAX_QUEUE_BYTES && !queue.closed {
                queue.bytes += bytes;
                queue.messages.push_back(message);
            } else {
                untaken.push(message);
            }
        }
        queue.wake();
        untaken
    }

    /// The peer has moved.
    pub(super) fn set_address(&self, address: &str) {
        let mut queue = self.queue.lock();
        if queue.address != address {
            address.clone_into(&mut queue.address);
            self.moved.notify_one();
        }
    }

    /// The peer may be at `address`, if it does not answer where the configuration says.
    pub(super) fn set_alternative(&self, address: &str) {
        let mut queue = self.queue.lock();
        if queue.alternative.as_deref() != Some(address) {
            queue.alternative = Some(address.to_owned());
        }
    }

    /// From now on the configuration names the peer, or does not.
    pub(super) fn set_member(&self, is_member: bool) {
        let mut queue = self.queue.lock();
        queue.is_member = is_member;
        queue.wake();
    }

    /// When something was queued last.
    pub(super) fn used(&self) -> Instant {
        self.queue.lock().used
    }

    /// Where to try next, after so many attempts in vain: in turn where the configuration says, and where else the peer may be.
    fn address(&self, attempts: u32) -> String {
        let queue = self.queue.lock();
        let alternative = queue.alternative.as_ref().filter(|_| attempts % 2 == 1);
        alternative.unwrap_or(&queue.address).clone()
    }

    /// Ends the stream, after what is queued.
    pub(super) fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.wake();
    }

    /// Delivers messages until the link is closed.
    pub(super) async fn run(
        self: Arc<Self>,
        view: NodeView,
        mailbox: Mailbox,
        dialer: Dialer,
        process: Arc<OwnProcess>,
    ) {
        self.deliver(&view, &mailbox, &dialer, &process).await;
        self.ended.send_replace(true);
    }

    /// Waits until the link has ended, its last words with it.
    pub(super) async fn ended(&self) {
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    async fn deliver(
        self: &Arc<Self>,
        view: &NodeView,
        mailbox: &Mailbox,
        dialer: &Dialer,
        process: &Arc<OwnProcess>,
    ) {
        let mut outage = Outage::default();
        while self.is_wanted().await {
            let address = self.address(outage.attempts);
            let started = Instant::now();
            let frames = Frames {
                link: Arc::clone(self),
                hello: Some(super::hello(view, process, self.peer)),
                process: Arc::clone(process),
                alive: interval(ALIVE),
            };
            let attempt = tokio::select! {
                result = self.stream(&address, view, dialer, frames, mailbox) => result,
                () = self.moved.notified() => Ok(()),
            };
            if self.queue.lock().closed {
                return;
            }
            if attempt.is_ok() || started.elapsed() > STABLE {
                outage.ended();
            }
            if let Err(reason) = attempt {
                outage.goes_on(self.peer, &address, &reason);
            }
            self.give_back(mailbox);
            tokio::time::sleep(outage.backoff()).await;
        }
    }

    /// Connects, and delivers messages for as long as it lasts.
    async fn stream(
        &self,
        address: &str,
        view: &NodeView,
        dialer: &Dialer,
        frames: Frames,
        mailbox: &Mailbox,
    ) -> Result<(), String> {
        let channel = dialer.dial(address).await?;
        tracing::debug!(peer = %self.peer, address, "connected");
        let process = Arc::clone(&frames.process);
        match PeerClient::new(channel).send(frames).await {
            Ok(_) => Ok(()),
            Err(status) => {
                if let Some(memory) = wire::memory(status.details()) {
                    self.refused(&memory, view.term(), &process, mailbox);
                }
                Err(describe(&status))
            }
        }
    }

    /// The peer remembers another process as this member, or more of this one. It says so with each attempt: what finds no room in the mailbox
    /// comes again.
    fn refused(&self, memory: &Memory, ours: Term, process: &OwnProcess, mailbox: &Mailbox) {
        let Memory { incarnation, durable, term, .. } = *memory;
        if incarnation.start > MOST_STARTS || durable > MOST_GROUPS || !terms::is_credible(ours, term) {
            return tracing::debug!(peer = %self.peer, ?memory, "a refusal for what cannot be");
        }
        match process.refused(memory, std::time::Instant::now()) {
            Consequence::None => {}
            Consequence::WentBack => {
                let _ = mailbox.send(Event::WentBack { start: incarnation.start, durable, term });
            }
            consequence @ (Consequence::Second | Consequence::Ends) => {
                let what = format!(
                    "member {} hears another process that runs as this member: this data directory is a copy of that one's, or \
                     that one's is a copy of this. Only one of them may run",
                    self.peer
                );
                tracing::error!("{what}");
                let _ = mailbox.send(Event::Conflict { what, ends: consequence == Consequence::Ends });
            }
        }
    }

    /// What waited during an attempt that failed is old by now, but for commands: they were never on the wire, so that it is safe
    /// to hand them over again. (Those that were on it stay in doubt.)
    fn give_back(&self, mailbox: &Mailbox) {
        let mut queue = self.queue.lock();
        let commands: Vec<Message> = queue.messages.drain(..).filter(Message::is_of_clients).collect();
        queue.bytes = 0;
        drop(queue);
        if !commands.is_empty() {
            mailbox.post(Event::Undelivered(commands));
        }
    }

    /// Waits until there is something to say, or somebody who is to hear that this process is there. False when the link is closed.
    async fn is_wanted(&self) -> bool {
        std::future::poll_fn(|context| {
            let mut queue = self.queue.lock();
            if queue.closed || queue.is_member || !queue.messages.is_empty() {
                return Poll::Ready(!queue.closed);
            }
            queue.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

fn describe(status: &Status) -> String {
    format!("{}: {}", status.code(), status.message())
}

/// The frames of one stream: each takes in everything that has gathered.
struct Frames {
    link: Arc<Link>,
    hello: Option<pb::Hello>,
    process: Arc<OwnProcess>,
    /// When the peer is to hear of this process, though there is nothing to say.
    alive: Interval,
}

impl Stream for Frames {
    type Item = pb::Frame;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<pb::Frame>> {
        let this = self.get_mut();
        let mut messages = Vec::new();
        let mut queue = this.link.queue.lock();
        let mut bytes = 0;
        while bytes < FRAME_BYTES
            && let Some(message) = queue.messages.pop_front()
        {
            bytes += wire::size(&message);
            messages.push(message);
        }
        queue.bytes -= bytes;
        if messages.is_empty() && this.hello.is_none() {
            if queue.closed {
                return Poll::Ready(None);
            }
            queue.waker = Some(context.waker().clone());
            if this.alive.poll_tick(context).is_pending() {
                return Poll::Pending;
            }
        }
        drop(queue);
        let messages = messages.into_iter().map(wire::to_wire).collect();
        // Read after the messages: whatever they promise is among what is durable.
        let durable = this.process.durable();
        Poll::Ready(Some(pb::Frame { hello: this.hello.take(), messages, durable }))
    }
}

/// How long a peer has been out of reach.
#[derive(Debug, Default)]
struct Outage {
    attempts: u32,
}

impl Outage {
    fn ended(&mut self) {
        self.attempts = 0;
    }

    /// Says so once, when it begins.
    fn goes_on(&mut self, peer: MemberId, address: &str, reason: &str) {
        if self.attempts == 0 {
            tracing::info!(%peer, address, reason, "cannot reach a member; trying again until it answers");
        } else {
            tracing::debug!(%peer, address, reason, attempt = self.attempts, "cannot reach a member");
        }
        self.attempts = self.attempts.saturating_add(1);
    }

    /// Doubles with each attempt, and differs from member to member.
    fn backoff(&self) -> Duration {
        let (first, most) = BACKOFF;
        let grown = first.saturating_mul(1 << self.attempts.min(10)).min(most);
        let jitter = getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX));
        grown.mul_f64(0.5 + jitter / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doors::mailbox::mailbox;
    use quorate_raft::{self as raft, Body};

    fn command(bytes: usize) -> Message {
        let commands = vec![vec![0; bytes].into()];
        Message::Forward { from: MemberId(1), to: MemberId(2), term: 3, commands }
    }

    fn heartbeat() -> Message {
        let body = Body::TimeoutNow;
        Message::Raft(raft::Message { from: MemberId(1), to: MemberId(2), term: 3, body })
    }

    #[test]
    fn a_full_link_returns_what_it_did_not_take() {
        let link = Link::new(MemberId(2), "127.0.0.1:1".to_owned());
        assert!(link.push(vec![command(MAX_QUEUE_BYTES / 2), heartbeat()]).is_empty());
        assert_eq!(link.push(vec![command(MAX_QUEUE_BYTES / 2)]), [command(MAX_QUEUE_BYTES / 2)]);
        assert!(link.push(vec![command(9)]).is_empty());
    }

    #[test]
    fn commands_that_were_never_on_the_wire_are_given_back_when_the_link_breaks() {
        let (mailbox, events) = mailbox();
        let link = Link::new(MemberId(2), "127.0.0.1:1".to_owned());
        assert!(link.push(vec![heartbeat(), command(9), heartbeat()]).is_empty());
        link.give_back(&mailbox);
        link.give_back(&mailbox);
        let mut taken = Vec::new();
        events.take(&mut taken);
        let [Event::Undelivered(messages)] = taken.as_slice() else {
            panic!("once, and nothing else: {taken:?}")
        };
        assert_eq!(*messages, [command(9)]);
    }
}
