//! What can be said on the peer port by those that are no members.

use quorate_api::log::Entry;
use quorate_api::peer::peer_client::PeerClient;
use quorate_api::peer::{AppendEntries, Frame, Hello, LogId, Message, message};
use quorate_tests::clients::endpoint;
use tonic::Code;
use tonic::transport::Endpoint;

use crate::admin;
use crate::cluster::eventually;
use crate::node::Settings;

/// It would have a place of a member for as long as it likes.
#[tokio::test]
async fn stream_without_a_hello_is_ended() {
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let settings = Settings::new(folder.path(), "node").with("--bootstrap");
    let _process = settings.start();
    eventually("a node", async || admin::status(settings.peer).await).await;
    // One that waits for ever.
    let peer = Endpoint::from_shared(format!("http://{}", settings.peer)).expect("a URL");
    let peer = peer.connect().await.expect("it listens");
    let refused = PeerClient::new(peer).send(futures::stream::pending::<Frame>()).await;
    let refused = refused.map(drop).expect_err("it has said nothing");
    assert_eq!(refused.code(), Code::DeadlineExceeded, "{refused}");
}

/// A member that meets what it does not read ends, for it would hold another state. So only members may bring it that.
#[tokio::test]
async fn stranger_cannot_end_a_node_by_what_it_does_not_read() {
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let settings = Settings::new(folder.path(), "node").with("--bootstrap");
    let mut process = settings.start();
    let known = eventually("a leader", async || match admin::status(settings.peer).await {
        Ok(status) if status.leader_id != 0 => Ok(status),
        other => Err(format!("{other:?}")),
    })
    .await;
    let hello = Hello {
        cluster_id: known.cluster_id,
        from: 0x77,
        to: known.member_id,
        start: 1,
        nonce: 1,
        oldest_level: known.oldest_level,
        newest_level: known.newest_level,
        ..Hello::default()
    };
    let entry = Entry { term: known.term, format: 1000, ..Entry::default() };
    let previous = Some(LogId { term: known.term, index: 1 });
    let body = AppendEntries { previous, entries: vec![entry], commit: 0 };
    let message = Message { term: known.term, body: Some(message::Body::AppendEntries(body)) };
    let frame = Frame { hello: Some(hello), messages: vec![message], durable: 0 };
    let peer = endpoint(settings.peer).connect().await.expect("it listens");
    let answer = PeerClient::new(peer).send(futures::stream::iter([frame])).await;
    assert_eq!(answer.map(drop).map_err(|status| status.code()), Err(Code::InvalidArgument));
    let says = async || {
        let said = process.output();
        if said.contains("refused what no member") { Ok(()) } else { Err(said) }
    };
    eventually("it says so", says).await;
    let status = admin::status(settings.peer).await.expect("it lives on");
    assert_eq!((status.leader_id, status.term), (known.leader_id, known.term));
    assert!(process.ended().expect("it is our child").is_none());
}
