//! `kubectl-raft`, which kubectl finds as `kubectl raft`.

use std::io::{Write as _, stderr};
use std::process::ExitCode;

use clap::Parser;
use quorate_operator::plugin::{self, Cli};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match plugin::run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(stderr(), "kubectl raft: {error}");
            ExitCode::from(error.code())
        }
    }
}
