//! A registry of images on this machine's loopback: Debian's docker-registry over plain HTTP, with or without a password.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{eventually, free_port};

/// User and password of a registry that asks for one.
pub const USER: &str = "knarr";
pub const PASSWORD: &str = "secret";
/// The password as bcrypt keeps it.
const PASSWORD_HASH: &str = "$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";
const LIMIT: Duration = Duration::from_secs(20);

/// A running registry; dropped, it ends.
pub struct Registry {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Registry {
    /// Starts a registry that has the image of an OCI archive as `NAME:1`; `None`, said aloud, where docker-registry is not installed.
    pub fn start(archive: &Path, name: &str, with_password: bool) -> Result<Option<Registry>> {
        let directory = tempfile::tempdir()?;
        let port = free_port();
        fill(&directory.path().join("data"), archive, name)?;
        let config = configuration(directory.path(), port, with_password)?;
        let spawned = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match spawned {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("docker-registry is not installed: pulling from a registry is not tested");
                return Ok(None);
            }
            Err(error) => return Err(error).context("docker-registry"),
        };
        let registry = Registry { child, port, _directory: directory };
        eventually("docker-registry listens", LIMIT, || Ok(TcpStream::connect(("127.0.0.1", port)).map(drop)?))?;
        Ok(Some(registry))
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(directory: &Path, port: u16, with_password: bool) -> Result<PathBuf> {
    let mut config = json!({
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": directory.join("data")}},
        "http": {"addr": format!("127.0.0.1:{port}")},
    });
    if with_password {
        let passwords = directory.join("htpasswd");
        fs::write(&passwords, format!("{USER}:{PASSWORD_HASH}\n"))?;
        config["auth"] = json!({"htpasswd": {"realm": "tests", "path": passwords}});
    }
    // YAML has JSON in it.
    let path = directory.join("config.yml");
    fs::write(&path, config.to_string())?;
    Ok(path)
}

/// Lays an archive's image out as the registry keeps images, so that nothing has to be pushed.
fn fill(data: &Path, archive: &Path, name: &str) -> Result<()> {
    let unpacked = tempfile::tempdir()?;
    let status = Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(unpacked.path()).status()?;
    ensure!(status.success(), "unpacking {}", archive.display());
    let read = |path: PathBuf| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
    let blob = |digest: &str| unpacked.path().join("blobs").join(digest.replace(':', "/"));
    let index = read(unpacked.path().join("index.json"))?;
    let manifest = digest_of(&index["manifests"][0])?;
    let described = read(blob(&manifest))?;
    let root = data.join("docker/registry/v2");
    let repository = root.join("repositories").join(name);
    let link = |place: String, digest: &str| -> Result<()> {
        let file = repository.join(place).join("link");
        fs::create_dir_all(file.parent().context("a link is in a directory")?)?;
        Ok(fs::write(file, digest)?)
    };
    let under = |digest: &str| digest.replace(':', "/");
    let layers = described["layers"].as_array().context("a manifest has layers")?.iter();
    let parts: Vec<String> = layers.chain([&described["config"]]).map(digest_of).collect::<Result<_>>()?;
    for digest in parts.iter().chain([&manifest]) {
        let hex = digest.trim_start_matches("sha256:");
        let place = root.join("blobs/sha256").join(&hex[..2]).join(hex);
        fs::create_dir_all(&place)?;
        fs::copy(blob(digest), place.join("data"))?;
    }
    for digest in &parts {
        link(format!("_layers/{}", under(digest)), digest)?;
    }
    link(format!("_manifests/revisions/{}", under(&manifest)), &manifest)?;
    link("_manifests/tags/1/current".into(), &manifest)?;
    link(format!("_manifests/tags/1/index/{}", under(&manifest)), &manifest)
}

fn digest_of(described: &Value) -> Result<String> {
    described["digest"].as_str().map(str::to_string).context("a descriptor has a digest")
}
