//! Rules from objects: every `proxy/*.json` holds Services and EndpointSlices, and beside it lie the rules expected of them, as
//! `.nft` and `.iptables`. `KNARR_UPDATE=1` writes them anew, to be read before they are committed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use knarr_network::proxy::model::{Frontend, Surroundings, frontends};
use knarr_network::proxy::{iptables, nftables};

#[derive(serde::Deserialize)]
struct Case {
    services: Vec<Service>,
    #[serde(default, rename = "endpointSlices")]
    slices: Vec<EndpointSlice>,
}

fn surroundings() -> Surroundings {
    Surroundings {
        cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
        masquerade_bridged: false,
    }
}

fn cases() -> Vec<(PathBuf, Vec<Frontend>)> {
    let directory = "tests/proxy";
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let case: Case = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let services: Vec<Arc<Service>> = case.services.into_iter().map(Arc::new).collect();
            let slices: Vec<Arc<EndpointSlice>> = case.slices.into_iter().map(Arc::new).collect();
            cases.push((path, frontends(&services, &slices, "this-node")));
        }
    }
    cases.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(!cases.is_empty());
    cases
}

fn expect(path: &Path, actual: &str) {
    if std::env::var_os("KNARR_UPDATE").is_some() {
        std::fs::write(path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(actual, expected, "{}", path.display());
}

#[test]
fn nftables_rules_are_those_expected() {
    let nothing = nftables::render(&[], &surroundings());
    for (path, frontends) in cases() {
        let rules = nftables::render(&frontends, &surroundings());
        expect(&path.with_extension("nft"), &rules.difference(&nothing));
        assert_eq!(rules.difference(&rules), "");
    }
}

#[test]
fn iptables_rules_are_those_expected() {
    for (path, frontends) in cases() {
        expect(&path.with_extension("iptables"), &iptables::render(&frontends, &surroundings(), &[]));
    }
}

#[test]
fn going_from_one_set_of_rules_to_another_removes_what_is_gone() {
    let nothing = nftables::render(&[], &surroundings());
    for (path, frontends) in cases() {
        let rules = nftables::render(&frontends, &surroundings());
        let back = nothing.difference(&rules);
        let count = |script: &str, verb: &str| script.lines().filter(|line| line.starts_with(verb)).count();
        let forth = rules.difference(&nothing);
        assert_eq!(count(&forth, "add chain"), count(&back, "delete chain"), "{}", path.display());
        assert_eq!(count(&forth, "add element"), count(&back, "delete element"), "{}", path.display());
        assert_eq!(count(&forth, "add set"), count(&back, "delete set"), "{}", path.display());
    }
}
