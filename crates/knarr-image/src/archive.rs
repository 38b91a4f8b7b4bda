use std::io::Write;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::Header;

use crate::layer::gzip;
use crate::{Error, Layer};

/// How a container of an image starts.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    /// `NAME=value`
    pub environment: Vec<String>,
    /// `uid[:gid]` or a name; empty for root.
    pub user: String,
    pub working_directory: String,
}

/// An image with its names.
pub struct Image {
    /// Full references, such as `registry.k8s.io/pause:3.10.2`.
    pub names: Vec<String>,
    pub layers: Vec<Layer>,
    pub config: Config,
}

struct Blob {
    digest: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        Blob { digest: digest(&bytes), bytes }
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": format!("sha256:{}", self.digest), "size": self.bytes.len()})
    }
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Image {
    /// Writes the image as a tar archive in the OCI image layout.
    pub fn write(&self, out: impl Write) -> Result<(), Error> {
        let mut layers = Vec::new();
        let mut diff_ids = Vec::new();
        for layer in &self.layers {
            let tar = layer.tar()?;
            diff_ids.push(format!("sha256:{}", digest(&tar)));
            layers.push(Blob::new(gzip(&tar)?));
        }
        let config = Blob::new(self.config_document(&diff_ids));
        let manifest = Blob::new(manifest_document(&config, &layers));
        let index = self.index_document(&manifest);

        let mut builder = tar::Builder::new(out);
        append(&mut builder, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append(&mut builder, "index.json", &index)?;
        for blob in layers.iter().chain([&config, &manifest]) {
            append(&mut builder, &format!("blobs/sha256/{}", blob.digest), &blob.bytes)?;
        }
        builder.into_inner().and_then(|mut out| out.flush()).map_err(Error::io("archive"))
    }

    fn config_document(&self, diff_ids: &[String]) -> Vec<u8> {
        let c = &self.config;
        let history: Vec<Value> = diff_ids.iter().map(|_| json!({"created_by": "knarr"})).collect();
        let document = json!({
            "architecture": architecture(), "os": "linux", "created": "1970-01-01T00:00:00Z",
            "config": {"Entrypoint": c.entrypoint, "Cmd": c.command, "Env": c.environment, "User": c.user,
                "WorkingDir": c.working_directory},
            "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": history,
        });
        document.to_string().into_bytes()
    }

    fn index_document(&self, manifest: &Blob) -> Vec<u8> {
        let named = |name: &String| {
            let mut descriptor = manifest.descriptor("application/vnd.oci.image.manifest.v1+json");
            descriptor["platform"] = json!({"architecture": architecture(), "os": "linux"});
            descriptor["annotations"] =
                json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name});
            descriptor
        };
        let manifests: Vec<Value> = self.names.iter().map(named).collect();
        json!({"schemaVersion": 2, "manifests": manifests}).to_string().into_bytes()
    }
}

fn manifest_document(config: &Blob, layers: &[Blob]) -> Vec<u8> {
    let layers: Vec<Value> =
        layers.iter().map(|l| l.descriptor("application/vnd.oci.image.layer.v1.tar+gzip")).collect();
    let document = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor("application/vnd.oci.image.config.v1+json"), "layers": layers,
    });
    document.to_string().into_bytes()
}

/// The architecture as OCI names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn append(builder: &mut tar::Builder<impl Write>, path: &str, bytes: &[u8]) -> Result<(), Error> {
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_size(bytes.len() as u64);
    builder.append_data(&mut header, path, bytes).map_err(Error::io(path))
}
