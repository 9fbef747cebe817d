//! The node.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::process::ExitCode;

use quorate_node::cli::{Cli, LogForm};
use quorate_node::{copy, process};
use rustix::fs::Mode;
use tracing_subscriber::EnvFilter;

/// Half of what an answer cost was memory that comes and goes; and what goes is given back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    end_with_any_defect();
    // Whatever file it makes, and whatever makes files for it, is its user's alone.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let cli = Cli::read();
    start_log(cli.log.as_deref(), cli.log_format);
    match process::run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where it cannot be said the exit code still tells.
            let _ = writeln!(stderr(), "quorate-node: {error}");
            ExitCode::from(error.exit() as u8)
        }
    }
}

/// A panic says that an invariant is broken: nothing is done after it, on no thread. The engine of the state's copy is another matter.
fn end_with_any_defect() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        usual(info);
        if !copy::is_the_engines() {
            std::process::abort();
        }
    }));
}

fn start_log(filter: Option<&str>, form: LogForm) {
    let filter = match filter {
        Some(filter) => EnvFilter::new(filter),
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        // A line that cannot be written is lost: to say so on stderr would be a panic.
        .log_internal_errors(false)
        .with_ansi(stderr().is_terminal());
    match form {
        LogForm::Text => log.with_target(false).init(),
        LogForm::Json => log.json().init(),
    }
}
