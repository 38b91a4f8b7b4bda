//! Volumes of pods, and the sources they share with persistent volumes.

use serde_json::Value;

use super::check::{Checker, entries, flag, has, int, is_empty, list, quantity, repeated_text, text};
use super::{metadata, persistent};
use crate::names;
use crate::quantity::Quantity;

/// The volumes of a pod; only validly named ones can be mounted.
pub fn validate_volumes<'a>(c: &mut Checker, spec: &'a Value, pod: &str) -> Vec<&'a Value> {
    let volumes = list(spec, "volumes");
    let mut valid = vec![false; volumes.len()];
    let repeated = repeated_text(volumes, "name");
    c.each_indexed(spec, "volumes", |c, i, volume| {
        let errors_before = c.error_count();
        validate_source(c, volume);
        let name = text(volume, "name");
        if has(volume, "ephemeral") && !name.is_empty() && !pod.is_empty() {
            names_a_claim(c, name, &format!("{pod}-{name}"));
        }
        if name.is_empty() {
            c.required("name", "");
        } else {
            let before = c.error_count();
            c.rule("name", name, names::dns_label);
            if c.error_count() == before && repeated[i] {
                c.duplicate("name", &name.into());
            }
        }
        valid[i] = c.error_count() == errors_before;
    });
    volumes.iter().zip(valid).filter(|(_, valid)| *valid).map(|(volume, _)| volume).collect()
}

/// The claim that is made for an ephemeral volume.
fn names_a_claim(c: &mut Checker, volume: &str, claim: &str) {
    for message in names::dns_subdomain(claim) {
        c.invalid_text("name", volume, format!("PVC name {claim:?}: {message}"));
    }
}

type SourceCheck = fn(&mut Checker, &Value);

/// Every source a pod's volume may have, in the order upstream looks for them.
const SOURCES: &[(&str, SourceCheck)] = &[
    ("emptyDir", empty_dir),
    ("hostPath", host_path),
    ("gitRepo", git_repo),
    ("gcePersistentDisk", gce_disk),
    ("awsElasticBlockStore", aws_disk),
    ("secret", secret),
    ("nfs", nfs),
    ("iscsi", iscsi),
    ("glusterfs", glusterfs),
    ("flocker", flocker),
    ("persistentVolumeClaim", claim),
    ("rbd", rbd),
    ("cinder", cinder),
    ("cephfs", cephfs),
    ("quobyte", quobyte),
    ("downwardAPI", downward_api),
    ("fc", fibre_channel),
    ("flexVolume", flex),
    ("configMap", config_map),
    ("azureFile", azure_file),
    ("vsphereVolume", |c, v| c.need(v, "volumePath")),
    ("photonPersistentDisk", |c, v| c.need(v, "pdID")),
    ("portworxVolume", |c, v| c.need(v, "volumeID")),
    ("azureDisk", azure_disk),
    ("storageos", |_, _| {}),
    ("projected", projected),
    ("scaleIO", scale_io),
    ("csi", csi),
    ("ephemeral", ephemeral),
    ("image", image),
];

fn validate_source(c: &mut Checker, volume: &Value) {
    let mut found = 0;
    for (name, check) in SOURCES {
        if !has(volume, name) {
            continue;
        }
        found += 1;
        if found > 1 {
            c.forbidden(name, "may not specify more than 1 volume type");
        } else {
            c.at(volume, name, check);
        }
    }
    if found == 0 {
        c.required("", "must specify a volume type");
    }
}

fn empty_dir(c: &mut Checker, v: &Value) {
    if has(v, "sizeLimit") && quantity(&v["sizeLimit"]) < Quantity::ZERO {
        c.forbidden("sizeLimit", "SizeLimit field must be a valid resource quantity");
    }
}

/// Zero is the whole disk; who is told of the others is told nothing of it.
fn partition(c: &mut Checker, v: &Value) {
    if int(v, "partition").is_some_and(|n| !(0..=255).contains(&n)) {
        c.invalid("partition", &v["partition"], "must be between 1 and 255, inclusive");
    }
}

