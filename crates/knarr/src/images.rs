//! `knarr images`: what the node's runtime has, and loading archives into it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use knarr_cri::{ImageService, RemoteRuntime};
use tokio::process::Command;

use crate::cli::{Images, ImagesAction};
use crate::containerd::find_program;
use crate::layout::Layout;

/// The containerd namespace that its CRI plug-in uses.
const NAMESPACE: &str = "k8s.io";
const IMPORT_ATTEMPTS: usize = 10;
/// How long the CRI side of containerd may take to learn of an image.
const EVENT_LIMIT: Duration = Duration::from_millis(500);

pub async fn run(images: Images) -> Result<()> {
    let layout = Layout::new(&std::path::absolute(&images.data_dir)?);
    let socket = runtime_socket(&layout)?;
    match images.action {
        Some(ImagesAction::Load { archives }) => load_all(&socket, &archives).await,
        Some(ImagesAction::List) | None => list(&socket).await,
    }
}

/// The socket that the last `up` used.
pub fn runtime_socket(layout: &Layout) -> Result<PathBuf> {
    let socket: PathBuf = match fs::read_to_string(layout.runtime_note()) {
        Ok(note) => note.trim().into(),
        Err(_) => {
            bail!("no cluster has been started with --data-dir {}: run `knarr up` first", layout.root().display())
        }
    };
    if !socket.exists() {
        bail!("the node's runtime does not run (no socket {}): run `knarr up` first", socket.display());
    }
    Ok(socket)
}

async fn load_all(socket: &Path, archives: &[PathBuf]) -> Result<()> {
    for archive in archives {
        if !archive.is_file() {
            bail!("{}: no such archive", archive.display());
        }
        for name in load(socket, archive).await? {
            println!("loaded {name}");
        }
    }
    Ok(())
}

/// Puts one archive into the runtime and returns the names it brought, once the runtime shows them.
///
/// The CRI side of containerd learns of an image by an event, and one that comes while it is still starting is lost: then
/// importing again makes another.
async fn load(socket: &Path, archive: &Path) -> Result<Vec<String>> {
    let runtime = RemoteRuntime::new(&socket.display().to_string())?;
    for _ in 0..IMPORT_ATTEMPTS {
        let names = import(socket, archive).await?;
        if shown(&runtime, &names).await? {
            return Ok(names);
        }
    }
    bail!("{}: imported, but the runtime does not show it", archive.display())
}

/// Whether the runtime shows every one of these images, now or in a moment.
async fn shown(runtime: &RemoteRuntime, names: &[String]) -> Result<bool> {
    let started = Instant::now();
    while started.elapsed() < EVENT_LIMIT {
        let mut all = true;
        for name in names {
            all &= runtime.image_status(name).await?.is_some();
        }
        if all {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(false)
}

async fn import(socket: &Path, archive: &Path) -> Result<Vec<String>> {
    let ctr = find_program("ctr").context("ctr is not installed: it comes with the package containerd")?;
    let output = Command::new(ctr)
        .arg("--address")
        .arg(socket)
        .args(["--namespace", NAMESPACE, "images", "import", "--snapshotter", snapshotter(socket)])
        .arg(archive)
        .output()
        .await?;
    if !output.status.success() {
        bail!("{}: {}", archive.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let name = |line: &str| line.strip_prefix("unpacking ").and_then(|l| l.split(' ').next()).map(str::to_string);
    Ok(text.lines().filter_map(name).collect())
}

/// The snapshotter that the private containerd was configured with; containerd's default for another.
fn snapshotter(socket: &Path) -> &'static str {
    let config = socket.with_file_name("config.toml");
    match fs::read_to_string(config) {
        Ok(text) if text.contains("snapshotter = \"native\"") => "native",
        _ => "overlayfs",
    }
}

async fn list(socket: &Path) -> Result<()> {
    let runtime = RemoteRuntime::new(&socket.display().to_string())?;
    let mut rows: Vec<(String, String, u64)> = Vec::new();
    for image in runtime.list_images().await? {
        let id = image.id.trim_start_matches("sha256:").chars().take(12).collect::<String>();
        rows.extend(image.repo_tags.iter().map(|tag| (tag.clone(), id.clone(), image.size)));
    }
    rows.sort();
    let width = rows.iter().map(|row| row.0.len()).chain([5]).max().unwrap_or_default();
    println!("{:width$}  {:12}  SIZE", "IMAGE", "ID");
    for (name, id, size) in rows {
        println!("{name:width$}  {id:12}  {}", human_size(size));
    }
    Ok(())
}

fn human_size(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes}B") } else { format!("{value:.1}{}", units[unit]) }
}

/// Sees to it that the runtime has the pause image, from the copy carried inside.
pub async fn ensure_pause(layout: &Layout, socket: &Path) -> Result<()> {
    let runtime = RemoteRuntime::new(&socket.display().to_string())?;
    if runtime.image_status(knarr_image::PAUSE_IMAGE).await?.is_some() {
        return Ok(());
    }
    let archive = layout.root().join("pause.tar");
    knarr_image::pause().write(File::create(&archive)?)?;
    load(socket, &archive).await.context("loading the pause image")?;
    fs::remove_file(&archive)?;
    Ok(())
}
