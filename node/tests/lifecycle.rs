//! A single node: how it begins, comes back, and refuses.

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use quorate_api::admin::{BootstrapRequest, Role, StatusRequest};
use quorate_api::etcdserverpb::PutRequest;
use quorate_api::etcdserverpb::kv_client::KvClient;
use support::{Home, eventually};
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

#[tokio::test]
async fn bootstrapping_again_is_harmless() {
    let node = Home::new("n1").start(&["--bootstrap"]);
    node.put_surely("key", "value").await;
    let before = node.status().await;
    let home = node.kill();
    let node = home.start(&["--bootstrap"]);
    assert_eq!(node.get_surely("key").await.as_deref(), Some("value"));
    let after = node.status().await;
    assert_eq!((after.cluster_id, after.member_id), (before.cluster_id, before.member_id));
    assert!(after.term > before.term);
}

#[tokio::test]
async fn a_node_waits_until_it_is_told() {
    let node = Home::new("n1").start(&[]);
    let mut admin = node.admin().await;
    let status = admin.status(StatusRequest {}).await.expect("a status").into_inner();
    assert_eq!((status.role(), status.cluster_id), (Role::Waiting, 0));
    assert_eq!(node.put("key", "value").await.expect_err("it has no cluster").code(), Code::Unavailable);

    let zero = admin.bootstrap(BootstrapRequest { cluster_id: 0 }).await.expect_err("zero is no cluster");
    assert_eq!(zero.code(), Code::InvalidArgument);
    for _ in 0..2 {
        admin.bootstrap(BootstrapRequest { cluster_id: 77 }).await.expect("it is founded, once");
    }
    let other = admin.bootstrap(BootstrapRequest { cluster_id: 78 }).await.expect_err("it has a cluster");
    assert_eq!(other.code(), Code::FailedPrecondition);
    node.put_surely("key", "value").await;

    let home = node.kill();
    let node = home.start(&[]);
    assert_eq!(node.get_surely("key").await.as_deref(), Some("value"));
    assert_eq!(node.status().await.cluster_id, 77);
}

#[tokio::test]
async fn a_single_node_stops_in_order() {
    let node = Home::new("n1").start(&["--bootstrap"]);
    node.put_surely("key", "value").await;
    let (status, home, _) = node.terminate();
    assert_eq!(status.code(), Some(0));
    assert_eq!(home.start(&[]).get_surely("key").await.as_deref(), Some("value"));
}

/// Those who send clients here, a Service of Kubernetes among them, learn only after a while that it goes.
#[tokio::test]
async fn a_node_that_is_told_to_stop_serves_new_clients_until_others_have_taken_note() {
    let node = Home::new("n1").start(&["--bootstrap", "--stop-delay", "3600"]);
    node.put_surely("key", "value").await;
    node.tell_to_stop();
    eventually("it to stop", async || node.log().contains("\"stopping\"").then_some(())).await;
    for value in ["a", "b", "c"] {
        node.put("key", value).await.expect("a new connection is served");
    }
    let (status, _, said) = tokio::task::spawn_blocking(move || node.terminate()).await.expect("it stops");
    assert_eq!(status.code(), Some(0));
    assert!(said.contains("stopping at once"), "{said}");
}

/// Streams have no end of their own: they end when the node stops, or it would wait for them as long as it may.
#[tokio::test]
async fn a_stop_ends_streams_that_go_on() {
    let node = Home::new("n1").start(&["--bootstrap"]);
    node.put_surely("key", "value").await;
    let channel = Channel::from_shared(format!("http://{}", node.client)).expect("a URL").connect().await;
    let mut health = HealthClient::new(channel.expect("the client port answers"));
    let request = HealthCheckRequest { service: String::new() };
    let mut stream = health.watch(request).await.expect("a stream").into_inner();
    stream.message().await.expect("a message").expect("not its end");
    let ended = tokio::spawn(async move { while let Ok(Some(_)) = stream.message().await {} });
    let (status, _, said) = tokio::task::spawn_blocking(move || node.terminate()).await.expect("it stops");
    assert_eq!(status.code(), Some(0));
    assert!(!said.contains("requests were cut off"), "{said}");
    ended.await.expect("the stream has ended");
}

