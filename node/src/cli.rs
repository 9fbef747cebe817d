//! The node's command line. Each flag can also be set in the environment.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::address::{Address, Scheme};
use crate::level::{Level, Levels};
use crate::retention::{self, Mode, Retention};
use crate::tls::TlsFiles;

/// The shortest time after which watches are told how far they are, as in etcd.
const LEAST_PROGRESS: Duration = Duration::from_millis(100);

/// See [`crate::process::Exit`].
const EXIT_CODES: &str = "\
Exit codes:
  0  it was told to stop
  1  anything else
  2  flags or addresses make no sense
  3  the data is a newer version's: start that one
  4  the data directory is damaged: restore the volume, or start a new member with an empty one
  5  the data directory is another member's or cluster's, or its member was removed
  6  it cannot found a cluster: its data directory has joined one, or was to found another
  7  another process runs on the data directory
  8  the disk fails, or is full at the start
  9  an address cannot be listened on
  10  the others have lost what is committed here: keep the data directory, it may hold acknowledged writes
  11  another process runs as this member: one of the two data directories is a copy";

/// A node of Quorate: a replicated, strongly consistent key-value store with the etcd v3 API.
///
/// Start the first node of a cluster with --bootstrap and the others with --join and the peer addresses of members. Without
/// either, a node that is new waits to be told by an operator. A node that has belonged to a cluster before needs neither:
/// what it is stands in its data directory.
///
/// A data directory belongs to one process. Do not start a node from a copy of one while the original may run, and do not put an older copy
/// back in its place: remove the member, and start a new one with an empty directory. The other members find out where they can: a copy that
/// runs beside its original is refused and ends (exit code 11), and a member whose disk went back in time has no vote until the leader has sent it
/// again what it had acknowledged. They cannot if none of those that run remembers: when the only other members that hold a write are down, and
/// this one is put back to a time before it, the write is lost. A member that still has it when it comes back ends, and keeps its
/// directory (exit code 10).
#[derive(Debug, Parser)]
#[command(name = "quorate-node", version, args_override_self = true, after_long_help = EXIT_CODES)]
pub struct Cli {
    /// Where the node keeps its log and its identity. Made if it is missing.
    #[arg(long, value_name = "DIR", env = "QUORATE_DATA_DIR")]
    pub data_dir: PathBuf,

    /// The name that people know this node by [default: its member ID].
    #[arg(long, env = "QUORATE_NAME")]
    pub name: Option<String>,

    /// Where clients connect (etcd v3 API over gRPC). `[::]:PORT`, `*:PORT` and `:PORT` mean all addresses of this machine, IPv6 and
    /// IPv4; URLs are understood.
    #[arg(long, value_name = "HOST:PORT", env = "QUORATE_LISTEN_CLIENT", default_value = "127.0.0.1:2379")]
    pub listen_client: Address,

    /// Where the other members and operators connect.
    #[arg(long, value_name = "HOST:PORT", env = "QUORATE_LISTEN_PEER", default_value = "127.0.0.1:2380")]
    pub listen_peer: Address,

    /// Where health checks and metrics are served, over plain HTTP.
    #[arg(long, value_name = "HOST:PORT", env = "QUORATE_LISTEN_HTTP", default_value = "127.0.0.1:2381")]
    pub listen_http: Address,

    /// The URL that clients reach this node by [default: made from --listen-client].
    #[arg(long, value_name = "URL", env = "QUORATE_ADVERTISE_CLIENT")]
    pub advertise_client: Option<Address>,

    /// The address that other members reach this node by [default: --listen-peer].
    #[arg(long, value_name = "HOST:PORT", env = "QUORATE_ADVERTISE_PEER")]
    pub advertise_peer: Option<Address>,

    /// Make an empty data directory the one member of a new cluster. For the very first start of the very first node only.
    ///
    /// By itself it asks nobody: if this node's disk is replaced and it is started with the flag again, it founds a SECOND cluster, which serves
    /// its clients with no data. Remove the flag after the first start, or give it the addresses of the others with --join: then the node
    /// joins their cluster if they have one, and founds one only when all of them have said that they have none.
    #[arg(long, env = "QUORATE_BOOTSTRAP", value_parser = FalseyValueParser::new())]
    pub bootstrap: bool,

    /// Join the cluster of the members with these peer addresses: as a learner at first, as a voter once it has caught up; or as the member that a client
    /// has registered for its peer address (`etcdctl member add`). A node that belongs
    /// to the cluster already asks them where the members are by now: when all have moved, give each an address that works.
    #[arg(long, value_name = "HOST:PORT,…", env = "QUORATE_JOIN", value_delimiter = ',')]
    pub join: Vec<Address>,

