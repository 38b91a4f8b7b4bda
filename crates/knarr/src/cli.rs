//! The command line.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::settings::Said;

/// Kubernetes in one small binary.
#[derive(Parser, Debug)]
#[command(name = "knarr", version = crate::version::FULL, propagate_version = true)]
pub struct Cli {
    /// More to read on standard error; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a cluster on this machine, in the foreground, until SIGINT or SIGTERM
    Up(Box<Up>),
    /// Stop the cluster; its pods keep running unless --purge is given
    Down(Down),
    /// List the images of the node's runtime, or load archives into it
    Images(Images),
    /// Show the version
    Version,
}

#[derive(Args, Debug)]
pub struct Up {
    #[command(flatten)]
    pub said: Said,
    /// A YAML file with the same names as the flags (without the dashes in front)
    #[arg(long, env = "KNARR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Return as soon as the cluster is ready; it goes on in the background
    #[arg(long)]
    pub detach: bool,
}

#[derive(Args, Debug)]
pub struct Down {
    /// As given to `up`
    #[arg(long, env = "KNARR_DATA_DIR", value_name = "DIR", default_value = crate::settings::DEFAULT_DATA_DIR)]
    pub data_dir: PathBuf,
    /// Also stop the pods and remove every container, mount, network rule, interface and file that Knarr made
    #[arg(long)]
    pub purge: bool,
}

#[derive(Args, Debug)]
pub struct Images {
    /// As given to `up`
    #[arg(long, global = true, env = "KNARR_DATA_DIR", value_name = "DIR", default_value = crate::settings::DEFAULT_DATA_DIR)]
    pub data_dir: PathBuf,
    #[command(subcommand)]
    pub action: Option<ImagesAction>,
}

#[derive(Subcommand, Debug)]
pub enum ImagesAction {
    /// Load OCI or Docker archives
    Load {
        #[arg(required = true, value_name = "FILE.tar")]
        archives: Vec<PathBuf>,
    },
    /// List what the runtime has
    List,
}