#[tokio::test]
async fn a_member_that_moves_tells_its_cluster() {
    let first = Home::new("n1").start(&["--bootstrap"]);
    let second = Home::new("n2").start(&["--join", &first.peer.clone()]);
    first.status_when("two voters", support::has_voters(2)).await;
    let id = second.status().await.member_id;
    let mut home = second.kill();
    home.forget_ports();
    let second = home.start(&[]);
    let address = second.peer.clone();
    first
        .status_when("the new address", |status| {
            let members = status.configuration.clone().and_then(|c| c.configuration).map(|c| c.members);
            members.into_iter().flatten().any(|member| member.id == id && member.peer_address == address)
        })
        .await;
    second.put_surely("key", "value").await;
}

#[tokio::test]
async fn addresses_written_as_urls_are_understood() {
    // Neither an address that nobody listens at, nor a name that there is not, keeps it from the others.
    let nowhere = "127.0.0.1:1,no-such-host.invalid:2380";
    let mut home = Home::new("n1");
    home.choose_ports();
    let [_, peer, _] = home.ports().expect("they were chosen");
    let first = home.start(&["--bootstrap", "--advertise-peer", &format!("http://{peer}/")]);
    let join = format!("{nowhere},http://{}", first.peer);
    let second = Home::new("n2").start(&["--join", &join, "--advertise-client", "127.0.0.1:2379"]);
    let status = second.status_when("two voters", support::has_voters(2)).await;
    let members = status.configuration.and_then(|c| c.configuration).unwrap_or_default().members;
    assert!(members.iter().any(|member| member.peer_address == first.peer), "{members:?}");
    assert!(members.iter().any(|member| member.client_urls == ["http://127.0.0.1:2379"]), "{members:?}");
}

/// A unit of `Type=notify`: it has started when it can be used, and says when it ends.
#[tokio::test]
async fn systemd_hears_when_a_node_serves_and_when_it_stops() {
    let mut home = Home::new("n1");
    home.choose_ports();
    let path = home.dir.path().join("notify");
    let systemd = UnixDatagram::bind(&path).expect("a socket");
    let mut child = home.command(&["--bootstrap"]).env("NOTIFY_SOCKET", &path).spawn().expect("it starts");
    let hears = |wanted: &str| {
        let mut word = [0; 256];
        loop {
            let length = systemd.recv(&mut word).expect("a word");
            let word = String::from_utf8_lossy(&word[..length]).into_owned();
            if word.starts_with(wanted) {
                return;
            }
            assert!(word.starts_with("EXTEND_TIMEOUT_USEC="), "{word}");
        }
    };
    systemd.set_read_timeout(Some(Duration::from_mins(2))).expect("it is none of zero");
    hears("READY=1\n");
    for address in home.ports().expect("they were chosen") {
        std::net::TcpStream::connect(address).expect("it listens");
    }
    let told = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(told.expect("kill runs").success());
    hears("STOPPING=1\n");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[tokio::test]
async fn all_addresses_of_a_machine_are_of_both_families() {
    let mut home = Home::new("n1");
    home.choose_ports();
    let [client, peer, _] = home.ports().expect("they were chosen");
    let port = |address: &str| address.rsplit_once(':').expect("it has a port").1.to_owned();
    let listen = [format!(":{}", port(&client)), format!("[::]:{}", port(&peer))];
    let node = home.start(&[
        "--bootstrap",
        "--listen-client",
        &listen[0],
        "--listen-peer",
        &listen[1],
        "--advertise-client",
        &client,
        "--advertise-peer",
        &peer,
    ]);
    for address in [&client, &peer] {
        std::net::TcpStream::connect(address).expect("IPv4");
        if node.client.starts_with('[') {
            std::net::TcpStream::connect(format!("[::1]:{}", port(address))).expect("IPv6");
        }
    }
}

#[test]
fn a_port_in_use_is_said() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refuses(&Home::new("n1"), &["--listen-http", &address], 9, &["cannot listen on", &address]);
}

#[test]
fn a_directory_in_use_is_said() {
    let node = Home::new("n1").start(&["--bootstrap"]);
    let dir = node.home.data_dir();
    let other = Home::new("n2");
    refuses(&other, &["--data-dir", dir.to_str().unwrap()], 7, &["is in use"]);
}

