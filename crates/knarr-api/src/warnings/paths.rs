//! Files of one volume that get into each other's way: the same path twice, or one below another.

use serde_json::Value;

use crate::validation::check::{has, list, text};

/// A file's path, and which source of the volume it is of.
struct File<'v> {
    path: &'v str,
    source: String,
}

impl std::fmt::Display for File<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.source.as_str() {
            "" => write!(f, "{:?}", self.path),
            source => write!(f, "{:?} ({source})", self.path),
        }
    }
}

impl File<'_> {
    fn collides(&self, other: &File<'_>) -> bool {
        let below = |one: &str, other: &str| other.strip_prefix(one).is_some_and(|rest| rest.starts_with('/'));
        let (one, other) = (self.path, other.path);
        !one.is_empty() && !other.is_empty() && (one == other || below(one, other) || below(other, one))
    }
}

/// The files compared with each other in a volume; more would take longer than they are worth.
const COMPARED: usize = 512;

pub(super) fn overlapping(out: &mut Vec<String>, spec: &Value) {
    for volume in list(spec, "volumes") {
        let name = text(volume, "name");
        for (field, kind, named) in [
            ("configMap", "ConfigMap", Some("name")),
            ("secret", "Secret", Some("secretName")),
            ("downwardAPI", "DownwardAPI", None),
        ] {
            let source = &volume[field];
            let shown = named.map_or(kind.to_string(), |named| format!("{kind} {:?}", text(source, named)));
            collisions(out, name, &shown, items(source, ""));
        }
        let mut files = Vec::new();
        for source in list(&volume["projected"], "sources") {
            match source.as_object().is_none_or(serde_json::Map::is_empty) {
                true => out.push(format!("volume {name:?} (Projected) has no sources provided")),
                false => files.extend(projected(source)),
            }
        }
        collisions(out, name, "Projected", files);
    }
}

fn collisions(out: &mut Vec<String>, volume: &str, kind: &str, mut files: Vec<File<'_>>) {
    files.truncate(COMPARED);
    files.iter_mut().for_each(|file| file.path = file.path.trim_end_matches('/'));
    for (i, file) in files.iter().enumerate() {
        for other in files[..i].iter().filter(|other| file.collides(other)) {
            out.push(format!("volume {volume:?} ({kind}): overlapping paths: {file} with {other}"));
        }
    }
}

fn items<'v>(holder: &'v Value, source: &str) -> Vec<File<'v>> {
    list(holder, "items").iter().map(|item| File { path: text(item, "path"), source: source.to_string() }).collect()
}

/// The files of a projected volume's source.
fn projected(source: &Value) -> Vec<File<'_>> {
    let one = |path, source: String| vec![File { path, source }];
    for (field, kind) in [("configMap", "ConfigMap"), ("secret", "Secret")] {
        if has(&source[field], "items") {
            return items(&source[field], &format!("{kind} {:?}", text(&source[field], "name")));
        }
    }
    if has(&source["downwardAPI"], "items") {
        return items(&source["downwardAPI"], "DownwardAPI");
    }
    if has(source, "serviceAccountToken") {
        return one(text(&source["serviceAccountToken"], "path"), "ServiceAccountToken".into());
    }
    if has(source, "clusterTrustBundle") {
        let bundle = &source["clusterTrustBundle"];
        let name = if has(bundle, "name") { text(bundle, "name") } else { text(bundle, "signerName") };
        return one(text(bundle, "path"), format!("ClusterTrustBundle {name:?}"));
    }
    let parts = [
        ("certificateChainPath", "PodCertificate chain"),
        ("keyPath", "PodCertificate key"),
        ("credentialBundlePath", "PodCertificate credential bundle"),
    ];
    let certificate = &source["podCertificate"];
    let given = parts.into_iter().filter(|(field, _)| !text(certificate, field).is_empty());
    given.map(|(field, kind)| File { path: text(certificate, field), source: kind.to_string() }).collect()
}
