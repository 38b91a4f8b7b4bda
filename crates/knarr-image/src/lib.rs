//! OCI image archives, written from files at hand: the pause image that Knarr carries inside, and the images of its demo and
//! tests, which a machine without a registry has no other way to get.
//!
//! An archive is an OCI image layout (image-spec 1.1) in a tar file, as `ctr images import`, `podman load` and
//! `knarr images load` read it. The same input gives the same bytes: nothing in it tells when or where it was made.

mod archive;
mod layer;

pub use archive::{Config, Image};
pub use layer::{Entry, Layer};

/// The pause executable for this machine's architecture.
pub const PAUSE_EXECUTABLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));

/// The name under which a sandbox asks for the pause image.
pub const PAUSE_IMAGE: &str = "registry.k8s.io/pause:3.10.2";

/// Why an archive could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }
}

/// The pause image.
pub fn pause() -> Image {
    let mut layer = Layer::default();
    layer.push(Entry::file("pause", PAUSE_EXECUTABLE.to_vec(), 0o755));
    Image {
        names: vec![PAUSE_IMAGE.into()],
        layers: vec![layer],
        config: Config { entrypoint: vec!["/pause".into()], user: "65535:65535".into(), ..Config::default() },
    }
}