/// `hostPath`, also of persistent volumes.
pub fn host_path(c: &mut Checker, v: &Value) {
    if text(v, "path").is_empty() {
        c.required("path", "");
        return;
    }
    no_backsteps(c, v, "path");
    const TYPES: &[&str] =
        &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    c.optional_choice(v, "type", TYPES);
}

/// A path may not climb.
pub fn no_backsteps(c: &mut Checker, v: &Value, field: &str) {
    let path = text(v, field);
    if path.split('/').any(|part| part == "..") {
        c.invalid_text(field, path, "must not contain '..'");
    }
}

/// A path must stay below where it starts.
pub fn descending_path(c: &mut Checker, field: &str, path: &str) {
    if path.starts_with('/') {
        c.invalid_text(field, path, "must be a relative path");
    }
    if path.split('/').any(|part| part == "..") {
        c.invalid_text(field, path, "must not contain '..'");
    }
}

/// A file's place in a volume: as [`descending_path`], and not in the reserved `..` names.
fn non_reserved_path(c: &mut Checker, field: &str, path: &str) {
    descending_path(c, field, path);
    if path.starts_with("..") && !path.split('/').any(|part| part == "..") {
        c.invalid_text(field, path, "must not start with '..'");
    }
}

fn git_repo(c: &mut Checker, v: &Value) {
    c.need(v, "repository");
    descending_path(c, "directory", text(v, "directory"));
}

pub fn gce_disk(c: &mut Checker, v: &Value) {
    c.need(v, "pdName");
    partition(c, v);
}

pub fn aws_disk(c: &mut Checker, v: &Value) {
    c.need(v, "volumeID");
    partition(c, v);
}

