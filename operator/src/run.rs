//! The process: everything put together, from the command line to the end.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use kube::Client;
use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use crate::ages::Ages;
use crate::applied::Applied;
use crate::check;
use crate::cli::{Cli, LogFormat};
use crate::controller::{self, Context};
use crate::custody::Installation;
use crate::events::Events;
use crate::fleet::{Fleet, Rules};
use crate::http;
use crate::lease::OperatorLease;
use crate::metrics::Metrics;
use crate::nodes::{Admin, TlsAdmin};
use crate::pace::Pace;
use crate::streams::Streams;

/// Runs the operator until it is told to end, or has lost its lease.
pub async fn run(cli: Cli) -> Result<(), Box<dyn Error>> {
    start_logging(&cli)?;
    let client = Client::try_default().await.map_err(|error| {
        format!("cannot find the Kubernetes API: {error}. Run in a pod, or set KUBECONFIG")
    })?;
    if cli.check {
        return check::check(client, &cli).await;
    }
    let metrics = Arc::new(Metrics::default());
    let listener = http::listen(cli.listen_http).map_err(|error| {
        format!("cannot listen on {}: {error}. Choose another --listen-http", cli.listen_http)
    })?;
    tokio::spawn(http::serve(listener, metrics.clone()));

    let holder = cli.name.clone().unwrap_or_else(|| format!("operator-{}", std::process::id()));
    let lease = OperatorLease::new(client.clone(), &cli.namespace, &cli.lease, holder);
    let end = end_signal()?;
    tokio::select! {
        () = lease.acquire() => {}
        () = told(end.clone()) => return Ok(()),
    }
    metrics.leading(true);
    let scopes = cli.scopes();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), namespaces = ?scopes, "holds the lease: working");

    let admin: Arc<dyn Admin> = Arc::new(TlsAdmin::default());
    let (streams, triggers) = Streams::new(admin.clone());
    let context = Arc::new(Context {
        events: Events::new(client.clone(), cli.name.clone()),
        client,
        admin,
        streams,
        metrics: metrics.clone(),
        node_image: cli.node_image.clone(),
        domain: domain(&cli.cluster_domain),
        fleet: Fleet::new(Rules {
            at_once: cli.upgrades_at_once,
            stop_at_failure: cli.stop_upgrades_at_failure,
        }),
        installation: Installation { namespace: cli.namespace.clone(), lease: cli.lease.clone() },
        applied: Applied::default(),
        pace: Pace::default(),
        ages: Ages::default(),
        held: lease.held(),
        asked: Mutex::default(),
        failures: Mutex::new(HashMap::new()),
    });
    tokio::select! {
        () = controller::run(context, triggers, &scopes, || told(end.clone())) => {
            lease.release().await;
            Ok(())
        }
        () = lease.hold() => Err("another operator has taken the lease: it works now".into()),
    }
}

/// The domain of the Kubernetes cluster: as it is given, or as the resolver of a pod has it.
fn domain(given: &str) -> String {
    if !given.is_empty() {
        return given.trim_matches('.').to_owned();
    }
    let resolver = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    searched(&resolver).unwrap_or_else(|| "cluster.local".to_owned())
}

/// Kubernetes has pods search `NAMESPACE.svc.DOMAIN svc.DOMAIN DOMAIN`.
fn searched(resolver: &str) -> Option<String> {
    let lists = resolver.lines().filter_map(|line| line.trim().strip_prefix("search"));
    let mut domains = lists.flat_map(str::split_whitespace);
    domains.find_map(|domain| Some(domain.strip_prefix("svc.")?.trim_end_matches('.').to_owned()))
}

fn start_logging(cli: &Cli) -> Result<(), Box<dyn Error>> {
    let filter = EnvFilter::try_new(&cli.log).map_err(|error| format!("--log {}: {error}", cli.log))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A line that cannot be written is lost: to say so on stderr would be a panic.
    let builder = builder.log_internal_errors(false);
    match cli.log_format {
        LogFormat::Text => builder.init(),
        // The spans of the controller say what every line says itself.
        LogFormat::Json => {
            builder.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
        }
    }
    Ok(())
}

/// Becomes true at SIGTERM or SIGINT.
fn end_signal() -> std::io::Result<watch::Receiver<bool>> {
    let (sender, receiver) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        sender.send_replace(true);
    });
    Ok(receiver)
}

async fn told(mut end: watch::Receiver<bool>) {
    // An error means that nobody can say so any more, which ends everything too.
    let _ = end.wait_for(|told| *told).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_is_as_pods_resolve_names_with_it() {
        let pod =
            "search ns.svc.k8s.example svc.k8s.example k8s.example\nnameserver 10.0.0.10\noptions ndots:5\n";
        assert_eq!(searched(pod), Some("k8s.example".to_owned()));
        assert_eq!(searched("nameserver 1.1.1.1\nsearch example.com\n"), None, "not a pod's");
        assert_eq!(domain(".other.example."), "other.example");
    }
}