    /// The most clients that may be connected at a time. With more, one is closed for each new one: one that has asked nothing, or else the
    /// one that has been idle longest; it may connect again. Where all are busy the new one is turned away. Never more than the limit on open files leaves, less a reserve of 160
    /// for the disk and the other members [default: 32768, or as many as take an eighth of the memory, 64 KiB each].
    #[arg(long, value_name = "N", env = "QUORATE_MAX_CLIENT_CONNECTIONS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_client_connections: Option<u32>,

    /// The most requests that one client connection may have under way; the client holds back more.
    #[arg(long, value_name = "N", env = "QUORATE_MAX_CONCURRENT_STREAMS", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_concurrent_streams: u32,

    /// For how many seconds a node that is told to stop (SIGTERM, SIGINT) still serves its clients, new ones too, once it has handed leadership over and
    /// says that it is not ready: so long others may take to note it and send nobody here. Told again, it stops at once.
    #[arg(long, value_name = "SECONDS", env = "QUORATE_STOP_DELAY", default_value_t = 2, value_parser = clap::value_parser!(u32).range(..=3600))]
    pub stop_delay: u32,

    /// The most bytes that the state may take in memory, its history included, as `etcdctl endpoint status` tells them (IN USE): a number, or
    /// `none`.
    /// Of all members' the smallest counts. When the state reaches it the alarm NOSPACE is raised, and nothing is put until there is room
    /// and the alarm is disarmed: delete, compact, `etcdctl alarm disarm`. What compactions have given up and is still needed may take a quarter of
    /// it more; and a member that fetches a snapshot starts anew from that, if its old state and the new one would take more than half of it more [default: 60 % of the memory that the control group allows, or
    /// that the machine has].
    #[arg(long, value_name = "BYTES", env = "QUORATE_QUOTA_BYTES", value_parser = quota)]
    pub quota_bytes: Option<QuotaBytes>,

    /// What --auto-compaction-retention is counted in.
    #[arg(long, value_name = "MODE", env = "QUORATE_AUTO_COMPACTION_MODE", default_value = "periodic")]
    pub auto_compaction_mode: Mode,

    /// How much history is kept; older versions are compacted by the leader, once an hour, or once in the time given if that is shorter; by
    /// revisions every five minutes. A time as in 1h30m, or a number of hours; with the mode `revision` a number of revisions. 0: nothing
    /// is compacted unless a client asks for it.
    #[arg(long, value_name = "RETENTION", env = "QUORATE_AUTO_COMPACTION_RETENTION", default_value = "0")]
    pub auto_compaction_retention: String,

    /// How often watches that ask for it are told how far they are, when nothing else was told to them: a time as in 1h30m, of at least 100ms.
    #[arg(long, value_name = "TIME", env = "QUORATE_WATCH_PROGRESS_NOTIFY_INTERVAL", default_value = "10m", value_parser = progress)]
    pub watch_progress_notify_interval: Duration,

    /// How much this member is to lead: a leader hands over to a voter with a higher priority that keeps up. It is a wish, and costs
    /// no availability: whoever can lead leads.
    #[arg(long, value_name = "N", env = "QUORATE_PRIORITY", default_value_t = 0)]
    pub priority: u32,

    /// Support no level of the cluster above this one, as an older version would: for those who want to keep the way back to it open for
    /// certain [default: all that this version supports].
    #[arg(long, value_name = "N", env = "QUORATE_MAX_LEVEL")]
    pub max_level: Option<Level>,

    /// A leader answers linearizable reads without asking the others for as long as they have promised not to elect another. Rests on
    /// clocks: none may run more than one and a half times as fast as another, and none may stand still, as that of a virtual machine
    /// does that is paused or moved while it runs. Without the flag each read is confirmed.
    #[arg(long, env = "QUORATE_LEASE_READS", value_parser = FalseyValueParser::new())]
    pub lease_reads: bool,

    /// Also keep the applied state in an embedded engine (sled), and start from that. A start from the newest snapshot and the log behind it
    /// has been the faster one in every measurement, and the copy doubles what is written to the disk. Without the flag a copy that is there is
    /// removed.
    #[arg(long, env = "QUORATE_STATE_COPY", value_parser = FalseyValueParser::new())]
    pub state_copy: bool,

    /// The certificate chain of the client port (PEM). Without it clients are served in the clear.
    #[arg(long, value_name = "FILE", env = "QUORATE_CLIENT_CERT", requires = "client_key")]
    pub client_cert: Option<PathBuf>,

