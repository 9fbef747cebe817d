//! The node.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{IsTerminal as _, stderr};
use std::panic::PanicHookInfo;
use std::process::ExitCode;

use quorate_node::cli::{Cli, LogForm};
use quorate_node::process::log;
use quorate_node::{copy, process};
use rustix::fs::Mode;
use tracing_subscriber::EnvFilter;

/// The C library's took a sixth of the processor time of a request.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    end_with_any_defect();
    // Whatever file it makes, and whatever makes files for it, is its user's alone.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let cli = Cli::read();
    start_log(cli.log.as_deref(), cli.log_format);
    match process::run(&cli) {
        Ok(()) => {
            log::flush();
            ExitCode::SUCCESS
        }
        Err(error) => {
            // Where it cannot be said the exit code still tells.
            log::last_words(format_args!("quorate-node: {error}"));
            ExitCode::from(error.exit() as u8)
        }
    }
}

/// A panic says that an invariant is broken: nothing is done after it, on no thread. The engine of the state's copy is another matter.
fn end_with_any_defect() {
    std::panic::set_hook(Box::new(|info| {
        tell(info);
        if !copy::is_the_engines() {
            std::process::abort();
        }
    }));
}

/// As the standard library does it, but for a stderr that nobody reads: the process must end all the same.
fn tell(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("<unnamed>");
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => log::last_words(format_args!("thread '{name}' {info}\n{backtrace}")),
        _ => log::last_words(format_args!(
            "thread '{name}' {info}\nnote: with RUST_BACKTRACE=1 there is a backtrace"
        )),
    }
}

fn start_log(filter: Option<&str>, form: LogForm) {
    let filter = match filter {
        Some(filter) => EnvFilter::new(filter),
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
    };
    // Without a thread more each line is written by the thread that has it.
    let _ = log::start();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(log::writer)
        .log_internal_errors(false)
        .with_ansi(stderr().is_terminal());
    match form {
        LogForm::Text => log.with_target(false).init(),
        LogForm::Json => log.json().init(),
    }
}