#[test]
fn a_damaged_identity_is_said_and_left() {
    let home = Home::new("n1").start(&["--bootstrap"]).kill();
    let path = home.data_dir().join("identity");
    let damaged = fs::read_to_string(&path).unwrap().replace("member ", "member f");
    fs::write(&path, &damaged).unwrap();
    refuses(&home, &[], 4, &["identity", "damaged"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
}

#[test]
fn another_clusters_directory_is_said() {
    let first = Home::new("n1").start(&["--bootstrap"]);
    let home = Home::new("n2").start(&["--bootstrap"]).kill();
    let join = first.peer.clone();
    refuses(&home, &["--join", &join], 5, &["belongs to cluster"]);
}

#[test]
fn bad_certificates_are_said() {
    let home = Home::new("n1");
    let file = |name: &str, text: &str| {
        let path = home.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (one, two) = (certificate(), certificate());
    let cert = file("cert.pem", &one.cert.pem());
    let key = file("key.pem", &one.signing_key.serialize_pem());
    let other = file("other.pem", &two.signing_key.serialize_pem());
    let nonsense = file("nonsense.pem", "nonsense");
    refuses(&home, &["--client-cert", &cert, "--client-key", "/nowhere"], 1, &["cannot read /nowhere"]);
    refuses(&home, &["--client-cert", &cert, "--client-key", &other], 1, &["does not fit"]);
    refuses(&home, &["--client-cert", &nonsense, "--client-key", &key], 1, &["holds no certificate"]);
    refuses(&home, &["--client-cert", &cert, "--client-key", &nonsense], 1, &["not a private key"]);
    let curve = file("p521.pem", include_str!("support/p521.pem"));
    refuses(&home, &["--client-cert", &curve, "--client-key", &key], 1, &["p521.pem", "does not fit"]);
}

/// Its log may be on the disk that is full, or behind a pipe that nobody reads: then it goes on without.
#[tokio::test]
async fn a_log_that_cannot_be_written_ends_nothing() {
    let full = || Stdio::from(fs::File::options().write(true).open("/dev/full").expect("it is there"));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    for stderr in [full(), Stdio::from(writer)] {
        let mut home = Home::new("n1");
        home.choose_ports();
        let mut command = home.command(&["--bootstrap"]);
        let mut child = command.stderr(stderr).spawn().expect("it starts");
        let [client, ..] = home.ports().expect("they were chosen");
        eventually("a put is acknowledged", async || {
            let mut kv = KvClient::connect(format!("http://{client}")).await.ok()?;
            kv.put(PutRequest { key: "key".into(), ..Default::default() }).await.ok()
        })
        .await;
        child.kill().expect("it runs");
        child.wait().expect("it ends");
    }
    let refused = Home::new("n1").command(&["--join", "nonsense"]).stderr(full()).status();
    assert_eq!(refused.expect("it runs").code(), Some(2));
}

#[test]
fn a_command_line_that_cannot_be_is_said() {
    let home = Home::new("n1");
    refuses(&home, &["--client-cert", "c"], 2, &["--client-key"]);
    refuses(&home, &["--listen-peer", "0.0.0.0:0"], 2, &["--advertise-peer"]);
    refuses(&home, &["--listen-client", "nonsense"], 2, &["HOST:PORT"]);
    for (flag, address) in [
        ("--advertise-peer", "nonsense"),
        ("--advertise-peer", "[::]:2380"),
        ("--advertise-peer", "https://127.0.0.1:2380"),
        ("--advertise-client", "unix:///run/x"),
        ("--advertise-client", "0.0.0.0:2379"),
        ("--join", "127.0.0.1:2380,nonsense"),
        ("--join", "https://127.0.0.1:2380"),
    ] {
        refuses(&home, &[flag, address], 2, &["HOST:PORT"]);
    }
    assert!(!home.data_dir().exists(), "nothing is stored");
}

fn certificate() -> rcgen::CertifiedKey<rcgen::KeyPair> {
    rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate")
}

/// Starts a node that must not start: it says `words`, and exits with `code`.
fn refuses(home: &Home, more: &[&str], code: i32, words: &[&str]) {
    let (status, said) = home.fail(more);
    assert_eq!(status.code(), Some(code), "{said}");
    let error: Vec<&str> = said.lines().filter(|line| !line.starts_with('{')).collect();
    assert!(words.iter().all(|word| error.iter().any(|line| line.contains(word))), "{words:?} not in {said}");
    if code != 2 {
        assert_eq!(error.len(), 1, "one line: {said}");
    }
}
