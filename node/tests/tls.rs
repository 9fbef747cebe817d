//! Certificates on both ports: who has them is let in, who has not is not.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use quorate_api::admin::admin_client::AdminClient;
use quorate_api::admin::{StatusRequest, StatusResponse};
use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::kv_client::KvClient;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use support::{Home, eventually, has_voters};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// An authority, and what it has signed.
struct Authority {
    cert: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let cert = params.self_signed(&key).expect("a certificate").pem();
        Authority { cert, issuer: Issuer::new(params, key) }
    }

    /// A certificate for this machine, and its key.
    fn sign(&self) -> (String, String) {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).expect("names");
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.issuer).expect("a certificate").pem(), key.serialize_pem())
    }

    /// Writes a certificate, its key and the authority's to `dir`: the flags that name them on both ports.
    fn flags(&self, dir: &Path) -> Vec<String> {
        let (cert, key) = self.sign();
        let file = |name: &str, text: &str| {
            let path = dir.join(name);
            fs::write(&path, text).expect("a file");
            path.to_str().expect("a name").to_owned()
        };
        let (cert, key, ca) = (file("cert.pem", &cert), file("key.pem", &key), file("ca.pem", &self.cert));
        let port = |port: &str| {
            [
                [format!("--{port}-cert"), cert.clone()],
                [format!("--{port}-key"), key.clone()],
                [format!("--{port}-ca"), ca.clone()],
            ]
        };
        [port("peer"), port("client")].into_iter().flatten().flatten().collect()
    }

    /// What a client that trusts this authority dials with, with a certificate of its own or without.
    fn client(&self, identity: Option<(String, String)>) -> ClientTlsConfig {
        let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.cert));
        match identity {
            Some((cert, key)) => config.identity(Identity::from_pem(cert, key)),
            None => config,
        }
    }
}

async fn dial(address: &str, config: &ClientTlsConfig) -> Option<Channel> {
    let endpoint = Endpoint::from_shared(format!("https://{address}")).expect("an address");
    endpoint.tls_config(config.clone()).expect("certificates").connect().await.ok()
}

async fn status(address: &str, config: &ClientTlsConfig) -> Option<StatusResponse> {
    let mut admin = AdminClient::new(dial(address, config).await?);
    Some(admin.status(StatusRequest {}).await.ok()?.into_inner())
}

#[tokio::test]
async fn a_cluster_forms_over_tls() {
    let authority = Authority::new();
    let config = authority.client(Some(authority.sign()));
    let start = |name: &str, more: &[&str]| {
        let home = Home::new(name);
        let flags = authority.flags(home.dir.path());
        let all: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
        home.start(&all)
    };
    let first = start("n1", &["--bootstrap"]);
    let others = [start("n2", &["--join", &first.peer]), start("n3", &["--join", &first.peer])];
    for node in others.iter().chain([&first]) {
        eventually("three voters", async || {
            status(&node.peer, &config).await.filter(|status| has_voters(3)(status))
        })
        .await;
    }
    let put = pb::PutRequest { key: "key".into(), value: "value".into(), ..Default::default() };
    let mut kv = KvClient::new(dial(&others[1].client, &config).await.expect("a connection"));
    kv.put(put).await.expect("it is acknowledged");
}

