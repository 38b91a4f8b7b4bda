//! Sessions at a terminal as tests: a file of commands with what they must print, run by a shell in a namespace of its own.
//!
//! ```text
//! # a comment
//! $ kubectl create configmap a --from-literal=x=[..]
//! configmap/a created
//! ~ kubectl get pod b -ojsonpath={.status.phase}
//! Running
//! ```
//!
//! `$` runs a command once; `~` runs it again and again until it prints what follows. Lines that begin with `> ` continue the command.
//! What it prints is standard output and standard error together. `[..]` stands for anything within a line, a line `...` for any lines.
//! Two spaces stand for two or more: how wide a column of a table is depends on how old the oldest of its objects is.
//! Commands find `kubectl`, set to the session's namespace, which is also in `$NS`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::{Cluster, eventually, kubectl_path};

/// How long a `~` command may take to print what it must; a slow machine starts a pod in many seconds.
const PATIENCE: Duration = Duration::from_secs(90);

/// A session to run.
#[derive(Clone, Debug)]
pub struct Transcript {
    pub name: String,
    text: String,
}

#[derive(Debug, PartialEq, Eq)]
struct Step {
    line: usize,
    command: String,
    repeats: bool,
    prints: Vec<String>,
}

impl Transcript {
    /// Every `.txt` of a directory, by name.
    pub fn all(directory: &Path) -> Result<Vec<Transcript>> {
        let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
        files.sort();
        let read = |path: &PathBuf| -> Result<Transcript> {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            Ok(Transcript { name, text: fs::read_to_string(path)? })
        };
        files.iter().map(read).collect()
    }

    /// Runs the session against a cluster, in a new namespace that is deleted afterwards. `environment` is for its commands.
    pub fn run(&self, cluster: &Cluster, environment: &[(&str, String)]) -> Result<()> {
        let session = Session::begin(cluster, &self.name, environment)?;
        let outcome = steps(&self.text)?.iter().try_for_each(|step| session.take(step));
        session.end();
        outcome
    }
}

fn steps(text: &str) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let begins = ["$ ", "~ "].into_iter().find_map(|mark| Some((mark, line.strip_prefix(mark)?)));
        match (begins, steps.last_mut()) {
            (Some((mark, command)), _) => {
                let (command, repeats) = (command.to_string(), mark == "~ ");
                steps.push(Step { line: number + 1, command, repeats, prints: Vec::new() });
            }
            (None, _) if line.starts_with("# ") || line == "#" => {}
            (None, None) => ensure!(line.is_empty(), "line {}: no command yet", number + 1),
            (None, Some(step)) => match line.strip_prefix("> ").or((line == ">").then_some("")) {
                Some(more) if step.prints.is_empty() => {
                    step.command.push('\n');
                    step.command.push_str(more);
                }
                _ => step.prints.push(line.to_string()),
            },
        }
    }
    for step in &mut steps {
        // A blank line before the next command is for the reader.
        while step.prints.last().is_some_and(String::is_empty) {
            step.prints.pop();
        }
    }
    Ok(steps)
}

struct Session<'a> {
    environment: &'a [(&'a str, String)],
    directory: tempfile::TempDir,
    namespace: String,
    path: std::ffi::OsString,
}

