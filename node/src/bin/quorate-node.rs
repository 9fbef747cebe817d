//! The node.

use std::io::{IsTerminal as _, stderr};
use std::process::ExitCode;

use quorate_node::cli::{Cli, LogForm};
use quorate_node::server;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::read();
    start_log(cli.log);
    match server::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quorate-node: {error}");
            ExitCode::from(error.code())
        }
    }
}

fn start_log(form: LogForm) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal());
    match form {
        LogForm::Text => log.with_target(false).init(),
        LogForm::Json => log.json().init(),
    }
}
