//! The command line client.

use std::process::ExitCode;

use clap::Parser as _;
use quorate_node::ctl::{self, Cli};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match ctl::run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("raftctl: {error}");
            ExitCode::from(error.code())
        }
    }
}
