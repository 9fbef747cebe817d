//! A log that is not read.

use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write as _, pipe};
use std::process::{Child, Command, ExitStatus, Stdio};

use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::kv_client::KvClient;
use quorate_tests::clients::endpoint;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::eventually;
use crate::node::Settings;

/// A pipe that takes nothing more until it is read.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().expect("descriptors are free");
    let flags = fcntl_getfl(&writer).expect("it is open");
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).expect("a pipe can be used without waiting");
    for piece in [4096, 1] {
        let full = loop {
            if let Err(error) = writer.write(&vec![b'\n'; piece]) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
    }
    fcntl_setfl(&writer, flags).expect("and with waiting");
    (reader, writer)
}

/// A node that writes its log to a pipe. It is killed when this is dropped.
struct Node(Child);

impl Node {
    fn start(settings: &Settings, log: PipeWriter) -> Self {
        let mut command: Command = settings.command();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Node(command.spawn().expect("the node starts"))
    }

    fn terminate(&self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).expect("a child can be asked to stop");
    }

    async fn end(&mut self) -> ExitStatus {
        eventually("its end", || {
            let ended = self.0.try_wait().expect("it is our child");
            async move { ended.ok_or("it runs") }
        })
        .await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn put(settings: &Settings) -> Result<(), String> {
    let channel = endpoint(settings.client).connect().await.map_err(|error| format!("{error:?}"))?;
    let request =
        pb::PutRequest { key: "key".into(), value: vec![7; 1000].into(), ..pb::PutRequest::default() };
    KvClient::new(channel).put(request).await.map(drop).map_err(|status| status.to_string())
}

/// Reads until `wanted` comes, and then no more. Returns the line that has it.
async fn read_until(mut reader: PipeReader, wanted: &'static str) -> (PipeReader, String) {
    let reads = move || {
        let (mut text, mut piece) = (Vec::new(), vec![0; 4096]);
        loop {
            let count = reader.read(&mut piece).expect("the other end is open");
            assert!(count > 0, "it ends without {wanted:?}");
            text.extend_from_slice(&piece[..count]);
            let start = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            if let Some(line) =
                String::from_utf8_lossy(&text[..start]).lines().find(|line| line.contains(wanted))
            {
                return (reader, line.to_owned());
            }
            text.drain(..start);
        }
    };
    tokio::task::spawn_blocking(reads).await.expect("it does not panic")
}

/// It elects itself and serves, says how much was lost once it is read again, and ends when it is told to though nobody reads that.
#[tokio::test]
async fn node_whose_log_is_not_read_serves_and_ends_when_it_is_told_to() {
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    // All that there is to say: more than waits for a reader.
    let settings = Settings::new(folder.path(), "node").with("--bootstrap").with("--log=trace");
    let (reader, writer) = full_pipe();
    let mut node = Node::start(&settings, writer);
    for _ in 0..100 {
        eventually("a write", async || put(&settings).await).await;
    }
    let (reader, line) = read_until(reader, "lines of the log were lost").await;
    assert!(line.contains("lost="), "{line}");
    for _ in 0..100 {
        put(&settings).await.expect("it serves");
    }
    node.terminate();
    assert_eq!(node.end().await.code(), Some(0));
    drop(reader);
}

/// The line that says why is the last thing that it does, and must not keep it.
#[tokio::test]
async fn node_that_cannot_start_ends_though_nobody_reads_why() {
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let settings = Settings::new(folder.path(), "node");
    std::fs::write(&settings.data, "no directory").expect("it can be written");
    let (_reader, writer) = full_pipe();
    let ended = Node::start(&settings, writer).end().await;
    assert!(ended.code().is_some_and(|code| code != 0), "{ended}");
}
