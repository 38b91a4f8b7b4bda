//! `knarr up --detach`: the same command in a process of its own, watched until it is ready or says why it cannot be.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::layout::Layout;
use crate::settings::Settings;

/// Names the pipe on which a background process reports, as a file descriptor's number.
const REPORT_VARIABLE: &str = "KNARR_REPORT_FD";
const READY: &str = "ready";

/// Starts the background process and waits for its report. What it prints goes to `knarr.log` in the data directory.
pub fn run(settings: &Settings) -> Result<()> {
    let layout = Layout::new(&settings.data_dir);
    if let Some(pid) = crate::layout::owner(&layout) {
        bail!("another knarr (process {pid}) already runs on {}: stop it with `knarr down`", layout.root().display());
    }
    fs::create_dir_all(layout.root()).with_context(|| layout.root().display().to_string())?;
    let log = OpenOptions::new().create(true).append(true).open(layout.log()).context("the log file")?;
    let (reader, writer) = nix::unistd::pipe().context("a pipe")?;
    fcntl(&reader, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(std::env::args_os().skip(1).filter(|argument| argument != "--detach"))
        .env(REPORT_VARIABLE, writer.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0);
    let child = command.spawn().context("starting the background process")?;
    drop(writer);
    let mut report = String::new();
    BufReader::new(File::from(reader)).read_line(&mut report)?;
    match report.trim() {
        READY => {
            println!("knarr runs in the background (process {}); its log is {}", child.id(), layout.log().display());
            Ok(())
        }
        "" => bail!("the background process ended without a word; see {}", layout.log().display()),
        error => bail!("{error}"),
    }
}

/// The background process's side of the pipe.
pub struct Report(Option<File>);

impl Report {
    /// The pipe that this process was started with, or none in the foreground.
    pub fn from_environment() -> Report {
        let number = std::env::var(REPORT_VARIABLE).ok().and_then(|n| n.parse::<i32>().ok());
        // SAFETY: the parent opened this descriptor for this process alone, and nothing else here uses it.
        let file = number.map(|fd| File::from(unsafe { OwnedFd::from_raw_fd(fd) }));
        if let Some(file) = &file {
            // Children (containerd, its shims) must not hold the pipe open.
            let _ = fcntl(file, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
        }
        Report(file)
    }

    pub fn ready(&mut self) {
        self.say(READY);
    }

    /// One line saying why there will be no cluster.
    pub fn failed(&mut self, error: &str) {
        self.say(&error.replace('\n', " "));
    }

    fn say(&mut self, line: &str) {
        if let Some(mut file) = self.0.take() {
            let _ = writeln!(file, "{line}");
        }
    }
}
