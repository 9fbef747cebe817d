//! raftctl: a cluster at the command line.
//!
//! Members are asked and changed by the admin service on their peer ports, keys by the etcd API on their client ports. What is
//! not a secret stands in the same environment variables as the node's, so that raftctl works inside of a node's container
//! without a flag.

mod check;
mod connect;
mod goal;
mod keys;
mod level;
mod membership;
mod print;
mod recover;
mod snapshot;
mod status;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::recover::RecoverError;
use crate::tls::TlsError;
use connect::{Admins, Clients};
use snapshot::SnapshotFileError;

/// The command line client of Quorate.
#[derive(Debug, Parser)]
#[command(name = "raftctl", version, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// How to reach the cluster, and how to speak.
#[derive(Debug, Args)]
struct Global {
    /// Client ports, for keys: HOST:PORT or URLs. The first one that answers is used.
    #[arg(
        long,
        global = true,
        value_delimiter = ',',
        value_name = "ENDPOINTS",
        env = "QUORATE_ENDPOINTS",
        default_value = "127.0.0.1:2379"
    )]
    endpoints: Vec<String>,

    /// Peer ports, for everything about members: HOST:PORT. The other members are found from any of them.
    #[arg(
        long,
        global = true,
        visible_alias = "admin",
        value_delimiter = ',',
        value_name = "ENDPOINTS",
        env = "QUORATE_PEER_ENDPOINTS",
        default_value = "127.0.0.1:2380"
    )]
    peer_endpoints: Vec<String>,

    /// The certificate to show to client ports (PEM). Without --client-ca it is also the one that they have to show, as those do that share it.
    #[arg(long, global = true, value_name = "FILE", env = "QUORATE_CLIENT_CERT", requires = "client_key")]
    client_cert: Option<PathBuf>,

    /// The private key of --client-cert (PEM).
    #[arg(long, global = true, value_name = "FILE", env = "QUORATE_CLIENT_KEY", requires = "client_cert")]
    client_key: Option<PathBuf>,

    /// The authority of the client ports' certificates (PEM). With it, TLS is spoken to HOST:PORT too.
    #[arg(long, global = true, value_name = "FILE", env = "QUORATE_CLIENT_CA")]
    client_ca: Option<PathBuf>,

    /// The certificate to show to peer ports (PEM). Without it they are spoken to in the clear.
    #[arg(long, global = true, value_name = "FILE", env = "QUORATE_PEER_CERT", requires_all = ["peer_key", "peer_ca"])]
    peer_cert: Option<PathBuf>,

    /// The private key of --peer-cert (PEM).
    #[arg(long, global = true, value_name = "FILE", env = "QUORATE_PEER_KEY", requires = "peer_cert")]
    peer_key: Option<PathBuf>,

    /// The authority of the peer ports' certificates (PEM).
    #[arg(long, global = true, value_name = "FILE", env = "QUORATE_PEER_CA", requires = "peer_cert")]
    peer_ca: Option<PathBuf>,

    /// The form of the answer.
    #[arg(long, short, global = true, value_name = "FORM", env = "QUORATE_OUTPUT", default_value = "text")]
    output: Output,

    /// How many seconds one request may take.
    #[arg(long, global = true, value_name = "SECONDS", default_value = "5")]
    timeout: u64,
}

