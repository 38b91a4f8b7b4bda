use std::process::{Child, Command, Stdio};

use anyhow::Result;
use tempfile::TempDir;

use crate::cluster::free_port;

/// An etcd server of one test; ends with it.
pub struct EtcdServer {
    process: Child,
    port: u16,
    _directory: TempDir,
}

impl EtcdServer {
    /// `None`, said aloud, where the machine has no etcd.
    pub fn start() -> Result<Option<EtcdServer>> {
        let directory = TempDir::with_prefix("knarr-etcd-")?;
        let port = free_port();
        let url = format!("http://127.0.0.1:{port}");
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(directory.path().join("etcd"))
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", "http://127.0.0.1:0", "--log-level", "error"])
            // A test's data need not survive the machine.
            .arg("--unsafe-no-fsync")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match process {
            Ok(process) => Ok(Some(EtcdServer { process, port, _directory: directory })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("skipped: no etcd on the PATH; scripts/setup test installs it");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What `knarr up` is told.
    pub fn flag(&self) -> String {
        format!("--store=etcd://127.0.0.1:{}", self.port)
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