impl<'a> Session<'a> {
    fn begin(cluster: &Cluster, name: &str, environment: &'a [(&'a str, String)]) -> Result<Session<'a>> {
        let directory = tempfile::tempdir()?;
        let bin = directory.path().join("bin");
        fs::create_dir(&bin)?;
        std::os::unix::fs::symlink(kubectl_path().context("no kubectl on the PATH")?, bin.join("kubectl"))?;
        fs::copy(cluster.kubeconfig(), directory.path().join("kubeconfig"))?;
        let mut path = bin.into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let session = Session { environment, directory, namespace: name.replace('_', "-"), path };
        session.shell("kubectl create namespace $NS && kubectl config set-context --current --namespace=$NS")?;
        // Pods need the namespace's service account.
        eventually("the service account", PATIENCE, || {
            let found = session.shell("kubectl get serviceaccount default -oname")?;
            ensure!(found == "serviceaccount/default\n", "{found}");
            Ok(())
        })?;
        Ok(session)
    }

    fn take(&self, step: &Step) -> Result<()> {
        let look = || {
            let printed = self.shell(&step.command)?;
            let lines: Vec<&str> = printed.lines().map(str::trim_end).collect();
            let lines = &lines[..lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1)];
            if !lines_match(&step.prints, lines) {
                bail!(
                    "line {}: {}\n--- must print\n{}\n--- printed\n{printed}",
                    step.line,
                    step.command,
                    step.prints.join("\n")
                );
            }
            Ok(())
        };
        if step.repeats { eventually("a session", PATIENCE, look) } else { look() }
    }

    fn shell(&self, command: &str) -> Result<String> {
        let home = self.directory.path();
        let output = Command::new("sh")
            .args(["-c", &format!("exec 2>&1\n{command}")])
            .current_dir(home)
            .env("PATH", &self.path)
            .env("KUBECONFIG", home.join("kubeconfig"))
            .env("HOME", home)
            .env("NS", &self.namespace)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .output()?;
        Ok(without_noise(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Lets the namespace go without waiting: the next session has its own.
    fn end(&self) {
        if let Err(error) = self.shell("kubectl delete namespace $NS --wait=false") {
            eprintln!("deleting a session's namespace: {error:#}");
        }
    }
}

/// Without the line by which kubectl says that the empty first message of a stream came before it looked for any.
fn without_noise(printed: &str) -> String {
    let is_noise = |line: &str| line.contains("websocket.go") && line.contains("Unknown stream id");
    printed.split_inclusive('\n').filter(|line| !is_noise(line)).collect()
}

fn lines_match(wanted: &[String], lines: &[&str]) -> bool {
    let Some((first, rest)) = wanted.split_first() else { return lines.is_empty() };
    if first == "..." {
        return (0..=lines.len()).any(|skipped| lines_match(rest, &lines[skipped..]));
    }
    let Some((line, others)) = lines.split_first() else { return false };
    line_matches(&with_narrow_gaps(first.trim_end()), &with_narrow_gaps(line)) && lines_match(rest, others)
}

/// With two spaces for every run of more.
fn with_narrow_gaps(line: &str) -> String {
    let mut narrow = String::with_capacity(line.len());
    for character in line.chars() {
        if character != ' ' || !narrow.ends_with("  ") {
            narrow.push(character);
        }
    }
    narrow
}

fn line_matches(wanted: &str, line: &str) -> bool {
    match wanted.split_once("[..]") {
        None => wanted == line,
        Some((before, after)) => line.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| line_matches(after, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcript_is_commands_and_what_they_print() {
        let text = "# why\n$ cat <<E\n> a\n> E\na\n\n~ date\n[..]day\n...\nend\n";
        let steps = steps(text).expect("well formed");
        assert_eq!(steps[0].command, "cat <<E\na\nE");
        assert_eq!((steps[0].prints.as_slice(), steps[0].repeats), (["a".to_string()].as_slice(), false));
        assert_eq!((steps[1].line, steps[1].repeats), (7, true));
        for (printed, matches) in [
            (["a sunday", "end"].as_slice(), true),
            (&["monday", "x", "y", "end"], true),
            (&["monday", "x"], false),
            (&["mon", "end"], false),
        ] {
            assert_eq!(lines_match(&steps[1].prints, printed), matches, "{printed:?}");
        }
    }

    #[test]
    fn columns_are_as_wide_as_they_need_to_be() {
        let wanted = ["NAME   AGE   LABELS", "one    [..]    a=b"].map(String::from);
        for (printed, matches) in [
            (["NAME   AGE   LABELS", "one    0s    a=b"], true),
            (["NAME   AGE    LABELS", "one    115s   a=b"], true),
            (["NAME AGE LABELS", "one    0s    a=b"], false),
            (["NAME   AGE   LABELS", "one    0s a=b"], false),
        ] {
            assert_eq!(lines_match(&wanted, &printed), matches, "{printed:?}");
        }
    }
}
