//! Knarr: Kubernetes in one binary. This crate is the command line and the composition of all rooms into one process.

mod assembly;
mod certificates;
mod cli;
mod containerd;
mod control_plane;
mod credentials;
mod detach;
mod down;
mod encryption;
mod images;
mod layout;
mod logging;
mod node;
mod settings;
mod start_stages;
mod store;
mod tasks;
mod up;
mod version;
mod watch_file;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
// Linked for its allocator.
use knarr_allocator as _;
use knarr_api::tree::STACK_SIZE;
use tracing_subscriber::EnvFilter;

use cli::{Cli, Command};
use settings::{LoggingFormat, Settings};

fn main() -> ExitCode {
    let cli = Cli::parse();
    knarr_pki::install_crypto_provider();
    let mut report = detach::Report::from_environment();
    match run(cli, &mut report) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let line = format!("{error:#}");
            report.failed(&line);
            eprintln!("knarr: {line}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli, report: &mut detach::Report) -> Result<()> {
    if !matches!(cli.command, Command::Up(_)) {
        log(cli.verbose, LoggingFormat::Text);
    }
    match cli.command {
        Command::Version => {
            println!("knarr {}", version::FULL);
            Ok(())
        }
        Command::Images(images) => runtime()?.block_on(images::run(images)),
        Command::Down(down) => runtime()?.block_on(down::run(down)),
        Command::Up(up) => {
            let settings = Settings::resolve(up.said, up.config.as_deref())?;
            log(cli.verbose, settings.serving.logging_format);
            if up.detach {
                return detach::run(&settings);
            }
            let runtime = runtime()?;
            let outcome = with_object_stack(|| runtime.block_on(up::run(settings, report)));
            runtime.shutdown_background();
            outcome?
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.enable_all().thread_name("knarr").thread_stack_size(STACK_SIZE).build()?)
}

/// Runs on a thread that may handle objects of any depth, as the runtime's own threads may.
fn with_object_stack<T: Send>(run: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("main".into()).stack_size(STACK_SIZE).spawn_scoped(scope, run)?;
        thread.join().map_err(|_| anyhow::anyhow!("a panic"))
    })
}

/// `-v` shows what happens, `-vv` everything; `RUST_LOG` overrides both.
fn log(verbose: u8, format: LoggingFormat) {
    let default = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug,hyper=info,h2=info,rustls=info,tower=info",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(logging::stderr);
    match format {
        LoggingFormat::Text => subscriber.init(),
        LoggingFormat::Json => subscriber.json().flatten_event(true).init(),
    }
}
