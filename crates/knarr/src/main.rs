//! Knarr: Kubernetes in one binary. This crate is the command line and the composition of all rooms into one process.

mod assembly;
mod cli;
mod containerd;
mod control_plane;
mod credentials;
mod detach;
mod down;
mod encryption;
mod images;
mod layout;
mod node;
mod settings;
mod tasks;
mod up;
mod version;
mod watch_file;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use tracing_subscriber::EnvFilter;

use cli::{Cli, Command};
use settings::Settings;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log(cli.verbose);
    knarr_pki::install_crypto_provider();
    let mut report = detach::Report::from_environment();
    match run(cli.command, &mut report) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let line = format!("{error:#}");
            report.failed(&line);
            eprintln!("knarr: {line}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, report: &mut detach::Report) -> Result<()> {
    match command {
        Command::Version => {
            println!("knarr {}", version::FULL);
            Ok(())
        }
        Command::Images(images) => runtime()?.block_on(images::run(images)),
        Command::Down(down) => runtime()?.block_on(down::run(down)),
        Command::Up(up) => {
            let settings = Settings::resolve(up.said, up.config.as_deref())?;
            if up.detach {
                return detach::run(&settings);
            }
            let runtime = runtime()?;
            let outcome = runtime.block_on(up::run(settings, report));
            runtime.shutdown_background();
            outcome
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("knarr").build()?)
}

/// `-v` shows what happens, `-vv` everything; `RUST_LOG` overrides both.
fn log(verbose: u8) {
    let default = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug,hyper=info,h2=info,rustls=info,tower=info",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
