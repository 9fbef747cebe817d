//! Takes the streams of other members.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quorate_api::peer as pb;
use quorate_api::peer::peer_server::{Peer, PeerServer};
use quorate_raft::MemberId;
use tokio::sync::oneshot;
use tonic::{Code, Request, Response, Status, Streaming};

use super::registry::{CERTAIN, Incarnation, Introduction, MOST_GROUPS, MOST_STARTS, Memory, Registry};
use super::{MAX_FRAME_BYTES, Peers, SEEN_EVERY, terms, wire};
use crate::doors::event::Event;
use crate::doors::mailbox::Mailbox;
use crate::doors::view::NodeView;
use crate::level::{Levels, Subject};
use crate::net::{AllowedNames, Caller};
use crate::replica::{Build, Message};

/// The most members whose refusal is remembered. Beyond that they are spoken of again.
const MOST_REFUSED: usize = 64;

/// How long a stream may take to say whose it is: until then it has its place for nothing.
const HELLO: Duration = Duration::from_secs(5);

/// How often people are told of callers that are refused for their names, at the most.
const TOLD_EVERY: Duration = Duration::from_mins(1);

/// The peer service of a node.
#[derive(Debug)]
pub(crate) struct PeerService {
    view: NodeView,
    mailbox: Mailbox,
    peers: Peers,
    registry: Mutex<Registry>,
    /// When the process did.
    began: Instant,
    /// The process of each member that was refused last.
    refused: Mutex<BTreeMap<MemberId, Refused>>,
    /// Who may speak as a member.
    allowed: AllowedNames,
    /// When people were told last that a caller was refused for its names.
    stranger_told: Mutex<Option<Instant>>,
}

/// A process that is refused.
#[derive(Debug, Clone, Copy)]
struct Refused {
    process: Incarnation,
    /// Since when, in milliseconds of this process.
    since: u64,
    /// When people were told last.
    told: Option<u64>,
}

/// Whether people are to be told of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tells {
    Nothing,
    /// It is news.
    First,
    /// It goes on: what is shown of it stays.
    Again,
}

impl PeerService {
    /// A service that hands messages to `mailbox`, of those who are `allowed` to speak as members.
    pub(crate) fn server(
        view: NodeView,
        mailbox: Mailbox,
        peers: Peers,
        allowed: AllowedNames,
    ) -> PeerServer<Self> {
        let (registry, refused, stranger_told) = Default::default();
        let began = Instant::now();
        PeerServer::new(PeerService {
            view,
            mailbox,
            peers,
            registry,
            began,
            refused,
            allowed,
            stranger_told,
        })
        .max_decoding_message_size(MAX_FRAME_BYTES)
    }

    /// Milliseconds since the process began.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Takes the stream of a process, or refuses it with what is remembered of its member. Returns its number.
    fn introduce(&self, from: MemberId, hello: &pb::Hello) -> Result<u64, Status> {
        let incarnation = Incarnation { start: hello.start, nonce: hello.nonce };
        let introduction = Introduction { from, incarnation, accounts: hello.accounts };
        let mut registry = self.registry.lock();
        let introduced = registry.introduce(self.now(), introduction);
        let status = self.view.status();
        registry.forget_strangers(|id| status.members().iter().any(|member| member.id == id.0));
        drop(registry);
        introduced.map_err(|memory| self.refuse_process(incarnation, &memory, from, &hello.from_address))
    }

    /// Says once of each process why it is refused.
    fn refuse_process(&self, process: Incarnation, memory: &Memory, from: MemberId, address: &str) -> Status {
        let what = if memory.is_heard {
            format!("another process runs as member {from}: this data directory is a copy, or the original")
        } else {
            format!("member {from} has forgotten what it promised: its disk went back in time")
        };
        let told = self.tells(process, from, memory.is_heard);
        if told == Tells::First {
            tracing::warn!(peer = %from, address, start = process.start, heard = memory.incarnation.start, "{what}; refuses it");
        }
        if told != Tells::Nothing && memory.is_heard {
            let what = format!("{what} (at {address})");
            let _ = self.mailbox.send(Event::Conflict { what, ends: false });
        }
        Status::with_details(Code::FailedPrecondition, what, wire::memory_to_wire(memory).into())
    }