#[tokio::test]
async fn strangers_are_not_let_in() {
    let authority = Authority::new();
    let home = Home::new("n1");
    let mut flags = authority.flags(home.dir.path());
    flags.push("--bootstrap".into());
    let node = home.start(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    let known = authority.client(Some(authority.sign()));
    eventually("a status", async || status(&node.peer, &known).await).await;

    let without = authority.client(None);
    let of_another = authority.client(Some(Authority::new().sign()));
    let range = async |caller| {
        let request = pb::RangeRequest { key: "key".into(), ..Default::default() };
        KvClient::new(dial(&node.client, caller).await?).range(request).await.ok()
    };
    eventually("an answer to one that is known", async || range(&known).await).await;
    for stranger in [&without, &of_another] {
        assert!(
            status(&node.peer, stranger).await.is_none(),
            "the peer port wants a certificate of its authority"
        );
        assert!(range(stranger).await.is_none(), "so does the client port");
    }
    let plain = Endpoint::from_shared(format!("http://{}", node.peer)).expect("an address").connect().await;
    if let Ok(channel) = plain {
        assert!(AdminClient::new(channel).status(StatusRequest {}).await.is_err(), "nor in the clear");
    }
}

/// raftctl takes the flags that the node takes, and so the same environment.
#[tokio::test]
async fn raftctl_shows_its_certificate() {
    let authority = Authority::new();
    let home = Home::new("n1");
    let flags = authority.flags(home.dir.path());
    let node =
        home.start(&[&["--bootstrap"][..], &flags.iter().map(String::as_str).collect::<Vec<_>>()].concat());
    let raftctl = |flags: &[String], args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_raftctl"));
        command.env_clear().args(["--endpoints", &node.client, "--peer-endpoints", &node.peer]).args(args);
        let output = command.args(flags).output().expect("raftctl runs");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    eventually("raftctl puts", async || raftctl(&flags, &["put", "a", "1"]).0.then_some(())).await;
    assert_eq!(raftctl(&flags, &["get", "a"]), (true, "a\n1\n".to_owned()));
    assert!(raftctl(&flags, &["status"]).1.contains("leader"));
    for args in [&["get", "a"][..], &["status"]] {
        assert!(!raftctl(&[], args).0, "without certificates nobody is let in");
    }
    let stranger = Authority::new();
    let dir = tempfile::tempdir().expect("a directory");
    assert!(!raftctl(&stranger.flags(dir.path()), &["status"]).0, "nor with those of another authority");
}

/// In a node's container raftctl has the node's environment: no authority where clients show no certificate.
#[tokio::test]
async fn raftctl_trusts_the_certificate_of_the_node_whose_environment_it_has() {
    let authority = Authority::new();
    let home = Home::new("n1");
    // The certificate and its key, and not the authority.
    let flags: Vec<_> = authority.flags(home.dir.path()).into_iter().skip(6).take(4).collect();
    let node =
        home.start(&[&["--bootstrap"][..], &flags.iter().map(String::as_str).collect::<Vec<_>>()].concat());
    let raftctl = |flags: &[String], args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_raftctl"));
        let endpoint = format!("https://{}", node.client);
        command.env_clear().args(["--endpoints", &endpoint]).args(args).args(flags);
        let output = command.output().expect("raftctl runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    };
    eventually("raftctl puts", async || raftctl(&flags, &["put", "a", "1"]).ok()).await;
    assert_eq!(raftctl(&flags, &["get", "a"]), Ok("a\n1\n".to_owned()));
    let dir = tempfile::tempdir().expect("a directory");
    let of_another: Vec<_> = authority.flags(dir.path()).into_iter().skip(6).take(4).collect();
    raftctl(&of_another, &["get", "a"]).expect_err("another certificate is not that of the node");
}

/// Members, raftctl and etcdctl with keys on P-521: of an authority, and one that is its own.
#[tokio::test]
async fn keys_on_the_curve_p521_work_as_with_etcd() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("a file");
        path.to_str().expect("a name").to_owned()
    };
    let issued = [
        file("member.pem", include_str!("support/p521-member.pem")),
        file("member-key.pem", include_str!("support/p521-member-key.pem")),
        file("authority.pem", include_str!("support/p521-authority.pem")),
    ];
    let own = file("own.pem", include_str!("support/p521.pem"));
    let own = [own.clone(), file("own-key.pem", include_str!("support/p521-key.pem")), own];
    for [cert, key, ca] in [issued, own] {
        let flags: Vec<String> = ["peer", "client"]
            .iter()
            .flat_map(|port| [("cert", &cert), ("key", &key), ("ca", &ca)].map(|of| (port, of)))
            .flat_map(|(port, (what, path))| [format!("--{port}-{what}"), path.clone()])
            .collect();
        let start = |name: &str, more: &[&str]| {
            let all: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
            Home::new(name).start(&all)
        };
        let first = start("n1", &["--bootstrap"]);
        let second = start("n2", &["--join", &first.peer]);
        let raftctl = |args: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_raftctl"));
            let endpoints = ["--endpoints", &second.client, "--peer-endpoints", &first.peer];
            let output = command.env_clear().args(endpoints).args(args).args(&flags).output();
            output.expect("raftctl runs")
        };
        let put = async || raftctl(&["put", "key", "value"]).status.success().then_some(());
        eventually("a put through the member that has joined", put).await;
        let status = String::from_utf8_lossy(&raftctl(&["status"]).stdout).into_owned();
        assert!(status.contains("n1") && status.contains("n2"), "{status}");
        let Some(etcdctl) = std::env::var_os("QUORATE_ETCDCTL") else { continue };
        let mut etcdctl = Command::new(etcdctl);
        etcdctl.args(["--cacert", &ca, "--cert", &cert, "--key", &key, "get", "key"]);
        let output = etcdctl.arg(format!("--endpoints=https://{}", second.client)).output().expect("it runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "key\nvalue\n", "{output:?}");
    }
}