fn mode(c: &mut Checker, v: &Value, field: &str) {
    if int(v, field).is_some_and(|m| !(0..=0o777).contains(&m)) {
        c.invalid(field, &v[field], "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

fn key_to_path(c: &mut Checker, item: &Value) {
    c.need(item, "key");
    match text(item, "path") {
        "" => c.required("path", ""),
        path => non_reserved_path(c, "path", path),
    }
    mode(c, item, "mode");
}

fn secret(c: &mut Checker, v: &Value) {
    c.need(v, "secretName");
    mode(c, v, "defaultMode");
    c.each(v, "items", key_to_path);
}

fn config_map(c: &mut Checker, v: &Value) {
    c.need(v, "name");
    mode(c, v, "defaultMode");
    c.each(v, "items", key_to_path);
}

pub fn nfs(c: &mut Checker, v: &Value) {
    c.need(v, "server");
    c.need(v, "path");
    if !text(v, "path").starts_with('/') {
        c.invalid_text("path", text(v, "path"), "must be an absolute path");
    }
}

pub fn iscsi(c: &mut Checker, v: &Value) {
    c.need(v, "targetPortal");
    match text(v, "iqn") {
        "" => c.required("iqn", ""),
        iqn if !["iqn", "eui", "naa"].iter().any(|p| iqn.starts_with(p)) => {
            c.invalid_text("iqn", iqn, "must be valid format");
        }
        _ => {}
    }
    if int(v, "lun").is_some_and(|n| !(0..=255).contains(&n)) {
        c.invalid("lun", &v["lun"], "must be between 0 and 255, inclusive");
    }
    if (flag(v, "chapAuthDiscovery") || flag(v, "chapAuthSession")) && !has(v, "secretRef") {
        c.required("secretRef", "");
    }
}

pub fn glusterfs(c: &mut Checker, v: &Value) {
    c.need(v, "endpoints");
    c.need(v, "path");
}

pub fn flocker(c: &mut Checker, v: &Value) {
    match (text(v, "datasetName"), text(v, "datasetUUID")) {
        ("", "") => c.required("", "one of datasetName and datasetUUID is required"),
        ("", _) => {}
        (name, "") if name.contains('/') => c.invalid_text("datasetName", name, "must not contain '/'"),
        (_, "") => {}
        _ => c.invalid("", v, "resource can not specify datasetName and datasetUUID simultaneously"),
    }
}

fn claim(c: &mut Checker, v: &Value) {
    c.need(v, "claimName");
}

pub fn rbd(c: &mut Checker, v: &Value) {
    if list(v, "monitors").is_empty() {
        c.required("monitors", "");
    }
    c.need(v, "image");
}

pub fn cinder(c: &mut Checker, v: &Value) {
    c.need(v, "volumeID");
    if has(v, "secretRef") && text(&v["secretRef"], "name").is_empty() {
        c.required("secretRef.name", "");
    }
}

pub fn cephfs(c: &mut Checker, v: &Value) {
    if list(v, "monitors").is_empty() {
        c.required("monitors", "");
    }
}

pub fn quobyte(c: &mut Checker, v: &Value) {
    match text(v, "registry") {
        "" => c.required("registry", "must be a host:port pair or multiple pairs separated by commas"),
        registry if registry.len() >= 65536 => c.too_long("registry", 65535),
        registry => {
            for pair in registry.split(',').filter(|pair| !pair.contains(':')) {
                c.invalid_text("registry", pair, "must be a host:port pair or multiple pairs separated by commas");
            }
        }
    }
    if text(v, "tenant").len() >= 65 {
        c.required("tenant", "must be a UUID and may not exceed a length of 64 characters");
    }
    c.need(v, "volume");
}

/// Fields of pods that files and environment variables may show.
fn downward_item(c: &mut Checker, item: &Value) {
    match text(item, "path") {
        "" => c.required("path", ""),
        path => non_reserved_path(c, "path", path),
    }
    if has(item, "fieldRef") {
        c.at(item, "fieldRef", |c, r| super::container::validate_field_selector(c, r, super::container::VOLUME_FIELDS));
        if has(item, "resourceFieldRef") {
            c.invalid_text("", "resource", "fieldRef and resourceFieldRef can not be specified simultaneously");
        }
    } else if has(item, "resourceFieldRef") {
        c.at(item, "resourceFieldRef", |c, r| super::container::validate_resource_field_selector(c, r, true));
    } else {
        c.required("", "one of fieldRef and resourceFieldRef is required");
    }
    mode(c, item, "mode");
}

fn downward_api(c: &mut Checker, v: &Value) {
    mode(c, v, "defaultMode");
    // Upstream leaves the index of an item out of the path.
    for item in list(v, "items") {
        downward_item(c, item);
    }
}

pub fn fibre_channel(c: &mut Checker, v: &Value) {
    let (names, ids) = (list(v, "targetWWNs"), list(v, "wwids"));
    match (names.is_empty(), ids.is_empty()) {
        (true, true) => c.required("targetWWNs", "must specify either targetWWNs or wwids, but not both"),
        (false, false) => {
            c.invalid("targetWWNs", &v["targetWWNs"], "targetWWNs and wwids can not be specified simultaneously");
        }
        (false, true) => match int(v, "lun") {
            None => c.required("lun", "lun is required if targetWWNs is specified"),
            Some(_) => c.in_range(v, "lun", 0, 255),
        },
        (true, false) => {}
    }
}

pub fn flex(c: &mut Checker, v: &Value) {
    c.need(v, "driver");
    for (key, _) in entries(v, "options") {
        let host = key.split('/').next().unwrap_or_default();
        if host == "kubernetes.io" || host == "k8s.io" || host.ends_with(".kubernetes.io") || host.ends_with(".k8s.io")
        {
            c.invalid_text(&format!("options[{key}]"), key, "'kubernetes.io' and 'k8s.io' namespaces are reserved");
        }
    }
}

pub fn azure_file(c: &mut Checker, v: &Value) {
    c.need(v, "secretName");
    c.need(v, "shareName");
}

pub fn azure_disk(c: &mut Checker, v: &Value) {
    c.need(v, "diskName");
    c.need(v, "diskURI");
    c.optional_choice(v, "cachingMode", &["None", "ReadOnly", "ReadWrite"]);
    c.optional_choice(v, "kind", &["Dedicated", "Managed", "Shared"]);
    let (kind, uri) = (text(v, "kind"), text(v, "diskURI"));
    if kind == "Managed" && !uri.starts_with("/subscriptions/") {
        c.not_supported(
            "diskURI",
            &uri.into(),
            &["/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"],
        );
    }
    if has(v, "kind") && kind != "Managed" && !uri.starts_with("https://") {
        c.not_supported(
            "diskURI",
            &uri.into(),
            &["https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"],
        );
    }
}

fn projected(c: &mut Checker, v: &Value) {
    mode(c, v, "defaultMode");
    c.each(v, "sources", projection);
    duplicate_projected_paths(c, v);
}

fn projection(c: &mut Checker, source: &Value) {
    const KINDS: &[&str] =
        &["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];
    let mut first = true;
    for kind in KINDS.iter().filter(|k| has(source, k)) {
        if !std::mem::take(&mut first) {
            c.forbidden(kind, "may not specify more than 1 volume type per source");
            continue;
        }
        c.at(source, kind, |c, v| match *kind {
            "secret" | "configMap" => {
                c.need(v, "name");
                c.each(v, "items", key_to_path);
            }
            // Upstream names the projection, not the item.
            "downwardAPI" => c.each(v, "items", downward_item),
            "serviceAccountToken" => service_account_token(c, v),
            "clusterTrustBundle" => cluster_trust_bundle(c, v),
            _ => {}
        });
    }
}

fn service_account_token(c: &mut Checker, v: &Value) {
    let seconds = int(v, "expirationSeconds").unwrap_or(3600);
    if seconds < 600 {
        c.invalid("expirationSeconds", &seconds.into(), "may not specify a duration less than 10 minutes");
    }
    if seconds > 1 << 32 {
        c.invalid("expirationSeconds", &seconds.into(), "may not specify a duration larger than 2^32 seconds");
    }
}

fn cluster_trust_bundle(c: &mut Checker, v: &Value) {
    match (has(v, "name"), has(v, "signerName")) {
        (true, true) => c.invalid("", v, "only one of name and signerName may be used"),
        (false, false) => c.required("", "either name or signerName must be specified"),
        _ => {}
    }
    c.need(v, "path");
}

/// Two sources may not write one file; tokens and bundles need a path. These errors stand at the volume.
fn duplicate_projected_paths(c: &mut Checker, v: &Value) {
    let mut seen: Vec<String> = Vec::new();
    for source in list(v, "sources") {
        for kind in ["secret", "configMap", "downwardAPI"] {
            for item in list(&source[kind], "items") {
                let path = text(item, "path");
                if path.is_empty() {
                    continue;
                }
                if seen.iter().any(|p| p == path) {
                    c.invalid_text(
                        "sources",
                        text(&source[kind], "name"),
                        format!("conflicting duplicate paths: {path}"),
                    );
                } else {
                    seen.push(path.to_string());
                }
            }
        }
        if has(source, "serviceAccountToken") {
            match text(&source["serviceAccountToken"], "path") {
                "" => c.required("path", ""),
                path => non_reserved_path(c, "path", path),
            }
        }
    }
}

pub fn scale_io(c: &mut Checker, v: &Value) {
    for field in ["gateway", "system", "volumeName"] {
        c.need(v, field);
    }
}

fn csi(c: &mut Checker, v: &Value) {
    persistent::csi_driver_name(c, text(v, "driver"), "driver");
    if has(v, "nodePublishSecretRef") && is_empty(&v["nodePublishSecretRef"], "name") {
        c.required("nodePublishSecretRef.name", "");
    }
}

fn ephemeral(c: &mut Checker, v: &Value) {
    if !has(v, "volumeClaimTemplate") {
        c.required("volumeClaimTemplate", "");
        return;
    }
    c.at(v, "volumeClaimTemplate", |c, template| {
        c.at(template, "metadata", |c, m| {
            super::labels::validate(c, m, "labels");
            metadata::validate_annotations(c, m);
        });
        c.at(template, "spec", persistent::validate_claim_spec);
    });
}

fn image(c: &mut Checker, v: &Value) {
    c.need(v, "reference");
    if !text(v, "pullPolicy").is_empty() {
        c.supported(v, "pullPolicy", &["Always", "IfNotPresent", "Never"]);
    }
}