    /// Whether people are to be told that `process` is refused: of a second process only when that is certain.
    fn tells(&self, process: Incarnation, from: MemberId, is_second: bool) -> Tells {
        let now = self.now();
        let mut refused = self.refused.lock();
        if refused.len() > MOST_REFUSED {
            refused.clear();
        }
        let first = Refused { process, since: now, told: None };
        let known = refused.entry(from).or_insert(first);
        if known.process != process {
            *known = first;
        }
        if is_second && now - known.since < CERTAIN {
            return Tells::Nothing;
        }
        let tells = match known.told {
            None => Tells::First,
            Some(told) if u128::from(now - told) >= SEEN_EVERY.as_millis() => Tells::Again,
            Some(_) => return Tells::Nothing,
        };
        known.told = Some(now);
        tells
    }

    /// Refuses a caller whose certificate has none of the names that members have.
    fn check_caller(&self, caller: Option<&Caller>) -> Result<(), Status> {
        self.allowed.check(caller).map_err(|error| {
            // It comes again and again: a line is enough now and then.
            let mut told = self.stranger_told.lock();
            if told.is_none_or(|told: Instant| told.elapsed() >= TOLD_EVERY) {
                *told = Some(Instant::now());
                let caller = caller.map_or_else(|| "nowhere".to_owned(), ToString::to_string);
                tracing::warn!(caller, %error, "refused to hear a member");
            }
            drop(told);
            Status::permission_denied(error.to_string())
        })
    }

    /// Checks that the sender means this node and belongs to its cluster. A node that belongs to none joins the sender's.
    async fn welcome(&self, hello: &pb::Hello) -> Result<MemberId, Status> {
        let me = self.view.member_id();
        if hello.to != me {
            let what = format!("this is member {me:016x}, not {:016x}", hello.to);
            return Err(Status::failed_precondition(what));
        }
        if hello.from == 0 || hello.from == me || hello.cluster_id == 0 {
            return Err(Status::invalid_argument("a hello names its sender and its cluster"));
        }
        if hello.start > MOST_STARTS || hello.accounts > MOST_GROUPS {
            return Err(Status::invalid_argument("a hello with a count that cannot be"));
        }
        self.check_levels(hello)?;
        match self.view.cluster_id() {
            0 => self.adopt(hello.cluster_id).await?,
            mine if mine == hello.cluster_id => {}
            mine => {
                let what =
                    format!("this member belongs to cluster {mine:016x}, not to {:016x}", hello.cluster_id);
                return Err(Status::failed_precondition(what));
            }
        }
        Ok(MemberId(hello.from))
    }

    /// Members that do not support the cluster's level take no part in it: neither this one, if the sender knows a level that is above its
    /// own, nor the sender.
    fn check_levels(&self, hello: &pb::Hello) -> Result<(), Status> {
        let mine = self.view.status();
        let theirs = Levels { oldest: hello.oldest_level, newest: hello.newest_level };
        let (from, version) = (MemberId(hello.from), &hello.version);
        if theirs.newest == 0 {
            let what = "the sender is of a version from before the first level: upgrade it, with an empty data directory";
            return Err(Status::failed_precondition(what));
        }
        if hello.level != 0 && !mine.levels.contains(hello.level) {
            let unsupported = mine.levels.lacks(Subject::Cluster, Some(hello.level));
            tracing::warn!(%from, version, "cannot take part: {unsupported}");
            return Err(Status::failed_precondition(unsupported.to_string()));
        }
        if mine.level != 0 && !theirs.contains(mine.level) {
            let what = format!(
                "the cluster has level {}, and the sender's version of quorate-node ({version}) supports {theirs}: upgrade it",
                mine.level
            );
            tracing::warn!(%from, "refused a member: {what}");
            return Err(Status::failed_precondition(what));
        }
        Ok(())
    }

    /// Whether `from` is a member of this node's cluster. Before there is a configuration, whoever has taken it into its cluster is.
    fn is_member(&self, from: MemberId) -> bool {
        let status = self.view.status();
        status.configuration.is_none() || status.has_member(from.0)
    }

    /// Ends the stream over a message that is none; and the process, if a newer version has sent it, of a member: nobody else may end it.
    fn refuse(&self, from: MemberId, error: &wire::WireError) -> Status {
        match error.unsupported() {
            Some(unsupported) if self.is_member(from) => self.mailbox.post(Event::Unsupported(unsupported)),
            Some(unsupported) => {
                tracing::warn!(%from, "refused what no member of this configuration has sent: {unsupported}");
            }
            None => {}
        }
        Status::invalid_argument(error.to_string())
    }

