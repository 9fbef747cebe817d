//! Takes the streams of other members.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use quorate_api::peer as pb;
use quorate_api::peer::peer_server::{Peer, PeerServer};
use quorate_raft::MemberId;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status, Streaming};

use super::{MAX_FRAME_BYTES, Peers, wire};
use crate::doors::event::Event;
use crate::doors::mailbox::Mailbox;
use crate::doors::view::NodeView;
use crate::level::{Levels, Subject};
use crate::replica::{Build, Message};

/// The peer service of a node.
#[derive(Debug)]
pub(crate) struct PeerService {
    view: NodeView,
    mailbox: Mailbox,
    peers: Peers,
    streams: Streams,
}

/// The newest stream of each member: the end of an older one says nothing of its sender, which has another by now.
#[derive(Debug, Default)]
struct Streams {
    newest: Mutex<BTreeMap<MemberId, u64>>,
}

impl Streams {
    /// A stream of `from` begins. Returns its number.
    fn begin(&self, from: MemberId) -> u64 {
        let mut newest = self.newest.lock();
        let number = newest.entry(from).or_default();
        *number += 1;
        *number
    }

    fn is_newest(&self, from: MemberId, number: u64) -> bool {
        self.newest.lock().get(&from) == Some(&number)
    }
}

impl PeerService {
    /// A service that hands messages to `mailbox`.
    pub(crate) fn server(view: NodeView, mailbox: Mailbox, peers: Peers) -> PeerServer<Self> {
        let streams = Streams::default();
        PeerServer::new(PeerService { view, mailbox, peers, streams })
            .max_decoding_message_size(MAX_FRAME_BYTES)
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

    /// Ends the stream over a message that is none; and the process, if a newer version has sent it.
    fn refuse(&self, error: &wire::WireError) -> Status {
        if let Some(unsupported) = error.unsupported() {
            self.mailbox.post(Event::Unsupported(unsupported));
        }
        Status::invalid_argument(error.to_string())
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
        from: MemberId,
        frames: &mut Streaming<pb::Frame>,
        first: pb::Frame,
    ) -> Result<(), Status> {
        let me = MemberId(self.view.member_id());
        let mut next = Some(first);
        while let Some(frame) = next {
            let messages = wire::received(from, me, frame.messages).map_err(|error| self.refuse(&error))?;
            if !messages.is_empty() {
                // When the replica cannot keep up they are lost, as on any network.
                let _ = self.mailbox.send(Event::Messages(messages));
            }
            next = frames.message().await?;
        }
        Ok(())
    }
}

/// What the sender of a hello says of its build and its memory.
fn supports(from: MemberId, me: u64, hello: &pb::Hello) -> Message {
    let levels = Levels { oldest: hello.oldest_level, newest: hello.newest_level };
    let build = Build { version: hello.version.clone(), levels };
    Message::Supports { from, to: MemberId(me), build, quota: hello.quota }
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn send(
        &self,
        request: Request<Streaming<pb::Frame>>,
    ) -> Result<Response<pb::SendResponse>, Status> {
        let mut frames = request.into_inner();
        let first = frames.message().await?.ok_or_else(|| Status::invalid_argument("an empty stream"))?;
        let hello =
            first.hello.as_ref().ok_or_else(|| Status::invalid_argument("the first frame has no hello"))?;
        let from = self.welcome(hello).await?;
        self.peers.reach(from, &hello.from_address);
        let stream = self.streams.begin(from);
        // A member that was started again as an older version may know no other way to say it.
        let _ = self.mailbox.send(Event::Messages(vec![supports(from, self.view.member_id(), hello)]));
        if let Err(status) = self.receive(from, &mut frames, first).await {
            tracing::debug!(peer = %from, %status, "a member's stream broke off");
            if self.streams.is_newest(from, stream) {
                // When there is no room for it, patience with the sender finds out.
                let _ = self.mailbox.send(Event::Disconnected(from));
            }
            return Err(status);
        }
        Ok(Response::new(pb::SendResponse {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_older_stream_says_nothing_of_its_sender() {
        let streams = Streams::default();
        let (first, other) = (streams.begin(MemberId(1)), streams.begin(MemberId(2)));
        let second = streams.begin(MemberId(1));
        assert!(!streams.is_newest(MemberId(1), first));
        assert!(streams.is_newest(MemberId(1), second) && streams.is_newest(MemberId(2), other));
    }
}