/// What answers look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs: one JSON value.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show all members: role, term, and how far each is behind.
    Status,
    /// Set a key.
    Put {
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// Show a key, or all keys with a prefix.
    Get {
        /// The key.
        key: String,
        /// All keys that begin with it.
        #[arg(long)]
        prefix: bool,
        /// Take what the node has, without asking the others whether it is the newest.
        #[arg(long)]
        serializable: bool,
    },
    /// Delete a key, or all keys with a prefix.
    Del {
        /// The key.
        key: String,
        /// All keys that begin with it.
        #[arg(long)]
        prefix: bool,
    },
    /// Look at the membership, or change it.
    #[command(subcommand)]
    Member(MemberCommand),
    /// Look at a data directory on this machine: what is in it, whether it is whole, and what a node makes of it.
    ///
    /// Changes nothing. Ends with 0 when it is whole, with 1 when it is damaged, with 2 when it is no data directory.
    Check {
        /// The data directory.
        #[arg(value_name = "DIR", env = "QUORATE_DATA_DIR")]
        dir: PathBuf,
    },
    /// Make a new cluster of what one stopped member holds: the way back when a majority of the voters is gone for good.
    ///
    /// Shows what the directory holds and what may be lost, asks for the cluster's ID, and makes the directory the one member of a new
    /// cluster. Entries that are not known to be committed are kept. Members of the old cluster are refused by the new one. Revisions go
    /// up, and all older ones count as compacted: none is dealt out twice. What the directory held stays beside. When it is interrupted,
    /// the next start of the node, or the next call, ends it. Run it as the user that the node runs as.
    Recover {
        /// The data directory. No node must run on it.
        #[arg(value_name = "DIR", env = "QUORATE_DATA_DIR")]
        dir: PathBuf,
        /// By how much revisions go up: more than the lost members can have used beyond this one.
        #[arg(long, value_name = "N", default_value_t = crate::recover::REVISIONS, value_parser = clap::value_parser!(i64).range(1..))]
        bump_revision: i64,
        /// The ID of the cluster that is given up, for scripts. Without it, it is asked for.
        #[arg(long, value_name = "CLUSTER_ID")]
        yes_i_understand: Option<String>,
        /// The ID of the new cluster, for programs that have to know it before: a directory that has become that cluster already is left as
        /// it is [default: a random one].
        #[arg(long, value_name = "CLUSTER_ID", value_parser = cluster_id)]
        new_cluster: Option<u64>,
    },
    /// Snapshots that etcdctl saves.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// The level of the cluster: which formats its members may use.
    #[command(subcommand)]
    Level(LevelCommand),
    /// Hand leadership over.
    Transfer {
        /// The name or ID of the voter that is to lead [default: the one that is furthest].
        member: Option<String>,
        /// Only if the first of --peer-endpoints leads, and another voter is there to take over. If not, there is nothing to do, which is no failure: for
        /// what runs when a machine or a pod is about to end.
        #[arg(long)]
        if_here: bool,
    },
}

#[derive(Debug, Subcommand)]
enum SnapshotCommand {
    /// Make a new cluster of what etcdctl has saved, of an etcd or of Quorate.
    ///
    /// Makes a data directory: start a node on it, without --join, and let others join with empty directories. Keys, their revisions and
    /// versions, the leases that they are attached to, and the point of compaction stay as they were. The members and the alarms of the old
    /// cluster are left behind. It needs the memory of the state. Run it as the user that the node runs as.
    Restore {
        /// What `etcdctl snapshot save` has written, or with --skip-hash-check the file member/snap/db of an etcd that is stopped.
        file: PathBuf,
        /// The data directory, which is empty or not there.
        #[arg(long, value_name = "DIR", env = "QUORATE_DATA_DIR")]
        data_dir: PathBuf,
        /// By how much revisions go up, so that no client sees one go down: more than were made since the snapshot was saved.
        #[arg(long, value_name = "N", requires = "mark_compacted", value_parser = clap::value_parser!(i64).range(1..))]
        bump_revision: Option<i64>,
        /// Have everything before count as compacted, so that what watches and caches know of it ends.
        #[arg(long, requires = "bump_revision")]
        mark_compacted: bool,
        /// Take a file that has no hash at its end, or another one than it should.
        #[arg(long)]
        skip_hash_check: bool,
        /// Restore the keys of an etcd that has authentication: whoever reaches the new cluster can read and write them.
        #[arg(long)]
        without_users: bool,
        /// The ID of the new cluster, for programs that may ask twice: a directory that is of that cluster already is left as it is
        /// [default: a random one].
        #[arg(long, value_name = "CLUSTER_ID", value_parser = cluster_id)]
        new_cluster: Option<u64>,
    },
}

#[derive(Debug, Subcommand)]
enum LevelCommand {
    /// Raise it, when every member was upgraded. There is no way back: a version that does not support the level is refused from then on.
    ///
    /// Changes nothing unless every member supports the level.
    Raise {
        /// The level [default: the newest that the leader supports].
        #[arg(value_name = "N")]
        to: Option<u32>,
    },
}

