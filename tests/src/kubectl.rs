use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Once;

use anyhow::{Context, Result, bail};

/// kubectl pointed at one cluster.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

/// The newest kubectl on the PATH (`kubectl.1.33` before `kubectl`), or the one that `$KUBECTL` names.
pub fn kubectl_path() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("KUBECTL") {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH")?;
    let directories: Vec<PathBuf> = std::env::split_paths(&path)
        .filter_map(|d| {
            let program = d.join("kubectl");
            // A link leads to a folder that may hold several versions side by side.
            program.canonicalize().ok()?.parent().map(Path::to_path_buf)
        })
        .collect();
    let versioned = (30..40).rev().map(|minor| format!("kubectl.1.{minor}"));
    let names = versioned.chain(["kubectl".to_string()]);
    names.flat_map(|name| directories.iter().map(move |d| d.join(&name)).collect::<Vec<_>>()).find(|p| p.is_file())
}

impl Kubectl {
    pub fn new(kubeconfig: &Path) -> Option<Kubectl> {
        static SAY: Once = Once::new();
        let program = kubectl_path();
        if program.is_none() {
            SAY.call_once(|| eprintln!("no kubectl on the PATH: the tests that drive it are skipped"));
        }
        Some(Kubectl { program: program?, kubeconfig: kubeconfig.to_path_buf() })
    }

    /// The command, not yet started, with a home of its own so that no cache outlives the cluster.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        let home = self.kubeconfig.parent().unwrap_or(Path::new("/"));
        command.env("KUBECONFIG", &self.kubeconfig).env("HOME", home).env("KUBE_EDITOR", "true").args(arguments);
        command
    }

    /// What it printed; an error with its complaint if it failed.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments, None)?;
        if !output.status.success() {
            bail!("kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// As [`Kubectl::run`] with this text on standard input.
    pub fn run_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let output = self.output(arguments, Some(input))?;
        if !output.status.success() {
            bail!("kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What it complained of; an error if it succeeded.
    pub fn refused(&self, arguments: &[&str], input: Option<&str>) -> Result<String> {
        let output = self.output(arguments, input)?;
        if output.status.success() {
            bail!(
                "kubectl {} should have been refused: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stdout)
            );
        }
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn output(&self, arguments: &[&str], input: Option<&str>) -> Result<Output> {
        let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
        let mut child = self
            .command(arguments)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("kubectl")?;
        if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
            pipe.write_all(input.as_bytes())?;
        }
        Ok(child.wait_with_output()?)
    }
}
