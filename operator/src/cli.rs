//! The command line.

use std::net::SocketAddr;

use clap::Parser;

/// Runs the `RaftCluster`s of a Kubernetes cluster.
#[derive(Parser, Clone, Debug)]
#[command(name = "quorate-operator", version)]
pub struct Cli {
    /// Look after these namespaces only, with commas between them. All namespaces when it is left out or empty.
    #[arg(long, env = "QUORATE_WATCH_NAMESPACE", value_delimiter = ',')]
    pub watch_namespace: Vec<String>,

    /// Say whether the CRD, the operator's rights and its lease are as they should be, and end.
    #[arg(long)]
    pub check: bool,

    /// The image of nodes whose resource names none.
    #[arg(long, env = "QUORATE_NODE_IMAGE", default_value = concat!("ghcr.io/quorate/quorate-node:", env!("CARGO_PKG_VERSION")))]
    pub node_image: String,

    /// How many clusters are upgraded at a time, when the operator has a new version and their resources let it.
    #[arg(long, env = "QUORATE_UPGRADES_AT_ONCE", default_value_t = 1)]
    pub upgrades_at_once: u32,

    /// Whether no other upgrade begins while that of a cluster has failed.
    #[arg(long, env = "QUORATE_STOP_UPGRADES_AT_FAILURE", default_value_t = true, action = clap::ArgAction::Set)]
    pub stop_upgrades_at_failure: bool,

    /// The namespace that the operator runs in: its lease is there, and the nodes let it in from there.
    #[arg(long, env = "POD_NAMESPACE", default_value = "quorate-system")]
    pub namespace: String,

    /// The name of the lease in that namespace. Operators that share it are one installation: one of them works. Clusters that
    /// another installation looks after are left alone.
    #[arg(long, env = "QUORATE_LEASE", default_value = "quorate-operator")]
    pub lease: String,

    /// The domain of the Kubernetes cluster, which the long names in certificates end with. When it is left out or empty it is found in the resolver's
    /// configuration.
    #[arg(long, env = "QUORATE_CLUSTER_DOMAIN", default_value = "")]
    pub cluster_domain: String,

    /// The name by which this replica of the operator holds the lease.
    #[arg(long, env = "POD_NAME")]
    pub name: Option<String>,

    /// The address of the port for health and metrics. `[::]` means all addresses, of both families.
    #[arg(long, env = "QUORATE_LISTEN_HTTP", default_value = "[::]:8080")]
    pub listen_http: SocketAddr,

    /// What to log, as in `info` or `quorate_operator=debug`.
    #[arg(long, env = "QUORATE_LOG", default_value = "info")]
    pub log: String,

    /// How to log: `text` or `json`.
    #[arg(long, env = "QUORATE_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

/// How to log.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}

impl Cli {
    /// The namespaces that are looked after; one that is empty stands for all.
    pub fn scopes(&self) -> Vec<String> {
        let mut named: Vec<_> = self
            .watch_namespace
            .iter()
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .collect();
        named.sort();
        named.dedup();
        if named.is_empty() { vec![String::new()] } else { named }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_the_namespaces_or_all() {
        let scopes = |value: &str| Cli::parse_from(["operator", "--watch-namespace", value]).scopes();
        assert_eq!(scopes(""), [""]);
        assert_eq!(scopes("blue"), ["blue"]);
        assert_eq!(scopes("green, blue,blue"), ["blue", "green"]);
        assert_eq!(Cli::parse_from(["operator"]).scopes(), [""]);
    }
}