#[derive(Debug, Subcommand)]
enum MemberCommand {
    /// Show the members, without asking each.
    List,
    /// Add a node that waits: as a learner, and as a voter when it has caught up.
    Add {
        /// The node's peer address.
        #[arg(value_name = "HOST:PORT")]
        address: String,
        /// Leave it a learner.
        #[arg(long)]
        learner: bool,
        #[command(flatten)]
        wait: Wait,
    },
    /// Remove a member.
    Remove {
        /// Its name or ID.
        member: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Make a learner a voter, when it has caught up.
    Promote {
        /// Its name or ID.
        member: String,
        #[command(flatten)]
        wait: Wait,
    },
}

#[derive(Debug, Clone, Copy, Args)]
struct Wait {
    /// How many seconds the whole change may take. When they are over, what was begun goes on by itself.
    #[arg(long = "wait", value_name = "SECONDS", default_value = "300")]
    seconds: u64,
}

/// Why a command has not done what it should.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// Certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Flags that make no sense together.
    #[error("{0}")]
    Usage(String),
    /// Nobody answers.
    #[error("no answer from {0}")]
    Unreachable(String),
    /// A node says no.
    #[error("{endpoint}: {message}")]
    Refused {
        /// Which node.
        endpoint: String,
        /// In its words.
        message: String,
    },
    /// The cluster is not able to.
    #[error("{0}")]
    Cluster(String),
    /// It takes too long.
    #[error("gave up after {seconds} s, waiting: {reason}; what was begun goes on")]
    TimedOut {
        /// How long.
        seconds: u64,
        /// For what.
        reason: String,
    },
    /// A data directory does not hold what was made durable.
    #[error("{} is damaged", dir.display())]
    Damaged {
        /// Which.
        dir: PathBuf,
    },
    /// A data directory cannot be recovered.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// A snapshot cannot be restored.
    #[error(transparent)]
    Snapshot(#[from] SnapshotFileError),
    /// The answer cannot be written.
    #[error("cannot write the answer: {0}")]
    Output(#[from] std::io::Error),
}

impl CtlError {
    /// The exit code: 2 when nothing was tried.
    pub fn code(&self) -> u8 {
        if matches!(self, Self::Usage(_)) { 2 } else { 1 }
    }
}

/// Runs one command.
pub async fn run(cli: Cli) -> Result<(), CtlError> {
    let Cli { global, command } = cli;
    let timeout = Duration::from_secs(global.timeout.max(1));
    let output = global.output;
    match command {
        Command::Put { key, value } => keys::put(&Clients::new(&global, timeout)?, output, key, value).await,
        Command::Get { key, prefix, serializable } => {
            keys::get(&Clients::new(&global, timeout)?, output, key, prefix, serializable).await
        }
        Command::Del { key, prefix } => {
            keys::del(&Clients::new(&global, timeout)?, output, key, prefix).await
        }
        Command::Check { dir } => check::check(output, &dir),
        Command::Recover { dir, bump_revision, yes_i_understand, new_cluster } => {
            let wish = recover::Wish { understood: yes_i_understand, new_cluster, bump_revision };
            recover::recover(output, &dir, &wish)
        }
        Command::Snapshot(command) => snapshot(output, command),
        Command::Status => status::status(&Admins::new(&global, timeout)?, output).await,
        Command::Transfer { member, if_here } => {
            let admins = Admins::new(&global, timeout)?;
            membership::transfer(&admins, output, member.as_deref(), if_here).await
        }
        Command::Level(LevelCommand::Raise { to }) => {
            level::raise(&Admins::new(&global, timeout)?, output, to).await
        }
        Command::Member(command) => member(&Admins::new(&global, timeout)?, output, command).await,
    }
}

fn snapshot(output: Output, command: SnapshotCommand) -> Result<(), CtlError> {
    let SnapshotCommand::Restore {
        file,
        data_dir,
        bump_revision,
        mark_compacted: _,
        skip_hash_check,
        without_users,
        new_cluster,
    } = command;
    let wish =
        snapshot::Wish { file, dir: data_dir, bump_revision, skip_hash_check, without_users, new_cluster };
    snapshot::restore(output, &wish)
}

/// A cluster's ID as it is shown: hexadecimal, and not zero, which stands for none.
fn cluster_id(text: &str) -> Result<u64, String> {
    match u64::from_str_radix(text, 16) {
        Ok(id @ 1..) => Ok(id),
        _ => Err("write the ID as it is shown, such as 00000000000000a1; 0 is none".to_owned()),
    }
}

async fn member(admins: &Admins, output: Output, command: MemberCommand) -> Result<(), CtlError> {
    match command {
        MemberCommand::List => membership::list(admins, output).await,
        MemberCommand::Add { address, learner, wait } => {
            membership::add(admins, output, &address, learner, wait.seconds).await
        }
        MemberCommand::Remove { member, wait } => {
            membership::remove(admins, output, &member, wait.seconds).await
        }
        MemberCommand::Promote { member, wait } => {
            membership::promote(admins, output, &member, wait.seconds).await
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let cli = Cli::parse_from(["raftctl", "--admin", "a:1,b:2", "status", "-o", "json"]);
        assert_eq!(cli.global.peer_endpoints, ["a:1", "b:2"]);
        assert_eq!(cli.global.output, Output::Json);
        Cli::try_parse_from(["raftctl", "--peer-cert", "c", "status"]).unwrap_err();
    }
}
