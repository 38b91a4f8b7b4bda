use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};

use crate::Error;

/// One file, folder or link of a layer.
pub struct Entry {
    path: String,
    mode: u32,
    content: Content,
}

enum Content {
    File(Vec<u8>),
    Directory,
    Link(String),
}

impl Entry {
    /// A regular file with these bytes; `path` has no leading slash.
    pub fn file(path: impl Into<String>, bytes: Vec<u8>, mode: u32) -> Self {
        Entry { path: path.into(), mode, content: Content::File(bytes) }
    }

    /// A regular file with the bytes of `source`.
    pub fn copy(path: impl Into<String>, source: &Path, mode: u32) -> Result<Self, Error> {
        let bytes = std::fs::read(source).map_err(Error::io(source.display().to_string()))?;
        Ok(Self::file(path, bytes, mode))
    }

    pub fn directory(path: impl Into<String>, mode: u32) -> Self {
        Entry { path: path.into(), mode, content: Content::Directory }
    }

    /// A symbolic link.
    pub fn link(path: impl Into<String>, target: impl Into<String>) -> Self {
        Entry { path: path.into(), mode: 0o777, content: Content::Link(target.into()) }
    }
}

/// A layer of an image: its entries, in order.
#[derive(Default)]
pub struct Layer {
    entries: Vec<Entry>,
}

impl Layer {
    pub fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// The layer as an uncompressed tar stream, owned by root and dated at the epoch.
    pub(crate) fn tar(&self) -> Result<Vec<u8>, Error> {
        let mut builder = tar::Builder::new(Vec::new());
        for entry in &self.entries {
            append(&mut builder, entry).map_err(Error::io(entry.path.as_str()))?;
        }
        builder.into_inner().map_err(Error::io("layer"))
    }
}

fn append(builder: &mut tar::Builder<Vec<u8>>, entry: &Entry) -> std::io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(entry.mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    match &entry.content {
        Content::File(bytes) => {
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, &entry.path, bytes.as_slice())
        }
        Content::Directory => {
            header.set_entry_type(EntryType::Directory);
            header.set_size(0);
            builder.append_data(&mut header, &entry.path, std::io::empty())
        }
        Content::Link(target) => {
            header.set_entry_type(EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, &entry.path, target)
        }
    }
}

/// `bytes` in gzip, fastest level: an archive is unpacked a moment after it is written.
pub(crate) fn gzip(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).map_err(Error::io("layer"))?;
    encoder.finish().map_err(Error::io("layer"))
}
