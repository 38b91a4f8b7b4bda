//! An etcd server of a test's own. Tests of other crates take this file in by its path: below them stands no crate that could have it.
#![allow(dead_code)] // Not every test binary uses all of it.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// Ends with the test.
pub struct EtcdServer {
    process: Child,
    port: u16,
    directory: TempDir,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

fn spawn(directory: &TempDir, port: u16) -> std::io::Result<Child> {
    let url = format!("http://127.0.0.1:{port}");
    Command::new("etcd")
        .arg("--data-dir")
        .arg(directory.path().join("etcd"))
        .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
        .args(["--listen-peer-urls", "http://127.0.0.1:0", "--log-level", "error"])
        // A test's data need not survive the machine.
        .arg("--unsafe-no-fsync")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

impl EtcdServer {
    /// `None`, said aloud, where the machine has no etcd.
    pub fn start() -> Option<EtcdServer> {
        let (directory, port) = (TempDir::with_prefix("knarr-etcd-").expect("a temporary directory"), free_port());
        match spawn(&directory, port) {
            Ok(process) => Some(EtcdServer { process, port, directory }),
            Err(error) => {
                eprintln!("skipped: etcd cannot be started ({error}); scripts/setup test installs it");
                None
            }
        }
    }

    /// `host:port`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// As a crash, and a start some time later.
    pub fn kill_and_start_again(&mut self) {
        self.kill();
        self.process = spawn(&self.directory, self.port).expect("etcd starts again");
    }

    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        self.kill();
    }
}
