//! Mutual TLS between nodes and with clients.

use quorate_api::admin::StatusRequest;
use quorate_api::admin::admin_client::AdminClient;
use quorate_api::etcdserverpb::MemberListRequest;
use quorate_api::etcdserverpb::cluster_client::ClusterClient;
use quorate_api::etcdserverpb::kv_client::KvClient;
use quorate_tests::linearizability::kv::{Input, Key, Value};
use std::fs;
use std::net::SocketAddr;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

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
    for (who, files, certificate) in [("nobody", &files, false), ("a stranger", &impostor, true)] {
        let answer = async |address| {
            let mut admin = AdminClient::new(connect(address, files, certificate).await.ok()?);
            admin.status(StatusRequest {}).await.ok()
        };
        assert!(answer(nodes[0].peer).await.is_none(), "{who} was answered on the peer port");
        assert!(answer(nodes[0].client).await.is_none(), "{who} was answered on the client port");
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
