//! The operator on a real Kubernetes: every action on a cluster, under load, with the clients' history checked.
//!
//! `make test-kubernetes` brings the cluster up and runs this. The steps are told in order, since each one starts from what the last
//! one left: a step that fails ends the run, prints what the operator and the pods have to say, and leaves everything as it is.
//! `make test-all` runs the cases instead (`cases`): more of them, and each with a cluster of its own.

mod cases;
mod guard;
mod kubectl;
mod member;
mod repair;
mod steps;
mod story;
mod traffic;
mod upgrades;

use std::process::ExitCode;

fn main() -> ExitCode {
    // `cargo test -- --list` and the like are asked of every test program.
    if std::env::args().any(|argument| argument == "--list") {
        for (name, _) in story::STEPS {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    match cases::Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => cases::run(&options),
        Ok(None) => steps::run(story::STEPS),
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}