    /// Ends the stream of a member that speaks of a term that cannot be.
    fn check_terms(&self, from: MemberId, messages: &[Message]) -> Result<(), Status> {
        let (ours, theirs) = (self.view.term(), messages.iter().map(terms::named_by).max().unwrap_or(0));
        if terms::is_credible(ours, theirs) {
            return Ok(());
        }
        tracing::warn!(peer = %from, ours, theirs, "a member speaks of a term that cannot be; refuses it");
        Err(Status::invalid_argument(format!("term {theirs} is too far from term {ours}")))
    }

    async fn adopt(&self, cluster_id: u64) -> Result<(), Status> {
        let (reply, adopted) = oneshot::channel();
        let busy = |_| Status::unavailable("the node is too busy, or stopping");
        self.mailbox.send(Event::Adopt { cluster_id, reply }).map_err(busy)?;
        match adopted.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Status::failed_precondition(error.to_string())),
            Err(_) => Err(Status::unavailable("the node is stopping")),
        }
    }

    /// Takes frames until the sender says goodbye. An error is the end of the connection.
    async fn receive(
        &self,
        (from, stream): (MemberId, u64),
        frames: &mut Streaming<pb::Frame>,
        first: pb::Frame,
    ) -> Result<(), Status> {
        let me = MemberId(self.view.member_id());
        let mut next = Some(first);
        while let Some(frame) = next {
            let messages =
                wire::received(from, me, frame.messages).map_err(|error| self.refuse(from, &error))?;
            self.check_terms(from, &messages)?;
            if frame.durable > MOST_GROUPS {
                return Err(Status::invalid_argument("a frame with a count that cannot be"));
            }
            let term = messages.iter().filter_map(terms::spoken_in).max().unwrap_or(0);
            if !self.registry.lock().frame(self.now(), from, stream, term, frame.durable) {
                return Err(Status::aborted(format!(
                    "another stream of member {from} has taken the place of this one"
                )));
            }
            if !messages.is_empty() {
                // When the replica cannot keep up they are lost, as on any network.
                let _ = self.mailbox.send(Event::Messages(messages));
            }
            next = frames.message().await?;
        }
        Ok(())
    }
}

/// The first frame of a stream, which is to come soon.
async fn first(frames: &mut Streaming<pb::Frame>) -> Result<pb::Frame, Status> {
    let Ok(first) = tokio::time::timeout(HELLO, frames.message()).await else {
        return Err(Status::deadline_exceeded(format!("no hello came within {} s", HELLO.as_secs())));
    };
    first?.ok_or_else(|| Status::invalid_argument("an empty stream"))
}

/// What the sender of a hello says of its build and its memory.
fn supports(from: MemberId, me: u64, hello: &pb::Hello) -> Message {
    let levels = Levels { oldest: hello.oldest_level, newest: hello.newest_level };
    let build = Build { version: hello.version.clone(), levels };
    // A stream that begins says nothing of the applier: the next message of this kind does.
    Message::Supports { from, to: MemberId(me), build, quota: hello.quota, stands_still: false }
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn send(
        &self,
        request: Request<Streaming<pb::Frame>>,
    ) -> Result<Response<pb::SendResponse>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        self.check_caller(caller.as_ref())?;
        let mut frames = request.into_inner();
        let first = first(&mut frames).await?;
        let hello =
            first.hello.as_ref().ok_or_else(|| Status::invalid_argument("the first frame has no hello"))?;
        let from = self.welcome(hello).await?;
        let stream = self.introduce(from, hello)?;
        if let Some(caller) = caller.filter(|_| self.is_member(from)) {
            caller.is_a_member();
        }
        self.peers.introduced(from, &hello.from_address);
        // A member that was started again as an older version may know no other way to say it.
        let _ = self.mailbox.send(Event::Messages(vec![supports(from, self.view.member_id(), hello)]));
        let received = self.receive((from, stream), &mut frames, first).await;
        let is_newest = self.registry.lock().ended(from, stream);
        if let Err(status) = received {
            tracing::debug!(peer = %from, %status, "a member's stream broke off");
            // The end of an older stream says nothing of its sender, which has another by now.
            if is_newest {
                // When there is no room for it, patience with the sender finds out.
                let _ = self.mailbox.send(Event::Disconnected(from));
            }
            return Err(status);
        }
        Ok(Response::new(pb::SendResponse {}))
    }
}
