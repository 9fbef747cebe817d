//! The command line client.

use std::io::{Write as _, stderr};
use std::process::ExitCode;

use clap::Parser as _;
use quorate_node::ctl::{self, Cli};
use tracing_subscriber::EnvFilter;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    start_log();
    match ctl::run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(stderr(), "raftctl: {error}");
            ExitCode::from(error.code())
        }
    }
}

/// Nothing is said unless `QUORATE_LOG` asks for it: what a command has done stands in its output.
fn start_log() {
    let filter = EnvFilter::try_from_env("QUORATE_LOG").unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).log_internal_errors(false).init();
}