    /// The private key of --client-cert (PEM).
    #[arg(long, value_name = "FILE", env = "QUORATE_CLIENT_KEY", requires = "client_cert")]
    pub client_key: Option<PathBuf>,

    /// Clients must show a certificate of this authority (PEM).
    #[arg(long, value_name = "FILE", env = "QUORATE_CLIENT_CA", requires = "client_cert")]
    pub client_ca: Option<PathBuf>,

    /// The certificate chain of the peer port, and of connections to other members (PEM). Without it peers talk in the clear.
    #[arg(long, value_name = "FILE", env = "QUORATE_PEER_CERT", requires_all = ["peer_key", "peer_ca"])]
    pub peer_cert: Option<PathBuf>,

    /// The private key of --peer-cert (PEM).
    #[arg(long, value_name = "FILE", env = "QUORATE_PEER_KEY", requires = "peer_cert")]
    pub peer_key: Option<PathBuf>,

    /// Both sides of a connection between members, and operators, must show a certificate of this authority (PEM).
    #[arg(long, value_name = "FILE", env = "QUORATE_PEER_CA", requires = "peer_cert")]
    pub peer_ca: Option<PathBuf>,

    /// Only certificates with one of these names, as their common name or among their alternative names, may speak as a member. Without the
    /// flag whoever has a certificate of --peer-ca may. Compared as they are, without wildcards.
    #[arg(
        long,
        value_name = "NAME,…",
        env = "QUORATE_PEER_ALLOWED_NAMES",
        value_delimiter = ',',
        requires = "peer_ca"
    )]
    pub peer_allowed_names: Vec<String>,

    /// Only certificates with one of these names, or of --peer-allowed-names, may found a cluster, change its members, move its leadership or raise its
    /// level; the status may be read with any certificate of --peer-ca. Members are always among them: a node that joins changes the
    /// membership itself.
    #[arg(
        long,
        value_name = "NAME,…",
        env = "QUORATE_ADMIN_ALLOWED_NAMES",
        value_delimiter = ',',
        requires = "peer_ca"
    )]
    pub admin_allowed_names: Vec<String>,

    /// What is logged on stderr, as in `info` or `quorate_node=debug` [default: `RUST_LOG`, or else info].
    #[arg(long, value_name = "FILTER", env = "QUORATE_LOG", value_parser = log_filter)]
    pub log: Option<String>,

    /// The form of the log.
    #[arg(long, value_name = "FORM", env = "QUORATE_LOG_FORMAT", default_value = "text")]
    pub log_format: LogForm,
}

/// What --quota-bytes says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaBytes {
    /// So many.
    Most(u64),
    /// No limit.
    None,
}

/// How often progress is told.
fn progress(text: &str) -> Result<Duration, String> {
    let time = retention::duration(text).filter(|time| *time >= LEAST_PROGRESS);
    time.ok_or_else(|| format!("not a time of at least 100ms, as in 10m or 1m30s: {text}"))
}

fn quota(text: &str) -> Result<QuotaBytes, String> {
    match text.parse() {
        _ if text == "none" => Ok(QuotaBytes::None),
        // etcd's default stands for this, and that of a node here is another.
        Ok(0) => Err("leave the flag out for the default, or say `none` for no limit".to_owned()),
        Ok(bytes) => Ok(QuotaBytes::Most(bytes)),
        Err(_) => Err("want a number of bytes, or `none`".to_owned()),
    }
}

