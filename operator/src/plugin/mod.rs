//! `kubectl raft`: a cluster as one sees it, what is done next, and the acts of people.
//!
//! It reads and writes the `RaftCluster` alone, with the rights of whoever calls it: the operator does what is asked for there.

mod recover;
mod show;

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Api, Client, Config};
use quorate_crds::RaftCluster;

/// Looks at replicated stores on Kubernetes, and asks the operator for what only a person may decide.
#[derive(Debug, Parser)]
#[command(name = "kubectl-raft", bin_name = "kubectl raft", version, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

/// Where the cluster is.
#[derive(Debug, Args)]
struct Place {
    /// The namespace. That of the context when it is left out.
    #[arg(short, long, global = true)]
    namespace: Option<String>,
    /// The context of the kubeconfig. The current one when it is left out.
    #[arg(long, global = true)]
    context: Option<String>,
    /// The kubeconfig. What KUBECONFIG names, or ~/.kube/config, when it is left out.
    #[arg(long, global = true)]
    kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows a cluster: its leader, its members, what is wrong, and what is done next.
    Status {
        /// The cluster.
        name: String,
        /// How it is shown.
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
    },
    /// Shows what is done next, why, and what it waits for.
    Plan {
        /// The cluster.
        name: String,
    },
    /// Gives up a cluster that has lost its quorum for good, and makes a new one of what one member holds.
    ///
    /// Shows what each member holds and what may be lost, and asks for the cluster's name. The operator then stops all members, has the chosen one become a new
    /// cluster under a new ID, keeps the volumes of the others aside, and lets the cluster grow again.
    Recover {
        /// The cluster.
        name: String,
        /// The pod whose member becomes the new cluster. The one that holds most when it is left out.
        #[arg(long, value_name = "POD")]
        from: Option<String>,
        /// The cluster's name once more, for scripts. Without it, it is asked for.
        #[arg(long, value_name = "NAME")]
        yes: Option<String>,
    },
}

/// How a status is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// The status as JSON.
    Json,
    /// The status as YAML.
    Yaml,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// No way to the API server.
    #[error("cannot read the kubeconfig: {0}")]
    Kubeconfig(#[from] KubeconfigError),
    /// The API server refuses, or cannot be reached.
    #[error("{0}")]
    Api(#[from] kube::Error),
    /// What was asked for makes no sense for this cluster. Nothing was changed.
    #[error("{0}")]
    Usage(String),
    /// What is shown cannot be written.
    #[error("cannot write: {0}")]
    Io(#[from] io::Error),
    /// Nor made.
    #[error("cannot show the status: {0}")]
    Json(#[from] serde_json::Error),
    /// Nor made.
    #[error("cannot show the status: {0}")]
    Yaml(#[from] serde_yaml::Error),
}

impl PluginError {
    /// The exit code: 2 when nothing was tried.
    pub fn code(&self) -> u8 {
        if matches!(self, Self::Usage(_)) { 2 } else { 1 }
    }
}

/// Runs one command.
pub async fn run(cli: Cli) -> Result<(), PluginError> {
    let api = connect(&cli.place).await?;
    let mut out = io::stdout().lock();
    match cli.command {
        Command::Status { name, output } => {
            let cluster = api.get(&name).await?;
            match output {
                Output::Table => out.write_all(show::status(&cluster).as_bytes())?,
                Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&cluster.status)?)?,
                Output::Yaml => out.write_all(serde_yaml::to_string(&cluster.status)?.as_bytes())?,
            }
        }
        Command::Plan { name } => out.write_all(show::plan(&api.get(&name).await?).as_bytes())?,
        Command::Recover { name, from, yes } => {
            let cluster = api.get(&name).await?;
            let choice = recover::choose(&cluster, from.as_deref())?;
            out.write_all(recover::consequences(&cluster, &choice).as_bytes())?;
            out.flush()?;
            recover::confirm(&name, yes.as_deref(), &mut io::stdin().lock())?;
            recover::ask(&api, &cluster, &choice).await?;
            writeln!(out, "The operator has been asked. What it does shows: kubectl raft plan {name}")?;
        }
    }
    Ok(())
}

async fn connect(place: &Place) -> Result<Api<RaftCluster>, PluginError> {
    let options = KubeConfigOptions { context: place.context.clone(), ..KubeConfigOptions::default() };
    let config = match &place.kubeconfig {
        Some(path) => Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?,
        None => Config::from_kubeconfig(&options).await?,
    };
    let namespace = place.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    Ok(Api::namespaced(Client::try_from(config)?, &namespace))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let cli = Cli::parse_from(["kubectl-raft", "status", "demo", "-n", "shop", "-o", "yaml"]);
        assert_eq!(cli.place.namespace.as_deref(), Some("shop"));
        assert!(matches!(cli.command, Command::Status { output: Output::Yaml, .. }));
        Cli::try_parse_from(["kubectl-raft", "recover"]).expect_err("of which cluster?");
    }
}
