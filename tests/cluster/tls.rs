//! Mutual TLS between nodes and with clients.

use quorate_api::admin::admin_client::AdminClient;
use quorate_api::admin::{
    BootstrapRequest, ChangeMembershipRequest, RaiseLevelRequest, StatusRequest, TransferLeadershipRequest,
};
use quorate_api::etcdserverpb::MemberListRequest;
use quorate_api::etcdserverpb::cluster_client::ClusterClient;
use quorate_api::etcdserverpb::kv_client::KvClient;
use quorate_api::peer::peer_client::PeerClient;
use quorate_api::peer::{Frame, Hello};
use quorate_tests::linearizability::kv::{Input, Key, Value};
use std::fs;
use std::net::SocketAddr;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

use crate::certificates::{Authority, Files};
use crate::cluster::eventually;
use crate::node::Settings;
use quorate_tests::clients::send;

/// Connects with the certificate in `files`, or with none but trust in its authority.
async fn connect(address: SocketAddr, files: &Files, with_certificate: bool) -> Result<Channel, String> {
    let read = |path| fs::read(path).expect("it can be read");
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read(&files.ca)))
        .domain_name("localhost");
    if with_certificate {
        tls = tls.identity(Identity::from_pem(read(&files.cert), read(&files.key)));
    }
    let endpoint =
        Endpoint::from_shared(format!("https://{address}")).and_then(|endpoint| endpoint.tls_config(tls));
    endpoint.expect("these settings are right").connect().await.map_err(|error| format!("{error:?}"))
}

async fn put(address: SocketAddr, files: &Files) -> Result<(), String> {
    let channel = connect(address, files, true).await?;
    let input = Input::Put(vec![Key(0)], Value(1));
    send(&mut KvClient::new(channel), &input, false).await.map(drop).map_err(|status| status.to_string())
}

#[tokio::test]
async fn a_cluster_with_certificates() {
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let authority = Authority::new();
    let files = authority.issue(folder.path(), "member");
    let mut nodes: Vec<Settings> = Vec::new();
    let mut processes = Vec::new();
    for n in 0..3 {
        let mut settings = Settings::new(folder.path(), &format!("node-{n}"));
        settings.more = files.flags("peer").into_iter().chain(files.flags("client")).collect();
        settings
            .more
            .push(nodes.first().map_or("--bootstrap".to_owned(), |first| format!("--join={}", first.peer)));
        processes.push(settings.start());
        nodes.push(settings);
    }
    for node in &nodes {
        eventually(&format!("a write on {}", node.name), || put(node.client, &files)).await;
    }
    let voters = || async {
        let channel = connect(nodes[0].client, &files, true).await?;
        let list = ClusterClient::new(channel).member_list(MemberListRequest::default()).await;
        let members = list.map_err(|status| status.to_string())?.into_inner().members;
        let voters = members.iter().filter(|member| !member.is_learner).count();
        if voters == 3 { Ok(()) } else { Err(format!("{members:?}")) }
    };
    eventually("three voters", voters).await;

    // Without a certificate of the authority nobody gets an answer from either port.
    let strangers = Authority::new().issue(folder.path(), "stranger");
    let impostor = Files { ca: files.ca.clone(), ..strangers.clone() };
    let callers = [("a member", &files, true), ("nobody", &files, false), ("a stranger", &impostor, true)];
    for (who, files, certificate) in callers {
        let peer = async {
            let mut admin = AdminClient::new(connect(nodes[0].peer, files, certificate).await.ok()?);
            admin.status(StatusRequest {}).await.ok()
        };
        let client = async {
            let mut cluster = ClusterClient::new(connect(nodes[0].client, files, certificate).await.ok()?);
            cluster.member_list(MemberListRequest::default()).await.ok()
        };
        let answered = (peer.await.is_some(), client.await.is_some());
        let known = who == "a member";
        assert_eq!(answered, (known, known), "{who} on the peer port and on the client port");
    }

    // A node with another authority's certificate does not become a member.
    let mut stranger = Settings::new(folder.path(), "stranger");
    stranger.more = strangers.flags("peer").to_vec();
    stranger.more.push(format!("--join={}", nodes[0].peer));
    let stranger = stranger.start();
    let complains = || async {
        let output = stranger.output();
        if output.to_lowercase().contains("certificate") { Ok(()) } else { Err(output) }
    };
    eventually("a word about certificates", complains).await;
    voters().await.expect("there are still three");
}

