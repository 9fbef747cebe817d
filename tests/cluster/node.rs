//! One node: its process, its folder and its ports.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use quorate_tests::limits::Limits;
use quorate_tests::process::Process;
use quorate_tests::{binaries, ports};

/// The program under test.
pub(crate) fn program() -> PathBuf {
    binaries::workspace("quorate-node", "QUORATE_NODE").unwrap_or_else(|reason| panic!("{reason}"))
}

/// A version of the node, as a program and what makes it be of that version.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) program: PathBuf,
    pub(crate) flags: Vec<String>,
}

impl Version {
    /// The one under test.
    pub(crate) fn current() -> Self {
        Self { program: program(), flags: Vec::new() }
    }
}

/// How a node is started, and started again.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) version: Version,
    pub(crate) data: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) client: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) http: SocketAddr,
    /// Where the others are told to find it.
    pub(crate) advertised_peer: SocketAddr,
    /// `--bootstrap`, `--join=…`, certificates.
    pub(crate) more: Vec<String>,
    /// What the process may use at most; none for what this process may.
    pub(crate) limits: Option<Limits>,
}

impl Settings {
    /// A node with free ports, and its data and log in `folder`.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let peer = ports::free();
        Self {
            name: name.to_owned(),
            version: Version::current(),
            data: folder.join(name),
            log: folder.join(format!("{name}.log")),
            client: ports::free(),
            peer,
            http: ports::free(),
            advertised_peer: peer,
            more: Vec::new(),
            limits: None,
        }
    }

    pub(crate) fn with(mut self, flag: impl Into<String>) -> Self {
        self.more.push(flag.into());
        self
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.version.program);
        // Nothing of the caller's own settings may reach the node.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("QUORATE_"))
        {
            command.env_remove(name);
        }
        let scheme =
            if self.more.iter().any(|flag| flag.starts_with("--client-cert")) { "https" } else { "http" };
        command
            .arg(format!("--name={}", self.name))
            .arg(format!("--data-dir={}", self.data.display()))
            .arg(format!("--listen-client={}", self.client))
            .arg(format!("--advertise-client={scheme}://{}", self.client))
            .arg(format!("--listen-peer={}", self.peer))
            .arg(format!("--advertise-peer={}", self.advertised_peer))
            .arg(format!("--listen-http={}", self.http))
            .args(&self.more)
            .args(&self.version.flags);
        match &self.limits {
            Some(limits) => limits.on(&command),
            None => command,
        }
    }

    pub(crate) fn start(&self) -> Process {
        let started = Process::start(&self.name, self.command(), &self.log);
        started.unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}