/// A filter of the log that makes sense.
fn log_filter(text: &str) -> Result<String, String> {
    if matches!(text, "text" | "json") {
        return Err(format!(
            "this says what is logged; the form is set by --log-format {text} (QUORATE_LOG_FORMAT)"
        ));
    }
    EnvFilter::try_new(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// What the log looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogForm {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Cli {
    /// Reads the command line and the environment; ends the process when they make no sense.
    pub fn read() -> Self {
        Self::checked(Self::parse()).unwrap_or_else(|error| error.exit())
    }

    /// What each flag by itself cannot tell.
    fn checked(self) -> Result<Self, clap::Error> {
        if let Some(max) = self.max_level.filter(|max| Levels::up_to(*max).is_none()) {
            let what = format!(
                "--max-level {max} is below the oldest level of this version, {}",
                Levels::ALL.oldest
            );
            return Err(Self::command().error(ErrorKind::ValueValidation, what));
        }
        if let Err(error) = self.retention() {
            let text = &self.auto_compaction_retention;
            let what = format!("--auto-compaction-retention {text:?}: {error}");
            return Err(Self::command().error(ErrorKind::ValueValidation, what));
        }
        let scheme = if self.peer_cert.is_some() { Scheme::Https } else { Scheme::Http };
        if let Some(join) = self.join.iter().find(|join| join.scheme().is_some_and(|given| given != scheme)) {
            let has = if self.peer_cert.is_some() { "has" } else { "has no" };
            let what =
                format!("--join {join}: want HOST:PORT or {scheme}://HOST:PORT: this node {has} --peer-cert");
            return Err(Self::command().error(ErrorKind::ValueValidation, what));
        }
        if let Some(join) = self.join.iter().find(|join| join.is_any() || join.port() == 0) {
            let what = format!("--join {join}: want HOST:PORT of a member");
            return Err(Self::command().error(ErrorKind::ValueValidation, what));
        }
        Ok(self)
    }

    /// The levels that the node is to support.
    pub fn levels(&self) -> Levels {
        self.max_level.and_then(Levels::up_to).unwrap_or(Levels::ALL)
    }

    /// How much history is kept when it is compacted by itself; none if it is not.
    pub fn retention(&self) -> Result<Option<Retention>, String> {
        Retention::read(self.auto_compaction_mode, &self.auto_compaction_retention)
    }

    /// The client port's certificates.
    pub fn client_tls(&self) -> Option<TlsFiles> {
        files(self.client_cert.as_ref(), self.client_key.as_ref(), self.client_ca.as_ref())
    }

    /// The peers' certificates.
    pub fn peer_tls(&self) -> Option<TlsFiles> {
        files(self.peer_cert.as_ref(), self.peer_key.as_ref(), self.peer_ca.as_ref())
    }
}

fn files(cert: Option<&PathBuf>, key: Option<&PathBuf>, ca: Option<&PathBuf>) -> Option<TlsFiles> {
    let (cert, key) = cert.zip(key)?;
    Some(TlsFiles { cert: cert.clone(), key: key.clone(), ca: ca.cloned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        let line = ["quorate-node", "--data-dir", "d"].into_iter().chain(args.iter().copied());
        Cli::try_parse_from(line).and_then(Cli::checked)
    }

    #[test]
    fn quotas_and_retentions_that_make_no_sense_are_refused() {
        let quota = |text| parse(&["--quota-bytes", text]).map(|cli| cli.quota_bytes);
        assert_eq!(quota("4096").unwrap(), Some(QuotaBytes::Most(4096)));
        assert_eq!(quota("none").unwrap(), Some(QuotaBytes::None));
        for (nonsense, told) in [("0", "`none` for no limit"), ("2GiB", "number of bytes"), ("-1", "number")]
        {
            let error = parse(&[&format!("--quota-bytes={nonsense}")]).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
        let retention = |args: &[&str]| parse(args).map(|cli| cli.retention().unwrap());
        assert_eq!(retention(&[]).unwrap(), None);
        let hour = Retention::Period(Duration::from_hours(1));
        assert_eq!(retention(&["--auto-compaction-retention", "1"]).unwrap(), Some(hour));
        let by_revision = ["--auto-compaction-mode", "revision", "--auto-compaction-retention"];
        assert_eq!(retention(&[&by_revision[..], &["9"]].concat()).unwrap(), Some(Retention::Revisions(9)));
        let error = parse(&[&by_revision[..], &["1h"]].concat()).unwrap_err().to_string();
        assert!(error.contains("want a number of revisions"), "{error}");
        let error = parse(&["--auto-compaction-retention", "soon"]).unwrap_err().to_string();
        assert!(error.contains("--auto-compaction-retention \"soon\": want a time"), "{error}");
        assert!(parse(&["--auto-compaction-mode", "sometimes"]).is_err());
    }

    #[test]
    fn certificates_come_with_their_keys() {
        assert!(parse(&["--client-cert", "c"]).is_err());
        assert!(parse(&["--peer-cert", "c", "--peer-key", "k"]).is_err());
        let cli = parse(&["--bootstrap", "--join", "a:1,b:1", "--join", "c:1"]).unwrap();
        let join: Vec<String> = cli.join.iter().map(ToString::to_string).collect();
        assert_eq!(join, ["a:1", "b:1", "c:1"]);
        let cli = parse(&["--client-cert", "c", "--client-key", "k"]).unwrap();
        assert_eq!(cli.client_tls(), Some(TlsFiles { cert: "c".into(), key: "k".into(), ca: None }));
        assert_eq!(cli.peer_tls(), None);
        assert!(parse(&["--peer-allowed-names", "a"]).is_err(), "names need certificates");
        let names = ["--peer-allowed-names=a,b", "--peer-cert=c", "--peer-key=k", "--peer-ca=a"];
        assert_eq!(parse(&names).unwrap().peer_allowed_names, ["a", "b"]);
    }
}