/// A certificate of the members' authority is not enough where names are asked for: with another name nobody speaks as a member, and nobody changes
/// anything; the status is shown to all.
#[tokio::test]
async fn certificate_with_another_name_is_no_member_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let authority = Authority::new();
    let [member, operator, laptop] =
        ["member", "operator", "laptop"].map(|name| authority.issue(folder.path(), name));
    let names = ["--peer-allowed-names=member,other-member", "--admin-allowed-names=operator"];
    let settings = |name: &str, last: String| {
        let mut settings = Settings::new(folder.path(), name);
        settings.more = member.flags("peer").into_iter().chain(names.map(str::to_owned)).collect();
        settings.more.push(last);
        settings
    };
    let first = settings("first", "--bootstrap".to_owned());
    let process = first.start();
    let status = async |files: &Files| {
        let mut admin = AdminClient::new(connect(first.peer, files, true).await?);
        let status = admin.status(StatusRequest {}).await.map_err(|status| status.to_string())?;
        Ok::<_, String>(status.into_inner())
    };
    eventually("a leader", async || {
        let status = status(&member).await?;
        if status.leader_id == status.member_id { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    // A node that joins asks by its own certificate, which is a member's.
    let second = settings("second", format!("--join={}", first.peer));
    let _second = second.start();
    eventually("two voters", async || {
        let status = status(&operator).await?;
        let configuration = status.configuration.and_then(|it| it.configuration).unwrap_or_default();
        if configuration.voters.len() == 2 { Ok(()) } else { Err(format!("{configuration:?}")) }
    })
    .await;

    // Any certificate of the authority reads.
    let known = status(&laptop).await.expect("the status is for all");
    let refused = |what: &str, flag: &str, answer: Result<(), Status>| {
        let status = answer.expect_err(what);
        let says = status.message();
        assert!(
            status.code() == Code::PermissionDenied && says.contains("laptop") && says.contains(flag),
            "{what}: {status:?}"
        );
    };
    let channel =
        connect(first.peer, &laptop, true).await.expect("the handshake asks for the authority only");
    let mut admin = AdminClient::new(channel.clone());
    let cluster_id = known.cluster_id;
    let flag = "--admin-allowed-names";
    let change = ChangeMembershipRequest { cluster_id, ..Default::default() };
    refused("a change of membership", flag, admin.change_membership(change.clone()).await.map(drop));
    let transfer = TransferLeadershipRequest { cluster_id, target: 0 };
    refused("a transfer", flag, admin.transfer_leadership(transfer).await.map(drop));
    refused("a level", flag, admin.raise_level(RaiseLevelRequest { cluster_id, to: 0 }).await.map(drop));
    refused("a founding", flag, admin.bootstrap(BootstrapRequest { cluster_id }).await.map(drop));
    let hello = Hello {
        cluster_id,
        from: 0x77,
        to: known.member_id,
        oldest_level: known.oldest_level,
        newest_level: known.newest_level,
        ..Hello::default()
    };
    let frame = Frame { hello: Some(hello), ..Frame::default() };
    let stream = futures::stream::iter([frame]);
    let answer = PeerClient::new(channel).send(stream.clone()).await;
    refused("a member's stream", "--peer-allowed-names", answer.map(drop));

    // The operator's changes are judged by what they ask for; it is no member all the same.
    let channel = connect(first.peer, &operator, true).await.expect("it is of the authority");
    let answer = AdminClient::new(channel.clone()).change_membership(change).await;
    assert_eq!(answer.map(drop).map_err(|status| status.code()), Err(Code::InvalidArgument));
    let answer = PeerClient::new(channel).send(stream).await;
    assert_eq!(answer.map(drop).map_err(|status| status.code()), Err(Code::PermissionDenied));
    assert!(process.output().contains("refused to hear a member"), "{}", process.output());
    let after = status(&operator).await.expect("it is up");
    assert_eq!((after.term, after.leader_id), (known.term, known.leader_id), "nothing has changed");
}
