//! `quorate-operator`.

use std::io::{Write as _, stderr};
use std::process::ExitCode;

use clap::Parser;
use quorate_operator::cli::Cli;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match quorate_operator::run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(stderr(), "quorate-operator: {error}");
            ExitCode::FAILURE
        }
    }
}
