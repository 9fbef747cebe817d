//! raftctl and the HTTP port, against real nodes.

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Output};

use support::{Home, Node, eventually, has_voters};

/// Runs raftctl against `node`.
fn raftctl(node: &Node, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raftctl"));
    command.env_clear().args(["--endpoints", &node.client, "--peer-endpoints", &node.peer]).args(args);
    command.output().expect("raftctl runs")
}

/// What it says when all is well; its complaint otherwise.
fn tried(node: &Node, args: &[&str]) -> Result<String, String> {
    let output = raftctl(node, args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// What it says when all is well.
fn said(node: &Node, args: &[&str]) -> String {
    let output = tried(node, args);
    assert!(output.is_ok(), "raftctl {args:?}: {output:?}");
    output.unwrap_or_default()
}

/// Its one line when it is not.
fn refused(node: &Node, args: &[&str]) -> String {
    let output = raftctl(node, args);
    assert_eq!(output.status.code(), Some(1), "raftctl {args:?}");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    stderr.lines().last().unwrap_or_default().to_owned()
}

/// One line of `status`, by the member's name, in words.
fn line(status: &str, name: &str) -> Vec<String> {
    let line = status.lines().find(|line| line.starts_with(&format!("{name} ")));
    assert!(line.is_some(), "no {name} in {status}");
    line.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn keys() {
    let node = Home::new("n1").start(&["--bootstrap"]);
    node.put_surely("a", "0").await;
    assert_eq!(said(&node, &["put", "a", "1"]), "OK\n");
    assert_eq!(said(&node, &["put", "ab", "2"]), "OK\n");
    assert_eq!(said(&node, &["get", "a"]), "a\n1\n");
    assert_eq!(said(&node, &["get", "a", "--prefix"]), "a\n1\nab\n2\n");
    assert_eq!(said(&node, &["get", "", "--prefix", "--serializable"]), "a\n1\nab\n2\n");
    let json = said(&node, &["get", "ab", "-o", "json"]);
    assert!(json.contains("\"key\": \"ab\"") && json.contains("\"value\": \"2\""), "{json}");
    assert_eq!(said(&node, &["del", "a", "--prefix"]), "2\n");
    assert_eq!(refused(&node, &["get", "a"]), "raftctl: the key does not exist");
    assert!(refused(&node, &["put", "", "x"]).contains("key is not provided"));
}

#[tokio::test]
async fn members() {
    let first = Home::new("n1").start(&["--bootstrap"]);
    let (second, third) = (Home::new("n2").start(&[]), Home::new("n3").start(&[]));
    first.status_when("it leads", has_voters(1)).await;
    assert!(said(&second, &["status"]).starts_with("no cluster"), "a node that waits says so");
    assert!(refused(&first, &["member", "remove", "n1"]).contains("the only voter"));

    said(&first, &["member", "add", &second.peer, "--learner"]);
    assert_eq!(line(&said(&first, &["member", "list"]), "n2")[2], "learner");
    said(&first, &["member", "promote", "n2"]);
    // From any member: it finds the leader. Adding again is harmless.
    said(&second, &["member", "add", &third.peer]);
    said(&second, &["member", "add", &third.peer]);
    eventually("a leader and two followers", async || {
        let status = tried(&third, &["status"]).ok()?;
        assert!(status.contains("3 voters, 0 learners"), "{status}");
        let mut roles = ["n1", "n2", "n3"].map(|node| line(&status, node)[2].clone());
        roles.sort();
        (roles == ["follower", "follower", "leader"]).then_some(())
    })
    .await;

    eventually("n2 leads", async || {
        // Given up after an election timeout, as may be on a busy machine, it is asked for again.
        if let Ok(told) = tried(&third, &["transfer", "n2"]) {
            assert!(told.starts_with("n2 ("), "{told}");
        }
        let status = tried(&third, &["status"]).ok()?;
        (line(&status, "n2")[2] == "leader").then_some(())
    })
    .await;
    assert!(refused(&first, &["transfer", "n9"]).contains("no member n9; there are"));

    // A dead member is removed; then the leader, after handing over.
    drop(third.kill());
    eventually("n3 is seen to be silent", async || {
        let status = tried(&first, &["status"]).ok()?;
        line(&status, "n3").last().is_some_and(|word| word == "(silent)").then_some(())
    })
    .await;
    said(&first, &["member", "remove", "n3"]);
    said(&first, &["member", "remove", "n2"]);
    let json = said(&first, &["status", "--output", "json"]);
    assert!(json.contains("\"n1\"") && !json.contains("\"n2\""), "{json}");
    first.put_surely("key", "value").await;
}

/// What runs before a pod ends: it hands over where its own node leads, and is no failure elsewhere.
#[tokio::test]
async fn leadership_is_handed_over_only_where_it_is() {
    let alone = Home::new("n1").start(&["--bootstrap"]);
    alone.put_surely("a", "0").await;
    assert!(said(&alone, &["transfer", "--if-here"]).starts_with("this member is the only voter"));

    let nodes = support::cluster_of_three().await;
    let leads = support::leader(&nodes).await;
    let other = &nodes[(leads + 1) % nodes.len()];
    assert!(said(other, &["transfer", "--if-here"]).starts_with("this member does not lead"));
    eventually("another leads", async || {
        // Given up after an election timeout, as may be on a busy machine, it is asked for again.
        let _ = tried(&nodes[leads], &["transfer", "--if-here"]);
        (nodes[leads].status().await.role() == quorate_api::admin::Role::Follower).then_some(())
    })
    .await;
}

#[tokio::test]
async fn nobody_there() {
    let node = Home::new("n1").start(&["--bootstrap"]);
    let ctl = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_raftctl"));
        let output = command.env_clear().args(args).output().expect("raftctl runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for args in [["--peer-endpoints", "127.0.0.1:1", "status"], ["--endpoints", "127.0.0.1:1", "get"]] {
        let mut args = args.to_vec();
        if args[2] == "get" {
            args.push("key");
        }
        let (code, stderr) = ctl(&args);
        assert_eq!(code, Some(1));
        assert!(
            stderr.starts_with("raftctl: no answer from 127.0.0.1:1") && stderr.lines().count() == 1,
            "{stderr}"
        );
    }
    // The next endpoint is tried.
    node.status_when("it leads", has_voters(1)).await;
    let (code, stderr) = ctl(&["--peer-endpoints", &format!("127.0.0.1:1,{}", node.peer), "status"]);
    assert_eq!(code, Some(0), "{stderr}");
}

/// The status and the body of a GET.
fn http(node: &Node, path: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(&node.http).expect("the HTTP port is open");
    write!(socket, "GET {path} HTTP/1.1\r\nhost: n\r\nconnection: close\r\n\r\n").expect("it listens");
    let mut text = String::new();
    socket.read_to_string(&mut text).expect("it answers");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    (head[9..12].parse().expect("a status"), body.to_owned())
}

#[tokio::test]
async fn the_http_port() {
    let first = Home::new("n1").start(&["--bootstrap"]);
    let waiting = Home::new("n2").start(&[]);
    first.put_surely("key", "value").await;
    eventually("n1 is ready", async || (http(&first, "/readyz").0 == 200).then_some(())).await;
    assert_eq!(http(&first, "/role"), (200, "leader\n".to_owned()));
    assert_eq!(http(&first, "/leader").0, 200);
    assert_eq!(http(&waiting, "/livez").0, 200);
    let (code, body) = http(&waiting, "/readyz");
    assert!(code == 503 && body.contains("waiting"), "{body}");
    assert_eq!(http(&waiting, "/leader").0, 503);

    let (code, metrics) = http(&first, "/metrics");
    assert_eq!(code, 200);
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in\n{metrics}")).parse().expect("a number")
    };
    assert!(value("quorate_proposals_total") >= 1.0);
    assert!(value("quorate_wal_append_seconds_count") >= 2.0);
    assert!(value("quorate_wal_written_bytes_total") >= 8192.0);
    assert!(value("quorate_raft_applied_index") >= 2.0);
    assert!(value("quorate_raft_leader_changes_total") >= 1.0);
    assert!(value("process_resident_memory_bytes") > 0.0);
}
